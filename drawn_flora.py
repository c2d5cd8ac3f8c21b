"""Draw photograph-like pictures of an invented flora: ten kinds that differ in form and share their colours.

    picture = photograph("Stella quinquepetala", np.random.default_rng(0))    # PIL image, RGB, 320 to 480 px sides

Shapes live on a unit box: u in [0, 1] runs along a petal, v in [-1, 1] across it; colours are RGB in [0, 1].
"""
import math

import numpy as np
from PIL import Image, ImageFilter

PETALS = np.array([(.96, .95, .92), (.97, .84, .22), (.95, .55, .16), (.86, .16, .20), (.93, .52, .68),
                   (.62, .30, .72), (.33, .40, .86)], np.float32)  # white, yellow, orange, red, pink, violet, blue
GREENS = np.array([(.25, .42, .14), (.34, .52, .18), (.42, .55, .30), (.18, .36, .20)], np.float32)
GOLD = np.array((.92, .72, .14), np.float32)

SCENES = {  # backgrounds: dark, middle and light colour of the noise; fine grain; blurred grass blades; blurred spots of light
    "meadow": ((.16, .30, .08), (.40, .54, .17), (.68, .74, .36), .1, 50, 10),
    "wood": ((.03, .07, .04), (.11, .20, .09), (.42, .46, .22), .1, 10, 25),
    "soil": ((.17, .11, .07), (.36, .26, .18), (.56, .45, .33), 1.0, 6, 0),
    "dry grass": ((.36, .29, .15), (.64, .55, .31), (.84, .77, .54), .2, 40, 4),
    "rock": ((.25, .25, .26), (.48, .47, .45), (.72, .70, .66), .8, 4, 0),
    "sky": ((.34, .54, .82), (.58, .74, .92), (.92, .95, .98), 0, 0, 0),
}

# Half the width of a shape, in [0, 1], at the place u in [0, 1] along it.
FORMS = {
    "strap": lambda u: np.minimum(1, 8 * u) * np.minimum(1, 6 * (1 - u)) ** .5,
    "lance": lambda u: 2.05 * u ** .6 * (1 - u) ** .9,
    "oval": lambda u: 2 * np.sqrt(u * (1 - u)),
    "obovate": lambda u: 1.75 * u ** .85 * (1 - u) ** .33,
    "heart": lambda u: 1.75 * u ** .3 * (1 - u) ** .8,
    "toothed": lambda u: 1.9 * u ** .55 * (1 - u) ** .8 * (1 - .25 * (u * 9 % 1)),
    "lobed": lambda u: 2 * np.sqrt(u * (1 - u)) * (.35 + .65 * np.cos(u * 17) ** 2),
    "bell": lambda u: .75 * np.minimum(1, 6 * u) ** .5 + .3 * u ** 6 - .1 * u,
    "tube": lambda u: .22 + .1 * u + .6 * u ** 5,
    "cup": lambda u: np.sin(np.pi * np.minimum(1, .1 + .85 * u)) ** .7,
}


