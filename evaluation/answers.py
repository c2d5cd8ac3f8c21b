"""From probabilities to answers: species, genus, family or abstention, and a set of names.

Among the answers at each rank, the share of wrong ones shall stay below MAX_RISK. `fit_answers`
finds the lowest confidence that achieves this, on labelled photographs that the network was not
trained on; `decide` applies it. Only fitting needs more than numpy.
"""
from typing import NamedTuple

import numpy as np

from evaluation.calibration import TEMPERATURE_PRIOR, fit_temperature, probabilities
from utils import InputError

RANKS = ("species", "genus", "family")
RISKS = tuple(percent / 100 for percent in (*range(1, 51), 60, 70, 80, 90, 100))
DOUBT = 0.01  # probability that a limit's true risk is higher than asked, per rank
LIKELY = 0.5  # least confidence of a name, unless MAX_RISK allows more wrong names than this
SET_COVERAGE = 0.95
FEWEST_FOR_SETS = 19  # photographs, of which SET_COVERAGE leaves one out
NO_SETS = f"no sets of names: fewer than {FEWEST_FOR_SETS} photographs to set their limit"
SLOPES = np.linspace(0, 0.6, 13)  # of log(temperature), per standard deviation of scores
SLOPE_PRIOR = 0.3  # standard deviation of the normal prior on this slope
SLOPE_LOGITS = 1_000_000  # at most, to choose it: each slope takes as long as a temperature
REASONS = ("risk", "out-of-distribution")  # why a photograph gets no species


class Answers(NamedTuple):
    """The answers for N photographs; arrays (N,)."""

    ranks: np.ndarray  # of the answer, one of RANKS, "" for none
    names: np.ndarray  # of the answer: Latin name, genus or family
    confidence: np.ndarray  # probability that this name is correct
    reasons: np.ndarray  # why no species is named, one of REASONS; "" if one is


def answer_outputs(outputs, taxa, temperature, threshold, fitted, max_risk):
    """Return (probabilities (N, K), outside (N,), `Answers`, sets (N, K) or None).

    `outputs` (N, K + 1) are logits and, last, the out-of-distribution score; photographs below its
    `threshold` (None: there is none) are `outside`. `fitted` is the checkpoint's `answers`, without
    which there are no sets.
    """
    chances = probabilities(outputs[:, :-1], temperatures_of(outputs, temperature, fitted))
    scores = outputs[:, -1]
    outside = np.zeros(len(scores), bool) if threshold is None else ~(scores >= threshold)
    answers = decide(chances, outside, taxa, limits_at(fitted, max_risk))
    sets = prediction_sets(chances, fitted["set_limit"]) if fitted else None
    return chances, outside, answers, sets


def temperatures_of(outputs, temperature, fitted):
    """Return (N, 1): a temperature per photograph, higher where its score, the last output, is low.

    Predictions for photographs that resemble those of training less are right less often than
    one temperature for all says. `fitted` is the checkpoint's `answers`; without its
    `temperature_by_score`, `temperature` holds for all.
    """
    slope, center = (fitted or {}).get("temperature_by_score", (0.0, 0.0))
    return temperature * np.exp(np.clip(slope * (center - outputs[:, -1:]), -1, 1))


def require_finite_outputs(outputs, path):
    """Raise InputError unless all outputs of the network in a file are finite."""
    if not np.isfinite(outputs).all():
        raise InputError(f"{path}: the network's outputs are not finite numbers; the file is "
                         "damaged or its training diverged; use another one")


def taxa_of(classes):
    """Return {rank: names (K,)} of the classes, "" where a name is unknown."""
    columns = {"species": "latin", "genus": "genus", "family": "family"}
    return {rank: np.array([getattr(plant, key) for plant in classes])
            for rank, key in columns.items()}


def best_taxon(chances, names, rank):
    """Return (confidence (N,), index of one of its classes (N,)) of the most likely taxon.

    `chances` (N, K) are summed over the classes of a taxon; `names` (K,) are the taxa of the
    classes. A genus or family with a single class is no answer: it would imply the species.
    """
    unique, first, codes, sizes = np.unique(names, return_index=True, return_inverse=True,
                                            return_counts=True)
    order = np.argsort(codes, kind="stable")
    starts = np.append(0, np.cumsum(sizes)[:-1])
    sums = np.add.reduceat(chances[:, order], starts, axis=1)  # (N, taxa)
    if rank != "species":
        sums = np.where((sizes > 1) & (unique != ""), sums, -1.0)
    best = sums.argmax(1)
    return sums.max(1), first[best]


def decide(chances, outside, taxa, limits):
    """Return the `Answers` for probabilities (N, K): the most specific rank that reaches its limit.

    `outside` (N,) marks photographs of none of the classes; `limits` maps ranks to the lowest
    confidence. NaN is never an answer.
    """
    count = len(chances)
    answers = Answers(np.full(count, "", object), np.full(count, "", object), np.zeros(count),
                      np.where(outside, "out-of-distribution", "risk").astype(object))
    undecided = ~np.asarray(outside, bool)
    for rank in RANKS:
        confidence, index = best_taxon(chances, taxa[rank], rank)
        taken = undecided & (confidence >= limits.get(rank, np.inf))
        answers.ranks[taken] = rank
        answers.names[taken] = taxa[rank][index[taken]]
        answers.confidence[taken] = confidence[taken]
        undecided &= ~taken
    answers.reasons[answers.ranks == "species"] = ""
    return answers


def limits_at(entry, max_risk):
    """Return {rank: lowest confidence} for a risk in [0, 1], from a checkpoint's `answers`.

    Without them, as in an older checkpoint, the risk applies to each photograph, and only species
    are named.
    """
    if entry is None:
        return {"species": 1 - max_risk}
    allowed = [index for index, risk in enumerate(RISKS) if risk <= max_risk + 1e-9]
    return {rank: entry["limits"][rank][allowed[-1]] for rank in RANKS} if allowed else {}


