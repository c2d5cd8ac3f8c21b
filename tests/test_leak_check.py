"""The check of a dataset that is already split: data leakage, groups, nothing lost."""
import shutil

import pytest

from dataset_preparation.labeling import labeling
from tests.conftest import NAMES, draw, jpeg, run_script, snapshot, write_classes
from tests.preparing import LABELING
from utils import InputError, read_table, write_table

TAXUS = (*NAMES[:2], "Taxus baccata")


@pytest.fixture
def folder(tmp_path):
    """A dataset like the published one: `path,label` only, and the folder "Taxus baccat"."""
    write_classes(tmp_path / "classes.csv", TAXUS)
    for side, count in (("train", 6), ("test", 2)):
        rows = []
        for label, name in enumerate((*NAMES[:2], "Taxus baccat")):
            (tmp_path / "dataset" / side / name).mkdir(parents=True)
            for i in range(count):
                path = f"{side}/{name}/{name.lower().replace(' ', '_')}_{side}_{i}.jpg"
                (tmp_path / "dataset" / path).write_bytes(
                    jpeg(draw(1000 * label + 100 * (side == "test") + i)))
                rows.append({"path": path, "label": label})
        write_table(tmp_path / f"dataset/{side}_labels.csv", ("path", "label"), rows)
    return tmp_path


def check(folder, status=0, *more):
    return run_script(LABELING, "--check", folder / "dataset", "--class_table",
                      folder / "classes.csv", "--processes", 2,
                      *more, status=status)


def table(folder, side):
    return read_table(folder / f"dataset/{side}_labels.csv", ("path", "label", "group"))


def report(folder):
    return (folder / "dataset/leak_report.txt").read_text()


def plant(folder, side, path, picture, label, **options):
    """Put one more photograph into the dataset."""
    rows = read_table(folder / f"dataset/{side}_labels.csv")
    (folder / "dataset" / path).write_bytes(picture if isinstance(picture, bytes)
                                            else jpeg(picture, **options))
    write_table(folder / f"dataset/{side}_labels.csv", ("path", "label"),
                [*rows, {"path": path, "label": label}])


def test_a_clean_dataset_gets_groups_and_a_second_check_changes_nothing(folder):
    plant(folder, "train", "train/Rosa prima/copy.jpg", draw(0), 0, quality=50)
    before = snapshot(folder / "dataset")
    done = check(folder)
    assert done.stdout.splitlines()[
        -1] == ("checked 25 photographs of 3 classes: 19 train, 6 test, 0 leaking pairs (exact "
                "duplicates, near-duplicates, borderline pairs, overlapping pictures, groups of "
                "the tables)")
    assert "2 Taxus baccata  train     6  test    2  groups     8" in report(folder)
    for kind in ("exact duplicates", "near-duplicates", "groups split", "borderline pairs"):
        assert f"{kind} across train and test: 0" in report(folder)
    groups = {row["path"]: row["group"] for side in ("train", "test")
              for row in table(folder, side)}
    assert groups["train/Rosa prima/copy.jpg"] == groups["train/Rosa prima/rosa_prima_train_0.jpg"]
    assert len(set(groups.values())) == 24
    after = snapshot(folder / "dataset")
    for side in ("train", "test"):  # the tables as they were, and every photograph, are still there
        assert after[f"set_aside/{side}_labels.csv"] == before[f"{side}_labels.csv"]
    assert all(after[name] == data for name, data in before.items() if name.endswith(".jpg"))
    assert "has these groups already" in check(folder).stdout
    assert snapshot(folder / "dataset") == after


def test_planted_leaks_and_conflicts_are_named_and_the_status_is_1(folder):
    test = folder / "dataset/test/Rosa prima/rosa_prima_test_0.jpg"
    plant(folder, "train", "train/Rosa prima/exact.jpg", test.read_bytes(), 0)
    plant(folder, "train", "train/Rosa secunda/near.jpg", draw(1100).resize((260, 243)), 1,
          quality=60)
    plant(folder, "train", "train/Rosa prima/other.jpg", draw(1005), 0, quality=70)
    # The groups of the first check change nothing about what the second one says
    for _ in range(2):
        done = check(folder, 1)
        assert done.stderr.startswith("error: data leakage: 2 pairs")
        assert ("exact duplicates across train and test: 1\n"
                "  train/Rosa prima/exact.jpg ~ test/Rosa prima/rosa_prima_test_0.jpg\n"
                "near-duplicates across train and test: 1\n"
                "  train/Rosa secunda/near.jpg ~ test/Rosa secunda/rosa_secunda_test_0.jpg\n"
                "borderline pairs across train and test: 0\n"
                "overlapping pictures across train and test: 0\n"
                "groups split across train and test: 0\n") in report(folder)
        assert ("label conflicts, near-duplicates under several names: 1\n"
                "  train/Rosa prima/other.jpg ~ "
                "train/Rosa secunda/rosa_secunda_train_5.jpg\n") in report(folder)
        assert report(folder) in done.stdout
    assert len(list((folder / "dataset/set_aside").iterdir())) == 2
    leaking = ("train/Rosa prima/exact.jpg", "train/Rosa secunda/near.jpg")
    left = [row for row in table(folder, "train") if row["path"] not in leaking]
    write_table(folder / "dataset/train_labels.csv", ("path", "label", "group"), left)
    assert "0 leaking pairs" in check(folder).stdout  # without the leaking rows


