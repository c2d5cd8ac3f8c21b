"""Combine several photographs of one plant into one answer; calibrate and measure this.

The mean of the logits, i.e. the geometric mean of the probabilities, is multiplied as for
n / (1 + (n - 1) c) independent photographs, because n photographs of one plant are correlated: c is
the correlation of their evidence (the design effect of cluster samples, Kish, 1965). It is measured
on groups of photographs of one observation or occasion; with too few groups it is ASSUMED.
"""
from collections import defaultdict

import numpy as np

from evaluation.answers import temperatures_of
from evaluation.calibration import probabilities

ASSUMED = 0.5  # not measured: half of the evidence of a second photograph is new
FEWEST_GROUPS = 30  # to measure the correlation
CORRELATIONS = np.linspace(0, 1, 21)


def combine_photographs(outputs, correlation):
    """Return (outputs (K + 1,) of one plant, number of its different photographs).

    `outputs` (N, K + 1) are those of its photographs; copies of a photograph count once.
    """
    distinct = np.array(list({row.tobytes(): row for row in outputs}.values()))
    combined = distinct.mean(0)
    combined[:-1] *= effective_count(len(distinct), correlation)
    return combined, len(distinct)


def effective_count(count, correlation):
    """Return the number of independent photographs with the evidence of `count` correlated ones."""
    return count / (1 + (count - 1) * correlation)


def correlation_of(answers):
    """Return the correlation in a checkpoint's `answers`, ASSUMED if there is none."""
    return (answers or {}).get("together", {}).get("correlation", ASSUMED)


def plants_of(labels, groups, count):
    """Return indices (P, count): P times `count` random photographs of one class and group."""
    members = defaultdict(list)
    for row in np.random.default_rng(0).permutation(len(labels)):
        members[groups[row], labels[row]].append(row)
    chosen = [rows[:count] for _, rows in sorted(members.items()) if len(rows) >= count]
    return np.array(chosen, int).reshape(-1, count)


def probabilities_of(outputs, plants, correlation, temperature, answers):
    """Return the probabilities (P, K) of plants, indices (P, count) of outputs (N, K + 1).

    They are combined as `combine_photographs` does, with the temperature of their mean score.
    """
    mean = outputs[plants].mean(1)
    logits = mean[:, :-1] * effective_count(plants.shape[1], correlation)
    return probabilities(logits, temperatures_of(mean, temperature, answers))


def fit_together(outputs, labels, groups, temperature, answers):
    """Return {"correlation", "groups"}, fitted to two photographs of every group.

    The correlation has the lowest cross-entropy. `outputs` (N, K + 1) are of photographs that the
    network was not fitted to; `temperature` and `answers` are those of the checkpoint.
    """
    pairs = plants_of(labels, groups, 2)
    if len(pairs) < FEWEST_GROUPS:
        return {"correlation": ASSUMED, "groups": len(pairs)}
    truth, losses = labels[pairs[:, 0]], []
    for correlation in CORRELATIONS:
        chances = probabilities_of(outputs, pairs, correlation, temperature, answers)
        losses.append(-np.log(chances[np.arange(len(truth)), truth] + 1e-12).mean())
    return {"correlation": float(CORRELATIONS[np.argmin(losses)]), "groups": len(pairs)}


def gains(outputs, labels, groups, temperature, answers):
    """Return the accuracy with one, two and three photographs: a list of rows for the report.

    `outputs` are (N, K + 1); `temperature` and `answers` are those of the checkpoint. Photographs
    are of one group or, if test has fewer than FEWEST_GROUPS groups, of different plants of a
    class, which is optimistic. The key `of` says which, `plants` how many. Fewer than FEWEST_GROUPS
    plants, which tell nothing, get no row.
    """
    of = "group"
    if len(plants_of(labels, groups, 2)) < FEWEST_GROUPS:
        of, groups = "class", np.empty(len(labels), int)
        for label in np.unique(labels):  # trios of different plants
            rows = np.flatnonzero(labels == label)
            groups[rows] = np.random.default_rng(0).permutation(len(rows)) // 3
    rows = []
    for count in (1, 2, 3):
        plants = plants_of(labels, groups, 3 if of == "class" else max(count, 2))[:, :count]
        if len(plants) >= FEWEST_GROUPS:
            chances = probabilities_of(outputs, plants, correlation_of(answers), temperature,
                                       answers)
            truth = labels[plants[:, 0]]
            rows.append({"photographs": count, "of": of, "plants": len(plants),
                         "accuracy": float(np.mean(chances.argmax(1) == truth)),
                         "confidence": float(chances.max(1).mean())})
    return rows


def describe_together(together):
    """Return a sentence about the correlation in a checkpoint's `answers`."""
    if together["groups"] < FEWEST_GROUPS:
        return (f"several photographs of one plant: a correlation of {ASSUMED:g} is assumed, as "
                f"{together['groups']} groups are too few to measure it")
    return (f"several photographs of one plant: correlation {together['correlation']:.2f}, "
            f"measured on {together['groups']:,} groups")
