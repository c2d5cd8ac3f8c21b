"""utils.py and images.py: classes, errors, images, files, locks, groups."""
import csv
import errno
import io
import os
import subprocess
import sys

import numpy as np
import pandas
import pytest
from PIL import Image

import config
import images
import names
import utils
from dataset_preparation.progress_journal import Journal
from tests.conftest import ROOT, draw, jpeg, shared, write_classes

# ---- classes ----

def test_class_table_of_the_project():
    classes = utils.read_classes(config.CLASS_TABLE)
    assert [row.label for row in classes] == list(range(50))
    assert (classes[0].latin, classes[49].latin) == ("Adenophora liliifolia", "Typha")
    assert "Asplenium scolopendrium" in classes[33].also
    assert classes[44].russian == "тис ягодный"
    assert names.slug(classes[31].latin) == "opuntia_ficus-indica"
    assert len(utils.read_classes(config.CLASS_TABLE, limit=5)) == 5


def test_folders_are_recognised_by_the_names_of_a_class():
    classes = utils.read_classes(config.CLASS_TABLE)
    for name in ("Taxus baccata", "Taxus baccat", "taxus_baccata"):
        assert names.class_of_folder(name, classes).label == 44
    assert names.class_of_folder("Taxus", classes) is None


@pytest.mark.parametrize("body, fact", [
    ("1,Rosa,,,", "line 2: .*0 was expected"), ("0,Rosa,,,\n1,rosa,,,", "line 3: .*twice"),
    ("0,../Rosa,,,", "folder name"), ("", "no class"), ("0, ,роза,,", "line 2: .* name is empty"),
    ("0,Rosa,,dog rose, wild,", "line 2: more cells")])
def test_bad_class_tables_are_refused_with_the_line(tmp_path, body, fact):
    table = tmp_path / "classes.csv"
    table.write_text("label,latin,russian,english,also\n" + body)
    with pytest.raises(utils.InputError, match=fact):
        utils.read_classes(table)
    table.write_text("latin,english\nRosa,rose\n")
    with pytest.raises(utils.InputError, match="no column 'label'.* lists latin, english"):
        utils.read_classes(table)


@pytest.mark.parametrize("data, fact", [
    (b"PK\x03\x04workbook", "Excel workbook"), (b"", "lists nothing"),
    ("label,latin,russian\n0,Rosa,роза\n".encode("cp1251"), "not in UTF-8"),
    ("label,latin\n0,Rosa\n".encode("utf-16"), "not in UTF-8")])
def test_a_table_in_another_form_is_refused_with_its_form(tmp_path, data, fact):
    (tmp_path / "classes.csv").write_bytes(data)
    with pytest.raises(utils.InputError, match=fact):
        utils.read_classes(tmp_path / "classes.csv")


def test_column_names_may_have_capitals_and_spaces_and_labels_a_decimal(tmp_path):
    (tmp_path / "classes.csv").write_text("Label, Latin ,RUSSIAN\n0.0,Rosa canina,роза\n", "utf-8")
    plant, = utils.read_classes(tmp_path / "classes.csv")
    assert plant[:3] == (0, "Rosa canina", "роза")


def test_a_class_table_of_labels_and_latin_names_is_enough(tmp_path):
    (tmp_path / "classes.csv").write_text("label;latin\n0;Rosa canina\n")
    plant, = utils.read_classes(tmp_path / "classes.csv")
    assert plant == utils.PlantClass(0, "Rosa canina", "", "", (), "Rosa")


def test_class_table_with_a_byte_order_mark(tmp_path):
    table = write_classes(tmp_path / "classes.csv", ["Rosa"])
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert utils.read_classes(table)[0].latin == "Rosa"


