"""From logits to probabilities, in numpy: temperature, thresholds, calibration error."""
import numpy as np

TEMPERATURE_PRIOR = 0.35  # standard deviation of the normal prior on log(temperature)
BINS = 15


def probabilities(logits, temperature=1.0):
    """Return the softmax of logits (N, K) / temperature: (N, K) in [0, 1], rows summing to 1."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))  # the largest is exp(0): no overflow
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(logits, labels):
    """Return the temperature in [0.05, 20] that fits logits (N, K) to labels (N,) best.

    One number for all classes (Guo et al., "On Calibration of Modern Neural Networks", 2017), by
    maximum a posteriori: it minimises the summed cross-entropy plus the negative log of a normal
    prior, mean 0 and standard deviation TEMPERATURE_PRIOR, on log(temperature). Without the prior,
    a few correct predictions would drive the temperature to 0.05; docs/history.md compares. The
    derivative is monotonic in log(temperature), so its zero is found by bisection.
    """
    low, high = 0.05, 20.0
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    label_logits = logits[np.arange(len(labels)), labels].sum()
    for _ in range(60):
        temperature = (low * high) ** 0.5
        expected_logits = (probabilities(logits, temperature) * logits).sum()
        slope = (expected_logits - label_logits) / temperature
        overconfident = slope > np.log(temperature) / TEMPERATURE_PRIOR**2
        low, high = (temperature, high) if overconfident else (low, temperature)
    return float(temperature)


# ---- abstention ----

def threshold_at(scores, acceptance=0.95):
    """Return the largest score that at least the fraction `acceptance` of the scores (N,) reach."""
    return float(np.quantile(scores, 1 - acceptance, method="lower"))


# ---- how well probabilities are calibrated ----

def calibration_bins(confidence, correct):
    """Return (count, mean confidence, accuracy) of BINS of equal width in [0, 1]; NaN if empty."""
    index = np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)
    count = np.bincount(index, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return (count, np.bincount(index, weights=confidence, minlength=BINS) / count,
                np.bincount(index, weights=correct, minlength=BINS) / count)


def expected_calibration_error(confidence, correct):
    """Return |confidence - accuracy| in [0, 1], averaged over the bins weighted by their size.

    The ECE of Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning",
    2015.
    """
    count, mean_confidence, accuracy = calibration_bins(confidence, correct)
    return float(np.nansum(count * np.abs(mean_confidence - accuracy)) / count.sum())


def risk_coverage(confidence, correct):
    """Return (coverage, risk), each (N,) in [0, 1], for accepting the i most confident, i = 1..N.

    Risk is the fraction of errors among the accepted ones (Geifman and El-Yaniv, "Selective
    Classification for Deep Neural Networks", 2017).
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    accepted = np.arange(1, len(order) + 1)
    errors = np.cumsum(~np.asarray(correct, dtype=bool)[order])
    return accepted / len(order), errors / accepted
