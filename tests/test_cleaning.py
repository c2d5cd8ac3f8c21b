"""Cleaning: which files are rejected or near-duplicates; the input is never changed."""
import io
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageOps, PngImagePlugin

from dataset_preparation.cleaning import inspection as cu
from tests.conftest import NAMES, draw, jpeg, make_collected, run_script, snapshot, write_classes
from tests.preparing import CLEANING, clean, label, without_times
from utils import InputError


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def test_every_kind_of_file_gets_its_status_and_reason(tmp_path):
    images = make_collected(tmp_path / "collected", count=3) / "images"
    picture, exif = draw(99, (640, 480)), Image.Exif()
    exif[0x0112] = 6
    files = {
        "good.jpg": jpeg(picture), "same_bytes.jpg": jpeg(picture),
        "smaller.jpg": jpeg(picture.resize((400, 300))),
        "mirrored.jpg": jpeg(ImageOps.mirror(picture), quality=80),
        "bright.jpg": jpeg(ImageEnhance.Brightness(picture).enhance(1.2), quality=60),
        "turned.jpg": jpeg(picture.rotate(90, expand=True), exif=exif, quality=60),
        "cropped.jpg": jpeg(picture.crop((32, 24, 608, 456))),
        "short.jpg": jpeg(draw(7, (255, 600))),
        "tall.jpg": jpeg(draw(8, (256, 700))), "grey.jpg": jpeg(draw(9).convert("L")),
        "page.jpg": b"<html>no</html>",
        "cut.jpg": jpeg(draw(10))[:-2000], "empty.jpg": b"",
        "alpha.png": png(draw(11).convert("RGBA"))}
    for name, data in files.items():
        (images / NAMES[0] / name).write_bytes(data)
    # It is in the third class as well.
    (images / NAMES[1] / "stolen.jpg").write_bytes(jpeg(draw(1000 * 2 + 1), quality=70))
    before = snapshot(tmp_path / "collected")

    rows = clean(tmp_path)
    fate = {file.split("/")[1]: (row["status"], row["reason"]) for file, row in rows.items()
            if file.startswith(NAMES[0])}
    assert {name for name in fate if fate[name][0] == "kept"} == {
        "000.jpg", "001.jpg", "002.jpg", "good.jpg", "tall.jpg"}
    for name in ("same_bytes.jpg", "smaller.jpg", "mirrored.jpg", "bright.jpg", "turned.jpg",
                 "cropped.jpg"):
        assert fate[name][0] == "duplicate", name
        assert rows[f"{NAMES[0]}/{name}"]["keeper"] == f"{NAMES[0]}/good.jpg"
        assert int(rows[f"{NAMES[0]}/{name}"]["distance"]) <= 10
    assert {name: reason.split(":")[0]
            for name, (status, reason) in fate.items() if status == "rejected"} == {
        "short.jpg": "too small", "grey.jpg": "black and white (L)", "page.jpg": "not a picture",
        "cut.jpg": "broken",
        "empty.jpg": "empty file", "alpha.png": "transparent picture (RGBA)"}
    assert rows[f"{NAMES[0]}/turned.jpg"]["width"] == "640"
    conflict = [row for row in rows.values() if row["status"] == "review"]
    assert {row["file"] for row in conflict} == {f"{NAMES[1]}/stolen.jpg", f"{NAMES[2]}/001.jpg"}
    assert all("Rosa secunda, Rosa tertia" in row["reason"] for row in conflict)
    assert snapshot(tmp_path / "collected") == before

    written = sorted((tmp_path / "cleaned/images").rglob("*.jpg"))
    assert len(written) == sum(row["status"] == "kept" for row in rows.values())
    assert all(min(Image.open(path).size) == 256 for path in written)
    assert {path.stem for path in written} == {row["sha256"][:16]
                                               for row in rows.values() if row["status"] == "kept"}
    assert {path.name for path in (tmp_path / "cleaned").iterdir()} == {
        "images", "others", "cleaned.csv", "cleaned.csv.lock", "inspected.jsonl", "known_files.csv",
        "pairs.csv", "near_duplicates.sqlite"}
    others = {path.stem for path in (tmp_path / "cleaned/others").rglob("*.jpg")}
    assert others | {path.stem for path in written} == {
        row["sha256"][:16] for row in rows.values() if row["reason"].split(":")[0] not in (
            "not a picture", "broken", "empty file")}


@pytest.mark.parametrize("limit, names", [("2", NAMES[:2]), ("0", NAMES)])
def test_limit_classes_cleans_the_first_classes_only(tmp_path, limit, names):
    make_collected(tmp_path / "collected", count=1)
    assert {row["class"] for row in clean(tmp_path, "--limit_classes",
                                          limit).values()} == set(names)


