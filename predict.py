"""Name the plants in photographs, with calibrated probabilities, or "not sure".

    python predict.py photo.jpg holiday/ "more/*.webp"       # files, folders and patterns
    find . -name "*.jpg" | python predict.py - --format csv  # a list on standard input; also json
    python predict.py --onnx FILE photo.jpg                  # without torch and pandas
     98.4 %  Galanthus nivalis  подснежник белоснежный  snowdrop  photo.jpg

A photograph gets the verdict "not sure" (abstention) for one of two reasons: `risk`, if the
calibrated probability that the most likely name is wrong exceeds --max_risk;
`out-of-distribution`, if it looks like none of the classes (the checkpoint holds that threshold).
Predictions go to standard output, everything else to standard error. A file that cannot be read is
reported and the others are still named; the exit status is then 1. "Not sure" is not an error.

CSV has one row per photograph and name, JSON one object per photograph with a list `names`:

    photo        the path as given
    verdict      ok, not sure, or error
    reason       of "not sure": risk or out-of-distribution; of an error: what is wrong
    rank         1 for the most likely name (CSV only; JSON lists names in this order)
    latin, russian, english, label   of the class (`label` in JSON only)
    probability  calibrated, in [0, 1]
    score        out-of-distribution score, see evaluation/out_of_distribution.py; high = known
"""
import csv
import glob
import json
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

import config
from evaluation.calibration import abstention_reasons, probabilities
from images import HEIF_ENDINGS, IMAGE_FORMATS, BadImage, evaluation_view, find_damage, open_image
from utils import InputError, class_of_folder, process_count, read_classes, run, warn

LANGUAGES = ("latin", "russian", "english")
COLUMNS = ("photo", "verdict", "reason", "rank", *LANGUAGES, "probability", "score")
NOT_SURE = {"risk": "the most likely name may be wrong",
            "out-of-distribution": "none of these plants"}


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__, (
        "photos", 'files, folders, patterns like "*.jpg", or - for a list on standard input, one '
                  "per line"))
    warnings.filterwarnings("ignore", module="PIL")  # about damaged files, which are reported
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # any file name, on Windows
    predictor = load_predictor(s)
    if predictor.ood_threshold is None:
        warn(f"{predictor.path} has no out-of-distribution threshold: photographs of anything get "
             "the name of a class")
    photos = tqdm(find_photos(s.photos), unit="photo", leave=False,
                  disable=sys.stdout.isatty() or None)
    counts = Counter()
    WRITERS[s.format](report_errors(predict(photos, predictor, s), counts), predictor)
    if read := counts["ok"] + counts["not sure"]:
        print(f"{read:,} photograph{'' if read == 1 else 's'}: {counts['ok']:,} named, "
              f"{counts['not sure']:,} not sure", file=sys.stderr)
    if counts["error"]:
        raise InputError(f"{counts['error']:,} of {counts.total():,} could not be read")
    if not read:
        raise InputError("no photographs found")


# ---- loading ----

class Predictor(NamedTuple):
    """A trained network and what prediction needs beside it."""

    path: Path
    classes: list  # (latin, russian, english) in label order
    image_size: int
    temperature: float
    ood_threshold: float | None  # of the score, None if the file has none
    flip_tta: bool  # whether it was calibrated with flip test-time augmentation
    outputs: Callable  # views, uint8 (B, H, W, 3) -> float32 (B, K + 1): logits, then the score
    network: Any = None  # the torch module behind `outputs` (`PixelModel`), None with ONNX


def load_predictor(s):
    """Return the `Predictor` of the settings, its outputs with flip TTA if it was calibrated so."""
    predictor = load_onnx(s.onnx) if s.onnx else load_pytorch(s)
    if not predictor.flip_tta:
        return predictor
    single = predictor.outputs
    return predictor._replace(
        outputs=lambda views: (single(views) + single(views[:, :, ::-1])) / 2)


# The metadata of an ONNX file, each value as JSON. Format 1 had no `format` key and other names.
ONNX_FORMAT = 2
ONNX_METADATA = {
    "format": "version of this table",
    "classes": "list of [Latin, Russian, English] in label order",
    "image_size": "pixels, side of the square view",
    "temperature": "divides the logits before the softmax",
    "flip_tta": "whether outputs are to be averaged over a view and its mirror image",
    "out_of_distribution_threshold": "of the score, the last output; null if there is none"}
