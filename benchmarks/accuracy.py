"""How accurate is our recipe beside the original's, torchvision's and timm's, on grouped splits?

    python benchmarks/accuracy.py --photos DIR --weights FILE    # DIR: one folder per class
    python benchmarks/accuracy.py --photos DIR --report          # print the results so far
    python benchmarks/accuracy.py ... --model mobilenet_v3_small # FILE: weights of this network
    python benchmarks/accuracy.py ... --train_batchnorm          # ours with --no-freeze_batchnorm
    figure accuracy_lead_over_torchvision 2.6 points target >= 0 met

All recipes have the same network, initial weights, photographs, epochs and batch sizes; the seed
determines split, order and augmentation. The learning rate of every recipe has the lowest
validation loss on the first `--rate_splits` splits, in a grid that is extended until the best rate
lies inside it. Validation chooses the epoch, too. The test set is predicted once per recipe and
split, at the chosen rate. All recipes train on views of --train_size and are evaluated on views of
--image_size. Run the same command again to resume: finished training runs (one folder per recipe,
rate and split) and tests are not repeated.

The peers' augmentation follows torchvision's references/classification/presets.py and timm's
`create_transform`. torchvision and timm get our optimizer (AdamW, one epoch of warm-up, cosine) and
BatchNorm momentum, which in such short runs serve them better than their defaults. The original's
augmentation is rotation, perspective, brightness, sharpness, erasing with black, and a
nearest-neighbour crop at the end; strengths that are not known are torchvision's defaults.
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
from dataset import batches, build_eval_loader, build_train_loader, read_labels
from evaluate import predict_test
from evaluation.calibration import expected_calibration_error, fit_temperature, probabilities
from evaluation.inference import collect_logits
from evaluation.metrics import classification_metrics, cross_entropy, wilson_interval
from evaluation.trained_model import restore_model
from images import open_image, to_rgb
from model import build_model, complete, load_initial_weights
from train import train
from training.checkpoints import BEST, load_checkpoint, save_checkpoint
from training.image_cache import view_of
from training.optimization import learning_rate_factor
from training.run_state import build_data
from training.runs import stream_seed
from utils import read_classes, write_text

RATES = (3e-4, 1e-3, 3e-3)  # the grid every recipe starts with; steps of about sqrt(10)


def torchvision_transform(size, mean, std):
    """Return the augmentation of torchvision's preset, TrivialAugment: PIL -> (3, size, size)."""
    trivial_augment = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
    return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(),
                       trivial_augment, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
                       v2.Normalize(mean, std), v2.RandomErasing(0.1)])


def timm_transform(size, mean, std):
    """Return timm's augmentation, with its usual RandAugment and erasing: PIL -> (3, size, size).

    Its strongest posterising keeps 0 bits, which today's Pillow refuses; here it keeps 1.
    """
    from timm.data import auto_augment, create_transform
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **_: ImageOps.posterize(
        image, min(8, max(1, bits)))
    return create_transform(size, is_training=True, auto_augment="rand-m9-mstd0.5-inc1",
                            re_prob=0.25, re_mode="pixel", interpolation="random",
                            mean=mean, std=std)


def original_transform(size, mean, std):
    """Return the original's augmentation, cropped last: PIL -> float (3, size, size)."""
    crop = v2.RandomResizedCrop(size, interpolation=v2.InterpolationMode.NEAREST)
    return v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True),
                       v2.RandomRotation(45), v2.RandomPerspective(0.6, p=1.0),
                       v2.ColorJitter(brightness=0.9), v2.RandomAdjustSharpness(2),
                       v2.RandomErasing(value=0), crop, v2.Normalize(mean, std)])


class Peer(NamedTuple):
    """A peer's recipe; `scheduled`: AdamW with warm-up and cosine, else Adam at a constant rate."""

    transform: object
    scheduled: bool
    label_smoothing: float


PEERS = {"original": Peer(original_transform, False, 0.0),
         "torchvision": Peer(torchvision_transform, True, 0.1),
         "timm": Peer(timm_transform, True, 0.1)}
