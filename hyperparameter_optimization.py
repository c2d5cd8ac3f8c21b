"""Search training settings with Optuna: every trial is a run of train.py, scored on validation.

    python hyperparameter_optimization.py                              # the search of config.py
    python hyperparameter_optimization.py --search_models resnet18 --search_study resnet18
    best val loss 0.1204 (accuracy 97.92%) in trial_0031, the best of 50: python train.py

The same command resumes the study. Several processes can share a study, on several machines
through a database server; when one is killed, another resumes its trial from the checkpoint once
its heartbeat is stale. Writes `<RUNS_DIR>/<study>/`: study.db unless SEARCH_STORAGE names a
database, best.json, plots, one TensorBoard run per trial. The loss is train.py's calibrated
validation loss. Checkpoints of ended trials are deleted, except those of the first and the best.
Of the test set only the table is read.
"""
import json
import time
import warnings
from functools import partial
from types import SimpleNamespace

import config

if __name__ == "__main__":
    config.check_usage(__file__, __doc__)  # before imports that take seconds
import matplotlib.pyplot as plt
import numpy as np
import optuna
import sqlalchemy
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

import train
from dataset import build_train_loader
from model import build_model, complete, complete_view, find_network, load_initial_weights
from settings.command_line import script_command
from training.checkpoints import BEST, LAST, PROBE, load_checkpoint
from training.child_process import EndedEarly, call_in_child
from training.contents import table_fingerprint
from training.optimization import keeps_batchnorm
from training.plan import count_fitting, idle_settings
from training.run_state import build_data
from training.runs import as_stored, is_out_of_memory
from training.study import (
    ENDED,
    best_trial,
    build_sampler,
    build_study,
    count,
    first_attempt,
    run_trials,
    trial_name,
)
from utils import (
    LARGE_BATCH,
    FileLock,
    InputError,
    atomic_path,
    require_folder_name,
    run,
    write_text,
)

# Setting: how Optuna draws it (suggest_float and so on), between which values.
SPACE = {
    "learning_rate": ("float", {"low": 1e-5, "high": 1e-2, "log": True}),
    "backbone_learning_rate": ("float", {"low": 1e-6, "high": 1e-2, "log": True}),
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
FIRST = "trial_0000"  # the run with the current settings, see `trial_name`
# What the original implementation trained with, as far as the space covers it: no weight decay, no
# label smoothing, one learning rate for all layers.
ORIGINAL = {"model": "mobilenet_v3_large", "learning_rate": 9e-5, "backbone_learning_rate": 9e-5,
            "layer_decay": 1.0, "weight_decay": 1e-6, "batch_size": 90, "label_smoothing": 0.0,
            "trivial_augment": False, "mixup": 0.0, "cutmix": 0.0, "freeze_backbone": False}
LOSS = "calibrated_loss"  # minimised by the search; train.py selects epochs by it, too
METRICS = (LOSS, "accuracy", "macro_f1")


def main(argv=None):
    s, changed = config.parse(argv, __file__, __doc__)
    for name, value in changed.items():  # a storage's address may contain a password
        print(f"setting {name.lower()} = {'(not shown)' if name == 'SEARCH_STORAGE' else value}")
    require_folder_name(s.search_study, "--search_study")
    plt.switch_backend("Agg")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    data = build_data(s)
    photographs = table_fingerprint(data.table, s.dataset_dir)
    space, folder = build_space(s), s.runs_dir / s.search_study
    if len({find_network(name)[1:] for name in s.search_models}) == 1:  # else each has its own view
        s = complete_view(SimpleNamespace(**{**vars(s), "model": s.search_models[0]}))
    check_networks(s)
    if "batch_size" in space and not s.batch_size:  # the first trial has the current settings
        s.batch_size = build_batch_size(s, data.train_table)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")  # between processes that write the same files
    fixed = as_stored({name: value for name, value in changed.items()
                       if name not in config.settings("search")})
    keep = partial(keep_best, s=s, fixed=fixed, lock=lock)
    try:
        with lock:
            study = build_study(s, space, folder, [plant.latin for plant in data.classes],
                                photographs)
        run_trials(study, partial(run_trial, s=s, space=space), s, [log_trial, keep])
        keep(study)
        with lock:
            plot(study, folder)
        print_best(study, s, folder)
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        where = ("--search_storage, such as postgresql+psycopg://user@host/database"
                 if s.search_storage else folder / "study.db")
        raise InputError(f"{where}: {reason}; correct this, run the same command again") from None


# ---- trials ----

def run_trial(trial, s, space):
    """Train with the settings of a trial and return its best validation loss, in nats.

    The first two trials have the current settings and those of the original implementation. A
    trial that diverges, runs out of memory, or is killed counts as pruned, so that the sampler
    avoids its settings.
    """
    trials = trial.study.get_trials(deepcopy=False)
    first, name = first_attempt(trials[trial.number]), trial_name(trials[trial.number])
    index = sum(first_attempt(other) == other.number for other in trials[:first])  # without retries
    fixed = dict(enumerate(first_settings(s, space))).get(index)
    trial.study.sampler = build_sampler(s.seed, index, fixed)
    chosen = {key: getattr(trial, f"suggest_{kind}")(key, **options)
              for key, (kind, options) in space.items()}
    trial.set_user_attr("started", trial.number)  # see requeue_stale; a retry has another number
    values = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
              for key, value in chosen.items()]
    print(f"{name}{'' if first == trial.number else ' (retry)'}: {', '.join(values)}", flush=True)
    t = build_trial_settings(s, name, chosen)
    best, outcome = train_trial(trial, t)
    trial.set_user_attr("best", best)
    trial.set_user_attr("outcome", outcome)
    write_hparams(t.runs_dir / t.run, chosen, space, best)
    if outcome != "finished":
        raise optuna.TrialPruned
    return best[LOSS]


