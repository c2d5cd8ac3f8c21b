"""Look at the test set with a finished checkpoint and write the report: numbers with intervals, tables, a picture.

    python evaluate.py                          # the newest finished run, else the downloaded checkpoint
    python evaluate.py --checkpoint FILE
    test accuracy 95.14 % (95 % interval 91.0 to 97.9), macro-F1 0.951, 144 photographs

Reads `<DATASET_DIR>/test_labels.csv`. Writes report.json, per_class.csv, predictions.csv and confusion_matrix.png to
`<RUNS_DIR>/<run>/`. This is the only script that opens the test set.
"""
import json
import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix, precision_recall_fscore_support

import config
from dataset import batches, build_eval_loader, read_labels
from model import restore_model
from runs import collect_logits, environment, find_checkpoint, load_checkpoint, measure, pick_device
from utils import atomic_path, file_sha256, read_classes, run, write_table, write_text


def main(argv=None):
    config.override(argv, description=__doc__)
    s = config.namespace()
    path = find_checkpoint(s.checkpoint, s.checkpoints_dir)
    print(f"checkpoint {path}")
    classes = read_classes(s.class_table, s.limit_classes)
    frame = read_labels(s.dataset_dir / "test_labels.csv", classes)
    checkpoint = {"image_size": s.image_size, "mean": s.mean, "std": s.std, **load_checkpoint(path)}
    model = restore_model(checkpoint, path, [one.latin for one in classes])
    logits, labels = predict_test(model, checkpoint, frame, s)

    folder = s.runs_dir / path.resolve().parent.name
    report = {"checkpoint": str(path), "checkpoint_sha256": file_sha256(path), "epoch": checkpoint.get("epoch"),
              "mirrored_view": s.mirrored_view, **summarize(logits, labels, frame, s.bootstrap), **environment()}
    write_report(folder, report, logits, labels, frame, classes, s.dataset_dir)
    print(f"report: {folder / 'report.json'}, per_class.csv, predictions.csv, confusion_matrix.png beside it")
    low, high = report["interval"]
    print(f"test accuracy {100 * report['accuracy']:.2f} % (95 % interval {100 * low:.1f} to {100 * high:.1f}), "
          f"macro-F1 {report['macro_f1']:.3f}, {len(labels):,} photographs")


def predict_test(model, checkpoint, frame, s):
    """Return (logits (N, K), labels (N,)) of the test photographs: the one place where the test set is predicted."""
    s.image_size = checkpoint["image_size"]
    device = pick_device(s.device)
    loader = build_eval_loader(frame, s)
    return collect_logits(model.to(device), batches(loader, device, checkpoint["mean"], checkpoint["std"]),
                          s.mirrored_view)


def summarize(logits, labels, frame, bootstrap):
    """Return accuracy with its 95 % interval, loss, macro-F1, and counts.

    The interval resamples whole groups (bootstrap); where every photograph is its own group it is Wilson's.
    """
    correct = logits.argmax(1) == labels
    groups = frame["group"].nunique()
    if groups < len(frame):
        method, interval = "bootstrap over groups", bootstrap_interval(correct, frame["group"], bootstrap)
    else:
        method, interval = "Wilson", wilson_interval(int(correct.sum()), len(correct))
    return {**measure(logits, labels), "interval": interval, "interval_method": method, "photographs": len(labels),
            "groups": groups}


def bootstrap_interval(correct, groups, resamples):
    """Return the 2.5 and 97.5 percentiles of the accuracy over resamplings of whole groups, seeded."""
    codes = groups.astype("category").cat.codes.to_numpy()
    sizes, hits = np.bincount(codes), np.bincount(codes, weights=correct)
    drawn = np.random.default_rng(0).integers(len(sizes), size=(resamples, len(sizes)))
    return [float(value) for value in np.percentile(hits[drawn].sum(1) / sizes[drawn].sum(1), (2.5, 97.5))]


def wilson_interval(hits, count, z=1.959964):
    """Return Wilson's 95 % score interval of hits out of count (E. B. Wilson, JASA 22, 1927)."""
    share, spread = hits / count, z * z / count
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return [(share + spread / 2 - half) / (1 + spread), (share + spread / 2 + half) / (1 + spread)]


def write_report(folder, report, logits, labels, frame, classes, dataset_dir):
    """Write the numbers, the table per class, the answer for every photograph, and the confusion matrix."""
    names, answers = [one.latin for one in classes], logits.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, answers, labels=range(len(names)),
                                                                     zero_division=0)
    write_table(folder / "per_class.csv", ("label", "latin", "photographs", "precision", "recall", "f1", "recall_low",
                                           "recall_high"), [
        {"label": one.label, "latin": one.latin, "photographs": support[one.label],
         "precision": f"{precision[one.label]:.4f}", "recall": f"{recall[one.label]:.4f}", "f1": f"{f1[one.label]:.4f}",
         **dict(zip(("recall_low", "recall_high"), (f"{end:.4f}" for end in wilson_interval(
             int(np.sum(answers[labels == one.label] == one.label)), int(support[one.label]))), strict=True))}
        for one in classes if support[one.label]])
    probabilities = torch.softmax(torch.from_numpy(logits), 1).max(1).values.tolist()
    write_table(folder / "predictions.csv", ("path", "latin", "answer", "probability"), [
        {"path": Path(path).relative_to(dataset_dir).as_posix(), "latin": names[label], "answer": names[answer],
         "probability": f"{probability:.4f}"}
        for path, label, answer, probability in zip(frame["path"], labels, answers, probabilities, strict=True)])
    draw_confusion(folder / "confusion_matrix.png", labels, answers, names)
    write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")


def draw_confusion(path, labels, answers, names):
    """Draw the confusion matrix, rows the true classes, columns the answers, in counts."""
    side = max(5.0, 0.32 * len(names) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    matrix = confusion_matrix(labels, answers, labels=range(len(names)))
    ConfusionMatrixDisplay(matrix, display_labels=names).plot(
        ax=figure.subplots(), cmap="Greens", colorbar=False, xticks_rotation="vertical")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    run(main)
