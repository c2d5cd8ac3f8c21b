"""How many photographs of unknown plants are turned away if 95 % of the known are accepted?

    python benchmarks/out_of_distribution.py --photos DIR --sets flowers,wild,market --weights FILE
    figure ood_unknown 0.389 fraction target >= 0.35 met

In each set below DIR (one folder per class), a third of the classes is left out in turn. A quarter
of each known class is the test set. A linear probe is fitted to the rest, as by train.py with
--num_epochs 0, on features of the initial weights that are computed once. "unknown" are the
photographs of the classes left out, "others" those of the other sets. "with a background" also uses
up to 200 photographs of the unknown plants and a sixth of the others to set the score; with "other
kinds" these 200 are of half of the unknown classes, and the other half is to be turned away. "by
threshold" uses the threshold that train.py sets out of fold.
"""
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, probe_features, state
from evaluation.calibration import threshold_at
from evaluation.out_of_distribution import score, score_parts, standardize
from training.fit_answers import probe_of, score_out_of_fold, statistics_of

THIRDS, BACKGROUND, OTHERS = 3, 200, 150
BASELINE = "formats 1 and 2"


def main(argv=None):
    flags = parse(__doc__, argv, sets="flowers,wild,market", model="mobilenet_v3_small")
    s = config.namespace(model=flags.model, initial_weights=flags.weights)
    sets = {name: probe_features(SimpleNamespace(**{**vars(flags), "photos": flags.photos / name}),
                                 s)[1] for name in flags.sets.split(",")}
    results = defaultdict(list)
    for name, features in sets.items():
        rest = [other.views for key, other in sets.items() if key != name]
        for seed in range(flags.seeds):
            for third in range(THIRDS):
                for key, value in measure(features, rest, seed, third).items():
                    results[(name, *key)].append(value)
    return report(results, list(sets))


def measure(features, rest, seed, third):
    """Return {(score, what): share} of one third of the classes left out."""
    rng, labels = np.random.default_rng(seed), features.labels
    order = rng.permutation(np.unique(labels))
    unknown = np.isin(labels, order[third::THIRDS])
    test = np.zeros(len(labels), bool)
    for label in order:
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[:len(rows) // 4]] = True
    train = features.take(~unknown & ~test)
    train = train._replace(labels=np.unique(train.labels, return_inverse=True)[1])
    known = features.views[:, ~unknown & test]
    others = np.concatenate([views[:, rng.permutation(views.shape[1])[:OTHERS]]
                             for views in rest], 1)
    found = simple_scores(train, {"known": known, "unknown": features.views[:, unknown],
                                  "others": others})
    found |= in_use("in use", train, known, features.views[:, unknown], others, None, seed)
    shuffled = rng.permutation(np.flatnonzero(unknown))
    half = np.isin(labels[shuffled], order[third::THIRDS][::2])
    cut = min(BACKGROUND, len(shuffled) // 2)
    for name, shown, away in (("with a background", shuffled[:cut], shuffled[cut:]),
                              ("other kinds", shuffled[half][:BACKGROUND], shuffled[~half])):
        background = np.concatenate([features.views[:, shown], others[:, ::6]], 1)
        rest_of_others = np.delete(others, np.s_[::6], 1)
        found |= in_use(name, train, known, features.views[:, away], rest_of_others, background,
                        seed)
    return found


def in_use(name, train, known, unknown, others, background, seed):
    """Return {(name, what): share} of the score that train.py sets."""
    parts = score_out_of_fold(train, seed, background)
    statistics = standardize(statistics_of(train, background), parts)
    scores = {kind: score(statistics, score_parts(statistics, views)) for kind, views in
              {"known": known, "unknown": unknown, "others": others}.items()}
    threshold = threshold_at(score(statistics, parts))
    size = sum(array.numel() * array.element_size() for array in statistics.values())
    return shares(name, scores) | {
        (name, "accepted"): np.mean(scores["known"] >= threshold),
        (name, "by threshold"): np.mean(scores["unknown"] < threshold), (name, "bytes"): size}


def shares(name, scores):
    """Return {(name, kind): share turned away where 95 % of the known are accepted}."""
    threshold = threshold_at(scores["known"])
    return {(name, kind): np.mean(scores[kind] < threshold) for kind in ("unknown", "others")}


def simple_scores(train, kinds):
    """Return `shares` of the scores of SCORES and of checkpoint formats 1 and 2."""
    probe = probe_of(train, train.labels.max() + 1)
    means = np.stack([train.views[0, train.labels == label].mean(0)
                      for label in range(train.labels.max() + 1)])
    inputs = {kind: (probe(views).mean(0).astype(float), views[0])
              for kind, views in kinds.items()}
    scores = {name: {kind: function(*given, means, train.views[0])
                     for kind, given in inputs.items()} for name, function in SCORES.items()}
    parts = [scores["cosine to class mean"], scores["max logit / |features|"]]
    scores[BASELINE] = {kind: sum(part[kind] / part["known"].std() for part in parts)
                        for kind in kinds}
    return {key: value for name in scores for key, value in shares(name, scores[name]).items()}


def unit(rows):
    """Return rows scaled to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def log_sum(logits):
    """Return the logarithm of the sum of the exponentials of logits (N, K), (N,)."""
    return np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)


SCORES = {  # high = known: (logits, features, class means, features of train) -> (N,)
    "max probability": lambda logits, features, means, known: logits.max(1) - log_sum(logits),
    "max logit": lambda logits, features, means, known: logits.max(1),
    "energy": lambda logits, features, means, known: log_sum(logits),
    "max logit / |features|": lambda logits, features, means, known: (
        logits.max(1) / np.linalg.norm(features, axis=1)),
    "cosine to class mean": lambda logits, features, means, known: (
        unit(features) @ unit(means).T).max(1),
    "5th nearest neighbour": lambda logits, features, means, known: (
        np.sort(unit(features) @ unit(known).T, 1)[:, -5]),
}


def report(results, sets):
    """Print a table of means over seeds and thirds; state the figures, return the exit status."""
    def means(name, what):
        values = [np.mean(results[key, name, what]) for key in sets]
        return [*values, np.mean(values)]
    columns = [*sets, "mean"]
    print(f"{'turned away':24}" + "".join(f"{name[:8]:>9}" for name in columns) * 2
          + "  (unknown, then others)")
    for name in dict.fromkeys(key[1] for key in results):
        print(f"{name:24}" + "".join(f"{value:9.3f}" for what in ("unknown", "others")
                                     for value in means(name, what)))
    for name in ("in use", "with a background", "other kinds"):
        print(f"{name}: by threshold " + ", ".join(
            f"{what} {means(name, what)[-1]:.3f}" for what in ("by threshold", "accepted"))
            + f"; {max(max(results[key, name, 'bytes']) for key in sets):,} bytes")
    away = {name: means(name, "unknown")[-1] for name in ("in use", BASELINE, "with a background")}
    return state([
        ("ood_unknown", away["in use"], "fraction", ">=", 0.35),
        ("ood_unknown_gain", away["in use"] - away[BASELINE], "fraction", ">=", 0.1),
        ("ood_unknown_with_background", away["with a background"], "fraction", ">=", 0.7),
        ("ood_others", means("in use", "others")[-1], "fraction", ">=", 0.7),
        ("ood_known_accepted", means("in use", "accepted")[-1], "fraction", ">=", 0.9)])


if __name__ == "__main__":
    sys.exit(main())
