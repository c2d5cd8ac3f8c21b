"""Series of photographs, cleaned and labelled: none is split, and `joined_by` says why."""
import pytest
from PIL import Image

from dataset import read_labels, split_validation
from dataset_preparation.labeling.split import require_enough_groups
from image_metadata import read_capture
from tests.conftest import NAMES, draw, jpeg, write_classes
from tests.preparing import clean, label
from utils import InputError, read_classes, write_table

SERIES, FRAMES = 5, 6


def exif(series, frame, tag=0x0132):
    """Return EXIF of a camera and a time: series are an hour apart, frames 3 seconds."""
    data = Image.Exif()
    data[0x010F], data[0x0110] = "Maker", "Model 1"
    target = data if tag == 0x0132 else data.get_ifd(0x8769)
    target[tag] = f"2024:05:01 {8 + series:02}:00:{3 * frame:02}"
    return data


WAYS = {  # file name and EXIF of a frame
    "camera and time": lambda series, frame: (f"{series}{frame}x{frame}{series}y.jpg",
                                              exif(series, frame)),
    "subfolder": lambda series, frame: (f"plant {series}/{frame}x{series}.jpg", None),
    "numbered series": lambda series, frame: (f"IMG_{series:03}{frame}.jpg", None)}


def write_series(folder, way):
    """Write series of different pictures of each class, which no hash connects."""
    write_classes(folder / "classes.csv", NAMES)
    for number, latin in enumerate(NAMES):
        for series in range(SERIES):
            for frame in range(FRAMES):
                name, data = WAYS[way](series, frame)
                path = folder / "collected/images" / latin / name
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = draw(1000 * number + 10 * series + frame)
                path.write_bytes(jpeg(picture, **({"exif": data} if data else {})))


@pytest.mark.parametrize("way", WAYS)
def test_no_series_is_split(tmp_path, way):
    write_series(tmp_path, way)
    cleaned = clean(tmp_path)
    rows = label(tmp_path, "--test_per_class", "6")
    number = {row["sha256"]: (row["class"], int(file.split("/")[-1].strip("IMG_")[:3 if way ==
              "numbered series" else 1]) if way != "subfolder" else file.split("/")[1])
              for file, row in cleaned.items()}
    sides = {}
    for path, row in rows.items():
        sides.setdefault(number[row["sha256"]], set()).add(path.split("/")[0])
        assert row["joined_by"] == way
    assert len(rows) == len(NAMES) * SERIES * FRAMES
    assert len(sides) == len(NAMES) * SERIES
    assert all(len(both) == 1 for both in sides.values())
    assert sum(path.startswith("test/") for path in rows) == 6 * len(NAMES)
    report = (tmp_path / "dataset/split_report.txt").read_text()
    assert f"  {way}: 15 groups, 90 photographs\n" in report
    assert f"90 have {way}" in report


def test_camera_and_time_are_in_the_table_of_cleaning(tmp_path):
    write_series(tmp_path, "camera and time")
    row = clean(tmp_path)["Rosa prima/12x21y.jpg"]
    assert (row["camera"], row["taken"]) == ("Maker Model 1", "2024-05-01T09:00:06")


@pytest.mark.parametrize("tag, camera, expected", [
    (0x9003, True, True), (0x0132, True, True), (0x9003, False, True), (0x0132, False, False)])
def test_a_time_of_change_counts_only_where_a_camera_is_named(tmp_path, tag, camera, expected):
    write_classes(tmp_path / "classes.csv", NAMES)
    folder = tmp_path / "collected/images" / NAMES[0]
    folder.mkdir(parents=True)
    data = exif(0, 0, tag)
    if not camera:
        del data[0x010F], data[0x0110]
    (folder / "a.jpg").write_bytes(jpeg(draw(1), exif=data))
    (row,) = clean(tmp_path).values()
    assert bool(row["taken"]) == expected


@pytest.mark.parametrize("time", ["2024:05:01 10:15:12", "2024-05-01T10:15:12+03:00",
                                  "2024/05/01 10:15:12.25", " 2024:05:01  10:15:12\0"])
