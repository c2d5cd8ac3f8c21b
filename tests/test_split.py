"""The split by group: quotas, seed, earlier sides, groups of several classes."""
from collections import Counter
from pathlib import PurePosixPath

import pytest

from dataset_preparation.labeling.groups import (
    capture_time,
    group_photographs,
    link_photographs,
    number_runs,
)
from dataset_preparation.labeling.split import assign_sides


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
    sides, moved = assign_sides(rows, {}, per_class, seed=0)
    assert (count_test(rows, sides)[0], moved) == (expected, [])
    assert count_test(rows, sides)[1] == min(per_class, 10)


def test_the_seed_chooses_which_groups_become_test():
    rows = make_rows(*("0" * 30))
    chosen = {seed: frozenset(group for group, side in assign_sides(rows, {}, 5, seed)[0].items()
                              if side == "test") for seed in range(4)}
    assert len(set(chosen.values())) == 4
    assert chosen[0] == {group for group, side in assign_sides(rows[::-1], {}, 5, 0)[0].items()
                         if side == "test"}


def test_a_group_of_several_classes_goes_to_train():
    for seed in range(10):
        rows = make_rows("01", "10", "001", *("0" * 9), *("1" * 9))
        sides, _ = assign_sides(rows, {}, 5, seed)
        assert {sides[f"g{i}"] for i in range(3)} == {"train"}
        assert min(count_test(rows, sides).values()) >= 3


def test_groups_keep_their_side_and_count_in_the_quota():
    rows = make_rows("00", "00", *("0" * 20))
    before = {"0.0": "test", "1.0": "train"}
    for seed in range(5):
        sides, moved = assign_sides(rows, before, 4, seed)
        assert (sides["g0"], sides["g1"], moved) == ("test", "train", [])
        assert count_test(rows, sides)[0] == 4


def test_a_group_that_touches_both_sides_moves_to_train():
    rows = make_rows("00", *("0" * 20))
    sides, moved = assign_sides(rows, {"0.0": "test", "0.1": "train"}, 4, 0)
    assert (sides["g0"], moved) == ("train", ["g0"])


def test_pages_near_duplicates_and_cleaning_join_groups():
    rows = [{"sha256": sha * 16, "group": group} for sha, group in zip("fedcba", "112345",
                                                                       strict=True)]
    pages = {"d" * 16: {"page"}, "c" * 16: {"page", "other page"}}
    for row in rows:
        row.update(label=0, file=f"Rosa/{row['sha256'][0] * 3}x.jpg", camera="", taken="",
                   author="")
    links = [*link_photographs(rows, pages, [], 5), ("borderline pairs", 4, 5)]
    groups, joined_by = group_photographs(rows, links)
    assert groups == [letter * 16 for letter in "eeccaa"]
    assert joined_by == {"e" * 16: "near-duplicates", "c" * 16: "page",
                         "a" * 16: "borderline pairs"}


@pytest.mark.parametrize("large, photographs", [(40, 60), (45, 60), (50, 60), (55, 60), (58, 60)])
def test_a_class_mostly_of_one_page_is_split_with_a_reserve_for_training(large, photographs):
    for seed in range(10):
        rows = make_rows("0" * large, *("0" * (photographs - large)), *("1" * 60))
        sides, _ = assign_sides(rows, {}, 30, seed)
        groups = {"train": set(), "test": set()}
        for row in rows:
            if row["label"] == 0:
                groups[sides[row["group"]]].add(row["group"])
        singles = photographs - large
        assert sides["g0"] == "train"
        assert len(groups["test"]) == (singles + 1) // 2
        assert len(groups["train"]) >= 2
        assert count_test(rows, sides)[1] == 20


def test_a_class_of_groups_above_the_quota_gives_its_smallest_to_test():
    rows = make_rows("0" * 7, "0" * 6, "0" * 5)
    sides, _ = assign_sides(rows, {}, 3, 0)
    assert sides == {"g0": "train", "g1": "train", "g2": "test"}


def series(*files, label=0, **values):
    return [{"sha256": f"{i:x}" * 64, "group": str(i), "label": label, "file": file, "camera": "",
             "taken": "", "author": "", **{name: some[i] for name, some in values.items()}}
            for i, file in enumerate(files)]


TIMES = ["2024-05-01T10:00:00", "2024-05-01T10:04:00", "2024-05-01T10:08:00",
         "2024-05-01T11:00:00"]


