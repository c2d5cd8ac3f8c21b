"""The checkpoint file: written whole, read without running code from it, found among the runs."""
import io
from pathlib import Path

import torch

from training.distributed import rank
from utils import InputError, atomic_path, warn

BEST, LAST = "plants_model.pth.tar", "last.pth.tar"


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
    checkpoint = {"image_size": s.image_size, "mean": s.mean, "std": s.std, "flip_tta": s.flip_tta,
                  "temperature": None, "known": None, "epoch": None, **load_checkpoint(path)}
    return path, {"threshold": None, **checkpoint} if checkpoint["known"] else {**checkpoint, "threshold": None}
