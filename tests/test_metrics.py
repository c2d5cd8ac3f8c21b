"""The numbers of a report, against published values, scikit-learn and counting by hand."""
import numpy as np
import pytest
from sklearn.metrics import f1_score

from evaluation import metrics
from evaluation.calibration import doubts
from utils import PlantClass

CLASSES = [PlantClass(label, f"Rosa {name}", "", "", ()) for label, name in enumerate(("prima", "secunda", "tertia"))]


def drawn(count=300, num_classes=3, seed=0):
    """Return (logits (N, K), labels (N,)) of a network that is right about four times in five."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    logits = rng.normal(0, 1, (count, num_classes))
    logits[np.arange(count), labels] += 2
    return logits.astype(np.float32), labels


def summarize(logits, labels, groups, temperature=None, threshold=None, max_risk=0.2):
    return metrics.summarize(logits, labels, groups, temperature,
                             doubts(logits, logits.max(1), temperature or 1.0, threshold, max_risk))


def test_wilson_interval_matches_published_values():
    assert np.round(metrics.wilson_interval(1485, 1500), 3).tolist() == [0.984, 0.994]
    assert np.round(metrics.wilson_interval(30, 30), 3).tolist() == [0.886, 1.0]
    for count in range(1, 3000):  # no rounding leads out of [0, 1]
        assert f"{metrics.wilson_interval(0, count)[0]:.1f}" == "0.0"
        assert metrics.wilson_interval(count, count)[1] <= 1


def test_intervals_widen_with_groups():
    logits, labels = (np.repeat(values, 5, axis=0) for values in drawn(60))
    places = np.arange(300)
    alone = summarize(logits, labels, places)
    pairs = summarize(logits, labels, np.where(places < 2, 0, places))
    grouped = summarize(logits, labels, places // 5)
    assert grouped == summarize(logits, labels, places // 5)
    assert (alone["interval_method"], grouped["interval_method"]) == ("Wilson", "bootstrap over groups")
    assert alone["interval"] == pytest.approx(metrics.wilson_interval(round(300 * alone["accuracy"]), 300))
    assert alone["interval"] == pytest.approx(pairs["interval"], abs=0.01)  # two ways to much the same
    for key in ("interval", "macro_f1_interval"):
        one, other = (numbers[key][1] - numbers[key][0] for numbers in (alone, grouped))
        assert 1.7 * one < other < 2.9 * one  # the root of five
    for key, ends in (("accuracy", "interval"), ("macro_f1", "macro_f1_interval")):
        assert grouped[ends][0] < grouped[key] < grouped[ends][1]


def test_no_mistake_is_not_certainty():
    """Resampling right answers gives right answers only; Wilson's interval of 12 right groups does not."""
    logits = 9 * np.eye(3, dtype=np.float32)[np.arange(36) % 3]
    numbers = summarize(logits, np.arange(36) % 3, np.arange(36) // 3)
    assert numbers["interval"] == numbers["answered_interval"] == metrics.wilson_interval(12, 12)
    assert numbers["macro_f1_interval"] is None


def test_resampled_macro_f1_is_that_of_the_resampled_photographs():
    logits, labels = drawn(40)
    answers = logits.argmax(1)
    weights = metrics.draw_weights(np.arange(40) // 2, 20)
    assert weights.shape == (20, 40)
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    assert (weights.sum(1) == 40).all()
    expected = [f1_score(np.repeat(labels, row.astype(int)), np.repeat(answers, row.astype(int)), average="macro")
                for row in weights]
    assert metrics.resampled_macro_f1(labels, answers, 3, weights) == pytest.approx(expected)
    assert metrics.resampled_macro_f1(labels, answers, 4, weights) == pytest.approx(np.array(expected) * 3 / 4)


def test_top_five():
    logits = np.arange(8.0)[None].repeat(2, 0)
    assert metrics.in_top(logits, np.array([3, 2]), 5).tolist() == [True, False]


def test_answered_and_not_sure_add_up():
    logits, labels = drawn()
    numbers = summarize(logits, labels, np.arange(300), 0.5, 1.0, 0.3)
    assert numbers["answered"] + sum(numbers["not_sure"].values()) == 300
    assert all(numbers["not_sure"].values())
    assert numbers["answered_accuracy"] > numbers["accuracy"]
    silent = summarize(logits, labels, np.arange(300), None, 1e9, 0.3)
    assert (silent["answered"], silent["answered_accuracy"], silent["answered_interval"]) == (0, None, None)


def test_a_resampling_without_any_answer_says_nothing_of_the_answers():
    """Two groups of twenty are answered, 5 of 5 and 4 of 5 rightly: no resampling of them has less than 4 of 5."""
    labels = np.zeros(100, dtype=int)
    logits = np.tile(np.float32([9, 0]), (100, 1))
    logits[0] = (0, 9)
    reasons = np.where(np.arange(100) < 10, "", "risk")
    numbers = metrics.summarize(logits, labels, np.arange(100) // 5, None, reasons)
    assert numbers["answered_accuracy"] == 0.9
    assert numbers["answered_interval"] == pytest.approx([0.8, 1.0])


def test_classes_and_confusions_are_counted():
    labels, answers = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0, 2])
    rows = metrics.per_class(labels, answers, CLASSES, {0: 7})
    assert [(row["latin"], row["train"], row["photographs"]) for row in rows] == [
        ("Rosa prima", 7, 3), ("Rosa secunda", "", 3)]  # the third has no photographs
    assert (rows[0]["precision"], rows[0]["recall"], rows[0]["f1"]) == (0.5, 0.3333, 0.4)
    matrix, pairs = metrics.confusions(labels, answers, 3)
    assert matrix.tolist() == [[1, 2, 0], [1, 1, 1], [0, 0, 0]]
    assert pairs == [[0, 1, 2, 1], [1, 2, 1, 0]]


def test_calibration_before_and_after():
    logits, labels = drawn(4000)
    found = metrics.calibration(3 * logits, labels, 1.5)  # three times as sure as it was drawn to be
    assert found["ece_before"] > 2 * found["ece_after"]
    assert found["loss_before"] > found["loss_after"]
    assert sum(count for count, _, _ in found["reliability"]["after"]) == 4000
    assert len(found["risk_coverage"]) == 200
    assert found["risk_coverage"][-1] == [1.0, pytest.approx(np.mean(logits.argmax(1) != labels), abs=1e-4)]
    alone = metrics.calibration(logits, labels, None)
    assert "ece_after" not in alone
    assert list(alone["reliability"]) == ["before"]
