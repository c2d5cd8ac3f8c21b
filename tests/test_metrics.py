"""The numbers of a report, against published values, scikit-learn and counting by hand."""
import numpy as np
import pytest
from sklearn.metrics import f1_score

from evaluation import metrics
from evaluation.answers import decide, limits_at, taxa_of
from evaluation.calibration import probabilities
from utils import PlantClass

CLASSES = [PlantClass(label, f"Rosa {name}", "", "", ())
           for label, name in enumerate(("prima", "secunda", "tertia"))]


def drawn(count=300, num_classes=3, seed=0):
    """Return (logits (N, K), labels (N,)) of a network that is right about four times in five."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, count)
    logits = rng.normal(0, 1, (count, num_classes))
    logits[np.arange(count), labels] += 2
    return logits.astype(np.float32), labels


def summarize(logits, labels, groups, temperature=None, threshold=None, max_risk=0.2):
    classes = [PlantClass(label, f"Rosa {label}", "", "") for label in range(logits.shape[1])]
    outside = logits.max(1) < (-np.inf if threshold is None else threshold)
    answers = decide(probabilities(logits, temperature or 1.0), outside, taxa_of(classes),
                     limits_at(None, max_risk))
    return metrics.summarize(logits, labels, groups, temperature, answers.reasons)


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
    assert alone["interval_method"] == "Wilson"
    assert grouped["interval_method"] == "bootstrap over groups"
    correct = round(300 * alone["accuracy"])
    assert alone["interval"] == pytest.approx(metrics.wilson_interval(correct, 300))
    assert alone["interval"] == pytest.approx(pairs["interval"], abs=0.01)  # nearly the same data
    for key in ("interval", "macro_f1_interval"):
        one, other = (numbers[key][1] - numbers[key][0] for numbers in (alone, grouped))
        assert 1.7 * one < other < 2.9 * one  # the root of five
    for key, ends in (("accuracy", "interval"), ("macro_f1", "macro_f1_interval")):
        assert grouped[ends][0] < grouped[key] < grouped[ends][1]


def test_the_interval_without_mistakes_is_wilsons():
    """Resamples of correct predictions are all correct; Wilson's interval is wider than that."""
    logits = 9 * np.eye(3, dtype=np.float32)[np.arange(36) % 3]
    numbers = summarize(logits, np.arange(36) % 3, np.arange(36) // 3)
    assert numbers["interval"] == numbers["accepted_interval"] == metrics.wilson_interval(12, 12)
    assert numbers["macro_f1_interval"] is None


def test_resampled_macro_f1_is_that_of_the_resampled_photographs():
    logits, labels = drawn(40)
    predicted = logits.argmax(1)
    weights = metrics.bootstrap_weights(np.arange(40) // 2, 20)
    assert weights.shape == (20, 40)
    assert (weights[:, ::2] == weights[:, 1::2]).all()
    assert (weights.sum(1) == 40).all()
    drawn_again = [[np.repeat(values, row.astype(int)) for values in (labels, predicted)]
                   for row in weights]
    expected = [f1_score(true, guess, labels=np.unique(true), average="macro")
                for true, guess in drawn_again]
    for num_classes in (3, 4):  # the fourth class has no photographs and does not count
        resampled = metrics.resampled_macro_f1(labels, predicted, num_classes, weights)
        assert resampled == pytest.approx(np.array(expected))


def test_top_five_counts_the_five_largest_logits():
    logits = np.arange(8.0)[None].repeat(2, 0)
    assert metrics.in_top5(logits, np.array([3, 2])).tolist() == [True, False]


def test_accepted_and_abstained_photographs_add_up():
    logits, labels = drawn()
    numbers = summarize(logits, labels, np.arange(300), 0.5, 1.0, 0.3)
    assert numbers["accepted"] + sum(numbers["abstained"].values()) == 300
    assert all(numbers["abstained"].values())
    assert numbers["accepted_accuracy"] > numbers["accuracy"]
    silent = summarize(logits, labels, np.arange(300), None, 1e9, 0.3)
    assert silent["accepted"] == 0
    assert silent["accepted_accuracy"] is silent["accepted_interval"] is None


@pytest.mark.parametrize("count", [1, 2])
def test_the_interval_of_equal_groups_is_wilsons(count):
    """Every group has 3 of 4 photographs correct, so all resamples are equal."""
    labels = np.zeros(4 * count, int)
    logits = np.tile(np.float32([[9, 0], [9, 0], [9, 0], [0, 9]]), (count, 1))
    numbers = summarize(logits, labels, np.arange(len(labels)) // 4)
    assert numbers["interval"] == metrics.wilson_interval(0.75 * count, count)
    assert numbers["interval_method"] == "Wilson"
    assert numbers["macro_f1_interval"] is None


def test_a_resample_without_accepted_photographs_does_not_count(monkeypatch):
    """Two groups of 20 are accepted, 5 and 4 of 5 photographs correct: 4 of 5 in every resample."""
    labels = np.zeros(100, dtype=int)
    logits = np.tile(np.float32([9, 0]), (100, 1))
    logits[0] = (0, 9)
    reasons = np.where(np.arange(100) < 10, "", "risk")
    numbers = metrics.summarize(logits, labels, np.arange(100) // 5, None, reasons)
    assert numbers["accepted_accuracy"] == 0.9
    few = metrics.wilson_interval(1.8, 2)
    assert numbers["accepted_interval"] == pytest.approx(few)  # wider than a bootstrap of two
    monkeypatch.setattr(metrics, "FEW_GROUPS", 2)
    numbers = metrics.summarize(logits, labels, np.arange(100) // 5, None, reasons)
    assert numbers["accepted_interval"] == pytest.approx([0.8, 1.0])


def test_classes_and_confusions_are_counted():
    labels, predicted = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0, 2])
    rows = metrics.per_class(labels, predicted, CLASSES, {0: 7}, np.array([0, 0, 0, 3, 4, 5]))
    assert [(row["latin"], row["train"], row["photographs"]) for row in rows] == [
        ("Rosa prima", 7, 3), ("Rosa secunda", "", 3)]  # the third has no photographs
    assert (rows[0]["precision"], rows[0]["recall"], rows[0]["f1"]) == (0.5, 0.3333, 0.4)
    for row, groups in zip(rows, (1, 3), strict=True):  # photographs of one plant are one trial
        low, high = metrics.wilson_interval(groups / 3, groups)
        assert (row["recall_low"], row["recall_high"]) == pytest.approx((low, high), abs=1e-4)
    matrix, pairs = metrics.confusions(labels, predicted, 3)
    assert matrix.tolist() == [[1, 2, 0], [1, 1, 1], [0, 0, 0]]
    assert pairs == [[0, 1, 2, 1], [1, 2, 1, 0]]


def test_temperature_scaling_lowers_the_calibration_error():
    logits, labels = drawn(4000)
    found = metrics.calibration_report(3 * logits, labels, 1.5)  # 3: overconfident by as much
    assert found["ece_before"] > 2 * found["ece_after"]
    assert found["loss_before"] > found["loss_after"]
    assert sum(count for count, _, _ in found["reliability"]["after"]) == 4000
    assert len(found["risk_coverage"]) == 200
    error = np.mean(logits.argmax(1) != labels)
    assert found["risk_coverage"][-1] == [1.0, pytest.approx(error, abs=1e-4)]
    alone = metrics.calibration_report(logits, labels, None)
    assert "ece_after" not in alone
    assert list(alone["reliability"]) == ["before"]


def test_loss_accuracy_and_macro_f1_equal_those_counted_by_hand():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]],
                             dtype=np.float32))
    measured = metrics.classification_metrics(logits, np.array([0, 1, 1, 2]))
    assert measured["accuracy"] == 0.75
    assert measured["loss"] == pytest.approx(-np.log([0.7, 0.5, 0.3, 0.8]).mean(), abs=1e-6)
    assert measured["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    without_last = metrics.classification_metrics(logits[:3], np.array([0, 1, 1]))
    assert without_last["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)
