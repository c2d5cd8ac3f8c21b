"""Labelling: the split holds, names are kept, nothing leaks, nothing is lost."""
import shutil
import subprocess
import sys

import pytest

import config
import pack
from dataset_preparation.cleaning.cleaned_table import COLUMNS
from dataset_preparation.cleaning.decisions import append_decisions
from dataset_preparation.cleaning.duplicate_pairs import BORDERLINE, NEAR, OVERLAP
from dataset_preparation.feedback import LICENSE, keep_feedback, read_feedback
from dataset_preparation.labeling import labeling, leak_check, split
from dataset_preparation.labeling.groups import join_groups
from tests.conftest import (
    NAMES,
    ROOT,
    draw,
    jpeg,
    make_collected,
    run_script,
    snapshot,
    write_classes,
)
from tests.preparing import LABELING, clean, flags, label, without_times
from utils import FileLock, InputError, read_table, sha256, write_table


@pytest.fixture
def folder(tmp_path):
    """A folder with 12 photographs of each of three classes, cleaned."""
    make_collected(tmp_path / "collected", count=12)
    write_classes(tmp_path / "classes.csv", NAMES)
    clean(tmp_path)
    return tmp_path


def sides(rows):
    return {row["sha256"]: path.split("/")[0] for path, row in rows.items()}


def add(folder, name, seeds, **options):
    for seed in seeds:
        (folder / f"collected/images/{name}/new{37 * seed}.jpg").write_bytes(
            jpeg(draw(seed), **options))
    clean(folder)


def test_labelling_writes_the_published_layout(folder):
    rows = label(folder)
    assert len(rows) == 36
    assert {path for path in rows if path.startswith("test/")} == {
        f"test/{name}/{name.lower().replace(' ', '_')}_test_{n}.jpg" for name in NAMES
        for n in (1, 2, 3)}
    for path, row in rows.items():
        assert (folder / "dataset" / path).is_file()
        assert row["latin"] == path.split("/")[1] == NAMES[int(row["label"])]
        assert len(row["sha256"]) == 64
    report = (folder / "dataset/split_report.txt").read_text()
    assert "near-duplicates across train and test: 0" in report
    assert "exact duplicates across train and test: 0" in report


def test_running_again_and_shuffled_listings_change_nothing(folder):
    label(folder)
    before = snapshot(folder / "dataset")
    label(folder)
    assert snapshot(folder / "dataset") == before
    rows = read_table(folder / "cleaned/cleaned.csv")
    write_table(folder / "cleaned/cleaned.csv", COLUMNS, rows[::-1])
    shutil.rmtree(folder / "dataset")
    label(folder)
    assert without_times(snapshot(folder / "dataset")) == without_times(before)


def test_of_two_runs_at_once_the_second_waits_for_the_first(folder):
    label(folder)
    before = snapshot(folder / "dataset")
    for *more, said in (("labelled 36",), ("--check", str(folder / "dataset"), "checked 36")):
        with FileLock(folder / "dataset/labels.lock"):
            second = subprocess.Popen([sys.executable, ROOT / LABELING, *flags(LABELING, folder),
                                       *more],
                                      stdout=subprocess.PIPE, text=True)
            assert second.stdout.readline(
                ) == f"waiting for another process that labels in {folder / 'dataset'}\n"
        assert said in second.communicate()[0]
        assert second.returncode == 0
    after = snapshot(folder / "dataset")
    after.pop("leak_report.txt")
    for files in (before, after):  # the check adds fingerprints to it
        files.pop("known_files.csv")
    assert after == before


def test_a_published_photograph_that_was_changed_is_set_aside(folder):
    path = min(label(folder))
    (folder / "dataset" / path).write_bytes(b"edited by hand")
    label(folder)
    assert (folder / "dataset/set_aside" / path).read_bytes() == b"edited by hand"
    assert (folder / "dataset" / path).read_bytes().startswith(b"\xff\xd8")


