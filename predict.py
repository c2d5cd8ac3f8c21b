"""Name the plants in photographs, with calibrated probabilities, or "not sure".

    python predict.py photo.jpg holiday/ "more/*.webp"       # files, folders and patterns
    find . -name "*.jpg" | python predict.py - --format csv  # a list on standard input
    python predict.py --together walk/ seen.csv   # one per folder, or `observation` of a table
    python predict.py --onnx FILE photo.jpg                  # without torch and pandas
    sure    98.4 %  Galanthus nivalis  подснежник белоснежный  snowdrop  photo.jpg

The share of wrong names among those given stays below --max_risk (see evaluation/answers.py). If
the species is too uncertain for that, the genus or family is named; if they are, too, the verdict
is "not sure" (abstention), for one of two reasons: `risk`, or `out-of-distribution` if the
photograph looks like none of the classes (the checkpoint contains that threshold). Predictions go
to standard output, everything else to standard error. A file that cannot be read is reported, the
others are still named, and the exit status is 1. "Not sure" is not an error.

CSV has one row per photograph and name, JSON one object per photograph with a list `names`:

    photo        the path as given
    verdict      ok, genus, family, not sure, or error
    reason       of "not sure", genus and family: risk or out-of-distribution; of an error: why
    rank         1 for the most likely name (CSV only; JSON lists names in this order)
    latin, russian, english, label   of the class (`label` in JSON only)
    probability  calibrated, in [0, 1]
    score        out-of-distribution score, see evaluation/out_of_distribution.py; high = known
    scientificName, taxonRank, confidence   the answer: a species, genus or family, its rank and
                 the probability that it is correct; empty if there is none
    identificationQualifier   for a genus or family: "cf. " and its most likely species
    eventDate, decimalLatitude, decimalLongitude   from EXIF: local time, degrees
    set          Latin names that include the correct one with a probability of 95 %
    note_en, note_ru   caution about the class of the row
    further_pages   number of pages of a TIFF after the first, which are ignored (JSON only)
"""
import glob
import os
import sys
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import config  # first: it reports a missing package in one sentence

# isort: split
import numpy as np
from tqdm import tqdm

from evaluation.answers import answer_outputs, require_finite_outputs, taxa_of
from evaluation.prediction_output import LANGUAGES, WRITERS, merge_events, qualifier_of, read_event
from evaluation.predictor import load_predictor
from evaluation.together import combine_photographs, correlation_of
from images import BadImage, evaluation_view, find_damage, open_image, photo_endings
from names import escape_controls
from settings.streams import discard_output
from utils import LARGE_BATCH, InputError, process_count, read_table, run, warn

VERDICTS = {"species": "ok", "genus": "genus", "family": "family", "": "not sure"}  # by rank


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__, (
        "photos", 'files, folders, patterns like "*.jpg", or - for a list on standard input, one '
                  "per line"))
    warnings.filterwarnings("ignore", module="PIL")  # about damaged files, which are reported
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # any file name, on Windows
    predictor = load_predictor(s)
    left_out, counts = Counter(), Counter()
    unit = "plant" if s.together else "photograph"
    photos = (find_plants(s.photos, left_out).items() if s.together
              else find_photos(s.photos, left_out))
    photos = tqdm(photos, unit=unit, leave=False, disable=sys.stdout.isatty() or None)
    predictions = (predict_together if s.together else predict)(photos, predictor, s)
    try:
        WRITERS[s.format](report_errors(predictions, counts, left_out), predictor)
    except BrokenPipeError:  # `predict.py ... | head`: the reader has seen enough
        discard_output()
        return
    left_out_lines = [f"{count:,} {kind}{'' if count == 1 else 's'}"
                      for kind, count in sorted(left_out.items()) if count]
    if left_out_lines:
        print(f"left out: {', '.join(left_out_lines)}", file=sys.stderr)
    read = counts.total() - counts["error"]
    if read:
        coarse = counts["genus"] + counts["family"]
        print(f"{read:,} {unit}{'' if read == 1 else 's'}: {counts['ok']:,} named, "
              + (f"{coarse:,} by genus or family alone, " if coarse else "")
              + f"{counts['not sure']:,} not sure", file=sys.stderr)
    if counts["error"]:
        raise InputError(f"{counts['error']:,} of {counts.total():,} could not be read")
    if not read:
        raise InputError("no photographs found; name files, folders or patterns of photographs")


# ---- photographs to predictions ----

