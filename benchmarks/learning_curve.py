"""Does the report's learning curve predict what the next doubling of photographs brings?

    python benchmarks/learning_curve.py --photos DIR --weights FILE
    all classes: foreseen from a half +0.041 (+0.012 to +0.066) measured +0.040; ...
    figure measured_gain_above_the_low_end 0.028 fraction target >= 0 met

From an eighth, a quarter and a half of the photographs in DIR (one folder per class), the gain that
the second half will bring is predicted as the report predicts it, and compared with the measured
gain. Accuracies are those of linear probes; features are computed once.
"""
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, probe_features, state
from evaluation.learning_curve import describe_curve, probe_shares


def main(argv=None):
    flags = parse(__doc__, argv, model="mobilenet_v3_small", image_size=224, draws=3)
    s = config.namespace(model=flags.model, initial_weights=flags.weights)
    names, features = probe_features(flags, s, flags.image_size)
    features = features._replace(views=features.views.mean(0, keepdims=True))
    hits, counts = probe_shares(features, len(names), flags.draws, s.seed, even=True)
    half, whole = describe_curve(hits[:, :-1], counts[:-1], features), describe_curve(
        hits, counts, features)

    def gained(entry):
        return entry["accuracy"][-1][0] - entry["accuracy"][-2][0]
    print("all classes: foreseen from a half {:+.3f} ({:+.3f} to {:+.3f})".format(*half["gain"]),
          f"measured {gained(whole):+.3f}; photographs and accuracy",
          [(round(count), round(row[0], 3))
           for count, row in zip(whole["photographs"], whole["accuracy"], strict=True)])
    foreseen = np.array([row["gain"] for row in half["classes"]])  # (K, 3)
    measured = np.array([gained(row) for row in whole["classes"]])
    inside = (foreseen[:, 1] <= measured) & (measured <= foreseen[:, 2])
    best = np.argsort(-foreseen[:, 0], kind="stable")[:3]
    print(f"per class: {inside.sum()} of {len(inside)} measured gains in the interval foreseen, "
          f"correlation {np.corrcoef(foreseen[:, 0], measured)[0, 1]:+.2f}; mean measured gain of "
          f"the three foremost {measured[best].mean():+.3f}, of all {measured.mean():+.3f}")
    low, high = half["gain"][1:]
    return state([("measured_gain_above_the_low_end", gained(whole) - low, "fraction", ">=", 0),
                  ("measured_gain_below_the_high_end", high - gained(whole), "fraction", ">=", 0)])


if __name__ == "__main__":
    sys.exit(main())
