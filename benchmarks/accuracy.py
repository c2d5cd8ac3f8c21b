"""Accuracy of our recipe beside the original's, torchvision's and timm's, on real photographs and grouped splits.

    python benchmarks/accuracy.py --photos DIR --weights FILE      # DIR: one folder of photographs per class
    python benchmarks/accuracy.py --photos DIR --report            # print what is done so far, train nothing
    python benchmarks/accuracy.py ... --model mobilenet_v3_small   # another network; FILE: its weights
    python benchmarks/accuracy.py ... --train_batchnorm            # ours with --no-freeze_batchnorm

Same network, initial weights, photographs, epochs and batches for all; the seed chooses split, order and augmentation.
Every recipe's learning rate is chosen by validation loss on the first `--rate_splits` splits (the original's stays),
its epoch by validation; the test set is predicted once per recipe and split, after the rates of all are chosen.
Killed, the same command goes on: what is trained (one folder per recipe, rate and split) or tested is not done again.
The peers' lists follow torchvision's references/classification/presets.py and timm's `create_transform`; torchvision
and timm get our optimiser (AdamW, one epoch of warm-up, cosine) and BatchNorm momentum, which serves them better than
their defaults in runs so short. The original's list is rotation, perspective, brightness, sharpness, erasing with
black, and a nearest-neighbour crop at the end; where a strength is not known it is torchvision's default.
"""
import json
import math
import random
import statistics
import sys
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ImageOps
from torch import nn
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, prepare_splits, state
from dataset import batches, build_eval_loader, read_labels, split_validation
from evaluate import predict_test
from evaluation.calibration import fit_temperature
from evaluation.metrics import collect_logits, measure, wilson_interval
from images import open_image, to_rgb
from model import build_model, load_initial_weights, restore_model
from train import train
from training.checkpoints import BEST, load_checkpoint, save_checkpoint
from training.runs import stream_seed
from utils import read_classes, write_text

NORMALIZE = (v2.ToDtype(torch.float32, scale=True), v2.Normalize(config.MEAN, config.STD))
RATES = (3e-5, 1e-4, 3e-4)


def torchvision_transform(size):
    """Return the augmentation of torchvision's reference preset with TrivialAugment: PIL -> float (3, size, size)."""
    return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), v2.TrivialAugmentWide(
        interpolation=v2.InterpolationMode.BILINEAR), v2.PILToTensor(), *NORMALIZE, v2.RandomErasing(0.1)])


def timm_transform(size):
    """Return timm's augmentation with its usual RandAugment and erasing: PIL -> float (3, size, size).

    Its strongest posterising keeps 0 bits, which today's Pillow refuses; here it keeps 1.
    """
    from timm.data import auto_augment, create_transform
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **_: ImageOps.posterize(
        image, min(8, max(1, bits)))
    return create_transform(size, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel",
                            interpolation="random", mean=config.MEAN, std=config.STD)


def original_transform(size):
    """Return the original's augmentation, cropped last: PIL -> float (3, size, size)."""
    return v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.RandomRotation(45),
                       v2.RandomPerspective(0.6, p=1.0), v2.ColorJitter(brightness=0.9), v2.RandomAdjustSharpness(2),
                       v2.RandomErasing(value=0), v2.RandomResizedCrop(
                           size, interpolation=v2.InterpolationMode.NEAREST), NORMALIZE[1]])


class Peer(NamedTuple):
    """One recipe of others; `scheduled`: AdamW with warm-up and cosine, else Adam at a constant rate."""

    transform: object
    rates: tuple
    scheduled: bool
    label_smoothing: float


PEERS = {"original": Peer(original_transform, (9e-5,), False, 0.0),
         "torchvision": Peer(torchvision_transform, RATES, True, 0.1),
         "timm": Peer(timm_transform, RATES, True, 0.1)}
RECIPES = {**{name: peer.rates for name, peer in PEERS.items()}, "ours": RATES}


def main(argv=None):
    flags = parse(__doc__, argv, epochs=8, batch_size=32, test_per_class=12, rate_splits=1, report=False,
                  recipes=",".join(RECIPES), model="mobilenet_v3_large", train_batchnorm=False)
    work = flags.work / f"accuracy_{flags.model}"
    if not flags.report:
        splits, named = prepare_splits(work, flags), flags.recipes.split(",")
        for recipe, split in product(named, splits[:flags.rate_splits]):
            for rate in RECIPES[recipe]:
                train_once(recipe, rate, split, flags)
        for split, recipe in product(splits, named):
            train_once(recipe, choose_rate(recipe, work, flags.rate_splits), split, flags)
            test_trained(work, splits, flags)
    return report(work, flags)


