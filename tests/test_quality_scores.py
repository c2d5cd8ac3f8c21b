"""Quality scores: degraded pictures are suspected, good ones are not, real photographs too."""
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from dataset_preparation.cleaning.quality_scores import measure, suspect
from images import resize_shorter_side
from tests.conftest import NAMES, shared
from tests.preparing import clean


def textured(seed=0, blurred_part=0.0):
    """Return a picture with fine detail, its left part blurred like a macro's background."""
    rng = np.random.default_rng(seed)
    detail = Image.fromarray(rng.integers(30, 200, (90, 110, 3), dtype=np.uint8)).resize((330, 270))
    part = detail.crop((0, 0, round(330 * blurred_part), 270))
    detail.paste(part.filter(ImageFilter.GaussianBlur(9)), (0, 0))
    return detail


def page(colour, strokes):
    picture = Image.new("RGB", (300, 420), colour)
    drawn = ImageDraw.Draw(picture)
    for i in range(strokes):
        drawn.line((150, 400, 30 + 240 * i // strokes, 60 + i % 3 * 40), fill=(70, 90, 40), width=3)
        drawn.text((20, 10 + 12 * i), "Herbarium Tauricum", fill="black")
    return picture


@pytest.mark.parametrize("picture, said", [
    (textured(), ""), (textured(blurred_part=0.7), ""),
    (textured().filter(ImageFilter.GaussianBlur(3)), "blurred"),
    (ImageEnhance.Brightness(textured()).enhance(0.15), "dark"),
    (textured().point(lambda value: 235 + value // 12),
    "bright"),
    (Image.new("RGB", (300, 260), (90, 120, 90)), "empty"),
    (page((235, 225, 200), 12), "drawing or sheet"),
    (page("white", 30), "drawing or sheet")])
def test_degraded_pictures_are_suspected_by_their_fault(picture, said):
    words = suspect({**measure(resize_shorter_side(picture, 256)), "aspect": 1.3,
                     "status": "kept"})[1].split(", ")
    assert said in words
    assert said or words == [""]


def test_suspicion_is_the_worst_of_all_and_never_leaves_its_range():
    assert suspect({"status": "kept"}) == (0.0, "")
    assert suspect({"status": "kept", "aspect": 9.0, "brightness": 0.5}) == (1.0, "long")
    assert suspect({"status": "kept", "near_alike": 0.5}) == (0.5, "borderline")
    assert suspect({"status": "review", "label_score": "0.1"}) == (1.0, "several names, label")


# ---- real files ----

def collect(folder, files, name=NAMES[0]):
    """Copy files into one class below `folder`/collected."""
    target = folder / f"collected/images/{name}"
    target.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, target / f"{path.parent.name}_{path.name}")


def together(rows):
    """Return the sorted groups of more than one file, by file name."""
    groups = {}
    for row in rows.values():
        if row["group"]:
            groups.setdefault(row["group"], []).append(row["file"].split("/")[1])
    return sorted(sorted(some) for some in groups.values() if len(some) > 1)


@pytest.mark.photos
def test_near_duplicates_of_one_object(tmp_path):
    """Resized and mirrored ones are found; rotated, broken and other objects are not merged."""
    collect(tmp_path, shared("photos/near_duplicates").rglob("*.jpg"))
    rows = clean(tmp_path)
    assert {file.split("/")[1] for file, row in rows.items() if row["status"] == "rejected"} == {
        "mixed_images_ukbench09268_corrupt.jpg"}
    assert together(rows) == [
        ["base_images_ukbench00120.jpg", "mixed_images_ukbench00120.jpg",
         "mixed_images_ukbench00120_hflip.jpg",
         "mixed_images_ukbench00120_resize.jpg"],
        ["base_images_ukbench09268.jpg", "mixed_images_ukbench09268.jpg"]]


@pytest.mark.photos
def test_eight_orientations_of_one_picture_are_near_duplicates(tmp_path):
    files = sorted(shared("photos/exif_orientation").glob("*.jpg"))
    collect(tmp_path, files)
    rows = clean(tmp_path)
    assert len(files) == 8
    assert len(together(rows)[0]) == 8
    assert Counter(row["status"] for row in rows.values()) == {"kept": 1, "duplicate": 7}
    assert len({(row["width"], row["height"]) for row in rows.values()}) == 1  # all upright
    assert all(int(row["distance"] or 0) <= 4 for row in rows.values())


@pytest.mark.photos
def test_hardly_any_of_720_good_photographs_is_suspected(tmp_path):
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected/images").symlink_to(shared("photos/flowers"))
    rows = clean(tmp_path)
    assert Counter(row["status"] for row in rows.values()) == {"kept": 680, "duplicate": 40}
    suspected = Counter(word for row in rows.values()
                        for word in row["suspected"].split(", ") if word)
    assert suspected["borderline"] <= 12
    assert sum(suspected.values()) - suspected["borderline"] <= 7
