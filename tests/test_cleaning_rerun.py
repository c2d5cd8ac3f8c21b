"""Cleaning again: after photographs were added or removed, after decisions, with label scores."""
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks.natural_path import count_accesses
from dataset_preparation.cleaning import inspection
from dataset_preparation.cleaning.decisions import append_decisions, read_decisions
from tests.conftest import NAMES, ROOT, draw, jpeg, make_collected, snapshot
from tests.preparing import CLEANING, clean, flags, label, without_times
from utils import FileLock, InputError, read_table, write_table


@pytest.fixture
def folder(tmp_path):
    """Three classes of 4, a near-duplicate, a label conflict, one too small; cleaned once."""
    images = make_collected(tmp_path / "collected", count=4) / "images"
    (images / NAMES[0] / "better.jpg").write_bytes(jpeg(draw(0, (600, 560))))  # of 000.jpg
    # Of the third class
    (images / NAMES[1] / "stolen.jpg").write_bytes(jpeg(draw(2001), quality=70))
    (images / NAMES[2] / "small.jpg").write_bytes(jpeg(draw(77, (200, 180))))
    clean(tmp_path)
    return tmp_path


def decide(folder, file, action, value=""):
    """Append a decision about a file of the table; return its time."""
    row = next(row for row in read_table(folder / "cleaned/cleaned.csv") if row["file"] == file)
    [made] = append_decisions(folder / "cleaned/decisions.csv",
                              [(row["sha256"], row["class"], action, value, "")])
    return made["time"]


def undo(folder, moment):
    append_decisions(folder / "cleaned/decisions.csv", [("", "", "undo", moment, "")])


def fates(rows):
    """Return {file: (class in effect, status)} of rows."""
    return {file: (row["label_class"], row["status"]) for file, row in rows.items()}


def lying(folder):
    """Return {"images" or "others"/class/name} of all cleaned photographs."""
    return {path.relative_to(folder / "cleaned").as_posix() for top in ("images", "others")
            for path in (folder / "cleaned" / top).rglob("*.jpg")}


def place(row):
    folder = "images" if row["status"] == "kept" else "others"
    return f"{folder}/{row['label_class']}/{row['sha256'][:16]}.jpg"


def test_decisions_win_and_survive_and_can_be_undone(folder, capsys):
    first, before = clean(folder), without_times(snapshot(folder / "cleaned"))
    copy, best, small = f"{NAMES[0]}/000.jpg", f"{NAMES[0]}/better.jpg", f"{NAMES[2]}/small.jpg"
    stolen, origin, plain = f"{NAMES[1]}/stolen.jpg", f"{NAMES[2]}/001.jpg", f"{NAMES[1]}/002.jpg"
    assert {file: first[file]["status"] for file in (copy, best, small, stolen, origin)} == {
        copy: "duplicate", best: "kept", small: "rejected", stolen: "review", origin: "review"}
    # One each: of the better copy
    assert {first[file]["proposal"] for file in (stolen, origin)} == {""}
    times = [decide(folder, small, "keep"), decide(folder, plain, "reject"),
             decide(folder, stolen, "move", NAMES[2]),
             decide(folder, copy, "keep")]
    rows = clean(folder)
    assert {file: fate for file, fate in fates(rows).items() if fate != fates(first)[file]} == {
        small: (NAMES[2], "kept"), plain: (NAMES[1], "rejected"), stolen: (NAMES[2], "duplicate"),
        origin: (NAMES[2], "kept"), copy: (NAMES[0], "kept"), best: (NAMES[0], "duplicate")}
    assert rows[plain]["reason"].startswith("by hand")
    assert rows[stolen]["class"] == NAMES[1]
    assert lying(folder) == {place(row) for row in rows.values()}
    assert not (folder / "cleaned/set_aside").exists()
    decided = without_times(snapshot(folder / "cleaned"))
    clean(folder, "--processes", "1")
    (folder / "cleaned/inspected.jsonl").unlink()
    clean(folder)
    assert without_times(snapshot(folder / "cleaned")) == decided
    assert "no longer wanted" not in capsys.readouterr().out
    for moment in times:
        undo(folder, moment)
    clean(folder)
    after = without_times(snapshot(folder / "cleaned"))
    after.pop("decisions.csv")
    assert after == before