RENAMED = {"mirrored_view": "flip_tta", "threshold": "out_of_distribution_threshold"}  # format 1: 2


def load_onnx(path):
    """Return the `Predictor` of a file that export.py wrote, on the CPU and without flip TTA."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError("--onnx needs ONNX Runtime; run pip install onnxruntime") from None
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; export.py writes ONNX files")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        stored = session.get_modelmeta().custom_metadata_map
        facts = {RENAMED.get(key, key): json.loads(text) for key, text in stored.items()}
        if facts.get("format", 1) <= ONNX_FORMAT:
            classes = [tuple(names) for names in facts["classes"]]
            if session.get_outputs()[0].shape[1] != len(classes) + 1:
                raise ValueError("outputs and classes differ in number")
            return Predictor(
                Path(path), classes, facts["image_size"], facts["temperature"],
                facts["out_of_distribution_threshold"], facts["flip_tta"],
                lambda views: session.run(None, {"views": np.ascontiguousarray(views)})[0])
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise InputError(f"{path} is not an ONNX file of export.py "
                         f"({type(error).__name__})") from None
    raise InputError(f"{path} has format {facts['format']}, this code reads formats up to "
                     f"{ONNX_FORMAT}; update the code")


def load_pytorch(s):
    """Return the `Predictor` of a checkpoint, on the device of the settings, without flip TTA."""
    import torch

    from evaluation.out_of_distribution import add_score
    from evaluation.trained_model import PixelModel, restore_model
    from training.checkpoints import open_checkpoint
    from training.runs import pick_device
    path, checkpoint = open_checkpoint(s)
    print(f"checkpoint {path}", file=sys.stderr)
    classes = name_classes(checkpoint.get("class_names"), s)
    device, entry = pick_device(s.device), checkpoint["out_of_distribution"]
    model = add_score(restore_model(checkpoint, path, [names[0] for names in classes]), entry)
    network = PixelModel(model, checkpoint["mean"], checkpoint["std"]).to(device).eval()

    @torch.inference_mode()
    def outputs(views):
        return network(torch.from_numpy(np.ascontiguousarray(views)).to(device)).cpu().numpy()
    return Predictor(path, classes, checkpoint["image_size"], checkpoint["temperature"] or 1.0,
                     entry and entry["threshold"], checkpoint["flip_tta"], outputs, network)


def name_classes(class_names, s):
    """Return (latin, russian, english) for each class of a checkpoint, as the class table has them.

    A checkpoint without class names, as the published one, has those of the class table.
    """
    if class_names is None:
        table = read_classes(s.class_table, s.limit_classes)
        class_names = [plant.latin for plant in table]
    else:
        table = read_classes(s.class_table) if Path(s.class_table).is_file() else []
    plants = [class_of_folder(latin, table) for latin in class_names]
    return [(latin, plant.russian, plant.english) if plant else (latin, "", "")
            for latin, plant in zip(class_names, plants, strict=True)]


# ---- photographs to predictions ----

def find_photos(arguments):
    """Yield the path of every photograph that files, folders, patterns and `-` (stdin) stand for.

    Of a folder, files are taken by the endings of the image formats; a file given by name, always.
    """
    endings = tuple(ending for ending, kind in Image.registered_extensions().items()
                    if kind in IMAGE_FORMATS) + HEIF_ENDINGS  # to name the package that is missing
    for argument in arguments:
        if argument == "-":
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            yield from find_photos(line for line in lines if line not in ("", "-"))
        elif os.path.isdir(argument):  # noqa: PTH112 Path.is_dir raises if the name is too long
            for folder, subfolders, names in os.walk(argument):
                subfolders.sort()
                yield from (str(Path(folder, name)) for name in sorted(names)
                            if name.lower().endswith(endings))
        elif os.path.exists(argument):  # noqa: PTH110 as above
            yield argument
        else:
            found = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 of any root
            yield from filter(os.path.isfile, found) if found else [argument]


def predict(photos, predictor, s):
    """Yield {"photo", **prediction} for every path in order, one batch in memory at a time.

    A file that cannot be read yields {"photo", "verdict": "error", "reason"}.
    """
    def read(path):
        try:
            return read_view(path, predictor.image_size, s)
        except (BadImage, OSError) as error:
            return {"verdict": "error", "reason": getattr(error, "strerror", None) or str(error)}
    photos = iter(photos)
    with ThreadPoolExecutor(process_count(0, at_most=8)) as pool:
        while paths := list(islice(photos, s.batch_size)):
            results = list(pool.map(read, paths))
            views = [view for view in results if isinstance(view, np.ndarray)]
            predictions = iter(predict_views(np.stack(views), predictor, s) if views else ())
            for path, result in zip(paths, results, strict=True):
                is_view = isinstance(result, np.ndarray)
                yield {"photo": path, **(next(predictions) if is_view else result)}


def read_view(source, image_size, s):
    """Return the uint8 (image_size, image_size, 3) view of a photograph, a path or bytes.

    Raises BadImage with the reason, or OSError.
    """
    if not isinstance(source, bytes):
        if not Path(source).is_file():
            raise BadImage("no such file")
        if Path(source).stat().st_size > s.max_file_mb * 1e6:
            raise BadImage(f"larger than {s.max_file_mb:g} MB")
        source = Path(source).read_bytes()
    image, _ = open_image(source, s.max_megapixels, draft_side=2 * image_size)
    if damage := find_damage(source):
        raise BadImage(damage)
    return evaluation_view(image, image_size)


def predict_views(views, predictor, s):
    """Return the prediction for each view, uint8 (B, H, W, 3)."""
    return interpret(predictor.outputs(views), predictor, s)


def interpret(outputs, predictor, s):
    """Return a prediction for each row of outputs (B, K + 1): verdict, reason, score and names.

    The verdict is "ok", or "not sure" with a reason of `NOT_SURE`. `names` are the `s.top` most
    likely classes, whatever the verdict: {"latin", "russian", "english", "probability", "label"}.
    """
    logits, scores = outputs[:, :-1], outputs[:, -1]
    reasons = abstention_reasons(logits, scores, predictor.temperature, predictor.ood_threshold,
                                 s.max_risk).tolist()
    predictions = []
    for chances, score, reason in zip(probabilities(logits, predictor.temperature), scores, reasons,
                                      strict=True):
        labels = np.argsort(-chances, kind="stable")[:s.top]
        names = [{**dict(zip(LANGUAGES, predictor.classes[label], strict=True)),
                  "probability": round(float(chances[label]), 4), "label": int(label)}
                 for label in labels]
        predictions.append({"verdict": "not sure" if reason else "ok", "reason": reason,
                            "score": round(float(score), 3), "names": names})
    return predictions


# ---- printing ----

def report_errors(predictions, counts):
    """Yield the predictions; count their verdicts in `counts`, print errors to standard error."""
    for prediction in predictions:
        counts[prediction["verdict"]] += 1
        if prediction["verdict"] == "error":
            print(f"error: {escape_controls(prediction['photo'])}: {prediction['reason']}",
                  file=sys.stderr)
        yield prediction


def escape_controls(name):
    r"""Return a file name on one line, its control characters escaped, such as \n."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], name)


