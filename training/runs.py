"""What several torch scripts share: seeds, device, run folders."""
import hashlib
import json
import subprocess
import sys

import torch

from config import ROOT
from utils import InputError

# ---- randomness and device ----

def stream_seed(*parts):
    """Return a seed in [0, 2**63) that is a function of the parts, such as (seed, "dropout", epoch)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def pick_device(name=""):
    """Return the torch device of that name, by default CUDA, else Apple's MPS, else the CPU."""
    if not name:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from None


def is_out_of_memory(error):
    """Return whether an error says that the device's or the machine's memory is used up."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


# ---- runs ----

def plain(settings):
    """Return a {NAME: value} dictionary as JSON keeps it: lower-case names, paths as text, tuples as lists."""
    return json.loads(json.dumps({name.lower(): value for name, value in settings.items()}, default=str))


def run_name(settings):
    """Return "<model>_<hash>", the hash taken of all settings that affect training."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return f"{settings['model']}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def environment():
    """Return what a run's record says about where it ran: commit, versions, threads."""
    try:
        commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, check=False,
                                capture_output=True, text=True).stdout.strip()
    except OSError:  # no git on this machine
        commit = ""
    return {"commit": commit or "unknown", "python": sys.version.split()[0], "torch": torch.__version__,
            "threads": torch.get_num_threads()}


# ---- the choice of the epoch ----

def clearly_worse(losses, lowest):
    """Return whether losses (N,) are above those of another epoch by more than two standard errors of the difference.

    Where a run goes on with another number of validation photographs, no pairs are left: any higher mean is worse.
    The last epoch of a rate that falls to zero is the best one to expect; the lowest of several losses on few
    photographs is partly luck. The idea is CART's rule of one standard error (Breiman et al., 1984);
    benchmarks/RESULTS.md tells what it is worth.
    """
    if len(losses) != len(lowest):
        return bool(losses.mean() > lowest.mean())
    difference = losses - lowest
    return bool(difference.mean() > 2 * difference.std(correction=0) / len(difference) ** 0.5)