def test_of_two_runs_at_once_the_second_waits_for_the_first(folder):
    """Otherwise it would look for photographs that the first one has already moved."""
    wanted = without_times(snapshot(folder / "cleaned"))
    decide(folder, f"{NAMES[1]}/002.jpg", "reject")
    with FileLock(folder / "cleaned/cleaned.csv.lock"):
        second = subprocess.Popen([sys.executable, ROOT / CLEANING, *flags(CLEANING, folder)],
                                  stdout=subprocess.PIPE,
                                  text=True)
        assert second.stdout.readline().startswith("cleaning 15 files")
        assert second.stdout.readline(
            ) == f"waiting for another process that cleans into {folder / 'cleaned'}\n"
        undo(folder, read_decisions(folder / "cleaned/decisions.csv")[0]["time"])
    second.communicate()
    assert second.returncode == 0
    left = without_times(snapshot(folder / "cleaned"))
    left.pop("decisions.csv")
    assert left == wanted  # it has seen what was decided while it waited


def test_a_pair_marked_not_duplicate_is_kept_twice(folder):
    copy, best = f"{NAMES[0]}/000.jpg", f"{NAMES[0]}/better.jpg"
    rows = clean(folder)
    decide(folder, copy, "not_duplicate", rows[best]["sha256"])
    rows = clean(folder)
    assert (rows[copy]["status"], rows[best]["status"]) == ("kept", "kept")
    assert rows[copy]["group"] != rows[best]["group"]
    assert rows[copy]["near"] == rows[best]["near"] == ""


def test_rejecting_the_best_rejects_its_near_duplicates_but_not_the_other_way_round(folder):
    copy, best = f"{NAMES[0]}/000.jpg", f"{NAMES[0]}/better.jpg"
    moment = decide(folder, best, "reject")
    rows = clean(folder)
    assert (rows[copy]["status"], rows[best]["status"]) == ("rejected", "rejected")
    decide(folder, copy, "keep")
    assert clean(folder)[copy]["status"] == "kept"
    undo(folder, moment)
    decide(folder, copy, "reject")
    rows = clean(folder)
    assert (rows[copy]["status"], rows[best]["status"]) == ("rejected", "kept")


def test_rejecting_one_side_of_a_label_conflict_settles_it(folder):
    decide(folder, f"{NAMES[1]}/stolen.jpg", "reject")
    rows = clean(folder)
    assert rows[f"{NAMES[2]}/001.jpg"]["status"] == "kept"
    assert rows[f"{NAMES[1]}/stolen.jpg"]["status"] == "rejected"


def test_equal_files_kept_by_hand_are_one_photograph(folder):
    data = (folder / f"collected/images/{NAMES[0]}/001.jpg").read_bytes()
    (folder / f"collected/images/{NAMES[0]}/again.jpg").write_bytes(data)
    clean(folder)
    decide(folder, f"{NAMES[0]}/again.jpg", "keep")
    rows = clean(folder)
    assert sorted(rows[f"{NAMES[0]}/{name}.jpg"]["status"]
                  for name in ("001", "again")) == ["duplicate", "kept"]
    assert lying(folder) == {place(row)
                             for row in rows.values() if row["file"] != f"{NAMES[0]}/again.jpg"}


def test_a_photograph_kept_in_two_classes_is_written_to_both(folder):
    (folder / f"collected/images/{NAMES[1]}/001.jpg").write_bytes(
        (folder / f"collected/images/{NAMES[0]}/001.jpg").read_bytes())
    clean(folder)
    for name in NAMES[:2]:
        decide(folder, f"{name}/001.jpg", "keep")
    rows = clean(folder)
    assert {place(rows[f"{name}/001.jpg"]) for name in NAMES[:2]} <= lying(folder)


def read_by_cleaning(folder):
    """Clean again and return the collected photographs that were read."""
    accesses = count_accesses(folder / "accesses", ROOT / CLEANING, *flags(CLEANING, folder))
    images = (folder / "collected/images").as_posix() + "/"
    return {path.removeprefix(images) for what, path in accesses
            if what == "read" and path.startswith(images)}


