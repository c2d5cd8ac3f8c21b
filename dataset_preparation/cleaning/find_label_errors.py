"""Judge the labels of the training photographs, for review: which name looks wrong, which photograph like no other.

    pip install cleanlab
    python dataset_preparation/cleaning/find_label_errors.py
    judged 12,223 photographs in 5 parts: 96.1% get their own name, 477 are taken for another class

Reads `<DATASET_DIR>/train_labels.csv`; the test set is never opened. Writes `<CLEANED_DIR>/label_scores.csv`, the most
doubtful label first. cleaning.py, run again, joins it into cleaned.csv; review.py then shows the doubtful ones early.
Nothing is removed.

Features come from MODEL with its INITIAL_WEIGHTS, a network that knows none of these photographs: one fine-tuned on
them has learnt wrong labels, too, and would find them right. So no trained run is needed. Every photograph is judged by
a linear head fitted on the other parts; photographs of one group are in one part.
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
from utils import InputError, file_sha256, progress, read_classes, read_table, run, sha256, warn, write_table

COLUMNS = ("path", "sha256", "class", "label_score", "proposal", "outlier_score")
NEIGHBOURS = 10  # photographs whose mean distance tells an outlier


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    cleanlab = load_cleanlab()
    check_settings(s)
    classes = read_classes(s.class_table, s.limit_classes)
    table = s.dataset_dir / "train_labels.csv"
    frame = read_labels(table, classes)
    labels = frame["label"].to_numpy(copy=True)
    features = collect_features(frame, len(classes), s)
    logits, decay = judge_by_others(features, labels, deal_parts(frame, s.label_folds, s.split_seed), len(classes))

    chances = probabilities(logits, fit_temperature(logits, labels)).astype(float)
    label_scores = cleanlab.rank.get_label_quality_scores(labels, chances, method="normalized_margin")
    judge = cleanlab.outlier.OutOfDistribution({"k": min(NEIGHBOURS, len(labels) - 1)})
    outlier_scores = judge.fit_score(features=features, verbose=False)
    rows = describe(read_table(table), frame, classes, chances.argmax(1), label_scores, outlier_scores)
    target = s.cleaned_dir / "label_scores.csv"
    write_table(target, COLUMNS, rows)
    if not (s.cleaned_dir / "cleaned.csv").is_file():
        warn(f"{s.cleaned_dir} holds no cleaned.csv that the scores could be joined to; read the table itself")
    other = int(np.sum(chances.argmax(1) != labels))
    print(f"table: {target}; run cleaning.py, then review.py, to look at them (weight decay of the heads {decay:g})")
    print(f"judged {len(labels):,} photographs in {s.label_folds} parts: {1 - other / len(labels):.1%} get their own "
          f"name, {other:,} are taken for another class")


def load_cleanlab():
    """Return the package that judges; raise InputError saying how to install it."""
    try:
        import cleanlab.outlier
        import cleanlab.rank
    except ImportError:
        raise InputError("find_label_errors.py needs cleanlab: pip install cleanlab") from None
    return cleanlab


def check_settings(s):
    """Raise InputError for settings nothing can be judged with."""
    if s.initial_weights == "none":
        raise InputError("--initial_weights none: the features of a random network tell nothing; name imagenet_v1, "
                         "imagenet_v2 or a file")


def collect_features(frame, num_classes, s):
    """Return what stands below the head, float32 (N, D): the mean over each photograph and its mirror image."""
    device = pick_device(s.device)
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, num_classes)
    print(load_initial_weights(model, s.model, s.initial_weights)[1])
    loader = build_eval_loader(frame, s, build_cache(frame, s))
    read = progress(batches(loader, device, s.mean, s.std), len(loader), "features", unit="batch")
    with without_head(model):
        return collect_logits(model.to(device), read, flip_tta=True)[0]


def deal_parts(frame, count, seed):
    """Return the part, 0 to count - 1, of every photograph: whole groups, in hash order, classes spread evenly."""
    groups = frame.groupby("group")["label"].agg(list)
    held, parts = np.zeros((frame["label"].max() + 1, count), dtype=int), {}
    for group in sorted(groups.index, key=lambda name: sha256(f"{seed}:{name}".encode())):
        labels = groups[group]
        parts[group] = min(range(count), key=lambda part: (held[labels[0], part], held[:, part].sum(), part))
        np.add.at(held[:, parts[group]], labels, 1)
    return frame["group"].map(parts).to_numpy()


def judge_by_others(features, labels, parts, num_classes):
    """Return (logits (N, K), weight decay): each photograph's by the softmax regression fitted on the other parts.

    `features` are (N, D), `labels` and `parts` (N,) integers. The weight decay, one for all, has the lowest loss on
    the photographs judged; it is made weaker from the strongest on for as long as that helps.
    """
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)  # one scale for all, as in linear_probe.py, finds no more: see RESULTS.md
    heads = {part: (torch.zeros(num_classes, x.shape[1]), torch.zeros(num_classes)) for part in np.unique(parts)}
    best = (float("inf"), None, None)
    for decay in DECAYS:
        logits = torch.zeros(len(y), num_classes)
        for part, start in heads.items():
            judged = torch.from_numpy(parts == part)
            weight, bias, _ = fit_linear(x[~judged], y[~judged], *start, cross_entropy, decay)
            heads[part] = weight, bias
            logits[judged] = x[judged] @ weight.T + bias
        loss = cross_entropy(logits, y).item()
        if loss >= best[0]:
            break
        best = loss, logits.numpy(), decay
    return best[1:]


def describe(given, frame, classes, answers, label_scores, outlier_scores):
    """Return the rows of the table, the most doubtful label first; `given` are the rows of the label table.

    `label_score` in [0, 1] is half of 1 + p(label) - p(best other class). `outlier_score` in (0, 1] is exp(-d), d the
    mean distance to the nearest photographs by the median of all: 0.37 is usual, 0.14 twice as far away.
    """
    rows = []
    for row, path, label, answer, label_score, outlier_score in zip(
            given, frame["path"], frame["label"], answers, label_scores, outlier_scores, strict=True):
        rows.append({"path": row["path"], "sha256": row.get("sha256") or file_sha256(path),
                     "class": classes[label].latin, "label_score": f"{label_score:.4f}",
                     "proposal": classes[answer].latin if answer != label else "",
                     "outlier_score": f"{outlier_score:.4f}"})
    return sorted(rows, key=lambda row: (row["label_score"], row["path"]))


if __name__ == "__main__":
    run(main)
