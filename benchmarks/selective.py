"""Does the promised share of wrong names hold, over many splits, and how much is answered?

    python benchmarks/selective.py --photos DIR --weights FILE --seeds 10
    figure selective_within_20 0.85 fraction target >= 0.9 missed

Each seed splits the photographs in DIR anew: a fifth of each class is the test set, and a linear
probe is fitted on the rest, on features of the initial weights that are computed once. Limits of
confidence come from out-of-fold predictions of the rest, as train.py sets them with --num_epochs 0,
or ("a tenth") from a random tenth of these, as many as the validation photographs of a fine-tuned
run. "per photograph" is the rule of checkpoints before format 3.
"""
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, probe_features, state
from evaluation.answers import (
    RANKS,
    decide,
    fit_answers,
    limits_at,
    prediction_sets,
    taxa_of,
    temperatures_of,
)
from evaluation.calibration import probabilities
from evaluation.metrics import measure_sets
from evaluation.out_of_distribution import score, score_parts
from names import genus_of
from training.fit_answers import (
    probe_of,
    probe_out_of_fold,
    score_out_of_fold,
    set_threshold,
    statistics_of,
)
from utils import PlantClass

ASKED = (0.1, 0.2)


def main(argv=None):
    flags = parse(__doc__, argv, model="mobilenet_v3_small")
    names, features = probe_features(flags, config.namespace(model=flags.model,
                                                             initial_weights=flags.weights))
    classes = [PlantClass(label, name, "", "", genus=genus_of(name))
               for label, name in enumerate(names)]
    results = defaultdict(list)
    for seed in range(flags.seeds):
        for key, value in measure_split(features, taxa_of(classes), seed).items():
            results[key].append(value)
    print_results(results)
    figures = []
    for risk in ASKED:
        realised = np.array(results["out of fold", risk])[:, 1]
        figures += [(f"selective_within_{100 * risk:.0f}", np.mean(realised <= risk), "fraction",
                     ">=", 0.9)]
    coverage = np.mean([sets["coverage"] for sets in results["sets"]])
    return state([*figures, ("selective_set_coverage", coverage, "fraction", ">=", 0.94)])


def measure_split(features, taxa, seed):
    """Return {what: numbers} of one split; risks map to (answered, wrong among them) per rank."""
    rng, labels = np.random.default_rng(seed), features.labels
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        test[rows[:len(rows) // 5]] = True
    rest = features.take(~test)
    entry, scores = set_threshold(statistics_of(rest), score_out_of_fold(rest, seed))
    out_of_fold = np.column_stack([probe_out_of_fold(rest, seed), scores])
    views = features.views[:, test]
    outputs = np.column_stack([probe_of(rest, len(taxa["species"]))(views).mean(0),
                               score(entry, score_parts(entry, views))])
    tenth = rng.permutation(len(rest.labels))[:len(rest.labels) // 10]
    results = {"accuracy": np.mean(outputs[:, :-1].argmax(1) == labels[test])}
    for way, chosen in (("out of fold", slice(None)), ("a tenth", tenth)):
        temperature, entry = fit_answers(out_of_fold[chosen], rest.labels[chosen], taxa, -np.inf,
                                         way)
        chances = probabilities(outputs[:, :-1], temperatures_of(outputs, temperature, entry))
        results |= answer(chances, labels[test], taxa, entry, way)
        if way == "out of fold":
            results["sets"] = measure_sets(prediction_sets(chances, entry["set_limit"]),
                                           labels[test])
            results |= answer(chances, labels[test], taxa, None, "per photograph")
    return results


def answer(chances, labels, taxa, entry, way):
    """Return {(way, risk): (answered, wrong among those) of the species, then of the genus}."""
    found = {}
    for risk in ASKED:
        answers = decide(chances, np.zeros(len(labels), bool), taxa, limits_at(entry, risk))
        numbers = []
        for rank in RANKS[:2]:
            taken = answers.ranks == rank
            wrong = answers.names[taken] != taxa[rank][labels][taken]
            numbers += [taken.mean(), wrong.mean() if len(wrong) else 0.0]
        found[way, risk] = numbers
    return found


def print_results(results):
    """Print means over the splits, and in how many of them the risk asked for is kept."""
    print(f"accuracy {np.mean(results['accuracy']):.3f}")
    print(f"{'limits from':16} asked  answered        wrong among them  kept in  largest  "
          "by genus alone, wrong")
    for way, risk in [key for key in results if isinstance(key, tuple)]:
        answered, wrong, genus, genus_wrong = np.array(results[way, risk]).T
        print(f"{way:16} {risk:5.2f}  {answered.mean():.3f} +- {answered.std():.3f}  "
              f"{wrong.mean():.3f} +- {wrong.std():.3f}    {np.mean(wrong <= risk):7.2f}  "
              f"{wrong.max():7.3f}  {genus.mean():.3f}, {genus_wrong.mean():.3f}")
    coverage, size = np.array([list(sets.values()) for sets in results["sets"]]).T
    print(f"sets for 95 %: {coverage.mean():.3f} +- {coverage.std():.3f} hold the class, "
          f"{size.mean():.2f} names on average")


if __name__ == "__main__":
    sys.exit(main())