class Brush:
    """Paints shaded shapes into `picture`, (H, W, 3) float32 in [0, 1], x right and y down, lit from one direction."""

    def __init__(self, picture, rng, colour, light):
        self.picture, self.rng, self.light = picture, rng, light
        self.colour = colour                                       # of the petals
        self.green = GREENS[rng.integers(len(GREENS))] * rng.uniform(.8, 1.2)

    def petal(self, base, axis, side, form, tip, throat=None, bend=0.0, veins=0, cut=0.0, cuts=1, fold=False):
        """Paint a petal, leaf or stem from `base` along `axis`, `side` being half its width, both vectors in pixels.

        `bend` moves the far end sideways by so many half widths; `cut` is the depth of `cuts` notches at the end;
        `fold` makes it a leaf, folded along its midrib.
        """
        (bx, by), (ax, ay), (sx, sy) = (map(float, vector) for vector in (base, axis, side))  # float32 pictures stay so
        box = [(bx + u * ax + v * sx, by + u * ay + v * sy) for u in (0, 1) for v in (-1, 1, min(bend, 0) - 1, max(bend, 0) + 1)]
        window, x, y = self._window(box, 4)
        det = ax * sy - ay * sx
        if not window.size or abs(det) < 1:
            return
        u = ((x - bx) * sy - (y - by) * sx) / det
        v = ((y - by) * ax - (x - bx) * ay) / det - bend * u * u
        inside = np.clip(u, 0, 1)
        half = FORMS[form](inside)
        length, width = abs(det) / math.hypot(sx, sy), abs(det) / math.hypot(ax, ay)
        end = 1 - cut * (.5 + .5 * np.cos(cuts * np.pi * v)) if cut else 1
        depth = np.minimum((half - np.abs(v)) * width, np.minimum(u, end - u) * length)  # pixels from the edge
        across = np.clip(v / (half + 1e-3), -1, 1)
        lit = (self.light[0] * sx + self.light[1] * sy) / math.hypot(sx, sy) * .22
        if fold:
            crease = np.clip(9 * across, -1, 1)
            shade = .95 + .6 * lit * crease + .2 * (1 - crease * crease) - .12 * np.abs(across)
        else:
            shade = .8 + .22 * inside - .2 * across * across + lit * across
        if veins:
            shade += .06 * np.cos(veins * np.pi * (np.abs(across) - (2 if fold else .3) * inside)) * (1 - inside)
        self._blend(window, depth, inside, shade, tip, throat)

    def blossom(self, centre, radius, tip, throat=None, lobes=0, notch=.4, plane=None, spiral=0):
        """Paint a round or lobed flower seen as a whole; `plane` (2, 2) tilts it, `spiral` > 0 grains it like a disc."""
        (a, b), (c, d) = ((1.0, 0.0), (0.0, 1.0)) if plane is None else plane.tolist()
        (cx, cy), det = map(float, centre), a * d - b * c
        across, down = radius * (abs(a) + abs(b)), radius * (abs(c) + abs(d))
        window, x, y = self._window(((cx - across, cy - down), (cx + across, cy + down)), 4)
        if not window.size:
            return
        x, y = (x - cx) / (radius * det), (y - cy) / (radius * det)
        p, q = d * x - b * y, a * y - c * x
        r = np.hypot(p, q)
        rim = 1.0
        shade = 1.05 - .35 * r * r + .25 * (self.light[0] * p + self.light[1] * q)
        if lobes or spiral:
            angle = np.arctan2(q, p)
            rim = 1 - notch * (.5 + .5 * np.cos(lobes * angle)) if lobes else 1.0
            if spiral:
                shade += .22 * np.cos(13 * angle + spiral * r) * np.cos(8 * angle - spiral * r) - .15 * (r < .35)
        depth = (rim - r) * radius * abs(det) ** .5
        self._blend(window, depth, np.clip(r, 0, 1), shade, tip, throat)

    def _window(self, box, margin):
        """Return the part of the picture around the corners `box`, and the pixel coordinates x (1, w) and y (h, 1)."""
        left, top = (max(0, int(min(corner[axis] for corner in box)) - margin) for axis in (0, 1))
        right, bottom = (max(0, int(max(corner[axis] for corner in box)) + margin) for axis in (0, 1))
        window = self.picture[:, top:bottom, left:right]
        x = np.arange(left, left + window.shape[2], dtype=np.float32)[None]
        return window, x, np.arange(top, top + window.shape[1], dtype=np.float32)[:, None]

    def _blend(self, window, depth, along, shade, tip, throat):
        """Lay a shape over a window with a soft shadow around it; `depth` is the distance to its edge in pixels."""
        window *= 1 - np.minimum(np.maximum(.0375 * depth + .15, 0), .3)
        cover, along = np.minimum(np.maximum(depth + .5, 0), 1), np.sqrt(along) * shade
        for channel, layer in enumerate(window):
            paint = shade * tip[channel] if throat is None else (
                shade * throat[channel] + along * (tip[channel] - throat[channel]))
            layer += cover * (paint - layer)

    # ---- parts of plants ----

    def along(self, base, angle, length, width, form, tip, throat=None, **more):
        """Paint a petal of so many pixels from `base` at an angle (0 right, pi/2 up)."""
        axis = np.array((np.cos(angle), -np.sin(angle)))
        self.petal(base, axis * length, np.array((axis[1], -axis[0])) * width / 2, form, tip, throat, **more)

    def whorl(self, centre, plane, count, length, width, form, tip, throat, turn=0.0, **more):
        """Paint `count` petals around a centre, in the tilted `plane` (2, 2)."""
        for angle in turn + np.arange(count) * 2 * np.pi / count + self.rng.normal(0, .25 / count, count):
            out = np.array((np.cos(angle), np.sin(angle)))
            size = length * self.rng.uniform(.9, 1.08)
            shade = self.rng.uniform(.88, 1.06)
            self.petal(centre, plane @ out * size, plane @ (-out[1], out[0]) * width / 2, form, tip * shade, throat, **more)

    def tilt(self, least):
        """Return a random plane (2, 2) seen at a slant: shortened to between `least` and 1 in some direction."""
        angle, short = self.rng.uniform(0, np.pi), self.rng.uniform(least, 1)
        turn = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
        return turn @ np.diag((1, short)) @ turn.T


