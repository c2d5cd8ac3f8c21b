"""Print predictions: a table for people, CSV for spreadsheets, JSON for programs.

Some columns are Darwin Core terms (https://dwc.tdwg.org/terms/): time, position, qualifier.
"""
import json
import locale
import sys
from contextlib import suppress

from evaluation.facts import SURROGATES
from image_metadata import read_capture, read_position
from names import escape_cell, escape_controls, table_writer

LANGUAGES = ("latin", "russian", "english")
COLUMNS = ("photo", "verdict", "reason", "rank", *LANGUAGES, "probability", "score",
           "scientificName", "taxonRank", "identificationQualifier", "confidence", "set",
           "eventDate", "decimalLatitude", "decimalLongitude", "note_en", "note_ru")
NOTHING = {"eventDate": "", "decimalLatitude": "", "decimalLongitude": ""}
VERDICT_WIDTH = 24  # characters of the first column of the table


# ---- Darwin Core terms ----

def read_event(image):
    """Return the terms in `NOTHING` from the EXIF of an image: local time, degrees of WGS 84."""
    taken, position = read_capture(image)["taken"], read_position(image)
    latitude, longitude = (round(degrees, 6) for degrees in position) if position else ("", "")
    return {"eventDate": taken, "decimalLatitude": latitude, "decimalLongitude": longitude}


def merge_events(events):
    """Return the terms of several photographs of one plant: time interval and first position."""
    dates = sorted({event["eventDate"] for event in events} - {""})
    placed = [event for event in events if event["decimalLatitude"] != ""]
    return {**(placed[0] if placed else NOTHING),
            "eventDate": "/".join(dates[:1] + dates[-1:] if len(dates) > 1 else dates)}


def qualifier_of(name, rank, classes, taxon_names, order):
    """Return identificationQualifier of a genus or family: "cf. " and its most likely species.

    `taxon_names` (K,) are the names of the classes at this rank; `order` lists labels, most likely
    first. "" for a species or no answer.
    """
    if rank not in ("genus", "family"):
        return ""
    latin = next(classes[label].latin for label in order if taxon_names[label] == name)
    return f"cf. {latin.removeprefix(f'{name} ')}"


# ---- formats ----

def write_rows(predictions, predictor):
    """Print a table for people, verdict first, less likely names below the most likely.

    A photograph of none of the plants gets no percentages: they would compare plants that it does
    not show. Cautions are printed below the names, each once, whatever the verdict.
    """
    widths = [max(len(escape_controls(getattr(plant, key))) for plant in predictor.classes)
              for key in LANGUAGES]
    for prediction in predictions:
        names, cautions = prediction.get("names", ()), set()
        for rank, name in enumerate(names[:1] if is_outside(prediction) else names, 1):
            shown = [f"{escape_controls(name[key]):{width}}"
                     for key, width in zip(LANGUAGES, widths, strict=True) if width]
            first = rank == 1
            chance = "" if is_outside(prediction) else percent(name["probability"])
            line = [f"{verdict_of(prediction) if first else '':{VERDICT_WIDTH}}", f"{chance:>8}",
                    *shown, prediction["photo"] if first else ""]
            print_line("  ".join(line))
            note = name.get("note_en") or name.get("note_ru")
            if note and note not in cautions:
                cautions.add(note)
                print_line(f"{'':{VERDICT_WIDTH}}  caution: {note}")


def print_line(text):
    """Print one line at once; what a foreign network or file name contains cannot forge more."""
    print(escape_controls(text).rstrip(), flush=True)


def verdict_of(prediction):
    """Return the verdict in words: "sure", "Rosa, species not sure", "none; nearest:"."""
    if is_outside(prediction):
        return "none of these; nearest:"
    if prediction["verdict"] in ("genus", "family"):
        return f"{prediction['scientificName']}, species not sure"
    return "sure" if prediction["verdict"] == "ok" else "not sure"


def is_outside(prediction):
    """Return whether the photograph was judged to show none of the classes."""
    return prediction["reason"] == "out-of-distribution"


def percent(chance):
    """Return a probability as text, never 0 or 100 %."""
    if chance > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if chance < 0.001 else f"{100 * chance:.1f} %"


def write_csv(predictions, _, decimal_mark="."):
    """Print CSV, one row per photograph and name, and one per file that cannot be read.

    Cells are separated by a comma, or by a semicolon where the decimal mark is a comma.
    """
    table = table_writer(sys.stdout, COLUMNS, ";" if decimal_mark == "," else ",")
    table.writeheader()
    for prediction in predictions:
        names = prediction.pop("names", [{}])
        row = {**prediction, "set": "; ".join(prediction.get("set", ()))}
        for rank, name in enumerate(names, 1):
            cells = {**row, "rank": rank if name else "", **name}
            table.writerow({
                key: str(value).replace(".", decimal_mark) if isinstance(value, float)
                else escape_cell(value) for key, value in cells.items()})


def write_json(predictions, _):
    r"""Print a JSON array, one line per photograph, including those that cannot be read.

    Bytes of a file name that are not UTF-8 are written as \udcXX, which os.fsencode understands.
    """
    separator = "[\n"
    for prediction in predictions:
        escape = bool(SURROGATES.search(prediction["photo"]))
        print(separator + json.dumps(prediction, ensure_ascii=escape, allow_nan=False), end="")
        separator = ",\n"
    print("[]" if separator == "[\n" else "\n]")


def write_excel(predictions, predictor):
    """Print CSV as Excel expects it: a byte order mark, and the decimal mark of the user's locale.

    Without the mark of a file's bytes Excel garbles all but English. With a decimal comma, as in
    Russian, it takes semicolons for separators and numbers with a point for texts or dates.
    """
    with suppress(locale.Error):  # a locale that is not installed: keep the point
        locale.setlocale(locale.LC_NUMERIC, "")
    decimal_mark = locale.localeconv()["decimal_point"]
    locale.setlocale(locale.LC_NUMERIC, "C")  # as libraries that read numbers expect it
    print("\ufeff", end="")
    write_csv(predictions, predictor, decimal_mark)


WRITERS = {"table": write_rows, "csv": write_csv, "excel": write_excel, "json": write_json}
