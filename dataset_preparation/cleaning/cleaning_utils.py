"""What cleaning does to one photograph, and how equal and near-equal photographs are found among all of them."""
import multiprocessing
import os
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path

import imagehash
import numpy as np
from PIL import ImageOps

from images import BadImage, open_image, resize_shorter_side, time_limit, to_rgb
from utils import atomic_path, join_groups, sha256

# 64 bits each; what each one sees: https://github.com/JohannesBuchner/imagehash
HASHES = {"phash": imagehash.phash, "dhash": imagehash.dhash, "whash": imagehash.whash,
          "average_hash": imagehash.average_hash}
CROPS = (0.03, 0.06, 0.09, 0.12)  # parts cut off each side; together they find copies cropped or bordered up to 13 %
NUM_VIEWS = 2 + len(CROPS)

LONGEST_SIDE = 65_500  # pixels a JPEG can have
NOTHING_KNOWN = {"sha256": "", "bytes": 0, "width": "", "height": "", "reason": "", "hashes": ()}
CRASHED = {**NOTHING_KNOWN, "reason": "crashes its decoder"}


# ---- one photograph ----

def inspect(path, output, rule):
    """Judge one file, write its cleaned copy to `output`, and return what the table needs to know about it.

    `rule` maps the settings of the cleaning group in lower case to values. Returns a dictionary with `sha256`,
    `bytes`, `width` and `height` (upright, at full size), `reason` (empty for a good photograph) and `hashes`
    (`NUM_VIEWS` integers). Raises OSError when the copy cannot be written.
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
            image, (width, height) = open_image(data, rule["max_megapixels"], draft_side=2 * rule["output_side"])
            result.update(width=width, height=height, reason=filter_reason(image.mode, width, height, rule))
            if not result["reason"]:
                profile = image.info.get("icc_profile") if image.mode == "RGB" else None  # others mean other channels
                image = resize_shorter_side(to_rgb(image), rule["output_side"])
                result["hashes"] = view_hashes(image, rule["hash"])
    except (BadImage, TimeoutError) as error:
        result["reason"] = str(error)
    except OSError as error:
        result["reason"] = f"cannot be read: {error.strerror or error}"
    if not result["reason"]:
        with atomic_path(output) as temporary:
            image.save(temporary, "JPEG", quality=rule["jpeg_quality"], icc_profile=profile)
    return result


def filter_reason(mode, width, height, rule):
    """Return why a whole picture is not wanted, or an empty text."""
    if mode not in (*rule["accepted_modes"], *rule["converted_modes"]):
        return f"mode: {mode}"
    if min(width, height) < rule["min_side"]:
        return f"too small: {min(width, height)} px"
    if max(width, height) * rule["output_side"] > LONGEST_SIDE * min(width, height):
        return f"too long: {width} x {height}"
    return ""


def view_hashes(image, hash_name):
    """Return the 64-bit hashes of `NUM_VIEWS` views of a PIL image: whole, mirrored, centre crops."""
    grey = image.convert("L")
    views = [grey, ImageOps.mirror(grey)]
    for part in CROPS:
        left, top = round(grey.width * part), round(grey.height * part)
        views.append(grey.crop((left, top, grey.width - left, grey.height - top)))
    return [int.from_bytes(np.packbits(HASHES[hash_name](view).hash).tobytes(), "big") for view in views]


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


def exit_with_parent():
    """End this worker process when the process that started it is gone, however that one ended."""
    def watch():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def near_pairs(hashes, distance, strict, block=256):
    """Return {(i, j): bits} with i < j of all photographs whose views are alike, exactly, by comparing every pair.

    `hashes` is (N, V) uint64, view 0 the whole picture. Whole against whole may differ by the larger of `distance` and
    `strict`, whole against any other view by `strict`; bits is the smallest difference. Memory grows as N * `block`.
    """
    found = {}
    if not len(hashes):
        return found
    hashes = np.asarray(hashes, dtype=np.uint64)
    whole = hashes[:, :1]
    for start in range(0, len(hashes), block):
        rows = whole[start:start + block]
        for view in range(hashes.shape[1]):
            limit = strict if view else max(distance, strict)
            first = 0 if view else start  # whole against whole is symmetric
            bits = np.bitwise_count(rows ^ hashes[None, first:, view])  # (block, N - first)
            for row, column in zip(*np.nonzero(bits <= limit) if limit >= 0 else ((), ()), strict=True):
                i, j = sorted((start + int(row), first + int(column)))
                if i != j:
                    found[i, j] = min(int(bits[row, column]), found.get((i, j), 64))
    return found


def group_photographs(photographs, distance, strict):
    """Return per photograph the index of the best member of its group, itself if it is alone.

    `photographs` is a list of dictionaries with `file`, `class`, `sha256`, `width`, `height`, `bytes` and `hashes`.
    Equal bytes always share a group. Alike pictures of one class share it within `distance` bits (whole pictures) or
    `strict` bits (any view), pictures of two classes within `strict` bits. The best member has most pixels, then most
    bytes, then the first file name.
    """
    pairs = [(i, j) for (i, j), bits in near_pairs([one["hashes"] for one in photographs], distance, strict).items()
             if bits <= strict or photographs[i]["class"] == photographs[j]["class"]]
    first = {}
    for i, one in enumerate(photographs):
        pairs.append((first.setdefault(one["sha256"], i), i))
    groups = join_groups(len(photographs), pairs)
    best = {}
    for i in sorted(range(len(photographs)), key=lambda i: quality(photographs[i])):
        best.setdefault(groups[i], i)
    return [best[group] for group in groups]


def quality(photograph):
    """Return a sort key that puts the best copy first."""
    return -photograph["width"] * photograph["height"], -photograph["bytes"], photograph["file"]


def view_distance(hashes, others):
    """Return the bits in which two photographs differ, the smallest over whole against any view, both ways."""
    return min(min((hashes[0] ^ other).bit_count() for other in others),
               min((others[0] ^ own).bit_count() for own in hashes))
