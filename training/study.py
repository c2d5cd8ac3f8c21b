"""A study of Optuna: where it is kept, how it draws and prunes, and what becomes of trials that were stopped."""
import contextlib
import time

import optuna
import sqlalchemy
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import config
from training.runs import plain, stream_seed
from utils import FileLock, InputError


class Surplus(Exception):
    """A trial was begun although the study has all of its trials."""


def build_study(s, space, folder, class_names, photographs):
    """Return the study of that name, a new one or one to go on with.

    Raises InputError where it was started with other photographs, space or settings.
    """
    study = optuna.create_study(storage=build_storage(s, folder), study_name=s.search_study, load_if_exists=True,
                                sampler=build_sampler(s), pruner=build_pruner(s))
    fixed = {name.lower(): value for name, value in config.settings(*config.TRAINING_GROUPS).items()}
    now = plain({**{name: getattr(s, name) for name in fixed if name not in space and name != "class_table"},
                 "space": space, "classes": class_names, "photographs": photographs})
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", now)
    elif changes := [f"{key}: {before.get(key)} -> {now.get(key)}" for key in {**before, **now}
                     if before.get(key) != now.get(key)]:
        raise InputError(f"study {s.search_study} was started with other settings ({'; '.join(changes)}); give this "
                         "one another name with --search_study")
    return study


def build_storage(s, folder):
    """Return the storage of the study: a journal file in its folder, or the database that `search_storage` names."""
    if s.search_storage:
        return connect(s.search_storage, s.search_heartbeat, RetryHeartbeatStaleTrialCallback(s.search_retries))
    path, lock = folder / "study.log", FileLock(folder / "study.log.lock")  # Optuna's own outlives a killed process
    with lock, open(path, "ab+") as file:  # a line torn by a full disk would make the whole journal unreadable
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock))


def connect(url, heartbeat, retry, attempts=5):
    """Return Optuna's storage in a database; of two processes that create its tables at once, one has to try again."""
    try:
        return RDBStorage(url, heartbeat_interval=heartbeat, heartbeat_stale_trial_callback=retry)
    except ImportError as error:
        raise InputError(f"--search_storage: {error.__cause__ or error}; for PostgreSQL write postgresql+psycopg://... "
                         "and pip install 'psycopg[binary]'") from None
    except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
        if attempts == 1:
            raise
    time.sleep(1)
    return connect(url, heartbeat, retry, attempts - 1)


def build_sampler(s, place=0, fixed=None):
    """Return a TPE sampler (https://arxiv.org/abs/2304.11127) whose draws are a function of the seed and the place.

    `fixed` are values it is to give instead.
    """
    sampler = optuna.samplers.TPESampler(seed=stream_seed(s.seed, "search", place) % 2**32, n_startup_trials=10,
                                         multivariate=True, constant_liar=True)
    return optuna.samplers.PartialFixedSampler(fixed, sampler) if fixed else sampler


def build_pruner(s):
    """Return what stops trials early by their validation loss after each epoch."""
    if s.search_pruner == "halving":  # not in the best third at epoch 1, 3, 9 ...: https://arxiv.org/abs/1810.05934
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    if s.search_pruner == "median":  # worse than half of the trials before it at the same epoch
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=s.num_epochs // 5)
    if s.search_pruner == "hyperband":  # https://arxiv.org/abs/1603.06560
        return optuna.pruners.HyperbandPruner(min_resource=max(1, s.num_epochs // 9), max_resource=s.num_epochs)
    if s.search_pruner == "none":
        return optuna.pruners.NopPruner()
    raise InputError(f"unknown pruner {s.search_pruner!r}; --search_pruner takes halving, median, hyperband, none")


# ---- trials ----

def run_one(study, objective, worker):
    """Run the next trial; what stops it (Ctrl-C, a full disk) goes through, and the trial is queued again."""
    try:
        study.optimize(objective, n_trials=1, gc_after_trial=True, catch=(Surplus,))
    except BaseException as error:
        trials = study.get_trials()
        stopped = [trial for trial in trials if trial.state == TrialState.FAIL]
        for own in [trial for trial in stopped if trial.user_attrs.get("worker") == worker][-1:]:
            if any(origin(trial) == origin(own) for trial in trials[own.number + 1:]):
                raise InputError(f"{run_of(own)} gave no sign of life for so long that it was given to another "
                                 "process; the same command goes on") from error
            RetryHeartbeatStaleTrialCallback()(study, own)
        raise


def requeue_stopped(study, s, sign):
    """Queue again, at most `search_retries` times each, the trials of processes that ended without finishing them.

    A process holds a lock on its `sign` as long as it lives. Processes of other machines, known through a database
    only, are taken for dead when their heartbeat stops (Optuna's RDBStorage).
    """
    fail_stale_trials(study)
    lost = {path.name: path for path in sign.parent.iterdir() if path != sign and FileLock(path).acquire(wait=False)}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker", "")
        if worker in lost or not (s.search_storage or (sign.parent / worker).is_file()):
            with contextlib.suppress(ValueError):  # another machine, which saw its heartbeat stop, was first
                failed = study.tell(trial.number, state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback(s.search_retries)(study, failed)
    for path in lost.values():
        path.unlink()


def origin(trial):
    """Return the number of a trial, or of the stopped trial that it does again: one number per set of settings."""
    return trial.system_attrs.get("failed_trial", trial.number)


def run_of(trial):
    """Return the name of a trial's run and folders; a stopped trial and those that do it again share one."""
    return f"trial_{origin(trial):04}"


def origins(trials):
    """Return the set of numbers of the trials that count, each once however often it was done again."""
    return {origin(trial) for trial in trials if "surplus" not in trial.user_attrs}


def best_trial(trials):
    """Return the finished, not pruned, trial of the lowest validation loss, or None."""
    return min((trial for trial in trials if trial.state == TrialState.COMPLETE), key=lambda trial: trial.value,
               default=None)
