"""Find label errors and outliers among the cleaned photographs, before they are labelled.

    python dataset_preparation/cleaning/find_label_errors.py
    scored 13,743 photographs in 5 folds: 96.1% are predicted as labelled, 537 as another class;
    of 10 pictures under several names, 9 get a proposal

Reads `<CLEANED_DIR>/cleaned.csv` or, if there is none, `<DATASET_DIR>/train_labels.csv`, such as
that of the published dataset, whose test photographs are not scored. Writes
`<CLEANED_DIR>/label_scores.csv`, the most doubtful label first, and copies the scores to
cleaned.csv: review.py shows the doubtful photographs early, and labelling counts them. Nothing is
removed.

Features come from MODEL with its INITIAL_WEIGHTS, which was not trained on these photographs: a
network fine-tuned on them would have learned their label errors. So no trained run is needed. Every
label is scored by cross-validation: a linear probe fitted on the other folds predicts the class; a
second round fits without the labels that the first one doubts. Groups of photographs that labelling
keeps together are in one fold. Pictures under several names are scored, but not used for fitting.
"""
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config

if __name__ == "__main__":
    config.check_usage(__file__, __doc__)  # before imports that take seconds
import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import cross_entropy

from dataset import read_labels
from dataset_preparation.cleaning import cleaned_table
from dataset_preparation.cleaning.decisions import read_verdicts
from dataset_preparation.cleaning.duplicate_pairs import read_pairs
from dataset_preparation.cleaning.statuses import SURE, join_label_scores, note_choice
from dataset_preparation.known_files import KnownFiles
from dataset_preparation.labeling.groups import group_photographs, link_photographs
from dataset_preparation.labeling.inputs import read_cleaned, read_origins, require_cleaned
from evaluation.calibration import fit_temperature, probabilities
from training.features import build_features
from training.fit_answers import folds_of
from training.linear_probe import DECAYS, fit_linear
from utils import (
    FileLock,
    InputError,
    file_sha256,
    read_classes,
    read_table,
    run,
    warn,
    write_table,
)

COLUMNS = ("file", "sha256", "class",
           "label_score",  # out-of-fold probability of the label, calibrated
           "proposal",  # the most probable class if it differs from the label, see `propose`
           "proposal_probability",
           "outlier_score")  # in (0, 1], see `score_outliers`
DOUBTFUL = 0.3  # probability below which a label is doubtful, as in quality_scores.SUSPICIONS
NEIGHBOURS = 10  # nearest photographs whose mean distance is the outlier score
DISTANCES_MB = 32  # megabytes of distances between photographs at a time


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    if s.initial_weights == "none":
        raise InputError("--initial_weights none: features of a random network cannot find label "
                         "errors; name imagenet_v1, imagenet_v2 or a file")
    classes = read_classes(s.class_table, s.limit_classes)
    table = build_table(s, classes)
    features = build_features(table, table.pop("content"), s)
    left_out = folds_of(table["label"].to_numpy(), table["group"].to_numpy(), s.split_seed,
                        s.label_folds)
    table, features = leave_out_single_groups(
        table.assign(fold=np.argmax(left_out, axis=0)), features, classes)
    labels, folds = (table[name].to_numpy(copy=True) for name in ("label", "fold"))
    predicted, decay = judge_labels(features, labels, folds, len(classes),
                                    ~table["conflict"].to_numpy())
    table = propose(table.assign(label_score=predicted[range(len(labels)), labels],
                                 outlier_score=score_outliers(features)), predicted)
    target = s.cleaned_dir / "label_scores.csv"
    write_table(target, COLUMNS, build_rows(table, classes))
    if (s.cleaned_dir / "cleaned.csv").is_file():
        join_into_cleaned(s.cleaned_dir, target, read_classes(s.class_table))
    print_summary(table, target, len(left_out), decay)


def join_into_cleaned(cleaned, scores, classes):
    """Copy the scores to cleaned.csv, as the next cleaning would."""
    path = cleaned / "cleaned.csv"
    with FileLock(cleaned / "cleaned.csv.lock", f"cleans into {cleaned}"):
        rows = read_table(path, cleaned_table.COLUMNS)
        verdicts = read_verdicts(cleaned / "decisions.csv", classes)
        for row in rows:
            note_choice(row, verdicts, row["width"])
        join_label_scores(rows, cleaned_table.read_label_scores(scores))
        write_table(path, cleaned_table.COLUMNS, rows)


