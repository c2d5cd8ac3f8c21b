"""Look at the test set with a finished checkpoint and write the report: numbers with intervals, tables, a page.

    python evaluate.py                          # the newest finished run, else the downloaded checkpoint
    python evaluate.py --checkpoint FILE
    test accuracy 95.14 % (95 % interval 91.0 to 97.9), macro-F1 0.951, 144 photographs

Reads `<DATASET_DIR>/test_labels.csv`. Writes report.html (one page to send to anyone, its photographs inside),
report.json, per_class.csv, predictions.csv and confusion_matrix.png to `<RUNS_DIR>/<run>/`, and the main things to
TensorBoard. This is the only script that opens the test set.
"""
import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay
from torch.utils.tensorboard import SummaryWriter

import config
from dataset import batches, build_eval_loader, read_labels
from evaluation.calibration import doubts, probabilities
from evaluation.grad_cam import grad_cam, overlay
from evaluation.metrics import collect_logits, confusions, per_class, summarize
from evaluation.out_of_distribution import add_score
from evaluation.report import write_page
from model import identify_model, restore_model
from training.checkpoints import open_checkpoint
from training.runs import environment, pick_device
from utils import atomic_path, file_sha256, read_classes, read_table, run, warn, write_table, write_text

EVENTS = ".test"  # how the TensorBoard file of an evaluation ends; the next evaluation replaces it


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    path, checkpoint = open_checkpoint(s)
    print(f"checkpoint {path}")
    classes = read_classes(s.class_table, s.limit_classes)
    frame = read_labels(s.dataset_dir / "test_labels.csv", classes)
    model = restore_model(checkpoint, path, [one.latin for one in classes])
    if checkpoint["temperature"] is None:
        warn(f"{path} has no temperature: its probabilities are taken as they are")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    outputs, labels = predict_test(add_score(model, checkpoint["out_of_distribution"]), checkpoint, frame, s)
    logits, scores = outputs[:, :-1], outputs[:, -1]

    temperature = checkpoint["temperature"] or 1.0
    threshold = (checkpoint["out_of_distribution"] or {}).get("threshold")
    answers, chances = logits.argmax(1), probabilities(logits, temperature)
    reasons = doubts(logits, scores, temperature, threshold, s.max_risk)
    matrix, pairs = confusions(labels, answers, len(classes))
    report = {**describe(path, checkpoint, parameters, len(classes), s),
              **summarize(logits, labels, frame["group"].to_numpy(), checkpoint["temperature"], reasons),
              "threshold": threshold, "max_risk": s.max_risk, "pairs": pairs,
              "classes": per_class(labels, answers, classes, count_training(s.dataset_dir)),
              "confusion_matrix": matrix.tolist()}
    mistakes, examples = choose_photographs(labels, answers, chances, s.report_photos)
    views, heated = explain(model, checkpoint, frame, answers, np.concatenate([mistakes, examples]), s)

    folder = s.runs_dir / report["run"]
    rows = predictions(frame, labels, answers, chances, reasons, classes, s.dataset_dir)
    write_tables(folder, report, rows)
    figure = draw_confusion(folder / "confusion_matrix.png", matrix, [one.latin for one in classes])
    write_tensorboard(folder, report, labels, chances, classes, figure, heated[:len(mistakes)])
    photos = [{**rows[i], "label": int(labels[i]), "given": int(answers[i])} for i in mistakes]
    write_page(folder / "report.html", report, classes, photos, views[:len(mistakes)],
               heated[:len(mistakes)], dict(zip(labels[examples].tolist(), views[len(mistakes):], strict=True)))
    print(f"report: {folder / 'report.html'}; beside it report.json, per_class.csv, predictions.csv, "
          "confusion_matrix.png")
    low, high = report["interval"]
    print(f"test accuracy {100 * report['accuracy']:.2f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}), "
          f"macro-F1 {report['macro_f1']:.3f}, {len(labels):,} photographs")


def predict_test(model, checkpoint, frame, s):
    """Return what the model says (N, ...), and the labels (N,), of the test photographs.

    This is the one place where the test set is predicted.
    """
    s.image_size = checkpoint["image_size"]
    device = pick_device(s.device)
    loader = build_eval_loader(frame, s)
    return collect_logits(model.to(device), batches(loader, device, checkpoint["mean"], checkpoint["std"]),
                          checkpoint["flip_tta"])


