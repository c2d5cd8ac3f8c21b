"""Check that downloaded bytes are a photograph: by their first bytes, then by decoding them."""
import re
import threading
from typing import NamedTuple

from dataset_preparation.parsing.connections import Refused
from images import HEIF_BRANDS, BadImage, find_damage, open_image, whole_jpeg_size
from utils import sha256

DECODING = threading.Lock()  # one picture at a time, because decoding takes much memory
# first bytes of the accepted formats: https://en.wikipedia.org/wiki/List_of_file_signatures
SIGNATURES = (
    (rb"\xff\xd8\xff", "jpg"), (rb"\x89PNG\r\n\x1a\n", "png"), (rb"RIFF....WEBP", "webp"),
    (rb"GIF8[79]a", "gif"), (rb"....ftypavi[fs]", "avif"), (HEIF_BRANDS.pattern, "heic"),
    (rb"II\*\x00|MM\x00\*", "tif"), (rb"BM.{4}\x00{4}", "bmp"),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "jp2"))
OTHER_CONTENT = (  # in lower case, without byte order mark
    (rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", "an HTML page"),
    (rb"\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)*(<!doctype svg.*?>\s*)?<svg", "an SVG drawing"),
    (rb"%pdf", "a PDF document"), (rb"\s*[{\[]", "JSON"), (rb"....ftyp|\x1ae\xdf\xa3", "a video"),
    (rb"pk\x03\x04", "a zip archive"), (rb"....jxl |\xff\x0a", "a JPEG XL picture"),
    (rb"\s*<\?xml|\s*<", "an XML or HTML document"))
LEAST_SIDE = 32  # pixels; smaller ones are tracking pixels and icons


class Photo(NamedTuple):
    """A downloaded photograph."""

    data: bytes
    sha256: str
    extension: str  # of its real format
    width: int
    height: int
    damage: str = ""  # what is wrong with it; such a picture can be opened nevertheless


def check_photo(data, max_megapixels):
    """Return the `Photo` in these bytes; raise Refused if they are not a good photograph."""
    extension = first_match(SIGNATURES, data)
    if not data:
        raise Refused("empty")
    if not extension:
        start = data[:2000].removeprefix(b"\xef\xbb\xbf").lower()
        content = first_match(OTHER_CONTENT, start) or "unknown"
        raise Refused(f"not a picture: {content}")
    try:
        with DECODING:
            size, damage = extension == "jpg" and whole_jpeg_size(data, max_megapixels), ""
            if not size:
                _, size = open_image(data, max_megapixels, draft_side=64)
                damage = find_damage(data)
    except BadImage as error:
        raise Refused(str(error)) from None
    if min(size) < LEAST_SIDE:
        raise Refused(f"tracking pixel or icon: {size[0]} x {size[1]}")
    return Photo(data, sha256(data), extension, *size, damage)


def first_match(patterns, data):
    """Return the name of the first of (pattern, name) pairs that matches the start, or ""."""
    return next((name for pattern, name in patterns if re.match(pattern, data, re.DOTALL)), "")
