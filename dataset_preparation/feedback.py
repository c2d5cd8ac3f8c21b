"""Corrections that people send from the page of app.py, as one more source of photographs.

`<COLLECTED_DIR>/images/<Latin>/` gets the photographs among those collected, so that cleaning and
review treat them as any other. `<COLLECTED_DIR>/feedback/` gets those that show none of the plants,
a folder for --background, and the table `feedback.csv`: what the network had answered, and what
people say. Labelling keeps them in train: mistakes are no sample of what a network is asked.
"""
import io
from pathlib import Path

from PIL import Image

from dataset_preparation.parsing.parsing_utils import now
from utils import (
    FileLock,
    InputError,
    atomic_path,
    read_table,
    require_folder_name,
    sha256,
    write_table,
)

COLUMNS = (
    "time",  # UTC
    "sha256", "file",  # of the photograph as it was sent; its path below <COLLECTED_DIR>
    "latin",  # what people say it is, "" for none of the plants
    "verdict", "predicted", "probability",  # what predict.py says, with the likeliest name
    "network",  # file name and first 16 digits of the SHA-256
    "consent")  # to what the sender agreed
CONSENT = "kept and used for training"
LICENSE = "feedback, for training only"  # in the label tables
ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2"}  # by format; else its name
MAX_PHOTOGRAPHS = 5000  # a page that is open to a network must not fill the disk


def feedback_table(collected):
    """Return the path of feedback.csv below a folder of collected photographs."""
    return Path(collected) / "feedback/feedback.csv"


def read_feedback(collected):
    """Return the rows of feedback.csv, [] where nobody has corrected anything."""
    table = feedback_table(collected)
    return read_table(table, COLUMNS) if table.is_file() else []


def keep_feedback(collected, data, latin, prediction, network):
    """Keep a photograph (bytes of a picture that was read) of which people say what it shows.

    `latin` is a class, or "" for none of them. Raises InputError where there is no room.
    """
    if latin:
        require_folder_name(latin, "feedback")
    digest = sha256(data)
    kind = Image.open(io.BytesIO(data)).format
    folder = f"images/{latin}" if latin else "feedback"
    file = f"{folder}/{digest[:16]}.{ENDINGS.get(kind, kind.lower())}"
    best = prediction["names"][0]
    row = {"time": now(), "sha256": digest, "file": file, "latin": latin,
           "verdict": prediction["verdict"], "predicted": best["latin"],
           "probability": best["probability"], "network": network, "consent": CONSENT}
    table = feedback_table(collected)
    table.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(table.with_suffix(".lock"), f"keeps feedback in {table.parent}"):
        rows = [one for one in read_feedback(collected)
                if (one["sha256"], one["latin"]) != (digest, latin)]
        if len(rows) >= MAX_PHOTOGRAPHS:
            raise InputError(f"{table} has {len(rows):,} rows; move it and its photographs away to "
                             "take more")
        write_table(table, COLUMNS, [*rows, row])  # first: nothing unrecorded lies among the others
        with atomic_path(Path(collected) / file) as temporary:
            temporary.write_bytes(data)
