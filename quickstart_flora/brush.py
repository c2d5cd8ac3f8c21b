"""A brush that paints petals, leaves, stems and discs, lit from one side, into a picture.

A picture is (3, H, W) float32 in [0, 1], x to the right and y down, in pixels; colours are RGB in
[0, 1]. Angles are in radians, 0 to the right, pi / 2 up. The constants of the shading were chosen
by eye.
"""
import math
from typing import NamedTuple

import numpy as np

# Half the width of a petal, in [0, 1], as a function of the share u of its length in [0, 1].
FORMS = {
    "strap": lambda u: np.minimum(1, 8 * u) * np.minimum(1, 6 * (1 - u)) ** .5,
    "lance": lambda u: 2.05 * u ** .6 * (1 - u) ** .9,
    "obovate": lambda u: 1.75 * u ** .85 * (1 - u) ** .33,
    "toothed": lambda u: 1.9 * u ** .55 * (1 - u) ** .8 * (1 - .25 * (u * 9 % 1)),
    "lobed": lambda u: 2 * np.sqrt(u * (1 - u)) * (.35 + .65 * np.cos(u * 17) ** 2),
    "bell": lambda u: .75 * np.minimum(1, 6 * u) ** .5 + .3 * u ** 6 - .1 * u,
    "cup": lambda u: np.sin(np.pi * np.minimum(1, .1 + .85 * u)) ** .7,
}
FLAT = np.eye(2)  # the plane of a flower seen from straight above


class Petal(NamedTuple):
    """The look of a petal, leaf or stem: its colour runs from `throat`, if given, to `tip`."""

    form: str  # row of FORMS
    tip: np.ndarray
    throat: np.ndarray | None = None
    bend: float = 0.0  # sideways shift of the far end, in half widths
    veins: int = 0
    notches: int = 0  # at the far end


def toward(angle, length=1.0):
    """Return the vector (x, y) of this length in pixels in the direction of an angle."""
    return np.array((math.cos(angle), -math.sin(angle))) * length


def normal(vector):
    """Return the unit vector at right angles to a vector (x, y)."""
    return np.array((vector[1], -vector[0])) / math.hypot(*vector)