def find_photos(arguments, left_out=None):
    """Yield the path of every photograph in files, folders, patterns and `-` (a list on stdin).

    In a folder, files with the endings of the image formats count; a file given by name always
    does. A pattern yields each file once, even if links form a circle. A pattern that matches
    folders yields the photographs in them, unless it contains `**`. `left_out`, a Counter, counts
    the other files of folders by kind, and unreadable folders.
    """
    left_out = Counter() if left_out is None else left_out
    for argument in arguments:
        if argument == "-":
            yield from find_photos(read_list(sys.stdin.buffer), left_out)
        elif os.path.isdir(argument):  # noqa: PTH112 Path.is_dir raises if the name is too long
            yield from walk(argument, left_out)
        elif os.path.exists(argument):  # noqa: PTH110 as above
            yield argument
        else:
            yield from match(argument, left_out)


def read_list(file):
    """Return the names in a binary file, one per line, or separated by NUL as of `find -print0`.

    With NUL, a name may contain an end of line. An empty name and `-` are left out.
    """
    data = file.read()
    listed = data.split(b"\0") if b"\0" in data else [
        line.rstrip(b"\r") for line in data.split(b"\n")]
    return [os.fsdecode(name) for name in listed if name not in (b"", b"-")]


def match(pattern, left_out):
    """Yield the photographs that match a pattern, or the pattern itself if none does."""
    found = sorted(glob.glob(pattern, recursive=True),  # noqa: PTH207 of any root
                   key=lambda path: (path.count(os.sep), path))
    once = sorted({os.path.realpath(path): path for path in reversed(found)}.values())
    folders = {path for path in once if Path(path).is_dir()}
    deep = "**" in pattern  # then it already matches the photographs in these folders
    if not once or (deep and len(folders) == len(once)):
        yield pattern
    for path in once:
        if path not in folders:
            yield path
        elif not deep:
            yield from walk(path, left_out)


def walk(folder, left_out):
    """Yield the photographs below a folder; count other files in `left_out`."""
    def unreadable(error):
        warn(f"{escape_controls(error.filename)}: {error.strerror}; left out with what is in it")
        left_out["unreadable folder"] += 1
    endings = photo_endings()
    for parent, subfolders, names in os.walk(folder, onerror=unreadable):
        subfolders.sort()
        left_out["linked folder"] += sum(
            os.path.islink(f"{parent}/{name}") for name in subfolders)  # noqa: PTH114 as above
        for name in sorted(names):
            if name.startswith("._"):  # file attributes that macOS writes on other file systems
                left_out["._ file of macOS"] += 1
            elif name.lower().endswith(endings):
                yield str(Path(parent, name))
            else:
                left_out[f"{Path(name).suffix.lower() or 'other'} file"] += 1


def find_plants(arguments, left_out):
    """Return {plant: its photographs}, grouped by folder, or by observation in a table.

    A table is a CSV file with the columns `path`, relative to the table, and `observation`; a
    photograph without an observation is its own plant. Where several tables have an observation of
    the same name, it is followed by its table.
    """
    plants = defaultdict(list)  # {(table or "", observation, folder or photograph): paths}
    for argument in arguments:
        if argument.lower().endswith(".csv"):
            for row in read_table(argument, ("path", "observation")):
                if not row["path"].strip():
                    raise InputError(f"{argument} has a row without a path; name its photograph or "
                                     "delete the row")
                path = str(Path(argument).parent / row["path"].replace("\\", "/"))
                observation = row["observation"].strip()
                plants[(argument, observation) if observation else ("", path)].append(path)
        else:
            for path in find_photos([argument], left_out):
                plants["", str(Path(path).parent)].append(path)
    named = Counter(name for _, name in plants)
    return {f"{name} of {table}" if table and named[name] > 1 else name: paths
            for (table, name), paths in plants.items()}


def predict(photos, predictor, s):
    """Yield {"photo", **prediction} for every path in order, one batch in memory at a time.

    A file that cannot be read yields {"photo", "verdict": "error", "reason"}.
    """
    photos = iter(photos)
    with ThreadPoolExecutor(process_count(0, at_most=8)) as pool:
        while paths := list(islice(photos, s.batch_size or LARGE_BATCH)):
            results = list(pool.map(partial(read_photo, predictor=predictor, s=s), paths))
            views = [result["view"] for result in results if "view" in result]
            predictions = iter(
                interpret(predictor.outputs(np.stack(views)), predictor, s) if views else ())
            for path, result in zip(paths, results, strict=True):
                prediction = next(predictions) if result.pop("view", None) is not None else {}
                yield {"photo": path, **prediction, **result}


