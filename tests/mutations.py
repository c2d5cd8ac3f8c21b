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
