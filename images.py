"""Photographs, without torch: open untrusted files safely, convert colours, make views."""
import io
import re
import threading
from contextlib import nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageCms

from image_metadata import orientation_of, read_exif, turn_upright
from image_structure import count_pages, find_excess, without_metadata
from utils import InputError

try:
    from pillow_heif import register_heif_opener
    register_heif_opener(thumbnails=False)
except ImportError:
    pass  # `open_image` names the package where a HEIC file needs it

# What cameras, phones and web pages write (JPEG includes the MPO of cameras). Pillow opens dozens
# more, but every decoder is code that reads untrusted bytes.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM",
                 "HEIF")  # HEIC, an iPhone's default, with the optional package pillow-heif
HEIF_ENDINGS = (".heic", ".heif", ".hif")
HEIF_BRANDS = re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)  # first bytes
NEEDS_HEIF = "HEIC picture: reading it needs a package; run pip install pillow-heif"

LARGE_PIXELS = 16e6  # above what most cameras and phones take; larger ones are read reduced
ONE_LARGE = threading.Lock()  # only one thread at a time decodes a larger photograph
REDUCING_GAP = 3  # times the target size, down to which averaging pixels does not show
REDUCIBLE_MODES = ("RGB", "RGBA", "L", "LA", "CMYK", "YCbCr")

CACHE_SIDE = 256  # pixels: the shorter side of a cleaned photograph, see `resize_for_cache`
# libjpeg's warnings of lost picture data. Pillow swallows them and leaves areas grey or shifted.
# Extra bytes between segments of metadata (markers 0xe0 to 0xef, 0xfe) are harmless.
LOST_DATA = re.compile(r"Corrupt JPEG data: (?!\d+ extraneous bytes before marker 0x(e.|fe))"
                       "|Premature end of JPEG file|Inconsistent progression sequence")
MODE_WORDS = {
    "1": "two colours only", "L": "black and white", "LA": "black and white, transparent",
    "P": "palette picture", "PA": "palette picture, transparent", "RGBA": "transparent picture",
    "CMYK": "printing colours", "I;16": "black and white, 16 bits", "I": "measured values",
    "I;16B": "black and white, 16 bits", "F": "measured values", "LAB": "laboratory colours"}
Image.MAX_IMAGE_PIXELS = None  # `open_image` checks the caller's limit; Pillow's is 179 megapixels


class BadImage(InputError):
    """A file that is not a single intact picture; the message is the reason."""


