"""Name the plants in photographs, with calibrated probabilities, or "not sure".

    python predict.py photo.jpg holiday/ "more/*.webp"       # files, folders and patterns
    find . -name "*.jpg" | python predict.py - --format csv  # a list on standard input
    python predict.py --together walk/                       # one answer per folder: one plant each
    python predict.py --onnx FILE photo.jpg                  # without torch and pandas
    sure    98.4 %  Galanthus nivalis  подснежник белоснежный  snowdrop  photo.jpg

Of the photographs that are named, the share of wrong names stays below --max_risk (see
evaluation/answers.py). Where the species is not that sure, the genus or family is named if it is;
else the verdict is "not sure" (abstention) for one of two reasons: `risk`, or
`out-of-distribution` if the photograph looks like none of the classes (the checkpoint holds that
threshold). Predictions go to standard output, everything else to standard error. A file that cannot
be read is reported and the others are still named; the exit status is then 1. "Not sure" is not an
error.

CSV has one row per photograph and name, JSON one object per photograph with a list `names`:

    photo        the path as given
    verdict      ok, genus, family, not sure, or error
    reason       of "not sure", genus and family: risk or out-of-distribution; of an error: what is
                 wrong
    rank         1 for the most likely name (CSV only; JSON lists names in this order)
    latin, russian, english, label   of the class (`label` in JSON only)
    probability  calibrated, in [0, 1]
    score        out-of-distribution score, see evaluation/out_of_distribution.py; high = known
    scientificName, taxonRank, confidence   the answer: a species, genus or family, its rank and
                 the probability that it is correct; empty for none
    set          Latin names of which one is correct with a probability of 95 %, "; " between them
    note_en, note_ru   caution about the class of the row
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
from itertools import groupby, islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

import config
from evaluation.answers import decide, limits_at, prediction_sets, require_finite_outputs, taxa_of
from evaluation.calibration import probabilities
from evaluation.predictor import load_predictor
from images import BadImage, evaluation_view, find_damage, open_image, photo_endings
from names import escape_cell
from utils import InputError, process_count, run

LANGUAGES = ("latin", "russian", "english")
SAME_PLANT = 0.5  # correlation of the evidence of two photographs of one plant; assumed
COLUMNS = ("photo", "verdict", "reason", "rank", *LANGUAGES, "probability", "score",
           "scientificName", "taxonRank", "confidence", "set", "note_en", "note_ru")
VERDICT_WIDTH = 24  # characters of the first column of the table
VERDICTS = {"species": "ok", "genus": "genus", "family": "family", "": "not sure"}  # by rank


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__, (
        "photos", 'files, folders, patterns like "*.jpg", or - for a list on standard input, one '
                  "per line"))
    warnings.filterwarnings("ignore", module="PIL")  # about damaged files, which are reported
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # any file name, on Windows
    predictor = load_predictor(s)
    left_out, counts = Counter(), Counter()
    photos = tqdm(find_photos(s.photos, left_out), unit="photo", leave=False,
                  disable=sys.stdout.isatty() or None)
    predictions = (predict_together if s.together else predict)(photos, predictor, s)
    try:
        WRITERS[s.format](report_errors(predictions, counts), predictor)
    except BrokenPipeError:  # `predict.py ... | head`: what is wanted has been printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    left_out_lines = [f"{count:,} {kind}" for kind, count in sorted(left_out.items()) if count]
    if left_out_lines:
        print(f"left out: {', '.join(left_out_lines)}", file=sys.stderr)
    read = counts.total() - counts["error"]
    if read:
        coarse = counts["genus"] + counts["family"]
        unit = "plant" if s.together else "photograph"
        print(f"{read:,} {unit}{'' if read == 1 else 's'}: {counts['ok']:,} named, "
              + (f"{coarse:,} by genus or family alone, " if coarse else "")
              + f"{counts['not sure']:,} not sure", file=sys.stderr)
    if counts["error"]:
        raise InputError(f"{counts['error']:,} of {counts.total():,} could not be read")
    if not read:
        raise InputError("no photographs found")


# ---- photographs to predictions ----

def find_photos(arguments, left_out=None):
    """Yield the path of every photograph that files, folders, patterns and `-` (stdin) stand for.

    Of a folder, files are taken by the endings of the image formats; a file given by name, always.
    A pattern yields a file once, also where links lead to it in a circle. `left_out`, a Counter,
    counts by kind what a folder holds besides, and folders that cannot be read.
    """
    left_out = Counter() if left_out is None else left_out

    def unreadable(_):
        left_out["folders that cannot be read"] += 1
    endings = photo_endings()
    for argument in arguments:
        if argument == "-":
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer)
            yield from find_photos((line for line in lines if line not in ("", "-")), left_out)
        elif os.path.isdir(argument):  # noqa: PTH112 Path.is_dir raises if the name is too long
            for folder, subfolders, names in os.walk(argument, onerror=unreadable):
                subfolders.sort()
                left_out["linked folders"] += sum(Path(folder, one).is_symlink()
                                                  for one in subfolders)
                for name in sorted(names):
                    if name.lower().endswith(endings):
                        yield str(Path(folder, name))
                    else:
                        left_out[f"{Path(name).suffix.lower() or 'other'} files"] += 1
        elif os.path.exists(argument):  # noqa: PTH110 as above
            yield argument
        else:
            found = sorted(glob.glob(argument, recursive=True),  # noqa: PTH207 of any root
                           key=lambda path: (path.count(os.sep), path))
            once = {os.path.realpath(path): path for path in reversed(found)}
            files = sorted(path for path in once.values() if os.path.isfile(path))  # noqa: PTH113
            yield from files if found else [argument]


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


def predict_together(photos, predictor, s):
    """Yield one prediction per folder that photographs lie in: they show one plant.

    The mean of the logits is the geometric mean of the probabilities. It is sharpened as for
    n / (1 + (n - 1) SAME_PLANT) independent photographs, as n photographs of one plant are not
    independent (the design effect of cluster samples, Kish, 1965). Files that cannot be read yield
    predictions of their own.
    """
    for folder, paths in groupby(photos, key=lambda path: str(Path(path).parent)):
        rows = []
        for path in paths:
            try:
                rows.append(predictor.outputs(read_view(path, predictor.image_size, s)[None])[0])
            except (BadImage, OSError) as error:
                yield {"photo": path, "verdict": "error",
                       "reason": getattr(error, "strerror", None) or str(error)}
        if rows:
            outputs = np.mean(rows, axis=0)
            outputs[:-1] *= len(rows) / (1 + (len(rows) - 1) * SAME_PLANT)
            yield {"photo": f"{folder} ({len(rows)})",
                   **interpret(outputs[None], predictor, s)[0]}


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
    """Return a prediction for each row of outputs (B, K + 1), as the docstring of this file lists.

    `names` are the `s.top` most likely classes, whatever the verdict.
    """
    require_finite_outputs(outputs, predictor.path)
    logits, scores = outputs[:, :-1].astype(float), outputs[:, -1]
    chances = probabilities(logits, predictor.temperature)
    outside = (np.zeros(len(scores), bool) if predictor.ood_threshold is None
               else ~(scores >= predictor.ood_threshold))
    answers = decide(chances, outside, taxa_of(predictor.classes),
                     limits_at(predictor.answers, s.max_risk))
    sets = (prediction_sets(chances, predictor.answers["set_limit"]) if predictor.answers
            else np.zeros(chances.shape, bool))
    return [{"verdict": VERDICTS[rank], "reason": reason, "score": round(float(score), 3),
             "scientificName": name, "taxonRank": rank,
             "confidence": rounded(confidence) if rank else "",
             "set": [predictor.classes[label].latin for label in order if one[label] and not out],
             "names": [describe_class(predictor, label, row[label]) for label in order[:s.top]]}
            for rank, reason, name, confidence, score, out, one, row, order in zip(
                answers.ranks, answers.reasons, answers.names, answers.confidence, scores, outside,
                sets, chances, np.argsort(-chances, axis=1, kind="stable"), strict=True)]


def describe_class(predictor, label, chance):
    """Return the facts of one class and its probability as an entry of `names`."""
    plant = predictor.classes[label]
    notes = {key: getattr(plant, key) for key in ("note_en", "note_ru") if getattr(plant, key)}
    return {**{key: getattr(plant, key) for key in LANGUAGES}, "probability": rounded(chance),
            "label": int(label), **notes}


def rounded(chance):
    """Return a probability with four digits, which is never 0 or 1."""
    return round(min(0.9999, max(0.0001, float(chance))), 4)


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
    """Print a table for people, verdict first, the less likely names below the most likely.

    A photograph that seems to show none of the plants gets no percentages: they would compare
    plants that it does not show.
    """
    widths = [max(len(escape_controls(getattr(plant, key))) for plant in predictor.classes)
              for key in LANGUAGES]
    for prediction in predictions:
        names = prediction.get("names", ())
        for rank, name in enumerate(names[:1] if is_outside(prediction) else names, 1):
            shown = [f"{escape_controls(name[key]):{width}}"
                     for key, width in zip(LANGUAGES, widths, strict=True) if width]
            first = rank == 1
            chance = "" if is_outside(prediction) else percent(name["probability"])
            photo = escape_controls(prediction["photo"]) if first else ""
            line = [f"{verdict_of(prediction) if first else '':{VERDICT_WIDTH}}", f"{chance:>8}",
                    *shown, photo]
            print("  ".join(line).rstrip(), flush=True)
            if first and prediction["verdict"] == "ok" and (note := name.get("note_en")):
                print(f"{'':{VERDICT_WIDTH}}  caution: {escape_controls(note)}", flush=True)


def verdict_of(prediction):
    """Return the verdict in words: "sure", "Rosa, species not sure", "none; nearest:"."""
    if is_outside(prediction):
        return "none of these; nearest:"
    if prediction["verdict"] in ("genus", "family"):
        return f"{prediction['scientificName']}, species not sure"
    return "sure" if prediction["verdict"] == "ok" else "not sure"


def is_outside(prediction):
    """Return whether a prediction is that the photograph shows none of the classes."""
    return prediction["reason"] == "out-of-distribution"


def percent(chance):
    """Return a probability as a text; never 0 or 100 %."""
    if chance > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if chance < 0.001 else f"{100 * chance:.1f} %"


def write_csv(predictions, _):
    """Print CSV, one row per photograph and name; a file that cannot be read has a row, too."""
    table = csv.DictWriter(sys.stdout, COLUMNS, restval="", extrasaction="ignore",
                           lineterminator="\n")
    table.writeheader()
    for prediction in predictions:
        names = prediction.pop("names", [{}])
        row = {**prediction, "set": "; ".join(prediction.get("set", ()))}
        for rank, name in enumerate(names, 1):
            cells = {**row, "rank": rank if name else "", **name}
            table.writerow({key: escape_cell(value) for key, value in cells.items()})


def write_json(predictions, _):
    """Print a JSON array, one line per photograph, those that cannot be read included."""
    separator = "[\n"
    for prediction in predictions:
        print(separator + json.dumps(prediction, ensure_ascii=False, allow_nan=False), end="")
        separator = ",\n"
    print("[]" if separator == "[\n" else "\n]")


def write_excel(predictions, predictor):
    """Print CSV behind a byte order mark, without which Excel garbles all but English."""
    print("\ufeff", end="")
    write_csv(predictions, predictor)


WRITERS = {"table": write_rows, "csv": write_csv, "excel": write_excel, "json": write_json}

if __name__ == "__main__":
    run(main)
