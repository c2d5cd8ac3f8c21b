"""Find label errors and outliers among the training photographs, for the review.

    pip install cleanlab
    python dataset_preparation/cleaning/find_label_errors.py
    scored 12,223 photographs in 5 folds: 96.1% are predicted as labelled, 477 as another class

Reads `<DATASET_DIR>/train_labels.csv`; the test set is never opened. Writes
`<CLEANED_DIR>/label_scores.csv`, the most doubtful label first. Run cleaning.py again to join it
into cleaned.csv; review.py then shows the doubtful photographs early. Nothing is removed.

Features come from MODEL with its INITIAL_WEIGHTS, a network that was not trained on these
photographs: one fine-tuned on them would have learned their label errors and reproduce them. So no
trained run is needed. Every label is scored by cross-validation: a linear probe fitted on the other
folds predicts the class. Photographs of one group are in one fold.
"""
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config
from dataset import batches, build_eval_loader, read_labels
from evaluation.calibration import fit_temperature, probabilities
from evaluation.inference import collect_logits
from model import build_model, load_initial_weights, without_head
from training.image_cache import build_cache
from training.linear_probe import DECAYS, fit_linear
from training.runs import pick_device, stream_seed
from utils import (
    InputError,
    file_sha256,
    progress,
    read_classes,
    read_table,
    run,
    sha256,
    warn,
    write_table,
)

COLUMNS = ("path", "sha256", "class", "label_score", "proposal", "outlier_score")
NEIGHBOURS = 10  # nearest photographs whose mean distance is the outlier score


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    cleanlab = load_cleanlab()
    if s.initial_weights == "none":
        raise InputError("--initial_weights none: features of a random network cannot find label "
                         "errors; name imagenet_v1, imagenet_v2 or a file")
    classes = read_classes(s.class_table, s.limit_classes)
    label_table = s.dataset_dir / "train_labels.csv"
    table = read_labels(label_table, classes)
    labels = table["label"].to_numpy(copy=True)
    features = collect_features(table, len(classes), s)
    folds = assign_folds(table, s.label_folds, s.split_seed)
    logits, decay = cross_validate(features, labels, folds, len(classes))

    predicted = probabilities(logits, fit_temperature(logits, labels)).astype(float)
    label_scores = cleanlab.rank.get_label_quality_scores(labels, predicted,
                                                          method="normalized_margin")
    neighbours = min(NEIGHBOURS, len(labels) - 1)
    outliers = cleanlab.outlier.OutOfDistribution({"k": neighbours})
    outlier_scores = outliers.fit_score(features=features, verbose=False)
    table = table.assign(predicted=predicted.argmax(1), label_score=label_scores,
                         outlier_score=outlier_scores)
    target = s.cleaned_dir / "label_scores.csv"
    write_table(target, COLUMNS, build_rows(table, read_table(label_table), classes))
    if not (s.cleaned_dir / "cleaned.csv").is_file():
        warn(f"{s.cleaned_dir} holds no cleaned.csv to join the scores to; see the table itself")
    other = int(np.sum(table["predicted"] != labels))
    print(f"table: {target}; run cleaning.py, then review.py, to see these photographs "
          f"(weight decay of the linear probes {decay:g})")
    print(f"scored {len(labels):,} photographs in {s.label_folds} folds: "
          f"{1 - other / len(labels):.1%} are predicted as labelled, {other:,} as another class")


def load_cleanlab():
    """Return the package that computes the scores; raise InputError saying how to install it."""
    try:
        import cleanlab.outlier
        import cleanlab.rank
    except ImportError:
        raise InputError("find_label_errors.py needs cleanlab: pip install cleanlab") from None
    return cleanlab


def collect_features(table, num_classes, s):
    """Return the inputs of the head, float32 (N, D): means over photographs and mirror images."""
    device = pick_device(s.device)
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, num_classes)
    print(load_initial_weights(model, s.model, s.initial_weights)[1])
    loader = build_eval_loader(table, s, build_cache(table, s))
    images = batches(loader, device, s.mean, s.std)
    with without_head(model):
        return collect_logits(model.to(device), progress(images, len(loader), "features", "batch"),
                              flip_tta=True)[0]


def assign_folds(table, count, seed):
    """Return the fold, 0 to count - 1, of every photograph: whole groups, classes spread evenly.

    Groups are assigned in hash order, each to the fold with fewest photographs of its class.
    """
    groups = table.groupby("group")["label"].agg(list)
    sizes, folds = np.zeros((table["label"].max() + 1, count), dtype=int), {}
    for group in sorted(groups.index, key=lambda name: sha256(f"{seed}:{name}".encode())):
        labels = groups[group]
        folds[group] = min(range(count), key=lambda fold: (
            sizes[labels[0], fold], sizes[:, fold].sum(), fold))
        np.add.at(sizes[:, folds[group]], labels, 1)
    return table["group"].map(folds).to_numpy()


def cross_validate(features, labels, folds, num_classes):
    """Return (out-of-fold logits (N, K), weight decay) of softmax regressions, one per fold.

    `features` are (N, D), `labels` and `folds` (N,) integers. The weight decay, one for all folds,
    has the lowest out-of-fold loss; from the strongest on it is weakened for as long as that helps.
    """
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    # One scale for all features, as in linear_probe.py, finds no more errors: see RESULTS.md.
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    heads = {fold: (torch.zeros(num_classes, x.shape[1]), torch.zeros(num_classes))
             for fold in np.unique(folds)}
    best = (float("inf"), None, None)
    for decay in DECAYS:
        logits = torch.zeros(len(y), num_classes)
        for fold, start in heads.items():
            out = torch.from_numpy(folds == fold)
            weight, bias, _ = fit_linear(x[~out], y[~out], *start, cross_entropy, decay)
            heads[fold] = weight, bias  # the start at the next, weaker decay
            logits[out] = x[out] @ weight.T + bias
        loss = cross_entropy(logits, y).item()
        if loss >= best[0]:
            break
        best = loss, logits.numpy(), decay
    return best[1:]


def build_rows(table, label_rows, classes):
    """Return the rows of label_scores.csv, the most doubtful label first.

    `label_score` in [0, 1] is half of 1 + p(label) - p(best other class). `outlier_score` in (0, 1]
    is exp(-d), d the mean distance to the nearest photographs over the median of these means:
    0.37 is usual, 0.14 twice as far away. `label_rows` are the rows of the label table as it is.
    """
    rows = []
    for label_row, row in zip(label_rows, table.itertuples(), strict=True):
        proposal = classes[row.predicted].latin if row.predicted != row.label else ""
        rows.append({"path": label_row["path"],
                     "sha256": label_row.get("sha256") or file_sha256(row.path),
                     "class": classes[row.label].latin, "label_score": f"{row.label_score:.4f}",
                     "proposal": proposal, "outlier_score": f"{row.outlier_score:.4f}"})
    return sorted(rows, key=lambda row: (row["label_score"], row["path"]))


if __name__ == "__main__":
    run(main)
