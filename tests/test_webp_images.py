"""Large WebP pictures, which Pillow alone would need 16 bytes per pixel for."""
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from images import LARGE_PIXELS, BadImage, open_image, to_rgb
from tests.conftest import LAUNCHER, ROOT, draw
from webp_images import read_reduced

SIZE = (4200, 4000)
assert SIZE[0] * SIZE[1] > LARGE_PIXELS
READ = """import sys
from images import open_image
image, size = open_image(sys.argv[1], 80, draft_side=256)
print(size, image.size)"""


def webp(image, **options):
    data = io.BytesIO()
    image.save(data, "WEBP", **{"method": 0, **options})
    return data.getvalue()


@pytest.fixture(scope="module")
def picture():
    """A large picture, whose corner is transparent where it has an alpha channel."""
    return draw(3, SIZE)


@pytest.mark.parametrize("alpha", [False, True])
def test_a_large_picture_is_read_reduced_as_pillow_would(picture, alpha):
    image = picture.copy()
    if alpha:
        image.putalpha(Image.linear_gradient("L").resize(SIZE))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    data = webp(image, exif=exif, icc_profile=b"none")
    found, size = open_image(data, 80, draft_side=256)
    assert size == SIZE[::-1] and found.info["icc_profile"] == b"none"
    whole = Image.open(io.BytesIO(data)).reduce(5).transpose(Image.Transpose.ROTATE_270)
    assert found.size == whole.size and found.mode == whole.mode == ("RGBA" if alpha else "RGB")
    difference = np.abs(np.asarray(to_rgb(found), int) - np.asarray(to_rgb(whole), int))
    assert difference.mean() < 1 and difference.max() < 12


def test_broken_and_animated_pictures_are_refused_as_before(picture):
    data = webp(picture)
    for broken in (data[:len(data) // 2], data[:2000] + bytes(3000) + data[5000:]):
        with pytest.raises(BadImage, match="broken"):
            open_image(broken, 80, draft_side=256)
    frames = [picture.resize((64, 64)), Image.new("RGB", (64, 64))]
    with pytest.raises(BadImage, match="2 frames"):
        open_image(webp(frames[0], save_all=True, append_images=frames[1:]), 80, draft_side=16)
    with pytest.raises(BadImage, match="too large: 4200 x 4000"):
        open_image(data, 16, draft_side=256)


def test_webp_pictures_of_other_modes_are_left_to_pillow(picture):
    data = webp(picture.resize((64, 64)))
    grey = Image.open(io.BytesIO(data)).convert("L")
    assert read_reduced(grey, data, 2) is None


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"lossless": True, "quality": 0}])
def test_79_megapixels_take_less_than_600_megabytes(tmp_path, options):
    image = draw(3, (8900, 8870), 40)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    path, peak = tmp_path / "large.webp", tmp_path / "peak"
    path.write_bytes(webp(image, **options))
    done = subprocess.run([sys.executable, "-c", LAUNCHER, peak, sys.executable, "-c", READ, path],
                          cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "(8900, 8870) (810, 807)\n"
    assert int(peak.read_text()) / 1000 < 600
