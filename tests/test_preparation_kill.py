"""Cleaning and labelling killed at any moment, or out of disk space, end as undisturbed runs."""
import errno
import shutil

import pytest

from dataset_preparation.cleaning.decisions import append_decisions
from tests.conftest import NAMES, draw, jpeg, make_collected, run_script, snapshot, write_classes
from tests.killing import (
    changes_of,
    enlarge_disk,
    lines,
    pick_moments,
    run_killed,
    run_killed_when,
    small_disk,
)
from tests.preparing import CLEANING, LABELING, flags, without_times
from utils import REMEDIES, read_table

# Parts of the paths that are changed while the scripts run, each killed at least once
CLEANING_PHASES = ("/work/", "/images/", "/others/", "set_aside", "cleaned.csv.tmp",
                   "inspected.jsonl", "journal")
LABELING_PHASES = "labels.journal", "train/", "_labels.csv", "set_aside", "split_report"


@pytest.fixture
def collected(tmp_path):
    images = make_collected(tmp_path / "collected", count=12) / "images"
    for seed in range(4):
        (images / NAMES[0] / f"copy{seed}.jpg").write_bytes(jpeg(draw(seed), quality=50))
    (images / NAMES[1] / "broken.jpg").write_bytes(b"no picture")
    write_classes(tmp_path / "classes.csv", NAMES)
    return tmp_path


def prepare_earlier_run(folder, out, *scripts):
    """Run the scripts once on other photographs: one is added later, one removed."""
    hidden, gone = folder / "hidden.jpg", folder / "collected/images" / NAMES[1] / "gone.jpg"
    victim = folder / "collected/images" / NAMES[2] / "003.jpg"
    victim.rename(hidden)
    gone.write_bytes(jpeg(draw(4242)))
    for script in scripts:
        run_script(script, *flags(script, folder, out))
    hidden.rename(victim)
    gone.unlink()


@pytest.mark.slow
def test_cleaning_killed_anywhere(collected):
    undisturbed = collected / "undisturbed"
    prepare_earlier_run(collected, undisturbed, CLEANING)
    decide(undisturbed / "cleaned")
    shutil.copytree(undisturbed, collected / "start")
    changes = changes_of(0, CLEANING, *flags(CLEANING, collected, undisturbed))
    wanted, out = without_times(snapshot(undisturbed)), collected / "killed"
    for moment in pick_moments(changes, 6, 1, CLEANING_PHASES):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(collected / "start", out)
        before = run_killed(moment, CLEANING, *flags(CLEANING, collected, out))
        run_script(CLEANING, *flags(CLEANING, collected, out))
        assert without_times(snapshot(out)) == wanted, before
    # While photographs are being inspected: so many lines in the journal
    for number in (1, 5, 11, 17, 23, 30):
        shutil.rmtree(out)
        shutil.copytree(collected / "start", out)
        known = out / "cleaned/inspected.jsonl"  # as of another version: else two files are read
        known.write_text(known.read_text().replace('"inspection": ', '"inspection": -', 1))
        journal = out / "cleaned/cleaned.csv.journal"
        assert run_killed_when(lambda journal=journal, number=number: lines(journal) > number,
                               CLEANING,
                               *flags(CLEANING, collected, out))
        assert not list(out.rglob("images/**/*.tmp"))
        run_script(CLEANING, *flags(CLEANING, collected, out))
        assert without_times(snapshot(out)) == wanted, f"after {number} files"


def decide(cleaned):
    """Reject, move and keep by hand one photograph of each kind that cleaning knows."""
    rows = read_table(cleaned / "cleaned.csv")
    kept = [row for row in rows if row["status"] == "kept"]
    copies = [row for row in rows if row["status"] == "duplicate"]
    append_decisions(cleaned / "decisions.csv", [
        (row["sha256"], row["class"], action, value, "") for row, action, value in (
            (kept[0], "reject", ""), (kept[-1], "move", NAMES[0]), (copies[0], "keep", ""))])


@pytest.mark.slow
def test_labelling_killed_anywhere(collected):
    undisturbed = collected / "undisturbed"
    prepare_earlier_run(collected, undisturbed, CLEANING, LABELING)
    run_script(CLEANING, *flags(CLEANING, collected, undisturbed))
    shutil.copytree(undisturbed, collected / "start")
    changes = changes_of(0, LABELING, *flags(LABELING, collected, undisturbed))
    wanted, out = without_times(snapshot(undisturbed)), collected / "killed"
    assert any(name.startswith("dataset/set_aside/") for name in wanted)
    for moment in pick_moments(changes, 12, 2, LABELING_PHASES):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(collected / "start", out)
        before = run_killed(moment, LABELING, *flags(LABELING, collected, out))
        run_script(LABELING, *flags(LABELING, collected, out))
        assert without_times(snapshot(out)) == wanted, before


@pytest.mark.slow
@pytest.mark.parametrize("script", [CLEANING, LABELING])
def test_a_full_disk_is_named_and_what_was_there_stays(collected, script):
    with small_disk(collected / "small", "300k") as small:
        arguments = flags(script, collected, small)
        if script == LABELING:
            run_script(CLEANING, *flags(CLEANING, collected, collected))
            arguments += ["--cleaned_dir", collected / "cleaned"]
        done = run_script(script, *arguments, status=1)
        assert f"No space left on device; {REMEDIES[errno.ENOSPC]}" in done.stderr
        assert not list(small.rglob("*_labels.csv")) + list(small.rglob("cleaned.csv"))
        enlarge_disk(small, "30m")
        run_script(script, *arguments)
