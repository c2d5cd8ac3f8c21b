"""The numbers of a report, without torch: accuracy, 95 % confidence intervals, classes."""
import math

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from evaluation.answers import RANKS, REASONS
from evaluation.calibration import (
    calibration_bins,
    expected_calibration_error,
    probabilities,
    risk_coverage,
)

POINTS = 200  # of a curve in the report
FEW_GROUPS = 30
RESAMPLES = 2000  # per bootstrap interval, whose ends then vary by 1.5 % of its width


def classification_metrics(logits, labels):
    """Return loss (mean cross-entropy in nats), accuracy and macro-F1 of logits (N, K).

    Macro-F1 is the mean over the classes that have photographs.
    """
    predicted = logits.argmax(1)
    macro_f1 = f1_score(labels, predicted, labels=np.unique(labels), average="macro")
    return {"loss": cross_entropy(logits, labels), "accuracy": float(np.mean(predicted == labels)),
            "macro_f1": float(macro_f1)}


def cross_entropy(logits, labels):
    """Return the mean cross-entropy in nats of logits (N, K) for labels (N,); NaN stays NaN."""
    logits = np.asarray(logits, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinite logits of a diverged network: NaN, no warning
        shifted = logits - logits.max(1, keepdims=True)
        log_normalizers = np.log(np.exp(shifted).sum(1))
        return float(np.mean(log_normalizers - shifted[np.arange(len(labels)), labels]))


def summarize(logits, labels, groups, temperatures, reasons):
    """Return {name: number} for logits (N, K): fractions in [0, 1], losses in nats, intervals.

    95 % confidence intervals resample whole `groups` (N,), as photographs of one plant or page are
    not independent. If every photograph is its own group, or if all resamples are equal (all or no
    predictions are correct, or there is one group), fractions get Wilson's interval with one trial
    per group; in the second case macro-F1 gets none. `reasons` (N,) are those of `Answers`.
    """
    predicted, accepted = logits.argmax(1), reasons == ""
    correct, top5 = predicted == labels, in_top5(logits, labels)
    everything, weights = np.ones_like(correct), bootstrap_weights(groups)
    grouped = len(np.unique(groups)) < len(labels)

    def interval(hits, among):
        return fraction_interval(hits, among, groups, weights if grouped else None)
    ends = interval(correct, everything)
    wilson = ends == fraction_interval(correct, everything, groups, None)
    f1_ends = percentiles(resampled_macro_f1(labels, predicted, logits.shape[1], weights))
    return {
        **classification_metrics(logits, labels), "interval": ends,
        "macro_f1_interval": f1_ends if f1_ends[0] < f1_ends[1] else None,
        "top5": float(top5.mean()), "top5_interval": interval(top5, everything),
        "interval_method": "Wilson" if wilson else "bootstrap over groups",
        "photographs": len(labels), "groups": len(np.unique(groups)),
        **calibration_report(logits, labels, temperatures),
        "accepted": int(accepted.sum()),
        "accepted_accuracy": float(correct[accepted].mean()) if accepted.any() else None,
        "accepted_interval": interval(correct, accepted) if accepted.any() else None,
        "abstained": {reason: int((reasons == reason).sum()) for reason in REASONS}}


def in_top5(logits, labels):
    """Return (N,) booleans: whether the label is among the five largest of logits (N, K)."""
    label_logits = np.take_along_axis(logits, labels[:, None], 1)
    return (logits > label_logits).sum(1) < 5


# ---- confidence intervals ----

def fraction_interval(hits, among, groups, weights):
    """Return the 95 % confidence interval of the mean of `hits` (N,) where `among` (N,) is true.

    `weights` are those of `bootstrap_weights`; Wilson's interval without them, with fewer than
    FEW_GROUPS groups, of which a bootstrap is too narrow, or if all resamples are equal.
    """
    count = len(np.unique(groups[among]))
    if weights is not None and count >= FEW_GROUPS:
        drawn = weights @ among
        ends = percentiles((weights @ (hits & among))[drawn > 0] / drawn[drawn > 0])
        if ends[0] < ends[1]:
            return ends
    return wilson_interval(hits[among].mean() * count, count)


def wilson_interval(hits, count):
    """Return Wilson's 95 % score interval of hits out of count (E. B. Wilson, JASA 22, 1927)."""
    z = 1.959964  # of the normal distribution, 2.5 % are above
    share, spread = hits / count, z * z / count
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return [max(0.0, (share + spread / 2 - half) / (1 + spread)),
            min(1.0, (share + spread / 2 + half) / (1 + spread))]


def bootstrap_weights(groups, resamples=RESAMPLES):
    """Return (resamples, N) float32: how often each resample of whole groups draws a photograph.

    Seeded, so that a report is reproducible.
    """
    names, codes = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn.astype(np.float32)[:, codes]


def percentiles(values):
    """Return the 2.5th and 97.5th percentile of resampled values."""
    return [float(value) for value in np.percentile(values, (2.5, 97.5))]


def resampled_macro_f1(labels, predicted, num_classes, weights):
    """Return the macro-F1 (R,) of labels and predictions (N,) under each row of weights (R, N).

    Classes without photographs in a resample are ignored, as in `classification_metrics`.
    """
    true, positive = (np.eye(num_classes, dtype=np.float32)[chosen]  # (N, K) each
                      for chosen in (labels, predicted))
    occurrences = weights @ (true + positive)
    f1 = 2 * (weights @ (true * positive)) / np.maximum(occurrences, 1)
    counted = weights @ true > 0
    return (f1 * counted).sum(1) / counted.sum(1)


# ---- classes ----

def per_class(labels, predicted, classes, train_counts, groups, sets=None):
    """Return a row per class with test photographs: counts, precision, recall with interval, F1.

    The interval is Wilson's with one trial per group: few groups would make a bootstrap too narrow.
    `train_counts` maps labels to numbers of training photographs, if known; `sets` (N, K) add the
    share of sets that contain the class, and their mean size.
    """
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0)
    rows = []
    for plant in classes:
        label, count = plant.label, int(support[plant.label])
        if count:
            low, high = fraction_interval(predicted == label, labels == label, groups, None)
            numbers = {"precision": precision[label], "recall": recall[label], "f1": f1[label],
                       "recall_low": low, "recall_high": high}
            if sets is not None:
                of_class = sets[labels == label]
                numbers |= {"set_coverage": of_class[:, label].mean(),
                            "set_size": of_class.sum(1).mean()}
            rows.append({"label": label, "latin": plant.latin,
                         "train": train_counts.get(label, ""), "photographs": count,
                         **{key: round(float(value), 4) for key, value in numbers.items()}})
    return rows