RECIPES = (*PEERS, "ours")


def main(argv=None):
    flags = parse(__doc__, argv, epochs=20, batch_size=0, image_size=0, train_size=0,
                  test_per_class=12, rate_splits=1, report=False, recipes=",".join(RECIPES),
                  model="mobilenet_v3_large", train_batchnorm=False)
    work = flags.work / f"accuracy_{flags.photos.name}_{flags.model}_{flags.image_size}"
    if not flags.report:
        splits, recipes = prepare_splits(work, flags), flags.recipes.split(",")
        rates = {recipe: find_rate(recipe, work, splits, flags) for recipe in recipes}
        for split, recipe in product(splits, recipes):
            folder = train_once(recipe, rates[recipe], split, flags)
            test_once(recipe, rates[recipe], split, folder)
    return report(work, flags)


def find_rate(recipe, work, splits, flags):
    """Return the rate of the lowest validation loss, which is neither the least nor the most tried.

    The grid is extended until that holds, for every recipe.
    """
    rates = list(RATES)
    while True:
        for split, rate in product(splits[:flags.rate_splits], rates):
            train_once(recipe, rate, split, flags)
        best = choose_rate(recipe, work, flags.rate_splits)
        if best not in (rates[0], rates[-1]):
            return best
        if best == rates[0]:
            rates.insert(0, next_rate(best, below=True))
        else:
            rates.append(next_rate(best, below=False))


def next_rate(rate, below):
    """Return the neighbour of a rate among 1 and 3 times powers of ten."""
    digit = round(float(f"{rate:e}".split("e")[0]))
    factor = (1 / 3 if digit == 3 else 0.3) if below else (10 / 3 if digit == 3 else 3)
    return float(f"{rate * factor:.1g}")


# ---- one run ----

def train_once(recipe, rate, split, flags):
    """Train a recipe at a rate on a split, unless done before; return its folder with run.json."""
    folder = split["folder"] / f"{recipe}_{rate:g}"
    done = folder / "run.json"
    if done.exists():
        return folder
    s = complete(config.namespace(
        **split["settings"], model=flags.model, initial_weights=flags.weights,
        freeze_batchnorm=not flags.train_batchnorm, num_epochs=flags.epochs,
        batch_size=flags.batch_size, image_size=flags.image_size, train_size=flags.train_size,
        num_workers=0, backbone_learning_rate=rate, bfloat16=False,
        checkpoints_dir=folder, runs_dir=folder / "runs", run="run"))
    started, cpu = time.perf_counter(), time.process_time()
    data = build_data(s)
    if recipe == "ours":
        train(s)
    else:
        train_peer(PEERS[recipe], rate, data, s)
    minutes, cpu = (time.perf_counter() - started) / 60, (time.process_time() - cpu) / 60
    checkpoint = load_checkpoint(folder / "run" / BEST)
    model = restore_model(checkpoint, folder, checkpoint["class_names"])
    write_logits(done, lambda flip_tta: collect_logits(
        model, val_batches(data.val_table, s), flip_tta),
        epoch=checkpoint["epoch"], minutes=minutes, cpu_minutes=cpu)
    print(f"split {s.split_seed} {recipe} {rate:g}: validation NLL {val_loss(done):.4f}, "
          f"epoch {checkpoint['epoch']}, {minutes:.1f} min ({cpu:.1f} CPU)", flush=True)
    return folder