def train_trial(trial, t):
    """Train or resume in a child process; return (metrics of the best epoch, outcome).

    A resumed trial reports its earlier epochs again, so that the pruner sees the whole trial.
    """
    best = {}

    def report(epoch, metrics):
        trial.report(metrics[LOSS], epoch)
        if metrics[LOSS] < best.get(LOSS, float("inf")):
            best.update({key: metrics[key] for key in METRICS}, epoch=epoch)
        if trial.should_prune():
            raise optuna.TrialPruned("pruned")

    last = t.checkpoints_dir / t.run / LAST
    try:
        for past in load_checkpoint(last)["history"] if last.exists() else ():
            if past["epoch"] > 0:  # 0 is the linear probe, which `train` does not report
                report(past["epoch"], {key: past[f"val_{key}"] for key in METRICS})
        result = call_in_child(train.train, t, report)
        return {key: result[key] for key in ("epoch", *METRICS)}, "finished"
    except (optuna.TrialPruned, train.Diverged, EndedEarly) as error:
        return best, str(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return best, f"out of memory: {str(error).splitlines()[0]}"


# ---- building ----

def build_space(s):
    """Return the search space: the model, and the `search_settings` that have an effect."""
    if not s.search_models:
        raise InputError("--search_models names no network; name at least one")
    idle = idle_settings(s)
    names = [name for name in SPACE if name in s.search_settings and name not in idle]
    return {"model": ("categorical", {"choices": list(s.search_models)}),
            **{name: SPACE[name] for name in names}}


def build_batch_size(s, train_table):
    """Return the number of photographs per step that BATCH_SIZE 0 means for a training table."""
    one = complete(SimpleNamespace(**{**vars(s), "model": s.search_models[0]}))
    return build_train_loader(train_table, one).batch_size


def check_networks(s):
    """Raise InputError, before the first trial, if one of the networks cannot be trained."""
    for name in s.search_models:
        one = complete(SimpleNamespace(**{**vars(s), "model": name, "run": ""}))
        train.check_settings(one)
        load_initial_weights(build_model(name, 2), name, s.initial_weights)
        if count_fitting(one) < 1:
            raise InputError(f"{name} does not fit into the free memory with images of "
                             f"{one.image_size} pixels; search with a smaller --image_size, or "
                             "leave it out of --search_models")


def build_trial_settings(s, name, chosen):
    """Return the settings of a trial: the search's, those drawn for the trial, its run folder.

    A batch too large for the memory is split into smaller passes; otherwise the system would kill
    the process.
    """
    t = complete(SimpleNamespace(**{
        **vars(s), **chosen, "run": name, "resume_changed": False,
        "runs_dir": s.runs_dir / s.search_study,
        "checkpoints_dir": s.checkpoints_dir / s.search_study}))
    fitting = max(1 if keeps_batchnorm(t) else 2, count_fitting(t))  # as train.py demands
    if fitting < (t.micro_batch or t.batch_size or LARGE_BATCH):
        t.micro_batch = fitting
    return t


def first_settings(s, space):
    """Return the current settings and ORIGINAL, each clipped to the search space."""
    def inside(name, value):
        options = space[name][1]
        if "choices" in options:
            return value if value in options["choices"] else options["choices"][0]
        return min(max(value, options["low"]), options["high"])
    current = vars(complete(SimpleNamespace(**{**vars(s), "model": inside("model", s.model)})))
    return [{name: inside(name, {**current, **values}[name]) for name in space}
            for values in ({}, ORIGINAL)]


# ---- results ----

def log_trial(study, trial):
    """Print how a trial of this process ended (a callback of Optuna)."""
    best, epochs = best_trial(study), len(trial.intermediate_values)
    print(f"{trial_name(trial)}: {trial.user_attrs['outcome']} after epoch {epochs}"
          + (f", val loss {trial.value:.4f}" if trial.value is not None else "")
          + (f"; best {best.value:.4f} in {trial_name(best)}" if best else ""), flush=True)


def keep_best(study, _trial=None, *, s, fixed, lock):
    """Write best.json; delete the checkpoints of all other ended trials except the first.

    `fixed` are the settings given by flags, which all trials share.
    """
    with lock:
        best = best_trial(study)
        if best:
            write_text(s.runs_dir / s.search_study / "best.json", json.dumps(
                {**fixed, **best.params}, indent=1, ensure_ascii=False) + "\n")
        names = {trial_name(trial) for trial in study.get_trials(deepcopy=False, states=ENDED)}
        for name in names - {FIRST, trial_name(best) if best else ""}:
            for file in (BEST, LAST, PROBE):
                (s.checkpoints_dir / s.search_study / name / file).unlink(missing_ok=True)


def write_hparams(folder, chosen, space, best):
    """Add a trial to TensorBoard's HPARAMS: its settings and, if any, its best epoch's metrics."""
    values = {name: str(value) if isinstance(value, bool) else value
              for name, value in chosen.items()}
    domains = {name: [str(choice) for choice in options["choices"]]
               for name, (_, options) in space.items() if "choices" in options}
    seconds = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    while time.time() < max(seconds, default=0) + 1:  # TensorBoard orders files by these seconds
        time.sleep(0.05)
    with SummaryWriter(folder, filename_suffix=".hparams") as writer:
        for summary in hparams(values, {f"search/{key}": 0.0 for key in METRICS}, domains):
            writer.file_writer.add_summary(summary)
        for key in METRICS if best else ():
            writer.add_scalar(f"search/{key}", best[key], best["epoch"])


def plot(study, folder):
    """Write history.png, importance.png and slice.png if enough trials are finished."""
    warnings.simplefilter("ignore", UserWarning)  # about settings that took only one value
    finished = count(study, (TrialState.COMPLETE,))
    for name, draw, least in (("history", plots.plot_optimization_history, 1),
                              ("slice", plots.plot_slice, 1),
                              ("importance", plots.plot_param_importances, 2)):
        if finished >= least:
            figure = np.ravel(draw(study, target_name="validation loss"))[0].figure
            with atomic_path(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, format="png", bbox_inches="tight")
            plt.close(figure)


def compare_with_first(best, folder):
    """Return a sentence that compares the best trial with the first, the current settings.

    `folder` contains the checkpoints of the trials. Losses are paired by photograph, each trial's
    at its epoch of lowest mean loss.
    """
    if trial_name(best) == FIRST:
        return "no trial was better than the current settings"
    try:
        first, lowest = (load_checkpoint(folder / name / LAST)["lowest"]["losses"]
                         for name in (FIRST, trial_name(best)))
    except InputError:  # a trial that ended before its first epoch, or on another machine
        return f"the best trial cannot be compared with {FIRST}, the current settings"
    gain = first - lowest
    error = 2 * gain.std(correction=0).item() / len(gain) ** 0.5
    verdict = ("better" if gain.mean() > error else "no better" if gain.mean() <= 0 else
               "better, but within the noise of validation,")
    return (f"{trial_name(best)} is {verdict} than {FIRST}, the current settings: loss lower by "
            f"{gain.mean():.4f} (two standard errors: {error:.4f}, {len(gain):,} photographs)")


def print_best(study, s, folder):
    """Print the best trial; raise InputError if no trial was finished."""
    best, ended = best_trial(study), count(study, ENDED)
    if best is None:
        raise InputError(f"none of the {ended} trials of study {s.search_study} was finished; the "
                         "lines above say why, change these settings and name a new study")
    accuracy = best.user_attrs["best"]["accuracy"]
    print(compare_with_first(best, s.checkpoints_dir / s.search_study))
    print(f"best val loss {best.value:.4f} (accuracy {accuracy:.2%}) in {trial_name(best)}, "
          f"the best of {ended}: {script_command('train.py', '--settings', folder / 'best.json')}")


if __name__ == "__main__":
    run(main)
