"""The six kinds of the flora. They differ in form and share their colours.

Each kind of flower head has a function that paints one, of a radius of about `size` pixels, at the
end `at` of a stem that points in the direction `up`.
"""
import math
from collections import namedtuple

import numpy as np

from quickstart_flora.brush import Petal, normal, toward

GOLD = np.float32((.92, .72, .14))


def star(brush, at, size, up):
    """Paint five broad notched petals around a tuft of stamens."""
    plane, colour = brush.tilt(.6), brush.colour
    petal = Petal("obovate", colour, colour * .6 + .3 * GOLD, veins=9, notches=1)
    brush.whorl(petal, at, plane, 5, (size, size * 1.05))
    for offset in brush.rng.normal(0, .11, (14, 2)):
        brush.disc(at + plane @ offset * size, max(1.3, size * .04), GOLD)
    brush.disc(at, size * .09, brush.green * 1.4)


def daisy(brush, at, size, up):
    """Paint two rows of narrow rays around a disc."""
    plane, count = brush.tilt(.5), brush.rng.integers(17, 27)
    for shade in (.85, 1):
        ray = Petal("strap", brush.colour * shade, brush.colour * .75, veins=3)
        brush.whorl(ray, at, plane, count, (size, size * .2))
    brush.disc(at, size * .36, GOLD * .7, GOLD, plane)


def cup(brush, at, size, up):
    """Paint an upright cup of overlapping petals, three behind and three in front."""
    for lean, shade in ((.28, .62), (-.28, .66), (0, .72), (.22, .88), (-.2, .95), (.02, 1.05)):
        colour = brush.colour * shade
        petal = Petal("cup", colour, colour * .7 + brush.green * .3, veins=5)
        brush.along(petal, at, up + lean * brush.rng.uniform(.8, 1.3), size * 1.5, size * .82)


def globe(brush, at, size, up):
    """Paint a ball of spines, the farthest first."""
    brush.disc(at, size * .6, brush.colour * .35)
    spines = brush.rng.normal(0, 1, (80, 3))
    spines /= np.linalg.norm(spines, axis=1, keepdims=True)
    for x, y, z in spines[np.argsort(spines[:, 2])][25:]:  # the farthest are hidden
        flat = np.array((x, y)) * size
        colour = brush.colour * (.9 + .25 * z + .2 * np.dot((x, y), brush.light))
        brush.petal(Petal("lance", colour, colour * .5), at + flat * .25, flat * .8,
                    normal(flat) * max(1.2, size * .055))


def umbel(brush, at, size, up):
    """Paint rays from one point, each with a cluster of tiny flowers at its end."""
    ends = [at + toward(up + lean, size * brush.rng.uniform(1, 1.2))
            for lean in np.linspace(-1.25, 1.25, brush.rng.integers(10, 15))]
    for end in ends:
        brush.stalk(at, end, size * .035)
    for end in ends:
        for spot in end + brush.rng.normal(0, .085, (7, 2)) * size:
            colour = brush.colour * brush.rng.uniform(.8, 1.08)
            brush.disc(spot, max(2, size * .075), colour, brush.green)


def bells(brush, at, size, up):
    """Paint bells that hang from an arching stalk."""
    side, steps = brush.rng.choice((-1, 1)), np.linspace(0, 1, 9)
    arch = at + np.column_stack((side * steps * 1.5, -.75 * np.sin(steps * 2.6))) * size
    for start, end in zip(arch, arch[1:], strict=False):
        brush.stalk(start, start + (end - start) * 1.15, size * .06)
    bell = Petal("bell", brush.colour, brush.colour * .75, veins=5, notches=4)
    for spot in arch[[1, 3, 5, 7, 8]]:
        down = -np.pi / 2 + brush.rng.normal(side * .1, .15)
        length = size * brush.rng.uniform(.62, .8)
        neck = spot + toward(down, size * .2)
        brush.stalk(spot, neck, size * .035)
        mouth = neck + toward(down, length * .93)
        brush.disc(mouth, length * .36, brush.colour * .35, plane=np.diag((1, .3)))
        brush.along(bell, neck, down, length, length * .8)


# `leaf` is a key of brush.FORMS; `length` and `width` of a leaf are in radii of the head.
Kind = namedtuple("Kind", "head leaf leaves length width family russian english")
KINDS = {
    "Calix erectus": Kind(cup, "lance", 3, 3.0, .7, "Campanaceae",
                          "чашник прямой", "upright chalice"),
    "Corona multiradiata": Kind(daisy, "lobed", 6, 1.3, .5, "Radiaceae",
                                "венечник многолучевой", "many-rayed crownlet"),
    "Globus spinosus": Kind(globe, "strap", 4, 2.4, .2, "Sphaeraceae",
                            "шарник колючий", "spiny globe"),
    "Stella quinquepetala": Kind(star, "toothed", 6, 1.2, .7, "Radiaceae",
                                 "звездица пятилепестная", "five-petalled starlet"),
    "Tintinnabulum pendulum": Kind(bells, "strap", 5, 1.4, .14, "Campanaceae",
                                   "звонец поникший", "nodding tinklebell"),
    "Umbella plana": Kind(umbel, "lobed", 4, 1.3, .8, "Sphaeraceae",
                          "зонтовка плоская", "flat parasol"),
}


def paint_plant(brush, kind, at, size):
    """Paint a stem from below the image to the point `at`, its leaves, and its flower head."""
    rng, height = brush.rng, brush.picture.shape[1]
    stem = np.array((at[0] + rng.normal(0, .25) * height, height * 1.08)) - at
    sag, thickness = normal(stem) * rng.normal(0, .06) * height, max(2.5, size * .09)
    bend = sag @ normal(stem) / thickness * 2
    brush.petal(Petal("strap", brush.green, bend=bend), at, stem, normal(stem) * thickness / 2)
    for number in range(kind.leaves):
        share, side = rng.uniform(.25, .95), (-1) ** number
        green = brush.green * rng.uniform(.85, 1.25)
        leaf = Petal(kind.leaf, green, green * .8, bend=side * rng.uniform(0, .8), veins=5)
        brush.along(leaf, at + stem * share + sag * share * share,
                    np.pi / 2 - side * rng.uniform(.5, 1.2),
                    size * kind.length * rng.uniform(.7, 1.2), size * kind.width)
    kind.head(brush, at, size, math.atan2(stem[1], -stem[0]))
