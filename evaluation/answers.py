"""From probabilities to answers: the deepest rank whose risk holds, or none, and a set of names.

Of the photographs that are answered, the share of wrong answers shall stay below MAX_RISK, at each
rank. `fit_answers` finds the least confidence for that on labelled photographs that the network has
not seen; `decide` applies it. Numpy alone, but for fitting.
"""
from typing import NamedTuple

import numpy as np

from evaluation.calibration import probabilities
from utils import InputError

RANKS = ("species", "genus", "family")
RISKS = tuple(percent / 100 for percent in (*range(1, 51), 60, 70, 80, 90, 100))
DOUBT = 0.1  # probability of exceeding a risk by chance, per rank
LIKELY = 0.5  # a name that is likelier wrong than right is given only at such a risk
SET_COVERAGE = 0.95
REASONS = ("risk", "out-of-distribution")  # why a photograph gets no species


class Answers(NamedTuple):
    """What is answered for N photographs; arrays (N,)."""

    ranks: np.ndarray  # of the answer, one of RANKS, "" for none
    names: np.ndarray  # of the answer: Latin name, genus or family
    confidence: np.ndarray  # probability that this name is correct
    reasons: np.ndarray  # of REASONS, why there is no species; "" where there is one


def require_finite_outputs(outputs, path):
    """Raise InputError where outputs of the network in a file are not all finite numbers."""
    if not np.isfinite(outputs).all():
        raise InputError(f"{path}: the network's outputs are not finite numbers; the file is "
                         "damaged or its training diverged; use another one")


def taxa_of(classes):
    """Return {rank: names (K,)} of classes with `latin`, `genus` and `family`; "" if unknown."""
    columns = {"species": "latin", "genus": "genus", "family": "family"}
    return {rank: np.array([getattr(plant, key) for plant in classes])
            for rank, key in columns.items()}


def best_taxon(chances, names, rank):
    """Return (confidence (N,), index of the class that names it (N,)) of the likeliest taxon.

    `chances` (N, K) are summed over the classes of a taxon; `names` (K,) say which these are. Above
    the species, a taxon with a single class is no answer: it would say no less than the species.
    """
    unique, first, codes, sizes = np.unique(names, return_index=True, return_inverse=True,
                                            return_counts=True)
    sums = chances @ np.eye(len(unique))[codes]  # (N, taxa)
    if rank != "species":
        sums = np.where((sizes > 1) & (unique != ""), sums, -1.0)
    best = sums.argmax(1)
    return sums.max(1), first[best]


def decide(chances, outside, taxa, limits):
    """Return the `Answers` for probabilities (N, K): the deepest rank whose limit is reached.

    `outside` (N,) says which photographs seem to show no class; `limits` maps ranks to the least
    confidence. Written so that NaN is never an answer.
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
    """Return {rank: least confidence} for a risk in [0, 1], from a checkpoint's `answers`.

    Without one, as in an older checkpoint, the risk is applied to each photograph, and only species
    are named.
    """
    if entry is None:
        return {"species": 1 - max_risk}
    fitting = [index for index, risk in enumerate(RISKS) if risk <= max_risk + 1e-9]
    return {rank: entry["limits"][rank][fitting[-1]] for rank in RANKS} if fitting else {}


def prediction_sets(chances, limit):
    """Return (N, K) booleans: the classes of each photograph's set; the likeliest is always in it.

    A class is in the set if the classes likelier than it have at most `limit` probability together.
    """
    return mass_above(chances) <= limit


def mass_above(chances):
    """Return (N, K): the summed probability of the classes that are likelier than each class."""
    order = np.argsort(-chances, axis=1, kind="stable")
    ranked = np.take_along_axis(chances, order, 1)
    above = np.empty_like(ranked)
    np.put_along_axis(above, order, np.cumsum(ranked, 1) - ranked, 1)
    return np.clip(above, 0, 1)


# ---- fitting, on predictions for photographs that the network was not fitted to ----

def fit_answers(logits, labels, outside, taxa, temperature, source):
    """Return the `answers` entry of a checkpoint: limits per rank and risk, and of the sets.

    `logits` (N, K) and `labels` (N,) are of validation or out-of-fold photographs, as `source`
    says; each rank's limits hold for the photographs that the ranks before it leave undecided.
    """
    chances = probabilities(logits, temperature)
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
    return {"source": source, "photographs": len(labels), "limits": limits,
            "set_limit": fit_set_limit(chances, labels)}


def risk_limit(confidence, correct, risk):
    """Return the least confidence at which at most the fraction `risk` of answers is wrong.

    For the i most confident of N photographs, the errors are taken as those counted or those
    expected from the probabilities, whichever are more; i passes if so few would come up with
    probability DOUBT at most were the risk higher: the binomial test of "Learn then Test"
    (Angelopoulos et al., 2021), by the incomplete beta function as errors may be no whole number.
    The largest i that passes sets the limit. Where none does, as with few photographs, it is
    1 - risk: then no answer is likelier to be wrong than asked, by its own probability. It is at
    least LIKELY, as of an easy flora every name would pass, and unknown plants with them.
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
    ends = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)  # equals pass together
    passing = np.flatnonzero((by_chance <= DOUBT) & ends[:len(order)])
    limit = sorted_confidence[passing[-1]] if len(passing) else 1 - risk
    return float(min(1.0, max(limit, min(LIKELY, 1 - risk))))


def fit_set_limit(chances, labels, coverage=SET_COVERAGE):
    """Return the limit in [0, 1] with which sets hold the true class with probability `coverage`.

    Split conformal prediction with adaptive sets (Romano et al., "Classification with Valid and
    Adaptive Coverage", 2020), without their random rounding. With fewer than 19 photographs, the
    limit for 95 % is 1: every class is in every set.
    """
    scores = np.sort(mass_above(chances)[np.arange(len(labels)), labels])
    position = int(np.ceil((len(labels) + 1) * coverage))
    return float(scores[position - 1]) if position <= len(labels) else 1.0
