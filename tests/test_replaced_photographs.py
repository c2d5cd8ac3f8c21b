"""Photographs whose files were replaced or rewritten keep their decisions, sides and names."""
import io
import shutil

import pytest
from PIL import Image, ImageChops

from dataset_preparation.cleaning.decisions import DecisionLog, append_decisions
from dataset_preparation.feedback import keep_feedback
from tests.conftest import NAMES, draw, jpeg, make_collected, snapshot
from tests.preparing import clean, label, without_times
from utils import read_classes, read_table, sha256, write_table

EDITED = b"\xff\xfe\x00\x08edited"  # a comment, as viewers write it


@pytest.fixture
def folder(tmp_path):
    """12 photographs of each of three classes, cleaned, labelled after three decisions."""
    make_collected(tmp_path / "collected", count=12)
    rows = clean(tmp_path)
    decide(tmp_path, rows[f"{NAMES[0]}/000.jpg"], "reject")
    decide(tmp_path, rows[f"{NAMES[0]}/001.jpg"], "move", NAMES[2])
    decide(tmp_path, rows[f"{NAMES[0]}/002.jpg"], "not_duplicate",
           rows[f"{NAMES[1]}/002.jpg"]["sha256"])
    clean(tmp_path)
    label(tmp_path)
    return tmp_path


def decide(folder, row, action, value=""):
    append_decisions(folder / "cleaned/decisions.csv",
                     [(row["sha256"], row["class"], action, value, "")])


def add_comments(images):
    for path in images.rglob("*.jpg"):
        data = path.read_bytes()
        path.write_bytes(data[:2] + EDITED + data[2:])


def rename_too(images):
    add_comments(images)
    for path in sorted(images.rglob("*.jpg")):
        path.rename(path.with_name(f"holiday {path.name}"))


def fetch_originals(images):
    """Replace each photograph by a larger one with another name; return the new paths."""
    new = []
    for path in sorted(images.rglob("*.jpg")):
        data = path.read_bytes()
        original = Image.open(io.BytesIO(data)).resize((640, 600), Image.Resampling.BICUBIC)
        path.unlink()
        new.append(path.parent / f"{sha256(jpeg(original))[:16]}.jpg")
        new[-1].write_bytes(jpeg(original))
    return new


def pictures(folder):
    """Return {published path: its picture, 8 x 8 pixels}."""
    return {path.relative_to(folder / "dataset").as_posix(): Image.open(path).resize((8, 8))
            for side in ("train", "test") for path in (folder / "dataset" / side).rglob("*.jpg")}


def same_pictures(one, other):
    """Return whether two results of `pictures` have the same pictures at the same paths."""
    return one.keys() == other.keys() and all(
        high < 12 for path in one
        for _, high in ImageChops.difference(one[path], other[path]).getextrema())


@pytest.mark.parametrize("change", [add_comments, rename_too, fetch_originals])
def test_the_published_pictures_stay_the_same_under_the_same_names(folder, change, capsys):
    before = pictures(folder)
    change(folder / "collected/images")
    rows = clean(folder)
    assert "decisions.csv match no photograph" not in capsys.readouterr().err
    assert sorted(row["reason"] for row in rows.values() if row["status"] == "rejected") == [
        "by hand"]
    assert sum(row["label_class"] != row["class"] for row in rows.values()) == 1
    labelled = label(folder)
    assert same_pictures(pictures(folder), before)
    assert {row["sha256"] for row in labelled.values()} <= {row["sha256"] for row in rows.values()}
    assert "recognised in another form: 0\n" in (folder / "dataset/split_report.txt").read_text()
    once = without_times(snapshot(folder))
    clean(folder)
    label(folder)
    assert without_times(snapshot(folder)) == once


def test_the_review_shows_decisions_about_what_replaced_a_photograph(folder):
    fetch_originals(folder / "collected/images")
    rows = clean(folder)
    [rejected] = [row for row in rows.values() if row["status"] == "rejected"]
    log = DecisionLog(folder / "cleaned/decisions.csv", read_classes(folder / "classes.csv"))
    assert [row["action"] for row in log.about[rejected["sha256"]]] == ["reject"]
    assert set(log.about) <= {row["sha256"] for row in rows.values()}


