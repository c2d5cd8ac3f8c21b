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


PARSING = "dataset_preparation/parsing/"

MUTATIONS = (
    # ---- training: schedule, optimiser, seeds, resume, linear probe ----
    Mutation("the cosine decay is constant", "training/optimization.py",
             "return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))",
             "return 1.0",
             ("tests/test_optimization.py::test_the_rate_rises_linearly_and_then_falls_along_a_cosine_to_zero",)),
    Mutation("there is no warm-up", "training/optimization.py",
             "if step < warmup:", "if step < 0:",
             ("tests/test_optimization.py::test_the_rate_rises_linearly_and_then_falls_along_a_cosine_to_zero",)),
    Mutation("a resumed run restarts the schedule", "training/optimization.py",
             'steps_done = last["epoch"] * steps_per_epoch if last else 0', "steps_done = 0",
             ("tests/test_optimization.py::test_a_resumed_schedule_continues_where_it_was",)),
    Mutation("every step has the same seed", "train.py",
             'torch.manual_seed(stream_seed(run.seed, "step", run.epoch, step, rank()))',
             'torch.manual_seed(stream_seed(run.seed, "step"))',
             ("tests/test_optimization.py::test_every_step_of_every_epoch_has_its_own_random_numbers",)),
    Mutation("all augmented views of the linear probe are the same", "training/linear_probe.py",
             "augmented.sampler.set_epoch(1 - view)", "augmented.sampler.set_epoch(-1)",
             ("tests/test_optimization.py::test_the_views_of_the_linear_probe",)),
    Mutation("all views of the linear probe are those of evaluation", "training/linear_probe.py",
             "loader = plain if view < 2 else augmented", "loader = plain",
             ("tests/test_optimization.py::test_the_views_of_the_linear_probe",)),
    Mutation("norms and biases get weight decay", "model.py",
             "decays = parameter.ndim > 1", "decays = True",
             ("tests/test_optimization.py::test_norms_and_biases_get_no_weight_decay[resnet18]",)),
    Mutation("validation has no test-time augmentation", "train.py",
             "logits, labels = collect_logits(model, val_batches, flip_tta)",
             "logits, labels = collect_logits(model, val_batches)",
             ("tests/test_optimization.py::test_validation_averages_each_photograph_with_its_mirror_image[True]",)),
    Mutation("epochs are selected without a temperature", "train.py",
             "scaled = torch.from_numpy(logits / temperature).double()",
             "scaled = torch.from_numpy(logits).double()",
             ("tests/test_optimization.py::test_epochs_are_selected_by_the_loss_at_the_fitted_temperature",)),
    Mutation("a clearly worse epoch is kept", "train.py",
             'if not clearly_worse(losses, run.lowest["losses"]):', "if True:",
             ("tests/test_train.py::test_the_last_epoch_is_kept_that_validation_does_not_find_clearly_worse",)),


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
    Mutation("a redirect from https to http is followed", PARSING + "safe_download.py",
             "if is_downgrade(address, target):", "if False:",
             ("tests/test_safe_download.py::test_a_redirect_from_https_to_http_is_refused",)),
    Mutation("requests follows redirects by itself, unchecked", PARSING + "safe_download.py",
             "allow_redirects=False", "allow_redirects=True",
             ("tests/test_safe_download.py::test_a_redirect_from_https_to_http_is_refused",)),
    Mutation("a redirect may lead to a private address", PARSING + "connections.py",
             "if name not in self.private_hosts and not is_public(address):", "if False:",
             ("tests/test_parsing_hostile.py::test_redirects_do_not_lead_to_private_addresses",)),
    Mutation("a private IPv4 address is public when wrapped in IPv6", PARSING + "connections.py",
             "if ip.version == 6:", "if False:",
             ("tests/test_safe_download.py::test_only_addresses_of_the_public_internet_are_public",)),
    Mutation("a host name is looked up anew when connecting", PARSING + "connections.py",
             "self._dns_host = address", "self._dns_host = name",
             ("tests/test_safe_download.py::test_a_host_name_is_resolved_once",)),
    Mutation("strangers' addresses go through the proxy, past the guard", PARSING + "connections.py",
             "session.trust_env = False", "session.trust_env = True",
             ("tests/test_safe_download.py::"
              "test_the_proxy_of_the_environment_is_used_for_the_users_own_addresses_only",)),
    Mutation("Retry-After is ignored", PARSING + "safe_download.py",
             "return max(error.wait, min(", "return max(0.0, min(",
             ("tests/test_safe_download.py::"
              "test_pauses_grow_and_are_at_least_what_the_host_asks_for",)),
    Mutation("Retry-After is not read from the response", PARSING + "safe_download.py",
             'retry_after(response.headers.get("Retry-After", ""))', "0.0",
             ("tests/test_download_archives.py::test_what_may_pass_is_retried",)),
    Mutation("a body may have any size", PARSING + "safe_download.py",
             "if file.tell() > self.limits.max_bytes:", "if False:",
             ("tests/test_parsing_hostile.py::test_slow_and_endless_responses_end_in_time",)),
    Mutation("a body cut short by the watchdog is taken for whole", PARSING + "safe_download.py",
             "if self.watchdog.expired():", "if False:",
             ("tests/test_parsing_hostile.py::test_slow_and_endless_responses_end_in_time",)),
    Mutation("an archive with another SHA-256 is accepted", PARSING + "archives.py",
             'if sha256.lower() not in ("", actual):', "if False:",
             ("tests/test_download_files.py::test_a_wrong_sum_unpacks_nothing",)),
    Mutation("a changed archive is resumed", PARSING + "archives.py",
             ', "If-Range": state["validator"]}', "}",
             ("tests/test_download_archives.py::"
              "test_a_download_starts_over_where_resuming_is_not_safe[other file]",)),
    Mutation("an archive is resumed by a weak ETag", PARSING + "archives.py",
             """etag if etag.startswith('"') else""", "etag if etag else",
             ("tests/test_download_archives.py::"
              "test_a_download_starts_over_where_resuming_is_not_safe[weak validator]",)),
    Mutation("another range than the requested one is appended", PARSING + "archives.py",
             "if response.status_code == 206 and continues(response, done, state[\"size\"]):",
             "if response.status_code == 206:",
             ("tests/test_download_archives.py::"
              "test_a_download_starts_over_where_resuming_is_not_safe[wrong part]",)),
    Mutation("a member of an archive may lead out of its folder", PARSING + "archives.py",
             'if found := [fault for fault, present in faults.items() if present]:',
             'if found := [fault for fault, present in list(faults.items())[1:] if present]:',
             ("tests/test_download_unpack.py::test_members_that_lead_out_are_refused",)),
    Mutation("a finished search is made again", PARSING + "parsing.py",
             "if earlier and (", "if False and (",
             ("tests/test_parsing.py::"
              "test_a_run_collects_what_the_server_has_and_a_second_requests_nothing",)),
    Mutation("a search that had enough is not repeated when more is wanted", PARSING + "parsing.py",
             'or int(earlier["results"]) >= count):', "or True):",
             ("tests/test_parsing.py::"
              "test_a_larger_run_searches_more_and_downloads_what_is_missing",)),
    Mutation("a dead source is asked for every name", PARSING + "parsing.py",
             "or self.failures_in_a_row >= FAILURES_IN_A_ROW:", "or False:",
             ("tests/test_parsing.py::test_three_failures_in_a_row_stop_the_source",)),
    Mutation("photographs without an allowed licence are taken", PARSING + "inaturalist.py",
             'if (photo["license_code"] or "").lower() in self.options.licenses]',
             'if photo["license_code"]]',
             ("tests/test_parsing_sources.py::"
              "test_inaturalist_gives_every_allowed_photograph_once_past_a_page",)),
    Mutation("a host is asked without a delay", PARSING + "host_schedule.py",
             "delay = 0.0 if host.unavailable else self.limits.delay", "delay = 0.0",
             ("tests/test_parsing_downloads.py::test_a_host_has_few_connections_and_a_delay",)),
    Mutation("a host may send any number of bytes per hour", PARSING + "host_schedule.py",
             "if recent and sum(recent.values()) >= most:", "if False:",
             ("tests/test_parsing_downloads.py::"
              "test_a_host_that_has_sent_its_hourly_bytes_is_left_alone",)),
    Mutation("refused addresses are asked again", PARSING + "photo_downloads.py",
             'if row["status"] != "refused" and not', "if not",
             ("tests/test_parsing_downloads.py::test_failures_are_retried_refusals_are_not",)),


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