def print_summary(table, target, folds, decay):
    """Print how many labels are doubtful, and what to run next."""
    alone = table[~table["conflict"]]
    other = int((alone["proposal"] >= 0).sum())
    print(f"table: {target}; review.py shows the doubtful first (weight decay of the linear probes "
          f"{decay:g})")
    several = table[table["conflict"]].groupby("picture")["proposal"].max()
    print(f"scored {len(table):,} photographs in {folds} folds: {1 - other / len(alone):.1%} are "
          f"predicted as labelled, {other:,} as another class"
          + (f"; of {len(several):,} pictures under several names, {(several >= 0).sum():,} get a "
             "proposal" if len(several) else ""))


# ---- the photographs ----

def build_table(s, classes):
    """Return the photographs to score, before the split if possible.

    Columns: `path`, `label`, `group` (in one fold), `sha256` and `file` (as collected), `content`
    (SHA-256 of the file read), `conflict` (a picture under several names), `picture` (group of its
    near-duplicates).
    """
    if any((s.cleaned_dir / name).is_file() for name in ("cleaned.csv", "cleaned.csv.journal")):
        require_cleaned(s.cleaned_dir)
        return read_before_split(s, classes)
    label_table = s.dataset_dir / "train_labels.csv"
    warn(f"{s.cleaned_dir} has no cleaned.csv; scoring the training photographs of {label_table}")
    table, rows = read_labels(label_table, classes), read_table(label_table)
    contents = [file_sha256(path) for path in table["path"]]
    return table.assign(
        file=[row["path"] for row in rows], content=contents, conflict=False, picture="",
        sha256=[row.get("sha256") or one for row, one in zip(rows, contents, strict=True)])


def read_before_split(s, classes):
    """Return the kept photographs and those under several names, grouped as in labelling."""
    kept, waiting, files = read_cleaned(s.cleaned_dir, classes)
    origins, pages = read_origins(s.collected_dir, files, (*kept, *waiting))
    rows = [{**row, "author": "", **origins.get(row["sha256"], {})} for row in (*kept, *waiting)]
    groups, _ = group_photographs(rows, [*link_photographs(rows, pages, files, s.series_minutes),
                                         *read_pairs(s.cleaned_dir, rows)])
    known = KnownFiles(s.cleaned_dir)
    table = pd.DataFrame([
        {"path": str(s.cleaned_dir / row["source"]), "label": row["label"], "group": group,
         "sha256": row["sha256"], "file": row["file"], "content": known.sha256(row["source"]),
         "conflict": row["status"] == "review", "picture": row["group"]}
        for row, group in zip(rows, groups, strict=True) if row["status"] != "duplicate"
        and (s.cleaned_dir / row["source"]).is_file()])
    if table.empty:
        raise InputError(f"{s.cleaned_dir / 'cleaned.csv'} keeps no photographs of the classes in "
                         "use; see its column 'reason'")
    return table.drop_duplicates("path").reset_index(drop=True)


def leave_out_single_groups(table, features, classes):
    """Return table and features without classes that lie in a single fold, with a warning."""
    taught = table[~table["conflict"]].groupby("label")["fold"].nunique()
    single = ~table["label"].isin(taught.index[taught > 1])
    if single.all():
        raise InputError("every class is a single group of photographs, so labels cannot be "
                         "cross-validated; see the groups in split_report.txt")
    if single.any():
        names = ", ".join(classes[label].latin for label in sorted(set(table["label"][single])))
        warn(f"{single.sum()} photographs of {names} are not scored, because all of their class "
             "are one group or under several names")
    return table[~single].reset_index(drop=True), features[~single.to_numpy()]


# ---- out-of-fold predictions ----

