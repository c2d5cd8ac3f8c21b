"""Label tables -> training and evaluation batches: validation split, epoch order, loaders.

Images stay uint8 until they are on the device, where `batches` normalises them. `s` is the
namespace of settings from `config.parse`, completed by `model.complete`; `cache` is a
`training.image_cache.ImageCache` or None. Shapes: B photographs in a batch, H and W pixels.
"""
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from evaluation.facts import CREDIT
from images import evaluation_view
from training.augmentation import augment, build_augmentation
from training.image_cache import read_resized, view_of
from training.runs import pick_device, stream_seed
from utils import LARGE_BATCH, InputError, pick_groups, process_count, read_label_rows, warn

STEPS = 30  # per epoch, at least: on 400 to 800 photographs better than 10, by 0.03 to 0.07 nats
SMALL_BATCH = 16  # photographs; below that, gradients are too noisy to be worth more steps

# ---- tables ----

def read_labels(path, classes):
    """Return a label table as a DataFrame: `path` (with its folder), `label`, `group`, credits.

    A group, such as a set of near-duplicates, is never split between training and validation. In a
    file without the column `group`, every photograph is its own group; without author, license,
    url and doubtful, these are "".
    """
    folder, rows = Path(path).parent, read_label_rows(path, classes)
    if "group" not in rows[0]:
        warn(f"{path} has no column 'group', so near-duplicates may be split across training, "
             "validation and test; find them and add the column with "
             f"dataset_preparation/labeling/labeling.py --check {folder}")
    return pd.DataFrame({"path": [str(folder / row["path"]) for row in rows],
                         "label": [row["label"] for row in rows],
                         "group": [row.get("group") or row["path"] for row in rows],
                         **{name: [row.get(name, "") for row in rows]
                            for name in (*CREDIT, "doubtful")}})


def split_validation(table, classes, share, seed):
    """Return (training table, validation table), split by whole groups.

    For each class, validation takes groups, in an order hashed from `seed` and their names, up to
    a `share` of its photographs, at least one group. Groups with photographs of several classes
    stay in training: taken for one class, they would exceed the share of the others. A class with
    fewer than two other groups stays in training, with a warning. Raises InputError if a class has
    no photographs, or no class can be split.
    """
    classes_per_group = table.groupby("group")["label"].nunique()
    mixed_groups = set(classes_per_group.index[classes_per_group > 1])
    chosen, whole = set(), []  # groups for validation; classes that cannot be split
    for plant in classes:
        groups = table.loc[table["label"] == plant.label, "group"]
        sizes = groups[~groups.isin(mixed_groups)].value_counts().to_dict()
        if groups.empty:
            raise InputError(f"{plant.latin} has no training photographs; label some, or leave the "
                             "class out of the class table")
        if len(sizes) < 2:
            whole.append(plant.latin)
            continue
        quota = share * sum(sizes.values())
        picked = (pick_groups(sizes, quota, seed)  # none, where every group exceeds the quota:
                  or pick_groups(sizes, min(sizes.values()), seed))  # then one of the smallest
        if len(picked) == len(sizes):  # leave one group, the first by name, to training
            picked.remove(min(picked))
        chosen |= picked
    if not chosen:
        raise InputError("every class has one group of training photographs; validation needs "
                         "classes of at least 2, as one stays in training")
    if whole:
        warn(f"validation has no photographs of {', '.join(whole)}: too few groups to hold one "
             "out, so all are trained on")
    in_validation = table["group"].isin(chosen)
    return (table[~in_validation].reset_index(drop=True),
            table[in_validation].reset_index(drop=True))


# ---- photographs ----

class PlantsDataset(Dataset):
    """Item i is (image, label): uint8 (image_size, image_size, 3) and an int in [0, num_classes).

    i is the row of the table. With an `augmentation`, the index is (epoch, draw, i), where `draw`
    is the position in the epoch's order, see EpochOrder. The augmentation is a function of (seed,
    epoch, draw): it does not depend on the worker, and a photograph drawn twice in an epoch is
    augmented differently. Pixels come from the `cache` if there is one, else from the files.
    Raises InputError naming an unreadable file.
    """

    def __init__(self, table, view, max_megapixels, augmentation=None, seed=0, cache=None):
        self.paths, self.labels = table["path"].tolist(), table["label"].tolist()
        self.view, self.max_megapixels = view, max_megapixels
        self.augmentation, self.seed, self.cache = augmentation, seed, cache

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, key):
        if self.augmentation is None:
            view = evaluation_view(Image.fromarray(self.read(key)), self.view)
            return torch.from_numpy(view), self.labels[key]
        epoch, draw, i = key
        return augment(self.read(i), self.augmentation, self.seed, epoch, draw), self.labels[i]

    def read(self, i):
        """Return photograph i, uint8 (H, W, 3), resized as for the cache but not yet cropped."""
        path = self.paths[i]
        if self.cache:
            return self.cache[path]
        return read_resized(path, self.view, self.max_megapixels)


# ---- order and loaders ----

class EpochOrder(Sampler):
    """Yields (epoch, draw, i) for one epoch, or for one rank's shard of it; `set_epoch` first.

    Draw number `draw` of the epoch is photograph i. The order depends on (seed, epoch) only. Each
    rank takes every world_size-th draw, as in torch's DistributedSampler, so that together the
    ranks see in each step what a single process would see. A remainder is left out.
    """

    def __init__(self, labels, balance, seed, rank=0, world_size=1):
        self.labels, self.balance, self.seed, self.epoch = np.asarray(labels), balance, seed, 0
        self.rank, self.world_size = rank, world_size

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        counts = np.bincount(self.labels)
        oversampled = counts.max() * np.count_nonzero(counts)
        draws = oversampled if self.balance == "oversample" else len(self.labels)
        return int(draws) // self.world_size

    def __iter__(self):
        rng = np.random.default_rng(stream_seed(self.seed, "order", self.epoch))
        order = draw_indices(self.labels, self.balance, rng).tolist()
        shard = range(self.rank, len(self) * self.world_size, self.world_size)
        return ((self.epoch, draw, order[draw]) for draw in shard)


