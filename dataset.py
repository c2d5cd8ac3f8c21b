"""Label tables -> batches: validation by group, order, loaders. Images stay uint8 until the device."""
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from images import evaluation_view
from training.augmentation import build_augmentation, change, crop_frames, crop_resident, draw_numbers, draw_views, send
from training.image_cache import read_frame
from training.runs import stream_seed
from utils import InputError, pick_groups, process_count, read_label_rows, warn

BALANCES = ("none", "oversample", "sampling", "weights", "logit_adjustment")


# ---- tables ----

def read_labels(table, classes):
    """Return a label table as a DataFrame with `path` (absolute), `label` and `group` (the path where there is none).

    Raises InputError naming the line that does not fit, as `read_label_rows` does.
    """
    folder, rows = Path(table).parent, read_label_rows(table, classes)
    if "group" not in rows[0]:
        warn(f"{table} has no column 'group': every photograph counts as its own group, so copies of one picture may "
             "stand in training, validation and test; find them, and add the column, with "
             f"dataset_preparation/labeling/labeling.py --check {folder}")
    return pd.DataFrame({"path": [str(folder / row["path"]) for row in rows], "label": [row["label"] for row in rows],
                         "group": [row.get("group") or row["path"] for row in rows]})


def split_validation(frame, classes, share, seed):
    """Return (train, validation): whole groups in hash order until a `share` of each class, at least one group."""
    chosen, spread = set(), frame.groupby("group")["label"].nunique()
    shared = set(spread.index[spread > 1])  # groups of several classes stay in training
    for one in classes:
        own = frame.loc[frame["label"] == one.label, "group"]
        sizes = own[~own.isin(shared)].value_counts().to_dict()
        if len(sizes) < 2:
            raise InputError(f"{one.latin} has {len(sizes)} groups of training photographs; one for training and one "
                             "for validation are the least")
        quota = share * sum(sizes.values())
        picked = pick_groups(sizes, quota, seed) or pick_groups(sizes, min(sizes.values()), seed)
        chosen |= picked if len(picked) < len(sizes) else set(sorted(picked)[1:])
    held = frame["group"].isin(chosen)
    return frame[~held].reset_index(drop=True), frame[held].reset_index(drop=True)


def fingerprint(frame, folder):
    """Return 16 hex digits that stand for the rows of a label table."""
    rows = [(Path(path).relative_to(folder).as_posix(), label, group) for path, label, group in frame.to_numpy()]
    return hashlib.sha256(repr(sorted(rows)).encode()).hexdigest()[:16]


# ---- photographs ----

class PlantsDataset(Dataset):
    """Item i is (image, label): uint8 (3, image_size, image_size) and an int in [0, num_classes).

    With an `augmentation`, an item is asked for as (epoch, draw, i), and everything random about it is a function of
    (seed, epoch, draw): the same in every process, and after a resume. Frames come from the `cache` where there is
    one, else from the files. Raises InputError naming an unreadable file.
    """

    def __init__(self, frame, image_size, max_megapixels, augmentation=None, seed=0, cache=None):
        self.paths, self.labels = frame["path"].tolist(), frame["label"].tolist()
        self.image_size, self.max_megapixels = image_size, max_megapixels
        self.augmentation, self.seed, self.cache = augmentation, seed, cache

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, key):
        images, labels = self.__getitems__([key])
        return images[0], int(labels[0])

    def __getitems__(self, keys):
        """Return a batch, (uint8 (B, 3, image_size, image_size), int64 (B,)); the DataLoader asks for whole ones."""
        if self.cache:
            self.cache.check()
        if self.augmentation is None:
            views = [evaluation_view(Image.fromarray(self.read(i)), self.image_size) for i in keys]
            return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2), self.pick_labels(keys)
        epochs, draws, places = zip(*keys, strict=True)
        frames = [self.read(i) for i in places]
        views = draw_views(draw_numbers(self.seed, epochs[0], draws),
                           np.array([frame.shape[:2] for frame in frames]), self.augmentation)
        return change(crop_frames(frames, views, self.image_size), views, self.augmentation), self.pick_labels(places)

    def read(self, i):
        """Return the frame of photograph i, uint8 (H, W, 3)."""
        path = self.paths[i]
        return self.cache[path] if self.cache else read_frame(path, self.image_size, self.max_megapixels)

    def pick_labels(self, places):
        """Return the labels of photographs, int64 (B,)."""
        return torch.tensor([self.labels[i] for i in places])