def test_trained(work, splits, flags):
    """Predict the test photographs with every run of a chosen rate, once the rates of all recipes are chosen."""
    folders = [work / f"split{split}/{recipe}_{rate:g}" for split in range(flags.rate_splits)
               for recipe, rates in RECIPES.items() for rate in rates]
    if all((folder / "run.json").exists() for folder in folders):
        for split, recipe in product(splits, RECIPES):
            rate = choose_rate(recipe, work, flags.rate_splits)
            folder = split["folder"] / f"{recipe}_{rate:g}"
            if (folder / "run.json").exists():
                test_once(recipe, rate, split, folder)


# ---- one run ----

def train_once(recipe, rate, split, flags):
    """Train one recipe at one rate on one split, unless done before; return its folder, which holds run.json."""
    folder = split["folder"] / f"{recipe}_{rate:g}"
    done = folder / "run.json"
    if done.exists():
        return folder
    s = config.namespace(**{**split["settings"], "model": flags.model, "initial_weights": flags.weights,
                            "freeze_batchnorm": not flags.train_batchnorm, "num_epochs": flags.epochs,
                            "batch_size": flags.batch_size, "num_workers": 0, "backbone_learning_rate": rate,
                            "checkpoints_dir": folder, "runs_dir": folder / "runs", "run": "run"})
    began, cpu = time.perf_counter(), time.process_time()
    classes = read_classes(s.class_table)
    train_frame, val_frame = split_validation(
        read_labels(s.dataset_dir / "train_labels.csv", classes), classes, s.validation_share, s.split_seed)
    if recipe == "ours":
        train(s)
    else:
        train_peer(PEERS[recipe], rate, train_frame, val_frame, [one.latin for one in classes], s)
    minutes, cpu = (time.perf_counter() - began) / 60, (time.process_time() - cpu) / 60
    checkpoint = load_checkpoint(folder / "run" / BEST)
    model = restore_model(checkpoint, folder, checkpoint["class_names"])
    write_logits(done, lambda mirrored: collect_logits(model, val_batches(val_frame, s), mirrored),
                 epoch=checkpoint["epoch"], minutes=minutes, cpu_minutes=cpu)
    print(f"split {s.split_seed} {recipe} {rate:g}: validation NLL {measured(done)['loss']:.4f}, epoch "
          f"{checkpoint['epoch']}, {minutes:.1f} min ({cpu:.1f} CPU)", flush=True)
    return folder


def train_peer(peer, rate, train_frame, val_frame, class_names, s):
    """Train a network by a peer's recipe and write its checkpoint of the epoch with the best validation loss."""
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, len(class_names))
    load_initial_weights(model, s.model, s.initial_weights)
    kind = torch.optim.AdamW if peer.scheduled else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=rate)
    criterion = nn.CrossEntropyLoss(label_smoothing=peer.label_smoothing)
    photographs = [to_rgb(open_image(path, s.max_megapixels)[0]) for path in train_frame["path"]]
    labels, transform = torch.tensor(train_frame["label"].to_numpy()), peer.transform(s.image_size)
    steps, best = len(labels) // s.batch_size, math.inf
    for epoch in range(1, s.num_epochs + 1):
        seed_all(stream_seed(s.seed, "epoch", epoch))
        order = torch.randperm(len(labels))[:steps * s.batch_size].view(steps, s.batch_size)
        model.train()
        for step, places in enumerate(order, (epoch - 1) * steps):
            if peer.scheduled:
                optimizer.param_groups[0]["lr"] = rate * warm_cosine(step, steps, s.num_epochs * steps)
            images = torch.stack([transform(photographs[i]) for i in places.tolist()])  # (B, 3, H, W)
            loss = criterion(model(images.contiguous(memory_format=torch.channels_last)), labels[places])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        now = measure(*collect_logits(model, val_batches(val_frame, s)))["loss"]
        if now < best:
            best = now
            save_checkpoint(s.checkpoints_dir / s.run / BEST, {
                "model_state_dict": model.state_dict(), "model": s.model, "class_names": class_names, "epoch": epoch,
                "image_size": s.image_size, "mean": s.mean, "std": s.std})


def seed_all(seed):
    """Seed every generator an augmentation may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def warm_cosine(step, warmup, total):
    """Return the factor of the learning rate at a step: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (total - warmup))


def val_batches(frame, s):
    """Return the batches of a validation table."""
    return batches(build_eval_loader(frame, s), torch.device("cpu"), s.mean, s.std)


def test_once(recipe, rate, split, folder):
    """Predict the test photographs with a finished run, unless done before."""
    done = folder / "test.json"
    if done.exists():
        return
    s = config.namespace(**split["settings"], device="cpu", num_workers=0)
    classes = read_classes(s.class_table)
    frame = read_labels(s.dataset_dir / "test_labels.csv", classes)
    checkpoint = load_checkpoint(folder / "run" / BEST)
    model = restore_model(checkpoint, folder, [one.latin for one in classes])

    def predict(mirrored):
        return predict_test(model, {**checkpoint, "flip_tta": mirrored}, frame, s)
    write_logits(done, predict, recipe=recipe, rate=rate, split=s.split_seed)


