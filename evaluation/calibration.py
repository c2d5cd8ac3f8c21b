"""From logits to answers, with numpy alone: calibrated probabilities, how sure, and whether it is a known class."""
import numpy as np


def probabilities(logits, temperature=1.0):
    """Return the softmax of logits (N, K) over a temperature > 0: (N, K) in [0, 1], rows summing to 1."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(logits, labels, low=0.05, high=20.0, spread=0.35):
    """Return the temperature in [low, high] that fits logits (N, K) to labels (N,) best, near 1 where these are few.

    One number for all classes (Guo et al., "On Calibration of Modern Neural Networks", 2017): it minimises the
    cross-entropy, summed over the photographs, plus that of its logarithm being normal around 0 with deviation
    `spread`. Without that, a few photographs, all answered rightly, would make it certain of everything;
    benchmarks/RESULTS.md compares. The slope is bisected.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    right = logits[np.arange(len(labels)), labels].sum()
    for _ in range(60):
        middle = (low * high) ** 0.5
        expected = (probabilities(logits, middle) * logits).sum()
        too_sure = (expected - right) / middle > np.log(middle) / spread**2
        low, high = (middle, high) if too_sure else (low, middle)
    return float(middle)


def doubts(logits, scores, temperature, threshold, max_risk):
    """Return per photograph of logits (N, K) why it gets "not sure", "" where it is answered: (N,) texts.

    "stranger": its score (N,), see `ScoredHead`, is below the threshold (None: never). "risk": the probability
    that the first name is wrong is above `max_risk`.
    """
    risky = 1 - probabilities(logits, temperature).max(1) > max_risk
    strange = np.asarray(scores) < (-np.inf if threshold is None else threshold)
    return np.where(strange, "stranger", np.where(risky, "risk", ""))


# ---- how far probabilities can be believed ----

def calibration_bins(confidence, correct, bins=15):
    """Return (count, mean confidence, accuracy) per bin of equal width in [0, 1], each (bins,); NaN where empty."""
    place = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        return (count, np.bincount(place, weights=confidence, minlength=bins) / count,
                np.bincount(place, weights=correct, minlength=bins) / count)


def expected_calibration_error(confidence, correct, bins=15):
    """Return the mean distance in [0, 1] of confidence and accuracy over the bins, weighted by their photographs."""
    count, believed, true = calibration_bins(confidence, correct, bins)
    return float(np.nansum(count * np.abs(believed - true)) / count.sum())


def risk_coverage(confidence, correct):
    """Return (coverage, risk), each (N,) in [0, 1]: the error among the most confident i photographs, i = 1 to N."""
    order = np.argsort(-np.asarray(confidence), kind="stable")
    answered = np.arange(1, len(order) + 1)
    return answered / len(order), np.cumsum(~np.asarray(correct, dtype=bool)[order]) / answered
