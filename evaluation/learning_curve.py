"""Learning curve: accuracy of linear probes on an eighth to all of the training photographs.

The features are those of the initial weights, which were not trained on the photographs; their
cache is shared with find_label_errors.py. Every photograph is predicted by probes that were fitted
without its group. The network itself is better than these probes; the slope of the curve matters.
"""
from types import SimpleNamespace

import numpy as np

from dataset import read_labels
from evaluation.metrics import bootstrap_weights, percentiles
from training.fit_answers import folds_of, initial_features, probe_of
from training.runs import numpy_seed
from utils import InputError, progress, warn

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the photographs of every class
RESAMPLES = 500
FROM_TRAINING = ("model", "initial_weights", "image_size", "mean", "std", "seed", "balance")


def build_learning_curve(s, settings, classes):
    """Return the report's `learning_curve` of the training table, or None if switched off.

    If there is no curve, returns {"why": a word for the page to translate, "reason": a sentence}.
    `settings` are those that the network was trained with.
    """
    if not s.learning_curve:
        return None
    if not set(FROM_TRAINING) <= settings.keys():
        return {"why": "unnamed", "reason": "the checkpoint does not name its initial weights"}
    if settings["initial_weights"] == "none":
        return {"why": "random",
                "reason": "features of a network that started random would say nothing"}
    s = SimpleNamespace(**{**vars(s), **{key: settings[key] for key in FROM_TRAINING}})
    try:
        table = read_labels(s.dataset_dir / "train_labels.csv", classes)
        features = initial_features(table, s)
        hits, counts = probe_shares(features, len(classes), s.learning_curve, s.seed,
                                    s.balance != "none")
    except InputError as error:
        warn(f"no learning curve: {error}")
        return {"why": "failed", "reason": str(error)}
    return describe_curve(hits, counts, features)


def probe_shares(features, num_classes, draws, seed, even):
    """Return (hits (draws, S, N), mean number of photographs (S, K) that a probe was fitted to).

    A hit is a photograph that a probe names correctly. The shares of a draw are nested. With
    `even`, classes are expected equally often, else as often as in the table.
    """
    labels = features.labels
    hits = np.zeros((draws, len(SHARES), len(labels)), bool)
    folds = [(draw, out) for draw in range(draws)
             for out in folds_of(labels, features.groups, seed + draw)]
    counts = np.zeros((len(SHARES), num_classes))
    for draw, out in progress(folds, len(folds), "learning curve", "fold"):
        rest = features.take(~out)
        rng = np.random.default_rng([numpy_seed(seed), draw])
        positions = draw_positions(rest.labels, rest.groups, rng)
        for row, share in enumerate(SHARES):
            part = rest.take(positions < share)
            count = np.bincount(part.labels, minlength=num_classes)
            counts[row] += count / len(folds)
            logits = probe_of(part, num_classes)(features.views[:, out])[0]
            logits -= np.log(np.maximum(count, 1)) if even else 0
            hits[draw, row, out] = logits.argmax(1) == labels[out]
    return hits, counts


def draw_positions(labels, groups, rng):
    """Return for every photograph (N,) the share of its class before its group, in [0, 1).

    The order of the groups is random. Photographs below a share are whole groups, at least one.
    """
    names, codes = np.unique(groups, return_inverse=True)
    order, positions = rng.permutation(len(names))[codes], np.empty(len(labels))
    for label in np.unique(labels):
        in_class = order[labels == label]
        positions[labels == label] = (np.searchsorted(np.sort(in_class), in_class)
                                      / len(in_class))
    return positions


# ---- the entry of the report ----

def describe_curve(hits, counts, features):
    """Return the entry of the report: accuracy and expected gain, in total and per class.

    95 % confidence intervals resample groups of photographs and draws together.
    """
    draws, labels = len(hits), features.labels
    weights = bootstrap_weights(features.groups, RESAMPLES)  # (R, N)
    drawn = np.random.default_rng(0).multinomial(draws, np.full(draws, 1 / draws), RESAMPLES)

    def resample(among):  # (S, 1 + R): the accuracy, then as in each resample
        total = weights[:, among].sum(1)
        right = sum(drawn[:, [draw]] * (weights[:, among] @ hits[draw][:, among].T)
                    for draw in range(draws)) / draws  # (R, S)
        resampled = np.divide(right.T, total, out=np.full(right.T.shape, np.nan), where=total > 0)
        return np.column_stack([hits[:, :, among].mean((0, 2)), resampled])

    def describe(accuracy, every):
        return {"accuracy": [interval(row) for row in accuracy],
                "gain": interval(next_gain(accuracy, every))}
    every = resample(np.ones(len(labels), bool))
    return {"draws": draws, "photographs": counts.sum(1).tolist(), **describe(every, every),
            "classes": [{"label": int(label), "photographs": counts[:, label].tolist(),
                         **describe(resample(labels == label), every)}
                        for label in np.unique(labels)]}


def interval(values):
    """Return [value, low, high] of a value and its resamples (1 + R), ignoring NaN."""
    return [float(values[0]), *percentiles(values[1:][~np.isnan(values[1:])])]


def next_gain(accuracy, every):
    """Return the gain (1 + R,) of another doubling, from accuracies (S, 1 + R) at SHARES.

    Errors are assumed to fall by the mean factor of the earlier doublings, as in a power law
    (Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017). A resample takes
    the factor of a single doubling, so that their differences widen the interval. As the errors of
    a class are uncertain, the factors are those of its errors plus the errors of `every` class.
    """
    errors = 1 - accuracy
    total = np.maximum(errors + 1 - every, 1e-9)
    factors, columns = total[1:] / total[:-1], np.arange(accuracy.shape[1])
    factor = factors[np.random.default_rng(0).integers(0, len(factors), len(columns)), columns]
    factor[0] = np.prod(factors[:, 0]) ** (1 / len(factors))
    return errors[-1] * (1 - factor)


def describe_gain(curve, classes):
    """Return a sentence about the next doubling and the classes that gain most."""
    if "reason" in curve:
        return f"no learning curve: {curve['reason']}"
    clear = sorted((row for row in curve["classes"] if row["gain"][1] > 0),
                   key=lambda row: -row["gain"][0])
    most = ", ".join(f"{classes[row['label']].latin} {points(row['gain'])}" for row in clear[:3])
    return ("with twice as many photographs of every class, accuracy "
            f"{points(curve['gain'])} points by linear probes; "
            + (f"clear of chance for {most}" if most else
               "for no single class can a gain be told from chance"))


def points(gain):
    """Return a gain [value, low, high] in percentage points as text."""
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in gain))
