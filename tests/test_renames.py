"""Decisions that match nothing are reported; a renamed class keeps decisions and photographs."""
import pytest

from dataset_preparation.cleaning.decisions import append_decisions, former_names
from tests.conftest import NAMES, make_collected, write_classes
from tests.preparing import clean, label
from utils import read_classes, read_table

NEW = "Rosa nova"


@pytest.fixture
def folder(tmp_path):
    """A folder of three classes, cleaned, with 3 rejected and 1 moved photograph of the first."""
    make_collected(tmp_path / "collected", count=12)
    write_classes(tmp_path / "classes.csv", NAMES)
    rows = [row for row in clean(tmp_path).values() if row["class"] == NAMES[0]]
    append_decisions(tmp_path / "cleaned/decisions.csv", [
        *((row["sha256"], NAMES[0], "reject", "", "") for row in rows[:3]),
        (rows[3]["sha256"], NAMES[0], "move", NAMES[1], "")])
    clean(tmp_path)
    return tmp_path


def rename(folder, also):
    (folder / "collected/images" / NAMES[0]).rename(folder / "collected/images" / NEW)
    (folder / "classes.csv").write_text("label,latin,russian,english,also\n"
                                        f"0,{NEW},,,{also}\n1,{NAMES[1]},,,\n2,{NAMES[2]},,,\n")


def test_a_renamed_class_keeps_decisions_sides_and_numbers(folder, capsys):
    before = label(folder)
    rename(folder, NAMES[0])
    capsys.readouterr()
    cleaned = clean(folder)
    assert "match no photograph" not in capsys.readouterr().err
    mine = [row for row in cleaned.values() if row["class"] == NEW]
    assert sum(row["status"] == "rejected" for row in mine) == 3
    assert sum(row["label_class"] == NAMES[1] for row in mine) == 1
    after = label(folder)
    expected = {path.replace(NAMES[0], NEW).replace("rosa_prima", "rosa_nova"): row["sha256"]
                for path, row in before.items()}
    assert {path: row["sha256"] for path, row in after.items()} == expected
    for path in before:
        if NAMES[0] in path:
            assert (folder / "dataset/set_aside" / path).is_file()
            assert not (folder / "dataset" / path).exists()


def test_two_classes_that_become_one_lose_no_photograph(folder):
    before = {row["sha256"]: path.split("/")[0] for path, row in label(folder).items()}
    (folder / "classes.csv").write_text("label,latin,russian,english,also\n"
                                        f"0,{NAMES[1]},,,{NAMES[0]}\n1,{NAMES[2]},,,\n")
    clean(folder)
    after = label(folder)
    sides = {row["sha256"]: path.split("/")[0] for path, row in after.items()}
    assert sides == before and len(after) == len(before)  # each at a path of its own
    assert all((folder / "dataset" / path).is_file() for path in after)


def test_decisions_that_match_nothing_are_counted_and_named(folder, capsys):
    rename(folder, "")
    capsys.readouterr()
    cleaned = clean(folder)
    text = capsys.readouterr().err
    assert "4 decisions of decisions.csv match no photograph" in text
    assert f"{NAMES[0]}: reject" in text
    assert sum(row["status"] == "kept" for row in cleaned.values()) == 36


def test_pairs_of_photographs_that_are_gone_are_named(folder, capsys):
    rows = sorted(clean(folder).values(), key=lambda row: row["file"])
    (folder / "collected/images" / rows[-1]["file"]).unlink()
    append_decisions(folder / "cleaned/decisions.csv", [
        (rows[4]["sha256"], NAMES[0], "not_duplicate", rows[-1]["sha256"], ""),
        (rows[-1]["sha256"], NAMES[2], "duplicate", rows[5]["sha256"], ""),
        (rows[4]["sha256"], NAMES[0], "not_duplicate", rows[5]["sha256"], "")])
    capsys.readouterr()
    clean(folder)
    text = capsys.readouterr().err
    assert "2 decisions of decisions.csv match no photograph" in text
    for action, sha in (("not_duplicate", rows[4]["sha256"]), ("duplicate", rows[5]["sha256"])):
        pair = " ".join(one[:16] for one in sorted((sha, rows[-1]["sha256"])))
        assert f"{action} {pair}" in text
    clean(folder, "--limit_classes", "1")  # its partner may be of a class that is not in use
    assert "match no photograph" not in capsys.readouterr().err


def test_a_folder_under_a_former_name_is_of_the_class(folder, capsys):
    before = label(folder)
    rename(folder, NAMES[0])
    (folder / "collected/images" / NEW).rename(folder / "collected/images" / NAMES[0])
    capsys.readouterr()
    cleaned = clean(folder)
    printed = capsys.readouterr()
    assert f"is cleaned as {NEW}" in printed.out
    assert "match no photograph" not in printed.err
    mine = [row for row in cleaned.values() if row["file"].startswith(NAMES[0])]
    assert {row["class"] for row in mine} == {NEW}
    assert sum(row["status"] == "rejected" for row in mine) == 3
    assert len(label(folder)) == len(before)


def test_decisions_of_classes_not_in_use_are_not_called_unmatched(folder, capsys):
    write_classes(folder / "classes.csv", (*NAMES[1:], NAMES[0]))
    clean(folder, "--limit_classes", "2")
    assert "match no photograph" not in capsys.readouterr().err


def test_settings_without_effect_are_reported_with_how_to_apply_them(folder, capsys):
    before = label(folder)
    assert "first split" not in capsys.readouterr().err
    for _ in range(2):
        assert label(folder, "--split_seed", "5", "--test_per_class", "2") == before
        text = capsys.readouterr().err
        assert "split_seed 5 (first split: 0)" in text
        assert "test_per_class 2 (first split: 3)" in text
        assert "--dataset_dir" in text
    label(folder)
    assert "first split" not in capsys.readouterr().err
    for name in ("train_labels.csv", "test_labels.csv"):  # as the warning advises
        (folder / "dataset" / name).rename(folder / name)
    after = label(folder, "--split_seed", "5")
    assert "first split" not in capsys.readouterr().err

    def sides(rows):
        return {row["sha256"]: path.split("/")[0] for path, row in rows.items()}
    assert sides(after) != sides(before)
    assert read_table(folder / "dataset/split_settings.csv")[0]["value"] == "5"


def test_only_a_name_of_one_class_that_is_no_class_is_a_former_name(tmp_path):
    (tmp_path / "classes.csv").write_text(
        "label,latin,russian,english,also\n0,Rosa nova,,,Rosa Prima; Rosa communis\n"
        "1,Rosa alia,,,Rosa communis; Rosa nova\n")
    assert former_names(read_classes(tmp_path / "classes.csv")) == {"rosa_prima": "Rosa nova"}