def test_a_table_that_excel_saved_with_semicolons_reads_as_one_with_commas(tmp_path):
    commas, semicolons = tmp_path / "commas.csv", tmp_path / "semicolons.csv"
    commas.write_text('label,latin,russian,english,also\n0,Rosa,"роза, дикая",,Rosa a;Rosa b\n',
                      "utf-8")
    semicolons.write_text('label;latin;russian;english;also\r\n'
                          '0;Rosa;роза, дикая;;"Rosa a;Rosa b"\r\n', "utf-8-sig")
    assert utils.read_classes(semicolons) == utils.read_classes(commas)
    assert utils.read_classes(commas)[0].also == ("Rosa a", "Rosa b")


def test_a_folder_instead_of_a_table_is_refused(tmp_path):
    with pytest.raises(utils.InputError, match="is a folder"):
        utils.read_classes(tmp_path)


@pytest.mark.parametrize("error, status, fact", [
    (PermissionError(errno.EACCES, "Permission denied", "/x/y.csv.tmp"), 1,
     "error: /x/y.csv: Permission denied; "),
    (OSError(errno.EROFS, "Read-only file system", "/x/y"), 1,
     "error: /x/y: Read-only file system; "),
    (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device; "),
    (OSError("no errno"), 1, "error: no errno"),
    (utils.InputError("what, where"), 1, "error: what, where"),
    (KeyboardInterrupt(), 130, "Run the same command again to resume"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "'torch' is not installed")])
def test_a_script_ends_with_one_sentence_of_what_where_and_what_to_do(error, status, fact, capsys):
    def main():
        raise error
    with pytest.raises(SystemExit) as stopped:
        utils.run(main)
    message = capsys.readouterr().err
    assert stopped.value.code == status
    assert fact in message
    assert message.count("\n") == 1


# ---- images ----

@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_one_process_per_core_that_is_given_to_us():
    code = ("import os, utils; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
            "print(utils.process_count(0), utils.process_count(7), utils.process_count(99, 61))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout.split() == ["1", "7", "61"]


@pytest.mark.parametrize("text, cores", [("100000 100000\n", 1), ("20000 100000\n", 1),
                                         ("99900000 100000\n", None), ("max 100000\n", None)])
def test_no_more_cores_than_the_quota_of_the_container(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    everything = utils.process_count(0, cpu_max=tmp_path / "none")
    assert utils.process_count(0, cpu_max=tmp_path / "cpu.max") == (cores or everything)


def test_eight_orientations_show_the_same_image():
    files = sorted(shared("photos/exif_orientation").glob("*.jpg"))
    assert len(files) == 8
    opened = [images.open_image(path, 80) for path in files]
    views = [images.evaluation_view(image, images.View(64)).astype(float) for image, _ in opened]
    assert opened[5][1] == opened[0][1] == (1800, 1200)
    for view in views[1:]:
        assert np.abs(view - views[0]).mean() < 4


def test_orientation_is_applied_without_real_photographs():
    picture, exif = draw(1, (90, 60)), Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees to display
    image, size = images.open_image(jpeg(picture.rotate(90, expand=True), exif=exif), 80)
    assert size == image.size == (90, 60)
    assert np.abs(np.asarray(image, float) - np.asarray(picture, float)).mean() < 4


def test_the_full_size_is_returned_with_a_draft():
    image, size = images.open_image(jpeg(draw(2, (1600, 1200))), 80, draft_side=300)
    assert size == (1600, 1200)
    assert image.size == (400, 300)


@pytest.mark.parametrize("data, fact", [
    (b"", "empty file"), (b"<html></html>", "not a picture"), (jpeg(draw(3))[:-900], "broken"),
    (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "broken|not a picture")])
def test_broken_and_empty_images_and_other_files_are_refused(data, fact):
    with pytest.raises(images.BadImage, match=fact):
        images.open_image(data, 80)


def test_large_and_animated_images_are_refused():
    with pytest.raises(images.BadImage, match="too large: 300 x 280"):
        images.open_image(jpeg(draw(4)), 0.05)
    data = io.BytesIO()
    frames = [draw(seed) for seed in range(3)]
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(images.BadImage, match="2 frames or more"):
        images.open_image(data.getvalue(), 80)


def test_the_only_limit_of_pixels_is_the_argument():
    header = b"P4\n16320 12240\n"  # of a bitmap as large as those of 200-megapixel phones
    with pytest.raises(images.BadImage, match="too large: 16320 x 12240"):
        images.open_image(header, 80)
    with pytest.raises(images.BadImage, match="broken"):  # the pixels themselves are missing
        images.open_image(header, 250)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "YCbCr"])
def test_every_common_mode_becomes_rgb(mode):
    grey = draw(5).convert("L")
    sixteen_bits = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    image = sixteen_bits if mode == "I;16" else grey.convert(mode)
    rgb = images.to_rgb(image)
    assert rgb.mode == "RGB"
    assert np.abs(np.asarray(rgb, float).mean() - np.asarray(grey, float).mean()) < 3


def test_transparent_parts_become_white():
    image = images.to_rgb(Image.new("RGBA", (4, 4), (200, 0, 0, 0)))
    assert image.getpixel((1, 1)) == (255, 255, 255)


def test_shorter_side_is_exact_for_every_size():
    sizes = [(256, n) for n in range(256, 3000, 7)] + [(n, 300) for n in range(256, 1200)]
    for width, height in sizes:
        image = images.resize_shorter_side(Image.new("L", (width, height)), 256)
        assert min(image.size) == 256
        assert abs(image.width / image.height - width / height) < 0.01 * width / height


def test_the_evaluation_view_is_the_centre_of_the_image():
    image = draw(6, (500, 256))
    view = images.evaluation_view(image, images.View(224))
    assert view.shape == (224, 224, 3)
    assert np.array_equal(view, np.asarray(image)[16:240, 138:362])


# ---- files ----

@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_a_full_disk_is_named_by_the_file_that_did_not_fit(tmp_path):
    with (pytest.raises(OSError) as raised, utils.atomic_path(tmp_path / "a.bin"),
          open("/dev/full", "wb", buffering=0) as stream):
        stream.write(b"1")
    assert f"{tmp_path / 'a.bin'}: No space left" in utils.describe_error(raised.value)


def test_a_failed_write_leaves_nothing_under_the_final_name(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), utils.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_tables_are_read_back_as_they_were_written(tmp_path):
    rows = [{"a": 'x, "y"', "b": "две\nстроки"}, {"a": "1", "b": ""},
            {"a": "old\rMac", "b": "end\r"}, {"a": "2", "b": "Windows\r\n"}]
    utils.write_table(tmp_path / "t.csv", ("a", "b"), rows)
    assert utils.read_table(tmp_path / "t.csv", ("a",)) == rows
    assert list(pandas.read_csv(tmp_path / "t.csv", keep_default_na=False)["b"]) == [
        names.escape_cell(row["b"]) for row in rows]
    assert (tmp_path / "t.csv").read_bytes().endswith(b'2,"Windows\r\n"\n')
    with pytest.raises(utils.InputError, match="no column 'c'"):
        utils.read_table(tmp_path / "t.csv", ("c",))


def test_setting_aside_never_overwrites_a_file(tmp_path):
    for text in ("one", "two"):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train/a.jpg").write_text(text)
        utils.set_aside(tmp_path / "train/a.jpg", tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "set_aside/train").iterdir()} == {
        "a.jpg": "one", "a_1.jpg": "two"}