# ---- flower heads: each paints one of about `size` pixels' radius at a stem's end `at`, which points to `up` ----

def star(brush, at, size, up):
    """Paint five broad notched petals around a tuft of stamens."""
    plane, turn = brush.tilt(.6), brush.rng.uniform(0, 6)
    brush.whorl(at, plane, 5, size, size * 1.05, "obovate", brush.colour, brush.colour * .6 + .3 * GOLD, turn, veins=9, cut=.14)
    for _ in range(14):
        out = plane @ brush.rng.normal(0, .11, 2) * size
        brush.blossom(at + out, max(1.3, size * .04), GOLD * brush.rng.uniform(.8, 1.1))
    brush.blossom(at, size * .09, brush.green * 1.4)


def daisy(brush, at, size, up):
    """Paint many narrow rays around a grained disc."""
    plane, count = brush.tilt(.5), brush.rng.integers(17, 27)
    brush.whorl(at, plane, count, size * .97, size * .2, "strap", brush.colour * .88, brush.colour * .7, .1, veins=3)
    brush.whorl(at, plane, count, size, size * .2, "strap", brush.colour, brush.colour * .75, brush.rng.uniform(0, 6), veins=3)
    brush.blossom(at, size * .36, GOLD * .8, GOLD, plane=plane, spiral=18)


def lily(brush, at, size, up):
    """Paint two whorls of three pointed petals and long stamens."""
    plane, turn = brush.tilt(.65), brush.rng.uniform(0, 6)
    for step, wide in ((0, .42), (np.pi / 3, .55)):
        brush.whorl(at, plane, 3, size * 1.1, size * wide, "lance", brush.colour, brush.green * .5 + .5 * brush.colour,
                    turn + step, veins=4, bend=brush.rng.uniform(-.4, .4))
    for angle in turn + .5 + np.arange(6) * np.pi / 3:
        end = plane @ (np.cos(angle), np.sin(angle)) * size * .55
        brush.petal(at, end, np.array((end[1], -end[0])) * max(.04, 1.1 / size), "strap", brush.green * 1.7)
        brush.blossom(at + end, max(1.6, size * .06), np.array((.45, .22, .08)))


def cup(brush, at, size, up):
    """Paint an upright cup of overlapping petals."""
    for lean, shade, wide in ((.28, .62, .7), (-.28, .66, .7), (0, .72, .8), (.22, .88, .82), (-.2, .95, .82), (.02, 1.05, .85)):
        brush.along(at, up + lean * brush.rng.uniform(.8, 1.3), size * 1.5 * brush.rng.uniform(.95, 1.05), size * wide, "cup",
                    brush.colour * shade, brush.colour * shade * .7 + brush.green * .3, veins=5)


def globe(brush, at, size, up):
    """Paint a ball of spines."""
    brush.blossom(at, size * .6, brush.colour * .35)
    spots = brush.rng.normal(size=(80, 3))
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    for x, y, z in spots[np.argsort(spots[:, 2])][25:]:
        flat = np.array((x, y)) * size
        shade = .72 + .2 * z + .15 * (x * brush.light[0] + y * brush.light[1])
        if np.hypot(x, y) > .12:
            side = np.array((-y, x)) / np.hypot(x, y) * max(1.2, size * .055)
            brush.petal(at + flat * .25, flat * .8, side, "lance", brush.colour * shade * 1.25, brush.colour * shade * .6)


