"""The numbers of a report: accuracies with intervals, classes, confusions, how far probabilities can be believed."""
import math

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from evaluation.calibration import calibration_bins, expected_calibration_error, probabilities, risk_coverage

RESAMPLES = 2000  # of the groups, behind an interval


@torch.inference_mode()
def collect_logits(model, batches, mirrored=False):
    """Return (logits (N, K) float32, labels (N,)) of all batches, as numpy arrays; the model is left in eval mode.

    With `mirrored`, the logits are the mean over each photograph and its mirror image.
    """
    model.eval()
    logits, labels = [], []
    for images, targets in batches:
        output = (model(images) + model(images.flip(3))) / 2 if mirrored else model(images)  # (B, 3, H, W) -> (B, K)
        logits.append(output.float().cpu())
        labels.append(targets.cpu())
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def measure(logits, labels):
    """Return loss (mean cross-entropy in nats), accuracy and macro-F1 in [0, 1] of logits (N, K), labels (N,)."""
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(labels)).item()
    answers = logits.argmax(1)
    return {"loss": loss, "accuracy": float(np.mean(answers == labels)),
            "macro_f1": float(f1_score(labels, answers, labels=range(logits.shape[1]), average="macro",
                                       zero_division=0))}


def summarize(logits, labels, groups, temperature, reasons):
    """Return {name: number} of logits (N, K) for labels (N,): fractions in [0, 1], losses in nats, 95 % intervals.

    The intervals come from resampling whole groups (N,). Where every photograph is a group, and where all or none of
    the answers are right, so that resampling has nothing to tell, those of fractions are Wilson's, a group counting as
    one answer, and that of macro-F1 is left out in the second case. `temperature` may be None; `reasons` (N,) are those
    of `calibration.doubts`.
    """
    answers, sure = logits.argmax(1), reasons == ""
    correct, top5 = answers == labels, in_top(logits, labels, 5)
    weights = draw_weights(groups)
    grouped, mixed = len(np.unique(groups)) < len(labels), 0 < correct.mean() < 1

    def interval(hits, among):
        if grouped and 0 < hits[among].mean() < 1:
            drawn = weights @ among
            return percentiles((weights @ (hits & among))[drawn > 0] / drawn[drawn > 0])
        count = len(np.unique(groups[among]))
        return wilson_interval(hits[among].mean() * count, count)
    everything = np.ones_like(correct)
    return {
        **measure(logits, labels), "interval": interval(correct, everything),
        "macro_f1_interval": percentiles(resampled_macro_f1(labels, answers, logits.shape[1], weights)) if mixed
        else None,
        "top5": float(top5.mean()), "top5_interval": interval(top5, everything),
        "interval_method": "bootstrap over groups" if grouped and mixed else "Wilson", "photographs": len(labels),
        "groups": len(np.unique(groups)), **calibration(logits, labels, temperature),
        "answered": int(sure.sum()), "answered_accuracy": float(correct[sure].mean()) if sure.any() else None,
        "answered_interval": interval(correct, sure) if sure.any() else None,
        "not_sure": {reason: int((reasons == reason).sum()) for reason in ("risk", "stranger")}}


def in_top(logits, labels, count):
    """Return (N,) booleans: whether the label is among the `count` largest of logits (N, K)."""
    own = np.take_along_axis(logits, labels[:, None], 1)
    return (logits > own).sum(1) < count


# ---- intervals ----

def wilson_interval(hits, count, z=1.959964):
    """Return Wilson's 95 % score interval of hits out of count (E. B. Wilson, JASA 22, 1927)."""
    share, spread = hits / count, z * z / count
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return [max(0.0, (share + spread / 2 - half) / (1 + spread)), min(1.0, (share + spread / 2 + half) / (1 + spread))]


def draw_weights(groups, resamples=RESAMPLES):
    """Return (resamples, N) float32: how often a resampling of whole groups draws each photograph; seeded."""
    names, codes = np.unique(groups, return_inverse=True)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn.astype(np.float32)[:, codes]


def percentiles(values):
    """Return the 2.5 and 97.5 percentiles of resampled values."""
    return [float(value) for value in np.percentile(values, (2.5, 97.5))]


def resampled_macro_f1(labels, answers, num_classes, weights):
    """Return the macro-F1 (R,) of labels and answers (N,) under each row of weights (R, N).

    A class that a resampling happens to leave out does not count in it; one without any photograph counts as 0, as in
    `measure`.
    """
    true, given = (np.eye(num_classes, dtype=np.float32)[chosen] for chosen in (labels, answers))  # (N, K) each
    seen = weights @ (true + given)
    f1 = 2 * (weights @ (true * given)) / np.maximum(seen, 1)
    counts = (seen > 0) | ((true + given).sum(0) == 0)
    return (f1 * counts).sum(1) / counts.sum(1)


# ---- classes ----

def per_class(labels, answers, classes, trained):
    """Return a row per class that has test photographs: counts, precision, recall with Wilson's interval, F1.

    `trained` maps labels to their number of training photographs, as far as it is known.
    """
    precision, recall, f1, support = precision_recall_fscore_support(labels, answers, labels=range(len(classes)),
                                                                     zero_division=0)
    rows = []
    for one in classes:
        if count := int(support[one.label]):
            low, high = wilson_interval(int(np.sum(answers[labels == one.label] == one.label)), count)
            values = {"precision": precision[one.label], "recall": recall[one.label], "f1": f1[one.label],
                      "recall_low": low, "recall_high": high}
            rows.append({"label": one.label, "latin": one.latin, "train": trained.get(one.label, ""),
                         "photographs": count, **{key: round(float(value), 4) for key, value in values.items()}})
    return rows


def confusions(labels, answers, num_classes):
    """Return (matrix, pairs): counts (K, K) with true classes as rows, and the confused pairs, the commonest first.

    A pair is [label a, label b, number of a taken for b, number of b taken for a].
    """
    matrix = confusion_matrix(labels, answers, labels=range(num_classes))
    pairs = [[a, b, int(matrix[a, b]), int(matrix[b, a])] for a in range(num_classes) for b in range(a + 1, num_classes)
             if matrix[a, b] + matrix[b, a]]
    return matrix, sorted(pairs, key=lambda pair: -pair[2] - pair[3])


# ---- probabilities ----

def calibration(logits, labels, temperature, points=200):
    """Return what a report says of the probabilities of logits (N, K): as trained, and over the temperature.

    `reliability` holds per side the bins with photographs as (count, mean confidence, accuracy); `risk_coverage` at
    most `points` of the (coverage, risk) of answering the most confident photographs only.
    """
    correct = logits.argmax(1) == labels
    sides = {"before": 1.0} if temperature is None else {"before": 1.0, "after": temperature}
    found = {"temperature": temperature, "reliability": {}}
    for side, value in sides.items():
        confidence = probabilities(logits, value).max(1)
        found[f"ece_{side}"] = expected_calibration_error(confidence, correct)
        found[f"loss_{side}"] = measure(logits / np.float32(value), labels)["loss"]
        found["reliability"][side] = [[int(count), believed, true] for count, believed, true in zip(
            *(column.tolist() for column in calibration_bins(confidence, correct)), strict=True) if count]
    coverage, risk = risk_coverage(probabilities(logits, temperature or 1.0).max(1), correct)
    kept = np.unique(np.linspace(0, len(labels) - 1, points).round().astype(int))
    found["risk_coverage"] = np.column_stack([coverage, risk])[kept].round(5).tolist()
    return found
