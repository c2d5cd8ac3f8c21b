"""Draw photograph-like pictures of an invented flora: ten kinds that differ in form and share their colours.

A picture is (3, H, W) float32 in [0, 1], x to the right and y down; colours are RGB in [0, 1]. Every shape lives on a
unit box: u in [0, 1] runs along it, v in [-1, 1] across it. Angles are in radians, 0 to the right, pi / 2 up.
"""
import math
from collections import namedtuple

import numpy as np
from PIL import Image, ImageFilter

PETALS = np.float32([(.96, .95, .92), (.97, .84, .22), (.95, .55, .16), (.86, .16, .20), (.93, .52, .68),
                     (.62, .30, .72), (.33, .40, .86)])  # white, yellow, orange, red, pink, violet, blue
GREENS = np.float32([(.25, .42, .14), (.34, .52, .18), (.42, .55, .30), (.18, .36, .20)])
GOLD, BROWN = np.float32([(.92, .72, .14), (.45, .22, .08)])

SCENES = {  # backgrounds: dark, middle and light colour, share of fine grain, grass blades and spots of light at most
    "meadow": ((.16, .30, .08), (.40, .54, .17), (.68, .74, .36), .1, 30, 10),
    "wood": ((.03, .07, .04), (.11, .20, .09), (.42, .46, .22), .1, 10, 25),
    "soil": ((.17, .11, .07), (.36, .26, .18), (.56, .45, .33), 1.0, 6, 0),
    "dry grass": ((.36, .29, .15), (.64, .55, .31), (.84, .77, .54), .2, 25, 4),
    "rock": ((.25, .25, .26), (.48, .47, .45), (.72, .70, .66), .8, 4, 0),
    "sky": ((.34, .54, .82), (.58, .74, .92), (.92, .95, .98), .0, 0, 0),
}