def confusions(labels, predicted, num_classes):
    """Return (counts (K, K) with true classes as rows, confused pairs, the most frequent first).

    A pair is [label a, label b, number of a predicted as b, number of b predicted as a].
    """
    matrix = confusion_matrix(labels, predicted, labels=range(num_classes))
    pairs = [[a, b, int(matrix[a, b]), int(matrix[b, a])] for a in range(num_classes)
             for b in range(a + 1, num_classes) if matrix[a, b] + matrix[b, a]]
    return matrix, sorted(pairs, key=lambda pair: -pair[2] - pair[3])


# ---- answers ----

def measure_answers(answers, chances, labels, taxa):
    """Return {"ranks": {rank: numbers}}: answered, wrong, and accuracy without abstention.

    `accuracy` is None if no two classes share a taxon of that rank.
    """
    ranks = {}
    for rank in RANKS:
        taken = answers.ranks == rank
        unique, codes = np.unique(taxa[rank], return_inverse=True)
        most_likely = (chances @ np.eye(len(unique))[codes]).argmax(1)
        shared = rank == "species" or (len(unique) < len(codes) and "" not in unique)
        ranks[rank] = {"answered": int(taken.sum()),
                       "wrong": int(np.sum(answers.names[taken] != taxa[rank][labels][taken])),
                       "accuracy": float(np.mean(most_likely == codes[labels])) if shared
                       else None}
    return {"ranks": ranks}


def measure_sets(sets, labels):
    """Return the coverage in [0, 1] and mean size of prediction sets (N, K)."""
    return {"coverage": float(sets[np.arange(len(labels)), labels].mean()),
            "mean_size": float(sets.sum(1).mean())}


# ---- calibration ----

def calibration_report(logits, labels, temperatures):
    """Return the calibration of the probabilities of logits (N, K) before and after scaling.

    `temperatures` are (N, 1), or None if there are none; `temperature` is their median, and
    `temperature_varies` says whether they differ.
    `reliability` has for both the non-empty bins as (count, mean confidence, accuracy);
    `risk_coverage` has at most POINTS points of the curve.
    """
    correct = logits.argmax(1) == labels
    sides = {"before": np.float32(1)}
    if temperatures is not None:
        sides["after"] = np.float32(temperatures)
    report = {"temperature": None if temperatures is None else float(np.median(temperatures)),
              "temperature_varies": temperatures is not None and bool(np.ptp(temperatures)),
              "reliability": {}}
    for side, value in sides.items():
        confidence = probabilities(logits, value).max(1)
        report[f"ece_{side}"] = expected_calibration_error(confidence, correct)
        report[f"loss_{side}"] = cross_entropy(logits / value, labels)
        columns = (column.tolist() for column in calibration_bins(confidence, correct))
        report["reliability"][side] = [[int(count), confidence, accuracy]
                                       for count, confidence, accuracy in zip(*columns, strict=True)
                                       if count]
    coverage, risk = risk_coverage(confidence, correct)
    indices = np.unique(np.linspace(0, len(labels) - 1, POINTS).round().astype(int))
    report["risk_coverage"] = np.column_stack([coverage, risk])[indices].round(5).tolist()
    return report
