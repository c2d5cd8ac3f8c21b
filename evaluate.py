"""Evaluate a finished checkpoint on the test set and write the report: numbers, tables, a page.

    python evaluate.py                          # the newest finished run, else the downloaded one
    python evaluate.py --checkpoint FILE
    test accuracy 95.14 % (95 % confidence interval 91.0 to 97.9), macro-F1 0.951, 144 photographs

Reads `<DATASET_DIR>/test_labels.csv` and refuses photographs that the network was trained or
validated on. Writes to `<RUNS_DIR>/<run>/`: report.html (one file with its photographs inside),
report.json, per_class.csv, predictions.csv and confusion_matrix.png; numbers and figures go to
TensorBoard, too. No other script predicts the test set.

predictions.csv has one row per photograph:

    path                  relative to DATASET_DIR
    latin, predicted      the true and the predicted class
    probability           calibrated, of the predicted class
    probability_of_latin  calibrated, of the true class
    reason                why the species is not named: risk, out-of-distribution or empty
    rank, answer          species, genus or family, and its name; empty if nothing is named
"""
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import config

if __name__ == "__main__":
    config.check_usage(__file__, __doc__)  # before imports that take seconds
import numpy as np
import pandas as pd

from dataset import batches, build_eval_loader, read_labels
from evaluation.answers import (
    FEWEST_FOR_SETS,
    NO_SETS,
    Answers,
    answer_outputs,
    require_finite_outputs,
    taxa_of,
    temperatures_of,
)
from evaluation.grad_cam import grad_cam, overlay
from evaluation.inference import collect_logits
from evaluation.learning_curve import build_learning_curve, describe_gain
from evaluation.metrics import confusions, measure_answers, measure_sets, per_class, summarize
from evaluation.out_of_distribution import add_score
from evaluation.report import draw_confusion, write_page, write_report_tables, write_tensorboard
from evaluation.together import gains
from evaluation.trained_model import identify_model, restore_model
from images import View
from names import list_some
from training.checkpoints import open_checkpoint
from training.contents import require_separate, require_unseen
from training.runs import environment, pick_device
from utils import file_sha256, read_classes, read_table, run, warn


class Predictions(NamedTuple):
    """The test photographs, one per row, and the network's predictions for them."""

    table: pd.DataFrame  # path, label, group
    outputs: np.ndarray  # (N, K + 1), logits and score
    temperatures: np.ndarray | None  # (N, 1), None if the checkpoint has no temperature
    labels: np.ndarray  # (N,)
    predicted: np.ndarray  # (N,) labels
    probabilities: np.ndarray  # (N, K), calibrated
    answers: Answers
    sets: np.ndarray | None  # (N, K) booleans, None for an older checkpoint


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    path, checkpoint = open_checkpoint(s)
    print(f"checkpoint {path}")
    if checkpoint["temperature"] is None:
        warn(f"{path} has no temperature: its probabilities are not calibrated")
    classes = read_classes(s.class_table, s.limit_classes)
    table = read_labels(s.dataset_dir / "test_labels.csv", classes)
    require_separate(s.dataset_dir)
    require_unseen(table, checkpoint["seen"], path, s.dataset_dir)
    model = restore_model(checkpoint, path, [plant.latin for plant in classes])
    parameters = sum(parameter.numel() for parameter in model.parameters())

    test = build_predictions(model, checkpoint, table, classes, path, s)
    report = {**provenance(path, checkpoint, parameters, len(classes)),
              **measure_test(test, checkpoint, classes, count_training(s.dataset_dir, classes)),
              "learning_curve": build_learning_curve(s, checkpoint["settings"], classes),
              "max_risk": s.max_risk, "doubtful_labels": count_doubtful(s.dataset_dir)}
    folder, rows = s.runs_dir / report["run"], prediction_rows(test, classes, s.dataset_dir)
    write_report_tables(folder, report, rows)  # before the pictures, so that no number is lost
    figure = draw_confusion(folder / "confusion_matrix.png", np.array(report["confusion_matrix"]),
                            [plant.latin for plant in classes])

    mistakes, examples = choose_photographs(test, s.report_photos)
    views, overlays = explain(model, checkpoint, test, np.concatenate([mistakes, examples]), s)
    write_tensorboard(folder, report, test, classes, figure, overlays[:len(mistakes)])
    photos = [{**rows[i], "label": int(test.labels[i]), "predicted_label": int(test.predicted[i])}
              for i in mistakes]
    example_views = dict(zip(test.labels[examples].tolist(), views[len(mistakes):], strict=True))
    write_page(folder / "report.html", report, classes, photos, views[:len(mistakes)],
               overlays[:len(mistakes)], example_views)

    print(describe_doubts(report["doubtful_labels"]))
    print(f"report: {folder / 'report.html'}; also report.json, per_class.csv, predictions.csv and "
          "confusion_matrix.png there")
    low, high = report["interval"]
    print_absent(report, classes)
    print_answers(report)
    if report["learning_curve"]:
        print(describe_gain(report["learning_curve"], classes))
    print_together(report)
    print(f"test accuracy {100 * report['accuracy']:.2f} % (95 % confidence interval "
          f"{100 * low:.1f} to {100 * high:.1f}), macro-F1 {report['macro_f1']:.3f}, "
          f"{len(table):,} photographs")


