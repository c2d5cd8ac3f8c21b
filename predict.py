"""Name the plants in photographs, with how sure the answer is, or "not sure".

    python predict.py photo.jpg holiday/ "more/*.webp"       # files, folders and patterns, as a table
    find . -name "*.jpg" | python predict.py - --format csv  # a list of files on standard input; also json
    python predict.py --onnx FILE photo.jpg                  # what export.py wrote: needs neither torch nor pandas
     98.4 %  Galanthus nivalis  подснежник белоснежный  snowdrop  photo.jpg

A photograph gets "not sure" where the calibrated risk of a wrong first name is above --max_risk (reason `risk`), or
where it looks like none of the classes (reason `stranger`; the threshold comes with the checkpoint). Answers alone go
to standard output, all else to standard error. A file that cannot be read is reported, the others are answered, and
the exit status is 1; it is 0 where all were answered, "not sure" included.
"""
import csv
import glob
import json
import os
import re
import sys
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

import config
from evaluation.calibration import doubts, probabilities
from images import IMAGE_FORMATS, BadImage, evaluation_view, open_image
from utils import InputError, class_of_folder, process_count, read_classes, run, warn

LANGUAGES = ("latin", "russian", "english")
COLUMNS = ("photo", "verdict", "reason", "rank", *LANGUAGES, "probability", "score")
NOT_SURE = {"risk": "the first name may well be wrong", "stranger": "looks like none of the classes"}


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__, (
        "photos", 'files, folders, patterns like "*.jpg", or - for a list on standard input, one per line'))
    warnings.filterwarnings("ignore", module="PIL")  # of damaged files, which are named below
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # any file name, on Windows too
    if s.format not in WRITERS:
        raise InputError(f"--format {s.format}: it takes {', '.join(WRITERS)}")
    predictor = load_predictor(s)
    if predictor.threshold is None:
        warn(f"{predictor.path} has no threshold: what is none of the classes is answered all the same")
    photos = tqdm(find_photos(s.photos), unit="photo", leave=False, disable=sys.stdout.isatty() or None)
    counts = Counter()
    WRITERS[s.format](tell_failures(predict(photos, predictor, s), counts), predictor)
    if answered := counts["ok"] + counts["not sure"]:
        print(f"{answered:,} photograph{'' if answered == 1 else 's'}: {counts['ok']:,} named, "
              f"{counts['not sure']:,} not sure", file=sys.stderr)
    if counts["error"] or not answered:
        raise InputError(f"{counts['error']:,} of {counts.total():,} could not be read" if counts["error"] else
                         "no photograph there")


# ---- what answers ----

class Predictor(NamedTuple):
    """A trained network and what goes with it: `outputs` maps views, uint8 (B, H, W, 3), to float32 (B, K + 1).

    The last column is how much a photograph looks like one of the classes, the others are the logits.

    `classes` are (latin, russian, english) in label order; `threshold` is None where none was stored; `mirrored` says
    whether it was calibrated on the mean of each view and its mirror image; `network` is the torch module behind
    `outputs` (`model.PixelModel`), None with ONNX.
    """

    path: Path
    classes: list
    image_size: int
    temperature: float
    threshold: float | None
    mirrored: bool
    outputs: Any
    network: Any = None


def load_predictor(s):
    """Return the `Predictor` of the settings: an ONNX file where one is named, else a checkpoint (needs torch).

    Its outputs are those of the views it was calibrated on.
    """
    predictor = load_onnx(s.onnx) if s.onnx else load_trained(s)
    if not predictor.mirrored:
        return predictor
    single = predictor.outputs
    return predictor._replace(outputs=lambda views: (single(views) + single(views[:, :, ::-1])) / 2)