def test_labels_come_from_the_class_table(folder):
    write_classes(folder / "classes.csv", NAMES[::-1])
    rows = label(folder)
    assert {(row["label"], row["latin"]) for row in rows.values()} == {
        ("0", NAMES[2]), ("1", NAMES[1]), ("2", NAMES[0])}


def test_adding_photographs_moves_no_labelled_one(folder):
    before = sides(label(folder))
    add(folder, NAMES[1], range(5000, 5020))
    after = sides(label(folder, "--test_per_class", "5"))
    assert {sha: after[sha] for sha in before} == before
    # Only the grown class may have more
    assert sum(side == "test" for side in after.values()) == 3 + 5 + 3


def test_classes_left_out_for_a_while_keep_their_sides_and_names(folder):
    before, photographs = label(folder), snapshot(folder / "dataset/test")
    kept = label(folder, "--limit_classes", "2")
    assert kept == {path: row for path, row in before.items() if row["latin"] != NAMES[2]}
    former = read_table(folder / "dataset/former_labels.csv", ("side", *labeling.COLUMNS))
    assert {row["path"]: {name: row[name] for name in labeling.COLUMNS} for row in former} == {
        path: row for path, row in before.items() if row["latin"] == NAMES[2]}
    report = folder / "dataset/split_report.txt"
    assert "their side kept in former_labels.csv: 12\n" in report.read_text()
    label(folder, "--limit_classes", "2")
    assert read_table(folder / "dataset/former_labels.csv") == former
    # The seed is for new photographs only
    assert label(folder, "--limit_classes", "0", "--split_seed", "7") == before
    assert snapshot(folder / "dataset/test") == photographs
    assert not (folder / "dataset/set_aside").exists()
    assert read_table(folder / "dataset/former_labels.csv") == []
    assert "their side kept in former_labels.csv: 0\n" in report.read_text()


def test_a_photograph_that_waited_for_review_comes_back_to_its_side_and_name(folder):
    before = label(folder)
    waited = {}
    for side in ("test", "train"):
        path, row = next((path, row)
                         for path, row in before.items() if path.startswith(f"{side}/{NAMES[0]}"))
        waited[path] = row
        origin = next(one for one in read_table(folder / "cleaned/cleaned.csv")
                      if one["sha256"] == row["sha256"])
        seed = int(origin["file"].split("/")[1][:3])
        (folder / f"collected/images/{NAMES[1]}/again_{side}.jpg").write_bytes(jpeg(draw(seed),
                                                                                    quality=60))
    add(folder, NAMES[0], range(7000, 7006))
    during = label(folder)
    assert not waited.keys() & during.keys()
    # Another has taken the place in test
    assert sum(path.startswith(f"test/{NAMES[0]}") for path in during) == 3
    for side in ("test", "train"):
        (folder / f"collected/images/{NAMES[1]}/again_{side}.jpg").unlink()
    clean(folder)
    after = label(folder)
    assert {path: after.get(path) for path in waited} == waited
    assert after.keys() - during.keys() == waited.keys()


def test_a_record_of_former_labels_that_is_another_table_is_refused(folder):
    label(folder)
    write_table(folder / "dataset/former_labels.csv", ("path", "label"),
                [{"path": "a", "label": 1}])
    with pytest.raises(InputError, match="former_labels.csv was not written by this script"):
        label(folder)


def test_near_duplicates_keep_their_side_when_a_better_one_is_added(folder):
    before = label(folder)
    path, row = next((path, row)
                     for path, row in before.items() if path.startswith("test/Rosa secunda"))
    origin = next(one for one in read_table(folder / "cleaned/cleaned.csv")
                  if one["sha256"] == row["sha256"])
    seed = 1000 + int(origin["file"].split("/")[1][:3])
    (folder / f"collected/images/{NAMES[1]}/larger.jpg").write_bytes(
        jpeg(draw(seed).resize((600, 560))))
    clean(folder)
    after = label(folder)
    assert path not in after
    assert (folder / "dataset/set_aside" / path).is_file()
    new = next(path for path, row in after.items()
               if row["sha256"] not in {one["sha256"] for one in before.values()})
    # The same side, and a number never used
    assert new == "test/Rosa secunda/rosa_secunda_test_4.jpg"


