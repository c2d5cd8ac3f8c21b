"""Write the files of a report: tables, pictures, TensorBoard, and the page with all of it."""
import base64
import json

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import ConfusionMatrixDisplay
from torch.utils.tensorboard import SummaryWriter

from config import ROOT
from images import encode
from utils import atomic_path, write_table, write_text

SCRIPTS = ("web/page.js", "evaluation/report_text.js", "evaluation/report_charts.js",
           "evaluation/report.js")
EVENTS = ".test"  # ending of the TensorBoard file; the next evaluation replaces it
LONGEST_NAME = 40  # letters, in the picture of the confusion matrix
MATRIX_CLASSES = 60  # at most, in that picture
TENSORBOARD_MISTAKES = 32  # at most, pictures of mistakes in TensorBoard
THUMBNAIL_SIDE = 168  # pixels; 7 to 9 kB each, so 200 mistakes with heat maps are below 5 MB


def write_report_tables(folder, report, rows):
    """Write report.json, one line per number, and the tables of classes and of photographs."""
    write_table(folder / "per_class.csv", list(report["classes"][0]), [
        {key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()}
        for row in report["classes"]])
    write_table(folder / "predictions.csv", list(rows[0]), rows)
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
             for key, value in report.items()]
    write_text(folder / "report.json", "{\n" + ",\n".join(lines) + "\n}\n")


def draw_confusion(path, matrix, names):
    """Draw the counts of the classes with most mistakes, true ones as rows; return the figure."""
    mistakes = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MATRIX_CLASSES])
    names = [names[label][:LONGEST_NAME].replace("$", r"\$") for label in shown]  # no TeX formula
    matrix = matrix[np.ix_(shown, shown)]
    side = max(5.0, 0.32 * len(names) + 2)
    figure = Figure(figsize=(side, side), layout="constrained")
    ConfusionMatrixDisplay(matrix, display_labels=names).plot(
        ax=figure.subplots(), cmap="Greens", colorbar=False, xticks_rotation="vertical")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return figure


def write_tensorboard(folder, report, test, classes, figure, overlays):
    """Write scalars, confusion matrix, precision-recall curves and mistakes to TensorBoard."""
    previous, step = list(folder.glob(f"*{EVENTS}")), report["epoch"] or 0
    with SummaryWriter(folder, filename_suffix=EVENTS) as writer:
        for key in ("loss", "accuracy", "macro_f1"):
            writer.add_scalar(f"{key}/test", report[key], step)
        writer.add_figure("test/confusion matrix", figure, step)
        for plant in classes:
            writer.add_pr_curve(f"test/{plant.latin}", test.labels == plant.label,
                                test.probabilities[:, plant.label], step)
        if overlays:
            writer.add_images("test/mistakes", np.stack(overlays[:TENSORBOARD_MISTAKES]), step,
                              dataformats="NHWC")
    for file in previous:
        file.unlink()


# ---- the page ----

def write_page(path, report, classes, photos, views, overlays, examples):
    """Write the page of a report, which has the numbers of report.json.

    `photos` are rows about misclassified photographs; `views` and `overlays` are their images,
    uint8 (H, W, 3), without and with the Grad-CAM heat map; without any, `overlays` is empty.
    `examples` maps labels to the view of a correctly classified photograph.
    """
    heats = map(data_uri, overlays) if overlays else [None] * len(views)
    data = {"report": report, "names": [plant._asdict() for plant in classes],
            "photos": [{**photo, "view": data_uri(view), "heat": heat}
                       for photo, view, heat in zip(photos, views, heats, strict=True)],
            "examples": {label: data_uri(view) for label, view in examples.items()}}
    # escaped, so that no name in the data can end the script element
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    scripts = "".join((ROOT / name).read_text("utf-8") for name in SCRIPTS)
    template = (ROOT / "evaluation/report.html").read_text("utf-8").replace("{{scripts}}", scripts)
    write_text(path, template.replace("{{data}}", text))


def data_uri(view):
    """Return a view, uint8 (H, W, 3), as a data: URI of a small JPEG."""
    image = Image.fromarray(view)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return f"data:image/jpeg;base64,{base64.b64encode(encode(image, quality=80)).decode()}"