def test_a_time_is_read_in_the_forms_that_programs_write(time):
    image = Image.new("RGB", (8, 8))
    image.getexif()[0x010F] = "Maker"
    image.getexif().get_ifd(0x8769)[0x9003] = time
    assert read_capture(image) == {"camera": "Maker", "taken": "2024-05-01T10:15:12"}


def test_borderline_pairs_share_a_group(tmp_path, monkeypatch):
    """Cut at the left by a few hundredths, a picture is near or borderline, and on one side."""
    write_classes(tmp_path / "classes.csv", NAMES)
    for number, latin in enumerate(NAMES):
        folder = tmp_path / "collected/images" / latin
        folder.mkdir(parents=True)
        for i in range(6):
            picture = draw(1000 * number + i, size=(400, 380))
            (folder / f"a{i}z{i}b.jpg").write_bytes(jpeg(picture))
            for cut in (20, 28):
                (folder / f"c{i}z{cut}d.jpg").write_bytes(jpeg(picture.crop((cut, 0, 400, 380))))
    cleaned = clean(tmp_path)
    assert any(row["near"] for row in cleaned.values())
    rows = label(tmp_path)
    report = (tmp_path / "dataset/split_report.txt").read_text()
    assert "borderline pairs across train and test: 0\n" in report
    assert any("borderline pairs" in row["joined_by"] for row in rows.values())


@pytest.mark.parametrize("alone, groups", [("a0z.jpg", 2), ("none", 1)])
def test_a_class_that_cannot_be_split_is_reported_and_the_others_are_labelled(
        tmp_path, alone, groups):
    write_classes(tmp_path / "classes.csv", NAMES)
    for number, latin in enumerate(NAMES):
        folder = tmp_path / "collected/images" / latin
        folder.mkdir(parents=True)
        for i in range(9):
            (folder / f"a{i}z.jpg").write_bytes(jpeg(draw(1000 * number + i)))
    cleaned = clean(tmp_path)
    write_table(tmp_path / "collected/found.csv", ("url", "page", "license", "author", "sha256"), [
        {"page": f"https://example.org/{file.endswith(alone)}", "sha256": row["sha256"]}
        for file, row in cleaned.items() if row["class"] == NAMES[1]])
    with pytest.raises(InputError, match=rf"{NAMES[1]} \({groups} train, 0 test; the largest "
                                         f"group has {10 - groups} of 9 photographs, joined by"):
        label(tmp_path)
    assert not (tmp_path / "dataset/train_labels.csv").exists()
    rows = label(tmp_path, "--small_classes", "train")
    test = [row["latin"] for path, row in rows.items() if path.startswith("test/")]
    assert sorted(test) == [NAMES[0]] * 3 + [NAMES[2]] * 3
    assert len(rows) == 27
    classes = read_classes(tmp_path / "classes.csv")
    table = read_labels(tmp_path / "dataset/train_labels.csv", classes)
    train, validation = split_validation(table, classes, 0.1, seed=0)
    assert set(train["label"]) == {0, 1, 2}
    assert set(validation["label"]) == ({0, 2} if groups == 1 else {0, 1, 2})


@pytest.mark.parametrize("evidence, told", [("subfolder (9 photographs)", True), ("page", False)])
def test_a_class_in_one_subfolder_gets_the_advice_to_move_it_up(tmp_path, evidence, told):
    classes = read_classes(write_classes(tmp_path / "classes.csv", NAMES[:1]))
    rows = [{"kept": True, "label": 0, "group": "one", "joined_by": evidence}] * 9
    with pytest.raises(InputError) as raised:
        require_enough_groups(rows, {"one": "train"}, classes, "cleaned", "stop")
    assert ("move those of others up" in str(raised.value)) == told


@pytest.mark.parametrize("evidence, told", [("overlapping pictures; page", True), ("page", False)])
def test_a_class_joined_by_pictures_is_told_which_table_lists_the_pairs(tmp_path, evidence, told):
    classes = read_classes(write_classes(tmp_path / "classes.csv", NAMES[:1]))
    rows = [{"kept": True, "label": 0, "group": "one", "joined_by": evidence}] * 9
    with pytest.raises(InputError) as raised:
        require_enough_groups(rows, {"one": "train"}, classes, tmp_path, "stop")
    assert (str(tmp_path / "pairs.csv") in str(raised.value)) == told
