"""HEIC photographs of phones: read with the package pillow-heif, named with the remedy without."""
import io
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from dataset_preparation.cleaning.inspection import TRANSIENT_PREFIXES, inspect
from images import NEEDS_HEIF, View, open_image, to_rgb
from predict import find_photos, read_view
from tests.conftest import ROOT, draw

RULE = {"min_side": 64, "output_side": 64, "jpeg_quality": 92, "max_file_mb": 100.0,
        "max_megapixels": 80.0, "decode_seconds": 8.0, "accepted_modes": ("RGB",),
        "converted_modes": ()}
HEAD = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(400)  # how an iPhone's file begins
REFUSED_EVERYWHERE = """
import sys
sys.modules["pillow_heif"] = None  # as if it were not installed
from types import SimpleNamespace
from app import post_photograph
from images import View
from dataset_preparation.cleaning.inspection import inspect
from predict import predict
s = SimpleNamespace(max_megapixels=80.0, max_file_mb=100.0, batch_size=1)
predictor, file = SimpleNamespace(view=View(64)), sys.argv[1]
print(inspect(file, file + ".jpg", {"max_file_mb": 100.0, "decode_seconds": 8.0,
                                    "max_megapixels": 80.0, "output_side": 64})["reason"])
print(next(predict([file], predictor, s))["reason"])
with open(file, "rb") as opened:
    request = SimpleNamespace(body=opened.read())
print(post_photograph(predictor, s, request).body.decode())
"""


def test_without_the_package_all_name_the_command_that_installs_it(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(HEAD)
    done = subprocess.run([sys.executable, "-c", REFUSED_EVERYWHERE, tmp_path / "IMG_1.HEIC"],
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, check=True)
    cleaning, predicting, page = done.stdout.splitlines()
    assert cleaning == predicting == NEEDS_HEIF
    assert "pip install pillow-heif" in NEEDS_HEIF
    assert '"heic"' in page
    assert NEEDS_HEIF.startswith(TRANSIENT_PREFIXES)  # read by the next run, once it is installed
    assert list(find_photos([str(tmp_path)])) == [str(tmp_path / "IMG_1.HEIC")]


def test_with_the_package_cleaning_and_prediction_read_them(tmp_path):
    pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    picture, data = draw(1, (400, 300)), io.BytesIO()
    picture.save(data, "HEIF", quality=90)
    path = tmp_path / "IMG_1.heic"
    path.write_bytes(data.getvalue())
    image, size = open_image(path, 80)
    assert size == (400, 300)
    assert np.abs(np.asarray(to_rgb(image), float) - np.asarray(picture, float)).mean() < 4
    result = inspect(path, tmp_path / "cleaned.jpg", RULE)
    assert (result["reason"], result["width"], result["height"]) == ("", 400, 300)
    s = SimpleNamespace(max_megapixels=80.0, max_file_mb=100.0)
    assert read_view(data.getvalue(), View(64), s).shape == (64, 64, 3)
