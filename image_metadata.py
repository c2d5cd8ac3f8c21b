"""What a photograph's EXIF says: how it is turned, when, where and by which camera it was taken."""
import re
from contextlib import suppress
from datetime import datetime

from PIL import Image, ImageOps

XMP = ("xmp", "XML:com.adobe.xmp")  # Pillow's keys


def read_exif(image):
    """Return the EXIF of an image that Pillow opened, alone, without decoding its pixels."""
    drop_xmp(image)
    if "exif" not in image.info:  # a TIFF, or a PNG; the method of PNG decodes it
        return Image.Image.getexif(image)
    exif = Image.Exif()
    exif.load(image.info["exif"])
    return exif


def drop_xmp(image):
    """Remove XMP from the `info` of an image.

    Pillow takes an orientation from it if EXIF has none. Browsers do not, so a page would show
    another picture than the scripts see.
    """
    for key in XMP:
        image.info.pop(key, None)


def orientation_of(image):
    """Return the orientation in the EXIF of an image that is not decoded yet, 1 if it is upright.

    Like browsers, it ignores EXIF after the pixels of a PNG or in its texts. Pillow itself turns a
    TIFF.
    """
    drop_xmp(image)
    with suppress(Exception):  # broken EXIF in an intact picture: leave it as stored
        return read_exif(image).get(0x0112, 1) if "exif" in image.info else 1
    return 1


def turn_upright(image, orientation):
    """Return (the picture turned by its EXIF orientation, whether by 90 degrees)."""
    with suppress(Exception):  # broken EXIF, as above
        if orientation != 1:  # exif_transpose would copy an upright picture
            return ImageOps.exif_transpose(image), orientation in (5, 6, 7, 8)
    return image, False


def read_capture(image):
    """Return `camera` (make, model, serial number) and `taken` (local time) of an image's EXIF.

    Both are "" if EXIF lacks them. Of several times the first valid one counts: programs fill those
    that they do not know with zeros. The time of the last change counts only if a camera is named,
    because image editors write it, too.
    """
    try:
        exif = read_exif(image)
        inner = exif.get_ifd(0x8769)  # Exif IFD, where these tags are: https://exiv2.org/tags.html
        parts = exif.get(0x010F, ""), exif.get(0x0110, ""), inner.get(0xA431, "")
        camera = re.sub(r"[^\w.-]+", " ", " ".join(map(str, parts))).strip(" .-")[:80]
        times = inner.get(0x9003), inner.get(0x9004), exif.get(0x0132) if camera else None
        taken = next(filter(None, map(parse_time, times)), "")
    except Exception:  # broken or missing EXIF
        taken = ""
    return {"camera": camera if taken else "", "taken": taken}


def parse_time(text):
    """Return the time in a text of EXIF in ISO 8601, "" if it is not a time.

    The standard form is 2026:05:17 10:15:12; some programs write other separators, or add a zone.
    """
    found = re.match(r"\s*(\d{4})" + r"\D+(\d\d?)" * 5, str(text))
    with suppress(ValueError):  # zeros, or the 31st of February
        return datetime(*map(int, found.groups())).isoformat() if found else ""
    return ""


def read_position(image):
    """Return (latitude, longitude) in degrees of an image's EXIF, None without a valid position.

    Cameras without a fix write zeros, a point in the Gulf of Guinea.
    """
    try:
        gps = read_exif(image).get_ifd(0x8825)
        if gps.get(9) == "V":  # GPSStatus "void": no fix
            return None
        place = [sum(float(part) / 60**i for i, part in enumerate(gps[tag])) for tag in (2, 4)]
        signs = [{"N": 1, "E": 1, "S": -1, "W": -1}[gps[tag].strip("\0 ")] for tag in (1, 3)]
    except Exception:  # broken or missing EXIF
        return None
    latitude, longitude = (sign * value for sign, value in zip(signs, place, strict=True))
    valid = abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude or longitude)
    return (latitude, longitude) if valid else None
