"""The search on a small drawn dataset: it goes on where it was stopped, counts its trials, and keeps what it should."""
import contextlib
import io
import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import config
import hyperparameter_optimization as search
import train
from tests.conftest import NAMES, ROOT, make_labelled, run_script, write_classes
from training.checkpoints import BEST, LAST, load_checkpoint
from training.study import run_one
from utils import InputError

UNTOUCHED = config.settings()
SCRIPT = "hyperparameter_optimization.py"
TOTAL = 10  # trials


def make_input(folder):
    """Write a small labelled dataset without a test set: a search that opened it would fail."""
    make_labelled(folder / "dataset", train=10)
    shutil.rmtree(folder / "dataset/test")
    (folder / "dataset/test_labels.csv").unlink()
    write_classes(folder / "classes.csv", NAMES)
    return folder


@pytest.fixture
def folder(tmp_path):
    return make_input(tmp_path)


def flags(folder, *more):
    """Return the flags of a tiny search in `folder`; later ones win."""
    return [str(flag) for flag in (
        "--class_table", folder / "classes.csv", "--dataset_dir", folder / "dataset", "--checkpoints_dir",
        folder / "checkpoints", "--runs_dir", folder / "runs", "--cache_dir", folder / "cache", "--initial_weights",
        "none", "--image_size", 32, "--num_epochs", 2, "--num_workers", 0, "--device", "cpu", "--search_models",
        "('plain_cnn',)", "--search_study", "tiny", "--search_trials", TOTAL, *more)]


def searched(folder, *more):
    """Run the search in this process and return what it printed."""
    vars(config).update(UNTOUCHED)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        search.main(flags(folder, *more))
    return printed.getvalue()


