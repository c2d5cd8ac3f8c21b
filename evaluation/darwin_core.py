"""Darwin Core terms of predictions (https://dwc.tdwg.org/terms/): time, position, qualifier."""
from pathlib import Path

from PIL import Image

from images import read_capture, read_position, readable_formats

NOTHING = {"eventDate": "", "decimalLatitude": "", "decimalLongitude": ""}


def read_event(path):
    """Return the terms in `NOTHING` from a photograph's EXIF: local time, degrees of WGS 84."""
    try:
        with Image.open(Path(path), formats=readable_formats()) as image:
            taken, position = read_capture(image)["taken"], read_position(image)
    except Exception:  # broken metadata; the picture itself has already been read
        return NOTHING
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