class Brush:
    """Paints shapes into a picture, lit from the direction `light` (x, y), with soft shadows."""

    def __init__(self, picture, rng, colour, light):
        self.picture, self.rng, self.colour, self.light = picture, rng, colour, light
        self.green = np.float32(rng.uniform((.18, .36, .13), (.42, .58, .30)))

    def petal(self, petal, base, axis, side):
        """Paint a petal from `base` along `axis`; `side` is half its width, a vector in pixels."""
        # Plain floats, because a NumPy float64 turns every float32 array it meets into float64.
        (bx, by), (ax, ay), (sx, sy) = (map(float, pair) for pair in (base, axis, side))
        bend = float(petal.bend)
        corners = [(bx + u * ax + v * sx, by + u * ay + v * sy)
                   for u in (0, 1) for v in (min(bend, 0) - 1, max(bend, 0) + 1)]
        window, x, y = self._window(corners)
        # On the unit box of the petal, u in [0, 1] runs along it and v in [-1, 1] across it.
        det = ax * sy - ay * sx
        u = ((x - bx) * sy - (y - by) * sx) / det
        v = ((y - by) * ax - (x - bx) * ay) / det - bend * u * u
        inside = np.clip(u, 0, 1)
        half = FORMS[petal.form](inside)
        end = 1 - .08 * (1 + np.cos(petal.notches * np.pi * v)) if petal.notches else 1
        depth = np.minimum((half - np.abs(v)) * (abs(det) / math.hypot(ax, ay)),
                           np.minimum(u, end - u) * (abs(det) / math.hypot(sx, sy)))
        across = np.clip(v / (half + 1e-3), -1, 1)
        lit = (self.light[0] * sx + self.light[1] * sy) / math.hypot(sx, sy)
        shade = .8 + .22 * inside - .2 * across * across + .22 * lit * across
        if petal.veins:
            lines = np.cos(petal.veins * np.pi * (np.abs(across) - inside))
            shade += .06 * lines * (1 - inside)
        self._blend(window, depth, shade, petal.tip, petal.throat, inside)

    def disc(self, centre, radius, tip, throat=None, plane=FLAT):
        """Paint a disc, tilted by a plane (2, 2); its colour runs from `throat` to `tip`."""
        (cx, cy), ((a, b), (c, d)) = map(float, centre), np.asarray(plane).tolist()
        radius, det = float(radius), a * d - b * c
        wide, high = radius * (abs(a) + abs(b)), radius * (abs(c) + abs(d))
        window, x, y = self._window(((cx - wide, cy - high), (cx + wide, cy + high)))
        x, y = (x - cx) / (radius * det), (y - cy) / (radius * det)
        p, q = d * x - b * y, a * y - c * x  # position on the disc, whose rim has radius 1
        r = np.hypot(p, q)
        shade = 1.05 - .35 * r * r + .25 * (self.light[0] * p + self.light[1] * q)
        depth = (1 - r) * radius * abs(det) ** .5
        self._blend(window, depth, shade, tip, throat, np.clip(r, 0, 1))

    def _window(self, corners):
        """Return the part of the picture around corners (3, h, w), its x (1, w) and y (h, 1)."""
        (left, right), (top, bottom) = (
            (max(0, int(min(edge)) - 4), max(0, int(max(edge)) + 4))
            for edge in zip(*corners, strict=True))
        window = self.picture[:, top:bottom, left:right]
        y, x = np.ogrid[top:top + window.shape[1], left:left + window.shape[2]]
        return window, x.astype(np.float32), y.astype(np.float32)

    def _blend(self, window, depth, shade, tip, throat, along):
        """Lay a shape over a window; `depth` (h, w) is pixels from its edge, positive inside.

        `along` (h, w) in [0, 1] is the share of `tip` in the colour, the rest being `throat`.
        """
        window *= 1 - np.minimum(np.maximum(.0375 * depth + .15, 0), .3)  # shadow
        cover = np.minimum(np.maximum(depth + .5, 0), 1)
        mix = np.sqrt(along) * shade
        for layer, far, near in zip(window, tip, tip if throat is None else throat, strict=True):
            layer += cover * (shade * float(near) + mix * float(far - near) - layer)

    def along(self, petal, base, angle, length, width):
        """Paint a petal of this length and width in pixels in the direction of an angle."""
        axis = toward(angle, length)
        self.petal(petal, base, axis, normal(axis) * width / 2)

    def stalk(self, base, end, width):
        """Paint a thin green stalk between two points, wide enough to be seen."""
        axis = np.subtract(end, base)
        self.petal(Petal("strap", self.green * 1.1), base, axis,
                   normal(axis) * max(1.2, width / 2))

    def whorl(self, petal, centre, plane, count, size):
        """Paint `count` petals around a centre in a plane (2, 2); `size` is (length, width)."""
        length, width = size
        turns = self.rng.uniform(0, 6) + np.arange(count) * 2 * np.pi / count
        for angle in turns + self.rng.normal(0, .25 / count, count):
            out = toward(angle)
            painted = petal._replace(tip=petal.tip * self.rng.uniform(.88, 1.06))
            self.petal(painted, centre, plane @ out * length * self.rng.uniform(.9, 1.08),
                       plane @ normal(out) * width / 2)

    def tilt(self, least):
        """Return a plane (2, 2) seen at a slant: shortened to between `least` and 1."""
        direction = toward(self.rng.uniform(0, np.pi))
        turn = np.column_stack((direction, normal(direction)))
        return turn @ np.diag((1, self.rng.uniform(least, 1))) @ turn.T
