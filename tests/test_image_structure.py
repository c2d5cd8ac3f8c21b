"""Small files that would keep a decoder busy for minutes are refused before it reads them."""
import struct
import time
import zlib

import pytest
from PIL import Image

from dataset_preparation.parsing.connections import Refused
from dataset_preparation.parsing.photo_check import check_photo
from image_structure import count_pages, find_excess
from images import BadImage, encode, find_damage, open_image
from tests.conftest import draw, jpeg, shared


def progressive(side, more):
    """Return a grey progressive JPEG whose last scan is appended `more` times."""
    data = jpeg(Image.new("L", (side, side), 128), progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda"):-2] * more + data[-2:]


def tiff(pages, loop=False):
    """Return a TIFF of grey pages with the same 64 pixels; with `loop`, the last names itself."""
    tags = ((256, 3, 8), (257, 3, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, 8), (279, 4, 64))
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    data, size = b"II*\0" + struct.pack("<I", 72) + bytes(64), 2 + len(entries) + 4
    for page in range(pages):
        end = 72 + size * (pages - 1) if loop else 0
        following = 72 + size * (page + 1) if page + 1 < pages else end
        data += struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)
    return data


def png(*chunks):
    """Return a PNG with chunks (kind, data) before its pixels."""
    data = encode(draw(1, (64, 64)), "PNG")
    added = b"".join(struct.pack(">I", len(body)) + kind + body
                     + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)
    return data[:33] + added + data[33:]


def gif(blocks):
    """Return a GIF with an extension of these bytes before its picture."""
    data = encode(Image.new("P", (64, 64)), "GIF")
    start = 13 + (3 << (data[10] & 7) + 1)
    return data[:start] + b"\x21\xf1" + blocks + b"\0" + data[start:]


def run_length_bmp(side):
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0)
    return (b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024)
            + b"\x01\x01\0\0" * side + b"\0\x01")


ZEROS = zlib.compress(bytes(1_000_000), 9)
PHOTO = jpeg(draw(2))
BOMBS = {  # file, what the reason names
    "scans": (progressive(500, 800), "scans: 80"),
    "scans of a large picture": (progressive(4000, 80), "scans: 8"),
    "segments": (PHOTO[:2] + b"\xff\xfe\0\x02" * 20_000 + PHOTO[2:], "segments"),
    "pages": (tiff(20_000), "pages"),
    "profiles": (png(*[(b"iCCP", b"a\0\0" + ZEROS)] * 50), "colour profile"),
    "texts": (png(*[(b"zTXt", b"a\0\0" + ZEROS[:-3])] * 1500), "chunks"),
    "chunks": (png(*[(b"abCd", b"")] * 20_000), "chunks"),
    "blocks": (gif(b"\x01a" * 1_100_000), "blocks"),
    "run lengths": (run_length_bmp(8000), "run lengths"),
    "text": (b"P3 2000 500 255\n" + b"1 " * 3_000_000, "plain text")}


@pytest.mark.parametrize("name", BOMBS)
def test_work_that_a_file_would_cause_is_bounded(name):
    data, reason = BOMBS[name]
    started = time.process_time()
    with pytest.raises(BadImage, match=reason):
        open_image(data, 100, first_page=True)
    assert "save the picture again" in find_excess(data)
    with pytest.raises(Refused):  # a collected photograph
        check_photo(data, 100)
    assert time.process_time() - started < 3


def test_frames_of_an_animation_and_pages_are_not_counted_by_pillow():
    frame = b"\x2c" + struct.pack("<4H", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    data = encode(Image.new("P", (64, 64)), "GIF")[:-1] + frame * 100_000 + b";"
    started = time.process_time()
    with pytest.raises(BadImage, match="frames"):
        open_image(data, 80)
    image, _ = open_image(tiff(8000), 80, first_page=True)
    assert (image.size, image.info["pages"]) == ((8, 8), 8000)
    assert time.process_time() - started < 1


def test_pages_are_counted_as_they_are_linked():
    scan = encode(draw(1), "TIFF", save_all=True, append_images=[draw(2), draw(3)])
    big = encode(draw(1), "TIFF", save_all=True, append_images=[draw(2)], big_tiff=True)
    counts = [count_pages(data) for data in (
        scan, big, tiff(1), tiff(5), tiff(5, loop=True), scan[:9], b"II*\0",
        b"MM\0*\xff\xff\xff\xff", b"II+\0\x08\0\0\0" + b"\xff" * 8)]
    assert counts == [3, 2, 1, 5, 5, 1, 0, 1, 1]


def test_what_real_files_contain_is_no_excess():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    for data in (PHOTO, progressive(3000, 20), tiff(100), png((b"tEXt", b"a\0b")), gif(b"\x01a"),
                 run_length_bmp(500), b"P2 2 2 255\n1 2 3 4", PHOTO + bytes(b"\xff\xda" * 1000),
                 jpeg(draw(1), exif=exif, comment=b"\xff\xda" * 1000),  # scans of a thumbnail, say
                 jpeg(draw(1).convert("CMYK"), progressive=True)):
        assert find_excess(data) == ""
        open_image(data, 80, first_page=True)
    assert find_damage(PHOTO) == ""


@pytest.mark.photos
def test_real_photographs_are_no_excess():
    paths = [path for name in ("odd_files", "flowers", "exif_orientation")
             for path in shared(f"photos/{name}").rglob("*.*")]
    assert [path.name for path in paths if find_excess(path.read_bytes())] == []