def test_a_group_that_touches_both_sides_goes_to_train(folder):
    before = label(folder)
    shas = {side: next(row["sha256"]
                       for path, row in before.items() if path.startswith(f"{side}/Rosa prima"))
            for side in ("train", "test")}
    write_table(folder / "collected/found.csv", ("url", "page", "license", "author", "sha256"), [
        {"url": f"https://example.org/{side}.jpg", "page": "https://example.org/plant",
         "license": "CC BY 4.0",
         "author": "A. Botanist", "sha256": sha} for side, sha in shas.items()])
    after = label(folder)
    assert sides(after)[shas["test"]] == "train"
    row = next(row for row in after.values() if row["sha256"] == shas["test"])
    assert (row["license"], row["author"], row["url"]) == ("CC BY 4.0", "A. Botanist",
                                                           "https://example.org/test.jpg")
    assert row["group"] == min(shas.values())[:16]
    assert "joined both sides: 1" in (folder / "dataset/split_report.txt").read_text()


def test_feedback_stays_in_train_and_is_not_published(folder, capsys):
    for seed in range(900, 912):
        prediction = {"verdict": "ok", "names": [{"latin": NAMES[1], "probability": 0.9}]}
        keep_feedback(folder / "collected", jpeg(draw(seed)), NAMES[0], prediction, "network")
    clean(folder)
    rows = label(folder, "--test_per_class", "8")
    given = {row["sha256"] for row in read_feedback(folder / "collected")}
    assert {path.split("/")[0] for path, row in rows.items() if row["sha256"] in given} == {"train"}
    assert sum(row["license"] == LICENSE for row in rows.values()) == len(given) == 12
    assert sum(path.startswith(f"test/{NAMES[0]}") for path in rows) > 3
    assert "feedback, kept in train: 12" in (folder / "dataset/split_report.txt").read_text()
    with pytest.raises(InputError, match="12 photographs came by feedback"):
        pack.main([str(word) for word in (
            "--class_table", folder / "classes.csv", "--dataset_dir", folder / "dataset",
            "--packed_dir", folder / "packed", "--pack", "dataset")])
    assert "corrections are not known" not in capsys.readouterr().err
    label(folder, "--collected_dir", str(folder / "elsewhere"))
    assert "corrections are not known" in capsys.readouterr().err


def test_photographs_of_one_page_are_never_split(folder):
    rows = read_table(folder / "cleaned/cleaned.csv")
    mine = [row["sha256"] for row in rows if row["class"] == NAMES[0]]
    write_table(folder / "collected/found.csv", ("url", "page", "license", "author", "sha256"), [
        {"page": f"https://example.org/{i // 2}", "sha256": sha} for i, sha in enumerate(mine)])
    by_side = sides(label(folder, "--test_per_class", "4"))
    for i in range(0, 12, 2):
        assert by_side[mine[i]] == by_side[mine[i + 1]]
    assert sum(by_side[sha] == "test" for sha in mine) == 4


def test_no_number_is_used_twice_even_where_a_name_has_brackets(tmp_path):
    (tmp_path / "set_aside/train/Rosa [alba]").mkdir(parents=True)
    (tmp_path / "set_aside/train/Rosa [alba]/rosa_alba_train_7.jpg").touch()
    rows = [{"latin": "Rosa [alba]", "side": "train", "sha256": "a"}]
    split.name_photographs(rows, {}, tmp_path)
    assert rows[0]["path"] == "train/Rosa [alba]/rosa_alba_train_8.jpg"


