"""Initial weights from files in the common formats, renamed as a network names them.

A file is of torch.save (a state dict, or a dictionary that contains one under any key, such as
`state_dict`, `model` or `model_state_dict`) or of safetensors, in any precision, with any prefix
before the names (`module.`, `backbone.`). Nothing in it is executed.
"""
import argparse
import pathlib
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from training.networks import TIMM
from utils import InputError, require_file

# Classes that training scripts store beside weights and that only contain values.
HARMLESS = [argparse.Namespace, pathlib.Path, pathlib.PosixPath, pathlib.PurePosixPath,
            (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
            np._core.multiarray.scalar, np.dtype,
            *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool"))]


def pick_file(path, name):
    """Return the file of a network's weights: `path` or, in a folder, `name` with any ending.

    So one setting serves a search over several networks. `timm:` is not part of the file name.
    """
    path, name = Path(path), name.removeprefix(TIMM)
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.is_file() and file.stem == name)
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise InputError(f"--initial_weights {path}: the folder needs one file of weights named "
                         f"{name} with an ending, such as {name}.pth; found: {found}")
    return files[0]


def read_weights(path, target):
    """Return (float32 {name: tensor}, their key in the file) of a file with weights.

    Of all state dicts in the file, the one that shares most names with `target` {name: tensor} is
    taken; of equal ones, that averaged over the steps ("ema" in its key), else the first. Raises
    InputError if the file cannot be read or contains no tensors.
    """
    states = dict(find_states(open_weights(Path(path))))
    if not states:
        raise InputError(f"{path} contains no tensors; --initial_weights takes a file with a state "
                         "dict, of torch.save or safetensors")
    named = {where: remove_prefix(state, target) for where, state in states.items()}
    where = max(named, key=lambda where: (len(named[where].keys() & target.keys()),
                                          "ema" in where))
    return {key: value.float() if value.is_floating_point() else value
            for key, value in named[where].items()}, where


def open_weights(path):
    """Return the content of a file with weights, tensors on the CPU."""
    require_file(path, "--initial_weights takes imagenet_v1, imagenet_v2, a file or none")
    with open(path, "rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[6:] == b"\0\0{":  # its header's length, then JSON
        return open_safetensors(path)
    try:
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `why_refused` replaces torch's warnings
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and foreign files raise many kinds
        raise InputError(f"{path} has no readable weights: {why_refused(path, error)}") from None


def open_safetensors(path):
    """Return {name: tensor} of a safetensors file."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"{path} needs the Python package safetensors; run "
                         "pip install safetensors") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} has no readable weights: damaged ({error})") from None


def why_refused(path, error):
    """Return why torch refused a file, and what to do."""
    if "TorchScript" in str(error):
        return ("a TorchScript program; save the state_dict() of torch.jit.load(file) with "
                "torch.save")
    try:
        classes = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a file of torch.save
        classes = []
    if classes:
        return (f"beside tensors it contains {', '.join(sorted(classes)[:3])}, which could run "
                "code; if you trust it, load it with torch.load(file, weights_only=False) and save "
                "its state dict with torch.save")
    return f"not a file of torch.save or safetensors, or a damaged one ({type(error).__name__})"


# ---- finding the state dict ----

def is_plain(value):
    """Return whether a value is a tensor of real numbers in memory.

    Others (sparse, quantised, complex, on the device "meta") fit no network here, and functions
    that check them raise.
    """
    return (isinstance(value, torch.Tensor) and value.layout == torch.strided
            and value.device.type == "cpu" and not (value.is_quantized or value.is_complex()))


def find_states(content, where=""):
    """Yield (dotted key, state dict) of every dictionary {name: tensor} in a file."""
    if not isinstance(content, dict):
        return
    state = {key: value for key, value in content.items()
             if isinstance(key, str) and is_plain(value)}
    if state:
        yield where, state
    for key, value in content.items():
        if isinstance(key, str):
            yield from find_states(value, f"{where}.{key}".lstrip("."))


def remove_prefix(state, target):
    """Return a state dict without the prefix that precedes most names of `target`.

    In torchvision's DenseNet files norm1 is called norm.1, which is renamed.
    """
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): value
             for key, value in state.items()}
    counts = Counter({"": 0})
    for key in state:
        parts = key.split(".")
        counts.update(key[:len(key) - len(rest)] for i in range(len(parts))
                      if (rest := ".".join(parts[i:])) in target)
    prefix = counts.most_common(1)[0][0]
    return {key.removeprefix(prefix): value for key, value in state.items()}
