"""How fast is training from end to end, beside a plain loop and torchvision's?

    python benchmarks/training_speed.py --photos DIR    # on CUDA if available, or --device cpu
    figure step_over_plain_loop 1.614 times target >= 1.35 met

MobileNetV3-Large with random weights trains at 224 pixels with TrivialAugment, on photographs of
256 pixels. The ways take turns, one epoch each. The first epoch compiles, fills the cache and
starts workers; it is printed but not counted. On a GPU, make epochs longer: --repeat 20
--batch_size 256.

ours                train_one_epoch of train.py as train.py calls it, from the cache
ours, ready data    the same on a single batch that is already on the device
plain loop          the same network, batch and optimizer without what makes ours fast: float32,
                    contiguous, unfused AdamW
... frozen          the last two with FREEZE_BATCHNORM
torchvision         `ImageFolder`, the preset and the loop of its references/classification, on
                    CUDA with --amp
"""
import os
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from torch.utils.data import ConcatDataset, DataLoader
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, state, take_turns
from benchmarks.feeding import list_photos, torchvision_preset, write_photos
from dataset import build_train_loader
from model import build_model, complete, set_train_mode
from train import train_one_epoch
from training.image_cache import build_cache
from training.optimization import build_criterion, build_forward, build_optimizer
from training.runs import pick_device

MODEL, CLASSES = "mobilenet_v3_large", 50


def main(argv=None):
    flags = parse(__doc__, argv, rounds=5, count=160, batch_size=32, repeat=1, device="")
    device = pick_device(flags.device)
    folder = write_photos(flags.photos, flags.work / "feeding", flags.count)
    s = complete(config.namespace(
        batch_size=flags.batch_size, model=MODEL, trivial_augment=True, device=device.type,
        cache_dir=flags.work / "feeding/cache", freeze_batchnorm=False))
    table = list_photos(folder)
    cache, table = build_cache(table, s), pd.concat([table] * flags.repeat, ignore_index=True)
    loader, steps = Timed(build_train_loader(table, s, cache)), len(table) // flags.batch_size
    ready = Ready(steps, s, device)
    ways = {"ours": ours(loader, table, s, device),
            "ours, ready data": ours(ready, table, s, device),
            "plain loop": plain_loop(ready, s, device),
            "torchvision": torchvision_loop(folder, s, device, flags.repeat)}
    frozen = SimpleNamespace(**{**vars(s), "freeze_batchnorm": True})
    ways |= {"ours, BatchNorm frozen": ours(ready, table, frozen, device),
             "plain, BatchNorm frozen": plain_loop(ready, frozen, device)}
    for way, function in ways.items():
        started = time.perf_counter()
        function()
        print(f"{way}: {time.perf_counter() - started:.1f} s for the first epoch", flush=True)
    loader.waited = loader.total = 0.0
    seconds = take_turns(ways, flags.rounds, apart=0)
    photographs = steps * s.batch_size
    rates = {way: [photographs / value for value in values] for way, values in seconds.items()}
    for way, values in rates.items():
        print(f"{way:26}{statistics.median(values):10,.1f} photographs/s ({min(values):,.1f} to "
              f"{max(values):,.1f})")
    threads = f"{torch.get_num_threads()} threads"
    print(f"on {torch.cuda.get_device_name(device) if device.type == 'cuda' else threads}")

    def ratio(ours, other):
        """Return how many times as fast as another a way is: the median over the rounds."""
        rounds = zip(seconds[ours], seconds[other], strict=True)
        return statistics.median(theirs / mine for mine, theirs in rounds)
    return state([
        ("step_over_plain_loop", ratio("ours, ready data", "plain loop"), "times", ">=", 1.35),
        ("step_over_plain_loop_batchnorm_kept",
         ratio("ours, BatchNorm frozen", "plain, BatchNorm frozen"), "times", ">=", 1.35),
        ("waiting_for_data", loader.waited / loader.total, "fraction", "<=", 0.03),
        ("end_to_end_over_ready_data", ratio("ours", "ours, ready data"), "times", ">=", 0.95),
        ("end_to_end_over_torchvision", ratio("ours", "torchvision"), "times", ">=", 1),
        *([("end_to_end", statistics.median(rates["ours"]), "photographs/s", ">=", 8000)]
          if device.type == "cuda" else [])])


class Timed:
    """A loader that measures the seconds spent waiting for it and those of whole epochs."""

    def __init__(self, loader):
        self.loader, self.sampler, self.waited, self.total = loader, loader.sampler, 0.0, 0.0

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        started = before = time.perf_counter()
        for batch in self.loader:
            self.waited += time.perf_counter() - before
            yield batch
            before = time.perf_counter()
        self.total += before - started


class Ready:
    """A loader that repeats one random batch, already on the device."""

    def __init__(self, steps, s, device):
        torch.manual_seed(0)
        self.steps, self.sampler = steps, SimpleNamespace(set_epoch=lambda epoch: None)
        images = torch.randint(0, 256, (s.batch_size, 3, 224, 224), dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (s.batch_size,))
        self.batch = images.to(device), labels.to(device)

    def __len__(self):
        return self.steps

    def __iter__(self):
        return iter([self.batch] * self.steps)


def build_network(s, device):
    """Return a network with random weights and the BatchNorm statistics of noise images."""
    torch.manual_seed(0)
    model = build_model(MODEL, CLASSES, batchnorm_momentum=1.0).to(device)
    with torch.no_grad():
        model(torch.randn(8, 3, 224, 224, device=device))
    set_train_mode(model, False, s.freeze_batchnorm)
    return model


def ours(loader, table, s, device):
    """Return a function that trains an epoch as train.py does."""
    model = build_network(s, device)
    optimizer, scheduler = build_optimizer(s, model, [], len(loader), None)
    run = SimpleNamespace(
        model=model, forward=build_forward(s, model, device), train_loader=loader, device=device,
        criterion=build_criterion(s.balance, table["label"], CLASSES).to(device), mix=None,
        optimizer=optimizer, scheduler=scheduler, average=None, seed=s.seed, epoch=1,
        freeze_backbone=False, keep_batchnorm=s.freeze_batchnorm, facts=vars(s))
    return lambda: train_one_epoch(run)


def plain_loop(loader, s, device):
    """Return a function that trains an epoch in float32 on contiguous tensors."""
    model = build_network(s, device).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    criterion = torch.nn.CrossEntropyLoss()
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (s.mean, s.std))

    def epoch():
        for images, labels in loader:
            loss = criterion(model((images.float() / 255 - mean) / std), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()
    return epoch


def torchvision_loop(folder, s, device, repeat):
    """Return a function that trains an epoch as references/classification/train.py does."""
    photographs = ImageFolder(folder, torchvision_preset(s.trivial_augment))
    loader = DataLoader(ConcatDataset([photographs] * repeat), s.batch_size, shuffle=True,
                        drop_last=True, persistent_workers=True, pin_memory=device.type == "cuda",
                        num_workers=min(16, os.cpu_count()))
    model = build_network(SimpleNamespace(freeze_batchnorm=False), device)
    model = model.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    criterion, amp = torch.nn.CrossEntropyLoss(), device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=amp)

    def epoch():
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            with torch.autocast(device.type, enabled=amp):
                loss = criterion(model(images), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        return loss.item()
    return epoch


if __name__ == "__main__":
    sys.exit(main())