def test_joining_is_transitive_and_independent_of_order():
    pairs = [(5, 3), (1, 2), (3, 1)]
    assert join_groups("adcbefg", pairs) == join_groups("adcbefg",
                                                              pairs[::-1]) == list("abbbebg")


def test_near_duplicates_that_cleaning_kept_stay_on_one_side(folder):
    """Cleaning found only exact duplicates; labelling still keeps near-duplicates on one side."""
    for i in range(12):
        (folder / f"collected/images/{NAMES[0]}/copy{i}.jpg").write_bytes(jpeg(draw(i), quality=60))
    clean(folder, "--hash_distance", "-1")
    rows = label(folder, "--test_per_class", "8")
    assert sum(row["latin"] == NAMES[0] for row in rows.values()) == 24
    groups = {}
    for path, row in rows.items():
        groups.setdefault(row["group"], set()).add(path.split("/")[0])
    assert all(len(both) == 1 for both in groups.values())
    assert "near-duplicates across train and test: 0" in (
        folder / "dataset/split_report.txt").read_text()


def test_pictures_under_several_names_are_reported(folder):
    report = folder / "dataset/split_report.txt"
    label(folder)
    assert "label conflicts, near-duplicates under several names: 0\n" in report.read_text()
    (folder / f"collected/images/{NAMES[1]}/copy.jpg").write_bytes(jpeg(draw(0), quality=60))
    clean(folder)
    label(folder)
    assert "label conflicts, left out until the review decides: 2\n" in report.read_text()
    assert "label conflicts, near-duplicates under several names: 0\n" in report.read_text()


def test_a_leak_is_found_and_stops_the_run():
    rows = [{"path": f"{side}/{i}.jpg", "side": side, "group": group, "sha256": sha, "label": 0}
            for i, (side, group, sha) in enumerate([("train", "a", "x"), ("test", "b", "x"),
                                                    ("test", "a", "y"),
                                                    ("test", "c", "z")])]
    pairs = [(NEAR, 3, 0), (OVERLAP, 0, 3), (BORDERLINE, 1, 2)]  # the last on one side
    assert split.find_leaks(rows, list("pqrs"), pairs) == {
        "exact duplicates": [("train/0.jpg", "test/1.jpg")],
        "near-duplicates": [("train/0.jpg", "test/3.jpg")], "borderline pairs": [],
        "overlapping pictures": [], "groups split": [("train/0.jpg", "test/2.jpg")]}
    assert split.find_leaks(rows, list("pqrs"), pairs[1:2])["overlapping pictures"] == [
        ("train/0.jpg", "test/3.jpg")]


def test_the_check_for_leaks_takes_no_pairs_of_a_large_group():
    class Row(dict):
        looks = 0

        def __getitem__(self, name):
            Row.looks += 1
            return super().__getitem__(name)
    rows = [Row(path=f"train/{i}.jpg", side="train", group="a", sha256=str(i), label=0)
            for i in range(400)]
    assert not any(split.find_leaks(rows, [row["sha256"] for row in rows], []).values())
    assert Row.looks < 20 * len(rows)  # pairs would be 79,800


def test_a_published_file_replaced_by_hand_is_restored(folder):
    rows = label(folder)
    train, test = (next(path for path in rows if path.startswith(side))
                   for side in ("train", "test"))
    good = (folder / "dataset" / train).read_bytes()
    shutil.copyfile(folder / "dataset" / test, folder / "dataset" / train)
    label(folder)
    assert (folder / "dataset" / train).read_bytes() == good


def test_a_run_that_resumes_after_its_input_changed_starts_anew(folder):
    blocked = folder / "dataset/train_labels.csv"
    blocked.mkdir(parents=True)
    with pytest.raises(OSError):
        label(folder)
    blocked.rmdir()
    assert (folder / "dataset/labels.journal").exists()
    gone = min((folder / f"collected/images/{NAMES[0]}").iterdir())
    gone.unlink()
    clean(folder)
    rows = label(folder)
    assert len(rows) == 35
    assert {path for path in rows if not (folder / "dataset" / path).is_file()} == set()


