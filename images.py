"""Photographs, without torch: opening what came from anywhere safely, colours, sizes, the view evaluation sees."""
import io
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils import InputError

# What cameras, phones and web pages use (JPEG includes cameras' MPO); each further decoder is one more to break.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")

CACHE_SIDE = 256  # pixels: the shorter side of a cleaned photograph, see `resize_for_cache`
Image.MAX_IMAGE_PIXELS = None  # `open_image` keeps the caller's limit; Pillow's ends at 179 megapixels


class BadImage(InputError):
    """A file that is not a whole picture; the message is the reason."""


def open_image(source, max_megapixels, draft_side=0):
    """Return (image, (width, height)): a whole picture, upright by its EXIF orientation, and its full size in pixels.

    `source` is a path or bytes. With `draft_side`, a JPEG may be decoded at 1/2, 1/4 or 1/8 scale, its shorter side
    not below `draft_side` (https://pillow.readthedocs.io, `Image.draft`). Of a camera's MPO the first frame is taken,
    other files of several frames are refused. Raises BadImage with the reason; OSError where a file cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        width, height = image.size
        if width * height > max_megapixels * 1e6:
            raise BadImage(f"too large: {width} x {height}")
        if image.format != "MPO" and getattr(image, "is_animated", False):
            raise BadImage(f"{image.n_frames} frames")
        if draft_side and min(width, height) > draft_side:
            scale = draft_side / min(width, height)
            image.draft(None, (round(width * scale), round(height * scale)))
        image.load()
    except (BadImage, TimeoutError):
        raise
    except Image.UnidentifiedImageError:
        raise BadImage("not a picture" if data else "empty file") from None
    except Exception as error:  # decoders of broken files raise nearly anything: OSError, SyntaxError, struct.error ...
        raise BadImage(f"broken: {type(error).__name__} {error}"[:120]) from None
    try:
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
        image = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF on a whole picture: show it as stored
        turned = False
    return image, (height, width) if turned else (width, height)


def to_rgb(image):
    """Return the image in mode RGB: transparent parts on white, 16 bits scaled to 8, or raise BadImage."""
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise BadImage(f"mode {image.mode}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize_shorter_side(image, side):
    """Return the PIL image scaled so that its shorter side is exactly `side` pixels, aspect ratio kept."""
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def resize_for_cache(image, image_size):
    """Return the RGB image that views are cropped from: its shorter side at most `cache_side`."""
    image, side = to_rgb(image), cache_side(image_size)
    return resize_shorter_side(image, side) if min(image.size) > side else image


def cache_side(image_size):
    """Return the shorter side in pixels to keep: a cleaned photograph's, or what evaluation needs."""
    return max(CACHE_SIDE, view_side(image_size))


def view_side(image_size):
    """Return the pixels of the shorter side of the picture whose centre evaluation sees: 256 for an image of 224."""
    return round(image_size * 8 / 7)


def evaluation_view(image, image_size):
    """Return the (image_size, image_size, 3) uint8 array that evaluation and prediction show the network.

    The shorter side becomes 8/7 of the image size (256 for 224), of which the centre is kept, as in torchvision's
    reference evaluation (https://github.com/pytorch/vision/tree/main/references/classification).
    """
    image = resize_shorter_side(resize_for_cache(image, image_size), view_side(image_size))
    left, top = (image.width - image_size) // 2, (image.height - image_size) // 2
    return np.array(image.crop((left, top, left + image_size, top + image_size)))


def encode(image, kind="JPEG", **options):
    """Return the bytes of an image file, of quality 88 where its kind has one and the options name no other."""
    data = io.BytesIO()
    image.save(data, kind, **{"quality": 88, **options})
    return data.getvalue()


@contextmanager
def time_limit(seconds):
    """Raise TimeoutError in the body after so many seconds; no limit without POSIX timers or off the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
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
