"""Cleaning: what is rejected, what counts as a copy, and that nothing of the user's changes."""
import io
import os
import signal

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dataset_preparation.cleaning import cleaning_utils as cu
from dataset_preparation.cleaning.cleaning import main
from tests.conftest import NAMES, draw, jpeg, make_collected, run_script, shared, snapshot, write_classes
from utils import InputError, read_table

SCRIPT = "dataset_preparation/cleaning/cleaning.py"


def clean(folder, *more):
    """Run cleaning in this process on `folder`/collected; return {file: row} of cleaned.csv."""
    main(["--collected_dir", str(folder / "collected"), "--cleaned_dir", str(folder / "cleaned"), "--class_table",
          str(write_classes(folder / "classes.csv", NAMES)), "--processes", "2", *more])
    return {row["file"]: row for row in read_table(folder / "cleaned/cleaned.csv")}


def png(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def test_the_fate_of_every_kind_of_file(tmp_path):
    images = make_collected(tmp_path / "collected", count=3) / "images"
    picture, exif = draw(99, (640, 480)), Image.Exif()
    exif[0x0112] = 6
    files = {
        "good.jpg": jpeg(picture), "same_bytes.jpg": jpeg(picture), "smaller.jpg": jpeg(picture.resize((400, 300))),
        "mirrored.jpg": jpeg(ImageOps.mirror(picture), quality=80),
        "bright.jpg": jpeg(ImageEnhance.Brightness(picture).enhance(1.2), quality=60),
        "turned.jpg": jpeg(picture.rotate(90, expand=True), exif=exif, quality=60),
        "cropped.jpg": jpeg(picture.crop((32, 24, 608, 456))), "short.jpg": jpeg(draw(7, (255, 600))),
        "tall.jpg": jpeg(draw(8, (256, 700))), "grey.jpg": jpeg(draw(9).convert("L")), "page.jpg": b"<html>no</html>",
        "cut.jpg": jpeg(draw(10))[:-2000], "empty.jpg": b"", "alpha.png": png(draw(11).convert("RGBA"))}
    for name, data in files.items():
        (images / NAMES[0] / name).write_bytes(data)
    (images / NAMES[1] / "stolen.jpg").write_bytes(jpeg(draw(1000 * 2 + 1), quality=70))  # is in the third class, too
    before = snapshot(tmp_path / "collected")

    rows = clean(tmp_path)
    fate = {file.split("/")[1]: (row["status"], row["reason"]) for file, row in rows.items()
            if file.startswith(NAMES[0])}
    assert {name for name in fate if fate[name][0] == "kept"} == {
        "000.jpg", "001.jpg", "002.jpg", "good.jpg", "tall.jpg"}
    for name in ("same_bytes.jpg", "smaller.jpg", "mirrored.jpg", "bright.jpg", "turned.jpg", "cropped.jpg"):
        assert fate[name][0] == "copy", name
        assert rows[f"{NAMES[0]}/{name}"]["keeper"] == f"{NAMES[0]}/good.jpg"
        assert int(rows[f"{NAMES[0]}/{name}"]["distance"]) <= 8
    assert {name: reason.split(":")[0] for name, (status, reason) in fate.items() if status == "rejected"} == {
        "short.jpg": "too small", "grey.jpg": "mode", "page.jpg": "not a picture", "cut.jpg": "broken",
        "empty.jpg": "empty file", "alpha.png": "mode"}
    assert rows[f"{NAMES[0]}/turned.jpg"]["width"] == "640"
    conflict = [row for row in rows.values() if row["status"] == "review"]
    assert {row["file"] for row in conflict} == {f"{NAMES[1]}/stolen.jpg", f"{NAMES[2]}/001.jpg"}
    assert all("Rosa secunda, Rosa tertia" in row["reason"] for row in conflict)
    assert snapshot(tmp_path / "collected") == before

    written = sorted((tmp_path / "cleaned/images").rglob("*.jpg"))
    assert len(written) == sum(row["status"] == "kept" for row in rows.values())
    assert all(min(Image.open(path).size) == 256 for path in written)
    assert {path.stem for path in written} == {row["sha256"][:16] for row in rows.values() if row["status"] == "kept"}
    assert {path.name for path in (tmp_path / "cleaned").iterdir()} == {"images", "cleaned.csv"}


def test_huge_files_are_not_read(tmp_path):
    images = make_collected(tmp_path / "collected", count=1) / "images"
    with open(images / NAMES[0] / "film.jpg", "wb") as file:
        file.truncate(10**9)  # a hole: takes no room on the disk
    assert clean(tmp_path)[f"{NAMES[0]}/film.jpg"]["reason"] == "too large: 1000 MB"


def test_modes_are_converted_when_asked(tmp_path):
    images = make_collected(tmp_path / "collected", count=1) / "images"
    (images / NAMES[0] / "alpha.png").write_bytes(png(draw(11).convert("RGBA")))
    (images / NAMES[0] / "grey.jpg").write_bytes(jpeg(draw(12).convert("L")))
    rows = clean(tmp_path, "--converted_modes", "('RGBA', 'L')")
    assert {row["status"] for row in rows.values()} == {"kept"}


def test_the_same_table_in_any_order_on_any_number_of_processes(tmp_path, monkeypatch):
    make_collected(tmp_path / "collected", count=4)
    clean(tmp_path)
    first = snapshot(tmp_path / "cleaned")
    clean(tmp_path, "--processes", "1")
    assert snapshot(tmp_path / "cleaned") == first
    assert not (tmp_path / "cleaned/set_aside").exists()


def test_what_is_no_longer_wanted_is_set_aside_not_deleted(tmp_path):
    images = make_collected(tmp_path / "collected", count=3) / "images"
    clean(tmp_path)
    before = snapshot(tmp_path / "cleaned/images")
    (images / NAMES[0] / "000.jpg").unlink()
    clean(tmp_path)
    after = snapshot(tmp_path / "cleaned/images")
    assert len(after) == len(before) - 1
    assert {**after, **snapshot(tmp_path / "cleaned/set_aside/images")} == before


@pytest.mark.parametrize("arguments, said", [
    (["--hash", "md5"], "unknown hash"), (["--output_side", "300"], "never enlarged"),
    (["--collected_dir", "/nowhere"], "does not exist")])
def test_bad_settings_and_folders_stop_with_a_message(tmp_path, arguments, said):
    make_collected(tmp_path / "collected", count=1)
    table = write_classes(tmp_path / "classes.csv", NAMES)
    done = run_script(SCRIPT, "--collected_dir", tmp_path / "collected", "--cleaned_dir", tmp_path / "cleaned",
                      "--class_table", table, *arguments, status=1)
    assert done.stderr.startswith("error: ") and said in done.stderr
    assert not (tmp_path / "cleaned/cleaned.csv").exists()


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "collected/images").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no photographs"):
        clean(tmp_path)