def test_only_new_and_changed_files_are_read_again(folder):
    assert read_by_cleaning(folder) == set()
    (folder / f"collected/images/{NAMES[0]}/new.jpg").write_bytes(jpeg(draw(500)))
    (folder / f"collected/images/{NAMES[1]}/001.jpg").write_bytes(jpeg(draw(501)))
    assert read_by_cleaning(folder) == {f"{NAMES[0]}/new.jpg", f"{NAMES[1]}/001.jpg"}
    victim = folder / "cleaned" / place(clean(folder)[f"{NAMES[0]}/new.jpg"])
    good = victim.read_bytes()
    changed = b"!" * len(good)  # of the same size: only the time tells
    victim.write_bytes(changed)
    assert read_by_cleaning(folder) == {f"{NAMES[0]}/new.jpg"}
    assert victim.read_bytes() == good
    aside = folder / "cleaned/set_aside" / victim.relative_to(folder / "cleaned")
    assert aside.read_bytes() == changed


@pytest.mark.parametrize("reason", ["cannot be read: Permission denied", "took longer than 8 s"])
def test_a_file_is_retried_after_a_transient_error(folder, reason):
    known, wanted = folder / "cleaned/inspected.jsonl", without_times(snapshot(folder / "cleaned"))
    header, first, *others = known.read_text().splitlines()
    failed = {**json.loads(first), "result": {**inspection.NOTHING_KNOWN, "reason": reason}}
    known.write_text("\n".join([header, json.dumps(failed), *others]) + "\n")
    clean(folder)
    assert without_times(snapshot(folder / "cleaned")) == wanted


def test_added_and_removed_photographs_give_the_table_of_a_first_run(folder):
    images = folder / "collected/images"
    (images / NAMES[0] / "better.jpg").unlink()
    (images / NAMES[1] / "new.jpg").write_bytes(jpeg(draw(600)))
    clean(folder)
    again = without_times(snapshot(folder / "cleaned"))
    shutil.rmtree(folder / "cleaned")
    clean(folder, "--processes", "1")
    assert again.pop("former_photographs.csv")  # remembers what was removed
    assert {name: data
            for name, data in again.items() if not name.startswith("set_aside/")} == without_times(
        snapshot(folder / "cleaned"))
    assert sum(name.startswith("set_aside/") for name in again) == 1  # nothing was deleted


def test_after_a_changed_setting_the_tables_are_those_of_a_first_run(tmp_path):
    """Photographs are described at another size then, so earlier matches no longer count."""
    images = make_collected(tmp_path / "collected", count=1) / "images"
    rng = np.random.default_rng(0)
    for i in range(3):
        sharp = Image.fromarray(rng.integers(0, 256, (120, 128, 3), dtype=np.uint8))
        large = sharp.resize((1280, 1200), Image.Resampling.BICUBIC)
        (images / NAMES[0] / f"large{i}.jpg").write_bytes(jpeg(large))
        (images / NAMES[0] / f"edge{i}.jpg").write_bytes(jpeg(large.crop((90, 0, 1280, 1200))))
    clean(tmp_path)
    larger = ("--min_side", "600", "--output_side", "600")
    again = [clean(tmp_path, *larger), (tmp_path / "cleaned/pairs.csv").read_bytes()]
    shutil.rmtree(tmp_path / "cleaned")
    assert [clean(tmp_path, *larger), (tmp_path / "cleaned/pairs.csv").read_bytes()] == again


def test_scores_of_a_model_are_joined_in_and_order_the_review(folder, capsys):
    rows = clean(folder)
    one, other, moved = (rows[f"{NAMES[0]}/00{i}.jpg"] for i in (1, 2, 3))
    decide(folder, moved["file"], "move", NAMES[1])
    write_table(folder / "cleaned/label_scores.csv",
                ("sha256", "class", "label_score", "proposal", "proposal_probability",
                 "outlier_score"), [
        {"sha256": one["sha256"], "class": NAMES[0], "label_score": 0.03, "proposal": NAMES[2],
         "outlier_score": 0.9},
        {"sha256": other["sha256"], "class": NAMES[0], "label_score": 0.97, "outlier_score": 0.1},
        # Judged before it was moved
        {"sha256": moved["sha256"], "class": NAMES[0], "label_score": 0.01}])
    rows = clean(folder)
    assert rows[one["file"]]["suspected"] == "blurred, label"  # drawn photographs are smooth
    assert rows[one["file"]]["proposal"] == NAMES[2]
    assert rows[other["file"]]["suspected"] == "blurred, outlier"
    assert rows[moved["file"]]["label_score"] == ""
    assert all(row["status"] == "kept" for row in (rows[one["file"]], rows[other["file"]]))
    assert "1 label, 1 outlier, 2 several names" in capsys.readouterr().out
    decide(folder, one["file"], "keep")
    assert clean(folder)[one["file"]]["suspected"] == ""  # a person has looked


