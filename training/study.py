"""An Optuna study shared by several processes: storage, sampler, pruner, retries.

A trial whose process was killed stays RUNNING until its heartbeat is stale. Optuna then marks it
FAIL and queues a copy with the same settings, which resumes from the checkpoint of the run.
"""
import time
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

import optuna
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from training.checkpoints import changed_settings
from training.run_state import record_settings
from training.runs import as_stored, numpy_seed, stream_seed
from utils import InputError, warn

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


class TakenOver(BaseException):
    """Another process retries this trial; Optuna would try to record an Exception as its result."""


# ---- building ----

def build_study(s, space, folder, class_names, photographs):
    """Create or open the study; InputError if it has other photographs, space or settings.

    `photographs` is the `table_fingerprint` of the label table.
    """
    study = optuna.create_study(storage=build_storage(s, folder), study_name=s.search_study,
                                load_if_exists=True, pruner=build_pruner(s))
    record = record_settings(s, class_names, photographs)
    now = {**{name: value for name, value in record.items() if name not in space},
           **as_stored({"space": space})}
    if changes := changed_settings(study.user_attrs.get("settings", now), now):
        raise InputError(f"study {s.search_study} was created with other settings "
                         f"({'; '.join(changes.values())}); name a new study with --search_study")
    study.set_user_attr("settings", now)
    return study


def build_storage(s, folder):
    """Return the storage of the study: the database `search_storage`, or SQLite in its folder."""
    heartbeat = {"heartbeat_interval": s.search_heartbeat, "heartbeat_stale_trial_callback":
                 RetryHeartbeatStaleTrialCallback(s.search_retries)}
    if s.search_storage:
        return open_database(s.search_storage, heartbeat)
    return open_sqlite(folder / "study.db", heartbeat)


def open_database(url, heartbeat, attempts=5):
    """Return the storage in a database server; retry if another process creates its tables."""
    try:
        return RDBStorage(url, **heartbeat)
    except ImportError as error:
        raise InputError(f"--search_storage: {error.__cause__ or error}; for PostgreSQL write "
                         "postgresql+psycopg://... and pip install 'psycopg[binary]'") from None
    except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
        if attempts == 1:
            raise
    time.sleep(1)
    return open_database(url, heartbeat, attempts - 1)


def open_sqlite(path, heartbeat):
    """Return the storage in a SQLite file, made safe for several processes.

    Optuna reads a trial's state and then changes it. SQLite would lock at the change only, so that
    two processes could take the same queued trial. BEGIN IMMEDIATE locks before the read; how it is
    sent follows https://docs.sqlalchemy.org/en/20/dialects/sqlite.html.
    """
    url = sqlalchemy.URL.create("sqlite", database=path.as_posix()).render_as_string()
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna formats it
    storage = RDBStorage(url, {"connect_args": {"timeout": 60}}, **heartbeat)  # seconds for a lock
    sqlalchemy.event.listen(storage.engine, "connect", lambda connection, _:
                            setattr(connection, "isolation_level", None))
    sqlalchemy.event.listen(storage.engine, "begin", lambda connection:
                            connection.exec_driver_sql("BEGIN IMMEDIATE"))
    storage.engine.dispose()  # connections opened before do not have these
    return storage


def build_sampler(seed, index, fixed=None):
    """Return a TPE sampler (https://arxiv.org/abs/2304.11127), seeded; `fixed` is not drawn."""
    sampler = optuna.samplers.TPESampler(
        seed=numpy_seed(stream_seed(seed, "search", index)), n_startup_trials=10, multivariate=True,
        constant_liar=True)
    return optuna.samplers.PartialFixedSampler(fixed, sampler) if fixed else sampler


def build_pruner(s):
    """Return the pruner, which stops trials early by their validation loss after each epoch.

    Halving stops those not in the best third at epoch 1, 3, 9, ...
    (https://arxiv.org/abs/1810.05934); docs/history.md compares it with the median pruner.
    """
    if s.search_pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


# ---- running ----

def run_trials(study, objective, s, callbacks):
    """Run trials until `search_trials` have ended, including those of other processes.

    This waits for trials that run elsewhere and retries them if their process dies. Processes that
    ask for the last trial at the same moment may each run one. At the start it waits until RUNNING
    trials have a heartbeat or are stale: retries come before new trials, so that a search that was
    killed and restarted has the trials of an undisturbed one.
    """
    total, stale = s.search_trials, 2 * s.search_heartbeat + 2  # 2: heartbeats have whole seconds
    start = time.monotonic()
    while count(study, ENDED) < total:
        requeue_stale(study, s)
        enough = count(study, (*ENDED, TrialState.RUNNING)) >= total
        unsure = (count(study, (TrialState.RUNNING,)) and not count(study, (TrialState.WAITING,))
                  and time.monotonic() < start + stale)
        if enough or unsure:
            time.sleep(1)
            continue
        with suppress(TakenOver):
            study.optimize(partial(run_or_requeue, objective), gc_after_trial=True, callbacks=[
                MaxTrialsCallback(total, (*ENDED, TrialState.RUNNING)), *callbacks])


def run_or_requeue(objective, trial):
    """Run the objective; queue the trial again if Ctrl-C or an error stops it."""
    try:
        return objective(trial)
    except optuna.TrialPruned:
        raise
    except UpdateFinishedTrialError:
        attempt = trial.study.get_trials(deepcopy=False)[trial.number]
        warn(f"{trial_name(attempt)}: its heartbeat was late, another process has taken it over")
        raise TakenOver from None
    except BaseException:
        RetryHeartbeatStaleTrialCallback()(trial.study, trial.study.get_trials()[trial.number])
        raise


def requeue_stale(study, s):
    """Mark trials whose process died as FAIL and queue each again, up to `search_retries` times.

    Optuna does so if a heartbeat stopped. But a process killed before its first heartbeat, or a
    study copied from a journal, leaves a RUNNING trial that was never marked as started.
    """
    optuna.storages.fail_stale_trials(study)
    latest = datetime.now() - timedelta(seconds=2 * s.search_heartbeat)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("started") != trial.number and trial.datetime_start < latest:
            with suppress(ValueError, UpdateFinishedTrialError):  # another process was faster
                failed = study.tell(trial.number, state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback(s.search_retries)(study, failed)


# ---- trials ----

def count(study, states):
    """Return the number of trials in these states."""
    return len(study.get_trials(deepcopy=False, states=states))


def first_attempt(trial):
    """Return the number of the trial or, for a retry, of the trial that it repeats."""
    return trial.system_attrs.get("failed_trial", trial.number)


def trial_name(trial):
    """Return the name of the run and its folders, which a trial shares with its retries."""
    return f"trial_{first_attempt(trial):04}"


def best_trial(study):
    """Return the completed (not pruned) trial of the lowest validation loss, or None."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(trials, key=lambda trial: trial.value, default=None)
