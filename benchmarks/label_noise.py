"""What do wrong labels cost, and how much do review, proposals or a robust loss regain?

    python benchmarks/label_noise.py --photos DIR --sets wild,market --weights FILE --image_size 128
    figure wild_review_regains 0.25 fraction target >= 0.5 missed

In each set below DIR (one folder per class), a quarter of each class is the test set, whose labels
stay right. A tenth of the other photographs get the label of a look-alike, the class that
out-of-fold probes confuse theirs with most; from the other sets, a twentieth as many are added
under random labels. The functions of find_label_errors.py judge them all and order the review. For
each remedy, a linear probe is fitted on the photographs and labels that it leaves. Weight decay and
temperature come from a tenth of the photographs, whose labels are as wrong as the others, as those
of train.py's validation would be. Features of the initial weights are computed once.
"""
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, probe_features, state
from dataset_preparation.cleaning.find_label_errors import (
    DOUBTFUL,
    cross_validate,
    judge_labels,
    propose,
    score_outliers,
)
from dataset_preparation.cleaning.quality_scores import suspect
from evaluation import metrics
from evaluation.calibration import fit_temperature, probabilities
from training.fit_answers import folds_of
from training.linear_probe import DECAYS, fit_linear

WRONG, STRANGERS, TEST, VALIDATION = 0.1, 0.05, 0.25, 0.1
SMOOTHING = 0.1


def main(argv=None):
    flags = parse(__doc__, argv, sets="wild,market", others="flowers", model="mobilenet_v3_small",
                  image_size=224)
    s = config.namespace(model=flags.model, initial_weights=flags.weights)
    names = flags.sets.split(",")
    sets = {name: probe_features(SimpleNamespace(**{**vars(flags), "photos": flags.photos / name}),
                                 s, flags.image_size) for name in (*names, flags.others)}
    figures = []
    for name in names:
        classes, features = sets[name]
        others = np.concatenate([other.views.mean(0) for key, (_, other) in sets.items()
                                 if key != name])
        alike = look_alikes(features, len(classes))
        print(f"{name}: look-alikes", ", ".join(
            f"{one} {classes[other]}" for one, other in list(zip(classes, alike, strict=True))[:6]))
        results = defaultdict(list)
        for seed in range(flags.seeds):
            for way, numbers in measure(features, others, alike, seed).items():
                results[way].append(numbers)
            print(f"{name}: seed {seed} measured", flush=True)
        figures += report(name, results)
    return state(figures)


def look_alikes(features, num_classes):
    """Return per class (K,) the other class that gets most of its out-of-fold probability."""
    labels = features.labels
    logits, _ = cross_validate(features.views.mean(0), labels,
                               fold_numbers(labels, features.groups, 0), num_classes,
                               np.ones(len(labels), bool))
    sums = np.zeros((num_classes, num_classes))
    np.add.at(sums, labels, probabilities(logits))
    np.fill_diagonal(sums, 0)
    return sums.argmax(1)


def fold_numbers(labels, groups, seed):
    """Return the number of the fold (N,) that leaves each photograph out."""
    return np.argmax(folds_of(labels, groups, seed), axis=0)


# ---- one seed ----

def measure(features, others, alike, seed):
    """Return {way: (accuracy, NLL) on test}, and {"found": shares of the planted} of one seed."""
    rng, num_classes = np.random.default_rng(seed), len(alike)
    test = share_of_each(features.labels, TEST, rng)
    x, truth = features.views.mean(0), features.labels
    tested = x[test], truth[test]
    count = int((~test).sum())
    shown = rng.choice(len(others), round(STRANGERS * count), replace=False)
    x = np.concatenate([x[~test], others[shown]])
    truth = np.append(truth[~test], np.full(len(shown), -1))  # -1: of no class
    labels = np.where(truth < 0, rng.integers(0, num_classes, len(truth)), truth)
    wrong = rng.choice(count, round(WRONG * count), replace=False)
    labels[wrong] = alike[labels[wrong]]
    validation = share_of_each(labels, VALIDATION, rng)
    judged = judge(x, labels, num_classes, seed)
    found = {}
    for way, (names, weights, smoothing) in build_ways(labels, truth, judged).items():
        found[way] = probe(x, names, weights, smoothing, validation, tested, num_classes)
    first = judged["order"][:round(0.1 * len(labels))]
    planted = np.flatnonzero(labels != truth)
    kinds = {"wrong": wrong, "strangers": np.flatnonzero(truth < 0)}
    found["shares"] = (*(np.isin(kind, first).mean() for kind in kinds.values()),
                       (judged["proposals"][wrong] == truth[wrong]).mean(),
                       (np.delete(judged["proposals"], planted) >= 0).mean())
    return found