def test_an_unreadable_table_of_scores_is_an_error_with_a_remedy(folder):
    write_table(folder / "cleaned/label_scores.csv", ("sha256", "class", "label_score"), [])
    with pytest.raises(InputError, match="proposal_probability.*find_label_errors.py"):
        clean(folder)


def test_labelling_follows_the_decisions(folder):
    images = folder / "collected/images"
    for name, seed in ((NAMES[0], 700), (NAMES[1], 800), (NAMES[2], 900)):
        for i in range(6):
            (images / name / f"more{i}.jpg").write_bytes(jpeg(draw(seed + i)))
    rows = clean(folder)
    moved, rejected = rows[f"{NAMES[0]}/more0.jpg"], rows[f"{NAMES[0]}/more1.jpg"]
    decide(folder, moved["file"], "move", NAMES[1])
    decide(folder, rejected["file"], "reject")
    clean(folder)
    labels = {row["sha256"]: row["latin"] for row in label(folder).values()}
    assert labels[moved["sha256"]] == NAMES[1]
    assert rejected["sha256"] not in labels


def test_a_move_to_an_unknown_class_is_warned_of(folder, capsys):
    decide(folder, f"{NAMES[0]}/001.jpg", "move", "Rosa quarta")
    assert clean(folder)[f"{NAMES[0]}/001.jpg"]["label_class"] == "Rosa quarta"
    assert "Rosa quarta, not in the class table" in capsys.readouterr().err


def test_numbers_and_sizes_of_files_propose_no_name(folder):
    """The larger file is often the enlarged one, so only what a picture shows proposes a name."""
    images = folder / "collected/images"
    for name in NAMES:
        (images / name / "same.jpg").write_bytes(jpeg(draw(700)))
    (images / NAMES[2] / "again.jpg").write_bytes(jpeg(draw(700)))  # named so twice
    (images / NAMES[1] / "larger.jpg").write_bytes(jpeg(draw(700, (600, 560))))
    files = [f"{name}/same.jpg" for name in NAMES]
    rows = clean(folder)
    assert {(rows[file]["status"], rows[file]["proposal"]) for file in files} == {("review", "")}
    write_table(folder / "cleaned/label_scores.csv",
                ("sha256", "class", "label_score", "proposal", "proposal_probability",
                 "outlier_score"),
                [{"sha256": rows[file]["sha256"], "class": rows[file]["class"],
                  "label_score": 0.1, "proposal": NAMES[0], "proposal_probability": 0.8}
                 for file in files])
    assert {clean(folder)[file]["proposal"] for file in files} == {NAMES[0]}


def test_an_emptied_class_folder_is_removed(folder):
    images, cleaned = folder / "collected/images", folder / "cleaned"
    for i in range(4):
        decide(folder, f"{NAMES[0]}/00{i}.jpg", "move", NAMES[1])
    decide(folder, f"{NAMES[0]}/better.jpg", "move", NAMES[1])
    clean(folder)
    assert {path.relative_to(cleaned).as_posix() for path in cleaned.rglob("Rosa*")} == {
        f"images/{NAMES[1]}", f"images/{NAMES[2]}", *(f"others/{name}" for name in NAMES[1:])}
    shutil.rmtree(images / NAMES[2])
    clean(folder)
    assert not (cleaned / "images" / NAMES[2]).exists()
    assert (cleaned / "set_aside/images" / NAMES[2]).is_dir()
    assert (cleaned / "images" / NAMES[1]).is_dir()


def test_only_non_empty_folders_are_counted_and_reported(folder, capsys):
    for name in ("Rosa quarta", "Rosa nova"):
        (folder / "collected/images" / name).mkdir()
    (folder / "collected/images/Rosa nova/1.jpg").write_bytes(jpeg(draw(900)))
    clean(folder)
    said = capsys.readouterr()
    assert "of 4 classes" in said.out
    assert "Rosa nova" in said.err
    assert "Rosa quarta" not in said.err