def prediction_sets(chances, limit):
    """Return (N, K) booleans: the classes in each photograph's set, at least the most likely one.

    A class is in the set if all more likely classes have together at most `limit` probability.
    """
    return mass_above(chances) <= limit


def mass_above(chances):
    """Return (N, K): for each class, the summed probability of all more likely classes."""
    order = np.argsort(-chances, axis=1, kind="stable")
    ranked = np.take_along_axis(chances, order, 1)
    above = np.empty_like(ranked)
    np.put_along_axis(above, order, np.cumsum(ranked, 1) - ranked, 1)
    return np.clip(above, 0, 1)


# ---- fitting, on predictions for photographs that the network was not trained on ----

def fit_answers(outputs, labels, taxa, threshold, source):
    """Return (temperature, the `answers` entry of a checkpoint).

    The entry has the slope of temperatures, limits per rank and risk, and the limit of the sets.
    `outputs` (N, K + 1), logits and score, and `labels` (N,) are of validation or out-of-fold
    photographs, see `source`. The limits of a rank are fitted to the photographs that are not below
    the score's `threshold`, and that the ranks before it leave undecided.
    """
    temperature, by_score = fit_temperatures(outputs, labels)
    fitted = {"temperature_by_score": by_score}
    chances = probabilities(outputs[:, :-1], temperatures_of(outputs, temperature, fitted))
    outside = outputs[:, -1] < threshold
    limits = {rank: [] for rank in RANKS}
    ranked = {}
    for rank in RANKS:
        confidence, index = best_taxon(chances, taxa[rank], rank)
        ranked[rank] = confidence, taxa[rank][index] == taxa[rank][labels]
    for risk in RISKS:
        undecided = ~outside
        for rank, (confidence, correct) in ranked.items():
            limit = risk_limit(confidence[undecided], correct[undecided], risk)
            limits[rank].append(limit)
            undecided = undecided & ~(confidence >= limit)
    return temperature, {
        **fitted, "source": source, "photographs": len(labels), "limits": limits,
        "set_limit": fit_set_limit(chances, labels)}


def fit_temperatures(outputs, labels):
    """Return (temperature, [slope, center] of `temperatures_of`) that fit outputs (N, K + 1) best.

    Like the temperature, the slope, one of SLOPES, is the maximum a posteriori; with more than
    SLOPE_LOGITS logits it is chosen on evenly spaced photographs.
    """
    center, spread = float(outputs[:, -1].mean()), float(outputs[:, -1].std())
    step = -(-outputs.size // SLOPE_LOGITS)
    some, known = outputs[::step], labels[::step]
    fits = []
    for relative in SLOPES if spread > 1e-6 else (0.0,):  # else rounding alone makes them differ
        by_score = [float(relative / spread) if relative else 0.0, center]
        temperature, chances = fit_at(by_score, some, known)
        prior = (np.log(temperature) / TEMPERATURE_PRIOR) ** 2 + (relative / SLOPE_PRIOR) ** 2
        fits.append((prior / 2 - np.log(chances + 1e-300).sum(), temperature, by_score))
    _, temperature, by_score = min(fits)
    return temperature if step == 1 else fit_at(by_score, outputs, labels)[0], by_score


def fit_at(by_score, outputs, labels):
    """Return (temperature, probabilities (N,) of the true classes) for a slope and center."""
    logits = outputs[:, :-1] / temperatures_of(outputs, 1.0, {"temperature_by_score": by_score})
    temperature = fit_temperature(logits, labels)
    return temperature, probabilities(logits, temperature)[np.arange(len(labels)), labels]


def risk_limit(confidence, correct, risk):
    """Return the lowest confidence at which at most the fraction `risk` of answers is wrong.

    For the i most confident of N photographs, the errors are those counted or those expected from
    the probabilities, whichever are more. i passes if, were the true risk higher, so few errors had
    at most the probability DOUBT: the binomial test of "Learn then Test" (Angelopoulos et al.,
    2021), with the incomplete beta function because expected errors are not whole numbers. The
    largest i that passes sets the limit. If none does, as with few photographs, the limit is
    1 - risk, so that by its own probability no answer is more likely wrong than asked. The limit is
    at least LIKELY: on an easy flora every name would pass, and unknown plants with them.
    """
    from scipy.special import betainc
    possible = confidence >= 0
    confidence, correct = confidence[possible], correct[possible]
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, count = confidence[order], np.arange(1, len(order) + 1)
    if risk >= 1:
        return 0.0
    errors = np.maximum(np.cumsum(~correct[order]), np.cumsum(1 - sorted_confidence))
    by_chance = betainc(np.maximum(count - errors, 1e-9), errors + 1, 1 - risk)
    ends = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)  # last of equal ones
    passing = np.flatnonzero((by_chance <= DOUBT) & ends[:len(order)])
    limit = sorted_confidence[passing[-1]] if len(passing) else 1 - risk
    return float(min(1.0, max(limit, min(LIKELY, 1 - risk))))


def fit_set_limit(chances, labels):
    """Return the limit in [0, 1] with which SET_COVERAGE of the sets contain the true class.

    Split conformal prediction with adaptive sets (Romano et al., "Classification with Valid and
    Adaptive Coverage", 2020), without their randomisation. With fewer than FEWEST_FOR_SETS
    photographs the limit is 1: every class is in every set.
    """
    scores = np.sort(mass_above(chances)[np.arange(len(labels)), labels])
    position = int(np.ceil((len(labels) + 1) * SET_COVERAGE))
    return float(scores[position - 1]) if position <= len(labels) else 1.0
