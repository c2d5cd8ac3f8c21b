"""Training that was killed or ran out of disk space resumes to the weights of a whole run."""
import errno
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import train
from tests.conftest import run_script
from tests.killing import changes_of, enlarge_disk, lines, run_killed, run_killed_when, small_disk
from tests.training_runs import (
    curves,
    flags,
    load,
    make_folder,
    same,
    settings,
    weights,
    write_weights,
)
from training import checkpoints
from utils import REMEDIES


@pytest.mark.slow
def test_training_killed_twenty_times_ends_in_the_same_weights(tmp_path):
    """A run killed at 20 seeded moments ends in the weights and curves of an undisturbed one.

    Every start has 1 or 2 workers and a cache or none; the cache is intact, missing or truncated.
    """
    make_folder(tmp_path)
    options = ["--num_epochs", "12", "--trivial_augment", "--num_workers", "1", "--initial_weights",
               write_weights(tmp_path), "--mixup", "0.2",
               "--layer_decay", "0.8"]
    per_epoch = len(changes_of(0, "train.py", *flags(tmp_path, *options))) // 12
    rng, befores = random.Random(3), []
    for _ in range(20):
        arguments = flags(tmp_path, *options, "--run", "killed",
                          *rng.choice(([], ["--no-cache"])), "--num_workers", rng.choice("12"))
        for file in (tmp_path / "cache").glob("*.frames"):
            rng.choice((lambda file: None, Path.unlink, lambda file: os.truncate(file, 9999)))(file)
        if rng.random() < 0.3:  # in the middle of an epoch, between changes of files
            log = tmp_path / "runs/killed/log.jsonl"
            goal = lines(log) + rng.randrange(2)
            assert run_killed_when(lambda log=log, goal=goal: lines(log) > goal,
                                   "train.py", *arguments)
        else:
            befores.append(run_killed(rng.randrange(1, 2 * per_epoch), "train.py", *arguments))
        if lines(tmp_path / "runs/killed/log.jsonl") > 9:
            shutil.rmtree(tmp_path / "checkpoints/killed")  # nearly done: start over
            shutil.rmtree(tmp_path / "runs/killed")
    run_script("train.py", *flags(tmp_path, *options, "--run", "killed"))
    for name in (checkpoints.BEST, checkpoints.LAST):
        assert same(weights(tmp_path, "tiny", name), weights(tmp_path, "killed", name))
    assert curves(tmp_path, "killed") == curves(tmp_path, "tiny")
    assert not list((tmp_path / "checkpoints").rglob("*.tmp"))
    one, other = (load(tmp_path, run)["optimizer_state_dict"]["state"]
                  for run in ("tiny", "killed"))
    assert all(torch.equal(one[key]["exp_avg"], other[key]["exp_avg"]) for key in one)
    for phase in (checkpoints.BEST, checkpoints.LAST, "log.jsonl", ".frames.tmp"):
        assert phase in " ".join(befores)


@pytest.mark.slow
def test_a_full_disk_is_reported_and_training_succeeds_once_there_is_room(tmp_path):
    make_folder(tmp_path)
    with small_disk(tmp_path / "small", "300k") as small:
        arguments = flags(tmp_path, "--checkpoints_dir", small / "checkpoints")
        done = run_script("train.py", *arguments, status=1)
        assert f"No space left on device; {REMEDIES[errno.ENOSPC]}" in done.stderr
        assert not list(small.rglob("*.tar"))
        enlarge_disk(small, "30m")
        run_script("train.py", *arguments)


@pytest.mark.slow
def test_a_disk_that_fills_up_in_mid_run_keeps_the_last_epoch(tmp_path):
    """With room again, the run resumes there and ends in the weights of an undisturbed one."""
    make_folder(tmp_path)
    with small_disk(tmp_path / "small", "16m") as small:
        options = ["--checkpoints_dir", small]

        def fill(epoch, metrics):
            with suppress(OSError), open(small / "others", "wb", buffering=0) as file:
                while epoch == 1:
                    file.write(bytes(4096))
        with pytest.raises(OSError, match="No space left on device"):
            train.train(settings(tmp_path, *options), fill)
        assert checkpoints.load_checkpoint(small / "tiny" / checkpoints.LAST)["epoch"] == 1
        assert not list(small.rglob("*.tmp"))
        (small / "others").unlink()
        train.train(settings(tmp_path, *options))
        train.train(settings(tmp_path))
        resumed = checkpoints.load_checkpoint(small / "tiny" / checkpoints.LAST)["model_state_dict"]
        assert same(weights(tmp_path), resumed)