# ---- order and loaders ----

class EpochOrder(Sampler):
    """Yields (epoch, draw, index) for one epoch, a function of (seed, epoch) alone; call `set_epoch` before each."""

    def __init__(self, labels, balance, seed):
        self.labels, self.balance, self.seed, self.epoch = np.asarray(labels), balance, seed, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        counts = np.bincount(self.labels)
        return int(counts.max() * np.count_nonzero(counts)) if self.balance == "oversample" else len(self.labels)

    def __iter__(self):
        rng = np.random.default_rng(stream_seed(self.seed, "order", self.epoch))
        order = draw_indices(self.labels, self.balance, rng)
        return ((self.epoch, draw, int(index)) for draw, index in enumerate(order))


class OwnParts(Sampler):
    """Yields, of every batch of a sampler's draws, the part of rank `number` of `count`; a smaller batch is left out.

    With `before`, a part begins one draw earlier (before the first comes the last): what mixing blends its first with.
    """

    def __init__(self, order, batch_size, number, count, before):
        if batch_size < 2 * count:
            raise InputError(f"{count} ranks cannot share batches of {batch_size} photographs, at least 2 each; "
                             "raise --batch_size or lower --nproc-per-node")
        start, end = batch_size * number // count, batch_size * (number + 1) // count
        self.order, self.batch_size, self.places = order, batch_size, range(start - before, end)

    def set_epoch(self, epoch):
        self.order.set_epoch(epoch)

    def __len__(self):
        return len(self.order) // self.batch_size * len(self.places)

    def __iter__(self):
        draws = list(self.order)
        for start in range(0, len(draws) - self.batch_size + 1, self.batch_size):
            yield from (draws[start:start + self.batch_size][place] for place in self.places)


def draw_indices(labels, balance, rng):
    """Return the indices of one epoch for integer labels (N,).

    oversample: every class repeated up to the size of the largest. sampling: N draws with replacement, every class
    equally likely. Otherwise every photograph once.
    """
    if balance == "oversample":
        largest = np.bincount(labels).max()
        repeated = [np.resize(rng.permutation(np.flatnonzero(labels == label)), largest) for label in np.unique(labels)]
        return rng.permutation(np.concatenate(repeated))
    if balance == "sampling":
        weights = 1.0 / np.bincount(labels)[labels]
        return rng.choice(len(labels), len(labels), p=weights / weights.sum())
    return rng.permutation(len(labels))


def class_weights(labels, num_classes):
    """Return float32 (num_classes,): inversely proportional to the counts, 1 on average over the photographs."""
    counts = np.bincount(labels, minlength=num_classes)
    return torch.tensor(len(labels) / (num_classes * np.maximum(counts, 1)), dtype=torch.float32)


def build_train_loader(frame, s, cache=None, device=None, rank=0, count=1):
    """Return the loader of training batches (uint8 (B, 3, H, W), int64 (B,)); a last, smaller batch is left out.

    Of `count` ranks, one gets its part of every batch, and the photograph before it where batches are mixed.
    On a CUDA `device` whose memory has room, the frames of the `cache` are put there and views are cut there; else
    worker processes cut them.
    """
    if s.balance not in BALANCES:
        raise InputError(f"unknown balance {s.balance!r}; --balance takes {', '.join(BALANCES)}")
    dataset = PlantsDataset(frame, s.image_size, s.max_megapixels, build_augmentation(s), s.seed, cache)
    order = EpochOrder(dataset.labels, s.balance, s.seed)
    batch_size = min(s.batch_size, len(order))
    if count > 1:
        order = OwnParts(order, batch_size, rank, count, before=s.mixup > 0 or s.cutmix > 0)
        batch_size = len(order.places)
    pixels = load_resident(cache, device) if cache and is_cuda(device) else None
    if pixels is not None:
        return ResidentLoader(dataset, order, batch_size, pixels)
    return DataLoader(dataset, batch_size, sampler=order, drop_last=True, **loading(s))


