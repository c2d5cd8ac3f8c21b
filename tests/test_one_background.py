"""Photographs before one background: different plants are kept, copies of one are removed."""
import math
import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dataset_preparation.cleaning.duplicate_pairs import BORDERLINE, NEAR
from tests.conftest import shared
from tests.preparing import clean, write_large
from tests.test_local_features import pairs_among, scene
from utils import read_table

PLACE = (230, 160)  # of a foreground, on a background of 640 x 480 pixels


def millimetre_paper():
    """Return ruled paper with a scale at its lower edge."""
    paper = Image.new("RGB", (900, 700), (235, 238, 230))
    pen = ImageDraw.Draw(paper)
    for at in range(0, 900, 15):
        line = {"fill": (90, 150, 140), "width": 2} if at % 75 == 0 else {"fill": (150, 190, 180)}
        pen.line((at, 0, at, 700), **line)
        pen.line((0, at, 900, at), **line)
    pen.rectangle((20, 640, 420, 690), fill="white", outline="black")
    for mark in range(20):
        pen.text((22 + mark * 20, 662), str(mark), fill="black")
    return paper


def lay_leaf(paper, seed, size):
    """Return the paper with a lobed leaf of its own colour, form and veins, and sensor noise."""
    rng = random.Random(seed)
    lobes, turn, slim = rng.randint(3, 9), rng.random() * 6, rng.uniform(0.35, 1)
    picture = paper.copy()
    pen = ImageDraw.Draw(picture)

    def place(angle, radius):
        x, y = radius * math.cos(angle), radius * slim * math.sin(angle)
        return (450 + x * math.cos(turn) - y * math.sin(turn),
                320 + x * math.sin(turn) + y * math.cos(turn))
    angles = [step / 100 * math.pi for step in range(200)]
    pen.polygon([place(angle, size / 2 * (1 - 0.3 * abs(math.sin(lobes * angle / 2))))
                 for angle in angles],
                fill=(rng.randint(30, 120), rng.randint(80, 160), rng.randint(20, 70)))
    for _ in range(40):  # veins
        angle, out = rng.random() * 2 * math.pi, rng.uniform(0.1, 0.3) * size
        pen.line((*place(angle, out / 2), *place(angle + rng.uniform(-0.5, 0.5), out)),
                 fill=(200, 220, 150), width=4)
    noise = np.random.default_rng(seed).normal(0, 4, (700, 900, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def before(background, plant, at=PLACE, size=(180, 160)):
    """Return a background with the oval middle of a plant's picture on it."""
    oval = Image.new("L", size, 0)
    ImageDraw.Draw(oval).ellipse((0, 0, *size), fill=255)
    picture = background.copy()
    picture.paste(plant.resize(size), at, oval.filter(ImageFilter.GaussianBlur(2)))
    return picture


def test_no_leaf_on_millimetre_paper_is_removed_for_another(tmp_path):
    paper = millimetre_paper()
    leaves = [lay_leaf(paper, seed, 320) for seed in range(8)]
    assert not [pair for pair in pairs_among(leaves, tmp_path) if pair.removable()]


def test_different_flowers_before_one_background_are_linked_and_both_kept(tmp_path):
    """Hashes and most pixels see the background; the flowers fill 7 % of the picture."""
    flowers = [before(scene(1), scene(seed)) for seed in (21, 22)]
    pair, = pairs_among(flowers, tmp_path)
    assert pair.match.alike > 0.6
    assert pair.kind == BORDERLINE
    assert pair.removable() == []


def test_two_moments_of_a_burst_are_linked_and_both_kept(tmp_path):
    """In the second, the wind has moved the flower by a third of its width."""
    moments = [before(scene(1), scene(21), (PLACE[0] + moved, PLACE[1])) for moved in (0, 60)]
    pair, = pairs_among(moments, tmp_path)
    assert pair.removable() == []


def test_a_copy_before_the_background_is_still_removed(tmp_path):
    """The first picture has the background only in common with the copies of the second."""
    flowers = [before(scene(1), scene(seed)) for seed in (21, 22)]
    copy = flowers[1].resize((512, 384))
    pairs = pairs_among([*flowers, copy], tmp_path)
    assert {(pair.first, pair.second): pair.kind for pair in pairs}[1, 2] == NEAR
    assert [pair.removable() for pair in pairs if pair.kind == NEAR] == [[(2, 1), (1, 2)]]


def stick(image, share, rng):
    """Return a photograph with a round sticker on a share of it."""
    image, side = image.copy(), round(math.sqrt(share * image.width * image.height))
    x, y = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    pen = ImageDraw.Draw(image)
    pen.ellipse((x, y, x + side, y + side), fill=tuple(rng.choices(range(256), k=3)),
                outline="white", width=4)
    pen.text((x + side * 0.2, y + side * 0.3), "NEW", fill="white",
             font=ImageFont.load_default(size=max(8, side * 0.3)))
    return image


def write_under(image, share, rng):
    """Return a photograph with a line of text at its lower edge."""
    image = image.copy()
    ImageDraw.Draw(image).text(
        (image.width * 0.05, image.height * (1 - 1.4 * share)), "Iris in the garden, May 2019",
        fill="white", font=ImageFont.load_default(size=image.height * share), stroke_width=2,
        stroke_fill="black")
    return image


@pytest.mark.photos
@pytest.mark.parametrize("edit, share, kind", [
    (stick, 0.015, NEAR), (write_under, 0.03, NEAR), (stick, 0.1, BORDERLINE)])
def test_real_copies_are_removed_if_an_addition_is_small_and_linked_if_not(
        edit, share, kind, tmp_path):
    listed = {row[f"file_{one}"] for one in "ab"  # copies by nature
              for row in read_table(shared("photos/flowers_same_photograph.csv"))}
    files = [path for path in sorted(shared("photos/flowers/Iris germanica").iterdir())
             if path.name not in listed][::9]
    images = tmp_path / "collected/images/Iris germanica"
    images.mkdir(parents=True)
    for i, path in enumerate(files):
        large = write_large(path, images)
        edit(large, share, random.Random(i)).save(images / f"copy_{path.name}", quality=85)
    sha = {file.split("/")[1]: row["sha256"] for file, row in clean(tmp_path).items()}
    linked = {frozenset((row["first"], row["second"])): row["kind"]
              for row in read_table(tmp_path / "cleaned/pairs.csv")}
    for path in files:
        assert linked[frozenset((sha[path.name], sha[f"copy_{path.name}"]))] == kind, path