def umbel(brush, at, size, up):
    """Paint rays from one point, each with a flat cluster of tiny flowers."""
    angles = up + np.linspace(-1.25, 1.25, brush.rng.integers(10, 15)) + brush.rng.normal(0, .05)
    ends = [at + np.array((np.cos(a), -np.sin(a))) * size * brush.rng.uniform(1, 1.2) for a in angles]
    for angle, end in zip(angles, ends):
        brush.along(at, angle, np.hypot(*(end - at)), max(2.4, size * .035), "strap", brush.green * 1.15)
    for end in [ends[i] for i in brush.rng.permutation(len(ends))]:
        for _ in range(7):
            spot = end + brush.rng.normal(0, .085, 2) * size
            brush.blossom(spot, max(2, size * .07), brush.colour * brush.rng.uniform(.8, 1.08), brush.green, lobes=5)


def spike(brush, at, size, up):
    """Paint a long dense spike of small flowers, buds at its tip."""
    way, rows, size = np.array((np.cos(up), -np.sin(up))), 13, .8 * size
    across = np.array((way[1], -way[0]))
    brush.along(at - way * size, up, size * 2.6, size * .1, "strap", brush.green)
    for row in range(rows):
        share = row / (rows - 1)
        for place in brush.rng.permutation((-1, -.4, .4, 1)) + brush.rng.normal(0, .12):
            spot = at + way * (share * 2.9 - 1.1 + .1 * abs(place)) * size + across * place * size * .36 * (1.05 - share) ** .6
            paint = brush.colour * brush.rng.uniform(.75, 1.08) * (1 - .25 * abs(place))
            paint = paint + (brush.green * 1.2 - paint) * max(0, share * 2 - 1.1)
            brush.blossom(spot + brush.rng.normal(0, .04, 2) * size, size * .18 * (1.2 - .7 * share), paint, paint * .55, lobes=4, notch=.3)


def bells(brush, at, size, up):
    """Paint bells that hang from an arching stalk."""
    side = brush.rng.choice((-1, 1))
    spots = [at + np.array((side * share * 1.5, -.75 * np.sin(share * 2.6))) * size for share in np.linspace(0, 1, 9)]
    for one, other in zip(spots, spots[1:]):
        brush.petal(one, (other - one) * 1.15, np.array((other - one)[::-1] * (1, -1)) / np.hypot(*(other - one)) * max(1.3, size * .03), "strap", brush.green)
    for spot in [spots[i] for i in (1, 3, 5, 7, 8)][brush.rng.integers(0, 2):]:
        down, long = -np.pi / 2 + brush.rng.normal(0, .15) + side * .1, size * brush.rng.uniform(.62, .8)
        way = np.array((np.cos(down), -np.sin(down)))
        brush.along(spot, down, size * .25, max(2, size * .035), "strap", brush.green)
        brush.blossom(spot + way * (size * .2 + long * .93), long * .36, brush.colour * .35, plane=np.diag((1, .3)))
        brush.along(spot + way * size * .2, down, long, long * .8, "bell", brush.colour, brush.colour * .75, veins=5, cut=.16, cuts=4)
        brush.blossom(spot + way * size * .2, size * .09, brush.green, plane=np.diag((1, .7)))


def orchid(brush, at, size, up):
    """Paint a flower with one mirror line: three narrow sepals, two wings, a broad spotted lip."""
    roll = brush.rng.normal(0, .2)
    lip = PETALS[brush.rng.integers(len(PETALS))]
    for angle in (np.pi / 2, np.pi * 1.17, np.pi * 1.83):
        brush.along(at, angle + roll, size, size * .3, "lance", brush.colour * .85, brush.green, veins=3)
    for angle in (.5, np.pi - .5):
        brush.along(at, angle + roll, size * .85, size * .75, "oval", brush.colour, brush.colour * .8, veins=5)
    down = roll - np.pi / 2
    brush.along(at, down, size * 1.1, size * 1.05, "obovate", lip, lip * .6, veins=7, cut=.22)
    for _ in range(12):
        spot = brush.rng.uniform(.25, .75), brush.rng.uniform(-.22, .22)
        away = np.array((np.cos(down + spot[1]), -np.sin(down + spot[1]))) * spot[0] * size
        brush.blossom(at + away, max(1.2, size * .04), lip * .35)
    brush.along(at, down, size * .3, size * .22, "oval", GOLD, GOLD * .8)


