"""EXIF: orientation as browsers see it, the time and the camera."""
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from image_metadata import read_capture
from images import View, encode, open_image, whole_jpeg_size
from predict import read_photo
from tests.conftest import draw

TURNED = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
          b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
          b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF>'
          b"</x:xmpmeta>")


def exif_of(**inner):
    """Return EXIF with a camera and with tags of its inner directory, named x and their number."""
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({int(tag[1:], 16): text for tag, text in inner.items()})
    return exif


def xmp_options(kind):
    if kind == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", TURNED.decode())
        return {"pnginfo": text}
    return {"tiffinfo": {700: TURNED}} if kind == "TIFF" else {"xmp": TURNED}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_an_orientation_in_xmp_alone_does_not_turn_a_picture(kind, with_exif):
    picture = draw(1, (300, 200))
    options = {"exif": exif_of()} if with_exif and kind != "TIFF" else {}
    data = encode(picture, kind, **xmp_options(kind), **options)
    assert b"tiff:Orientation" in data
    image, size = open_image(data, 80)
    assert image.size == size == (300, 200)
    assert np.abs(np.asarray(image.convert("RGB"), float) - np.asarray(picture)).mean() < 9
    if kind == "JPEG":
        assert whole_jpeg_size(data, 80) == (300, 200)


def test_an_orientation_in_a_text_of_a_png_or_behind_its_pixels_is_ignored():
    exif = exif_of()
    exif[0x0112] = 6
    stored, text = exif.tobytes(), PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(stored):8}\n{stored.hex()}\n")
    plain = encode(draw(1, (300, 200)), "PNG")
    body = b"eXIf" + stored[6:]
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    for data in (encode(draw(1, (300, 200)), "PNG", pnginfo=text),
                 plain[:-12] + chunk + plain[-12:]):
        image, size = open_image(data, 80)
        assert image.size == size == (300, 200)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_an_orientation_in_exif_does_whatever_xmp_says(kind):
    exif = exif_of()
    exif[0x0112] = 8
    options = xmp_options(kind)
    if kind == "TIFF":
        exif.update(options.pop("tiffinfo"))
    image, size = open_image(encode(draw(1, (300, 200)), kind, exif=exif, **options), 80)
    assert image.size == size == (200, 300)


ZEROS, DAY = "0000:00:00 00:00:00", "2026:05:17 10:15:12"


@pytest.mark.parametrize("original, digitized, changed, taken", [
    (ZEROS, None, DAY, "2026-05-17"), (ZEROS, DAY, None, "2026-05-17"),
    ("2026:02:31 10:15:12", "    :  :     :  :  ", DAY, "2026-05-17"),
    (DAY, ZEROS, "2027:01:01 00:00:00", "2026-05-17"), (ZEROS, None, None, ""),
    (None, None, None, "")])
def test_the_first_time_that_is_one_counts(original, digitized, changed, taken):
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif[0x010F] = "Maker"
    for tags, tag, text in ((exif.get_ifd(0x8769), 0x9003, original), (exif, 0x0132, changed),
                            (exif.get_ifd(0x8769), 0x9004, digitized)):
        if text:
            tags[tag] = text
    found = read_capture(image)
    assert found == {"camera": "Maker" if taken else "",
                     "taken": f"{taken}T10:15:12" if taken else ""}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("size", [(300, 200), (5000, 3300)])  # the second is read reduced
def test_time_and_place_come_from_the_image_that_was_decoded(kind, size, tmp_path, monkeypatch):
    exif = exif_of(x9003=DAY)
    exif[0x0112] = 6
    exif.get_ifd(0x8825).update({1: "N", 2: (44.0, 30.0, 0.0), 3: "W", 4: (34.0, 0.0, 0.0)})
    path = tmp_path / "photo"
    path.write_bytes(encode(draw(1).resize(size), kind, exif=exif.tobytes()))
    opened, first = [], Image.open
    monkeypatch.setattr(Image, "open",
                        lambda *args, **more: opened.append(1) or first(*args, **more))
    s = SimpleNamespace(max_megapixels=80, max_file_mb=100)
    found = read_photo(path, SimpleNamespace(view=View(64)), s)
    assert found.pop("view").shape == (64, 64, 3)
    assert found == {"eventDate": "2026-05-17T10:15:12", "decimalLatitude": 44.5,
                     "decimalLongitude": -34.0}
    assert len(opened) == 1
