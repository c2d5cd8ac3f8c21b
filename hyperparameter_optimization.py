"""Search the settings of training with Optuna; every trial is a run of train.py, judged on validation.

    python hyperparameter_optimization.py                              # the search of config.py
    python hyperparameter_optimization.py --search_models "('resnet18',)" --search_study resnet18
    best val loss 0.1204 (accuracy 97.92%) in trial_0031, the best of 50: python train.py --settings ...best.json

The same command goes on with the study, also in several processes at once, also on several machines. Writes
`<RUNS_DIR>/<study>/`: best.json, plots, one TensorBoard run per trial, and Optuna's journal unless SEARCH_STORAGE names
a database. The loss is train.py's: of validation photographs, at the temperature that fits best. Of the checkpoints,
those of unfinished trials and of the best one are kept. The test set is never opened.
"""
import json
import os
import socket
import time
import uuid
import warnings
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import optuna
import sqlalchemy
import torch
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

import config
import train
from dataset import fingerprint, read_labels
from model import MODELS
from training.checkpoints import BEST, LAST, load_checkpoint
from training.runs import is_out_of_memory, plain
from training.study import (
    Surplus,
    best_trial,
    build_sampler,
    build_study,
    origin,
    origins,
    requeue_stopped,
    run_of,
    run_one,
)
from utils import FileLock, InputError, atomic_path, read_classes, require_folder_name, run, write_text

# Setting: how Optuna draws it (suggest_float and so on), between which values.
SPACE = {
    "learning_rate": ("float", {"low": 1e-5, "high": 1e-2, "log": True}),
    "backbone_learning_rate": ("float", {"low": 1e-6, "high": 1e-3, "log": True}),
    "layer_decay": ("float", {"low": 0.6, "high": 1.0}),
    "weight_decay": ("float", {"low": 1e-6, "high": 0.3, "log": True}),
    "batch_size": ("int", {"low": 16, "high": 256, "log": True}),
    "label_smoothing": ("float", {"low": 0.0, "high": 0.2}),
    "crop_scale_min": ("float", {"low": 0.08, "high": 0.9}),
    "color_jitter": ("float", {"low": 0.0, "high": 0.5}),
    "erasing": ("float", {"low": 0.0, "high": 0.5}),
    "trivial_augment": ("categorical", {"choices": [False, True]}),
    "mixup": ("float", {"low": 0.0, "high": 0.4}),
    "cutmix": ("float", {"low": 0.0, "high": 1.0}),
    "freeze_backbone": ("categorical", {"choices": [False, True]}),
}
NEED_WEIGHTS = {"backbone_learning_rate", "layer_decay", "freeze_backbone"}  # idle where all starts random
# What the original implementation trained with, as far as the space has it: no decay, no smoothing, one rate.
ORIGINAL = {"model": "mobilenet_v3_large", "learning_rate": 9e-5, "backbone_learning_rate": 9e-5, "layer_decay": 1.0,
            "weight_decay": 1e-6, "batch_size": 90, "label_smoothing": 0.0, "trivial_augment": False, "mixup": 0.0,
            "cutmix": 0.0, "freeze_backbone": False}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)  # a failed trial was stopped and is done again
UNFIXED = {"RUN", "RESUME_CHANGED", "CHECKPOINT", *config.settings("search")}  # no part of best.json
LOSS = "calibrated_loss"  # what the search lowers, and train.py chooses epochs by
METRICS = (LOSS, "accuracy", "macro_f1")


def main(argv=None):
    s, changed = config.parse(argv, __file__, __doc__)
    for name, value in changed.items():
        print(f"setting {name.lower()} = {'(not shown)' if name == 'SEARCH_STORAGE' else value}")  # it has a password
    require_folder_name(s.search_study, "--search_study")
    plt.switch_backend("Agg")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    classes = read_classes(s.class_table, s.limit_classes)
    photographs = fingerprint(read_labels(s.dataset_dir / "train_labels.csv", classes), s.dataset_dir)
    space, folder = build_space(s), s.runs_dir / s.search_study
    (folder / "workers").mkdir(parents=True, exist_ok=True)
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    turn, sign = FileLock(folder / "turn"), FileLock(folder / "workers" / name)
    sign.acquire()  # held until this process ends, however it ends
    try:
        with turn:
            study = build_study(s, space, folder, [one.latin for one in classes], photographs)
        fixed = plain({name: value for name, value in changed.items() if name not in UNFIXED})
        search(study, s, space, fixed, folder, turn, sign)
        with turn:
            keep_best(study, s, fixed, folder)
            plot(study, folder)
            announce(study, s, folder)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise InputError(f"--search_storage: {str(error.__cause__ or error).strip().splitlines()[0]}; it takes what "
                         "SQLAlchemy takes, such as postgresql+psycopg://user@host/database") from None
    finally:
        sign.release()
        sign.path.unlink()


