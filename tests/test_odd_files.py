"""Unusual and broken files: `odd_files.csv` says for each what must come out of cleaning."""
import csv
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dataset_preparation.cleaning.inspection import inspect
from images import to_rgb
from tests.conftest import run_measured, shared, write_classes
from utils import read_table

MODES = ("1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L", "I",
         "F", "LAB", "HSV")
with open(Path(__file__).with_name("odd_files.csv"), encoding="utf-8") as table:
    EXPECTED = list(csv.DictReader(table))

pytestmark = pytest.mark.photos


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda row: row["file"])
def test_every_odd_file_gives_the_listed_picture_or_reason(expected, tmp_path):
    """It is as Pillow decodes it, upright and in RGB, or rejected for the reason listed."""
    path = shared("photos/odd_files") / expected["file"]
    side = min(int(expected["width"] or 1), int(expected["height"] or 1))
    rule = {"min_side": 1, "output_side": side, "jpeg_quality": 95, "max_file_mb": 100.0,
            "max_megapixels": 80.0, "decode_seconds": 8.0, "accepted_modes": ("RGB",),
            "converted_modes": MODES}
    began = time.monotonic()
    result = inspect(path, tmp_path / "out.jpg", rule)
    assert time.monotonic() - began < 10
    assert (str(result["width"]), str(result["height"])) == (expected["width"], expected["height"])
    assert result["reason"].split(":")[0].split(", which")[0] == expected["reason"]
    assert (tmp_path / "out.jpg").exists() == (expected["reason"] == "")
    if not expected["reason"]:
        with Image.open(path) as image:
            for key in ("xmp", "XML:com.adobe.xmp"):  # turns no picture, as in browsers
                image.info.pop(key, None)
            wanted = to_rgb(ImageOps.exif_transpose(image))
        written = Image.open(tmp_path / "out.jpg")
        assert written.size == wanted.size
        smooth = [np.asarray(one.resize((8, 8), Image.Resampling.BOX), float)
                  for one in (written, wanted)]
        # JPEG halves the colour resolution
        assert np.abs(smooth[0] - smooth[1]).mean() < (6 if side > 16 else 30)


def test_the_script_takes_them_all_in_bounded_time_and_memory(tmp_path):
    images = tmp_path / "collected/images"
    images.mkdir(parents=True)
    (images / "Rosa").symlink_to(shared("photos/odd_files"))
    began = time.monotonic()
    done, megabytes = run_measured(tmp_path, "dataset_preparation/cleaning/cleaning.py",
                                   "--collected_dir",
                                   tmp_path / "collected", "--cleaned_dir", tmp_path / "cleaned",
                                   "--class_table",
                                   write_classes(tmp_path / "classes.csv", ["Rosa"]))
    assert time.monotonic() - began < 120
    assert megabytes < 1000
    rows = read_table(tmp_path / "cleaned/cleaned.csv")
    assert len(rows) == len(list(shared("photos/odd_files").iterdir())) == len(EXPECTED)
    assert all(row["reason"] or row["status"] == "kept" for row in rows)
    assert f"of {len(rows)} photographs" in done.stdout.splitlines()[-1]
