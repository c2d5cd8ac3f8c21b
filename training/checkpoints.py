"""The checkpoint format, defined, documented, written, read and upgraded in this file only.

A checkpoint is a dictionary, saved by `torch.save` and read with `weights_only=True`, so that no
code in it runs. Every run keeps up to three in its folder: BEST is enough to predict with, LAST
adds what resuming needs, PROBE is epoch 0, the linear probe. `PREDICTION_FIELDS` and
`RESUME_FIELDS` are the format: key, type, meaning. Numbers are checked by `evaluation.facts` when
they are read.

Format 6 adds `seen` and `validation`, and stores the optimizer's state by the names of parameters;
runs of earlier formats are not resumed. Format 5 adds `temperature_by_score` to `answers`. Format 4
adds `crop` and `interpolation`, before always those of `images.View`, and another
out-of-distribution score; earlier ones are dropped. Format 3 adds `classes`, `answers` and
`unknown`. Format 2 adds `format`. Format 1 called `flip_tta` `mirrored_view`. A file with only a
`model_state_dict`, as the original project published it, counts as format 1; `open_checkpoint`
takes the rest from the settings.
"""
import io
import os
from pathlib import Path
from typing import NamedTuple

import torch

from evaluation.facts import FACTS, require_facts, warn_of_fallbacks
from images import IMAGENET_MEAN, IMAGENET_STD, View
from training.distributed import rank
from training.weight_files import is_plain
from utils import InputError, atomic_path, require_file, warn

FORMAT = 6
BEST, LAST, PROBE = "plants_model.pth.tar", "last.pth.tar", "linear_probe.pth.tar"
REMEDY = "name another file with --checkpoint or, to train again, another run with --run"


class Field(NamedTuple):
    """One key of a checkpoint."""

    types: tuple
    meaning: str


NONE = type(None)
PREDICTION_FIELDS = {
    "format": Field((int,), "version of this format"),
    "run": Field((str,), "name of the run and its folders"),
    "model": Field((str,), "name of the network, see model.find_network"),
    "class_names": Field((list,), "Latin names in label order"),
    "image_size": Field((int,), "pixels, side of the square the network sees"),
    "crop": Field((float,), "side of that square / shorter side of the resized image"),
    "interpolation": Field((str,), "of that resizing, Pillow's name"),
    "mean": Field((tuple, list), "per channel, of pixels in [0, 1]: subtracted"),
    "std": Field((tuple, list), "per channel, of pixels in [0, 1]: divided by"),
    "model_state_dict": Field((dict,), "weights: {name: tensor}"),
    "temperature": Field((float, NONE), "divides the logits before the softmax"),
    "flip_tta": Field((bool,), "whether logits are the mean over an image and its mirror image"),
    "out_of_distribution": Field((dict, NONE), "arrays of ScoredHead, see "
                                 "evaluation/out_of_distribution.py, and the threshold of its "
                                 "score; added to BEST when the run ends"),
    "classes": Field((list, NONE), "per class, in label order: the columns of the class table, and "
                     "a small picture with its credit"),
    "answers": Field((dict, NONE), "limits of confidence, see evaluation/answers.py; added to BEST "
                     "when the run ends, like the next"),
    "unknown": Field((dict, NONE), "share of photographs of left-out classes that would get a "
                     "name, see training/fit_answers.py"),
    "epoch": Field((int, NONE), "epoch of these weights; 0 is the linear probe"),
    "metrics": Field((dict,), "validation metrics of this epoch"),
    "settings": Field((dict,), "settings that affect training, the Latin names as `classes`, and a "
                      "fingerprint of the label table and the files as `photographs`, see "
                      "training/contents.py"),
    "seen": Field((dict, NONE), "{how photographs were used, see SEEN: the first 8 bytes of their "
                  "SHA-256, sorted int64 (N,)}"),
    "validation": Field((str,), "fingerprint of the validation photographs, see "
                        "training/contents.py"),
    "new": Field((list,), "names of the parameters that started random"),
}
RESUME_FIELDS = {
    "optimizer_state_dict": Field((dict,), "AdamW's moments and step counts, by the names of "
                                  "parameters, see training.optimization.optimizer_state"),
    "best": Field((dict,), "epoch and validation metrics of the checkpoint BEST"),
    "lowest": Field((dict,), "epoch and losses (N,) of the lowest mean calibrated loss"),
    "history": Field((list,), "one dictionary per epoch, the lines of log.jsonl"),
    "finished": Field((bool,), "whether the run has ended and BEST is complete"),
}
# By this run for gradients, to choose epochs and limits, and in any way by its teachers.
SEEN = ("trained", "validated", "taught")
FIELDS = {**PREDICTION_FIELDS, **RESUME_FIELDS}


# ---- writing ----

def save_checkpoint(path, checkpoint):
    """Write a checkpoint atomically in the current format; only rank 0 writes."""
    if rank() > 0:
        return
    data = io.BytesIO()  # torch.save to a file turns "disk full" into a puzzling RuntimeError
    torch.save({**checkpoint, "format": FORMAT}, data)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data.getbuffer())
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave an empty file under the final name


# ---- reading ----

def load_checkpoint(path, mmap=False):
    """Return the dictionary of a checkpoint file in the current format, tensors on the CPU.

    With `mmap`, weights stay on disk until they are used.
    """
    require_file(path, "train.py and download_files.py write checkpoints")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged files raise many kinds
        raise InputError(f"{path} is not a readable checkpoint ({type(error).__name__}); "
                         f"{REMEDY}") from None
    check_fields(checkpoint, path)
    checkpoint = upgrade(checkpoint)
    check_numbers(checkpoint, path)
    return checkpoint