# ---- trials ----

def search(study, s, space, fixed, folder, turn, sign):
    """Run trials until the study has `search_trials` of them and no process has one left to finish."""
    while True:
        with turn:
            requeue_stopped(study, s, sign.path)
            trials = study.get_trials(deepcopy=False)
            states = {trial.state for trial in trials}
            due = TrialState.WAITING in states or len(origins(trials)) < s.search_trials
            if due:
                run_one(study, partial(run_trial, s=s, space=space, turn=turn, worker=sign.path.name), sign.path.name)
        if due:
            with turn:
                keep_best(study, s, fixed, folder)
                tell(study, sign.path.name)
        elif TrialState.RUNNING in states:
            time.sleep(2)  # another process is at work: should it die, its trial is done here
        else:
            return


def run_trial(trial, s, space, turn, worker):
    """Train with the settings of a trial and return its best validation loss, in nats.

    The first two trials are the settings as they stand and the original's values. A trial that diverges or runs out of
    memory counts as pruned, so that the sampler keeps away. `turn` is given on once the settings are chosen.
    """
    trial.set_user_attr("worker", worker)
    trials = trial.study.get_trials(deepcopy=False)
    number, name = origin(trials[trial.number]), run_of(trials[trial.number])
    place = len(origins(trials[:number]))
    if trial.number == number and place >= s.search_trials:  # another machine began the last one in the same moment
        trial.set_user_attr("surplus", True)
        raise Surplus
    trial.study.sampler = build_sampler(s, place, *first_trials(s, space)[place:place + 1])
    chosen = {key: getattr(trial, f"suggest_{kind}")(key, **options) for key, (kind, options) in space.items()}
    turn.release()
    told = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in chosen.items()]
    print(f"{name}: {', '.join(told)}", flush=True)
    t = build_trial_settings(s, name, chosen)
    best, how = train_trial(trial, t)
    trial.set_user_attr("best", best)
    trial.set_user_attr("ended", how)
    write_hparams(t.runs_dir / t.run, chosen, space, best)
    if how != "finished":
        raise optuna.TrialPruned
    return best[LOSS]


