"""SIGKILL at seeded moments, then the same command again: the same files and tables as an undisturbed run."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import train
from dataset_preparation.cleaning.decisions import append_decisions
from tests.conftest import NAMES, ROOT, draw, jpeg, make_collected, make_labelled, run_script, snapshot, write_classes
from tests.test_train import curves, flags, initial_weights, same, settings, weights
from training import checkpoints
from utils import read_table

CLEANING = "dataset_preparation/cleaning/cleaning.py"
LABELING = "dataset_preparation/labeling/labeling.py"


def run_killed(number, script, *arguments):
    """Run a script and kill it before its `number`-th change to the file system; return what that was, or the count."""
    done = subprocess.run([sys.executable, ROOT / "tests/killer.py", str(number), ROOT / script, *map(str, arguments)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if number else 0), done.stderr
    return re.search(r"killer: (before .*|events=\d+)", done.stderr)[1]


def run_killed_when(reached, script, *arguments):
    """Run a script and kill it as soon as `reached()`; return whether it was still running."""
    process = subprocess.Popen([sys.executable, ROOT / script, *map(str, arguments)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None and not reached():
        time.sleep(0.002)
    process.kill()
    return process.wait() == -signal.SIGKILL


def pick_moments(events, count, seed):
    """Return `count` seeded moments of 1 to `events`, the last one among them."""
    return sorted({*random.Random(seed).sample(range(1, events), min(count, events - 1) - 1), events})


def lines(path):
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@pytest.fixture
def collected(tmp_path):
    images = make_collected(tmp_path / "collected", count=12) / "images"
    for seed in range(4):
        (images / NAMES[0] / f"copy{seed}.jpg").write_bytes(jpeg(draw(seed), quality=50))
    (images / NAMES[1] / "broken.jpg").write_bytes(b"no picture")
    write_classes(tmp_path / "classes.csv", NAMES)
    return tmp_path


def preparation_flags(folder, out):
    return ["--collected_dir", folder / "collected", "--cleaned_dir", out / "cleaned", "--dataset_dir", out / "dataset",
            "--class_table", folder / "classes.csv", "--processes", "2", "--test_per_class", "3"]


def prepare_earlier_run(folder, out, *scripts):
    """Let the scripts run once on other photographs: one less, and one that is gone before the run that is killed."""
    hidden, gone = folder / "hidden.jpg", folder / "collected/images" / NAMES[1] / "gone.jpg"
    victim = folder / "collected/images" / NAMES[2] / "003.jpg"
    victim.rename(hidden)
    gone.write_bytes(jpeg(draw(4242)))
    for script in scripts:
        run_script(script, *preparation_flags(folder, out))
    hidden.rename(victim)
    gone.unlink()


@pytest.mark.slow
def test_cleaning_killed_anywhere(collected):
    undisturbed = collected / "undisturbed"
    prepare_earlier_run(collected, undisturbed, CLEANING)
    decide(undisturbed / "cleaned")
    shutil.copytree(undisturbed, collected / "start")
    count = int(run_killed(0, CLEANING, *preparation_flags(collected, undisturbed)).split("=")[1])
    wanted, befores = snapshot(undisturbed), []
    out = collected / "killed"
    for moment in pick_moments(count, 14, seed=1):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(collected / "start", out)
        befores.append(run_killed(moment, CLEANING, *preparation_flags(collected, out)))
        run_script(CLEANING, *preparation_flags(collected, out))
        assert snapshot(out) == wanted, befores[-1]
    for number in (1, 5, 11, 17, 23, 30):  # while photographs are being inspected: so many lines in the journal
        shutil.rmtree(out)
        shutil.copytree(collected / "start", out)
        (out / "cleaned/inspected.jsonl").unlink()  # otherwise two files would be read
        journal = out / "cleaned/cleaned.csv.journal"
        assert run_killed_when(lambda journal=journal, number=number: lines(journal) > number, CLEANING,
                               *preparation_flags(collected, out))
        assert not list(out.rglob("images/**/*.tmp"))
        run_script(CLEANING, *preparation_flags(collected, out))
        assert snapshot(out) == wanted, f"after {number} files"
    said = " ".join(befores)
    for phase in ("/work/", "/images/", "/others/", "set_aside", "cleaned.csv.tmp", "inspected.jsonl", "journal"):
        assert phase in said


def decide(cleaned):
    """Reject, move and keep by hand one photograph of each kind that cleaning knows."""
    rows = read_table(cleaned / "cleaned.csv")
    kept = [row for row in rows if row["status"] == "kept"]
    copies = [row for row in rows if row["status"] == "copy"]
    append_decisions(cleaned / "decisions.csv", [
        (row["sha256"], row["class"], action, value, "") for row, action, value in (
            (kept[0], "reject", ""), (kept[-1], "move", NAMES[0]), (copies[0], "keep", ""))])


@pytest.mark.slow
def test_labelling_killed_anywhere(collected):
    undisturbed = collected / "undisturbed"
    prepare_earlier_run(collected, undisturbed, CLEANING, LABELING)
    run_script(CLEANING, *preparation_flags(collected, undisturbed))
    shutil.copytree(undisturbed, collected / "start")
    count = int(run_killed(0, LABELING, *preparation_flags(collected, undisturbed)).split("=")[1])
    wanted, befores = snapshot(undisturbed), []
    assert any(name.startswith("dataset/set_aside/") for name in wanted)
    for moment in pick_moments(count, 20, seed=2):
        out = collected / "killed"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(collected / "start", out)
        befores.append(run_killed(moment, LABELING, *preparation_flags(collected, out)))
        run_script(LABELING, *preparation_flags(collected, out))
        assert snapshot(out) == wanted, befores[-1]
    said = " ".join(befores)
    for phase in ("labels.journal", "train/", "_labels.csv", "set_aside", "split_report"):
        assert phase in said


@pytest.mark.slow
def test_training_killed_twenty_times(tmp_path):
    """One run that is killed at 20 seeded moments ends in the weights and curves of an undisturbed one.

    Each time with 1 or 2 workers, with or without a cache, which may be there, gone, or cut short.
    """
    make_labelled(tmp_path / "dataset")
    write_classes(tmp_path / "classes.csv", NAMES)
    options = ["--num_epochs", "12", "--trivial_augment", "--num_workers", "1", "--initial_weights",
               initial_weights(tmp_path), "--mixup", "0.2", "--average_epochs", "3", "--layer_decay", "0.8"]
    events = run_killed(0, "train.py", *flags(tmp_path, *options))
    per_epoch = int(events.split("=")[1]) // 12
    rng, befores = random.Random(3), []
    for _ in range(20):
        arguments = flags(tmp_path, *options, "--run", "killed", *rng.choice(([], ["--no-cache"])), "--num_workers",
                          rng.choice("12"))
        for file in (tmp_path / "cache").glob("*.frames"):
            rng.choice((lambda file: None, Path.unlink, lambda file: os.truncate(file, 9999)))(file)
        if rng.random() < 0.3:  # between the changes of files: somewhere in an epoch
            log = tmp_path / "runs/killed/log.jsonl"
            goal = lines(log) + rng.randrange(2)
            assert run_killed_when(lambda log=log, goal=goal: lines(log) > goal, "train.py", *arguments)
        else:
            befores.append(run_killed(rng.randrange(1, 2 * per_epoch), "train.py", *arguments))
        if lines(tmp_path / "runs/killed/log.jsonl") > 9:
            shutil.rmtree(tmp_path / "checkpoints/killed")  # nearly done: from the beginning again
            shutil.rmtree(tmp_path / "runs/killed")
    run_script("train.py", *flags(tmp_path, *options, "--run", "killed"))
    for name in (checkpoints.BEST, checkpoints.LAST):
        assert same(weights(tmp_path, "tiny", name), weights(tmp_path, "killed", name))
    assert curves(tmp_path, "killed") == curves(tmp_path, "tiny")
    assert not list((tmp_path / "checkpoints").rglob("*.tmp"))
    optimizers = [checkpoints.load_checkpoint(tmp_path / "checkpoints" / run / checkpoints.LAST)["optimizer_state_dict"]["state"]
                  for run in ("tiny", "killed")]
    assert all(torch.equal(optimizers[0][key]["exp_avg"], optimizers[1][key]["exp_avg"]) for key in optimizers[0])
    for phase in (checkpoints.BEST, checkpoints.LAST, "log.jsonl", ".frames.tmp"):
        assert phase in " ".join(befores)


@pytest.mark.slow
@pytest.mark.parametrize("script", [CLEANING, LABELING, "train.py"])
def test_a_full_disk_is_told_and_what_was_there_stays(collected, script):
    """A file system of 300 kB (where one may be mounted) fills up; with room, the same command ends well."""
    small = collected / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        if script == "train.py":
            make_labelled(collected / "dataset")
            arguments = flags(collected, "--checkpoints_dir", small / "checkpoints")
        else:
            arguments = preparation_flags(collected, small)
            if script == LABELING:
                run_script(CLEANING, *preparation_flags(collected, collected))
                arguments += ["--cleaned_dir", collected / "cleaned"]
        done = run_script(script, *arguments, status=1)
        assert "No space left on device" in done.stderr
        assert "free some space" in done.stderr
        assert not list(small.rglob("*_labels.csv")) + list(small.rglob("cleaned.csv")) + list(small.rglob("*.tar"))
        subprocess.run(["mount", "-o", "remount,size=30m", small], check=True)
        run_script(script, *arguments)
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_in_mid_run_keeps_the_last_epoch(tmp_path):
    """With room again, the run goes on from there to the weights of an undisturbed one."""
    make_labelled(tmp_path / "dataset")
    write_classes(tmp_path / "classes.csv", NAMES)
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", small], capture_output=True,
                      check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    options = ["--checkpoints_dir", small]

    def fill(epoch, metrics):
        with suppress(OSError), open(small / "others", "wb", buffering=0) as file:
            while epoch == 1:
                file.write(bytes(4096))
    try:
        with pytest.raises(OSError, match="No space left on device"):
            train.train(settings(tmp_path, *options), fill)
        assert checkpoints.load_checkpoint(small / "tiny" / checkpoints.LAST)["epoch"] == 1
        assert not list(small.rglob("*.tmp"))
        (small / "others").unlink()
        train.train(settings(tmp_path, *options))
        train.train(settings(tmp_path))
        assert same(weights(tmp_path), checkpoints.load_checkpoint(small / "tiny" / checkpoints.LAST)["model_state_dict"])
    finally:
        subprocess.run(["umount", small], check=True)
