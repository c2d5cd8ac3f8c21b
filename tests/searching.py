"""A tiny search on drawn photographs, and what became of its trials."""
import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import optuna
from optuna.trial import TrialState

from tests.conftest import NAMES, ROOT, make_labelled, write_classes
from training.checkpoints import LAST

SCRIPT = "hyperparameter_optimization.py"
TOTAL = 10  # trials


def make_input(folder):
    """Write a small labelled dataset without a test set: a search that opened it would fail."""
    make_labelled(folder / "dataset", train=10)
    shutil.rmtree(folder / "dataset/test")
    (folder / "dataset/test_labels.csv").unlink()
    write_classes(folder / "classes.csv", NAMES)
    return folder


def flags(folder, *more):
    """Return the flags of a tiny search in `folder`; later ones win."""
    return [str(flag) for flag in (
        "--class_table", folder / "classes.csv", "--dataset_dir", folder / "dataset",
        "--checkpoints_dir", folder / "checkpoints", "--runs_dir", folder / "runs",
        "--cache_dir", folder / "cache", "--initial_weights", "none", "--image_size", 32,
        "--num_epochs", 2, "--num_workers", 0, "--device", "cpu", "--search_models", "plain_cnn",
        "--search_study", "tiny", "--search_trials", TOTAL, "--search_heartbeat", 1, *more)]


def start(folder, *more):
    """Start a search in a process of its own."""
    return subprocess.Popen([sys.executable, ROOT / SCRIPT, *flags(folder, *more)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def sqlite_url(folder):
    return f"sqlite:///{folder / 'runs/tiny/study.db'}"


def load(folder):
    """Return the study of a tiny search."""
    return optuna.load_study(study_name="tiny", storage=sqlite_url(folder))


def wait_for_checkpoint(process, folder):
    """Return the name of the first trial of a process once that trial has a checkpoint."""
    for line in process.stdout:
        if line.startswith("run trial_"):
            name = line.split()[1]
            while not (folder / "checkpoints/tiny" / name / LAST).exists():
                time.sleep(0.01)
            return name
    raise AssertionError(process.stderr.read())


def pause(process, database):
    """Stop a process at a moment when it does not hold the lock of the database."""
    while True:
        process.send_signal(signal.SIGSTOP)
        with (contextlib.closing(sqlite3.connect(database, timeout=1)) as connection,
              contextlib.suppress(sqlite3.OperationalError)):
            connection.execute("BEGIN IMMEDIATE")
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def require_resumed(process, name):
    """Require that a search ends well after resuming another's trial; return what it printed."""
    printed = process.communicate()[0]
    assert process.returncode == 0
    assert f"{name} (retry)" in printed
    epochs = [line.split()[1] for line in printed.split(f"{name} (retry)")[1].splitlines()
              if line.startswith("epoch ")]
    assert not epochs[0].startswith("1/")  # from its checkpoint
    return printed


def require_one_retry(trials, name, total):
    """Assert that one trial was stopped, its one retry ended, and `total` trials count."""
    stopped = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert [f"trial_{trial.number:04}" for trial in stopped] == [name]
    retries = [trial for trial in trials
               if trial.system_attrs.get("failed_trial") == stopped[0].number]
    assert len(retries) == 1
    assert retries[0].state.is_finished()
    assert retries[0].params == stopped[0].params
    assert len(trials) - len(stopped) == total