def check_fields(checkpoint, path):
    """Raise InputError unless the content of a file is a checkpoint that this code can read."""
    state = checkpoint.get("model_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(
            isinstance(name, str) and is_plain(value) for name, value in state.items()):
        raise InputError(f"{path} is not a checkpoint of this project: it has no model_state_dict "
                         f"of names and plain tensors; {REMEDY}")
    version = checkpoint.get("format", 1)
    if isinstance(version, int) and version > FORMAT:  # its other fields may have other types
        raise InputError(f"{path} has checkpoint format {version}, this code reads formats up to "
                         f"{FORMAT}; update the code")
    for key, field in FIELDS.items():
        if key in checkpoint and not isinstance(checkpoint[key], field.types):
            raise InputError(f"{path}: {key} has the type {type(checkpoint[key]).__name__}, not "
                             f"{field.types[0].__name__}; {REMEDY}")


def check_numbers(checkpoint, path):
    """Raise InputError if a number that prediction uses is not finite or out of range."""
    entry = checkpoint.get("out_of_distribution")
    facts = {key: checkpoint[key] for key in FACTS
             if key in checkpoint and not (key == "classes" and checkpoint[key] is None)}
    if entry:
        facts["out_of_distribution_threshold"] = entry.get("threshold")
    require_facts(facts, path, REMEDY)
    names, classes = checkpoint.get("class_names"), checkpoint.get("classes")
    if names and classes and names != [plant["latin"] for plant in classes]:
        raise InputError(f"{path}: classes and class_names differ; {REMEDY}")
    if not is_seen(checkpoint.get("seen")):
        raise InputError(f"{path}: seen is not hashes of photographs that were "
                         f"{', '.join(SEEN)}; {REMEDY}")
    tensors = {**checkpoint["model_state_dict"],
               **{key: value for key, value in (entry or {}).items() if torch.is_tensor(value)}}
    for name, tensor in tensors.items():
        if not (is_plain(tensor) and torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} contains numbers that are not finite; its training "
                             f"diverged or the file is damaged; {REMEDY}")


def is_seen(value):
    """Return whether a value is the field `seen`, None included."""
    return value is None or (value.keys() == set(SEEN) and all(
        is_plain(hashes) and hashes.dtype == torch.int64 and hashes.ndim == 1
        for hashes in value.values()))


def upgrade(checkpoint):
    """Return a checkpoint of an earlier format in the current one; missing keys stay missing."""
    version = checkpoint.get("format", 1)
    checkpoint = {**checkpoint, "format": FORMAT}
    if version < FORMAT:
        checkpoint.pop("optimizer_state_dict", None)  # so that the run is not resumed
    if version == 1:
        state = checkpoint["model_state_dict"]  # the original wrapped its network in a module
        checkpoint["model_state_dict"] = {
            name.removeprefix("model."): value for name, value in state.items()}
        if "mirrored_view" in checkpoint:
            checkpoint["flip_tta"] = checkpoint.pop("mirrored_view")
    entry = checkpoint.get("out_of_distribution")
    if entry is not None and (version < 4 or entry.get("threshold") is None):  # then of no use
        checkpoint["out_of_distribution"] = None
    return checkpoint


def changed_settings(record, settings):
    """Return {setting: how it changed, in words} of a record of settings and the present ones.

    A setting that the record lacks has been added since and counts as off; `teacher` is there only
    if there is one.
    """
    changed = {name: f"{name}: {record.get(name)} -> {settings.get(name)}"
               for name in dict.fromkeys([*settings, "teacher"])
               if (settings.get(name) or None) != (record.get(name) or None)}
    if "photographs" in changed:  # digests, which say nothing to a reader
        changed["photographs"] = "photographs or their labels have changed"
    return changed


# ---- choosing ----

def find_checkpoint(chosen, checkpoints_dir):
    """Return the chosen checkpoint file, the newest finished run's, or else the downloaded one."""
    if chosen:
        return Path(chosen)
    finished = []
    for last in Path(checkpoints_dir).glob(f"*/{LAST}"):
        best = last.with_name(BEST)
        try:
            if best.is_file() and load_checkpoint(last, mmap=True).get("finished"):
                finished.append((last.stat().st_mtime, best))
        except InputError as error:
            warn(error)
    downloaded = Path(checkpoints_dir) / "downloaded" / BEST
    if finished:
        return max(finished)[1]
    if downloaded.is_file():
        return downloaded
    raise InputError(f"{checkpoints_dir} contains no finished run; run train.py to its end, "
                     "download one with download_files.py, or name a file with --checkpoint")


def open_checkpoint(s):
    """Return (path, checkpoint) that the settings choose, with every key that prediction reads.

    Keys that an older checkpoint lacks come from the settings, or are None.
    """
    path = find_checkpoint(s.checkpoint, s.checkpoints_dir)
    view = View(s.image_size or View().image_size)
    absent = {"model": None, "class_names": None, **view._asdict(),
              "mean": s.mean or IMAGENET_MEAN, "std": s.std or IMAGENET_STD,
              "flip_tta": s.flip_tta, "temperature": None, "out_of_distribution": None,
              "classes": None, "answers": None, "unknown": None, "seen": None, "epoch": None,
              "settings": {}}
    stored = load_checkpoint(path)
    warn_of_fallbacks(s, stored, path)
    return path, {**absent, **stored}