# ---- what the report says besides the numbers ----

def describe(path, checkpoint, parameters, num_classes, s):
    """Return what was measured and with which code: checkpoint, network, settings of its training, versions."""
    settings = {key: value for key, value in checkpoint.get("settings", {}).items() if key != "classes"}
    return {"run": path.resolve().parent.name, "checkpoint": str(path), "checkpoint_sha256": file_sha256(path),
            "model": checkpoint.get("model") or identify_model(checkpoint["model_state_dict"], num_classes),
            "parameters": parameters, "epoch": checkpoint["epoch"],
            "image_size": checkpoint["image_size"], "flip_tta": checkpoint["flip_tta"],
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **environment(), "settings": settings}


def count_training(dataset_dir):
    """Return {label: photographs for training and validation}, empty where their table is not at hand."""
    table = dataset_dir / "train_labels.csv"
    return Counter(int(row["label"]) for row in read_table(table, ("label",))) if table.is_file() else {}


def predictions(frame, labels, answers, chances, reasons, classes, dataset_dir):
    """Return a row per test photograph: its class, the answer, the calibrated probabilities of both, why "not sure"."""
    return [{"path": Path(path).relative_to(dataset_dir).as_posix(),
             "latin": classes[label].latin, "answer": classes[answer].latin,
             "probability": f"{row[answer]:.4f}", "probability_of_latin": f"{row[label]:.4f}", "reason": str(reason)}
            for path, label, answer, row, reason in zip(frame["path"], labels, answers, chances, reasons, strict=True)]


def choose_photographs(labels, answers, chances, most):
    """Return places of (mistakes, the surest and at most so many; the surest right answer of each class, if any)."""
    surest = np.argsort(-chances.max(1), kind="stable")
    right = answers[surest] == labels[surest]
    _, first = np.unique(labels[surest][right], return_index=True)
    return surest[~right][:most], surest[right][first]


def explain(model, checkpoint, frame, answers, places, s):
    """Return (views, views under the heat of Grad-CAM for the answer) of the photographs at some places.

    Both are lists of uint8 (image_size, image_size, 3).
    """
    views, heated, device = [], [], next(model.parameters()).device
    chosen = frame.iloc[places].assign(label=answers[places]).reset_index(drop=True)
    for images, targets in build_eval_loader(chosen, s) if len(places) else ():
        (normal, _), = batches([(images, targets)], device, checkpoint["mean"], checkpoint["std"])
        heat = grad_cam(model, normal, targets)
        views += list(images.permute(0, 2, 3, 1).numpy())
        heated += [overlay(view, one) for view, one in zip(views[-len(heat):], heat, strict=True)]
    return views, heated


# ---- files ----

def write_tables(folder, report, rows):
    """Write report.json, one line per number, and the tables of classes and of photographs."""
    write_table(folder / "per_class.csv", list(report["classes"][0]), [
        {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in one.items()}
        for one in report["classes"]])
    write_table(folder / "predictions.csv", list(rows[0]), rows)
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in report.items()]
    write_text(folder / "report.json", "{\n" + ",\n".join(lines) + "\n}\n")


def draw_confusion(path, matrix, names):
    """Draw the confusion matrix, rows the true classes, columns the answers, in counts; return the figure."""
    side = max(5.0, 0.32 * len(names) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    ConfusionMatrixDisplay(matrix, display_labels=names).plot(
        ax=figure.subplots(), cmap="Greens", colorbar=False, xticks_rotation="vertical")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return figure


def write_tensorboard(folder, report, labels, chances, classes, figure, heated):
    """Write the test's numbers, confusion matrix, precision-recall curves and mistakes into the run's TensorBoard."""
    before, step = list(folder.glob(f"*{EVENTS}")), report["epoch"] or 0
    with SummaryWriter(folder, filename_suffix=EVENTS) as writer:
        for key in ("loss", "accuracy", "macro_f1"):
            writer.add_scalar(f"{key}/test", report[key], step)
        writer.add_figure("test/confusion matrix", figure, step)
        for one in classes:
            writer.add_pr_curve(f"test/{one.latin}", labels == one.label, chances[:, one.label], step)
        if heated:
            writer.add_images("test/mistakes", torch.from_numpy(np.stack(heated[:32])), step, dataformats="NHWC")
    for file in before:
        file.unlink()


if __name__ == "__main__":
    run(main)
