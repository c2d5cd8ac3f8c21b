"""The search on a small drawn dataset: it resumes, counts its trials, and keeps what it should."""
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import config
import hyperparameter_optimization as search
import train
from model import build_model
from settings.table import SEARCHED
from tests.conftest import run_script
from tests.killing import enlarge_disk, run_killed, small_disk
from tests.searching import (
    SCRIPT,
    TOTAL,
    flags,
    load,
    make_input,
    pause,
    require_one_retry,
    require_resumed,
    start,
    wait_for_checkpoint,
)
from tests.training_runs import write_weights
from training.checkpoints import BEST, LAST, PROBE, load_checkpoint, save_checkpoint
from training.study import build_sampler, build_study, open_sqlite
from utils import InputError


@pytest.fixture
def folder(tmp_path):
    return make_input(tmp_path)


def searched(folder, *more):
    """Run the search in this process and return what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        search.main(flags(folder, *more))
    return printed.getvalue()


def results(folder):
    """Return the results of the trials in order, without those that were stopped and retried."""
    return [(trial.state, trial.params, trial.intermediate_values, trial.value)
            for trial in load(folder).trials if trial.state != TrialState.FAIL]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search that nothing disturbed."""
    folder = make_input(tmp_path_factory.mktemp("whole"))
    before = config.settings()
    printed = searched(folder)
    return SimpleNamespace(folder=folder, printed=printed, study=load(folder),
                           config_kept=config.settings() == before)


def test_the_best_settings_train_to_the_loss_that_the_search_promised(whole):
    best, file = whole.study.best_trial, whole.folder / "runs/tiny/best.json"
    assert whole.printed.splitlines()[-1] == (
        f"best val loss {best.value:.4f} (accuracy {best.user_attrs['best']['accuracy']:.2%}) in "
        f"trial_{best.number:04}, the best of {TOTAL}: python train.py --settings {file}")
    assert best.params.items() <= json.loads(file.read_text()).items()
    train.main(["--settings", str(file), "--run", "final"])
    final = load_checkpoint(whole.folder / "checkpoints/final" / LAST)
    assert final["best"]["calibrated_loss"] == best.value


def test_our_settings_and_the_originals_come_first_and_config_stays_as_it_was(whole):
    first, second = whole.study.trials[:2]
    assert first.params == {name: getattr(config, name.upper()) for name in first.params} | {
        "model": "plain_cnn", "batch_size": 16}  # 0 in config.py: what it means for few photographs
    assert second.params["batch_size"] == 90
    assert second.params["learning_rate"] == 9e-5
    assert whole.config_kept


def test_the_best_trial_is_compared_with_the_current_settings(whole):
    """By the losses of the same photographs, so that noise can be told from a gain."""
    line, name = whole.printed.splitlines()[-2], f"trial_{whole.study.best_trial.number:04}"
    if name == "trial_0000":
        assert line == "no trial was better than the current settings"
        return
    first, best = (load_checkpoint(whole.folder / "checkpoints/tiny" / one / LAST)["lowest"]
                   for one in ("trial_0000", name))
    gain = (first["losses"] - best["losses"]).mean().item()
    assert gain > 0
    assert f"lower by {gain:.4f}" in line


@pytest.mark.parametrize("losses, verdict", [
    ([0.1, 0.3], " better than"), ([0.9, 0.4], " no better than"),
    ([0.2, 0.7], "within the noise")])
def test_the_gain_of_the_best_trial_is_compared_with_its_noise(tmp_path, losses, verdict):
    for name, some in (("trial_0000", [0.4, 0.6]), ("trial_0001", losses)):
        (tmp_path / name).mkdir()
        save_checkpoint(tmp_path / name / LAST, {
            "model_state_dict": {}, "lowest": {"epoch": 1, "losses": torch.tensor(some)}})
    best = optuna.trial.create_trial(value=0.5, system_attrs={"failed_trial": 1})
    line = search.compare_with_first(best, tmp_path)
    assert verdict in line and (" no " in line) == (" no " in verdict)