def train_peer(peer, rate, data, s):
    """Train by a peer's recipe; write the checkpoint of the lowest validation loss."""
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, len(data.classes))
    load_initial_weights(model, s.model, s.initial_weights)
    kind = torch.optim.AdamW if peer.scheduled else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=rate)
    criterion = nn.CrossEntropyLoss(label_smoothing=peer.label_smoothing)
    photographs = [to_rgb(open_image(path, s.max_megapixels)[0])
                   for path in data.train_table["path"]]
    labels = torch.tensor(data.train_table["label"].to_numpy())
    transform = peer.transform(s.train_size, s.mean, s.std)
    size = build_train_loader(data.train_table, s).batch_size
    steps, best = len(labels) // size, math.inf
    for epoch in range(1, s.num_epochs + 1):
        seed_all(stream_seed(s.seed, "epoch", epoch))
        order = torch.randperm(len(labels))[:steps * size].view(steps, size)
        model.train()
        for step, indices in enumerate(order, (epoch - 1) * steps):
            if peer.scheduled:
                factor = learning_rate_factor(step, steps, s.num_epochs * steps)
                optimizer.param_groups[0]["lr"] = rate * factor
            images = torch.stack([transform(photographs[i]) for i in indices.tolist()])
            images = images.contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)
            loss = criterion(model(images), labels[indices])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss = cross_entropy(*collect_logits(model, val_batches(data.val_table, s)))
        if loss < best:
            best = loss
            save_checkpoint(s.checkpoints_dir / s.run / BEST, {
                "model_state_dict": model.state_dict(), "model": s.model,
                "class_names": [one.latin for one in data.classes], "epoch": epoch,
                **view_of(s)._asdict(), "mean": s.mean, "std": s.std})