def build_eval_loader(frame, s, cache=None, device=None):
    """Return the loader of photographs in table order, each once, as evaluation sees them.

    With a CUDA `device`, the batches are made once and stay in its memory: for what is looked at in every epoch.
    """
    dataset = PlantsDataset(frame, s.image_size, s.max_megapixels, cache=cache)
    loader = DataLoader(dataset, min(s.batch_size, 128), **loading(s))
    return KeptBatches(loader, device) if is_cuda(device) else loader


def is_cuda(device):
    """Return whether a torch device, or None, is a CUDA device."""
    return device is not None and device.type == "cuda"


def loading(s):
    """Return the DataLoader arguments that change speed only."""
    workers = s.num_workers if s.num_workers >= 0 else process_count(0, at_most=8)
    return {"num_workers": workers, "persistent_workers": workers > 0, "generator": torch.Generator(),
            "pin_memory": torch.cuda.is_available() and s.device != "cpu", "collate_fn": as_it_is}


def as_it_is(batch):
    """Return a batch as the dataset made it."""
    return batch


def load_resident(cache, device):
    """Return the pixels of a cache in a CUDA device's memory, or None where they would leave too little for training.

    What they leave is at least half of what is free. Later calls return the same tensor.
    """
    if cache.resident is None and 2 * cache.bytes < torch.cuda.mem_get_info(device)[0]:
        cache.resident = torch.from_numpy(cache.pixels()).to(device)
    return cache.resident


class ResidentLoader:
    """Yields the batches of a training `PlantsDataset`, in the order of its sampler, cut where `pixels` lies.

    `pixels`, uint8 (P, 3), are those of the dataset's cache. The views are those that workers would cut, with the same
    boxes; before colours are changed their pixels differ by 1 of 255 at most, see `augmentation.crop_resident`.
    """

    def __init__(self, dataset, sampler, batch_size, pixels):
        self.dataset, self.sampler, self.batch_size, self.pixels = dataset, sampler, batch_size, pixels
        self.steps = len(sampler) // batch_size
        cache, places = dataset.cache, [dataset.cache.places[path] for path in dataset.paths]
        self.starts, self.sizes = cache.starts[places] // 3, cache.sizes[places].astype(int)
        self.labels = np.array(dataset.labels)

    def __len__(self):
        return self.steps

    def __iter__(self):
        keys, a = list(self.sampler), self.dataset.augmentation
        for step in range(self.steps):
            epochs, draws, places = map(list, zip(*keys[step * self.batch_size:][:self.batch_size], strict=True))
            views = draw_views(draw_numbers(self.dataset.seed, epochs[0], draws), self.sizes[places], a)
            images = crop_resident(self.pixels, self.starts[places], self.sizes[places, 1], views, a.image_size)
            yield change(images, views, a), send(self.labels[places], self.pixels.device)


class KeptBatches:
    """Yields the batches of a loader, made the first time and then kept in a device's memory."""

    def __init__(self, loader, device):
        self.loader, self.device, self.kept = loader, device, None

    def __iter__(self):
        if self.kept is None:
            self.kept = [tuple(tensor.to(self.device) for tensor in batch) for batch in self.loader]
            self.loader = None  # ends its workers
        return iter(self.kept)


def batches(loader, device, mean, std):
    """Yield (images, labels) on the device: float (B, 3, H, W) normalised, channels last; raise InputError plainly."""
    try:
        for images, labels in loader:
            images, labels = (tensor.to(device, non_blocking=True) for tensor in (images, labels))
            yield normalize(images, mean, std), labels
    except InputError as error:  # a worker's error carries its whole traceback; its last line is the message
        raise InputError(str(error).strip().splitlines()[-1].removeprefix("utils.InputError: ")) from None


def normalize(images, mean, std):
    """Return float32 (B, 3, H, W), channels last, of uint8 images; mean and std are per channel of pixels in [0, 1].

    On a CPU one image after the other, so that it stays in the processor's cache: half the time.
    """
    mean, std = (send(255 * np.array(values, np.float32), images.device) for values in (mean, std))
    if images.device.type != "cpu":
        images = images.to(memory_format=torch.channels_last).float()
        return images.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))
    count, channels, height, width = images.shape
    result = torch.empty(count, height, width, channels)
    mean, std = mean.repeat(width), std.repeat(width)
    for source, target in zip(images, result, strict=True):
        for channel in range(channels):
            target[..., channel] = source[channel]
        target.view(height, width * channels).sub_(mean).div_(std)
    return result.permute(0, 3, 1, 2)