# ---- predictions and numbers ----

def build_predictions(model, checkpoint, table, classes, path, s):
    """Return the `Predictions` for the test photographs; adds the checkpoint's score to `model`."""
    entry = checkpoint["out_of_distribution"]
    outputs, labels = predict_test(add_score(model, entry, path), checkpoint, table, s)
    require_finite_outputs(outputs, path)
    temperature, fitted = checkpoint["temperature"], checkpoint["answers"]
    chances, _, answers, sets = answer_outputs(
        outputs, taxa_of(classes), temperature or 1.0, entry and entry["threshold"], fitted,
        s.max_risk)
    temperatures = temperature and temperatures_of(outputs, temperature, fitted)
    return Predictions(table, outputs, temperatures, labels, chances.argmax(1), chances,
                       answers, sets)


def predict_test(model, checkpoint, table, s):
    """Return the outputs (N, ...) of a network for the test photographs, and their labels (N,).

    No other function predicts the test set.
    """
    device = pick_device(s.device)
    loader = build_loader(table, checkpoint, s)
    return collect_logits(model.to(device),
                          batches(loader, device, checkpoint["mean"], checkpoint["std"]),
                          checkpoint["flip_tta"])


def build_loader(table, checkpoint, s):
    """Return the loader of evaluation views of the checkpoint's size."""
    settings = {**vars(s), **{key: checkpoint[key] for key in View._fields}}
    return build_eval_loader(table, SimpleNamespace(**settings))


def measure_test(test, checkpoint, classes, train_counts):
    """Return the numbers of the report: {name: value}."""
    matrix, pairs = confusions(test.labels, test.predicted, len(classes))
    entry, fitted = checkpoint["out_of_distribution"], checkpoint["answers"]
    groups = test.table["group"].to_numpy()
    few = test.sets is None or fitted["photographs"] < FEWEST_FOR_SETS  # all names in every set
    return {**summarize(test.outputs[:, :-1], test.labels, groups, test.temperatures,
                        test.answers.reasons),
            **measure_answers(test.answers, test.probabilities, test.labels, taxa_of(classes)),
            "sets": None if few else measure_sets(test.sets, test.labels),
            "together": gains(test.outputs, test.labels, groups,
                              checkpoint["temperature"] or 1.0, fitted),
            "limits_from": fitted and {key: fitted[key] for key in ("source", "photographs")},
            "threshold": entry and entry["threshold"], "unknown": checkpoint["unknown"],
            "pairs": pairs,
            "classes": per_class(test.labels, test.predicted, classes, train_counts, groups,
                                 test.sets),
            "confusion_matrix": matrix.tolist()}


def print_absent(report, classes):
    """Print which classes have no test photographs, if any; macro-F1 ignores them."""
    present = {row["label"] for row in report["classes"]}
    absent = [plant.latin for plant in classes if plant.label not in present]
    if absent:
        print(f"macro-F1 is that of {len(present):,} classes; without test photographs: "
              f"{list_some(absent)}")


def print_answers(report):
    """Print how many test photographs are answered at each rank, and how many wrongly."""
    if report["limits_from"] is None:
        print("the checkpoint is of an earlier version, or its run has not ended: --max_risk "
              "applies to each photograph")
    for rank, numbers in report["ranks"].items():
        if numbers["answered"]:
            print(f"{rank}: {numbers['answered']:,} of {report['photographs']:,} answered, "
                  f"{100 * numbers['wrong'] / numbers['answered']:.1f} % of them wrong "
                  f"({100 * report['max_risk']:g} % allowed)")
    if report["limits_from"] and not report["sets"]:
        print(NO_SETS)
    elif report["sets"]:
        print("sets that should contain the right name for 95 %: "
              f"{100 * report['sets']['coverage']:.1f} % do, {report['sets']['mean_size']:.2f} "
              "names on average")


