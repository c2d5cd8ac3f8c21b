"""Labelling: of near-duplicates one of an allowed licence is published."""
import pandas as pd
import pytest

from dataset_preparation.cleaning.decisions import append_decisions
from dataset_preparation.cleaning.review_views import arrange
from tests.conftest import NAMES, draw, jpeg, make_collected
from tests.preparing import clean, label
from utils import read_table, sha256, write_table

TWINS = {f"{NAMES[0]}/{kind}{i}.jpg" for kind in ("large", "small") for i in range(3)}


@pytest.fixture
def folder(tmp_path):
    """Three larger copies without a licence, each with a smaller one that has one; cleaned."""
    images = make_collected(tmp_path / "collected", count=8) / "images"
    for i in range(3):
        picture = draw(500 + i, (640, 600))
        (images / f"{NAMES[0]}/large{i}.jpg").write_bytes(jpeg(picture))
        (images / f"{NAMES[0]}/small{i}.jpg").write_bytes(jpeg(picture.resize((320, 300))))
    files = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.jpg"))
    write_table(tmp_path / "collected/found.csv", ("url", "page", "license", "author", "sha256"), [
        {"sha256": sha256((images / file).read_bytes()), "author": file, "page": "",
         "url": f"https://photos.example/{file}", "license": "" if "large" in file else "CC BY"}
        for file in files])
    clean(tmp_path)
    return tmp_path


def published(folder, *more):
    """Label and return {name of the file of a twin that is published: its side}."""
    return {row["author"]: path.split("/")[0] for path, row in label(folder, *more).items()
            if row["author"] in TWINS}


@pytest.mark.parametrize("more", [(), ("--licenses", "('cc-by',)")])
def test_the_smaller_copy_with_a_licence_is_published(folder, more):
    assert set(published(folder, *more)) == {f"{NAMES[0]}/small{i}.jpg" for i in range(3)}
    report = (folder / "dataset/split_report.txt").read_text()
    assert "published instead of the photograph that cleaning kept: 3\n" in report
    assert "left out by licence: none" in report


def test_a_copy_kept_by_hand_is_published_unless_its_licence_is_refused(folder):
    large = f"{NAMES[0]}/large0.jpg"
    digest = sha256((folder / "collected/images" / large).read_bytes())
    append_decisions(folder / "cleaned/decisions.csv", [(digest, NAMES[0], "keep", "", "")])
    clean(folder)
    sides = published(folder)
    assert large in sides and f"{NAMES[0]}/small0.jpg" not in sides
    asked = published(folder, "--licenses", "('cc-by',)")
    assert asked[f"{NAMES[0]}/small0.jpg"] == sides[large]  # the picture keeps its side


def test_a_table_that_pandas_has_rewritten_is_read_as_before(folder):
    broken = folder / "collected/images" / NAMES[0] / "broken.jpg"  # without a width
    broken.write_bytes(b"no picture")
    clean(folder)
    table = folder / "cleaned/cleaned.csv"
    views = arrange(read_table(table))
    pd.read_csv(table).to_csv(table, index=False)
    again = arrange(read_table(table))
    assert again["duplicates", ""][0][0]["width"].endswith(".0")
    assert {view: [[row["file"] for row in block] for block in blocks]
            for view, blocks in again.items()} == {
        view: [[row["file"] for row in block] for block in blocks]
        for view, blocks in views.items()}
    assert len(published(folder)) == 3
