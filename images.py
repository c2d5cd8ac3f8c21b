"""Photographs without torch: opening untrusted files safely, colour modes, the evaluation view."""
import io
import re
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from utils import InputError

try:
    from pillow_heif import register_heif_opener
    register_heif_opener(thumbnails=False)
except ImportError:
    pass  # `open_image` names the package where a HEIC file needs it

# What cameras, phones and web pages write (JPEG includes the MPO of cameras). Pillow opens dozens
# of formats more; every decoder is code that reads untrusted bytes.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM",
                 "HEIF")  # HEIC, an iPhone's default, with the optional package pillow-heif
HEIF_ENDINGS = (".heic", ".heif", ".hif")
HEIF_BRANDS = re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL)  # how they begin
NEEDS_HEIF = "HEIC picture: reading it needs a package; run pip install pillow-heif"

CACHE_SIDE = 256  # pixels: the shorter side of a cleaned photograph, see `resize_for_cache`
# libjpeg's warnings of lost picture data; Pillow swallows them and leaves grey or shifted areas.
# Bytes between the segments of metadata (markers 0xe0 to 0xef, 0xfe) cost no pixel.
LOST_DATA = re.compile(r"Corrupt JPEG data: (?!\d+ extraneous bytes before marker 0x(e.|fe))"
                       "|Premature end of JPEG file|Inconsistent progression sequence")
Image.MAX_IMAGE_PIXELS = None  # `open_image` checks the caller's limit; Pillow's is 179 megapixels


class BadImage(InputError):
    """A file that is not one whole picture; the message is the reason."""


def open_image(source, max_megapixels, draft_side=0):
    """Return (image, (width, height)): a picture, upright by its EXIF orientation, and its size.

    `source` is a path or bytes; the size is the full one in pixels. With `draft_side`, a JPEG may
    be decoded at 1/2, 1/4 or 1/8 scale, its shorter side at least `draft_side`
    (https://pillow.readthedocs.io, `Image.draft`). Of a camera's MPO the first frame is returned,
    of a HEIC file the main image; other files with several frames are refused. Raises BadImage
    with the reason; OSError if the file cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        image = Image.open(io.BytesIO(data), formats=readable_formats())
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise BadImage(f"too large: {width} x {height}")
        if image.format not in ("MPO", "HEIF") and getattr(image, "is_animated", False):
            raise BadImage(f"{image.n_frames} frames")
        if draft_side and min(width, height) > draft_side:
            scale = draft_side / min(width, height)
            image.draft(None, (round(width * scale), round(height * scale)))
        image.load()
    except (BadImage, TimeoutError):
        raise
    except Image.UnidentifiedImageError:
        if HEIF_BRANDS.match(data) and "HEIF" not in Image.OPEN:
            raise BadImage(NEEDS_HEIF) from None
        raise BadImage("not a picture" if data else "empty file") from None
    except Exception as error:  # decoders raise nearly anything on broken files
        raise BadImage(f"broken: {type(error).__name__} {error}"[:120]) from None
    try:
        rotated = image.getexif().get(0x0112) in (5, 6, 7, 8)  # EXIF orientations of 90 degrees
        image = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF in a whole picture: leave it as stored
        rotated = False
    return image, (height, width) if rotated else (width, height)


def readable_formats():
    """Return those of `IMAGE_FORMATS` that the packages installed can read."""
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def find_damage(data):
    """Return what a picture that `open_image` has opened lost, or an empty text.

    A JPEG is decoded once more, at 1/8 scale in grey, by a decoder that passes libjpeg's warnings
    on. Other formats carry checksums or are refused by their decoders.
    """
    if not data.startswith(b"\xff\xd8"):
        return ""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:  # also of unusual subsampling, which is no damage
        if LOST_DATA.match(str(error)):
            return "damaged: data of the picture is missing or wrong; look for another copy"
    return ""


def to_rgb(image):
    """Return the image in mode RGB: transparency on white, 16 bits scaled to 8; or BadImage."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise BadImage(f"mode {image.mode}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def resize_shorter_side(image, side):
    """Return the PIL image with its shorter side exactly `side` pixels, aspect ratio kept."""
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def resize_for_cache(image, image_size):
    """Return the RGB image that views are cropped from: its shorter side at most `cache_side`."""
    image, side = to_rgb(image), cache_side(image_size)
    return resize_shorter_side(image, side) if min(image.size) > side else image


def cache_side(image_size):
    """Return the shorter side in pixels to keep: that of cleaned photographs or of evaluation."""
    return max(CACHE_SIDE, view_side(image_size))


def view_side(image_size):
    """Return the shorter side to resize to before the centre crop: 256 for an image of 224.

    The ratio 8/7 is that of torchvision's reference evaluation
    (https://github.com/pytorch/vision/tree/main/references/classification).
    """
    return round(image_size * 8 / 7)


def evaluation_view(image, image_size):
    """Return what evaluation and prediction show the network: resized, then cropped at the centre.

    The view is a uint8 array (image_size, image_size, 3).
    """
    image = resize_shorter_side(resize_for_cache(image, image_size), view_side(image_size))
    left, top = (image.width - image_size) // 2, (image.height - image_size) // 2
    return np.array(image.crop((left, top, left + image_size, top + image_size)))


def encode(image, kind="JPEG", **options):
    """Return the bytes of an image file, of quality 88 (PNG ignores it) by default."""
    data = io.BytesIO()
    image.save(data, kind, **{"quality": 88, **options})
    return data.getvalue()


@contextmanager
def time_limit(seconds):
    """Raise TimeoutError in the body after `seconds`.

    Without effect where there are no POSIX timers (Windows) and outside the main thread, which is
    the only one that receives signals.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "setitimer") or not on_main_thread:
        yield
        return

    def stop(*_):
        raise TimeoutError(f"took longer than {seconds:g} s")
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