def seed_all(seed):
    """Seed every generator an augmentation may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def val_batches(frame, s):
    """Return the batches of a validation table."""
    return batches(build_eval_loader(frame, s), torch.device("cpu"), s.mean, s.std)


def test_once(recipe, rate, split, folder):
    """Predict the test photographs with a finished run, unless done before."""
    done = folder / "test.json"
    if done.exists():
        return
    s = complete(config.namespace(**split["settings"], device="cpu", num_workers=0))
    classes = read_classes(s.class_table)
    table = read_labels(s.dataset_dir / "test_labels.csv", classes)
    checkpoint = load_checkpoint(folder / "run" / BEST)
    model = restore_model(checkpoint, folder, [one.latin for one in classes])

    def predict(flip_tta):
        return predict_test(model, {**checkpoint, "flip_tta": flip_tta}, table, s)
    write_logits(done, predict, recipe=recipe, rate=rate, split=s.split_seed)


def write_logits(path, predict, **record):
    """Write a record with the logits and labels of `predict(flip_tta)`, without and with it."""
    logits = {"plain": predict(False), "mirrored": predict(True)}
    write_text(path, json.dumps({**record, "labels": logits["plain"][1].tolist(), **{
        view: values.tolist() for view, (values, _) in logits.items()}}))


# ---- reading results ----

def measured(path, view="plain", temperature=1.0):
    """Return loss, accuracy and macro-F1 of the logits in a result file."""
    record = json.loads(path.read_text("utf-8"))
    logits = np.array(record[view], dtype=np.float32) / temperature
    return classification_metrics(logits, np.array(record["labels"]))


def temperature_of(folder, view):
    """Return the temperature that fits the validation logits of a run."""
    record = json.loads((folder / "run.json").read_text("utf-8"))
    return fit_temperature(np.array(record[view]), np.array(record["labels"]))


def val_loss(path):
    """Return the validation loss that chooses a rate: with flip TTA, at the fitted temperature."""
    return measured(path, "mirrored", temperature_of(path.parent, "mirrored"))["loss"]


def choose_rate(recipe, work, rate_splits):
    """Return the learning rate with the lowest mean validation loss on the first splits."""
    losses = {}
    for split in range(rate_splits):
        for path in (work / f"split{split}").glob(f"{recipe}_*/run.json"):
            rate = float(path.parent.name.removeprefix(f"{recipe}_"))
            losses.setdefault(rate, []).append(val_loss(path))
    return min(losses, key=lambda rate: statistics.mean(losses[rate]))


def report(work, flags):
    """Print rates, every test run, and paired comparisons; return 1 if a target is missed."""
    print("validation NLL by rate, on the splits the rates are chosen on, with flip TTA and "
          "temperature")
    for path in sorted(path for split in range(flags.rate_splits)
                       for path in work.glob(f"split{split}/*/run.json")):
        print(f"  {path.parent.parent.name} {path.parent.name:20} {val_loss(path):.4f}")
    tests = {}
    for path in sorted(work.glob("split*/*/test.json")):
        record = json.loads(path.read_text("utf-8"))
        tests.setdefault(record["recipe"], {})[record["split"]] = path
    print("test, as each recipe predicts / all with flip TTA and a temperature fitted on "
          "validation")
    numbers = {}
    for recipe, paths in tests.items():
        for split, path in sorted(paths.items()):
            run = json.loads((path.parent / "run.json").read_text("utf-8"))
            alike = measured(path, "mirrored", temperature_of(path.parent, "mirrored"))
            own = alike if recipe == "ours" else measured(path)
            numbers.setdefault(recipe, {})[split] = {
                "own": own, "alike": alike, "minutes": run["minutes"]}
            count = len(json.loads(path.read_text("utf-8"))["labels"])
            low, high = wilson_interval(round(own["accuracy"] * count), count)
            print(f"  split {split} {path.parent.name:20} accuracy {own['accuracy']:.4f} "
                  f"({low:.3f}-{high:.3f}) / {alike['accuracy']:.4f}  NLL {own['loss']:.4f} / "
                  f"{alike['loss']:.4f}  epoch {run['epoch']}  {run['minutes']:.1f} min "
                  f"({run['cpu_minutes']:.1f} CPU)")
        print_calibration(recipe, paths.values())
    if "ours" not in numbers:
        print("no test of ours yet; run the same command without --report to resume")
        return 1
    return state(figures(numbers))


def print_calibration(recipe, paths):
    """Print the calibration error of all test photographs together, and what chance makes of 0.

    A network whose every probability is right still shows an error on a few hundred photographs.
    """
    confidence, correct = [], []
    for path in paths:
        record = json.loads(path.read_text("utf-8"))
        chances = probabilities(np.array(record["mirrored"]),
                                temperature_of(path.parent, "mirrored"))
        confidence.append(chances.max(1))
        correct.append(chances.argmax(1) == np.array(record["labels"]))
    confidence, correct = np.concatenate(confidence), np.concatenate(correct)
    rng = np.random.default_rng(0)
    chance = [expected_calibration_error(confidence, rng.random(len(confidence)) < confidence)
              for _ in range(200)]
    print(f"  {recipe}: ECE {expected_calibration_error(confidence, correct):.3f} on "
          f"{len(correct)} photographs, of a perfectly calibrated network {np.mean(chance):.3f}")


def figures(numbers):
    """Print mean and spread per recipe; return the figures: wins and leads over each peer."""
    ours, found = numbers["ours"], []
    for recipe, runs in numbers.items():
        accuracy = [run["own"]["accuracy"] for run in runs.values()]
        spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
        loss = statistics.mean(run["own"]["loss"] for run in runs.values())
        print(f"{recipe:12} mean test accuracy {statistics.mean(accuracy):.4f}, standard deviation "
              f"{spread:.4f}, mean NLL {loss:.4f} over {len(runs)} splits")
        paired = sorted(runs.keys() & ours.keys())
        if recipe != "ours" and paired:
            for kind, name in (("own", ""), ("alike", "_finished_alike")):
                pairs = [(ours[split][kind], runs[split][kind]) for split in paired]
                wins = sum(mine["loss"] < theirs["loss"] for mine, theirs in pairs)
                lead = statistics.mean(mine["accuracy"] - theirs["accuracy"]
                                       for mine, theirs in pairs)
                found += [
                    (f"nll_wins_over_{recipe}{name}_of_{len(paired)}", wins, "splits", ">=",
                     math.ceil(0.8 * len(paired))),
                    (f"accuracy_lead_over_{recipe}{name}", 100 * lead, "points", ">=", 0)]
    return found


if __name__ == "__main__":
    sys.exit(main())
