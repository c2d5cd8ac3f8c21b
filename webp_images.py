"""Read large WebP pictures at a fraction of their size; Pillow would need 16 bytes per pixel.

libwebp can scale while it decodes (https://developers.google.com/speed/webp/docs/api, Advanced
Decoding API). This calls the copy that Pillow contains; the structures are those of its `decode.h`,
ABI version 2.
"""
import ctypes
from ctypes import POINTER, Structure, byref, c_int, c_size_t, c_uint32, c_void_p

import numpy as np
from PIL import Image, _webp

ABI = 0x0200
RGB, RGBA = 0, 1  # WEBP_CSP_MODE
UNSUPPORTED = 4  # VP8StatusCode of animations, which need another decoder


class DecoderOutput(Structure):
    """WebPDecBuffer with the RGBA half of its union."""

    _fields_ = [("colorspace", c_int), ("width", c_int), ("height", c_int),
                ("is_external_memory", c_int), ("rgba", c_void_p), ("stride", c_int),
                ("size", c_size_t), ("rest_of_union", c_size_t * 7), ("pad", c_uint32 * 4),
                ("private_memory", c_void_p)]


class DecoderOptions(Structure):
    """WebPDecoderOptions."""

    _fields_ = [(name, c_int) for name in (
        "bypass_filtering", "no_fancy_upsampling", "use_cropping", "crop_left", "crop_top",
        "crop_width", "crop_height", "use_scaling", "scaled_width", "scaled_height", "use_threads",
        "dithering_strength", "flip", "alpha_dithering_strength")] + [("pad", c_uint32 * 5)]


class DecoderConfig(Structure):
    """WebPDecoderConfig."""

    _fields_ = [("input", c_int * 10), ("output", DecoderOutput), ("options", DecoderOptions)]


def read_reduced(image, data, factor):
    """Return the WebP picture that Pillow opened in `data`, its sides divided by `factor`.

    Returns None where libwebp cannot be called (on Windows it is linked into Pillow) or cannot
    decode this kind; raises OSError for a broken picture.
    """
    try:
        library = ctypes.CDLL(_webp.__file__)
        init, decode = library.WebPInitDecoderConfigInternal, library.WebPDecode
    except (OSError, AttributeError):
        return None
    if ctypes.sizeof(c_void_p) != 8:  # the union above has another size
        return None
    init.argtypes = POINTER(DecoderConfig), c_int
    decode.argtypes = ctypes.c_char_p, c_size_t, POINTER(DecoderConfig)
    config = DecoderConfig()
    if image.mode not in ("RGB", "RGBA") or not init(byref(config), ABI):
        return None
    width, height = (-(-side // factor) for side in image.size)
    pixels = np.empty((height, width, len(image.mode)), np.uint8)
    config.options.use_scaling = 1
    config.options.scaled_width, config.options.scaled_height = width, height
    config.output.colorspace = RGB if image.mode == "RGB" else RGBA
    config.output.is_external_memory = 1
    config.output.rgba = pixels.ctypes.data
    config.output.stride, config.output.size = pixels.strides[0], pixels.nbytes
    status = decode(data, len(data), byref(config))
    if status == UNSUPPORTED:
        return None
    if status:
        raise OSError(f"libwebp ends with status {status}")
    reduced = Image.fromarray(pixels)
    reduced.info, reduced.format = dict(image.info), image.format
    return reduced
