"""The pictures in docs/, read by their specifications and not by Pillow, which wrote them."""
import struct
import zlib

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT

CHANNELS = {2: 3, 6: 4}  # by colour type, of pictures in full colour


def pictures(ending):
    """Return the parameters of a test: the pictures in docs/ with an ending."""
    return pytest.mark.parametrize("path", sorted(ROOT.glob(f"docs/**/*.{ending}")),
                                   ids=lambda path: path.name)


def png_chunks(data):
    """Return [(name, body)] of a PNG (https://www.w3.org/TR/png-3); its checksums are checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, start = [], 8
    while start < len(data):
        length, name = struct.unpack(">I4s", data[start:start + 8])
        body, end = data[start + 8:start + 8 + length], start + 12 + length
        assert zlib.crc32(name + body).to_bytes(4, "big") == data[end - 4:end], name
        chunks.append((name, body))
        start = end
    return chunks


@pictures("png")
def test_png_files_are_whole_and_of_full_colour(path):
    chunks = png_chunks(path.read_bytes())
    names = [name for name, _ in chunks]
    assert (names[0], names[-1], names.count(b"IHDR")) == (b"IHDR", b"IEND", 1)
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, rest) == (8, [0, 0, 0]) and colour in CHANNELS
    pixels = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    rows = np.frombuffer(pixels, np.uint8).reshape(height, 1 + width * CHANNELS[colour])
    assert rows[:, 0].max() <= 4  # filters


def skip_sub_blocks(data, start):
    """Return where the sub-blocks that start there end."""
    while data[start]:
        start += 1 + data[start]
    return start + 1


@pictures("gif")
def test_gif_files_are_whole(path):
    """Block by block (GIF89a), then all frames by OpenCV where it reads them (4.11 and newer)."""
    data = path.read_bytes()
    width, height, flags = struct.unpack("<HHB", data[6:11])
    assert data[:6] == b"GIF89a"
    at, frames = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0), 0
    while data[at] != 0x3B:
        if data[at] == 0x21:
            at = skip_sub_blocks(data, at + 2)
            continue
        left, top, across, down, flags = struct.unpack("<HHHHB", data[at + 1:at + 10])
        assert data[at] == 0x2C and left + across <= width and top + down <= height
        at = skip_sub_blocks(data, at + 11 + (3 << (flags & 7) + 1 if flags & 128 else 0))
        frames += 1
    assert at == len(data) - 1 and frames > 1
    read, images = cv2.imreadmulti(str(path))
    assert not read or {image.shape[:2] for image in images} == {(height, width)}
    assert not read or len(images) == frames