def write_rows(predictions, predictor):
    """Print a table for people, the less likely names of a photograph below the most likely."""
    widths = [max(map(len, column)) for column in zip(*predictor.classes, strict=True)]
    for prediction in predictions:
        for rank, name in enumerate(prediction.get("names", ()), 1):
            columns = [f"{name[key]:{width}}"
                       for key, width in zip(LANGUAGES, widths, strict=True) if width]
            photo = ""
            if rank == 1:
                photo = escape_controls(prediction["photo"])
                if prediction["reason"]:
                    photo += f": not sure, {NOT_SURE[prediction['reason']]}"
            line = "  ".join([f"{100 * name['probability']:6.1f} %", *columns, photo])
            print(line.rstrip(), flush=True)


def write_csv(predictions, _):
    """Print CSV, one row per photograph and name; a file that cannot be read has a row, too."""
    table = csv.DictWriter(sys.stdout, COLUMNS, restval="", extrasaction="ignore",
                           lineterminator="\n")
    table.writeheader()
    for prediction in predictions:
        names = prediction.pop("names", [{}])
        table.writerows({**prediction, "rank": rank if name else "", **name}
                        for rank, name in enumerate(names, 1))


def write_json(predictions, _):
    """Print a JSON array, one line per photograph, those that cannot be read included."""
    separator = "[\n"
    for prediction in predictions:
        print(separator + json.dumps(prediction, ensure_ascii=False), end="")
        separator = ",\n"
    print("[]" if separator == "[\n" else "\n]")


WRITERS = {"table": write_rows, "csv": write_csv, "json": write_json}

if __name__ == "__main__":
    run(main)