def write_logits(path, predict, **record):
    """Write the logits and labels of `predict(mirrored)`, without and with the mirrored view, and what is told."""
    logits = {"plain": predict(False), "mirrored": predict(True)}
    write_text(path, json.dumps({**record, "labels": logits["plain"][1].tolist(), **{
        view: values.tolist() for view, (values, _) in logits.items()}}))


# ---- reading results ----

def measured(path, view="plain", temperature=1.0):
    """Return loss, accuracy and macro-F1 of the logits in a result file."""
    record = json.loads(path.read_text("utf-8"))
    return measure(np.array(record[view], dtype=np.float32) / temperature, np.array(record["labels"]))


def temperature_of(folder, view):
    """Return the temperature that fits the validation logits of a run."""
    record = json.loads((folder / "run.json").read_text("utf-8"))
    return fit_temperature(np.array(record[view]), np.array(record["labels"]))


def val_loss(path):
    """Return the validation loss of a run by which its rate is chosen: at the fitted temperature in ours."""
    if path.parent.name.startswith("ours"):
        return measured(path, "mirrored", temperature_of(path.parent, "mirrored"))["loss"]
    return measured(path)["loss"]


def choose_rate(recipe, work, rate_splits):
    """Return the learning rate with the lowest mean validation loss on the first splits."""
    return min(RECIPES[recipe], key=lambda rate: statistics.mean(
        val_loss(work / f"split{split}/{recipe}_{rate:g}/run.json") for split in range(rate_splits)))


def report(work, flags):
    """Print what is done: rates on validation, every test run, paired comparisons; return 1 if a target is missed."""
    print("validation NLL by rate, on the splits the rates are chosen on; NLL at the fitted temperature for ours")
    for path in sorted(path for split in range(flags.rate_splits) for path in work.glob(f"split{split}/*/run.json")):
        print(f"  {path.parent.parent.name} {path.parent.name:20} {val_loss(path):.4f}")
    tests = {}
    for path in sorted(work.glob("split*/*/test.json")):
        record = json.loads(path.read_text("utf-8"))
        tests.setdefault(record["recipe"], {})[record["split"]] = path
    print("test, as each recipe answers / all with the mirrored view and a temperature fitted on validation")
    numbers = {}
    for recipe, paths in tests.items():
        for split, path in sorted(paths.items()):
            run = json.loads((path.parent / "run.json").read_text("utf-8"))
            alike = measured(path, "mirrored", temperature_of(path.parent, "mirrored"))
            own = alike if recipe == "ours" else measured(path)
            numbers.setdefault(recipe, {})[split] = {"own": own, "alike": alike, "minutes": run["minutes"]}
            count = len(json.loads(path.read_text("utf-8"))["labels"])
            low, high = wilson_interval(round(own["accuracy"] * count), count)
            print(f"  split {split} {path.parent.name:20} accuracy {own['accuracy']:.4f} ({low:.3f}-{high:.3f}) / "
                  f"{alike['accuracy']:.4f}  NLL {own['loss']:.4f} / {alike['loss']:.4f}  epoch {run['epoch']}  "
                  f"{run['minutes']:.1f} min ({run['cpu_minutes']:.1f} CPU)")
    if "ours" not in numbers:
        print("no test of ours yet; the same command without --report goes on")
        return 1
    return state(figures(numbers))


def figures(numbers):
    """Print mean and spread per recipe and return the figures: paired wins in NLL, lead in accuracy, goal, minutes."""
    ours, found = numbers["ours"], []
    for recipe, runs in numbers.items():
        accuracy = [run["own"]["accuracy"] for run in runs.values()]
        spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
        print(f"{recipe:12} mean test accuracy {statistics.mean(accuracy):.4f}, standard deviation {spread:.4f}, mean "
              f"NLL {statistics.mean(run['own']['loss'] for run in runs.values()):.4f} over {len(runs)} splits")
        paired = sorted(runs.keys() & ours.keys())
        if recipe != "ours" and paired:
            for kind, name in (("own", ""), ("alike", "_finished_alike")):
                wins = sum(ours[split][kind]["loss"] < runs[split][kind]["loss"] for split in paired)
                lead = statistics.mean(ours[split][kind]["accuracy"] - runs[split][kind]["accuracy"]
                                       for split in paired)
                found += [(f"nll_wins_over_{recipe}{name}_of_{len(paired)}", wins, "splits", ">=", 4),
                          (f"accuracy_lead_over_{recipe}{name}", 100 * lead, "points", ">=", 0)]
    return [*found, ("accuracy_of_ours", statistics.mean(run["own"]["accuracy"] for run in ours.values()), "fraction",
                     ">=", 0.97),
            ("minutes_per_split_of_ours", max(run["minutes"] for run in ours.values()), "minutes", "<=", 15)]


if __name__ == "__main__":
    sys.exit(main())
