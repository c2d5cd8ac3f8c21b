"""Colour profiles, modes in words, large pictures in little memory, the limit of processor time."""
import io
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataset_preparation.cleaning.inspection import inspect, time_limit
from images import LARGE_PIXELS, View, evaluation_view, open_image, resize_shorter_side, to_rgb
from tests.conftest import ROOT, draw, jpeg

RULE = {"min_side": 64, "output_side": 64, "jpeg_quality": 95, "max_file_mb": 100.0,
        "max_megapixels": 80.0, "decode_seconds": 60.0, "accepted_modes": ("RGB",),
        "converted_modes": ("RGBA",)}
PEAK = """
import sys
from dataset_preparation.cleaning.inspection import inspect
print(inspect(sys.argv[1], sys.argv[1] + ".jpg", {rule})["reason"])
with open("/proc/self/status") as status:  # getrusage counts what the parent process took
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
"""


def swapped_profile():
    """Return a profile of sRGB with the primaries of red and green exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {}
    for i in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * i
        places[bytes(data[entry:entry + 4])] = entry
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    data[red:red + 4], data[green:green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data).replace(b"s\0R\0G\0B", b"t\0e\0s\0t"[:7])


def save(image, kind, **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_those_of_the_profile(kind, mode, tmp_path):
    """Under a profile that exchanges red and green, a stored red is a green."""
    red = Image.new(mode, (300, 280), (200, 30, 10))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = save(red, kind, icc_profile=swapped_profile(), **options)
    colour = to_rgb(open_image(data, 80)[0]).getpixel((9, 9))
    assert np.abs(np.subtract(colour, (30, 200, 10))).max() < 12
    view = evaluation_view(open_image(data, 80)[0], View(64))
    assert np.abs(view[30, 30] - np.array([30.0, 200, 10])).max() < 12
    (tmp_path / "photo").write_bytes(data)
    assert inspect(tmp_path / "photo", tmp_path / "cleaned.jpg", RULE)["reason"] == ""
    cleaned = Image.open(tmp_path / "cleaned.jpg")
    assert np.abs(np.subtract(cleaned.getpixel((9, 9)), (30, 200, 10))).max() < 12
    assert "icc_profile" not in cleaned.info  # else it would be applied twice
    assert to_rgb(open_image(tmp_path / "cleaned.jpg", 80)[0]).getpixel((9, 9)) == (
        cleaned.getpixel((9, 9)))


def grey_profile(gamma):
    """Return a profile of greys: luminance is the stored value to the power of gamma."""
    bodies = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(79),
              b"cprt": b"text" + bytes(4) + b"none\0\0\0\0",
              b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
              b"kTRC": b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)}
    table, data, start = struct.pack(">I", len(bodies)), b"", 128 + 4 + 12 * len(bodies)
    for name, body in bodies.items():
        table += name + struct.pack(">II", start + len(data), len(body))
        data += body
    header = (struct.pack(">I4sI12s", start + len(data), b"lcms", 0x02400000, b"mntrGRAYXYZ ")
              + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
              + struct.pack(">3i4s", 63190, 65536, 54061, b"lcms"))
    return header.ljust(128, b"\0") + table + data


@pytest.mark.parametrize("transparency", [{}, {"transparency": 1}])
def test_a_palette_has_the_colours_of_the_profile(transparency):
    picture = Image.new("RGB", (60, 40), (200, 30, 10))
    picture.paste((0, 0, 0), (0, 0, 30, 40))
    stored = picture.quantize(2)
    index = stored.getpixel((5, 5))
    data = save(stored, "PNG", icc_profile=swapped_profile(),
                **dict.fromkeys(transparency, index))
    rgb = to_rgb(open_image(data, 80)[0])
    assert np.abs(np.subtract(rgb.getpixel((50, 5)), (30, 200, 10))).max() < 12
    assert rgb.getpixel((5, 5)) == ((255, 255, 255) if transparency else (0, 0, 0))


@pytest.mark.parametrize("kind, mode, transparent", [
    ("PNG", "L", False), ("PNG", "LA", False), ("PNG", "LA", True), ("JPEG", "L", False)])
def test_greys_have_the_brightness_of_a_profile_of_greys(kind, mode, transparent):
    """Chromium shows 168 for a stored 100 of linear light, and ignores a profile of colours."""
    grey = Image.new(mode, (60, 40), (100, 0 if transparent else 255) if mode == "LA" else 100)
    for profile, shown in ((grey_profile(1.0), 168), (swapped_profile(), 100)):
        rgb = to_rgb(open_image(save(grey, kind, icc_profile=profile), 80)[0])
        assert np.abs(np.subtract(rgb.getpixel((5, 5)), 255 if transparent else shown)).max() <= 1
    stored = save(Image.new("L", (60, 40), 7), "PNG", icc_profile=grey_profile(1.0), transparency=7)
    assert to_rgb(open_image(stored, 80)[0]).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("profile", [
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"no profile",
    ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_srgb_and_unusable_profiles_change_nothing(profile):
    picture = draw(3, (120, 100))
    image, _ = open_image(save(picture, "PNG", icc_profile=profile), 80)
    assert np.array_equal(np.asarray(to_rgb(image)), np.asarray(picture))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_16_bits(key):
    """Return a PNG of red and blue halves, 16 bits per colour; the colour `key` is transparent."""
    rows = (b"\0" + struct.pack(">3H", 0xffff, 0x00ff, 0) * 150
            + struct.pack(">3H", 0, 0x00ff, 0xffff) * 150) * 280
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 300, 280, 16, 2, 0, 0, 0)) + (
        chunk(b"tRNS", struct.pack(">3H", *key)) + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b""))


@pytest.mark.parametrize("size", [(300, 280), (4803, 3603)])  # the second is read reduced
def test_a_transparent_colour_of_a_png_becomes_white_and_its_mode_says_so(size, tmp_path):
    picture = Image.new("RGB", size, (200, 30, 10))
    picture.paste((0, 255, 0), (0, 0, size[0] // 2, size[1]))
    data = save(picture, "PNG", transparency=(0, 255, 0), icc_profile=swapped_profile())
    image, _ = open_image(data, 80, draft_side=256)
    assert image.mode == "RGBA"
    rgb = to_rgb(image)
    assert rgb.getpixel((9, 9)) == (255, 255, 255)
    assert np.abs(np.subtract(rgb.getpixel((rgb.width - 9, 9)), (30, 200, 10))).max() < 12
    (tmp_path / "photo").write_bytes(data)
    for modes, reason in ((), "add 'RGBA' to --converted_modes"), (("RGBA",), ""):
        found = inspect(tmp_path / "photo", tmp_path / "cleaned.jpg",
                        {**RULE, "converted_modes": modes})
        assert found["reason"].endswith(reason) and bool(found["reason"]) == bool(reason)


def test_a_transparent_colour_of_16_bits_is_that_colour_alone():
    rgb = to_rgb(open_image(png_of_16_bits((0xffff, 0x00ff, 0)), 80)[0])
    assert rgb.getpixel((9, 9)) == (255, 255, 255)
    assert rgb.getpixel((290, 9)) == (0, 0, 255)


@pytest.mark.parametrize("mode, words", [
    ("L", "black and white"), ("P", "palette picture"), ("LA", "transparent"), ("I;16", "16 bits"),
    ("F", "measured values")])
def test_rejected_colour_modes_are_named_in_words_with_the_setting(mode, words, tmp_path):
    grey = draw(4, (120, 100)).convert("L")
    image = (Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16"
             else grey.convert(mode))
    (tmp_path / "photo").write_bytes(save(image, "TIFF" if mode == "F" else "PNG"))
    reason = inspect(tmp_path / "photo", tmp_path / "cleaned.jpg", RULE)["reason"]
    assert words in reason.split(":")[0] and mode in reason
    assert mode == "F" or f"add '{mode}' to --converted_modes" in reason


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind, mode", [("PNG", "RGBA"), ("PNG", "RGB"), ("JPEG2000", "RGB")])
def test_a_picture_of_79_megapixels_stays_under_600_megabytes(kind, mode, tmp_path):
    options = {"compress_level": 1} if kind == "PNG" else {
        "quality_mode": "rates", "quality_layers": [20]}
    draw(5, (600, 450)).resize((10260, 7700)).convert(mode).save(tmp_path / "big", kind, **options)
    done = subprocess.run([sys.executable, "-c", PEAK.replace("{rule}", repr(RULE)),
                           tmp_path / "big"], cwd=ROOT, capture_output=True, text=True, check=True)
    *reason, megabytes = done.stdout.split("\n")[:2]
    print(f"{kind} {mode}: {megabytes} MB")
    assert reason == [""]
    assert float(megabytes) < 600


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_picture_read_reduced_is_the_same(mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = draw(6, (400, 300)).resize((4803, 3603)).convert(mode)
    if mode == "RGBA":
        picture.putalpha(draw(7, (400, 300)).convert("L").resize(picture.size))
    assert picture.width * picture.height > LARGE_PIXELS
    data = save(picture, "PNG", exif=exif, compress_level=1)
    reduced, size = open_image(data, 80, draft_side=256)
    whole, whole_size = open_image(data, 80)
    assert size == whole_size == ((4803, 3603) if orientation == 1 else (3603, 4803))
    assert min(reduced.size) < 1000 < min(whole.size)
    assert (reduced.width > reduced.height) == (size[0] > size[1])
    one, other = (np.asarray(resize_shorter_side(to_rgb(image), 256), float)
                  for image in (reduced, whole))
    assert np.abs(one - other).mean() < 1


def test_only_processor_time_counts_towards_the_limit():
    with time_limit(0.3):
        time.sleep(0.6)  # as on a machine that is busy with something else
    with pytest.raises(TimeoutError, match="took longer than 0.3 s"), time_limit(0.3):
        while True:
            pass


def test_a_jpeg_decoded_at_a_smaller_scale_keeps_its_profile():
    image = Image.new("RGB", (1200, 1200), (200, 30, 10))
    image, _ = open_image(jpeg(image, icc_profile=swapped_profile()), 80, draft_side=100)
    assert image.width < 1200
    assert np.abs(np.subtract(to_rgb(image).getpixel((9, 9)), (30, 200, 10))).max() < 12
