"""Data-parallel training under torchrun; without it, everything here does nothing."""
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist

from utils import InputError

# Parts of the errors of Gloo and NCCL when another rank has ended.
CONNECTION_ERRORS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe",
                     "Timed out waiting", "NCCL")


def rank():
    """Return the number of this process, from 0. Only rank 0 prints and writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size():
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def process_group(s):
    """Join torchrun's process group, if torchrun started this process.

    Sets `s.device` to this rank's device and silences all ranks but 0.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    cuda = s.device in ("", "cuda") and torch.cuda.is_available()
    if s.device not in ("", "cuda", "cpu") or (cuda and local_rank >= torch.cuda.device_count()):
        raise InputError(f"--device {s.device!r}: each rank needs its own GPU, and there are "
                         f"{torch.cuda.device_count()}; lower --nproc-per-node, or choose "
                         "--device cpu")
    s.device = f"cuda:{local_rank}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(local_rank)
    # A day, because the other ranks wait while rank 0 fits the linear probe. When a process dies,
    # torchrun ends the others at once.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(days=1))
    try:
        with open(os.devnull, "w") as null, \
                redirect_stdout(null if rank() else sys.stdout), \
                redirect_stderr(null if rank() else sys.stderr):
            yield
    except RuntimeError as error:
        if not any(text in str(error) for text in CONNECTION_ERRORS):
            raise
        raise InputError("another rank has ended; run the same command again to resume after the "
                         "last complete epoch") from None
    dist.destroy_process_group()


def on_rank_zero(make):
    """Call `make()` on rank 0 while the others wait; return its result on every rank."""
    values = [make() if rank() == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def mean_over_ranks(tensor):
    """Return the mean of a tensor over the ranks."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / world_size()
