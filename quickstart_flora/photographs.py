"""Draw photograph-like pictures of the flora: plants before a blurred background, as a camera sees
them.
"""
from collections import namedtuple

import numpy as np
from PIL import Image, ImageFilter

from quickstart_flora.brush import Brush, Petal, toward
from quickstart_flora.kinds import KINDS, paint_plant

FLOWER_COLOURS = np.float32([  # white, yellow, orange, red, pink, violet, blue
    (.96, .95, .92), (.97, .84, .22), (.95, .55, .16), (.86, .16, .20), (.93, .52, .68),
    (.62, .30, .72), (.33, .40, .86)])


# A background: three colours, the share of fine grain, most blades of grass and spots of light.
Scene = namedtuple("Scene", "dark middle light grain blades spots")
SCENES = (
    Scene((.16, .30, .08), (.40, .54, .17), (.68, .74, .36), .1, 30, 10),  # meadow
    Scene((.03, .07, .04), (.11, .20, .09), (.42, .46, .22), .1, 10, 25),  # wood
    Scene((.17, .11, .07), (.36, .26, .18), (.56, .45, .33), 1.0, 6, 0),  # soil
    Scene((.36, .29, .15), (.64, .55, .31), (.84, .77, .54), .2, 25, 4),  # dry grass
    Scene((.25, .25, .26), (.48, .47, .45), (.72, .70, .66), .8, 4, 0),  # rock
    Scene((.34, .54, .82), (.58, .74, .92), (.92, .95, .98), .0, 0, 0),  # sky
)


def photograph(latin, rng, colour=None):
    """Return a photograph of one to three plants of a kind: a PIL image, sides 300 to 480 px.

    The flowers have one of FLOWER_COLOURS, drawn where none is given.
    """
    kind, short = KINDS[latin], int(rng.integers(300, 351))
    width, height = rng.permutation((short, int(short * rng.choice((1, 1.2, 1.37))))).tolist()
    light = tuple(toward(rng.uniform(0, np.pi)).tolist())
    tint = rng.uniform(.88, 1.05, 3).astype(np.float32)
    drawn = FLOWER_COLOURS[rng.integers(len(FLOWER_COLOURS))]
    colour = (drawn if colour is None else colour) * tint

    # The background is drawn at half the size, because it will be blurred.
    far = Brush(background(rng, width // 2, height // 2, light), rng, colour, light)
    for _ in range(rng.integers(3)):
        at = rng.uniform((0, .1), (1, .9)) * (width // 2, height // 2)
        paint_plant(far, kind, at, short * rng.uniform(.04, .09))
    blurred = to_image(far.picture).filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 6)))
    blurred = blurred.resize((width, height), Image.Resampling.BICUBIC)
    picture = np.asarray(blurred, np.float32).transpose(2, 0, 1) / 255

    near = Brush(np.ascontiguousarray(picture), rng, colour, light)
    count = int(rng.choice((1, 2, 3), p=(.65, .25, .1)))
    size = short * rng.uniform(.21, .36) / count ** .5
    for number in rng.permutation(count):
        at = (number + rng.uniform(.3, .7)) / count * width, rng.uniform(.3, .6) * height
        paint_plant(near, kind, np.array(at), size * rng.uniform(.8, 1.1))
    return develop(near.picture, rng)


def background(rng, width, height, light):
    """Return a picture (3, height, width) of what is behind the plants, not yet blurred."""
    scene = SCENES[rng.integers(len(SCENES))]
    level = sum(share * smooth_noise(rng, width, height, cells)
                for share, cells in ((.5, 3), (.35, 7), (.15, 20), (.25 * scene.grain, 90)))
    marks = np.linspace(level.min(), level.max(), 3)
    channels = zip(scene.dark, scene.middle, scene.light, strict=True)
    picture = np.float32([np.interp(level, marks, values) for values in channels])
    brush = Brush(picture, rng, FLOWER_COLOURS[rng.integers(len(FLOWER_COLOURS))], light)
    for _ in range(rng.integers(scene.blades + 1)):
        blade = Petal("lance", scene[rng.integers(3)], bend=rng.normal(0, 3))
        foot = rng.uniform((0, .5), (1, 1.2)) * (width, height)
        brush.along(blade, foot, np.pi / 2 + rng.normal(0, .35), height * rng.uniform(.3, .9), 4)
    for _ in range(rng.integers(scene.spots + 1)):
        colour = brush.colour if rng.random() < .4 else scene.light
        brush.disc(rng.uniform(0, 1, 2) * (width, height), width * rng.uniform(.01, .07), colour)
    return picture


def smooth_noise(rng, width, height, cells):
    """Return smooth noise (height, width), float32, about [0, 1], `cells` per longer side."""
    step = max(width, height) / cells
    shape = round(height / step) + 1, round(width / step) + 1
    coarse = Image.fromarray(rng.random(shape, np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def develop(picture, rng):
    """Return a picture as a camera takes it: uneven light, white balance, noise, contrast."""
    _, height, width = picture.shape
    light = (.8 + .4 * smooth_noise(rng, width, height, 2)) * rng.uniform(.9, 1.35)
    picture *= light * rng.uniform(.9, 1.1, (3, 1, 1)).astype(np.float32)
    picture += rng.standard_normal((height, width), np.float32) * rng.uniform(.005, .03)
    curve = np.round(255 * np.linspace(0, 1, 256) ** rng.uniform(.8, 1.2)).astype(int)
    return to_image(picture).point(curve.tolist() * 3)


def to_image(picture):
    """Return a picture (3, H, W) in [0, 1] as a PIL image."""
    pixels = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
