"""Corrections that people send from the page of app.py, as another source of photographs.

Photographs go to `<COLLECTED_DIR>/images/<Latin>/`, where cleaning and review treat them like any
other. Those of none of the plants go to `<COLLECTED_DIR>/feedback/`, a folder for --background. Its
table `feedback.csv` has the network's predictions and people's corrections. Labelling keeps them in
train, because mistakes are not a representative test.
"""
import io
from pathlib import Path

from PIL import Image

from dataset_preparation.parsing.collected_tables import now
from images import readable_formats
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
    "latin",  # the correct class according to the sender, "" for none of the plants
    "verdict", "predicted", "probability",  # of predict.py, with the most likely name
    "network",  # file name and first 16 digits of the SHA-256
    "consent")  # what the sender agreed to
CONSENT = "kept and used for training"
LICENSE = "feedback, for training only"  # in the label tables
ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2"}  # of other formats, the name
MAX_PHOTOGRAPHS, MAX_BYTES = 5000, 5e9  # so that a page on a network cannot fill the disk


def feedback_table(collected):
    """Return the path of feedback.csv below a folder of collected photographs."""
    return Path(collected) / "feedback/feedback.csv"


def read_feedback(collected):
    """Return the rows of feedback.csv, [] if there is none."""
    table = feedback_table(collected)
    return read_table(table, COLUMNS) if table.is_file() else []


def keep_feedback(collected, data, latin, prediction, network):
    """Keep a photograph (bytes of a picture that was read) with its correct class.

    `latin` is a class, or "" for none of them. Raises InputError if there is no room.
    """
    if latin:
        require_folder_name(latin, "feedback")
    digest = sha256(data)
    kind = Image.open(io.BytesIO(data), formats=readable_formats()).format
    folder = f"images/{latin}" if latin else "feedback"
    file = f"{folder}/{digest[:16]}.{ENDINGS.get(kind, kind.lower())}"
    best = prediction["names"][0]
    row = {"time": now(), "sha256": digest, "file": file, "latin": latin,
           "verdict": prediction["verdict"], "predicted": best["latin"],
           "probability": best["probability"], "network": network, "consent": CONSENT}
    table = feedback_table(collected)
    table.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(table.with_suffix(".lock"), f"keeps feedback in {table.parent}"):
        rows = [earlier for earlier in read_feedback(collected)
                if (earlier["sha256"], earlier["latin"]) != (digest, latin)]
        kept = filter(Path.is_file, {Path(collected) / row["file"] for row in rows})
        size = len(data) + sum(path.stat().st_size for path in kept)
        if len(rows) >= MAX_PHOTOGRAPHS or size > MAX_BYTES:
            raise InputError(f"{table} has {len(rows):,} rows, and with one more its photographs "
                             f"{size / 1e9:.1f} GB; move it and them away to take more")
        write_table(table, COLUMNS, [*rows, row])  # before the file, so that each file has a row
        with atomic_path(Path(collected) / file) as temporary:
            temporary.write_bytes(data)
