"""The split by group: quotas, seed, earlier sides, groups of several classes."""
from collections import Counter

import pytest

from dataset_preparation.labeling.labeling_utils import group_photographs, split


def make_rows(*groups):
    """Return rows of groups, each a text with the label of every photograph, such as "001"."""
    return [{"group": f"g{i}", "sha256": f"{i}.{j}", "label": int(label), "kept": True}
            for i, labels in enumerate(groups) for j, label in enumerate(labels)]


def count_test(rows, sides):
    """Return {label: number of test photographs}."""
    return Counter(row["label"] for row in rows if sides[row["group"]] == "test")


@pytest.mark.parametrize("photographs, per_class, expected", [
    (30, 5, 5), (30, 10, 10), (30, 20, 10), (9, 5, 3), (2, 5, 0)])
def test_a_class_fills_its_quota_but_gives_a_third_at_most(photographs, per_class, expected):
    rows = make_rows(*("0" * photographs), *("1" * 30))
    sides, moved = split(rows, {}, per_class, seed=0)
    assert (count_test(rows, sides)[0], moved) == (expected, [])
    assert count_test(rows, sides)[1] == min(per_class, 10)


def test_the_seed_chooses_which_groups_become_test():
    rows = make_rows(*("0" * 30))
    chosen = {seed: frozenset(group for group, side in split(rows, {}, 5, seed)[0].items()
                              if side == "test") for seed in range(4)}
    assert len(set(chosen.values())) == 4
    assert chosen[0] == {group for group, side in split(rows[::-1], {}, 5, 0)[0].items()
                         if side == "test"}


def test_a_group_of_several_classes_goes_to_train():
    for seed in range(10):
        rows = make_rows("01", "10", "001", *("0" * 9), *("1" * 9))
        sides, _ = split(rows, {}, 5, seed)
        assert {sides[f"g{i}"] for i in range(3)} == {"train"}
        assert min(count_test(rows, sides).values()) >= 3


def test_groups_keep_their_side_and_count_in_the_quota():
    rows = make_rows("00", "00", *("0" * 20))
    before = {"0.0": "test", "1.0": "train"}
    for seed in range(5):
        sides, moved = split(rows, before, 4, seed)
        assert (sides["g0"], sides["g1"], moved) == ("test", "train", [])
        assert count_test(rows, sides)[0] == 4


def test_a_group_that_touches_both_sides_moves_to_train():
    rows = make_rows("00", *("0" * 20))
    sides, moved = split(rows, {"0.0": "test", "0.1": "train"}, 4, 0)
    assert (sides["g0"], moved) == ("train", ["g0"])


def test_pages_near_duplicates_and_cleaning_join_groups():
    rows = [{"sha256": sha * 16, "group": group} for sha, group in zip("fedcba", "112345",
                                                                       strict=True)]
    pages = {"d" * 16: {"page"}, "c" * 16: {"page", "other page"}}
    groups = group_photographs(rows, pages, [(4, 5)])
    assert groups == [letter * 16 for letter in "eeccaa"]