def trumpets(brush, at, size, up):
    """Paint a fan of long tubes with open mouths."""
    count = brush.rng.integers(4, 7)
    for lean in brush.rng.permutation(np.linspace(-1.5, 1.5, count)):
        angle, long = up + lean + brush.rng.normal(0, .1), size * brush.rng.uniform(1.1, 1.35)
        way = np.array((np.cos(angle), -np.sin(angle)))
        brush.along(at, angle, long, size * .5, "tube", brush.colour, brush.colour * .7 + brush.green * .2, veins=3)
        plane = np.column_stack((way * .45, (way[1], -way[0])))
        brush.blossom(at + way * long * .97, size * .36, brush.colour * 1.05, brush.colour * .3, lobes=5, notch=.3, plane=plane)


KINDS = {  # Latin name: flower head, leaf form, leaves on a stem, length and width of a leaf in heads, Russian, English
    "Stella quinquepetala": (star, "toothed", 6, 1.2, .7, "звездица пятилепестная", "five-petalled starlet"),
    "Corona multiradiata": (daisy, "lobed", 6, 1.3, .5, "венечник многолучевой", "many-rayed crownlet"),
    "Trina sexradiata": (lily, "lance", 10, 1.1, .3, "троица шестилучевая", "six-rayed trine"),
    "Calix erectus": (cup, "lance", 3, 3.0, .7, "чашник прямой", "upright chalice"),
    "Globus spinosus": (globe, "strap", 4, 2.4, .2, "шарник колючий", "spiny globe"),
    "Umbella plana": (umbel, "lobed", 4, 1.3, .8, "зонтовка плоская", "flat parasol"),
    "Spica densa": (spike, "lance", 8, 1.1, .25, "колосница густая", "dense spirelet"),
    "Tintinnabulum pendulum": (bells, "strap", 5, 1.4, .14, "звонец поникший", "nodding tinklebell"),
    "Labella maculata": (orchid, "oval", 3, 2.2, .9, "губница пятнистая", "spotted lipling"),
    "Tuba ventosa": (trumpets, "heart", 6, 1.1, .9, "трубник ветреный", "windy trumpet"),
}


def plant(brush, kind, at, size):
    """Paint a stem from below the picture to `at`, its leaves, and the head of a kind (a name of KINDS)."""
    head, form, count, long, wide, *_ = KINDS[kind]
    rng, height = brush.rng, brush.picture.shape[1]
    foot = np.array((at[0] + rng.normal(0, .25) * height, height * 1.08))
    stem = foot - at
    bend, thick = rng.normal(0, .06), max(2.5, size * .09)
    across = np.array((stem[1], -stem[0])) / np.hypot(*stem)
    brush.petal(at, stem, across * thick / 2, "strap", brush.green, bend=bend * np.hypot(*stem) / thick * 2)
    for number in range(count):
        share = rng.uniform(.25, .95)
        side = (-1) ** number
        joint = at + stem * share + across * bend * np.hypot(*stem) * share * share
        angle = np.pi / 2 - side * rng.uniform(.5, 1.2)
        brush.along(joint, angle, size * long * rng.uniform(.7, 1.2), size * wide * rng.uniform(.8, 1.1), form,
                    brush.green * rng.uniform(.85, 1.25), brush.green * .8, bend=side * rng.uniform(0, .8), veins=5, fold=True)
    head(brush, np.array(at), size, np.arctan2(stem[1], -stem[0]))


# ---- photographs ----

