"""Combine several photographs of one plant into one answer; calibrate and measure this.

The mean of the logits, i.e. the geometric mean of the probabilities, is multiplied as for
n / (1 + (n - 1) c) independent photographs, because n photographs of one plant are correlated: c is
the correlation of their evidence (the design effect of cluster samples, Kish, 1965). It is measured
on groups of photographs of one observation or occasion; with too few groups it is ASSUMED.
"""
from collections import defaultdict

import numpy as np

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


def fit_together(logits, labels, groups):
    """Return {"correlation", "groups"}, fitted to two photographs of every group.

    The correlation has the lowest cross-entropy. `logits` (N, K), divided by their temperatures,
    are of photographs that the network was not fitted to.
    """
    pairs = plants_of(labels, groups, 2)
    if len(pairs) < FEWEST_GROUPS:
        return {"correlation": ASSUMED, "groups": len(pairs)}
    mean, truth = logits[pairs].mean(1), labels[pairs[:, 0]]
    losses = []
    for correlation in CORRELATIONS:
        chances = probabilities(mean * effective_count(2, correlation))
        losses.append(-np.log(chances[np.arange(len(truth)), truth] + 1e-12).mean())
    return {"correlation": float(CORRELATIONS[np.argmin(losses)]), "groups": len(pairs)}


def gains(logits, labels, groups, correlation):
    """Return the accuracy with one, two and three photographs: a list of rows for the report.

    `logits` (N, K) are divided by their temperatures. Photographs are of one group or, if test has
    fewer than FEWEST_GROUPS groups, of different plants of a class, which is optimistic. The key
    `of` says which.
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
        if len(plants):
            mean = logits[plants].mean(1)
            chances = probabilities(mean * effective_count(count, correlation))
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
