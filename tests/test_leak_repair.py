"""--check --repair: tables without data leakage, whole groups in train, nothing lost."""
import shutil

import pytest

from dataset_preparation.labeling import labeling
from tests.conftest import NAMES, draw, jpeg, make_collected, make_labelled, write_classes
from tests.preparing import clean, label
from utils import InputError, read_table, write_table


@pytest.fixture
def folder(tmp_path):
    """A labelled dataset in which two test photographs leak, one of them by two train ones."""
    write_classes(tmp_path / "classes.csv", NAMES)
    data = tmp_path / "dataset"
    data.mkdir()
    make_labelled(data)
    for side in ("train", "test"):  # as published: without groups
        rows = read_table(data / f"{side}_labels.csv")
        for row in rows:
            (data / row["path"]).write_bytes(jpeg(draw(hash_of(row["path"]))))
        write_table(data / f"{side}_labels.csv", ("path", "label"), rows)
    plant(data, "train/Rosa prima/exact.jpg", "test/Rosa prima/rosa_prima_test_1.jpg", 0)
    picture = jpeg(draw(hash_of("test/Rosa secunda/rosa_secunda_test_2.jpg")), quality=60)
    plant(data, "train/Rosa secunda/near.jpg", picture, 1)
    return tmp_path


def hash_of(path):
    return int.from_bytes(path.encode(), "big") % 100_003


def plant(data, path, source, label):
    content = source if isinstance(source, bytes) else (data / source).read_bytes()
    (data / path).write_bytes(content)
    table = data / "train_labels.csv"
    write_table(table, ("path", "label"), [*read_table(table), {"path": path, "label": label}])


def check(folder, *more):
    labeling.main(["--check", str(folder / "dataset"), "--class_table",
                   str(folder / "classes.csv"), "--processes", "1", *more])
    return {side: {row["path"]: row for row in read_table(folder / f"dataset/{side}_labels.csv")}
            for side in ("train", "test")}


LEAKING = {"test/Rosa prima/rosa_prima_test_1.jpg", "test/Rosa secunda/rosa_secunda_test_2.jpg"}


def test_leaking_groups_move_to_train_and_the_old_tables_stay(folder, capsys):
    data = folder / "dataset"
    before = {side: read_table(data / f"{side}_labels.csv") for side in ("train", "test")}
    with pytest.raises(InputError, match="2 pairs.*--repair"):
        check(folder)
    capsys.readouterr()
    tables = check(folder, "--repair")
    text = capsys.readouterr().out
    assert "test photographs moved to train: 2, of 2 groups" in text
    assert "classes without test photographs now: none" in text
    assert "33 photographs of 3 classes" not in text and " 0 leaking pairs" in text
    assert tables["train"].keys() >= LEAKING and not LEAKING & tables["test"].keys()
    paths = {row["path"] for rows in before.values() for row in rows}
    assert tables["train"].keys() | tables["test"].keys() == paths
    assert all((data / path).is_file() for path in paths)
    assert tables["train"]["train/Rosa prima/exact.jpg"]["group"] == tables["train"][
        "test/Rosa prima/rosa_prima_test_1.jpg"]["group"]
    for side, rows in before.items():
        assert read_table(data / f"set_aside/{side}_labels.csv", ("path", "label")) == rows
    assert check(folder) == tables  # and status 0


def test_a_repair_killed_between_the_tables_is_completed(folder):
    data = folder / "dataset"
    shutil.copyfile(data / "test_labels.csv", folder / "test_labels.csv")
    whole = check(folder, "--repair")
    shutil.copyfile(folder / "test_labels.csv", data / "test_labels.csv")
    again = check(folder, "--repair")
    assert {side: sorted(rows) for side, rows in again.items()} == {
        side: sorted(rows) for side, rows in whole.items()}
    assert sum(map(len, again.values())) == len(again["train"].keys() | again["test"].keys())


def test_labelling_continues_from_repaired_tables(tmp_path):
    make_collected(tmp_path / "collected", count=12)
    write_classes(tmp_path / "classes.csv", NAMES)
    clean(tmp_path)
    path = min(path for path in label(tmp_path) if path.startswith("test/"))
    for side in ("train", "test"):  # one test photograph in a group of train
        table = tmp_path / f"dataset/{side}_labels.csv"
        rows = read_table(table)
        for row in rows:
            if row["path"] in (path, path.replace("test", "train")):
                row["group"] = "one plant"
        write_table(table, labeling.COLUMNS, rows)
    tables = check(tmp_path, "--repair")
    assert path in tables["train"]
    after = label(tmp_path)
    assert after.keys() == tables["train"].keys() | tables["test"].keys()
    train = {row["path"] for row in read_table(tmp_path / "dataset/train_labels.csv")}
    assert path in train


def test_repair_without_check_is_refused():
    with pytest.raises(InputError, match="--check"):
        labeling.main(["--repair"])