def draw_indices(labels, balance, rng):
    """Return the order of the photographs in one epoch, as indices into the labels (N,).

    `balance` is the setting BALANCE: "oversample" repeats classes up to the size of the largest,
    "sampling" draws N times with replacement, every class equally likely.
    """
    if balance == "oversample":
        largest = np.bincount(labels).max()
        repeated = [np.resize(rng.permutation(np.flatnonzero(labels == label)), largest)
                    for label in np.unique(labels)]
        return rng.permutation(np.concatenate(repeated))
    if balance == "sampling":
        weights = 1.0 / np.bincount(labels)[labels]
        return rng.choice(len(labels), len(labels), p=weights / weights.sum())
    return rng.permutation(len(labels))


def class_weights(labels, num_classes):
    """Return float32 (num_classes,): 1 / class frequency, scaled to a mean of 1 over `labels`."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = len(labels) / (num_classes * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32)


def build_train_loader(table, s, cache=None, rank=0, world_size=1):
    """Return the loader of training batches (uint8 (B, 3, H, W), int64 (B,)), all of one size.

    A smaller last batch is left out, unless it is the only one. BATCH_SIZE 0 makes at least STEPS
    steps of SMALL_BATCH to LARGE_BATCH photographs. Ranks share a batch equally, rounded down:
    4 ranks and a batch size of 90 make steps of 4 x 22 photographs.
    """
    dataset = PlantsDataset(table, view_of(s), s.max_megapixels, build_augmentation(s), s.seed,
                            cache)
    order = EpochOrder(dataset.labels, s.balance, s.seed, rank, world_size)
    automatic = min(LARGE_BATCH // world_size,
                    max(len(order) // STEPS, SMALL_BATCH // world_size, 2))
    wanted = s.batch_size // world_size or automatic
    batch_size = min(wanted, len(order))
    if s.batch_size and batch_size < wanted and rank == 0:
        warn(f"--batch_size {s.batch_size} is more than the {len(order) * world_size:,} photographs"
             " of an epoch, so an epoch is one step of all of them")
    if world_size > 1 and batch_size < 2:
        raise InputError(f"{world_size} ranks need at least 2 photographs each per step, and "
                         f"--batch_size is {s.batch_size} of {len(table)} photographs; raise it, "
                         "or lower --nproc-per-node")
    return DataLoader(dataset, batch_size, sampler=order, drop_last=True,
                      **loader_options(s, cache))


def build_eval_loader(table, s, cache=None):
    """Return the loader of evaluation views of all photographs, in table order."""
    dataset = PlantsDataset(table, view_of(s), s.max_megapixels, cache=cache)
    return DataLoader(dataset, min(s.batch_size or LARGE_BATCH, 128), **loader_options(s, cache))


def loader_options(s, cache):
    """Return the DataLoader arguments that all loaders share; they affect speed only.

    A CPU that trains from the cache needs no workers: a core crops a hundred times as many views
    as it trains on, and every worker is a process that imports torch.
    """
    workers = s.num_workers
    if workers < 0:
        cached_on_cpu = cache is not None and pick_device(s.device).type == "cpu"
        workers = 0 if cached_on_cpu else process_count(0, at_most=8)
    return {"num_workers": workers, "persistent_workers": workers > 0,
            "generator": torch.Generator(),  # else loaders would draw from torch's global one
            "pin_memory": torch.cuda.is_available() and s.device != "cpu", "collate_fn": collate}


def collate(items):
    """Return (uint8 (B, 3, H, W) in channels-last layout, int64 (B,)) of a list of B items."""
    images, labels = default_collate(items)  # (B, H, W, 3), (B,)
    return images.permute(0, 3, 1, 2), labels


def batches(loader, device, mean, std):
    """Yield (images, labels) on the device; images are normalised float32 (B, 3, H, W)."""
    mean, std = (torch.tensor(values, device=device) for values in (mean, std))
    try:
        for images, labels in loader:
            images, labels = (part.to(device, non_blocking=True) for part in (images, labels))
            yield normalize(images, mean, std), labels
    except InputError as error:  # a worker's message is a whole traceback: keep its last line
        message = str(error).strip().splitlines()[-1].removeprefix("utils.InputError: ")
        raise InputError(message) from None


def normalize(images, mean, std):
    """Return float32 (B, 3, H, W), channels last, of uint8 images of that shape.

    `mean` and `std` are per channel, of pixels in [0, 1]. On a CPU the images are normalised one
    by one, so that each stays in the processor's cache.
    """
    # (x / 255 - mean) / std, without dividing the pixels: (x - 255 mean) / (255 std)
    mean, std = (255 * torch.as_tensor(values, device=images.device) for values in (mean, std))
    if images.device.type != "cpu":
        images = images.to(memory_format=torch.channels_last).float()
        return images.sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))
    # One image is (height, width * channels): its last axis repeats mean and std per pixel.
    count, channels, height, width = images.shape
    rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    result, mean, std = torch.empty(rows.shape), mean.repeat(width), std.repeat(width)
    for source, target in zip(rows, result, strict=True):
        target.copy_(source).sub_(mean).div_(std)
    return result.view(count, height, width, channels).permute(0, 3, 1, 2)
