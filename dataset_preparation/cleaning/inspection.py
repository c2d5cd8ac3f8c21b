"""Inspect one photograph; inspect many in parallel, in processes or on a cluster."""
import signal
import threading
import warnings
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import images
from dataset_preparation.cleaning.feature_store import to_columns
from dataset_preparation.cleaning.local_features import describe_image
from dataset_preparation.cleaning.near_duplicates import fingerprint, to_hex
from dataset_preparation.cleaning.quality_scores import measure
from dataset_preparation.parsing.stopping import deferred_stop, exit_with_parent
from image_metadata import read_capture
from utils import InputError, atomic_path, sha256

ROOT = str(Path(__file__).resolve().parents[2])
LONGEST_SIDE = 65_500  # pixels a JPEG can have
NOTHING_KNOWN = {"sha256": "", "bytes": 0, "width": "", "height": "",  # upright, full size
                 "reason": "",  # of rejection
                 "fingerprint": "", "scores": {}, "camera": "", "taken": "", "cleaned_sha256": ""}
CRASHED = {**NOTHING_KNOWN, "reason": "crashes its decoder"}
# Prefixes of reasons that may not apply to the next run, which retries such files.
TRANSIENT_PREFIXES = ("cannot be read", "took longer", "HEIC", CRASHED["reason"])


# ---- one photograph ----

def inspect(path, output, rule):
    """Inspect one file, write its cleaned photograph to `output`, and return the findings.

    `rule` maps the settings of cleaning in lower case to values; NOTHING_KNOWN has the keys of the
    findings, to which a picture adds `features`, for the `FeatureStore`. Rejected photographs are
    written, too, because a person may want them; a file that is not an intact picture is not.
    Raises OSError if the cleaned photograph cannot be written.
    """
    result = {**NOTHING_KNOWN}
    try:
        size = Path(path).stat().st_size
        if size > rule["max_file_mb"] * 1e6:
            raise images.BadImage(f"too large: {size / 1e6:.0f} MB")
        data = Path(path).read_bytes()
        result.update(sha256=sha256(data), bytes=len(data))
        with warnings.catch_warnings(), time_limit(rule["decode_seconds"]):
            warnings.simplefilter("ignore")  # about broken metadata, which the user cannot mend
            image, profile = read_upright(data, rule, result)
            found = {"fingerprint": to_hex(fingerprint(image)),
                     "scores": measure(image), "features": to_columns(describe_image(image))}
    except (images.BadImage, TimeoutError) as error:
        return {**result, "reason": result["reason"] or str(error)}
    except OSError as error:
        return {**result, "reason": f"cannot be read: {error.strerror or error}"}
    cleaned = images.encode(image, quality=rule["jpeg_quality"], icc_profile=profile)
    with atomic_path(output) as temporary:
        temporary.write_bytes(cleaned)
    return {**result, **found, "cleaned_sha256": sha256(cleaned)}


def read_upright(data, rule, result):
    """Return (upright RGB image of the output size, its colour profile) of a photograph's bytes.

    Fills in `width`, `height` and `reason` of the result; raises BadImage if it is not a picture.
    """
    # A JPEG is decoded at the smallest sufficient scale. Twice that scale would be closer to a full
    # decode (47 to 53 dB), but the JPEG written below has only 40 dB anyway.
    side = rule["output_side"]
    image, (width, height) = images.open_image(data, rule["max_megapixels"], draft_side=side)
    # A damaged photograph is rejected but written: a person may find it good enough.
    reason = filter_reason(image.mode, width, height, rule) or images.find_damage(data)
    result.update(read_capture(image), width=width, height=height, reason=reason)
    if max(width, height) * side > LONGEST_SIDE * min(width, height):
        raise images.BadImage(f"too long: {width} x {height}")
    rgb = images.to_rgb(image)
    # A profile that is left is of sRGB. Profiles of other modes describe other channels.
    profile = rgb.info.get("icc_profile") if image.mode == "RGB" else None
    return images.resize_shorter_side(rgb, side), profile