def test_no_metadata_of_a_collected_file_gets_into_the_dataset(tmp_path):
    """They may hold names, addresses and places: comments, EXIF, XMP and texts of all formats."""
    images = make_collected(tmp_path / "collected", count=6) / "images"
    note, exif, texts = "home of Ivan Petrov", Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x010E] = note  # ImageDescription
    texts.add_text("Author", note)
    texts.add_itxt("Comment", note)
    xmp = f"<x:xmpmeta>{note}</x:xmpmeta>".encode()
    for seed, (ending, options) in enumerate({
            "jpg": {"comment": note.encode(), "exif": exif, "xmp": xmp},
            "png": {"pnginfo": texts, "exif": exif}, "gif": {"comment": note.encode()},
            "webp": {"exif": exif, "xmp": xmp}, "tif": {"description": note}}.items()):
        path = images / NAMES[0] / f"note.{ending}"
        draw(50 + seed).save(path, **options)
        assert note.encode() in path.read_bytes()
    rows = clean(tmp_path, "--converted_modes", "('P',)")
    assert {row["status"] for row in rows.values()} == {"kept"}
    label(tmp_path)
    written = [*(tmp_path / "cleaned").rglob("*.jpg"), *(tmp_path / "dataset").rglob("*.jpg")]
    assert len(written) == 2 * len(rows)
    assert not [path for path in written if b"Petrov" in path.read_bytes()]


def test_huge_files_are_not_read(tmp_path):
    images = make_collected(tmp_path / "collected", count=1) / "images"
    with open(images / NAMES[0] / "film.jpg", "wb") as file:
        file.truncate(10**9)  # a hole: takes no room on the disk
    assert clean(tmp_path)[f"{NAMES[0]}/film.jpg"]["reason"] == "too large: 1000 MB"


def test_converted_modes_are_accepted_and_become_rgb(tmp_path):
    images = make_collected(tmp_path / "collected", count=1) / "images"
    (images / NAMES[0] / "alpha.png").write_bytes(png(draw(11).convert("RGBA")))
    (images / NAMES[0] / "grey.jpg").write_bytes(jpeg(draw(12).convert("L")))
    rows = clean(tmp_path, "--converted_modes", "('RGBA', 'L')")
    assert {row["status"] for row in rows.values()} == {"kept"}


def test_the_same_table_in_any_order_on_any_number_of_processes(tmp_path, monkeypatch):
    images = make_collected(tmp_path / "collected", count=4) / "images"
    (images / NAMES[0] / "again.jpg").write_bytes((images / NAMES[0] / "002.jpg").read_bytes())
    # A near-duplicate of 000.jpg of that class.
    (images / NAMES[1] / "better.jpg").write_bytes(jpeg(draw(1000, (600, 560))))
    # A near-duplicate from the third class.
    (images / NAMES[1] / "stolen.jpg").write_bytes(jpeg(draw(2001), quality=70))
    rows = clean(tmp_path)
    assert {row["status"] for row in rows.values()} == {"kept", "duplicate", "review"}
    first, listed = without_times(snapshot(tmp_path / "cleaned")), []
    scandir, rglob = os.scandir, Path.rglob
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(
        (Path(entry.path) for entry in scandir(folder)), reverse=True)))
    monkeypatch.setattr(Path, "rglob", lambda folder, pattern: (
        listed.append(folder) or iter(sorted(rglob(folder, pattern), reverse=True))))
    for processes in ("1", "3"):
        shutil.rmtree(tmp_path / "cleaned")  # a second run would read nothing
        clean(tmp_path, "--processes", processes)
        assert without_times(snapshot(tmp_path / "cleaned")) == first
    assert images / NAMES[0] in listed


def test_what_is_no_longer_wanted_is_set_aside_not_deleted(tmp_path):
    images = make_collected(tmp_path / "collected", count=3) / "images"
    clean(tmp_path)
    before = snapshot(tmp_path / "cleaned/images")
    (images / NAMES[0] / "000.jpg").unlink()
    clean(tmp_path)
    after = snapshot(tmp_path / "cleaned/images")
    assert len(after) == len(before) - 1
    assert {**after, **snapshot(tmp_path / "cleaned/set_aside/images")} == before


@pytest.mark.parametrize("arguments, status, name", [
    (["--hash_distance", "65"], 2, "--hash_distance"),
    (["--output_side", "300"], 1, "--output_side"), (["--collected_dir", "/nowhere"], 1, "nowhere"),
    (["--borderline_distance", "2"], 1, "--borderline_distance")])
def test_bad_settings_and_folders_stop_with_a_message(tmp_path, arguments, status, name):
    make_collected(tmp_path / "collected", count=1)
    table = write_classes(tmp_path / "classes.csv", NAMES)
    done = run_script(CLEANING, "--collected_dir", tmp_path / "collected", "--cleaned_dir",
                      tmp_path / "cleaned", "--class_table", table, *arguments, status=status)
    assert "error: " in done.stderr
    assert name in done.stderr.splitlines()[-1]
    assert not (tmp_path / "cleaned/cleaned.csv").exists()


