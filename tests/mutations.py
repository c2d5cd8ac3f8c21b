"""One-line mutations of the product, each with the tests that must fail when the line is mutated.

To add a row, write it under the heading of its subject:

    Mutation("what goes wrong", "file.py", "the original fragment", "the mutated fragment",
             ("tests/test_file.py::test_name",)),

- The original is a line, or a part of one, that occurs exactly once in the file, without its
  indentation and line break.
- The mutated file must still run: the tests have to notice what it does, not that it crashes.
- A test is named without parameters, `tests/test_file.py::test_name`, or with them,
  `...::test_name[case]`. Name the fastest that notices. At least one test of the row must fail
  on the mutated file, and all must pass on the original.

See every row fail, in a copy of the repository (two to ten seconds a row):

    python -m pytest -q -m slow tests/test_mutations.py -k "part of its name"
"""
from typing import NamedTuple


class Mutation(NamedTuple):
    """A fragment of a file, what replaces it, and the tests that must notice."""

    name: str
    file: str
    original: str
    mutated: str
    tests: tuple


MUTATIONS = (
    # ---- training: schedule, optimiser, seeds, resume, linear probe ----


    # ---- training data: augmentation, image cache, sampling ----
    Mutation("flip probability inverted", "training/augmentation.py",
             "flipped = rng.random() < a.flip", "flipped = rng.random() >= a.flip",
             ("tests/test_augmentation.py::"
              "test_views_are_flipped_with_the_probability_of_the_setting[0.2]",)),
    Mutation("views are never flipped", "training/augmentation.py",
             "view = view.flip(3) if flipped else view", "view = view",
             ("tests/test_augmentation.py::test_crops_are_torchvisions",)),
    Mutation("the epoch is ignored in the seed of a view", "training/augmentation.py",
             'stream_seed(seed, "augmentation", epoch, draw)',
             'stream_seed(seed, "augmentation", draw)',
             ("tests/test_augmentation.py::test_a_view_is_a_function_of_seed_epoch_and_draw",)),
    Mutation("the draw is ignored in the seed of a view", "training/augmentation.py",
             'stream_seed(seed, "augmentation", epoch, draw)',
             'stream_seed(seed, "augmentation", epoch)',
             ("tests/test_augmentation.py::test_a_view_is_a_function_of_seed_epoch_and_draw",)),
    Mutation("the operations are not seeded by the view", "training/augmentation.py",
             "torch.default_generator.manual_seed(view_seed)", "pass",
             ("tests/test_augmentation.py::test_operations_are_torchvisions",)),
    Mutation("the smallest crop ignored", "training/augmentation.py",
             "rng.uniform(scale_min, 1)", "rng.uniform(0.08, 1)",
             ("tests/test_augmentation.py::test_the_smallest_crop_is_that_of_the_setting",)),
    Mutation("the aspect ratio uniform, not log-uniform", "training/augmentation.py",
             "math.exp(rng.uniform(math.log(narrowest), math.log(widest)))",
             "rng.uniform(narrowest, widest)",
             ("tests/test_augmentation.py::test_boxes_are_those_of_random_resized_crop",)),
    Mutation("the epoch is ignored in the order", "dataset.py",
             'stream_seed(self.seed, "order", self.epoch)', 'stream_seed(self.seed, "order")',
             ("tests/test_dataset.py::"
              "test_an_epoch_is_every_photograph_once_in_an_order_of_seed_and_epoch",)),
    Mutation("every rank trains on the same shard", "dataset.py",
             "range(self.rank, len(self) * self.world_size, self.world_size)",
             "range(0, len(self) * self.world_size, self.world_size)",
             ("tests/test_dataset.py::test_shards_of_a_step_make_up_the_batch_of_one_process",)),
    Mutation("every rank takes a whole batch", "dataset.py",
             "min(s.batch_size // world_size, len(order))", "min(s.batch_size, len(order))",
             ("tests/test_dataset.py::test_ranks_share_a_batch_equally",)),
    Mutation("a group with several classes allowed into validation", "dataset.py",
             "sizes = groups[~groups.isin(mixed_groups)].value_counts().to_dict()",
             "sizes = groups.value_counts().to_dict()",
             ("tests/test_dataset.py::test_a_group_of_several_classes_stays_in_training",)),
    Mutation("validation of single photographs, not of whole groups", "dataset.py",
             'in_validation = table["group"].isin(chosen)',
             'in_validation = table["group"].isin(chosen) & (table.index % 2 == 0)',
             ("tests/test_dataset.py::"
              "test_validation_has_its_share_of_every_class_in_whole_groups",)),
    Mutation("the share of validation ignored", "dataset.py",
             "quota = share * sum(sizes.values())", "quota = 0.25 * sum(sizes.values())",
             ("tests/test_dataset.py::"
              "test_validation_has_its_share_of_every_class_in_whole_groups",)),
    Mutation("a class left without training photographs", "dataset.py",
             "picked.remove(min(picked))", "pass",
             ("tests/test_dataset.py::test_all_of_a_class_is_never_validation",)),
    Mutation("the seed of the split ignored", "dataset.py",
             "picked = (pick_groups(sizes, quota, seed)", "picked = (pick_groups(sizes, quota, 0)",
             ("tests/test_dataset.py::"
              "test_validation_depends_on_the_seed_and_not_on_the_order_of_rows",)),
    Mutation("class weights in the order of frequency, not of the labels", "dataset.py",
             "weights = len(labels) / (num_classes * np.maximum(counts, 1))",
             "weights = np.sort(len(labels) / (num_classes * np.maximum(counts, 1)))[::-1].copy()",
             ("tests/test_dataset.py::test_balance",)),
    Mutation("a cache of another layout is read", "training/image_cache.py",
             "if stream.read(len(header)) != header:",
             "if stream.read(len(header))[8:] != header[8:]:",
             ("tests/test_image_cache.py::"
              "test_a_damaged_or_foreign_cache_is_reported_and_rebuilt[other layout]",)),
    Mutation("a cache outlives a changed photograph", "training/image_cache.py",
             "files = [(path, stat.st_size, stat.st_mtime_ns)", "files = [(path,)",
             ("tests/test_image_cache.py::test_what_decides_the_pixels_decides_the_cache",)),
    Mutation("gradients are not averaged over the ranks", "training/distributed.py",
             "return DistributedDataParallel(model) if world_size() > 1 else model",
             "return model",
             ("tests/test_distributed.py::test_two_ranks_train_as_one_process_does",)),
    # ---- hyperparameter optimisation ----


    # ---- collecting ----


    # ---- cleaning: near-duplicates, decisions, review ----


    # ---- labelling: groups, splits, its journal ----


    # ---- predictions: evaluation, calibration, test-time augmentation, export ----


    # ---- packing, quickstart ----
    Mutation("an archive that differs is overwritten without asking", "pack.py",
             "if differing and not replace:", "if differing and replace:",
             ("tests/test_pack.py::test_nothing_is_overwritten_unasked",)),
    Mutation("the model card shows the results of another checkpoint", "pack.py",
             'if report.get("checkpoint_sha256") == file_sha256(checkpoint):', "if report:",
             ("tests/test_pack.py::"
              "test_the_model_card_takes_its_numbers_from_the_report_on_this_very_file",)),
    Mutation("the dataset card does not see data leakage", "pack.py",
             "leaks = sum(len(both) > 1 for", "leaks = sum(len(both) > 2 for",
             ("tests/test_pack.py::test_the_dataset_card_says_whether_it_is_a_group_split",)),
)