def study(folder, name="tiny"):
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "runs" / name / "study.log"))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def results(folder):
    """Return what the trials led to, in order, but for those that were stopped and done again."""
    return [(trial.state, trial.params, trial.intermediate_values, trial.value)
            for trial in study(folder).trials if trial.state != TrialState.FAIL]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing disturbed."""
    folder = make_input(tmp_path_factory.mktemp("whole"))
    printed = searched(folder)
    changed = {name for name, value in config.settings().items() if value != UNTOUCHED[name]}
    vars(config).update(UNTOUCHED)
    return SimpleNamespace(folder=folder, printed=printed, study=study(folder), changed=changed)


def test_the_best_settings_train_to_the_loss_that_the_search_promised(whole):
    best, file = whole.study.best_trial, whole.folder / "runs/tiny/best.json"
    assert whole.printed.splitlines()[-1] == (
        f"best val loss {best.value:.4f} (accuracy {best.user_attrs['best']['accuracy']:.2%}) in "
        f"trial_{best.number:04}, the best of {TOTAL}: python train.py --settings {file}")
    assert best.params.items() <= json.loads(file.read_text()).items()
    vars(config).update(UNTOUCHED)
    train.main(["--settings", str(file), "--run", "final"])
    assert load_checkpoint(whole.folder / "checkpoints/final" / LAST)["best"]["calibrated_loss"] == best.value


def test_our_settings_and_the_originals_come_first_and_config_stays_as_it_was(whole):
    first, second = whole.study.trials[:2]
    assert first.params == {name: UNTOUCHED.get(name.upper()) for name in first.params} | {"model": "plain_cnn"}
    assert second.params["batch_size"] == 90
    assert second.params["learning_rate"] == 9e-5
    assert whole.changed == {flag.lstrip("-").upper() for flag in flags(whole.folder)[::2]}


def test_losers_are_stopped_early_and_only_the_checkpoints_of_the_best_stay(whole):
    assert {trial.state for trial in whole.study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(len(trial.intermediate_values) == (1 if trial.state == TrialState.PRUNED else 2)
               for trial in whole.study.trials)
    kept = sorted(path.relative_to(whole.folder / "checkpoints/tiny").as_posix()
                  for path in (whole.folder / "checkpoints/tiny").rglob("*.tar"))
    assert kept == [f"trial_{whole.study.best_trial.number:04}/{name}" for name in (LAST, BEST)]


def test_tensorboard_shows_every_trial_and_the_plots_are_drawn(whole):
    for trial in whole.study.trials:
        events = EventAccumulator(str(whole.folder / f"runs/tiny/trial_{trial.number:04}"))
        events.Reload()
        start = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
        shown = {name: value.string_value or value.number_value
                 for name, value in start.session_start_info.hparams.items()}
        assert shown == {name: str(value) if isinstance(value, bool) else value for name, value in trial.params.items()}
        best = trial.user_attrs["best"]
        assert [(event.step, event.value) for event in events.Scalars("search/calibrated_loss")] == [
            (best["epoch"], pytest.approx(best["calibrated_loss"]))]
        assert len(events.Scalars("loss/val")) == len(trial.intermediate_values)
    for name in ("history", "importance", "slice"):
        assert (whole.folder / f"runs/tiny/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_number_of_trials_is_the_total_and_a_restart_changes_nothing(whole, folder):
    for trials in (1, 3, TOTAL):
        searched(folder, "--search_trials", trials)
        assert len(study(folder).trials) == trials
    assert results(folder) == results(whole.folder)
    with open(folder / "runs/tiny/study.log", "a") as file:
        file.write('{"op_code":4,"worker_')  # a full disk
    printed = searched(folder)
    assert "trial_0000: " not in printed
    assert printed.splitlines()[-1].startswith(f"best val loss {study(folder).best_value:.4f}")
    with pytest.raises(InputError, match=r"num_epochs: 2 -> 4.*--search_study"):
        searched(folder, "--num_epochs", 4)


@pytest.mark.parametrize("moment", [60, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (23, 150, 333))])
def test_killed_and_started_again_it_ends_like_an_undisturbed_search(whole, folder, moment):
    killer = ("tests/killer.py", moment, ROOT / SCRIPT)  # counts changes of files
    run_script(*killer, *flags(folder), status=-signal.SIGKILL)
    searched(folder)
    assert results(folder) == results(whole.folder)
    assert list((folder / "runs/tiny/workers").iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_loses_nothing(whole, folder):
    process = subprocess.Popen([sys.executable, ROOT / SCRIPT, *flags(folder)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("epoch   1/2"):
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "Stopped. Run the same command again to resume.\n")
    searched(folder)
    assert results(folder) == results(whole.folder)
    assert [trial.number for trial in study(folder).trials if trial.state == TrialState.FAIL] == [0]


def test_a_trial_done_again_is_told_by_the_name_of_its_folder(capsys):
    again = optuna.create_study()
    again.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    again.add_trial(optuna.trial.create_trial(value=0.5, system_attrs={"failed_trial": 0}, user_attrs={
        "worker": "own", "ended": "finished", "best": {"accuracy": 1.0}}))
    search.tell(again, "own")
    search.announce(again, SimpleNamespace(search_study="tiny"), Path("runs/tiny"))
    assert capsys.readouterr().out.splitlines() == [
        "trial_0000: finished after epoch 0, val loss 0.5000; best 0.5000 in trial_0000",
        "best val loss 0.5000 (accuracy 100.00%) in trial_0000, the best of 1: python train.py --settings "
        f"{Path('runs/tiny/best.json')}"]


def test_several_processes_share_one_study(folder):
    command = [sys.executable, ROOT / SCRIPT, *flags(folder, "--search_trials", 4)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate()[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert ends[0] == ends[1]
    trials = study(folder).trials
    assert len(trials) == 4
    assert all(trial.state.is_finished() for trial in trials)
    assert len({str(trial.params) for trial in trials}) == 4


def test_a_trial_begun_beyond_the_total_does_not_count(whole, folder):
    """Two machines that share a database alone may both begin the last trial."""
    searched(folder, "--search_trials", 1)
    vars(config).update(UNTOUCHED)
    config.override(flags(folder, "--search_trials", 1))
    s = config.namespace()
    begin = partial(search.run_trial, s=s, space=search.build_space(s), turn=None, worker="another")
    run_one(study(folder), begin, "another")
    searched(folder, "--search_trials", 2)
    assert [trial.state for trial in study(folder).trials][1:2] == [TrialState.FAIL]
    assert results(folder) == results(whole.folder)[:2]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_trial_that_does_not_fit_in_memory_is_given_up_and_the_search_goes_on(folder):
    limit = ("-c", "import os, resource, sys; resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30)); "
             "os.execv(sys.executable, sys.argv[1:])")
    done = run_script(SCRIPT, *flags(folder, "--search_trials", 2, "--image_size", 2048), status=1,
                      before=(sys.executable, *limit))
    assert done.stderr.splitlines()[-1] == "error: none of the 2 trials of study tiny was finished"
    assert [trial.user_attrs["ended"].split(":")[0] for trial in study(folder).trials] == ["out of memory"] * 2


@pytest.mark.parametrize("more, said", [
    (("--search_models", "('resnet',)"), "cannot search 'resnet'"),
    (("--search_settings", "('flip',)"), "cannot search 'flip'"),
    (("--search_pruner", "sometimes"), "unknown pruner"),
    (("--search_study", ".."), "--search_study: '..' cannot be"), (("--search_study", ""), "cannot be"),
    (("--search_storage", "postgresql+psycopg://nobody@localhost:1/none"), "--search_storage"),
    (("--search_storage", "postgresql+pg8000://localhost/none"), "pip install"),
    (("--search_storage", "nonsense"), "--search_storage")])
def test_what_does_not_fit_is_said(folder, more, said):
    with pytest.raises(InputError, match=said):
        searched(folder, *more)