FORMS = {  # half the width of a shape, in [0, 1], at u
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


def toward(angle, length=1.0):
    """Return the vector (x, y) of so many pixels in the direction of an angle."""
    return np.array((math.cos(angle), -math.sin(angle))) * length


def normal(vector):
    """Return the unit vector at right angles to a vector (x, y)."""
    return np.array((vector[1], -vector[0])) / math.hypot(*vector)


class Brush:
    """Paints shaded shapes into a picture, lit from the direction `light` (x, y), each with a soft shadow around it."""

    def __init__(self, picture, rng, colour, light):
        self.picture, self.rng, self.colour, self.light = picture, rng, colour, light
        self.green = GREENS[rng.integers(len(GREENS))] * rng.uniform(.8, 1.2)

    def petal(self, base, axis, side, form, tip, throat=None, bend=0.0, veins=0, cut=0.0, cuts=1, fold=False):
        """Paint a petal, leaf or stem from `base` along `axis`, `side` being half its width, both vectors in pixels.

        Its colour runs from `throat` to `tip`. `bend` moves the far end sideways by so many half widths, `cut` is the
        depth of `cuts` notches in the end, as a share of the length, and `fold` makes it a leaf folded at its midrib.
        """
        # Plain floats, because a float64 of numpy's turns every float32 array it meets into float64.
        (bx, by), (ax, ay), (sx, sy), bend = *(map(float, pair) for pair in (base, axis, side)), float(bend)
        window, x, y = self._window([(bx + u * ax + v * sx, by + u * ay + v * sy)
                                     for u in (0, 1) for v in (min(bend, 0) - 1, max(bend, 0) + 1)])
        det = ax * sy - ay * sx
        u = ((x - bx) * sy - (y - by) * sx) / det
        v = ((y - by) * ax - (x - bx) * ay) / det - bend * u * u
        inside = np.clip(u, 0, 1)
        half = FORMS[form](inside)
        end = 1 - cut * (.5 + .5 * np.cos(cuts * np.pi * v)) if cut else 1
        depth = np.minimum((half - np.abs(v)) * (abs(det) / math.hypot(ax, ay)),
                           np.minimum(u, end - u) * (abs(det) / math.hypot(sx, sy)))
        across = np.clip(v / (half + 1e-3), -1, 1)
        lit = (self.light[0] * sx + self.light[1] * sy) / math.hypot(sx, sy)
        shade = .8 + .22 * inside - .2 * across * across + .22 * lit * across
        if fold:
            crease = np.clip(9 * across, -1, 1)
            shade = .95 + .13 * lit * crease + .2 * (1 - crease * crease) - .12 * np.abs(across)
        if veins:
            shade += .06 * np.cos(veins * np.pi * (np.abs(across) - (2 if fold else .3) * inside)) * (1 - inside)
        self._blend(window, depth, inside, shade, tip, throat)

    def blossom(self, centre, radius, tip, throat=None, lobes=0, notch=.4, plane=((1.0, 0.0), (0.0, 1.0)), spiral=0):
        """Paint a round or lobed flower seen as a whole; `plane` (2, 2) tilts it, `spiral` > 0 grains it as a disc."""
        (cx, cy), ((a, b), (c, d)), radius = map(float, centre), np.asarray(plane).tolist(), float(radius)
        wide, high, det = radius * (abs(a) + abs(b)), radius * (abs(c) + abs(d)), a * d - b * c
        window, x, y = self._window(((cx - wide, cy - high), (cx + wide, cy + high)))
        x, y = (x - cx) / (radius * det), (y - cy) / (radius * det)
        p, q = d * x - b * y, a * y - c * x  # where on the flower, 1 at its rim
        r = np.hypot(p, q)
        angle = np.arctan2(q, p)
        rim = 1 - notch * (.5 + .5 * np.cos(lobes * angle)) if lobes else 1
        shade = 1.05 - .35 * r * r + .25 * (self.light[0] * p + self.light[1] * q)
        if spiral:  # two sets of crossing spirals, 8 and 13 as on a sunflower
            shade += .22 * np.cos(13 * angle + spiral * r) * np.cos(8 * angle - spiral * r) - .15 * (r < .35)
        self._blend(window, (rim - r) * radius * abs(det) ** .5, np.clip(r, 0, 1), shade, tip, throat)

    def _window(self, corners):
        """Return the part of the picture around some corners, (3, h, w), and its pixels' x (1, w) and y (h, 1)."""
        (left, right), (top, bottom) = ((max(0, int(min(edge)) - 4), max(0, int(max(edge)) + 4))
                                        for edge in zip(*corners, strict=True))
        window = self.picture[:, top:bottom, left:right]
        y, x = np.ogrid[top:top + window.shape[1], left:left + window.shape[2]]
        return window, x.astype(np.float32), y.astype(np.float32)

    def _blend(self, window, depth, along, shade, tip, throat):
        """Lay a shape over a window; `depth` (h, w) is the distance to its edge in pixels, positive inside."""
        window *= 1 - np.minimum(np.maximum(.0375 * depth + .15, 0), .3)
        cover, mix = np.minimum(np.maximum(depth + .5, 0), 1), np.sqrt(along) * shade
        for layer, far, near in zip(window, tip, tip if throat is None else throat, strict=True):
            layer += cover * (shade * float(near) + mix * float(far - near) - layer)

    def along(self, base, angle, length, width, form, tip, throat=None, **more):
        """Paint a petal of so many pixels from `base` in the direction of an angle."""
        axis = toward(angle, length)
        self.petal(base, axis, normal(axis) * width / 2, form, tip, throat, **more)

    def stalk(self, base, end, width):
        """Paint a thin green stalk between two points, never thinner than can be seen."""
        axis = np.subtract(end, base)
        self.petal(base, axis, normal(axis) * max(1.2, width / 2), "strap", self.green * 1.1)

    def whorl(self, centre, plane, count, length, width, form, tip, throat, turn=None, **more):
        """Paint `count` petals around a centre in the tilted `plane` (2, 2), the first at the angle `turn` or any."""
        turn = self.rng.uniform(0, 6) if turn is None else turn
        for angle in turn + np.arange(count) * 2 * np.pi / count + self.rng.normal(0, .25 / count, count):
            out, paint = toward(angle), tip * self.rng.uniform(.88, 1.06)
            self.petal(centre, plane @ out * length * self.rng.uniform(.9, 1.08), plane @ normal(out) * width / 2,
                       form, paint, throat, **more)

    def tilt(self, least):
        """Return a plane (2, 2) seen at a slant: shortened to between `least` and 1 in some direction."""
        way = toward(self.rng.uniform(0, np.pi))
        turn = np.column_stack((way, normal(way)))
        return turn @ np.diag((1, self.rng.uniform(least, 1))) @ turn.T


# ---- flower heads: each paints one of about `size` pixels' radius at the end `at` of a stem that points to `up` ----

def star(brush, at, size, up):
    """Paint five broad notched petals around a tuft of stamens."""
    plane, colour = brush.tilt(.6), brush.colour
    brush.whorl(at, plane, 5, size, size * 1.05, "obovate", colour, colour * .6 + .3 * GOLD, veins=9, cut=.14)
    for spot in brush.rng.normal(0, .11, (14, 2)):
        brush.blossom(at + plane @ spot * size, max(1.3, size * .04), GOLD * brush.rng.uniform(.8, 1.1))
    brush.blossom(at, size * .09, brush.green * 1.4)


def daisy(brush, at, size, up):
    """Paint two rows of narrow rays around a grained disc."""
    plane, count = brush.tilt(.5), brush.rng.integers(17, 27)
    for shade in (.85, 1):
        brush.whorl(at, plane, count, size, size * .2, "strap", brush.colour * shade, brush.colour * .75, veins=3)
    brush.blossom(at, size * .36, GOLD * .8, GOLD, plane=plane, spiral=18)


def lily(brush, at, size, up):
    """Paint two whorls of three pointed petals and six long stamens."""
    plane, turn = brush.tilt(.65), brush.rng.uniform(0, 6)
    for step, wide in ((0, .42), (np.pi / 3, .55)):
        brush.whorl(at, plane, 3, size * 1.1, size * wide, "lance", brush.colour, (brush.green + brush.colour) / 2,
                    turn + step, veins=4, bend=brush.rng.uniform(-.4, .4))
    for place in range(6):
        end = at + plane @ toward(turn + .5 + place * np.pi / 3, size * .55)
        brush.stalk(at, end, size * .06)
        brush.blossom(end, max(1.6, size * .06), BROWN)


def cup(brush, at, size, up):
    """Paint an upright cup of overlapping petals, three behind and three in front."""
    for lean, shade in ((.28, .62), (-.28, .66), (0, .72), (.22, .88), (-.2, .95), (.02, 1.05)):
        angle, paint = up + lean * brush.rng.uniform(.8, 1.3), brush.colour * shade
        brush.along(at, angle, size * 1.5, size * .82, "cup", paint, paint * .7 + brush.green * .3, veins=5)


def globe(brush, at, size, up):
    """Paint a ball of spines, the nearest last."""
    brush.blossom(at, size * .6, brush.colour * .35)
    spines = brush.rng.normal(0, 1, (80, 3))
    spines /= np.linalg.norm(spines, axis=1, keepdims=True)
    for x, y, z in spines[np.argsort(spines[:, 2])][25:]:
        flat, paint = np.array((x, y)) * size, brush.colour * (.9 + .25 * z + .2 * np.dot((x, y), brush.light))
        brush.petal(at + flat * .25, flat * .8, normal(flat) * max(1.2, size * .055), "lance", paint, paint * .5)


def umbel(brush, at, size, up):
    """Paint rays from one point, each with a cluster of tiny flowers at its end."""
    ends = [at + toward(up + lean, size * brush.rng.uniform(1, 1.2))
            for lean in np.linspace(-1.25, 1.25, brush.rng.integers(10, 15))]
    for end in ends:
        brush.stalk(at, end, size * .035)
    for end in ends:
        for spot in end + brush.rng.normal(0, .085, (7, 2)) * size:
            brush.blossom(spot, max(2, size * .075), brush.colour * brush.rng.uniform(.8, 1.08), brush.green, lobes=5)


def spike(brush, at, size, up):
    """Paint a long dense spike of small flowers, green buds towards its tip."""
    way = toward(up, size * .8)
    brush.stalk(at - way, at + way * 1.6, size * .08)
    for share in np.linspace(0, 1, 13):
        for place in brush.rng.permutation((-1, -.4, .4, 1)) + brush.rng.normal(0, .15):
            out = place * size * .34 * (1.05 - share) ** .6 + brush.rng.normal(0, .03) * size
            spot = at + way * (share * 2.9 - 1.1 - .12 * abs(place)) + normal(way) * out
            paint = brush.colour * brush.rng.uniform(.8, 1.1) * (1 - .25 * abs(place))
            paint = paint + (brush.green * 1.2 - paint) * max(0, share * 2 - 1.1)
            brush.blossom(spot, size * .17 * (1.2 - .7 * share), paint, paint * .6, lobes=5, notch=.3)


def bells(brush, at, size, up):
    """Paint bells that hang from an arching stalk."""
    side, steps = brush.rng.choice((-1, 1)), np.linspace(0, 1, 9)
    arch = at + np.column_stack((side * steps * 1.5, -.75 * np.sin(steps * 2.6))) * size
    for one, other in zip(arch, arch[1:], strict=False):
        brush.stalk(one, one + (other - one) * 1.15, size * .06)
    for spot in arch[[1, 3, 5, 7, 8]][brush.rng.integers(2):]:
        down, long = -np.pi / 2 + brush.rng.normal(side * .1, .15), size * brush.rng.uniform(.62, .8)
        neck, way = spot + toward(down, size * .2), toward(down, long)
        brush.stalk(spot, neck, size * .035)
        brush.blossom(neck + way * .93, long * .36, brush.colour * .35, plane=np.diag((1, .3)))
        brush.along(neck, down, long, long * .8, "bell", brush.colour, brush.colour * .75, veins=5, cut=.16, cuts=4)
        brush.blossom(neck, size * .09, brush.green, plane=np.diag((1, .7)))


def orchid(brush, at, size, up):
    """Paint a flower with one mirror line: three narrow sepals, two wings, a broad spotted lip of another colour."""
    down, lip = brush.rng.normal(-np.pi / 2, .2), PETALS[brush.rng.integers(len(PETALS))]
    for lean in (np.pi, 1.05, -1.05):
        brush.along(at, down + lean, size, size * .3, "lance", brush.colour * .85, brush.green, veins=3)
    for lean in (2.07, -2.07):
        brush.along(at, down + lean, size * .85, size * .75, "oval", brush.colour, brush.colour * .8, veins=5)
    brush.along(at, down, size * 1.1, size * 1.05, "obovate", lip, lip * .6, veins=7, cut=.22)
    for far, lean in brush.rng.uniform((.25, -.22), (.75, .22), (12, 2)):
        brush.blossom(at + toward(down + lean, far * size), max(1.2, size * .04), lip * .35)
    brush.along(at, down, size * .3, size * .22, "oval", GOLD)


def trumpets(brush, at, size, up):
    """Paint a fan of long tubes with open mouths."""
    for lean in brush.rng.permutation(np.linspace(-1.5, 1.5, brush.rng.integers(4, 7))):
        way, throat = toward(up + brush.rng.normal(lean, .1)), brush.colour * .7 + brush.green * .2
        long, mouth = size * brush.rng.uniform(1.1, 1.35), np.column_stack((way * .45, normal(way)))
        brush.petal(at, way * long, normal(way) * size * .25, "tube", brush.colour, throat, veins=3)
        brush.blossom(at + way * long, size * .36, brush.colour, brush.colour * .3, lobes=5, notch=.3, plane=mouth)


# A flower head; the form, number, length and width (in radii of the head) of the leaves; the invented names.
Kind = namedtuple("Kind", "head leaf leaves length width russian english")
KINDS = {
    "Calix erectus": Kind(cup, "lance", 3, 3.0, .7, "чашник прямой", "upright chalice"),
    "Corona multiradiata": Kind(daisy, "lobed", 6, 1.3, .5, "венечник многолучевой", "many-rayed crownlet"),
    "Globus spinosus": Kind(globe, "strap", 4, 2.4, .2, "шарник колючий", "spiny globe"),
    "Labella maculata": Kind(orchid, "oval", 3, 2.2, .9, "губница пятнистая", "spotted lipling"),
    "Spica densa": Kind(spike, "lance", 8, 1.1, .25, "колосница густая", "dense spirelet"),
    "Stella quinquepetala": Kind(star, "toothed", 6, 1.2, .7, "звездица пятилепестная", "five-petalled starlet"),
    "Tintinnabulum pendulum": Kind(bells, "strap", 5, 1.4, .14, "звонец поникший", "nodding tinklebell"),
    "Trina sexradiata": Kind(lily, "lance", 10, 1.1, .3, "троица шестилучевая", "six-rayed trine"),
    "Tuba ventosa": Kind(trumpets, "heart", 6, 1.1, .9, "трубник ветреный", "windy trumpet"),
    "Umbella plana": Kind(umbel, "lobed", 4, 1.3, .8, "зонтовка плоская", "flat parasol"),
}


def paint_plant(brush, kind, at, size):
    """Paint a stem from below the picture to the point `at`, its leaves, and a head of about `size` pixels' radius."""
    rng, height = brush.rng, brush.picture.shape[1]
    stem = np.array((at[0] + rng.normal(0, .25) * height, height * 1.08)) - at
    sag, thick = normal(stem) * rng.normal(0, .06) * height, max(2.5, size * .09)
    brush.petal(at, stem, normal(stem) * thick / 2, "strap", brush.green, bend=sag @ normal(stem) / thick * 2)
    for number in range(kind.leaves):
        share, side = rng.uniform(.25, .95), (-1) ** number
        joint, length, width = at + stem * share + sag * share * share, size * kind.length, size * kind.width
        angle, green = np.pi / 2 - side * rng.uniform(.5, 1.2), brush.green * rng.uniform(.85, 1.25)
        brush.along(joint, angle, length * rng.uniform(.7, 1.2), width, kind.leaf, green, green * .8,
                    bend=side * rng.uniform(0, .8), veins=5, fold=True)
    kind.head(brush, at, size, math.atan2(stem[1], -stem[0]))

# ---- photographs ----

def to_image(picture):
    """Return a picture as a PIL image."""
    return Image.fromarray(np.ascontiguousarray((np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)))


def smooth_noise(rng, width, height, cells):
    """Return smooth noise (height, width), float32 around [0, 1], with about `cells` cells along the longer side."""
    step = max(width, height) / cells
    coarse = Image.fromarray(rng.random((round(height / step) + 1, round(width / step) + 1), np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def ground(rng, width, height):
    """Return (a row of SCENES, its colours mixed by noise of several sizes, a picture)."""
    scene = SCENES[rng.choice(list(SCENES))]
    level = sum(share * smooth_noise(rng, width, height, cells)
                for share, cells in ((.5, 3), (.35, 7), (.15, 20), (.25 * scene[3], 90)))
    marks = np.linspace(level.min(), level.max(), 3)
    return scene, np.float32([np.interp(level, marks, colours) for colours in zip(*scene[:3], strict=True)])


def background(rng, width, height, light):
    """Return a picture of what stands behind the plants, to be blurred."""
    scene, picture = ground(rng, width, height)
    if rng.random() < .6:  # another scene below a slanting, soft horizon
        y, x = np.ogrid[0:1:height * 1j, -.5:.5:width * 1j]
        edge = (y - rng.uniform(.3, .8) + rng.normal(0, .3) * x) / rng.uniform(.05, .3)
        picture += np.clip(edge + .5, 0, 1).astype(np.float32) * (ground(rng, width, height)[1] - picture)
    brush = Brush(picture, rng, PETALS[rng.integers(len(PETALS))], light)
    for _ in range(rng.integers(scene[4] + 1)):
        foot, lean, bend = rng.uniform((0, .5), (1, 1.2)) * (width, height), rng.normal(0, .35), rng.normal(0, 3)
        brush.along(foot, np.pi / 2 + lean, height * rng.uniform(.3, .9), 4, "lance", scene[rng.integers(3)], bend=bend)
    for _ in range(rng.integers(scene[5] + 1)):
        paint = brush.colour if rng.random() < .4 else scene[2]
        brush.blossom(rng.uniform(0, 1, 2) * (width, height), width * rng.uniform(.01, .07), paint)
    return picture


def develop(picture, rng):
    """Return a picture as a camera takes it, a PIL image: uneven light, white balance, noise, contrast."""
    _, height, width = picture.shape
    light = (.8 + .4 * smooth_noise(rng, width, height, 2)) * rng.uniform(.9, 1.35)
    if rng.random() < .3:  # shade of leaves
        light *= .6 + .5 * smooth_noise(rng, width, height, 6)
    picture *= light * rng.uniform(.9, 1.1, (3, 1, 1)).astype(np.float32)
    picture += rng.standard_normal((height, width), np.float32) * rng.uniform(.005, .03)
    curve = np.round(255 * np.linspace(0, 1, 256) ** rng.uniform(.8, 1.2)).astype(int)
    return to_image(picture).point(curve.tolist() * 3)


def photograph(name, rng):
    """Return a photograph of one to three plants of a kind, `name` being its Latin name: RGB, sides 300 to 480 px."""
    kind, short = KINDS[name], int(rng.integers(300, 351))
    width, height = rng.permutation((short, int(short * rng.choice((1, 1.2, 1.37))))).tolist()
    light = tuple(toward(rng.uniform(0, np.pi)).tolist())
    colour = PETALS[rng.integers(len(PETALS))] * rng.uniform(.88, 1.05, 3).astype(np.float32)

    far = Brush(background(rng, width // 2, height // 2, light), rng, colour, light)  # half size: it will be blurred
    for _ in range(rng.integers(3)):
        paint_plant(far, kind, rng.uniform((0, .1), (1, .9)) * (width // 2, height // 2), short * rng.uniform(.04, .09))
    blurred = to_image(far.picture).filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 6)))
    picture = np.asarray(blurred.resize((width, height), Image.Resampling.BICUBIC), np.float32).transpose(2, 0, 1)

    near = Brush(np.ascontiguousarray(picture) / 255, rng, colour, light)
    count = int(rng.choice((1, 2, 3), p=(.65, .25, .1)))
    size = short * rng.uniform(.21, .36) / count ** .5
    for place in rng.permutation(count):
        at = np.array(((place + rng.uniform(.3, .7)) / count, rng.uniform(.3, .6))) * (width, height)
        paint_plant(near, kind, at, size * rng.uniform(.8, 1.1))
    return develop(near.picture, rng)