def judge_labels(features, labels, folds, num_classes, trains):
    """Return (out-of-fold probabilities (N, K), calibrated, and the weight decay).

    In two rounds: the second fits on labels that the first does not doubt, as in Northcutt et al.,
    "Confident Learning", 2021, but keeps all labels of a class that would lose most of them. The
    temperature is of all labels: those that are trusted agree too often.
    """
    def judge_by(trusted):
        logits, decay = cross_validate(features, labels, folds, num_classes, trusted)
        temperature = fit_temperature(logits[trains], labels[trains])
        return probabilities(logits, temperature).astype(float), decay
    predicted, _ = judge_by(trains)
    sure = trains & (predicted[range(len(labels)), labels] >= DOUBTFUL)
    kept, all_of_class = (np.bincount(labels[some], minlength=num_classes)
                          for some in (sure, trains))
    return judge_by(sure | (trains & (2 * kept < all_of_class)[labels]))


def cross_validate(features, labels, folds, num_classes, trains):
    """Return (out-of-fold logits (N, K), weight decay) of softmax regressions, one per fold.

    `features` are (N, D), `labels` and `folds` (N,) integers, `trains` (N,) booleans: the
    photographs to fit on. The weight decay is common to all folds; starting with the strongest, it
    is weakened as long as the out-of-fold loss falls.
    """
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    trains = torch.from_numpy(trains)
    # One scale for all features, as in linear_probe.py, finds no more errors: see docs/history.md.
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-6)
    heads = {fold: (torch.zeros(num_classes, x.shape[1]), torch.zeros(num_classes))
             for fold in np.unique(folds)}
    best = (float("inf"), None, None)
    for decay in DECAYS:
        logits = torch.zeros(len(y), num_classes)
        for fold, start in heads.items():
            out = torch.from_numpy(folds == fold)
            fitted = ~out & trains
            weight, bias, _ = fit_linear(x[fitted], y[fitted], *start, cross_entropy, decay)
            heads[fold] = weight, bias  # the start at the next, weaker decay
            logits[out] = x[out] @ weight.T + bias
        loss = cross_entropy(logits[trains], y[trains]).item()
        if loss >= best[0]:
            break
        best = loss, logits.numpy(), decay
    return best[1:]


def score_outliers(features):
    """Return exp(-d) (N,) in (0, 1] of features (N, D), d the mean distance to the neighbours.

    The unit of d is its median: 0.37 is typical, 0.14 is twice as far away, as in cleanlab.
    """
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(features) - 1), metric="cosine")
    # In blocks, because the distances between 14,000 photographs take 1.6 GB.
    with sklearn.config_context(working_memory=DISTANCES_MB):
        means = nearest.fit(features).kneighbors()[0].mean(1)
    return np.exp(-means / max(np.median(means), 1e-12))


# ---- proposals and the table ----

def propose(table, predicted):
    """Return the table with `proposal`, a label or -1, and `proposal_probability`.

    `predicted` are the probabilities (N, K). The proposal for a photograph is the predicted class
    if it differs from the label. The proposal for a picture under several names is the one of them
    that is the most probable class, with at least SURE, in the mean over its files.
    """
    labels, best = table["label"].to_numpy(), predicted.argmax(1)
    proposals, chances = np.where(best != labels, best, -1), predicted.max(1)
    pictures = defaultdict(list)
    for i in np.flatnonzero(table["conflict"]):
        pictures[table["picture"][i]].append(i)
    for files in pictures.values():
        mean = predicted[files].mean(0)
        favoured = mean.argmax()
        sure = mean[favoured] >= SURE and favoured in labels[files]
        proposals[files], chances[files] = favoured if sure else -1, mean[favoured]
    return table.assign(proposal=proposals, proposal_probability=chances)


def build_rows(table, classes):
    """Return the rows of label_scores.csv, the most doubtful label first."""
    rows = []
    for row in table.itertuples():
        proposed = row.proposal >= 0
        rows.append({"file": row.file, "sha256": row.sha256, "class": classes[row.label].latin,
                     "label_score": f"{row.label_score:.4f}",
                     "proposal": classes[row.proposal].latin if proposed else "",
                     "proposal_probability": f"{row.proposal_probability:.4f}" if proposed else "",
                     "outlier_score": f"{row.outlier_score:.4f}"})
    return sorted(rows, key=lambda row: (row["label_score"], row["file"]))


if __name__ == "__main__":
    run(main)