def print_together(report):
    """Print the accuracy with several photographs of one plant."""
    rows = report["together"]
    if len(rows) > 1:
        print("one answer for several photographs, accuracy on a part of test: " + ", ".join(
            f"{100 * row['accuracy']:.1f} % by {row['photographs']} ({row['plants']:,} "
            f"{'groups' if row['of'] == 'group' else 'trios'})" for row in rows)
            + ("" if rows[0]["of"] == "group" else
               "; different plants of a class, as there are too few groups: photographs of one "
               "plant gain less"))


def provenance(path, checkpoint, parameters, num_classes):
    """Return the facts about what was evaluated: checkpoint, network, settings, versions."""
    settings = {key: value for key, value in (checkpoint.get("settings") or {}).items()
                if key != "classes"}
    model = checkpoint.get("model") or identify_model(checkpoint["model_state_dict"], num_classes)
    return {"run": path.resolve().parent.name, "checkpoint": str(path),
            "checkpoint_sha256": file_sha256(path), "model": model, "parameters": parameters,
            "epoch": checkpoint["epoch"], "image_size": checkpoint["image_size"],
            "flip_tta": checkpoint["flip_tta"],
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **environment(),
            "settings": settings}


def count_training(dataset_dir, classes):
    """Return {label: number of training photographs}, {} without a training table."""
    table = dataset_dir / "train_labels.csv"
    rows = read_table(table, ("label",)) if table.is_file() else ()
    labels = Counter(row["label"].strip().removesuffix(".0") for row in rows)  # as pandas writes 3
    return {plant.label: labels[str(plant.label)] for plant in classes} if rows else {}


def count_doubtful(dataset_dir):
    """Return {side: [doubtful labels, scored labels, photographs]} from the column `doubtful`.

    labeling.py copies it from label_scores.csv of find_label_errors.py; it is missing or empty if
    that script was not run.
    """
    counts = {}
    for side in ("test", "train"):
        table = dataset_dir / f"{side}_labels.csv"
        doubts = [row.get("doubtful") for row in (read_table(table) if table.is_file() else ())]
        counts[side] = [doubts.count("yes"), sum(map(bool, doubts)), len(doubts)]
    return counts


def describe_doubts(counts):
    """Return a sentence about the doubtful labels."""
    if not any(judged for _, judged, _ in counts.values()):
        return "labels in doubt: unknown, find_label_errors.py was not run before the split"
    return "labels in doubt by label_scores.csv, not decided in review: " + ", ".join(
        f"{doubtful:,} of {judged:,} judged in {side}"
        for side, (doubtful, judged, _) in counts.items())


# ---- photographs of the report ----

def choose_photographs(test, limit):
    """Return (at most `limit` mistakes, a correct example per class), as row indices.

    Both are the most confident ones, the mistakes in that order.
    """
    order = np.argsort(-test.probabilities.max(1), kind="stable")
    correct = test.predicted[order] == test.labels[order]
    _, first = np.unique(test.labels[order][correct], return_index=True)
    return order[~correct][:limit], order[correct][first]


def explain(model, checkpoint, test, indices, s):
    """Return lists of views, uint8 (H, W, 3), plain and with Grad-CAM of the prediction.

    The second list is empty, with a warning, if the network has no feature maps.
    """
    views, overlays, device = [], [], next(model.parameters()).device
    table = test.table.iloc[indices].assign(label=test.predicted[indices]).reset_index(drop=True)
    for images, targets in build_loader(table, checkpoint, s) if len(indices) else ():
        (normalized, _), = batches([(images, targets)], device, checkpoint["mean"],
                                   checkpoint["std"])
        heat_maps = grad_cam(model, normalized, targets)
        plain = list(images.permute(0, 2, 3, 1).numpy())
        views += plain
        if heat_maps is not None:
            overlays += map(overlay, plain, heat_maps)
    if views and not overlays:
        warn("no heat maps: this network has no feature maps, so the report shows plain views")
    return views, overlays


def prediction_rows(test, classes, dataset_dir):
    """Return the rows of predictions.csv."""
    rows = []
    for path, label, predicted, chances, reason, rank, answer in zip(
            test.table["path"], test.labels, test.predicted, test.probabilities,
            test.answers.reasons, test.answers.ranks, test.answers.names, strict=True):
        rows.append({"path": Path(path).relative_to(dataset_dir).as_posix(),
                     "latin": classes[label].latin, "predicted": classes[predicted].latin,
                     "probability": f"{chances[predicted]:.4f}",
                     "probability_of_latin": f"{chances[label]:.4f}", "reason": str(reason),
                     "rank": rank, "answer": answer})
    return rows


if __name__ == "__main__":
    run(main)