def filter_reason(mode, width, height, rule):
    """Return why an intact picture is rejected, or ""."""
    if mode not in (*rule["accepted_modes"], *rule["converted_modes"]):
        return f"{images.name_mode(mode)}: to accept it, add '{mode}' to --converted_modes"
    if min(width, height) < rule["min_side"]:
        return f"too small: {min(width, height)} px"
    return ""


@contextmanager
def time_limit(seconds):
    """Raise TimeoutError in the body after it has computed for `seconds`.

    This is processor time, so that a busy machine accepts the same files as an idle one. Without
    effect on Windows, which has no POSIX timers, and outside the main thread, which alone receives
    signals.
    """
    if (not hasattr(signal, "setitimer")
            or threading.current_thread() is not threading.main_thread()):
        yield
        return

    def stop(*_):
        raise TimeoutError(f"took longer than {seconds:g} s of processor time")
    signal.signal(signal.SIGPROF, stop)
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


# ---- many photographs ----

def map_files(function, jobs, processes, crashed):
    """Yield (job, function(*job)) for a list of jobs, in order, from several processes.

    If a decoder crashes its process, only that file is lost: the jobs after the last result, which
    were under way, are tried one by one; the result of one that crashes again is `crashed`. If none
    does, the process was ended from outside, for example because memory ran out.
    """
    done, alone, chunk = 0, False, 8
    while done < len(jobs):
        waiting = jobs[done:done + (processes + 1) * chunk] if alone else jobs[done:]
        workers, chunksize = (1, 1) if alone else (processes, chunk)
        pool = ProcessPoolExecutor(workers, initializer=exit_with_parent)
        try:
            with deferred_stop():  # a pool that has started half of its workers cannot shut down
                results = pool.map(function, *zip(*waiting, strict=True), chunksize=chunksize)
            for job, result in zip(waiting, results, strict=True):
                yield job, result
                done += 1
            alone = False
        except BrokenProcessPool:
            if alone:
                yield jobs[done], crashed
                done += 1
            alone = not alone
        finally:
            pool.shutdown(cancel_futures=True)


def map_files_on_cluster(function, jobs, scheduler, crashed, at_once=2000):
    """Yield (job, function(*job)) for a list of jobs, in any order, from a cluster's workers.

    `scheduler` is the address of a Dask scheduler such as tcp://host:8786. Its workers must have
    the same packages and see the same files, including this repository, under the same paths. There
    is no time limit per file, as Dask runs jobs outside of the main thread. A job that crashes its
    worker also ends other jobs there (fewest with `dask worker --nthreads 1`): these jobs are
    retried one by one at the end, and those that crash again get the result `crashed`.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise InputError("--dask_scheduler needs the Python package distributed; run "
                         "pip install distributed") from None
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler} ({error}); start it, or leave "
                         "--dask_scheduler out to clean on this machine") from None
    with client, client.get_executor(pure=False) as executor:
        # The scheduler unpickles jobs, so it must be able to import them.
        client.run_on_scheduler(exec, f"import sys; sys.path.insert(0, {ROOT!r})")
        client.register_plugin(repository_on_path())
        left, running, again = iter(jobs), deque(), []
        while True:
            running.extend((job, executor.submit(function, *job))
                           for job in islice(left, at_once - len(running)))
            if not running:
                break
            job, future = running.popleft()
            try:
                yield job, future.result()
            except KilledWorker:
                again.append(job)
        for job in again:
            try:
                yield job, executor.submit(function, *job).result()
            except KilledWorker:
                yield job, crashed


def repository_on_path():
    """Return a plugin that lets Dask workers, even restarted ones, import this repository."""
    from distributed import WorkerPlugin
    root = ROOT

    # A class defined in a function is pickled by value, so the workers need not import it.
    class RepositoryOnPath(WorkerPlugin):
        def setup(self, worker):
            import sys
            sys.path.insert(0, root)
    return RepositoryOnPath()
