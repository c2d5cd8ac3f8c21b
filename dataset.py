"""Label tables -> batches: validation by group, order, loaders. Images stay uint8 until the device."""
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from images import evaluation_view
from training.augmentation import build_augmentation, change, crop_frames, draw_numbers, draw_views, send
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
    """Yields (epoch, draw, index): one epoch's order, or one rank's shard of it; call `set_epoch` before each.

    The order is a function of (seed, epoch) alone. Of `world_size` ranks each takes every world_size-th draw, as in
    torch's DistributedSampler, and all equally many: step by step they see together what one process would see.
    """

    def __init__(self, labels, balance, seed, rank=0, world_size=1):
        self.labels, self.balance, self.seed, self.epoch = np.asarray(labels), balance, seed, 0
        self.rank, self.world_size = rank, world_size

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        counts = np.bincount(self.labels)
        draws = counts.max() * np.count_nonzero(counts) if self.balance == "oversample" else len(self.labels)
        return int(draws) // self.world_size

    def __iter__(self):
        rng = np.random.default_rng(stream_seed(self.seed, "order", self.epoch))
        order = draw_indices(self.labels, self.balance, rng).tolist()
        shard = range(self.rank, len(self) * self.world_size, self.world_size)
        return ((self.epoch, draw, order[draw]) for draw in shard)


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


def build_train_loader(table, s, cache=None, rank=0, world_size=1):
    """Return the loader of training batches (uint8 (B, 3, H, W), int64 (B,)); a smaller last batch is left out.

    A step takes `batch_size` photographs. Of several ranks each takes an equal part of them, rounded down: with 4
    ranks and a batch size of 90 a step has 4 x 22. Raises InputError where that leaves a rank less than 2.
    """
    if s.balance not in BALANCES:
        raise InputError(f"unknown balance {s.balance!r}; --balance takes {', '.join(BALANCES)}")
    dataset = PlantsDataset(table, s.image_size, s.max_megapixels, build_augmentation(s), s.seed, cache)
    order = EpochOrder(dataset.labels, s.balance, s.seed, rank, world_size)
    batch_size = min(s.batch_size // world_size, len(order))
    if world_size > 1 and batch_size < 2:
        raise InputError(f"{world_size} ranks need at least 2 photographs each per step, and --batch_size is "
                         f"{s.batch_size} of {len(table)} photographs; raise it, or lower --nproc-per-node")
    return DataLoader(dataset, batch_size, sampler=order, drop_last=True, **loading(s))


def build_eval_loader(table, s, cache=None):
    """Return the loader of photographs in table order, each once, as evaluation sees them."""
    dataset = PlantsDataset(table, s.image_size, s.max_megapixels, cache=cache)
    return DataLoader(dataset, min(s.batch_size, 128), **loading(s))


def loading(s):
    """Return the DataLoader arguments that change speed only."""
    workers = s.num_workers if s.num_workers >= 0 else process_count(0, at_most=8)
    return {"num_workers": workers, "persistent_workers": workers > 0, "generator": torch.Generator(),
            "pin_memory": torch.cuda.is_available() and s.device != "cpu", "collate_fn": as_it_is}


def as_it_is(batch):
    """Return a batch as the dataset made it."""
    return batch


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