def test_reading_and_writing_one_folder_is_refused(tmp_path):
    make_collected(tmp_path / "collected", count=1)
    before = snapshot(tmp_path / "collected")
    with pytest.raises(InputError, match="overlap"):
        clean(tmp_path, "--cleaned_dir", str(tmp_path / "collected"))
    assert snapshot(tmp_path / "collected") == before


def test_cleaning_ends_well_when_every_photograph_is_rejected(tmp_path):
    images = make_collected(tmp_path / "collected", names=NAMES[:1], count=0) / "images"
    (images / NAMES[0] / "small.jpg").write_bytes(jpeg(draw(1, (100, 90))))
    (images / NAMES[0] / "strip.png").write_bytes(png(draw(2, (256, 70_000))))
    assert {file.split("/")[1]: row["reason"] for file, row in clean(tmp_path).items()} == {
        "small.jpg": "too small: 90 px", "strip.png": "too long: 256 x 70000"}


def test_a_file_name_that_is_not_unicode_is_reported(tmp_path):
    images = make_collected(tmp_path / "collected", count=1) / "images"
    try:
        (images / NAMES[0] / "000.jpg").rename(
            images / NAMES[0] / os.fsdecode(b"\xd0\xee\xe7\xe0.jpg"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(InputError, match="rename it"):
        clean(tmp_path)


def test_an_empty_collected_folder_is_reported(tmp_path):
    (tmp_path / "collected/images").mkdir(parents=True)
    with pytest.raises(InputError, match="contains no photographs"):
        clean(tmp_path)


def test_class_folders_one_level_too_high_are_reported_with_their_place(tmp_path):
    images = make_collected(tmp_path / "collected", count=1) / "images"
    for folder in list(images.iterdir()):
        folder.rename(images.parent / folder.name)
    images.rmdir()
    with pytest.raises(InputError, match="one level too high"):
        clean(tmp_path)


def test_a_misspelled_folder_and_an_archive_are_named(tmp_path, capsys):
    images = make_collected(tmp_path / "collected", count=1) / "images"
    (images / NAMES[0]).rename(images / f"{NAMES[0]}s")
    (images / NAMES[1] / "Photos.ZIP").write_bytes(b"PK")
    clean(tmp_path)
    said = capsys.readouterr().err
    assert f"is it {NAMES[0]}?" in said
    assert "Photos.ZIP is an archive: unpack it into" in said


def test_links_and_files_beside_the_folders_are_named(tmp_path, capsys):
    images = make_collected(tmp_path / "collected", count=2) / "images"
    (images / NAMES[0]).rename(tmp_path / "elsewhere")
    (images / NAMES[0]).mkdir()
    (images / NAMES[0] / "mine").symlink_to(tmp_path / "elsewhere")
    (images / NAMES[1] / "gone.jpg").symlink_to(tmp_path / "unmounted.jpg")
    shutil.copyfile(images / NAMES[1] / "000.jpg", images / "loose.jpg")
    (images / ".DS_Store").touch()
    assert len(clean(tmp_path)) == 4
    said = capsys.readouterr().err
    assert f"1 files in no folder of a class are left out, such as {images / 'loose.jpg'}" in said
    for link in (f"{NAMES[0]}/mine", f"{NAMES[1]}/gone.jpg"):
        assert f"not followed, are left out, such as {images / link}" in said


def kill_on_bad(number):
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


def test_a_crashing_decoder_loses_only_its_own_file():
    jobs = [(number,) for number in range(40)]
    results = list(cu.map_files(kill_on_bad, jobs, 2, "crashed"))
    assert results == [((number,), number * 2 if number != 13 else "crashed")
                       for number in range(40)]


def kill_once(number, mark):
    if number == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return os.getpid()


def test_a_killed_worker_loses_no_file_and_little_time(tmp_path):
    jobs = [(number, tmp_path / "mark") for number in range(60)]
    pids = [pid for _, pid in cu.map_files(kill_once, jobs, 2, "crashed")]
    assert "crashed" not in pids
    assert len(set(pids[-32:])) == 2  # those behind are done by both processes again


def wait(number):
    time.sleep(0.05)
    return number


def test_what_waits_for_a_worker_is_not_done_after_an_interruption():
    results = cu.map_files(wait, [(number,) for number in range(600)], 1, "crashed")
    next(results)
    stopped = time.monotonic()
    results.close()
    assert time.monotonic() - stopped < 15  # all of them take 30 s


def test_ctrl_c_while_the_workers_start_ends_the_run_in_order(monkeypatch):
    start = threading.Thread.start

    def interrupted(thread):
        if type(thread).__name__ == "_ExecutorManagerThread":
            signal.raise_signal(signal.SIGINT)
        start(thread)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(cu.map_files(wait, [(1,)], 1, "crashed"))