def train_trial(trial, t):
    """Train, or go on from the trial's checkpoint, and return (the best epoch's metrics, how the training ended).

    The epochs before a stop are reported again, so that the pruner sees what it would have seen.
    """
    best = {}

    def report(epoch, metrics):
        trial.report(metrics[LOSS], epoch)
        if metrics[LOSS] < best.get(LOSS, float("inf")):
            best.update({key: metrics[key] for key in METRICS}, epoch=epoch)
        if trial.should_prune():
            raise optuna.TrialPruned("stopped early")
    try:
        last = t.checkpoints_dir / t.run / LAST
        for past in load_checkpoint(last)["history"] if last.exists() else ():
            if past["epoch"] > 0:  # 0 is the head alone, which training does not report
                report(past["epoch"], {key: past[f"val_{key}"] for key in METRICS})
        result = train.train(t, report)
        return {key: result[key] for key in ("epoch", *METRICS)}, "finished"
    except (optuna.TrialPruned, train.Diverged) as error:
        return best, str(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        how = f"out of memory: {str(error).splitlines()[0]}"
    torch.cuda.empty_cache()
    return best, how


# ---- building ----

def build_space(s):
    """Return the rows of the space that `search_models` and `search_settings` name."""
    wrong = sorted({*s.search_settings} - {*SPACE}) or sorted({*s.search_models} - {*MODELS})
    if wrong or not s.search_models:
        raise InputError(f"cannot search {wrong[0] if wrong else 'no model'!r}; --search_settings takes "
                         f"{', '.join(SPACE)}; --search_models takes {', '.join(MODELS)}")
    names = [name for name in SPACE if name in s.search_settings
             and not (s.initial_weights == "none" and name in NEED_WEIGHTS)]
    return {"model": ("categorical", {"choices": list(s.search_models)}), **{name: SPACE[name] for name in names}}


def build_trial_settings(s, name, chosen):
    """Return the settings of a trial: those of the search with what was chosen, in a run folder of its own."""
    return SimpleNamespace(**{**vars(s), **chosen, "run": name, "resume_changed": False,
                              "runs_dir": s.runs_dir / s.search_study,
                              "checkpoints_dir": s.checkpoints_dir / s.search_study})


def first_trials(s, space):
    """Return the settings as they stand and the original's values, each moved into the space where it lies outside."""
    def inside(name, value):
        options = space[name][1]
        if "choices" in options:
            return value if value in options["choices"] else options["choices"][0]
        return min(max(value, options["low"]), options["high"])
    return [{name: inside(name, values.get(name, getattr(s, name))) for name in space} for values in ({}, ORIGINAL)]


# ---- telling ----

def tell(study, worker):
    """Print how the newest trial of this process ended."""
    trials = study.get_trials(deepcopy=False)
    own = [trial for trial in trials if trial.state.is_finished() and trial.user_attrs.get("worker") == worker][-1]
    if "surplus" in own.user_attrs:
        return
    best = best_trial(trials)
    print(f"{run_of(own)}: {own.user_attrs['ended']} after epoch {len(own.intermediate_values)}" +
          (f", val loss {own.value:.4f}" if own.value is not None else "") +
          (f"; best {best.value:.4f} in {run_of(best)}" if best else ""), flush=True)


def keep_best(study, s, fixed, folder):
    """Write the settings of the best trial, and remove the checkpoints of every other finished one.

    `fixed` are those that all trials share and that config.py has otherwise.
    """
    trials = study.get_trials(deepcopy=False)
    best = best_trial(trials)
    if best:
        write_text(folder / "best.json", json.dumps({**fixed, **best.params}, indent=1, ensure_ascii=False) + "\n")
    for run_name in {run_of(trial) for trial in trials if trial.state in ENDED and trial is not best}:
        t = build_trial_settings(s, run_name, {})
        for name in (BEST, LAST):
            (t.checkpoints_dir / t.run / name).unlink(missing_ok=True)


def write_hparams(folder, chosen, space, best):
    """Add a trial to TensorBoard's HPARAMS: what was chosen, and the metrics of its best epoch, if it had one."""
    values = {name: str(value) if isinstance(value, bool) else value for name, value in chosen.items()}
    domains = {name: [str(one) for one in options["choices"]] for name, (_, options) in space.items()
               if "choices" in options}
    made = max((int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")), default=0)
    while time.time() < made + 1:  # TensorBoard reads files by name: the second, then a number whose 10 is before 9
        time.sleep(0.05)
    with SummaryWriter(folder, filename_suffix=".hparams") as writer:
        for summary in hparams(values, {f"search/{key}": 0.0 for key in METRICS}, domains):
            writer.file_writer.add_summary(summary)
        for key in METRICS if best else ():
            writer.add_scalar(f"search/{key}", best[key], best["epoch"])


def plot(study, folder):
    """Write history.png, importance.png and slice.png, those for which enough trials are finished."""
    warnings.simplefilter("ignore", UserWarning)  # of a setting that has one value only
    finished = sum(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False))
    for name, draw, least in (("history", plots.plot_optimization_history, 1), ("slice", plots.plot_slice, 1),
                              ("importance", plots.plot_param_importances, 2)):
        if finished >= least:
            figure = np.ravel(draw(study, target_name="validation loss"))[0].figure
            with atomic_path(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", bbox_inches="tight")
            plt.close(figure)


def announce(study, s, folder):
    """Print the best trial, or raise InputError where no trial was finished."""
    trials = study.get_trials(deepcopy=False)
    best = best_trial(trials)
    if best is None:
        raise InputError(f"none of the {len(origins(trials))} trials of study {s.search_study} was finished")
    print(f"best val loss {best.value:.4f} (accuracy {best.user_attrs['best']['accuracy']:.2%}) in {run_of(best)}, "
          f"the best of {len(origins(trials))}: python train.py --settings {folder / 'best.json'}")


if __name__ == "__main__":
    run(main)