def test_bad_trials_are_pruned_and_only_checkpoints_of_the_best_are_kept(whole):
    assert {trial.state for trial in whole.study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(len(trial.intermediate_values) == (1 if trial.state == TrialState.PRUNED else 2)
               for trial in whole.study.trials)
    kept = sorted(path.relative_to(whole.folder / "checkpoints/tiny").as_posix()
                  for path in (whole.folder / "checkpoints/tiny").rglob("*.tar"))
    stay = sorted({0, whole.study.best_trial.number})
    assert kept == [f"trial_{number:04}/{name}" for number in stay for name in (LAST, BEST)]


def test_no_checkpoint_of_a_loser_is_left(folder):
    """Its linear probe was: a third of what a search of networks with weights writes."""
    study = optuna.create_study()
    for loss in (3.0, 2.0, 1.0):
        study.add_trial(optuna.trial.create_trial(value=loss))
    s = settings_for(folder)
    trials = [s.checkpoints_dir / s.search_study / f"trial_{number:04}" for number in range(3)]
    for trial in trials:
        trial.mkdir(parents=True)
        for name in (BEST, LAST, PROBE):
            (trial / name).touch()
    (s.runs_dir / s.search_study).mkdir(parents=True)
    search.keep_best(study, s=s, fixed={}, lock=contextlib.nullcontext())
    assert [len(list(trial.iterdir())) for trial in trials] == [3, 0, 3]


def test_tensorboard_shows_every_trial_and_the_plots_are_drawn(whole):
    for trial in whole.study.trials:
        events = EventAccumulator(str(whole.folder / f"runs/tiny/trial_{trial.number:04}"))
        events.Reload()
        content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        hparams = HParamsPluginData.FromString(content).session_start_info.hparams
        shown = {name: value.string_value or value.number_value for name, value in hparams.items()}
        assert shown == {name: str(value) if isinstance(value, bool) else value
                         for name, value in trial.params.items()}
        best = trial.user_attrs["best"]
        scalars = events.Scalars("search/calibrated_loss")
        assert [(event.step, event.value) for event in scalars] == [
            (best["epoch"], pytest.approx(best["calibrated_loss"]))]
        assert len(events.Scalars("loss/val")) == len(trial.intermediate_values)
    for name in ("history", "importance", "slice"):
        assert (whole.folder / f"runs/tiny/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_number_of_trials_is_the_total_and_a_restart_changes_nothing(whole, folder):
    for trials in (1, 3, TOTAL):
        searched(folder, "--search_trials", trials)
        assert len(load(folder).trials) == trials
    assert results(folder) == results(whole.folder)
    printed = searched(folder)
    assert "trial_0000: " not in printed
    assert printed.splitlines()[-1].startswith(f"best val loss {load(folder).best_value:.4f}")
    with pytest.raises(InputError, match=r"num_epochs: 2 -> 4.*--search_study"):
        searched(folder, "--num_epochs", 4)


# ---- stopped, killed, shared ----

@pytest.mark.slow
@pytest.mark.parametrize("moment", [23, 40, 90, 140])
def test_killed_and_started_again_it_ends_like_an_undisturbed_search(whole, folder, moment):
    run_killed(moment, SCRIPT, *flags(folder))
    searched(folder)
    assert results(folder) == results(whole.folder)


@pytest.mark.slow
def test_ctrl_c_queues_the_running_trial_again(whole, folder):
    process = start(folder)
    for line in process.stdout:
        if line.startswith("epoch   1/2"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate()
    assert (process.returncode, len(errors.splitlines())) == (130, 1)
    trials = load(folder).trials
    stopped = [trial.number for trial in trials if trial.state == TrialState.FAIL]
    queued = [trial.system_attrs["failed_trial"] for trial in trials
              if trial.state == TrialState.WAITING]
    assert stopped == queued
    assert len(stopped) <= 1  # none where it came between two trials
    searched(folder)
    assert results(folder) == results(whole.folder)


@pytest.mark.slow
def test_a_trial_whose_process_died_before_its_first_heartbeat_is_run(whole, folder):
    searched(folder, "--search_trials", 2)
    load(folder).ask()  # RUNNING, without settings, for ever
    searched(folder)
    assert load(folder).trials[2].state == TrialState.FAIL
    assert results(folder) == results(whole.folder)


@pytest.mark.slow
def test_several_processes_share_one_study(folder):
    processes = [start(folder, "--search_trials", 4, "--search_heartbeat", 10) for _ in range(2)]
    ends = [process.communicate()[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert ends[0] == ends[1]
    trials = load(folder).trials
    assert all(trial.state in search.ENDED for trial in trials)
    assert 4 <= len(trials) <= 5  # both may have asked for the last one in the same moment
    assert len({str(trial.params) for trial in trials}) == len(trials)


LONG = ("--search_trials", 4, "--num_epochs", 30, "--search_heartbeat", 5,
        "--search_pruner", "none")  # it could end the trial too early


@pytest.mark.slow
def test_the_trial_of_a_killed_process_is_resumed_by_another(folder):
    killed, other = start(folder, *LONG), start(folder, *LONG)
    name = wait_for_checkpoint(killed, folder)
    killed.kill()
    killed.communicate()
    require_resumed(other, name)
    require_one_retry(load(folder).trials, name, 4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be paused")
def test_a_process_paused_for_too_long_leaves_its_trial_to_another(folder):
    paused = start(folder, *LONG)
    name = wait_for_checkpoint(paused, folder)
    pause(paused, folder / "runs/tiny/study.db")
    searched(folder, *LONG)
    paused.send_signal(signal.SIGCONT)
    printed, errors = paused.communicate()
    assert paused.returncode == 0, errors
    assert name in errors
    assert printed.splitlines()[-1].startswith(f"best val loss {load(folder).best_value:.4f}")
    require_one_retry(load(folder).trials, name, 4)


def test_a_queued_trial_is_given_to_one_process_only(tmp_path):
    """Every connection to SQLite takes its own lock, so that threads stand for processes."""
    study = optuna.create_study(study_name="tiny", storage=open_sqlite(tmp_path / "study.db", {}))
    for number in range(40):
        study.enqueue_trial({"x": number})

    def take(_):
        mine = optuna.load_study(study_name="tiny", storage=open_sqlite(tmp_path / "study.db", {}))
        return [mine.ask().number for _ in range(10)]

    with ThreadPoolExecutor(4) as pool:
        taken = [number for numbers in pool.map(take, range(4)) for number in numbers]
    assert sorted(taken) == list(range(40))


@pytest.mark.slow
def test_a_full_disk_loses_no_trial(whole, tmp_path):
    with small_disk(tmp_path / "disk", "2m") as disk:
        folder = make_input(disk)
        done = run_script(SCRIPT, *flags(folder), status=1)
        assert done.stderr.splitlines()[-1].startswith("error: ")
        enlarge_disk(disk, "100m")
        run_script(SCRIPT, *flags(folder))
        shutil.copytree(folder / "runs", tmp_path / "runs")  # an open file keeps the disk mounted
    assert results(tmp_path) == results(whole.folder)


def drawn(seed, index):
    """Return what a sampler draws in a study without other trials."""
    return optuna.create_study(sampler=build_sampler(seed, index)).ask().suggest_float("x", 0, 1)


def test_the_draws_of_a_trial_are_a_function_of_the_seed_and_its_index():
    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(0, 1), drawn(0, 2), drawn(0, 3), drawn(1, 1)}) == 4


# ---- studies of earlier versions ----





def build(folder, *more, photographs="contents"):
    """Create or open a study without running trials."""
    s, _ = config.parse(flags(folder, *more), SCRIPT, "")
    return build_study(s, {}, folder / "runs/tiny", ["Rosa prima"], photographs)


def test_a_study_notices_files_that_were_replaced(tmp_path):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    build(tmp_path)
    with pytest.raises(InputError, match="photographs or their labels have changed"):
        build(tmp_path, photographs="others")
    assert build(tmp_path).user_attrs["settings"]["photographs"] == "contents"


# ---- messages ----

def test_a_retry_is_reported_under_the_name_of_its_folder(capsys):
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    study.add_trial(optuna.trial.create_trial(
        value=0.5, system_attrs={"failed_trial": 0},
        user_attrs={"outcome": "finished", "best": {"accuracy": 1.0}}))
    search.log_trial(study, study.trials[1])
    s = SimpleNamespace(search_study="tiny", checkpoints_dir=Path("checkpoints"))
    search.print_best(study, s, Path("runs/tiny"))
    log, compared, last = capsys.readouterr().out.splitlines()
    assert compared == "no trial was better than the current settings"
    assert log.startswith("trial_0000: finished")
    assert log.endswith("0.5000 in trial_0000")
    assert "0.5000 (accuracy 100.00%) in trial_0000, the best of 1" in last


def test_the_settings_that_may_be_searched_are_those_of_the_space():
    assert set(SEARCHED) == set(search.SPACE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_trial_that_does_not_fit_in_memory_is_pruned_and_the_search_goes_on(folder):
    limit = ("-c", "import os, resource, sys; "
             "resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30)); "
             "os.execv(sys.executable, sys.argv[1:])")
    done = run_script(SCRIPT, *flags(folder, "--search_trials", 2, "--image_size", 2048), status=1,
                      before=(sys.executable, *limit))
    assert done.stderr.splitlines()[-1].startswith("error: none of the 2 trials of study tiny")
    assert [trial.user_attrs["outcome"].split(":")[0] for trial in load(folder).trials] == [
        "out of memory"] * 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the process is found by Linux's ps")
def test_a_trial_whose_process_the_system_ends_is_pruned_and_not_repeated(folder):
    process = start(folder, "--search_trials", 3, "--search_pruner", "none")
    wait_for_checkpoint(process, folder)
    server = children(process.pid)
    os.kill(max(child for one in server for child in children(one)), signal.SIGKILL)
    assert process.wait(300) == 0, process.stderr.read()
    trials = load(folder).trials
    assert [trial.number for trial in trials if trial.state == TrialState.PRUNED
            and "was killed" in trial.user_attrs["outcome"]] == [0]
    assert len(trials) == 3


def children(process):
    """Return the numbers of the processes that a process has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True,
                            text=True, check=False).stdout
    return list(map(int, listed.split()))


@pytest.mark.parametrize("flag, value", [
    ("--search_models", "resnet"), ("--search_settings", "flip"), ("--search_pruner", "sometimes")])
def test_a_choice_that_does_not_exist_is_a_usage_error(folder, flag, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        searched(folder, flag, value)
    assert flag in capsys.readouterr().err


@pytest.mark.parametrize("more, message", [
    (("--search_study", ".."), "--search_study"), (("--search_study", ""), "--search_study"),
    (("--search_models", "()"), "--search_models"),
    (("--search_storage", "postgresql+psycopg://nobody@localhost:1/none"), "--search_storage"),
    (("--search_storage", "postgresql+pg8000://localhost/none"), "pip install"),
    (("--search_storage", "nonsense"), "--search_storage")])
def test_a_search_that_cannot_start_names_the_flag(folder, more, message):
    with pytest.raises(InputError, match=message):
        searched(folder, *more)


# ---- checked before the first trial ----

@pytest.mark.parametrize("options, fact", [
    (["--initial_weights", "w.pth"], "do not fit resnet18.*--model plain_cnn"),
    (["--search_models", "plain_cnn,alexnet"], "too small for alexnet"),
    (["--initial_weights", "imagenet_v1"], "no imagenet_v1 weights for plain_cnn")])
def test_a_network_that_cannot_be_trained_stops_the_search_before_it_starts(
        folder, options, fact, monkeypatch):
    write_weights(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(InputError, match=fact):
        searched(folder, "--search_models", "plain_cnn,resnet18", *options)
    assert not (folder / "runs/tiny/study.db").exists()


def test_the_search_starts_every_network_from_its_file_in_a_folder(folder):
    (folder / "weights").mkdir()
    for name in ("plain_cnn", "resnet18"):
        torch.save(build_model(name, 9).state_dict(), folder / f"weights/{name}.pth")
    s = settings_for(folder, "--initial_weights", folder / "weights",
                     "--search_models", "plain_cnn,resnet18")
    search.check_networks(s)
    (folder / "weights/resnet18.pth").unlink()
    with pytest.raises(InputError, match="named resnet18"):
        search.check_networks(s)


def test_a_batch_that_does_not_fit_passes_the_network_in_parts(folder):
    s = settings_for(folder, "--image_size", "4000", "--search_models", "mobilenet_v3_small")
    chosen = {"model": "mobilenet_v3_small", "batch_size": 256}
    assert 1 <= search.build_trial_settings(s, "t", chosen).micro_batch < 256
    s.micro_batch = 1
    assert search.build_trial_settings(s, "t", chosen).micro_batch == 1
    s.micro_batch, s.image_size = 0, 64
    assert search.build_trial_settings(s, "t", {"model": "plain_cnn"}).micro_batch == 0
    s.image_size = 40_000
    with pytest.raises(InputError, match="--image_size"):
        search.check_networks(s)


def test_a_trial_is_not_split_into_passes_that_train_py_refuses(folder, monkeypatch):
    monkeypatch.setattr(search, "count_fitting", lambda s: 1)
    chosen = {"model": "plain_cnn", "batch_size": 32}
    t = search.build_trial_settings(settings_for(folder), "t", chosen)
    train.check_settings(t)
    assert t.micro_batch == 2


def settings_for(folder, *more):
    return config.parse(flags(folder, *more), SCRIPT, "")[0]
