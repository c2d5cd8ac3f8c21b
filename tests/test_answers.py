"""Answers: the promised risk holds; ranks and sets are right; NaN is never an answer."""
import tracemalloc

import numpy as np
import pytest

from evaluation import answers
from evaluation.answers import (
    RANKS,
    RISKS,
    answer_outputs,
    best_taxon,
    decide,
    fit_answers,
    fit_set_limit,
    fit_temperatures,
    limits_at,
    mass_above,
    prediction_sets,
    require_finite_outputs,
    risk_limit,
    taxa_of,
    temperatures_of,
)
from evaluation.calibration import expected_calibration_error, probabilities
from evaluation.facts import are_limits
from evaluation.together import ASSUMED, combine_photographs, fit_together, gains, probabilities_of
from utils import InputError, PlantClass

CLASSES = [PlantClass(label, latin, "", "", genus=latin.split()[0], family=family)
           for label, (latin, family) in enumerate([
               ("Rosa prima", "Rosaceae"), ("Rosa secunda", "Rosaceae"),
               ("Rubus tertius", "Rosaceae"), ("Iris quarta", "")])]
TAXA = taxa_of(CLASSES)


def drawn(count, classes=6, seed=0, scale=2.0):
    """Return (logits, labels) whose labels are drawn from softmax(logits)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (count, classes))
    return logits, (probabilities(logits).cumsum(1) < rng.random((count, 1))).sum(1)


def with_score(logits, scores=0.0):
    """Return outputs (N, K + 1) of logits (N, K) and scores."""
    return np.column_stack([logits, np.broadcast_to(scores, len(logits))])


def risk_and_coverage(limit, logits, labels):
    chances = probabilities(logits)
    taken = chances.max(1) >= limit
    return np.mean(chances.argmax(1)[taken] != labels[taken]) if taken.any() else 0, taken.mean()


# ---- risk ----

def test_the_risk_is_the_share_of_wrong_answers_among_those_given():
    """500 answers at 0.95 and 500 at 0.70 have a risk of 0.175: all pass at 0.25, half at 0.1."""
    confidence = np.repeat([0.95, 0.70], 500)
    correct = np.r_[np.arange(500) % 20 > 0, np.arange(500) % 10 > 2]
    assert risk_limit(confidence, correct, 0.25) == pytest.approx(0.70)
    assert risk_limit(confidence, correct, 0.10) == pytest.approx(0.95)


@pytest.mark.parametrize("risk", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("count", [100, 1000])
def test_the_risk_holds_on_other_photographs_in_nine_of_ten_draws(risk, count):
    """On a very large test, the realised risk stays below the requested one."""
    test = drawn(20000, seed=999)
    found = []
    for seed in range(40):
        logits, labels = drawn(count, seed=seed)
        chances = probabilities(logits)
        limit = risk_limit(chances.max(1), chances.argmax(1) == labels, risk)
        found.append(risk_and_coverage(limit, *test))
    risks, coverage = np.array(found).T
    assert np.mean(risks <= risk) >= 0.9
    per_photograph = risk_and_coverage(1 - risk, *test)[1]
    if count == 1000 and risk > 0.1:  # more is answered than by a limit per photograph
        assert coverage.mean() > 1.2 * per_photograph
    assert coverage.mean() > 0.9 * per_photograph


def test_overconfident_predictions_are_held_back():
    """Limits follow counted errors, not only the stated probabilities."""
    confidence, correct = np.full(400, 0.99), np.arange(400) % 2 == 0
    assert risk_limit(confidence, correct, 0.2) == pytest.approx(0.8)  # none passes: per photograph
    mixed = np.r_[np.linspace(0.999, 0.995, 200), confidence]
    limit = risk_limit(mixed, np.r_[np.ones(200, bool), correct], 0.2)
    assert 0.99 < limit < 0.995 + 1e-9 or limit == pytest.approx(0.99)


def test_a_lucky_draw_does_not_lower_the_limit():
    """All 400 are right, but by their own probability 120 of their like are wrong."""
    assert risk_limit(np.full(400, 0.7), np.ones(400, bool), 0.2) == pytest.approx(0.8)


@pytest.mark.parametrize("risk, limit", [(0.1, 0.5), (0.4, 0.5), (0.6, 0.4)])
def test_on_an_easy_flora_a_name_is_likely_all_the_same(risk, limit):
    """Beside 1,000 sure photographs, 20 doubtful ones hardly raise the share of wrong names."""
    confidence = np.repeat([0.99, 0.3], [1000, 20])
    assert risk_limit(confidence, np.ones(1020, bool), risk) == pytest.approx(limit)


def test_few_photographs_fall_back_to_the_limit_per_photograph():
    assert risk_limit(np.full(3, 0.9), np.ones(3, bool), 0.1) == 0.9
    assert risk_limit(np.zeros(0), np.zeros(0, bool), 0.25) == 0.75
    assert risk_limit(np.full(3, 0.4), np.zeros(3, bool), 1.0) == 0.0


def test_limits_are_read_for_any_risk_and_for_older_files():
    logits, labels = drawn(300, 4)
    _, entry = fit_answers(with_score(logits), labels, TAXA, -np.inf, "validation")
    assert limits_at(entry, 0.155)["species"] == entry["limits"]["species"][RISKS.index(0.15)]
    assert limits_at(entry, 1.0)["species"] == 0
    assert limits_at(entry, 0.0) == {}
    assert limits_at(None, 0.2) == {"species": 0.8}
    assert entry["limits"].keys() == set(RANKS)
    assert entry["photographs"] == 300


def test_limits_are_fitted_to_the_photographs_that_reach_their_rank():
    """Those below the threshold get no answer, those with a species need no genus."""
    logits, labels = drawn(600, 4, scale=3.0)
    outside = np.arange(600) % 3 == 0
    labels = np.where(outside, (labels + 1) % 4, labels)
    outputs = with_score(logits, np.where(outside, 3.0, 5.0))
    temperature, entry = fit_answers(outputs, labels, TAXA, 4.0, "validation")
    chances, *_ = answer_outputs(outputs, TAXA, temperature, 4.0, entry, 0.3)
    limits, undecided = limits_at(entry, 0.3), ~outside
    for rank in RANKS[:2]:
        confidence, index = best_taxon(chances, TAXA[rank], rank)
        correct = TAXA[rank][index] == TAXA[rank][labels]
        assert limits[rank] == risk_limit(confidence[undecided], correct[undecided], 0.3)
        assert limits[rank] != risk_limit(confidence, correct, 0.3)
        undecided &= confidence < limits[rank]


def test_photographs_of_a_low_score_are_less_sure_where_they_are_wrong_more_often():
    """Half of the photographs have a low score, and logits twice as large as is right."""
    low = np.repeat([True, False], 1000)
    logits, labels = drawn(2000, 4)
    outputs = with_score(np.where(low[:, None], 2.0, 1.0) * logits, np.where(low, 3.0, 5.0))
    temperature, entry = fit_answers(outputs, labels, TAXA, -np.inf, "validation")
    slope, center = entry["temperature_by_score"]
    assert center == pytest.approx(4.0)
    assert slope * 2 == pytest.approx(np.log(2), abs=0.15)  # the factors differ by 2
    test_logits, test_labels = drawn(20000, 4, seed=1)
    low = np.arange(20000) % 2 == 0
    outputs = with_score(np.where(low[:, None], 2.0, 1.0) * test_logits, np.where(low, 3.0, 5.0))
    chances, *_ = answer_outputs(outputs, TAXA, temperature, None, entry, 0.2)
    error = [expected_calibration_error(chances[rows].max(1),
                                        chances[rows].argmax(1) == test_labels[rows])
             for rows in (low, ~low)]
    assert max(error) < 0.03
    plain = probabilities(outputs[:, :-1], temperature)
    assert expected_calibration_error(plain[low].max(1),
                                      plain[low].argmax(1) == test_labels[low]) > 0.06


def test_an_uninformative_score_leaves_one_temperature_for_all():
    logits, labels = drawn(2000, 4)
    scores = np.random.default_rng(1).normal(0, 1, 2000)
    for outputs in (with_score(logits, scores), with_score(logits)):
        _, entry = fit_answers(outputs, labels, TAXA, -np.inf, "validation")
        slope, center = entry["temperature_by_score"]
        assert 0 <= slope <= 0.1
        assert np.allclose(temperatures_of(outputs, 2.0, None), 2)
        assert np.abs(np.log(temperatures_of(outputs, 1.0, entry))).max() <= 1


def test_few_photographs_make_no_steep_slope():
    """Of 20 photographs, some scores agree with what is wrong by chance."""
    slopes = []
    for seed in range(30):
        logits, labels = drawn(20, 4, seed=seed)
        scores = np.random.default_rng(seed + 50).normal(0, 1, 20)
        slopes.append(fit_temperatures(with_score(logits, scores), labels)[1][0])
    assert np.mean(slopes) < 0.1  # without a prior 0.17


def test_an_extreme_score_changes_the_temperature_by_e_at_most():
    found = temperatures_of(with_score(np.zeros((3, 4)), [-50.0, 1.0, 50.0]), 2.0,
                            {"temperature_by_score": [0.3, 1.0]})
    assert found[:, 0] == pytest.approx([2 * np.e, 2, 2 / np.e])


# ---- ranks ----

def test_the_most_specific_rank_that_reaches_its_limit_is_answered():
    chances = np.array([[.9, .05, .03, .02], [.5, .45, .03, .02], [.3, .3, .38, .02],
                        [.3, .2, .2, .3], [.0, .0, .0, 1.0]])
    limits = {"species": 0.8, "genus": 0.9, "family": 0.95}
    answers = decide(chances, np.array([False] * 4 + [True]), TAXA, limits)
    assert answers.ranks.tolist() == ["species", "genus", "family", "", ""]
    assert answers.names.tolist() == ["Rosa prima", "Rosa", "Rosaceae", "", ""]
    assert answers.confidence[:3] == pytest.approx([0.9, 0.95, 0.98])
    assert answers.reasons.tolist() == ["", "risk", "risk", "risk", "out-of-distribution"]


def test_a_genus_with_a_single_class_is_no_answer():
    confidence, _ = best_taxon(np.array([[0, 0, 0.1, 0.9]]), TAXA["genus"], "genus")
    assert confidence == pytest.approx([0])  # Rosa; Rubus and Iris have one species each
    alone, _ = best_taxon(np.eye(2), np.array(["A", "B"]), "genus")
    assert (alone < 0).all()


def test_genus_is_answered_where_the_species_is_a_coin_flip():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    logits = np.tile([4.0, 4.0, 0, 0], (600, 1)) + rng.normal(0, .1, (600, 4))
    temperature, entry = fit_answers(with_score(logits), labels, TAXA, -np.inf, "validation")
    answers = decide(probabilities(logits, temperature), np.zeros(600, bool), TAXA,
                     limits_at(entry, 0.1))
    assert np.mean(answers.ranks == "genus") > 0.9
    assert set(answers.names) <= {"Rosa", ""}


def test_nan_is_never_an_answer():
    chances = np.array([[np.nan] * 4])
    answers = decide(chances, np.array([False]), TAXA, {"species": 0.0, "genus": 0.0})
    assert answers.ranks.tolist() == [""]
    for value in (np.nan, np.inf):
        with pytest.raises(InputError, match="some.onnx"):
            require_finite_outputs(np.array([[1.0, value]]), "some.onnx")


# ---- sets ----

@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_sets_hold_the_class_as_often_as_promised(scale):
    test_logits, test_labels = drawn(20000, seed=1, scale=scale)
    chances = probabilities(test_logits)
    coverage, sizes = [], []
    for seed in range(20):
        logits, labels = drawn(200, seed=seed + 10, scale=scale)
        sets = prediction_sets(chances, fit_set_limit(probabilities(logits), labels))
        coverage.append(sets[np.arange(len(sets)), test_labels].mean())
        sizes.append(sets.sum(1).mean())
        assert sets[np.arange(len(sets)), chances.argmax(1)].all()
    assert np.mean(coverage) >= 0.945
    assert np.mean(sizes) < 6


@pytest.mark.parametrize("sharpness", [0.4, 3.0])
def test_the_sets_of_answers_hold_the_class_as_often_as_promised(sharpness):
    """The network is too sure or not sure enough: limit and sets are of calibrated chances."""
    logits, labels = drawn(500, 4)
    temperature, entry = fit_answers(with_score(sharpness * logits), labels, TAXA, -np.inf, "")
    logits, labels = drawn(20000, 4, seed=1)
    *_, sets = answer_outputs(with_score(sharpness * logits), TAXA, temperature, None, entry, 0.2)
    assert sets[np.arange(20000), labels].mean() == pytest.approx(0.95, abs=0.01)


def test_sets_grow_on_hard_photographs_and_hold_all_names_if_fitted_on_few():
    logits, labels = drawn(500, seed=3)
    chances = probabilities(logits)
    sizes = prediction_sets(chances, fit_set_limit(chances, labels)).sum(1)
    sure = chances.max(1) > np.median(chances.max(1))
    assert sizes[sure].mean() < sizes[~sure].mean()
    assert fit_set_limit(chances[:18], labels[:18]) == 1.0
    assert prediction_sets(chances, 1.0).all()
    assert mass_above(np.array([[.2, .5, .3]])) == pytest.approx(np.array([[.8, 0, .5]]))


def test_the_correlation_of_photographs_of_one_plant_is_measured():
    rng, plants, classes = np.random.default_rng(0), 400, 5
    labels = np.repeat(rng.integers(0, classes, plants), 3)
    groups = np.repeat(np.arange(plants), 3)
    truth, scale = np.eye(classes)[labels], 1.2

    def logits(shared):  # exact for one photograph: the evidence of each class is normal
        common = np.repeat(rng.normal(0, 1, (plants, classes)), 3, 0)
        noise = shared**0.5 * common + (1 - shared)**0.5 * rng.normal(0, 1, truth.shape)
        return scale * (scale * truth + noise)
    for shared in (0.0, 0.5, 1.0):
        found = fit_together(with_score(logits(shared)), labels, groups, 1.0, None)
        assert found["groups"] == plants
        assert found["correlation"] == pytest.approx(shared, abs=0.16)
    one, two, three = gains(with_score(logits(0.0)), labels, groups, 1.0,
                            {"together": {"correlation": 0.0}})
    assert (one["of"], one["plants"], three["plants"]) == ("group", plants, plants)
    assert one["accuracy"] + 0.08 < two["accuracy"] < three["accuracy"]
    assert three["confidence"] == pytest.approx(three["accuracy"], abs=0.05)
    few = fit_together(with_score(logits(0.0))[:60], labels[:60], groups[:60], 1.0, None)
    assert few == {"correlation": ASSUMED, "groups": 20}
    for count, names in ((60, 0), (120, 3)):  # 20 and 40 trios
        some, singles = with_score(logits(0.0))[:count], np.arange(count)
        rows = gains(some, labels[:count], singles, 1.0, None)
        assert [row["of"] for row in rows] == ["class"] * names
        assert all(row["plants"] >= 30 for row in rows)


def test_the_report_combines_photographs_as_a_prediction_does():
    """With a temperature per photograph, scaling before or after the mean is not the same."""
    outputs = np.array([[3.0, 0, 0, 0, 2], [0, 4, 0, 0, -2]])
    answers = {"temperature_by_score": [0.5, 0.0], "together": {"correlation": 0.3}}
    combined, _ = combine_photographs(outputs, 0.3)
    chances, *_ = answer_outputs(combined[None], TAXA, 0.7, None, {**answers, "set_limit": 1.0,
                                 "limits": {rank: [1.0] * len(RISKS) for rank in RANKS}}, 0.2)
    assert np.allclose(probabilities_of(outputs, np.array([[0, 1]]), 0.3, 0.7, answers), chances)


# ---- odd scores, many classes ----

def test_scores_that_are_all_alike_have_no_slope():
    """Rounding made them differ by 1e-17, and the file of a slope of 1e16 was refused later."""
    logits, labels = drawn(3, scale=9.0)
    _, fitted = fit_answers(with_score(logits, 0.1), (labels + 1) % 6, {
        rank: np.array(list("abcdef")) for rank in RANKS}, 0.0, "validation")
    assert fitted["temperature_by_score"][0] == 0
    assert are_limits(fitted)


def test_many_photographs_and_classes_take_a_temperature_or_two(monkeypatch):
    """With 1,000 classes each of 13 slopes took as long as the temperature, several minutes."""
    logits, labels = drawn(4000)
    scores = np.random.default_rng(1).normal(0, 1, len(labels))
    outputs = with_score(logits * np.exp(scores * 0.5)[:, None], scores)
    rows, fit = [], answers.fit_temperature

    def counted(logits, labels):
        rows.append(len(labels))
        return fit(logits, labels)
    expected = answers.fit_temperatures(outputs, labels)
    monkeypatch.setattr(answers, "fit_temperature", counted)
    monkeypatch.setattr(answers, "SLOPE_LOGITS", outputs.size // 10)
    temperature, (slope, center) = answers.fit_temperatures(outputs, labels)
    assert sum(rows) < 3 * len(labels)
    assert temperature == pytest.approx(expected[0], rel=0.05)
    assert slope == pytest.approx(expected[1][0], abs=0.11) and center == expected[1][1]


def test_memory_grows_with_the_classes_not_with_their_square():
    """10,000 classes took 1.6 GB for every answer."""
    names = np.array([f"g{label // 3}" for label in range(3000)])
    chances = np.random.default_rng(0).random((2, 3000))
    tracemalloc.start()
    confidence, first = best_taxon(chances, names, "genus")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sums = chances.reshape(2, 1000, 3).sum(2)
    assert confidence == pytest.approx(sums.max(1))
    assert (names[first] == [f"g{label}" for label in sums.argmax(1)]).all()
    assert peak < 5e6
