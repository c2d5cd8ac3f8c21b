"""What several torch scripts share: seeds, device, run folders, checkpoints, metrics."""
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score

from config import ROOT
from ranks import rank
from utils import InputError, atomic_path, warn

BEST, LAST = "plants_model.pth.tar", "last.pth.tar"


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


# ---- checkpoints ----

def save_checkpoint(path, checkpoint):
    """Write a checkpoint whole or not at all; of several ranks, rank 0 alone does."""
    if rank() > 0:
        return
    data = io.BytesIO()  # torch.save to a file calls a full disk a RuntimeError about positions
    torch.save(checkpoint, data)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def load_checkpoint(path):
    """Return the dictionary of a checkpoint file, on the CPU, read without running code from it.

    Raises InputError where the file is missing, damaged, or not a dictionary with a `model_state_dict`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; train.py and download_files.py write checkpoints")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged zip raises many kinds; all mean the same to the user
        raise InputError(f"{path} is not a readable checkpoint ({type(error).__name__}); "
                         "name another file with --checkpoint or, to train anew, another run with --run") from None
    state = checkpoint.get("model_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no model_state_dict; it is not a checkpoint of this project")
    checkpoint["model_state_dict"] = {name.removeprefix("model."): value for name, value in state.items()}
    return checkpoint


def find_checkpoint(chosen, checkpoints_dir):
    """Return the checkpoint file to use: the chosen one, else the newest finished run's, else the downloaded one."""
    if chosen:
        return Path(chosen)
    finished = []
    for last in Path(checkpoints_dir).glob(f"*/{LAST}"):
        if (last.parent / BEST).is_file():
            try:
                finished += [(last.stat().st_mtime, last.parent / BEST)] * bool(load_checkpoint(last).get("finished"))
            except InputError as error:
                warn(error)
    downloaded = Path(checkpoints_dir) / "downloaded" / BEST
    if finished:
        return max(finished)[1]
    if downloaded.is_file():
        return downloaded
    raise InputError(f"{checkpoints_dir} holds no finished run; run train.py to its end, download one with "
                     "download_files.py, or name a file with --checkpoint")


def open_checkpoint(s):
    """Return (path, checkpoint) of the settings, by which what an older checkpoint does not say is filled in."""
    path = find_checkpoint(s.checkpoint, s.checkpoints_dir)
    checkpoint = {"image_size": s.image_size, "mean": s.mean, "std": s.std, "mirrored_view": s.mirrored_view,
                  "temperature": None, "known": None, "epoch": None, **load_checkpoint(path)}
    return path, {"threshold": None, **checkpoint} if checkpoint["known"] else {**checkpoint, "threshold": None}


# ---- metrics ----

@torch.inference_mode()
def collect_logits(model, batches, mirrored=False):
    """Return (logits (N, K) float32, labels (N,)) of all batches, as numpy arrays; the model is left in eval mode.

    With `mirrored`, the logits are the mean over each photograph and its mirror image.
    """
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        output = (model(images) + model(images.flip(3))) / 2 if mirrored else model(images)  # (B, 3, H, W) -> (B, K)
        logits.append(output.float().cpu())
        labels.append(targets.cpu())
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def measure(logits, labels):
    """Return loss (mean cross-entropy in nats), accuracy and macro-F1 in [0, 1] of logits (N, K), labels (N,)."""
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)).item()
    answers = logits.argmax(1)
    return {"loss": loss, "accuracy": float(np.mean(answers == labels)),
            "macro_f1": float(f1_score(labels, answers, labels=range(logits.shape[1]), average="macro",
                                       zero_division=0))}


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