@pytest.mark.parametrize("rows, minutes, expected", [
    (series(*"abcd", taken=TIMES, camera=["A"] * 4), 5, ["camera and time"] * 3 + [""]),
    (series(*"abcd", taken=TIMES, camera=["A"] * 4), 1, [""] * 4),
    (series(*"abcd", taken=TIMES, camera=["A"] * 4), 0, [""] * 4),
    (series(*"abcd", taken=TIMES, camera=["A", "B", "A", "B"]), 5, [""] * 4),
    (series(*"abcd", taken=TIMES, camera=list("ABCD"), author=["L"] * 4), 5,
     ["author and time"] * 3 + [""]),
    (series("R/IMG_20240501_100000.jpg", "R/PXL_20240501_100010123.jpg", "R/x.jpg"), 5,
     ["camera and time"] * 2 + [""]),
    (series("R/a/x.jpg", "R/a/y.jpg", "R/b/z.jpg", "R/v.jpg"), 5, ["subfolder"] * 2 + [""] * 2),
    (series("R/a/x.jpg", "R/a/y.jpg", "R/a/z.jpg"), 5, [""] * 3),
    (series("R/P1.jpg", "R/P2.jpg", "R/P9.jpg", "R/u.jpg", "R/v.jpg"), 5,
     ["numbered series"] * 2 + [""] * 3),
    (series(*(f"R/DSC_{i}_small.jpg" for i in (1, 2, 8)), *(f"R/{i}.jpg" for i in "abcde")), 5,
     ["numbered series"] * 2 + [""] * 6),
    (series(*(f"R/{i}.{end}" for i in (1, 2, 4, 6) for end in ("jpg", "xmp")),
            *(f"R/{i}.jpg" for i in "abcd")), 5, ["numbered series"] * 4 + [""] * 8),
    (series("R/mmexport1714558512345.jpg", "R/photo_2024-05-01_10-15-13.jpg",
            "R/WhatsApp Image 2024-05-01 at 10.16.12.jpeg", "R/2024-05-01 10.17.12-2.jpg",
            "R/photo_2024-05-01_11-15-13.jpg"), 5, ["camera and time"] * 4 + [""]),
    (series("R/a/1/x.jpg", "R/a/2/y.jpg", "R/b/z.jpg"), 5, ["subfolder"] * 2 + [""]),
    (series("R/a/1/x.jpg", "R/a/1/y.jpg", "R/a/2/z.jpg"), 5, ["subfolder"] * 2 + [""]),
    (series(*(f"R/{i:03}.jpg" for i in range(8))), 5, [""] * 8),
    (series(*(f"R/image_{i:03}.jpg" for i in (1, 2, 3, 5, 6, 8, 9, 10))), 5, [""] * 8),
    (series(*(f"R/IMG_{i:04}.jpg" for i in range(101, 113))), 5, ["numbered series"] * 12),
    (series("R/first_1.jpg", "R/first_2.jpg", *(f"R/{name}.jpg" for name in "abc")), 5,
     ["numbered series"] * 2 + [""] * 3),
])
def test_each_kind_of_series_is_one_group_and_says_why(rows, minutes, expected):
    files = [(row["label"], row["file"]) for row in rows]
    groups, joined_by = group_photographs(rows, link_photographs(rows, {}, files, minutes))
    assert [joined_by.get(group, "") for group in groups] == expected
    assert len({group for group, kind in zip(groups, expected, strict=True) if kind}) == bool(
        any(expected))


@pytest.mark.parametrize("name, time", [
    ("WhatsApp Image 2024-05-01 at 3.15.12 PM", "2024-05-01 15:15:12"),
    ("WhatsApp Image 2024-05-01 at 12.15.12 AM (2)", "2024-05-01 00:15:12"),
    ("Screenshot 2024-05-01 at 9.15.12\u202fAM", "2024-05-01 09:15:12"),
    ("Screenshot 2024-05-01 at 12.05.00 p.m.", "2024-05-01 12:05:00"),
    ("01-05-2024 10-15-12", "2024-05-01 10:15:12"), ("05-31-2024 10-15-12", "2024-05-31 10:15:12"),
    ("2024-05-01 10:15:12", "2024-05-01 10:15:12"), ("2024:05:01 1:15:12", "2024-05-01 01:15:12"),
    ("IMG_20240501_101512", "2024-05-01 10:15:12"),
    ("PXL_20240501_101512123", "2024-05-01 10:15:12"),
    ("IMG_20241301_101512", "None"), ("2024050110151", "None"), ("31-31-2024 10-15-12", "None")])
def test_a_time_is_read_from_the_names_that_phones_write(name, time):
    assert str(capture_time({"file": f"R/{name}.jpeg", "taken": ""})) == time


def test_only_numbers_that_begin_near_1_count_a_folder_or_a_collection():
    """Two plants of 12 frames each are two series; the classes of a data set may be numbered on."""
    plants = [(0, f"R/IMG_{i:04}.jpg") for first in (101, 301) for i in range(first, first + 12)]
    assert Counter(number_runs(plants).values()) == {
        (PurePosixPath("R"), "img_", "", 101): 12, (PurePosixPath("R"), "img_", "", 301): 12}
    renumbered = [(label, f"{label}/IMG_{i:04}.jpg") for label in (1, 2) for i in range(1, 25)]
    assert number_runs(renumbered) == {}
    assert len(number_runs(plants + renumbered)) == 24
    collection = [(i // 80, f"{i // 80}/image_{i + 1:04}.jpg") for i in range(960) if i % 4]
    assert number_runs(collection) == {}
    assert len(number_runs(collection[60:])) > 600  # a camera's numbers begin anywhere


@pytest.mark.parametrize("one, other", [
    ("http://www.x.example/rose/", "https://x.example/rose"),
    ("https://www.inaturalist.org/observations/12", "https://inaturalist.ca/observations/12#a")])
def test_a_page_is_one_in_all_spellings(one, other):
    rows = series(*"ab")
    pages = {rows[0]["sha256"]: {one}, rows[1]["sha256"]: {other}}
    (kind, *pair), = link_photographs(rows, pages, [], 5)
    assert (kind, *pair) == ("page", 0, 1)


@pytest.mark.parametrize("date", ["2024-05-17", "2024-05-17T10:15:00+03:00", "17.05.2024", "2024"])
def test_a_day_of_one_person_is_one_from_all_sources(date):
    rows = series(*"ab", author=["Anna", "Anna"])
    rows[0].update(observer="anna_b", date=date)
    rows[1].update(observer="Anna", date=date)
    kinds = [kind for kind, *_ in link_photographs(rows, {}, [], 5)]
    assert kinds == ["observer and day"] * (date != "2024")


def test_photographs_of_two_classes_taken_on_one_walk_are_not_one_group():
    rows = series(*"ab", taken=TIMES[:2], camera=["A"] * 2)
    rows[1]["label"] = 1
    assert link_photographs(rows, {}, [], 5) == []
