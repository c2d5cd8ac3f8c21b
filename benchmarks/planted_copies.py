"""Edited copies of photographs, as people and sites make them, each kind at three strengths.

`EDITS` maps a kind to three functions of (photograph, another photograph, random generator). They
return the edited photograph; `save` writes it as a JPEG of quality 88 or that of the edit.
"""
import math
from functools import partial

from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

WORDS = ("leaf", "petal", "found near", "the old road", "in early spring", "where the soil",
         "is moist", "photograph", "by a friend", "of the garden")


def cut(image, other, rng, left=0.0, top=0.0, right=0.0, bottom=0.0):
    """Return a photograph without these shares of its width and height."""
    width, height = image.size
    return image.crop((round(width * left), round(height * top), round(width * (1 - right)),
                       round(height * (1 - bottom))))


def cut_around(image, other, rng, share):
    """Return a photograph without a share of each side."""
    return cut(image, other, rng, share, share, share, share)


def shape(image, other, rng, ratio):
    """Return the largest part from the middle whose sides have this ratio."""
    width, height = image.size
    size = min(width, height * ratio), min(height, width / ratio)
    return ImageOps.fit(image, (round(size[0]), round(size[1])))


def pad(image, other, rng, colour, extra):
    """Return a square of one colour with the photograph in its middle."""
    side = round(max(image.size) * (1 + extra))
    return ImageOps.expand(image, ((side - image.width) // 2, (side - image.height) // 2), colour)


def frame(image, other, rng, share):
    """Return a photograph in a black frame."""
    return ImageOps.expand(image, round(min(image.size) * share), "black")


def rotate(image, other, rng, degrees):
    """Return a photograph rotated by a small angle, cut until no corner shows."""
    turned = image.rotate(degrees * rng.choice([-1, 1]), Image.Resampling.BICUBIC)
    angle, (width, height) = math.radians(degrees), image.size
    left = 1 / (math.cos(angle) + max(width / height, height / width) * math.sin(angle))
    return cut_around(turned, other, rng, (1 - left) / 2)


def turn(image, other, rng, how):
    """Return a photograph turned as Pillow's `Transpose` says, with no note of it in EXIF."""
    return image.transpose(how)


def mirror(image, other, rng, share):
    """Return a photograph without a share of each side, mirrored."""
    return ImageOps.mirror(cut_around(image, other, rng, share))


def screenshot(image, other, rng, size, top, lines):
    """Return a page of a telephone: status bar, title, the photograph, lines of text."""
    page = Image.new("RGB", size, (248, 248, 246))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=40)
    pen.rectangle((0, 0, size[0], 70), fill=(30, 30, 30))
    pen.text((30, 15), "12:41          78 %", font=font, fill="white")
    pen.text((40, top // 2), "Plants of the week", font=font, fill="black")
    shown = image.resize((size[0], round(image.height * size[0] / image.width)))
    page.paste(shown, (0, top))
    for line in range(lines):
        pen.text((40, top + shown.height + 40 + 60 * line), " ".join(rng.choices(WORDS, k=5)),
                 font=font, fill=(40, 40, 40))
    return page


def collage(image, other, rng, first, gap):
    """Return two photographs at one height side by side, this one first or second."""
    height = min(image.height, other.height)
    parts = [one.resize((round(one.width * height / one.height), height))
             for one in ((image, other) if first else (other, image))]
    both = Image.new("RGB", (parts[0].width + gap + parts[1].width, height), "white")
    both.paste(parts[0], (0, 0))
    both.paste(parts[1], (parts[0].width + gap, 0))
    return both


def banner(image, other, rng, share):
    """Return a photograph whose lowest part is hidden by a banner with text."""
    image, top = image.copy(), round(image.height * (1 - share))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, top, *image.size), fill=tuple(rng.choices(range(256), k=3)))
    pen.text((20, top + 5), "Spring sale at flowers.example", fill="white",
             font=ImageFont.load_default(size=max(12, round(image.height * share * 0.5))))
    return image


def watermark(image, other, rng, size):
    """Return a photograph with a half transparent name across its middle."""
    image = image.copy()
    font = ImageFont.load_default(size=round(image.height * size))
    ImageDraw.Draw(image, "RGBA").text((image.width * 0.1, image.height * 0.45), "plants.example",
                                       (255, 255, 255, 150), font)
    return image


def tone(image, other, rng, contrast=1.0, brightness=1.0, red=1.0, blue=1.0):
    """Return a photograph with other contrast, brightness and colours."""
    image = ImageEnhance.Brightness(ImageEnhance.Contrast(image).enhance(contrast)).enhance(
        brightness)
    bands = image.split()
    return Image.merge("RGB", [band.point(lambda value, by=by: min(255, value * by))
                               for band, by in zip(bands, (red, 1.0, blue), strict=True)])


def stretch(image, other, rng, width):
    """Return a photograph of another width and the same height."""
    return image.resize((round(image.width * width), image.height))


def soften(image, other, rng, radius, side):
    """Return a photograph blurred, reduced to `side` pixels and enlarged to its size again."""
    small = image.filter(ImageFilter.GaussianBlur(radius))
    small.thumbnail((side, side))
    return small.resize(image.size, Image.Resampling.BICUBIC)


def three(function, name, *values, **fixed):
    """Return an edit at three strengths."""
    return [partial(function, **{name: value}, **fixed) for value in values]


EDITS = {
    "one side cut": three(cut, "left", 0.05, 0.10, 0.25),
    "corner cut": [partial(cut, left=share, top=share) for share in (0.08, 0.15, 0.25)],
    "centre": three(cut_around, "share", 0.125, 0.20, 0.24),
    "other aspect ratio": three(shape, "ratio", 1.0, 0.8, 1.9),
    "padded": [partial(pad, colour=colour, extra=extra)
               for colour, extra in (("white", 0), ("black", 0.1), ("white", 0.3))],
    "framed": three(frame, "share", 0.05, 0.12, 0.2),
    "turned": three(turn, "how", Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180,
                    Image.Transpose.TRANSVERSE),
    "rotated": three(rotate, "degrees", 2, 5, 15),
    "mirrored and cut": three(mirror, "share", 0.0, 0.06, 0.15),
    "screenshot": [partial(screenshot, size=size, top=top, lines=lines) for size, top, lines in (
        ((1080, 1400), 150, 4), ((1080, 2280), 300, 12), ((1080, 2400), 700, 10))],
    "left of a collage": three(collage, "gap", 0, 12, 40, first=True),
    "right of a collage": three(collage, "gap", 0, 12, 40, first=False),
    "banner": three(banner, "share", 0.14, 0.25, 0.35),
    "watermark": three(watermark, "size", 0.05, 0.1, 0.15),
    "tone": [partial(tone, contrast=1.3), partial(tone, brightness=0.5),
             partial(tone, contrast=1.7, red=1.35, blue=0.65)],
    "width": three(stretch, "width", 0.9, 0.75, 1.3),
    "softened": [partial(soften, radius=radius, side=side)
                 for radius, side in ((1, 512), (2, 320), (3, 256))],
    "re-encoded": three(tone, "contrast", 1.0, 1.0, 1.0),
}
QUALITY = {"re-encoded": (50, 25, 10)}


def save(image, path, kind, strength):
    """Write an edited photograph."""
    image.save(path, "JPEG", quality=QUALITY.get(kind, (88, 88, 88))[strength])