HOLD_LOCK = """import sys, time
from utils import FileLock
with FileLock(sys.argv[1], "holds it"):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold_lock(path, seconds):
    """Start a process that locks a file for some seconds; return it and its first line."""
    process = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, path, str(seconds)], cwd=ROOT,
                               stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline()


def test_a_process_reports_that_it_waits_for_a_lock_and_a_killed_one_releases_it(tmp_path):
    first, line = hold_lock(tmp_path / "lock", 60)
    assert line == "locked\n"
    second, line = hold_lock(tmp_path / "lock", 0)
    assert line == "waiting for another process that holds it\n"
    assert second.poll() is None
    first.kill()
    assert second.communicate() == ("locked\n", None)
    first.communicate()


def test_a_journal_resumes_after_a_torn_line(tmp_path):
    journal = Journal(tmp_path / "j", {"what": 1})
    journal.append({"n": 1})
    journal.append({"n": 2})
    journal.file.close()
    with open(tmp_path / "j", "ab") as file:
        file.write(b'{"n": 3')
    journal = Journal(tmp_path / "j", {"what": 1})
    assert journal.entries == [{"n": 1}, {"n": 2}]
    journal.append({"n": 4})
    journal.file.close()
    assert Journal(tmp_path / "j", {"what": 1}).entries == [{"n": 1}, {"n": 2}, {"n": 4}]
    other = Journal(tmp_path / "j", {"what": 2})
    assert other.entries == []
    other.finish()
    assert not (tmp_path / "j").exists()


@pytest.mark.parametrize("line, left", [(1, []), (2, [{"n": 2}])])
def test_a_damaged_line_of_a_journal_is_named(tmp_path, line, left):
    journal = Journal(tmp_path / "j", {"what": 1})
    for number in (1, 2):
        journal.append({"n": number})
    journal.file.close()
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    lines[line - 1] = b'{"n\xff\0\n'
    (tmp_path / "j").write_bytes(b"".join(lines))
    with pytest.raises(utils.InputError, match=f"line {line} is damaged; delete that line"):
        Journal(tmp_path / "j", {"what": 1})
    assert (tmp_path / "j").read_bytes() == b"".join(lines)
    (tmp_path / "j").write_bytes(b"".join(lines[:line - 1] + lines[line:]))
    assert Journal(tmp_path / "j", {"what": 1}).entries == left


# ---- groups ----

def test_pick_groups_fills_the_quota_and_keeps_its_order():
    sizes = {f"g{i}": 1 + i % 3 for i in range(40)}
    picked = utils.pick_groups(sizes, 20, seed=1)
    assert sum(sizes[group] for group in picked) == 20
    assert picked == utils.pick_groups(dict(reversed(sizes.items())), 20, seed=1)
    assert picked != utils.pick_groups(sizes, 20, seed=2)


HARMLESS = ("", "plain", "-12.5", "+3", "1e-5", "'quoted'", "a=b")
FORMULAS = ("=1+1", "=HYPERLINK(\"http://x\")", "+1 234", "-", "@SUM(A1)", "-2+3", "'=1", "''@x",
            "\t=1")


def test_no_text_of_a_table_is_a_formula_and_it_is_read_back_as_it_was(tmp_path):
    rows = [{"text": text, "number": -1.5} for text in (*HARMLESS, *FORMULAS)]
    utils.write_table(tmp_path / "t.csv", ("text", "number"), rows)
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        stored = [row["text"] for row in csv.DictReader(file)]
    assert stored == [*HARMLESS, *(f"'{text}" for text in FORMULAS)]
    assert [row["text"] for row in utils.read_table(tmp_path / "t.csv")] == [
        *HARMLESS, *FORMULAS]
    assert utils.read_table(tmp_path / "t.csv")[0]["number"] == "-1.5"


def test_lines_of_separators_alone_are_no_rows(tmp_path):
    (tmp_path / "t.csv").write_bytes("\ufefflabel;latin;russian;english;also\r\n"
                                     "0;Rosa;роза;;\r\n;;;;\r\n;;;;\r\n".encode())
    assert [plant.latin for plant in utils.read_classes(tmp_path / "t.csv")] == ["Rosa"]


@pytest.mark.skipif(sys.platform != "linux", reason="as locales are")
def test_a_name_that_a_locale_cannot_write_is_a_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c",
         "import utils; utils.run(lambda: open('\\u0451', 'w'))"], cwd=ROOT,
        env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert "LC_ALL=C.UTF-8" in done.stderr and len(done.stderr.splitlines()) == 1
