"""Near-duplicates by local features: edited copies are found, different pictures are not."""
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from dataset_preparation.cleaning import feature_store
from dataset_preparation.cleaning import local_features as lf
from dataset_preparation.cleaning.duplicate_pairs import (
    BORDERLINE,
    NEAR,
    OVERLAP,
    find_kind,
    find_pairs,
)
from dataset_preparation.cleaning.feature_search import find_candidates
from dataset_preparation.cleaning.feature_store import FeatureStore, to_columns, unpack_bits
from dataset_preparation.cleaning.inspection import map_files
from dataset_preparation.cleaning.near_duplicates import fingerprint
from tests.conftest import draw
from tests.preparing import clean

RULE = {"hash_distance": 12, "check_distance": 48, "borderline_distance": 88}
TURN = Image.Transpose


def scene(seed, size=(640, 480)):
    """Return a picture with shapes of many sizes, as a meadow has."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size, tuple(map(int, rng.integers(40, 120, 3))))
    pen = ImageDraw.Draw(image)
    for _ in range(260):
        x, y = rng.integers(-20, size[0]), rng.integers(-20, size[1])
        width, height = rng.integers(4, 70, 2)
        shape = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        shape((int(x), int(y), int(x + width), int(y + height)),
              fill=tuple(map(int, rng.integers(0, 255, 3))))
    return image.filter(ImageFilter.GaussianBlur(1))


def on_a_page(image):
    """Return a screenshot: a light page, a title, the picture, lines of text."""
    page = Image.new("RGB", (540, 1140), (248, 248, 246))
    pen = ImageDraw.Draw(page)
    for line in range(14):
        pen.text((20, 620 + 36 * line), "leaf petal found near the old road in early spring")
    page.paste(image.resize((540, 405)), (0, 150))
    return page


def beside(other):
    """Return a function that puts another picture to the left."""
    def edit(image):
        both = Image.new("RGB", (image.width * 2, image.height))
        both.paste(other.resize(image.size), (0, 0))
        both.paste(image, (image.width, 0))
        return both
    return edit


EDITS = {
    "left 25 %": (lambda image: image.crop((160, 0, 640, 480)), OVERLAP),
    "corner 15 %": (lambda image: image.crop((96, 72, 640, 480)), NEAR),
    "centre 60 %": (lambda image: image.crop((128, 96, 512, 384)), OVERLAP),
    "square": (lambda image: image.crop((80, 0, 560, 480)), NEAR),
    "padded": (lambda image: ImageOps.pad(image, (640, 640), color="white"), NEAR),
    "turned by 90": (lambda image: image.transpose(TURN.ROTATE_90), NEAR),
    "turned by 180": (lambda image: image.transpose(TURN.ROTATE_180), NEAR),
    "rotated by 5": (lambda image: image.rotate(5, Image.Resampling.BICUBIC).crop(
        (60, 60, 580, 420)), NEAR),
    "mirrored and cropped": (lambda image: ImageOps.mirror(image.crop((64, 48, 576, 432))), NEAR),
    "narrower": (lambda image: image.resize((480, 480)), NEAR),
    "screenshot": (on_a_page, OVERLAP),
    "half of a collage": (beside(scene(99)), OVERLAP),
    "blurred": (lambda image: image.filter(ImageFilter.GaussianBlur(2)), NEAR),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_picture_is_found_among_others_and_agrees(name, tmp_path):
    edit, kind = EDITS[name]
    pictures = [scene(1), *(scene(seed) for seed in range(2, 12)), edit(scene(1))]
    assert {(pair.first, pair.second): pair.kind for pair in pairs_among(pictures, tmp_path)} in (
        {(0, 11): kind}, {(0, 11): NEAR})


def pairs_among(pictures, folder):
    """Return the pairs among PIL images, the first one being the best."""
    store = FeatureStore(folder)
    names = [f"{i:064x}" for i in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        store.add(name, to_columns(lf.describe_image(picture)))
    store.save()
    looks = np.stack([fingerprint(picture) for picture in pictures])
    return find_pairs(names, looks, RULE, store, partial(map_files, processes=1))


def test_a_photograph_is_removed_only_if_its_keeper_shows_it(tmp_path):
    """A page and a collage show more than their part: neither replaces it, nor is replaced."""
    whole = scene(1)
    for picture, removable in ((whole.crop((64, 48, 640, 480)), [(1, 0)]),
                               (whole.transpose(TURN.ROTATE_90), [(1, 0), (0, 1)]),
                               (on_a_page(whole), []), (beside(scene(99))(whole), []),
                               (whole.crop((192, 144, 448, 336)), [])):
        pair, = pairs_among([whole, picture], tmp_path)
        assert pair.removable() == removable
        (tmp_path / "near_duplicates.sqlite").unlink()


def test_of_a_slow_pan_every_second_view_is_kept(tmp_path):
    """Views two steps apart are no near-duplicates; those between them may not connect them."""
    wide, folder = scene(1, (900, 480)), tmp_path / "collected/images/Rosa prima"
    folder.mkdir(parents=True)
    for i in range(5):  # the best is the first: it has most pixels
        wide.crop((45 * i, 0, 45 * i + 640 - i, 480)).save(folder / f"{i}.png")
    rows = clean(tmp_path).values()
    assert [row["status"] for row in rows] == ["kept", "duplicate"] * 2 + ["kept"]
    assert [row["keeper"] for row in rows] == [f"Rosa prima/{i}.png" for i in (0, 0, 2, 2, 4)]


def test_blank_pictures_match_nothing(tmp_path):
    """A few pixels of a date or logo are too little to tell one flat picture from another."""
    flat = [Image.new("RGB", (300, 300), colour) for colour in ("grey", "teal", "white", "red")]
    marked = [image.copy() for image in flat]
    for image in marked:
        image.paste("black", (30, 30, 34, 34))
    gradient = [Image.linear_gradient("L").convert("RGB")] * 2
    assert pairs_among([*flat, *gradient, *marked, *flat], tmp_path) == []


def test_different_pictures_behind_one_frame_are_not_removed(tmp_path):
    """Their hashes see the frame: pictures behind a soft oval on white are told by their pixels."""
    oval = Image.new("L", (500, 600), 0)
    ImageDraw.Draw(oval).ellipse((140, 120, 360, 420), fill=255)
    oval = oval.filter(ImageFilter.GaussianBlur(6))
    cards = [Image.composite(scene(seed, (500, 600)), Image.new("RGB", (500, 600), "white"), oval)
             for seed in range(30)]
    assert not [pair for pair in pairs_among(cards, tmp_path) if pair.removable()]


def test_the_kind_of_a_pair_follows_from_extent_and_agreement():
    match = lf.Match(80, 0.99, 0.97, 0.95, 0.7)
    assert find_kind(match, False, True) == NEAR
    assert find_kind(match._replace(equal=0.9), False, True) == BORDERLINE
    assert find_kind(match._replace(equal=0.9), True, True) == NEAR
    assert find_kind(match._replace(differs=0.05), True, True) == BORDERLINE
    assert find_kind(match._replace(second_inside=0.5), True, True) == BORDERLINE
    assert find_kind(match._replace(second_inside=0.5), False, True) == OVERLAP
    assert find_kind(match._replace(alike=0.45), False, True) == OVERLAP
    assert find_kind(match._replace(alike=0.45, inliers=9), False, True) == ""
    assert find_kind(match._replace(alike=0.3), False, True) == ""
    assert find_kind(lf.NO_MATCH, True, True) == BORDERLINE
    assert find_kind(lf.NO_MATCH, True, False) == ""


def test_mirrored_bits_are_those_of_the_mirrored_picture():
    one = lf.describe_image(scene(5))
    other = lf.describe_image(ImageOps.mirror(scene(5)))
    assert (lf.mirror_bits(lf.mirror_bits(one.bits)) == one.bits).all()
    apart = np.bitwise_count(lf.mirror_bits(one.bits)[:, None] ^ other.bits[None]).sum(2)
    assert np.median(apart.min(axis=1)) < 20
    matrix, inliers = lf.align(one, other, mirrored=True)
    assert inliers > 100
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(-1, abs=0.02)


def test_the_feature_store_returns_what_was_stored_and_survives_damage(tmp_path):
    path = tmp_path / "near_duplicates.sqlite"
    description = lf.describe_image(draw(3, (400, 300), detail=16))
    store = FeatureStore(tmp_path)
    store.add("a", to_columns(description))
    for same_extent, alike in ((False, 0.5), (True, 0.75)):
        store.add_match(("a", "b", same_extent), lf.Match(7, alike, 0.25, 1.0, 0.75, 0.5))
    store.save()
    again = FeatureStore(tmp_path)
    assert again.described == {"a"}
    assert again.matches() == {("a", "b", False): lf.Match(7, 0.5, 0.25, 1.0, 0.75, 0.5),
                               ("a", "b", True): lf.Match(7, 0.75, 0.25, 1.0, 0.75, 0.5)}
    owner, bits, angles = again.features(["a"], 10)
    assert (owner == np.zeros(10)).all()
    assert (bits == description.bits[:10]).all()
    assert angles == pytest.approx(description.points[:10, 2], abs=1 / lf.STEPS)
    assert len(unpack_bits(to_columns(description)[1])) == len(description.bits)
    path.write_bytes(b"no database, and longer than the header of one" * 9)
    assert FeatureStore(tmp_path).described == set()


def test_a_damaged_store_is_closed_before_it_is_deleted(tmp_path, monkeypatch):
    """Windows deletes no open file."""
    path, still_open, delete = tmp_path / "near_duplicates.sqlite", [], Path.unlink
    path.write_bytes(b"no database, and longer than the header of one" * 9)

    def unlink(file):
        still_open.extend(fd for fd in Path("/proc/self/fd").iterdir() if fd.resolve() == file)
        delete(file)
    monkeypatch.setattr(Path, "unlink", unlink)
    assert FeatureStore(tmp_path).described == set()
    assert still_open == []


def test_workers_open_a_store_by_its_path(tmp_path, monkeypatch):
    r"""SQLite refuses the URI of \\nas\photos, which a network drive of Windows resolves to."""
    store = FeatureStore(tmp_path)
    store.add("a", to_columns(lf.describe_image(scene(1))))
    store.save()
    monkeypatch.setattr(feature_store, "Path", PureWindowsPath)
    assert len(feature_store.read_description(store.path, "a").bits) > 0


def test_the_search_for_equal_pictures_takes_linear_time():
    """Each of 500 equal pictures is paired with some others, not with all."""
    one = lf.describe_image(scene(1))
    count = min(len(one.bits), 150)
    pairs = find_candidates(np.arange(500, dtype=np.int32).repeat(count),
                            np.tile(one.bits[:count], (500, 1)),
                            np.tile(one.points[:count, 2], 500))
    assert 499 <= len(pairs) < 20_000
    assert {i for pair in pairs.tolist() for i in pair} == set(range(500))


def test_workers_read_while_many_matches_wait_to_be_saved(tmp_path):
    """Beyond SQLite's cache of 2 MB, unsaved matches locked out the workers that made them."""
    store = FeatureStore(tmp_path)
    store.add("0" * 64, (b"", b"", b""))
    store.save()
    for number in range(20_000):
        store.add_match((f"{number * 7919 % 20_000:064}", "0" * 64, True), lf.NO_MATCH)
    with closing(sqlite3.connect(store.path, timeout=0.1)) as reader:
        assert reader.execute("SELECT count(*) FROM features").fetchone() == (1,)
    store.save()
    assert len(FeatureStore(tmp_path).matches()) == 20_000