def predict_together(plants, predictor, s):
    """Yield one prediction per (plant, photographs of it), see evaluation/together.py."""
    for plant, paths in plants:
        rows, events = [], []
        for path in paths:
            result = read_photo(path, predictor, s)
            if "view" in result:
                rows.append(predictor.outputs(result.pop("view")[None])[0])
                events.append(result)
            else:
                yield {"photo": path, **result}
        if rows:
            outputs, count = combine_photographs(np.stack(rows), correlation_of(predictor.answers))
            further = sum(event.pop("further_pages", 0) for event in events)
            yield {"photo": f"{plant} ({count})",
                   **interpret(outputs[None], predictor, s)[0], **merge_events(events),
                   **({"further_pages": further} if further else {})}


def read_photo(path, predictor, s):
    """Return {"view", time and position}, or {"verdict": "error", "reason"}."""
    try:
        image = open_photo(path, predictor.view, s)
        pages = image.info.get("pages", 1)
        return {"view": evaluation_view(image, predictor.view), **read_event(image),
                **({"further_pages": pages - 1} if pages > 1 else {})}
    except (BadImage, OSError) as error:
        return {"verdict": "error", "reason": getattr(error, "strerror", None) or str(error)}


def read_view(source, view, s):
    """Return the `View` of a photograph, a path or bytes: uint8 (image_size, image_size, 3)."""
    return read_first_page(source, view, s)[0]


def read_first_page(source, view, s):
    """Return (the view as `read_view` does, the number of pages in the file)."""
    image = open_photo(source, view, s)
    return evaluation_view(image, view), image.info.get("pages", 1)


def open_photo(source, view, s):
    """Return the image in a path or bytes, large enough for the `View`; raise BadImage if damaged.

    `info` has the number of `pages` of a TIFF that has several.
    """
    if not isinstance(source, bytes):
        if not Path(source).is_file():
            raise BadImage("a folder, not a file" if Path(source).is_dir() else
                           "no regular file" if Path(source).exists() else "no such file")
        if Path(source).stat().st_size > s.max_file_mb * 1e6:
            raise BadImage(f"larger than {s.max_file_mb:g} MB")
        source = Path(source).read_bytes()
    image, _ = open_image(source, s.max_megapixels, 2 * view.image_size, scaled=False,
                          first_page=True)
    if damage := find_damage(source):
        raise BadImage(damage)
    return image


def interpret(outputs, predictor, s):
    """Return a prediction for each row of outputs (B, K + 1); this file's docstring lists its keys.

    `names` are the `s.top` most likely classes, independent of the verdict.
    """
    require_finite_outputs(outputs, predictor.path)
    taxa = taxa_of(predictor.classes)
    chances, outside, answers, sets = answer_outputs(
        outputs, taxa, predictor.temperature, predictor.ood_threshold, predictor.answers,
        s.max_risk)
    if sets is None:
        sets = np.zeros(chances.shape, bool)
    return [{"verdict": VERDICTS[rank], "reason": reason, "score": round(float(score), 3),
             "scientificName": name, "taxonRank": rank,
             "identificationQualifier": qualifier_of(name, rank, predictor.classes,
                                                     taxa.get(rank), order),
             "confidence": rounded(confidence) if rank else "",
             "set": [predictor.classes[label].latin for label in order if one[label] and not out],
             "names": [describe_class(predictor, label, row[label]) for label in order[:s.top]]}
            for rank, reason, name, confidence, score, out, one, row, order in zip(
                answers.ranks, answers.reasons, answers.names, answers.confidence, outputs[:, -1],
                outside, sets, chances, np.argsort(-chances, axis=1, kind="stable"), strict=True)]


def describe_class(predictor, label, chance):
    """Return the facts of one class and its probability as an entry of `names`."""
    plant = predictor.classes[label]
    notes = {key: getattr(plant, key) for key in ("note_en", "note_ru") if getattr(plant, key)}
    return {**{key: getattr(plant, key) for key in LANGUAGES}, "probability": rounded(chance),
            "label": int(label), **notes}


def rounded(chance):
    """Return a probability with four digits, never 0 or 1."""
    return round(min(0.9999, max(0.0001, float(chance))), 4)


def report_errors(predictions, counts, left_out):
    """Yield the predictions; print errors, count verdicts and, in `left_out`, ignored pages."""
    for prediction in predictions:
        counts[prediction["verdict"]] += 1
        left_out["further page"] += prediction.get("further_pages", 0)
        if prediction["verdict"] == "error":
            print("error: " + escape_controls(f"{prediction['photo']}: {prediction['reason']}"),
                  file=sys.stderr)
        yield prediction


if __name__ == "__main__":
    run(main)