def smooth_noise(rng, width, height, cells):
    """Return smooth noise (height, width) float32 in [0, 1] with about `cells` cells along the longer side."""
    step = max(width, height) / cells
    shape = max(2, round(height / step) + 1), max(2, round(width / step) + 1)
    coarse = Image.fromarray(rng.random(shape, np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def background(rng, width, height, light):
    """Return an out-of-focus scene, (3, height, width) float32."""
    names = list(SCENES)
    scene, ground = (SCENES[names[rng.integers(len(names))]] for _ in range(2))
    picture = ramp(rng, width, height, scene)
    if rng.random() < .6:  # a second scene below a slanting, soft horizon
        x, y = np.arange(width, dtype=np.float32)[None] / width - .5, np.arange(height, dtype=np.float32)[:, None] / height
        edge = (y - rng.uniform(.3, .8) + float(rng.normal(0, .3)) * x) / rng.uniform(.05, .3)
        picture += np.clip(edge + .5, 0, 1) * (ramp(rng, width, height, ground) - picture)
    brush = Brush(picture, rng, PETALS[rng.integers(len(PETALS))], light)
    for _ in range(rng.integers(0, scene[4] + 1)):
        foot = rng.uniform(0, width), rng.uniform(.5, 1.2) * height
        brush.along(foot, np.pi / 2 + rng.normal(0, .35), height * rng.uniform(.3, .9), rng.uniform(2, 6), "lance",
                    np.array(scene[rng.integers(3)]) * rng.uniform(.8, 1.2), bend=rng.normal(0, 4))
    for _ in range(rng.integers(0, scene[5] + 1)):
        paint = brush.colour if rng.random() < .4 else np.array(scene[2])
        brush.blossom((rng.uniform(0, width), rng.uniform(0, height)), rng.uniform(.01, .07) * width, paint * rng.uniform(.8, 1.2))
    return picture


def ramp(rng, width, height, scene):
    """Return noise of several sizes coloured from dark over middle to light, (3, height, width) float32."""
    level = .5 * smooth_noise(rng, width, height, 3) + .35 * smooth_noise(rng, width, height, 7)
    level += .15 * smooth_noise(rng, width, height, 20) + .25 * scene[3] * (smooth_noise(rng, width, height, 90) - .5)
    level -= level.min()
    shades = (level * (255 / level.max())).astype(np.uint8)
    steps = np.linspace(0, 2, 256)
    return np.stack([np.interp(steps, (0, 1, 2), colours).astype(np.float32)[shades] for colours in zip(*scene[:3])])


def camera(picture, rng):
    """Return the picture (3, H, W) as a camera would take it, an RGB PIL image: light, white balance, contrast, noise."""
    _, height, width = picture.shape
    picture *= .8 + .4 * smooth_noise(rng, width, height, 2)
    if rng.random() < .3:  # dappled shade
        picture *= .6 + .5 * smooth_noise(rng, width, height, 6)
    picture *= rng.uniform(.9, 1.1, (3, 1, 1)).astype(np.float32) * rng.uniform(.8, 1.25)
    x, y = np.linspace(-1, 1, width, dtype=np.float32)[None], np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    picture *= 1 - rng.uniform(0, .25) * (x * x + y * y)
    picture += rng.standard_normal((height, width), np.float32) * rng.uniform(.005, .03)
    pixels = np.clip(picture * 255, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    curve = 255 * np.linspace(0, 1, 256) ** rng.uniform(.8, 1.2)
    return Image.fromarray(np.ascontiguousarray(pixels)).point(curve.round().astype(int).tolist() * 3)


def photograph(kind, rng):
    """Return a photograph of one to three plants of a kind (a name of KINDS), an RGB PIL image of 320 to 480 px sides."""
    short = int(rng.integers(300, 351))
    sides = short, int(short * rng.choice((1, 1.2, 1.37)))
    width, height = sides if rng.random() < .5 else sides[::-1]
    angle = rng.uniform(0, np.pi)
    light = (float(np.cos(angle)), float(-np.sin(angle)))
    colour = PETALS[rng.integers(len(PETALS))] * rng.uniform(.88, 1.05, 3).astype(np.float32)

    far = background(rng, width // 2, height // 2, light)
    brush = Brush(far, rng, colour, light)
    for _ in range(rng.integers(0, 3)):
        plant(brush, kind, rng.uniform((0, .1), (1, .9)) * (width // 2, height // 2), short * rng.uniform(.04, .09))
    blurred = Image.fromarray((np.clip(far, 0, 1).transpose(1, 2, 0) * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(rng.uniform(1.5, 6))).resize((width, height), Image.Resampling.BICUBIC)

    brush = Brush(np.ascontiguousarray(np.asarray(blurred, np.float32).transpose(2, 0, 1) / 255), rng, colour, light)
    count = rng.choice((1, 2, 3), p=(.65, .25, .1))
    size = short * rng.uniform(.21, .36) / count ** .5
    for place in rng.permutation(count):
        x = (place + rng.uniform(.3, .7)) / count
        plant(brush, kind, np.array((x * width, rng.uniform(.3, .6) * height)), size * rng.uniform(.8, 1.1))
    return camera(brush.picture, rng)
