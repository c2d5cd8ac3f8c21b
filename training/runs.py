"""What torch scripts share about runs: seeds, device, names, records, selection of the epoch."""
import hashlib
import json
import subprocess
import sys

import torch

from config import ROOT
from utils import InputError

# ---- randomness and device ----

def stream_seed(*parts):
    """Return a seed in [0, 2**63), a function of the parts, such as (seed, "order", epoch)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def pick_device(name=""):
    """Return the torch device of that name, by default CUDA, else Apple's MPS, else the CPU."""
    if not name:
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None


def is_out_of_memory(error):
    """Return whether an error means that the memory of the device or the machine is used up."""
    return (isinstance(error, (torch.OutOfMemoryError, MemoryError))
            or "can't allocate memory" in str(error))


# ---- names and records ----

def plain(settings):
    """Return {NAME: value} as JSON keeps it: lower-case names, paths as text, tuples as lists."""
    lower = {name.lower(): value for name, value in settings.items()}
    return json.loads(json.dumps(lower, default=str))


def run_name(settings):
    """Return "<model>_<hash>" of the settings that affect training, as a folder may be named."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return f"{settings['model'].replace(':', '_')}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def environment():
    """Return what a run records about where it ran: commit, versions, threads."""
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

    The standard error is that of the mean paired difference. A mean that is higher by more than a
    quarter is worse whatever its standard error, which single huge losses, or few photographs, make
    meaningless. A resumed run may have other validation photographs; without pairs, any higher mean
    is worse. The last epoch of a rate that falls to zero is the best to expect, while the lowest of
    several losses on few photographs is partly luck. The idea is the one-standard-error rule of
    CART (Breiman et al., 1984); docs/history.md says what it is worth.
    """
    if len(losses) != len(lowest):
        return bool(losses.mean() > lowest.mean())
    difference = losses - lowest
    standard_error = difference.std(correction=0) / len(difference) ** 0.5
    return bool(difference.mean() > min(2 * standard_error, lowest.mean() / 4))
