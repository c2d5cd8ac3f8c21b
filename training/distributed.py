"""Several processes that train one network together, as torchrun starts them; to a process on its own, nothing."""
import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from utils import InputError

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "NCCL")


def rank():
    """Return the number of this process; rank 0 alone tells and writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def rank_count():
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(s):
    """Join the other processes of torchrun, if it started this one; sets `s.device` and silences all ranks but 0.

    Raises InputError where there are too few GPUs, and where another rank has ended.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    local, cuda = int(os.environ["LOCAL_RANK"]), s.device in ("", "cuda") and torch.cuda.is_available()
    if s.device not in ("", "cuda", "cpu") or (cuda and local >= torch.cuda.device_count()):
        raise InputError(f"--device {s.device!r}: torchrun gives every process a GPU of its own, of the "
                         f"{torch.cuda.device_count()} here; lower --nproc-per-node, or choose --device cpu")
    s.device = f"cuda:{local}" if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(local)
    # A day: all wait for rank 0 to fit the head, and where one has ended, torchrun ends the others at once.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(days=1))
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere if rank() else sys.stdout), \
                redirect_stderr(nowhere if rank() else sys.stderr):
            yield
    except RuntimeError as error:
        if not any(words in str(error) for words in LOST):
            raise
        raise InputError("another rank has ended; the same command goes on after the last whole epoch") from None
    dist.destroy_process_group()


def from_first(make):
    """Return what `make()` returns at rank 0, which alone calls it while the others wait."""
    values = [make() if rank() == 0 else None]
    if rank_count() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def distribute(model):
    """Return the network to train with: weights and statistics from rank 0, gradients the mean over the ranks."""
    return DistributedDataParallel(model) if rank_count() > 1 else model


def mean(tensor):
    """Return the mean of a tensor over the ranks."""
    if rank_count() == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total / rank_count()


def own_share(criterion, labels):
    """Return the factor that makes the ranks' losses, on average, that of the whole batch; labels (B,) or (B, K)."""
    if rank_count() == 1:
        return 1
    weighted = criterion.weight is not None and labels.ndim == 1
    own = criterion.weight[labels].sum() if weighted else torch.tensor(float(len(labels)), device=labels.device)
    return own / mean(own)
