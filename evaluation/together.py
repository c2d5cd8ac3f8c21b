"""Several photographs of one plant, one answer: combination, its calibration, what it gains.

The mean of the logits is the geometric mean of the probabilities. It is sharpened as for
n / (1 + (n - 1) c) independent photographs, for n photographs of one plant are not independent: c
is the correlation of their evidence (the design effect of cluster samples, Kish, 1965). It is
measured where photographs come in groups, of one observation or occasion; else it is ASSUMED.
"""
from collections import defaultdict

import numpy as np

from evaluation.calibration import probabilities

ASSUMED = 0.5  # no measurement says so: half of what a second photograph says is new
FEWEST_GROUPS = 30  # by which the correlation can be measured
CORRELATIONS = np.linspace(0, 1, 21)


def distinct(outputs):
    """Return the outputs (N, K + 1) of photographs without those of a copy, which tells nothing."""
    return np.array(list({row.tobytes(): row for row in outputs}.values()))


def combine(outputs, correlation):
    """Return the outputs (K + 1,) of one plant from those of its photographs, (N, K + 1)."""
    outputs = distinct(outputs)
    combined = outputs.mean(0)
    combined[:-1] *= independent(len(outputs), correlation)
    return combined


def independent(count, correlation):
    """Return how many independent photographs so many of one plant are worth."""
    return count / (1 + (count - 1) * correlation)


def correlation_of(answers):
    """Return the correlation in a checkpoint's `answers`, ASSUMED where there is none."""
    return (answers or {}).get("together", {}).get("correlation", ASSUMED)


def plants_of(labels, groups, count, seed=0):
    """Return an array (P, count) of rows: photographs of one class and group, drawn at random."""
    members = defaultdict(list)
    for row in np.random.default_rng(seed).permutation(len(labels)):
        members[groups[row], labels[row]].append(row)
    chosen = [rows[:count] for _, rows in sorted(members.items()) if len(rows) >= count]
    return np.array(chosen, int).reshape(-1, count)


def fit_together(logits, labels, groups, temperature):
    """Return {"correlation", "groups"}: that of least cross-entropy for two photographs of a group.

    `logits` (N, K) are of photographs that the network was not fitted to. With fewer than
    FEWEST_GROUPS groups of two, the correlation is ASSUMED.
    """
    pairs = plants_of(labels, groups, 2)
    if len(pairs) < FEWEST_GROUPS:
        return {"correlation": ASSUMED, "groups": len(pairs)}
    mean, truth = logits[pairs].mean(1), labels[pairs[:, 0]]
    losses = [-np.log(probabilities(mean * independent(2, one), temperature)[
        np.arange(len(truth)), truth] + 1e-12).mean() for one in CORRELATIONS]
    return {"correlation": float(CORRELATIONS[np.argmin(losses)]), "groups": len(pairs)}


def gains(logits, labels, groups, temperature, correlation):
    """Return what one, two and three photographs are worth: a list of rows for the report.

    They are of one group or, where test has fewer than FEWEST_GROUPS of these, of any plants of one
    class (`of` says which), which promises too much.
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
            chances = probabilities(mean * independent(count, correlation), temperature)
            truth = labels[plants[:, 0]]
            rows.append({"photographs": count, "of": of, "plants": len(plants),
                         "accuracy": float(np.mean(chances.argmax(1) == truth)),
                         "confidence": float(chances.max(1).mean())})
    return rows


def describe_together(together):
    """Return a sentence on where the correlation of a checkpoint's `answers` comes from."""
    if together["groups"] < FEWEST_GROUPS:
        return (f"several photographs of one plant: a correlation of {ASSUMED:g} is assumed, as "
                f"{together['groups']} groups are too few to measure it")
    return (f"several photographs of one plant: correlation {together['correlation']:.2f}, "
            f"measured on {together['groups']:,} groups")