# ---- hashes and groups ----

def test_hashes_are_imagehash_s():
    image = draw(20)
    for name, function in cu.HASHES.items():
        assert f"{cu.view_hashes(image, name)[0]:016x}" == str(function(image)), name
    assert cu.view_hashes(image, "phash")[1] == int(str(imagehash.phash(ImageOps.mirror(image))), 16)


def test_all_pairs_equal_the_naive_search():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (300, cu.NUM_VIEWS), dtype=np.uint64)
    for i, j, flips in ((3, 250, 8), (10, 11, 5), (40, 299, 9), (7, 200, 6)):
        hashes[j, 0] = hashes[i, 0 if flips != 6 else 4]
        for bit in range(flips):
            hashes[j, 0] ^= np.uint64(1 << (7 * bit))
    naive = {}
    for i in range(300):
        for j in range(i + 1, 300):
            whole = (int(hashes[i, 0]) ^ int(hashes[j, 0])).bit_count()
            views = min(min((int(hashes[i, 0]) ^ int(hashes[j, v])).bit_count(),
                            (int(hashes[j, 0]) ^ int(hashes[i, v])).bit_count()) for v in range(1, cu.NUM_VIEWS))
            bits = [bits for bits, limit in ((whole, 8), (views, 6)) if bits <= limit]
            if bits:
                naive[i, j] = min(bits)
    assert cu.near_pairs(hashes, 8, 6, block=7) == naive
    assert {(3, 250), (10, 11), (7, 200)} == set(naive)
    assert cu.near_pairs(hashes, -1, -1) == {}


def test_groups_have_the_best_member_and_respect_classes():
    def photograph(file, name, value, width=300, size=1000):
        return {"file": file, "class": name, "sha256": file, "width": width, "height": 300, "bytes": size,
                "hashes": [value] * cu.NUM_VIEWS}
    photographs = [photograph("a", "X", 0), photograph("b", "X", 0b1111111, width=400), photograph("c", "Y", 0b1111111),
                   photograph("d", "Z", 0xFFFFFFFF << 20), photograph("e", "X", 2**40 - 1)]
    assert cu.group_photographs(photographs, 8, 5) == [1, 1, 1, 3, 4]  # b has most pixels; a and b are 7 bits apart
    assert cu.group_photographs(photographs, 6, 5) == [0, 1, 1, 3, 4]  # b and c are equal although of two classes


def kill_on_bad(number):
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


def test_a_decoder_that_kills_its_process_costs_one_file():
    jobs = [(number,) for number in range(40)]
    results = list(cu.map_files(kill_on_bad, jobs, 2, "crashed"))
    assert results == [((number,), number * 2 if number != 13 else "crashed") for number in range(40)]


# ---- real files ----

@pytest.mark.photos
def test_near_duplicates_of_one_object(tmp_path):
    """Resized and mirrored copies are found; the rotated one, the broken one and other objects are not merged."""
    for path in shared("photos/near_duplicates").rglob("*.jpg"):
        target = tmp_path / f"collected/images/{NAMES[0]}/{path.parent.name}_{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    rows = clean(tmp_path)
    groups = {}
    for row in rows.values():
        groups.setdefault(row["group"], set()).add(row["file"].split("/")[1])
    broken = groups.pop("")
    assert broken == {"mixed_images_ukbench09268_corrupt.jpg"}
    together = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    assert together == [
        ["base_images_ukbench00120.jpg", "mixed_images_ukbench00120.jpg", "mixed_images_ukbench00120_hflip.jpg",
         "mixed_images_ukbench00120_resize.jpg"],
        ["base_images_ukbench09268.jpg", "mixed_images_ukbench09268.jpg"]]