def test_a_photograph_is_followed_through_several_forms_and_back(folder):
    images, before = folder / "collected/images", pictures(folder)
    shutil.copytree(images, folder / "backup")
    first = clean(folder)
    for change in (add_comments, fetch_originals, add_comments):
        change(images)
        rows = clean(folder)
    assert sum(row["reason"] == "by hand" for row in rows.values()) == 1
    label(folder)
    assert same_pictures(pictures(folder), before)
    shutil.rmtree(images)
    shutil.copytree(folder / "backup", images)
    assert clean(folder) == first
    label(folder)
    assert same_pictures(pictures(folder), before)


def test_what_came_back_after_a_run_without_it_is_recognised(folder):
    """Collecting sets the small copy aside before it writes the original."""
    images, before = folder / "collected/images", pictures(folder)
    shutil.copytree(images, folder / "backup")
    for path in sorted((images / NAMES[0]).iterdir())[:3]:
        path.unlink()
    clean(folder)
    shutil.rmtree(images)
    shutil.copytree(folder / "backup", images)
    fetch_originals(images)
    assert sum(row["reason"] == "by hand" for row in clean(folder).values()) == 1
    label(folder)
    assert same_pictures(pictures(folder), before)


def start_afresh(folder, change):
    """Change the collected files, and clean and label them without what cleaning knew."""
    change(folder / "collected/images")
    shutil.rmtree(folder / "cleaned")
    clean(folder)
    return label(folder)


@pytest.fixture
def labelled(tmp_path):
    """12 photographs of each of three classes, cleaned and labelled."""
    make_collected(tmp_path / "collected", count=12)
    clean(tmp_path)
    label(tmp_path)
    return tmp_path


def test_without_the_folder_of_cleaning_the_pixels_tell(labelled):
    before = pictures(labelled)
    start_afresh(labelled, rename_too)
    assert same_pictures(pictures(labelled), before)


def test_without_the_folder_of_cleaning_the_address_tells(tmp_path):
    images = make_collected(tmp_path / "collected", count=12) / "images"

    def write_found(paths):
        write_table(tmp_path / "collected/found.csv", (
            "url", "page", "license", "author", "sha256"), [
            {"url": f"https://photos.example/{i}.jpg", "page": "", "license": "cc0", "author": "",
             "sha256": sha256(path.read_bytes())} for i, path in enumerate(paths)])

    def replace(images):
        write_found(fetch_originals(images))
    write_found(sorted(images.rglob("*.jpg")))
    clean(tmp_path)
    label(tmp_path)
    before = pictures(tmp_path)
    start_afresh(tmp_path, replace)
    assert same_pictures(pictures(tmp_path), before)


def test_photographs_that_nothing_recognises_are_counted_with_a_warning(labelled, capsys):
    start_afresh(labelled, fetch_originals)
    warning = capsys.readouterr().err
    assert "36 photographs labelled before" in warning and "9 test photographs are new" in warning
    report = (labelled / "dataset/split_report.txt").read_text()
    assert "in another form: 36; do not evaluate" in report


def test_a_correction_that_was_sent_stays_in_train_when_its_file_is_rewritten(tmp_path):
    make_collected(tmp_path / "collected", count=12)
    prediction = {"verdict": "sure", "names": [{"latin": NAMES[0], "probability": 0.9}]}
    for i in range(9):
        keep_feedback(tmp_path / "collected", jpeg(draw(300 + i)), NAMES[1], prediction, "net")
    clean(tmp_path)
    add_comments(tmp_path / "collected/images")
    clean(tmp_path)
    rows = label(tmp_path)
    assert {path.split("/")[0] for path, row in rows.items() if "feedback" in row["license"]} == {
        "train"}
    assert sum("feedback" in row["license"] for row in rows.values()) == 9


def test_a_table_of_former_photographs_is_written_only_when_it_is_needed(labelled):
    table = labelled / "cleaned/former_photographs.csv"
    assert not table.exists()
    add_comments(labelled / "collected/images")
    clean(labelled)
    rows = read_table(table)
    assert len(rows) == 36 and all(row["now"] for row in rows)
