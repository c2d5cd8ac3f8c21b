"""What cleaning does to one photograph, and how that is done to many: in processes, or on a cluster."""
import multiprocessing
import os
import threading
import warnings
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path

from dataset_preparation.cleaning.near_duplicates import fingerprint, to_text
from dataset_preparation.cleaning.quality_scores import measure
from images import BadImage, open_image, resize_shorter_side, time_limit, to_rgb
from utils import InputError, atomic_path, sha256

ROOT = str(Path(__file__).resolve().parents[2])
LONGEST_SIDE = 65_500  # pixels a JPEG can have
NOTHING_KNOWN = {"sha256": "", "bytes": 0, "width": "", "height": "", "reason": "", "fingerprint": "", "scores": {},
                 "written": 0}
CRASHED = {**NOTHING_KNOWN, "reason": "crashes its decoder"}
PASSING = ("cannot be read", "took longer")  # how reasons begin that may be another time's


# ---- one photograph ----

def inspect(path, output, rule):
    """Judge one file, write its cleaned copy to `output`, and return what the table needs to know about it.

    `rule` maps the settings of the cleaning group in lower case to values. Returns a dictionary with `sha256`,
    `bytes`, `width` and `height` (upright, at full size), `reason` (empty for a good photograph), `fingerprint` (of
    `near_duplicates.fingerprint`, as hex), `scores` (of `quality_scores.measure`) and `written`, the bytes of the copy. A photograph
    that a filter rejects is written, too, as a person may want it; what is no whole picture has no fingerprint and no
    copy. Raises OSError when the copy cannot be written.
    """
    result = {**NOTHING_KNOWN}
    try:
        size = Path(path).stat().st_size
        if size > rule["max_file_mb"] * 1e6:
            raise BadImage(f"too large: {size / 1e6:.0f} MB")
        data = Path(path).read_bytes()
        result.update(sha256=sha256(data), bytes=len(data))
        with warnings.catch_warnings(), time_limit(rule["decode_seconds"]):
            warnings.simplefilter("ignore")  # what Pillow thinks of broken metadata is not the user's concern
            # Not at twice the side: that is 47 or 53 dB from a full decode, but 40 dB is what the JPEG below leaves.
            image, (width, height) = open_image(data, rule["max_megapixels"], draft_side=rule["output_side"])
            result.update(width=width, height=height, reason=filter_reason(image.mode, width, height, rule))
            if max(width, height) * rule["output_side"] > LONGEST_SIDE * min(width, height):
                raise BadImage(result["reason"] or f"too long: {width} x {height}")
            profile = image.info.get("icc_profile") if image.mode == "RGB" else None  # others mean other channels
            image = resize_shorter_side(to_rgb(image), rule["output_side"])
            look = to_text(fingerprint(image, rule["hash"]))
            scores = measure(image)
    except (BadImage, TimeoutError) as error:
        result["reason"] = result["reason"] or str(error)
        return result
    except OSError as error:
        return {**result, "reason": f"cannot be read: {error.strerror or error}"}
    with atomic_path(output) as temporary:
        image.save(temporary, "JPEG", quality=rule["jpeg_quality"], icc_profile=profile)
        return {**result, "fingerprint": look, "scores": scores, "written": temporary.stat().st_size}


def filter_reason(mode, width, height, rule):
    """Return why a whole picture is not wanted, or an empty text."""
    if mode not in (*rule["accepted_modes"], *rule["converted_modes"]):
        return f"mode: {mode}"
    if min(width, height) < rule["min_side"]:
        return f"too small: {min(width, height)} px"
    return ""


# ---- many photographs ----

def map_files(function, jobs, processes, crashed):
    """Yield (job, function(*job)) for a list of jobs, in order, from several processes.

    A decoder that takes its whole process down costs that file only: the jobs after the last result are then tried
    one by one until the culprit is found, which gets the result `crashed`.
    """
    done, alone = 0, False
    while done < len(jobs):
        waiting = jobs[done:]
        try:
            with ProcessPoolExecutor(1 if alone else processes, initializer=exit_with_parent) as pool:
                results = pool.map(function, *zip(*waiting, strict=True), chunksize=1 if alone else 8)
                for job, result in zip(waiting, results, strict=True):
                    yield job, result
                    done += 1
        except BrokenProcessPool:
            if alone:
                yield jobs[done], crashed
                done += 1
            alone = not alone


def map_files_on_cluster(function, jobs, scheduler, crashed, at_once=2000):
    """Yield (job, function(*job)) for a list of jobs, in any order, from the workers of a Dask scheduler.

    `scheduler` is its address such as tcp://host:8786. The workers see the same files, this repository among them,
    under the same paths, and have the same packages. No file has a time limit there, as Dask runs jobs beside the main
    thread. Jobs whose workers died are tried again one by one at the end, as a job takes its neighbours down with it
    (fewest with `dask worker --nthreads 1`); the culprit gets the result `crashed`.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise InputError("--dask_scheduler needs the package distributed: pip install distributed") from None
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with client, client.get_executor(pure=False) as executor:
        client.run_on_scheduler(exec, f"import sys; sys.path.insert(0, {ROOT!r})")  # it reads what it hands on
        client.register_plugin(repository_on_path())
        left, running, again = iter(jobs), deque(), []
        while True:
            running.extend((job, executor.submit(function, *job)) for job in islice(left, at_once - len(running)))
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
    """Return a plugin that lets Dask workers, also restarted ones, import this repository from whatever folder."""
    from distributed import WorkerPlugin
    root = ROOT

    class RepositoryOnPath(WorkerPlugin):  # a class in a function is sent whole, not by the name of its module
        def setup(self, worker):
            import sys
            sys.path.insert(0, root)
    return RepositoryOnPath()


def exit_with_parent():
    """End this worker process when the process that started it is gone, however that one ended."""
    def watch():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
