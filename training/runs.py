"""Small functions about runs: seeds, device, names, records, selection of the epoch."""
import hashlib
import json
import subprocess
import sys

import torch

from config import ROOT
from utils import InputError

# ---- randomness and device ----

def stream_seed(*parts):
    """Return a seed in [0, 2**63) that is a function of the parts, such as (0, "order", epoch)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def numpy_seed(seed):
    """Return a whole number of any sign and size as a seed that numpy and scikit-learn take."""
    return seed % 2**32


def pick_device(name):
    """Return the torch device of this name; for "" CUDA, else Apple's MPS, else the CPU."""
    if not name:
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        example = torch.zeros(1, device=name)
        example.cpu()  # "meta" is a device without data
        return example.device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}; leave it out, or "
                         "name cpu, cuda or mps") from None


def is_out_of_memory(error):
    """Return whether an error means that the device or the machine ran out of memory."""
    return (isinstance(error, (torch.OutOfMemoryError, MemoryError))
            or "can't allocate memory" in str(error))


# ---- names and records ----

def as_stored(settings):
    """Return settings as JSON stores them: lower-case names, paths as text, tuples as lists."""
    lower = {name.lower(): value for name, value in settings.items()}
    return json.loads(json.dumps(lower, default=str))


def run_name(settings):
    """Return "<model>_<hash>" of the settings that affect training, a valid folder name."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return f"{settings['model'].replace(':', '_')}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def environment():
    """Return the commit, the versions and the number of threads, for the record of a run."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(command, cwd=ROOT, check=False, capture_output=True,
                                text=True).stdout.strip()
    except OSError:  # no git on this machine
        commit = ""
    return {"commit": commit or "unknown", "python": sys.version.split()[0],
            "torch": torch.__version__, "threads": torch.get_num_threads()}


# ---- selection of the epoch ----

def clearly_worse(losses, lowest):
    """Return whether losses (N,) exceed another epoch's by more than two standard errors.

    When the learning rate falls to zero the last epoch should be the best, while the lowest of
    several losses on few photographs is partly luck. So a later epoch is kept unless it is clearly
    worse, in the spirit of the one-standard-error rule of CART (Breiman et al., 1984; measured in
    docs/history.md). The standard error is that of the mean paired difference. A mean higher by
    more than a quarter is always worse, because single huge losses or few photographs make the
    standard error meaningless.
    """
    difference = losses - lowest
    standard_error = difference.std(correction=0) / len(difference) ** 0.5
    return bool(difference.mean() > min(2 * standard_error, lowest.mean() / 4))
