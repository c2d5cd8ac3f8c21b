"""What is BALANCE worth? Linear probes on thinned tables, for two class mixes in use.

    python benchmarks/imbalance.py --photos DIR --weights FILE --model mobilenet_v3_large --seeds 5
    figure accuracy_gained_at_ratio_15 0.1042 fraction target >= 0 met

The photographs in DIR (one folder per class) are cleaned and labelled once per seed. The training
table is thinned so that the sizes of its classes fall geometrically, in an order drawn by the seed;
the ratio is that of the largest class to the smallest (1: the table as it is). Features are
computed once. The probe is train.py's; its weight decay and temperature are chosen on the
validation photographs as they are ("plain") or with rare classes repeated to equal numbers
("even"). The test set has equally many photographs of every class; "as in train" weights it to the
mix of the thinned table. Every printed row is a mean over the seeds.
"""
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, prepare_splits, state
from dataset import read_labels, split_validation
from evaluation.calibration import fit_temperature
from evaluation.inference import collect_logits
from training.features import build_features
from training.linear_probe import fit_linear_probe
from training.optimization import build_criterion
from utils import file_sha256, read_classes

RATIOS = (1, 5, 15)  # photographs of the largest class per photograph of the smallest
WAYS = ("none", "weights", "logit_adjustment")
VALIDATIONS = ("plain", "even")
MIXES = ("equal", "as in train")


def main(argv=None):
    flags = parse(__doc__, argv, model="mobilenet_v3_large", image_size=224, test_per_class=12)
    work = flags.work / f"imbalance_{flags.photos.name}"
    results = {}  # (ratio, way, validation, mix): [(accuracy, NLL) per seed]
    for split in prepare_splits(work, flags):
        for key, numbers in measure(split["settings"], flags, work).items():
            results.setdefault(key, []).append(numbers)
    for key, runs in results.items():
        accuracy, loss = (statistics.mean(values) for values in zip(*runs, strict=True))
        print("ratio {:>2}  {:16}  validation {:5}  test {:11}".format(*key),
              f"accuracy {accuracy:.3f}  NLL {loss:.3f}")
    return state(judge(results))


def judge(results):
    """Return the figures of logit adjustment against none, where classes are expected equally."""
    figures = []
    for ratio in RATIOS:
        runs = [results[ratio, way, "plain", "equal"] for way in ("none", "logit_adjustment")]
        gains = [after[0] - before[0] for before, after in zip(*runs, strict=True)]
        figures.append((f"accuracy_gained_at_ratio_{ratio}", statistics.mean(gains), "fraction",
                        ">=", 0.0 if ratio > 1 else -0.005))
        print(f"ratio {ratio}: accuracy gained per seed "
              f"{', '.join(f'{gain:+.3f}' for gain in gains)}")
    return figures


def measure(settings, flags, work):
    """Return {(ratio, way, validation, mix): (accuracy, NLL)} of one split."""
    s = config.namespace(**settings, model=flags.model, initial_weights=flags.weights,
                         image_size=flags.image_size, cache_dir=work / "cache", num_workers=0)
    classes = read_classes(s.class_table)
    tables = [read_labels(s.dataset_dir / f"{part}_labels.csv", classes)
              for part in ("train", "test")]
    for table in tables:
        contents = [file_sha256(path) for path in table["path"]]
        table["features"] = list(build_features(table, contents, s))
    found = {}
    for ratio in RATIOS:
        thinned = thin(tables[0], len(classes), ratio, s.seed)
        print(f"split {s.seed}, ratio {ratio}: {np.bincount(thinned['label']).tolist()}")
        train, validation = split_validation(thinned, classes, s.validation_share, s.split_seed)
        for way in WAYS:
            for kind, val in zip(VALIDATIONS, (validation, even(validation)), strict=True):
                numbers = judge_probe(train, val, tables[1], way, len(classes))
                found |= {(ratio, way, kind, mix): values for mix, values in numbers.items()}
    return found


def thin(table, num_classes, ratio, seed):
    """Return the table with classes of sizes that fall geometrically by `ratio` in all."""
    if ratio == 1:
        return table
    rng = np.random.default_rng(seed)
    counts = np.bincount(table["label"])
    sizes = counts.min() * ratio ** (-rng.permutation(num_classes) / (num_classes - 1))
    kept = [rng.choice(np.flatnonzero(table["label"] == label), max(2, round(size)), replace=False)
            for label, size in enumerate(sizes)]
    return table.iloc[np.sort(np.concatenate(kept))].reset_index(drop=True)


def even(table):
    """Return the table with every class repeated up to the size of the largest."""
    largest = table["label"].value_counts().max()
    rows = [np.resize(np.flatnonzero(table["label"] == label), largest)
            for label in table["label"].unique()]
    return table.iloc[np.concatenate(rows)].reset_index(drop=True)


def judge_probe(train, validation, test, way, num_classes):
    """Return {mix: (accuracy, NLL)} on test of the probe of a training table."""
    batch = {name: [(torch.tensor(np.stack(table["features"])), torch.tensor(table["label"]))]
             for name, table in (("train", train), ("validation", validation), ("test", test))}
    width = batch["train"][0][0].shape[1]
    model = nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))
    criterion = build_criterion(way, train["label"], num_classes)
    fit_linear_probe(model, batch["train"], batch["validation"], criterion, False)
    temperature = fit_temperature(*collect_logits(model, batch["validation"]))
    logits, labels = collect_logits(model, batch["test"])
    scaled = torch.from_numpy(logits / temperature).double()
    losses = nn.functional.cross_entropy(scaled, torch.from_numpy(labels), reduction="none").numpy()
    correct = logits.argmax(1) == labels
    mixes = np.ones(num_classes), np.bincount(train["label"], minlength=num_classes)
    numbers = {}
    for name, mix in zip(MIXES, mixes, strict=True):
        weights = (mix / np.bincount(labels, minlength=num_classes))[labels]
        numbers[name] = (float(np.average(correct, weights=weights)),
                         float(np.average(losses, weights=weights)))
    return numbers


if __name__ == "__main__":
    sys.exit(main())