def load_onnx(path):
    """Return the `Predictor` of a file that export.py wrote, of single views, on the CPU.

    Raises InputError where it is none.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError("--onnx needs ONNX Runtime: pip install onnxruntime") from None
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; export.py writes ONNX files")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        facts = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
        classes = [tuple(names) for names in facts["classes"]]
        if session.get_outputs()[0].shape[1] != len(classes) + 1:
            raise ValueError("of an older export.py")
        return Predictor(Path(path), classes, facts["image_size"], facts["temperature"], facts["threshold"],
                         facts["flip_tta"],
                         lambda views: session.run(None, {"views": np.ascontiguousarray(views)})[0])
    except Exception as error:  # ONNX Runtime's errors have no common kind
        raise InputError(f"{path} is not an ONNX file of export.py ({type(error).__name__})") from None


def load_trained(s):
    """Return the `Predictor` of a checkpoint, of single views, on the device of the settings."""
    import torch

    from evaluation.out_of_distribution import add_score
    from model import PixelModel, restore_model
    from training.checkpoints import open_checkpoint
    from training.runs import pick_device
    path, checkpoint = open_checkpoint(s)
    print(f"checkpoint {path}", file=sys.stderr)
    classes = name_classes(checkpoint.get("class_names"), s)
    device = pick_device(s.device)
    model = restore_model(checkpoint, path, [names[0] for names in classes])
    scored = add_score(model, checkpoint["out_of_distribution"])
    network = PixelModel(scored, checkpoint["mean"], checkpoint["std"]).to(device).eval()
    threshold = (checkpoint["out_of_distribution"] or {}).get("threshold")

    @torch.inference_mode()
    def outputs(views):
        return network(torch.from_numpy(np.ascontiguousarray(views)).to(device)).cpu().numpy()
    return Predictor(path, classes, checkpoint["image_size"], checkpoint["temperature"] or 1.0,
                     threshold, checkpoint["flip_tta"], outputs, network)


def name_classes(class_names, s):
    """Return (latin, russian, english) per class of a checkpoint, as far as the class table knows them.

    A checkpoint without class names, as the published one, has those of the class table.
    """
    if class_names is None:
        return [(one.latin, one.russian, one.english) for one in read_classes(s.class_table, s.limit_classes)]
    table = read_classes(s.class_table) if Path(s.class_table).is_file() else []
    known = [class_of_folder(latin, table) for latin in class_names]
    return [(latin, one.russian, one.english) if one else (latin, "", "")
            for latin, one in zip(class_names, known, strict=True)]


# ---- from photographs to answers ----

def find_photos(arguments):
    """Yield the path of every photograph that the arguments name: files, folders, patterns, `-` for standard input.

    A folder gives the files below it that are named like pictures; a file that is named itself is taken as it is.
    """
    endings = tuple(ending for ending, kind in Image.registered_extensions().items() if kind in IMAGE_FORMATS)
    for argument in arguments:
        if argument == "-":
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            yield from find_photos(line for line in lines if line not in ("", "-"))
        elif os.path.isdir(argument):  # noqa: PTH112 Path.is_dir raises for a name that is too long
            for folder, below, names in os.walk(argument):
                below.sort()
                yield from (str(Path(folder, name)) for name in sorted(names) if name.lower().endswith(endings))
        else:
            found = [] if os.path.exists(argument) else glob.glob(argument, recursive=True)  # noqa: PTH110, PTH207
            yield from filter(os.path.isfile, sorted(found)) if found else [argument]


def predict(photos, predictor, s):
    """Yield {"photo", **answer} of every path in order, or {"photo", "verdict": "error", "reason"} of a bad file.

    One batch is in memory at a time.
    """
    photos = iter(photos)

    def view(path):
        try:
            return read_view(path, predictor.image_size, s)
        except (BadImage, OSError) as error:
            return {"verdict": "error", "reason": getattr(error, "strerror", None) or str(error)}
    with ThreadPoolExecutor(process_count(0, at_most=8)) as pool:
        while paths := list(islice(photos, s.batch_size)):
            views = list(pool.map(view, paths))
            whole = [view for view in views if isinstance(view, np.ndarray)]
            answers = iter(answer(predictor.outputs(np.stack(whole)), predictor, s) if whole else ())
            yield from ({"photo": path, **(next(answers) if isinstance(view, np.ndarray) else view)}
                        for path, view in zip(paths, views, strict=True))


def read_view(source, image_size, s):
    """Return the uint8 (image_size, image_size, 3) view of a photograph, given as path or bytes.

    Raises BadImage with the reason where it is not a whole picture or too large, OSError where it cannot be read.
    """
    if not isinstance(source, bytes):
        if not Path(source).is_file():
            raise BadImage("no such file")
        if Path(source).stat().st_size > s.max_file_mb * 1e6:
            raise BadImage(f"larger than {s.max_file_mb:g} MB")
    return evaluation_view(open_image(source, s.max_megapixels, draft_side=2 * image_size)[0], image_size)


def answer(outputs, predictor, s):
    """Return per photograph of outputs (B, K + 1) {"verdict", "reason", "score", "names"}, at most TOP, best first.

    The verdict is "ok", or "not sure" with a reason of `NOT_SURE`; a name is {"latin", "russian", "english",
    "probability", "label"}. The first name is given whatever the verdict.
    """
    answers, logits, scores = [], outputs[:, :-1], outputs[:, -1]
    reasons = doubts(logits, scores, predictor.temperature, predictor.threshold, s.max_risk).tolist()
    for chances, score, reason in zip(probabilities(logits, predictor.temperature), scores, reasons, strict=True):
        names = [{**dict(zip(LANGUAGES, predictor.classes[label], strict=True)),
                  "probability": round(float(chances[label]), 4), "label": int(label)}
                 for label in np.argsort(-chances, kind="stable")[:s.top]]
        answers.append({"verdict": "not sure" if reason else "ok", "reason": reason, "score": round(float(score), 3),
                        "names": names})
    return answers


# ---- telling ----

def tell_failures(answers, counts):
    """Yield the answers, counting the verdicts in `counts` and naming the files that failed on standard error."""
    for given in answers:
        counts[given["verdict"]] += 1
        if given["verdict"] == "error":
            print(f"error: {on_one_line(given['photo'])}: {given['reason']}", file=sys.stderr)
        yield given


def on_one_line(name):
    """Return a file's name as a table shows it: newlines and other control characters as Python writes them."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], name)


def write_rows(answers, predictor):
    """Print a table for people; the further names of a photograph stand below its first."""
    widths = [max(map(len, column)) for column in zip(*predictor.classes, strict=True)]
    for given in answers:
        for rank, name in enumerate(given.get("names", ())):
            columns = [f"{name[key]:{width}}" for key, width in zip(LANGUAGES, widths, strict=True) if width]
            why = f": not sure, {NOT_SURE[given['reason']]}" if given["reason"] else ""
            photo = f"{on_one_line(given['photo'])}{why}" if rank == 0 else ""
            print("  ".join([f"{100 * name['probability']:6.1f} %", *columns, photo]).rstrip(), flush=True)


def write_csv(answers, _):
    """Print CSV, one row per photograph and name; a file that failed is a row too."""
    table = csv.DictWriter(sys.stdout, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for given in answers:
        names = given.pop("names", [{}])
        table.writerows({**given, "rank": rank if name else "", **name} for rank, name in enumerate(names, 1))


def write_json(answers, _):
    """Print a JSON array, one line per photograph; a file that failed is in it too."""
    before = "[\n"
    for given in answers:
        print(before + json.dumps(given, ensure_ascii=False), end="")
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")


WRITERS = {"table": write_rows, "csv": write_csv, "json": write_json}

if __name__ == "__main__":
    run(main)
