"""Draw the flora as an image search would return it: photographs, and the problems among them.

    collected/flora.json                            what was drawn: kinds, photographs of each, seed
    collected/flora.csv                             the class table
    collected/images/<Latin>/<16 hex of SHA-256>.jpg   as collecting leaves them
    collected/drawn.csv                             written last: what every file is, and its source
"""
import io
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from PIL import Image, ImageOps

from dataset_preparation.parsing.stopping import exit_with_parent
from images import encode
from quickstart_flora.kinds import KINDS
from quickstart_flora.photographs import photograph
from utils import (
    InputError,
    atomic_path,
    process_count,
    progress,
    read_table,
    sha256,
    write_table,
    write_text,
)

CLASS_TABLE, DRAWN = "flora.csv", "drawn.csv"


def draw_flora(folder, per_class, seed, processes=0):
    """Draw `per_class` photographs of every kind, and the problems; return {case: files}.

    The files depend on `per_class` and `seed` only. A killed drawing is completed.
    """
    drawing = json.dumps({"kinds": len(KINDS), "per_class": per_class, "seed": seed})
    require_same_flora(folder / "flora.json", drawing)
    write_text(folder / "flora.json", drawing + "\n")
    columns = ("label", "latin", "russian", "english", "also", "family")
    write_table(folder / CLASS_TABLE, columns, [
        {"label": label, "latin": latin, **{key: getattr(kind, key) for key in columns[2:]
                                            if key != "also"}}
        for label, (latin, kind) in enumerate(KINDS.items())])
    if not (folder / DRAWN).is_file():
        draw = partial(draw_kind, folder / "images", per_class=per_class, seed=seed)
        with ProcessPoolExecutor(process_count(processes), initializer=exit_with_parent) as pool:
            rows = sum(progress(pool.map(draw, KINDS), len(KINDS), "drawing", "kind"), [])
        rows.sort(key=lambda row: row["file"])
        write_table(folder / DRAWN, ("file", "case", "source"), rows)
    counts = Counter(row["case"] for row in read_table(folder / DRAWN, ("case",)))
    return {case: counts[case] for case in ("photographs", *CASES) if counts[case]}


def require_same_flora(path, drawing):
    """Raise InputError if the file describes another flora."""
    present = path.read_text("utf-8").strip() if path.is_file() else drawing
    if present != drawing:
        raise InputError(f"{path.parent} contains another flora: {present} instead of {drawing}; "
                         "name another folder with --quickstart_dir, or delete that one")


def draw_kind(images, latin, per_class, seed):
    """Write the files that a search for a kind returns; return their rows of drawn.csv."""
    kinds = list(KINDS)
    label = kinds.index(latin)
    streams = [np.random.default_rng([seed % 2 ** 32, label, i]) for i in range(per_class + 1)]
    drawn = [encode(photograph(latin, rng)) for rng in streams[:-1]]
    rows = [save_file(images, latin, data, "jpg") for data in drawn]
    # Every problem is made from another photograph, as long as there are enough.
    sources = np.resize(streams[-1].permutation(per_class), sum(n for n, _ in CASES.values()))
    cases = [case for case, (count, _) in CASES.items() for _ in range(count)]
    for case, source in zip(cases, sources.tolist(), strict=True):
        data, ending = CASES[case][1](Image.open(io.BytesIO(drawn[source])), drawn[source])
        folder = kinds[(label + 1) % len(kinds)] if case == TWO_NAMES else latin
        rows.append(save_file(images, folder, data, ending, case, rows[source]["file"]))
    return rows


def save_file(images, folder, data, ending, case="photographs", source=""):
    """Write bytes under the name that collecting would use; return the row of drawn.csv."""
    file = f"{folder}/{sha256(data)[:16]}.{ending}"
    with atomic_path(images / file) as temporary:
        temporary.write_bytes(data)
    return {"file": file, "case": case, "source": source}


# ---- problems ----

def crop_edges(image):
    """Return an image without 4 % of its width and height on every side."""
    across, down = image.width // 25, image.height // 25
    return ImageOps.crop(image, (across, down, across, down))


def turn_by_exif(image):
    """Return a JPEG stored on its side, with the EXIF orientation that turns it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: display after a quarter turn clockwise
    return encode(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


def fade_out(image):
    """Return an image that is transparent towards its edges."""
    image = image.convert("RGBA")
    image.putalpha(ImageOps.invert(Image.radial_gradient("L").resize(image.size)))
    return image


TWO_NAMES = "under two names"
CASES = {  # problem: (files of each kind, function of (image, its bytes) -> (bytes, ending))
    "exact duplicates": (2, lambda image, data: (data, "jpeg")),
    "recompressed": (2, lambda image, data: (encode(image, quality=60), "jpg")),
    "scaled down": (2, lambda image, data: (encode(ImageOps.scale(image, 0.9)), "jpg")),
    "mirrored": (2, lambda image, data: (encode(ImageOps.mirror(image)), "jpg")),
    "cropped": (2, lambda image, data: (encode(crop_edges(image)), "jpg")),
    "turned by EXIF": (2, lambda image, data: (turn_by_exif(image), "jpg")),
    TWO_NAMES: (1, lambda image, data: (data, "jpg")),
    "too small": (2, lambda image, data: (encode(ImageOps.scale(image, 0.5)), "jpg")),
    "truncated": (2, lambda image, data: (data[:len(data) // 2], "jpg")),
    "web pages": (1, lambda image, data: (f"<!DOCTYPE html><p>{sha256(data)}".encode(), "jpg")),
    "grey": (1, lambda image, data: (encode(image.convert("L")), "jpg")),
    "with a palette": (1, lambda image, data: (encode(image.quantize(64), "PNG"), "png")),
    "with transparency": (1, lambda image, data: (encode(fade_out(image), "WEBP"), "webp")),
}