def test_groups_of_the_tables_own_are_kept_and_a_split_one_is_a_leak(folder):
    plant(folder, "train", "train/Rosa prima/copy.jpg", draw(0), 0, quality=50)
    rows = read_table(folder / "dataset/train_labels.csv")
    for row in rows:
        row["group"] = "one plant" if "rosa_prima_train_1" in row["path"] else ""
    write_table(folder / "dataset/train_labels.csv", ("path", "label", "group"), rows)
    check(folder)
    groups = {row["path"]: row["group"] for row in table(folder, "train")}
    assert groups["train/Rosa prima/rosa_prima_train_1.jpg"] == "one plant"
    assert len(set(groups.values())) == 18
    rows = table(folder, "test")
    rows[0]["group"] = "one plant"
    write_table(folder / "dataset/test_labels.csv", ("path", "label", "group"), rows)
    check(folder, 1)
    assert ("groups split across train and test: 1\n"
            "  train/Rosa prima/rosa_prima_train_1.jpg ~ "
            "test/Rosa prima/rosa_prima_test_0.jpg: group one plant is split\n") in report(folder)


@pytest.mark.parametrize("damage, said", [
    (lambda data: (data / "test_labels.csv").unlink(), "does not exist"),
    (lambda data: (data / "labels.journal").touch(), "interrupted"),
    (lambda data: (data / "train_labels.csv").write_text("path,label\n"), "lists no photographs"),
    (lambda data: (data / "train/Rosa prima/rosa_prima_train_2.jpg").unlink(),
     "line 4: train/Rosa prima/rosa_prima"),
    (lambda data: (data / "train/Rosa prima/rosa_prima_train_2.jpg").write_bytes(b"no"),
     "not a picture"),
    (lambda data: change(data, "rosa_prima_train_2.jpg,0", "rosa_prima_train_2.jpg,7"),
     "the label '7'"),
    (lambda data: change(data, "rosa_prima_train_2.jpg,0", "rosa_prima_train_2.jpg,1"),
     "contradicts its folder"),
    (lambda data: change(data, "rosa_prima_train_2.jpg", "rosa_prima_train_1.jpg"), "twice")])
def test_bad_input_is_named_and_nothing_is_written(folder, damage, said):
    damage(folder / "dataset")
    before = snapshot(folder)
    with pytest.raises(InputError, match=said):
        labeling.main(["--check", str(folder / "dataset"), "--class_table",
                       str(folder / "classes.csv"), "--processes",
                       "1"])
    (folder / "dataset/labels.lock").unlink()
    assert snapshot(folder) == before


def change(data, old, new):
    table = data / "train_labels.csv"
    table.write_text(table.read_text().replace(old, new))


def test_training_and_evaluation_take_the_tables(folder):
    shutil.copyfile(folder / "dataset/train/Taxus baccat/taxus_baccat_train_0.jpg",
                    folder / "dataset/train/Taxus baccat/loose.jpg")
    assert "1 photographs" in check(folder).stderr
    common = ["--class_table", folder / "classes.csv", "--dataset_dir", folder / "dataset",
              "--checkpoints_dir", folder / "checkpoints", "--runs_dir", folder / "runs",
              "--batch_size", 6, "--num_workers", 0, "--device", "cpu", "--image_size", 32]
    training = ["--cache_dir", folder / "cache", "--model", "plain_cnn", "--initial_weights",
                "none", "--num_epochs", 1]
    assert "val acc" in run_script("train.py", *common, *training).stdout
    done = run_script("evaluate.py", *common)
    assert "6 photographs" in done.stdout.splitlines()[-1]
    assert "no column" not in done.stderr