def open_image(source, max_megapixels, draft_side=0, scaled=True, first_page=False):
    """Return (image upright by its EXIF orientation, (width, height) in the file's full size).

    `source` is a path or bytes. With `draft_side`, an image of more than LARGE_PIXELS is read
    reduced to save memory, its shorter side at least REDUCING_GAP * draft_side. If also `scaled`, a
    JPEG may be decoded at 1/2 to 1/8 scale, its shorter side at least `draft_side`: this is faster,
    but libjpeg does not average pixels. A camera's MPO gives its first frame, a HEIC file its main
    image and, with `first_page`, a TIFF its first page, with the number of pages in `info`; other
    files with several images are refused. Raises BadImage, or OSError if unreadable.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        if excess := find_excess(data):
            raise BadImage(excess)
        image = Image.open(io.BytesIO(data), formats=readable_formats())
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise BadImage(f"too large: {width} x {height}")
        if image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
            if not (first_page and image.format == "TIFF"):
                raise BadImage("2 frames or more")  # to count them can take Pillow very long
            image.info["pages"] = count_pages(data)
        orientation = orientation_of(image)
        image = load(image, data, draft_side, scaled)
    except (BadImage, TimeoutError):
        raise
    except Image.UnidentifiedImageError:
        if HEIF_BRANDS.match(data) and "HEIF" not in Image.OPEN:
            raise BadImage(NEEDS_HEIF) from None
        raise BadImage("not a picture" if data else "empty file") from None
    except Exception as error:  # decoders raise nearly anything on broken files
        raise BadImage("broken: the file is cut off or damaged "
                       f"({type(error).__name__}: {error}"[:110] + ")") from None
    image, rotated = turn_upright(image, orientation)
    return image, (height, width) if rotated else (width, height)


def load(image, data, draft_side, scaled):
    """Decode the picture that Pillow opened in `data`, reduced as `open_image` describes."""
    shorter = min(image.size)
    if scaled and draft_side and shorter > draft_side:
        scale = draft_side / shorter
        image.draft(None, tuple(round(side * scale) for side in image.size))
    factor = shorter // (REDUCING_GAP * draft_side) if draft_side else 1
    large = factor >= 2 and image.width * image.height > LARGE_PIXELS
    if large and image.format == "JPEG2000":
        try:
            image.reduce = factor.bit_length() - 1  # resolution levels to skip; each halves
            image.load()
            return image
        except Exception:  # it has fewer levels, or is broken: then loading it whole fails, too
            image = Image.open(io.BytesIO(data), formats=["JPEG2000"])
    with ONE_LARGE if large else nullcontext():
        image.load()
        image = with_alpha(image)
        return reduce_in_strips(image, factor) if large and image.mode in REDUCIBLE_MODES else image


def with_alpha(image):
    """Return an RGB picture with a transparent colour (PNG's tRNS chunk) as RGBA, others as is."""
    if image.mode != "RGB" or "transparency" not in image.info:
        return image
    colour = image.info["transparency"]
    if max(colour) > 255:  # 16 bits, of which Pillow keeps 8 in the pixels
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    return image.convert("RGBA")


def reduce_in_strips(image, factor):
    """Return `image.reduce(factor)` without the full copy that it makes of transparent ones."""
    width, height = image.size
    reduced = Image.new(image.mode, (-(-width // factor), -(-height // factor)))
    rows = 64  # of the result at a time
    for top in range(0, reduced.height, rows):
        bottom = min(height, (top + rows) * factor)
        strip = image.crop((0, top * factor, width, bottom)).reduce(factor)
        reduced.paste(strip, (0, top))
    reduced.info, reduced.format = image.info, image.format
    with suppress(Exception):  # broken EXIF
        reduced.info.setdefault("exif", read_exif(image).tobytes())
    return reduced


def readable_formats():
    """Return the formats in `IMAGE_FORMATS` that the installed packages can read."""
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def photo_endings():
    """Return the file endings of photographs in lower case, HEIC's even if it cannot be read."""
    return tuple(ending for ending, kind in Image.registered_extensions().items()
                 if kind in IMAGE_FORMATS) + HEIF_ENDINGS


def find_damage(data):
    """Return what is missing from a picture that `open_image` has opened, "" if it is intact.

    A JPEG is decoded again, at 1/8 scale in grey, by a decoder that reports libjpeg's warnings.
    Other formats have checksums, or their decoders refuse damaged files.
    """
    warning = jpeg_warning(data) if data.startswith(b"\xff\xd8") else ""
    if warning and not LOST_DATA.match(warning):  # harmless, but later ones are not reported
        warning = jpeg_warning(without_metadata(data))
    return ("damaged: data of the picture is missing or wrong; look for another copy"
            if LOST_DATA.match(warning) else "")


def jpeg_warning(data):
    """Return libjpeg's first warning about a JPEG, even a harmless one, "" if there is none."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return str(error) or "unknown"
    return ""


def whole_jpeg_size(data, max_megapixels):
    """Return (width, height), upright, of a JPEG that decodes without any warning, else None.

    Takes half the time of `open_image` and `find_damage` because it decodes once, in grey.
    """
    if find_excess(data):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            width, height = image.size
            rotated = orientation_of(image) in (5, 6, 7, 8)
    except Exception:  # `open_image` will report it
        return None
    if width * height > max_megapixels * 1e6 or jpeg_warning(data):
        return None
    return (height, width) if rotated else (width, height)


def name_mode(mode):
    """Return a Pillow colour mode in words, with the mode in brackets."""
    return f"{MODE_WORDS.get(mode, 'unusual colours')} ({mode})"


def to_srgb(image):
    """Return the image converted from its embedded colour profile to sRGB.

    Networks and most viewers assume sRGB. An image without a readable profile, or already in sRGB,
    is returned as it is. Palettes are converted as their colours, greys by a profile of greys.
    """
    profile, converted, alpha = image.info.get("icc_profile"), image, None
    if profile and image.mode in ("P", "PA"):
        converted = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if profile and image.mode in ("L", "LA") and image.has_transparency_data:
        converted, alpha = image.convert("LA").split()
    transform = profile and build_transform(profile, converted.mode)
    if not transform:
        return image
    converted = ImageCms.applyTransform(converted, transform)
    if alpha:
        converted.putalpha(alpha)
    converted.info.pop("icc_profile", None)
    return converted


@lru_cache(maxsize=16)  # the photographs of one camera share their profile
def build_transform(profile, mode):
    """Return the transform from a colour profile to sRGB, None if none is needed or possible."""
    if mode not in ("RGB", "RGBA", "CMYK", "L"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode,
                                       "RGBA" if mode == "RGBA" else "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # damaged, or for another mode
        return None


def to_rgb(image):
    """Return the image in mode RGB; raise BadImage if it has no colours.

    Colours are converted to sRGB, transparent parts become white, 16 bits are scaled to 8.
    """
    image = to_srgb(with_alpha(image))
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise BadImage(f"{name_mode(image.mode)}, which has no colours to show")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def resize_shorter_side(image, side, interpolation="lanczos"):
    """Return the PIL image with its shorter side exactly `side` pixels, aspect ratio kept."""
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling[interpolation.upper()], reducing_gap=REDUCING_GAP)


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


class View(NamedTuple):
    """The view of evaluation and prediction: the photograph is resized, then its centre cropped.

    By default 224 of 256 pixels, as in torchvision's reference evaluation
    (https://github.com/pytorch/vision/tree/main/references/classification).
    """

    image_size: int = 224  # pixels, side of the crop
    crop: float = 0.875  # side of the crop / shorter side of the resized photograph
    interpolation: str = "lanczos"  # of the resizing; Pillow's name

    @property
    def resized_side(self):
        """The shorter side in pixels to resize to."""
        return round(self.image_size / self.crop)


def resize_for_cache(image, view):
    """Return the RGB image to crop views from, its shorter side at most `cache_side` pixels."""
    image, side = to_rgb(image), cache_side(view)
    if min(image.size) <= side:
        return image
    return resize_shorter_side(image, side, view.interpolation)


def cache_side(view):
    """Return the shorter side in pixels of cached images: CACHE_SIDE, or the view's if larger."""
    return max(CACHE_SIDE, view.resized_side)


def evaluation_view(image, view):
    """Return the `View` of an image: a uint8 array (image_size, image_size, 3)."""
    image = resize_shorter_side(resize_for_cache(image, view), view.resized_side,
                                view.interpolation)
    size = view.image_size
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.array(image.crop((left, top, left + size, top + size)))


def encode(image, kind="JPEG", **options):
    """Return the bytes of an image file, by default of quality 88 (which PNG ignores).

    It has no metadata but what `options` name: Pillow would copy comments of the opened file, which
    may have names and addresses, and its colour profile.
    """
    data, image = io.BytesIO(), image.copy()
    image.info = {}
    image.save(data, kind, **{"quality": 88, **options})
    return data.getvalue()