def test_foreign_files_are_left_alone_and_stale_ones_set_aside(folder, capsys):
    label(folder)
    (folder / "dataset/train/notes.txt").write_text("mine")
    stale = folder / "dataset/train/Rosa prima/rosa_prima_train_99.jpg"
    stale.write_bytes(b"old")
    label(folder)
    assert (folder / "dataset/train/notes.txt").read_text() == "mine"
    assert "1 files" in capsys.readouterr().err
    assert (folder / "dataset/set_aside/train/Rosa prima/rosa_prima_train_99.jpg").read_bytes(
        ) == b"old"
    add(folder, NAMES[0], [7000])
    assert "train/Rosa prima/rosa_prima_train_100.jpg" in label(folder)


def test_a_photograph_deleted_by_hand_is_left_out_with_a_warning(folder, capsys):
    victim = next((folder / f"cleaned/images/{NAMES[0]}").iterdir())
    victim.unlink()
    assert len(label(folder)) == 35
    assert "are missing" in capsys.readouterr().err


@pytest.mark.parametrize("damage, said", [
    (lambda folder: (folder / "cleaned/cleaned.csv").unlink(), "run dataset_preparation/cleaning"),
    (lambda folder: (folder / "cleaned/pairs.csv").unlink(), "run dataset_preparation/cleaning"),
    (lambda folder: (folder / "cleaned/cleaned.csv.journal").write_text("{}\n"), "interrupted"),
    (lambda folder: write_classes(folder / "classes.csv", ["Typha"]), "no photographs"),
    (lambda folder: write_classes(folder / "classes.csv", [*NAMES, "Rosa quarta"]), "Rosa quarta"),
    (lambda folder: [path.unlink()
                     for path in sorted((folder / f"cleaned/images/{NAMES[0]}").iterdir())[2:]],
     "too few photographs"),
    (lambda folder: [(folder / "dataset").mkdir(), write_table(
        folder / "dataset/train_labels.csv", ("path", "label"), [{"path": "a", "label": 1}])],
     "another folder"),
    (lambda folder: next((folder / f"cleaned/images/{NAMES[0]}").iterdir()).write_bytes(b"junk"),
     "changed since cleaning"),
])
def test_bad_input_is_named_and_nothing_is_written(folder, damage, said):
    damage(folder)
    before = snapshot(folder)
    done = run_script(LABELING, *flags(LABELING, folder, test_per_class=30), status=1)
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert said in done.stderr
    (folder / "dataset/labels.lock").unlink(missing_ok=True)  # where it works in the folder
    assert snapshot(folder) == before


def test_small_classes_give_at_most_a_third_to_test(folder):
    report = label(folder, "--test_per_class", "30")
    assert sum(path.startswith("test/") for path in report) == 12
    assert "fewer than 30 test photographs" in (folder / "dataset/split_report.txt").read_text()


def test_the_leak_check_uses_the_rule_of_cleaning():
    assert {name: getattr(config, name.upper()) for name in leak_check.RULE} == leak_check.RULE


def test_a_better_copy_of_a_rejected_photograph_has_its_side(tmp_path):
    images = make_collected(tmp_path / "collected") / "images" / NAMES[0]
    rows = clean(tmp_path)
    before = sides(label(tmp_path))
    for number in range(8):
        content = rows[f"{NAMES[0]}/{number:03}.jpg"]["sha256"]
        append_decisions(tmp_path / "cleaned/decisions.csv", [
            (content, NAMES[0], "reject", "", "")])
        better = jpeg(draw(number, (600, 560)), quality=95)
        (images / f"better{number}.jpg").write_bytes(better)
        before[sha256(better)] = before[content]
    clean(tmp_path)
    after = sides(label(tmp_path))
    assert after == {content: before[content] for content in after}