def share_of_each(labels, share, rng):
    """Return a mask (N,) of a share of the photographs of each class."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        chosen[rows[:round(share * len(rows))]] = True
    return chosen


def judge(x, labels, num_classes, seed):
    """Return {"scores", "proposals", "order"} as find_label_errors.py and the review have them."""
    everything = np.ones(len(labels), bool)
    predicted, _ = judge_labels(x, labels, fold_numbers(labels, np.arange(len(labels)), seed),
                                num_classes, everything)
    scores = predicted[range(len(labels)), labels]
    outliers = score_outliers(x)
    table = propose(pd.DataFrame({"label": labels, "conflict": False}), predicted)
    suspicion = [suspect({"status": "kept", "label_score": score, "outlier_score": outlier})[0]
                 for score, outlier in zip(scores, outliers, strict=True)]
    return {"scores": scores, "proposals": table["proposal"].to_numpy(),
            "order": np.argsort(-np.array(suspicion), kind="stable")}


def build_ways(labels, truth, judged):
    """Return {way: (labels (N,), -1 to leave out, weights (N,), label smoothing)}."""
    ones, scores, proposals = np.ones(len(labels)), judged["scores"], judged["proposals"]
    proposed = np.where(proposals >= 0, proposals, labels)

    def reviewed(share):
        names, shown = labels.copy(), judged["order"][:round(share * len(labels))]
        names[shown] = truth[shown]
        return names
    worst = np.argsort(scores, kind="stable")[:round((WRONG + STRANGERS) * len(labels))]
    truncated = labels.copy()
    truncated[worst] = -1
    return {"clean": (truth, ones, 0),
            "untouched": (labels, ones, 0),
            "all proposals": (proposed, ones, 0),
            "proposals of marked labels": (np.where(scores < DOUBTFUL, proposed, labels), ones, 0),
            "a tenth reviewed": (reviewed(0.1), ones, 0),
            "a fifth reviewed": (reviewed(0.2), ones, 0),
            "label smoothing": (labels, ones, SMOOTHING),
            "loss truncation": (truncated, ones, 0),
            "out-of-fold weights": (labels, scores, 0)}


def probe(x, labels, weights, smoothing, validation, tested, num_classes):
    """Return (accuracy, NLL) on test of a linear probe, as train.py fits and finishes it."""
    fitted, val = (labels >= 0) & ~validation, (labels >= 0) & validation
    mean, scale = x[fitted].mean(0), float(np.sqrt(np.square(x[fitted].std(0)).mean()))
    rows, target = torch.from_numpy((x[fitted] - mean) / scale), torch.from_numpy(labels[fitted])
    share = torch.from_numpy((weights[fitted] / weights[fitted].sum()).astype(np.float32))

    def criterion(logits, target):
        losses = cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
        return (losses * share).sum()
    weight, bias = torch.zeros(num_classes, x.shape[1]), torch.zeros(num_classes)
    best = (float("inf"),)
    for decay in DECAYS:  # the strongest first: from the best on, weaker ones only get worse
        weight, bias, _ = fit_linear(rows, target, weight, bias, criterion, decay)
        slopes = (weight / scale).numpy()
        head = slopes.T, bias.numpy() - slopes @ mean
        logits = x[val] @ head[0] + head[1]
        loss = metrics.cross_entropy(logits, labels[val])
        if loss >= best[0]:
            break
        best = loss, head, logits
    temperature = fit_temperature(best[2], labels[val])
    logits = (tested[0] @ best[1][0] + best[1][1]) / temperature
    return (np.mean(logits.argmax(1) == tested[1]),
            float(metrics.cross_entropy(logits, tested[1])))


# ---- the table ----

def report(name, results):
    """Print the ways of a set; return its figures."""
    shares = np.mean(results.pop("shares"), 0)
    print("{}: in the first tenth {:.2f} of the wrong labels, {:.2f} of the strangers; the right "
          "name proposed for {:.2f}, a name for {:.2f} of the others".format(name, *shares))
    means = {way: np.mean(runs, 0) for way, runs in results.items()}
    (best, low), (worst, high) = means["clean"], means["untouched"]
    for way, (accuracy, loss) in means.items():
        spread = np.std([run[0] for run in results[way]], ddof=1) if len(results[way]) > 1 else 0
        print(f"| {name} | {way} | {accuracy:.3f} ({spread:.3f}) | {loss:.3f} "
              f"| {(accuracy - worst) / (best - worst):.2f} | {(high - loss) / (high - low):.2f} |")
    gained = (means["a tenth reviewed"][0] - worst) / (best - worst)
    robust = max((worst_of[0] - worst) / (best - worst) for way, worst_of in means.items()
                 if way in ("label smoothing", "loss truncation", "out-of-fold weights"))
    return [(f"{name}_review_regains", gained, "fraction", ">=", 0.5),
            (f"{name}_robust_loss_beyond_review", robust - gained, "fraction", "<=", 0.1)]


if __name__ == "__main__":
    sys.exit(main())
