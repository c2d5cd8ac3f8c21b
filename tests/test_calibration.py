"""From logits to verdicts: temperature, thresholds, calibration."""
import numpy as np
import pytest

from evaluation.calibration import (
    calibration_bins,
    expected_calibration_error,
    fit_temperature,
    probabilities,
    risk_coverage,
    threshold_at,
)


def drawn_logits(count, true_temperature, seed=0, classes=7):
    """Return (logits, labels) whose labels were drawn from softmax(logits / true_temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (count, classes))
    chances = probabilities(logits, true_temperature)
    return logits, (chances.cumsum(1) < rng.random((count, 1))).sum(1)


def loss(logits, labels, temperature):
    return -np.mean(np.log(probabilities(logits, temperature)[np.arange(len(labels)), labels]))


def test_probabilities_stay_finite_for_large_logits_and_follow_the_temperature():
    chances = probabilities(np.array([[1e4, 0, -1e4], [1, 2, 3]], dtype=np.float32))
    assert chances.sum(1) == pytest.approx([1, 1])
    assert chances[0, 0] == 1
    soft, sharp = (probabilities([[1.0, 2, 3]], temperature)[0].max() for temperature in (2, 0.5))
    assert soft < chances[1].max() < sharp


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_and_minimises_the_loss(true_temperature):
    logits, labels = drawn_logits(20000, true_temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true_temperature, rel=0.05)
    assert loss(logits, labels, found) <= min(loss(logits, labels, found * factor)
                                              for factor in (0.95, 1.05))


def test_temperature_stays_near_its_prior_on_few_photographs():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    right = np.eye(3) * 2
    sure = probabilities(right, fit_temperature(right, [0, 1, 2])).max()
    assert 0.6 < sure < 0.95  # three of three right is no proof of more
    many = np.tile(right, (300, 1))
    assert sure < probabilities(many, fit_temperature(many, [0, 1, 2] * 300)).max() < 1
    assert 0.05 <= fit_temperature(right, [1, 2, 0]) <= 20  # all wrong
    assert 0.05 <= fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) <= 20  # says nothing


def test_the_threshold_accepts_the_requested_share():
    scores = np.random.default_rng(0).normal(size=137)
    for acceptance in (0.5, 0.9, 0.95, 1.0):
        threshold = threshold_at(scores, acceptance)
        assert np.mean(scores >= threshold) >= acceptance
        assert np.mean(scores > threshold) < acceptance
    assert threshold_at([3.0]) == 3.0


def test_calibration_error_of_right_and_wrong_confidence():
    logits, labels = drawn_logits(20000, 3.0)

    def error(temperature):
        chances = probabilities(logits, temperature)
        return expected_calibration_error(chances.max(1), chances.argmax(1) == labels)
    assert error(3.0) < 0.015
    assert error(1.0) > 0.1
    count, confidence, accuracy = calibration_bins(np.array([0.0, 0.55, 1.0]),
                                                   np.array([0, 1, 1]))
    assert np.flatnonzero(count).tolist() == [0, 8, 14]
    assert (confidence[8], accuracy[8], accuracy[14]) == (0.55, 1, 1)
    assert np.isnan(accuracy[1])


def test_risk_grows_with_coverage_where_confidence_is_right():
    coverage, risk = risk_coverage([0.9, 0.5, 0.8, 0.4], [True, False, True, False])
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert risk == pytest.approx([0, 0, 1 / 3, 0.5])
