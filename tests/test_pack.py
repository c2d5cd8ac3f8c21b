"""pack.py and download_files.py, there and back: the same bytes, the same accuracy, credits, cards, nothing lost."""
import csv
import hashlib
import json
import re
import shutil
import subprocess
import zipfile

import pytest
from file_server import FileServer

import config
import pack
from download_files import main as download
from evaluate import main as evaluate
from tests.conftest import NAMES, make_labelled, run_script, snapshot
from train import main as train
from utils import InputError, read_table, write_table

CLASS_TABLE = ('label,latin,russian,english,also\n0,Rosa prima,"роза, первая",first rose,Rosa una; Rosa one\n'
               "1,Rosa secunda,роза вторая,second rose,\n2,Rosa tertia,роза третья,third rose,\n")


def flags(folder, *more):
    """Return the flags of a tiny run in `folder`."""
    folders = {name: folder / name for name in ("dataset", "checkpoints", "runs", "packed", "collected", "cache")}
    return [str(flag) for name, path in folders.items() for flag in (f"--{name}_dir", path)] + [
        "--class_table", str(folder / "classes.csv"), "--model", "plain_cnn", "--initial_weights", "none",
        "--image_size", "32", "--batch_size", "6", "--num_epochs", "2", "--num_workers", "0", "--run", "tiny",
        "--device", "cpu", *map(str, more)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset of three classes, half with authors, and a network trained on it; tests may only read it."""
    folder, before = tmp_path_factory.mktemp("trained"), config.settings()
    make_labelled(folder / "dataset")
    (folder / "classes.csv").write_text(CLASS_TABLE, encoding="utf-8")
    found = []
    for side in ("train", "test"):
        table = folder / f"dataset/{side}_labels.csv"
        rows = read_table(table)
        for i, row in enumerate(rows):
            row["sha256"] = hashlib.sha256((folder / "dataset" / row["path"]).read_bytes()).hexdigest()
            if i % 2:
                row.update(url=f"https://photos.example/{side}{i}.jpg", license="cc-by-nc" if i % 4 == 1 else "cc0",
                           author="Анна, Ann | A.")
                found.append({"sha256": row["sha256"], "title": "A rose", "page": f"https://example.org/{side}{i}"})
        write_table(table, rows[0], rows)
    write_table(folder / "collected/found.csv", ("sha256", "title", "page"), found)
    train(flags(folder))
    vars(config).update(before)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the trained run, to be changed."""
    return shutil.copytree(trained, tmp_path / "mine")


def packed(folder, *more):
    """Pack a folder and return {name: bytes} of what was written."""
    vars(config).update(UNTOUCHED)
    pack.main(flags(folder, *more))
    return snapshot(folder / "packed")


UNTOUCHED = config.settings()


def test_there_and_back_gives_the_same_dataset_and_accuracy(folder, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "*")
    evaluate(flags(folder))
    there = capsys.readouterr().out.splitlines()[-1]
    with FileServer() as server:
        files = packed(folder, "--packed_url", server.url("/deep/er/"))
        server.files.update({f"/deep/er/{name}": data for name, data in files.items()})
        lines = dict(re.findall(r'(?m)^(\w+) = (.+)$', files["settings.txt"].decode()))
        assert lines.pop("CLASS_TABLE") == 'ROOT / "data/dataset/classes.csv"'
        away = folder.parent / "away"
        download(["--dataset_dir", str(away / "dataset"), "--checkpoints_dir", str(away / "checkpoints"),
                  *[part for name, value in lines.items() for part in (f"--{name.lower()}", value.strip('"'))]])
    out = capsys.readouterr().out
    assert out.count("as expected") == 2, "the sums to paste are not those of the archives"
    ours, theirs = snapshot(folder / "dataset"), snapshot(away / "dataset")
    assert theirs.items() >= ours.items()
    assert set(theirs) - set(ours) == {"classes.csv", "ATTRIBUTION.csv", "README.md"}
    model = away / "checkpoints/downloaded/plants_model.pth.tar"
    assert model.read_bytes() == (folder / "checkpoints/tiny/plants_model.pth.tar").read_bytes()
    done = run_script("evaluate.py", "--checkpoint", model, "--class_table", away / "dataset/classes.csv",
                      "--dataset_dir", away / "dataset", "--runs_dir", away / "runs", "--num_workers", "0",
                      "--device", "cpu")
    assert done.stdout.splitlines()[-1] == there


def test_the_same_input_gives_the_same_bytes(folder, capsys):
    first = packed(folder)
    assert packed(folder) == first, "packing again changed something"
    for path in sorted(folder.rglob("*.jpg")):
        path.touch()  # another time
        path.chmod(0o600)
    assert packed(folder, "--packed_dir", folder / "again")["dataset.zip"] == first["dataset.zip"]
    assert snapshot(folder / "again") == first
    assert "packed 33 photographs of 3 classes" in capsys.readouterr().out.splitlines()[-1]


def test_the_sums_are_right(folder):
    packed(folder)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder / "packed", check=True,
                   capture_output=True)
    with zipfile.ZipFile(folder / "packed/dataset.zip") as archive:
        assert archive.testzip() is None


def test_everybody_is_credited_and_missing_licences_are_said(folder, capsys):
    files = packed(folder)
    rows = list(csv.DictReader(files["ATTRIBUTION.csv"].decode().splitlines()))
    labels = [row for side in ("train", "test") for row in read_table(folder / f"dataset/{side}_labels.csv")]
    assert [row["path"] for row in rows] == [row["path"] for row in labels]
    assert rows[1] == {"path": labels[1]["path"], "latin": "Rosa prima", "title": "A rose", "author": "Анна, Ann | A.",
                       "license": "cc-by-nc", "page": "https://example.org/train1",
                       "url": "https://photos.example/train1.jpg"}
    assert (rows[0]["license"], rows[0]["author"]) == ("none stated", "")
    card = files["DATASET_CARD.md"].decode()
    unknown = sum(not row["license"] for row in labels)
    assert f"**{unknown} of 33 photographs have no licence stated.**" in card
    assert f"| none stated | {unknown} |" in card and "| Rosa prima | роза, первая | first rose | 8 | 3 |" in card
    assert "not be used commercially" in card and "| photos.example | " in card
    assert f"{unknown} of 33 photographs have no licence stated" in capsys.readouterr().err


def test_the_model_card_takes_its_numbers_from_the_report_on_this_very_file(folder, capsys):
    card = packed(folder)["MODEL_CARD.md"].decode()
    assert "**Not measured**" in card and "run python evaluate.py" in capsys.readouterr().err
    evaluate(flags(folder))
    report = json.loads((folder / "runs/tiny/report.json").read_text("utf-8"))
    card = packed(folder, "--replace_packed")["MODEL_CARD.md"].decode()
    assert f"| accuracy | {report['accuracy']:.2%} (95 % interval {report['interval'][0]:.1%} to " in card
    assert "plain_cnn for 3 kinds" in card and "Exactly the training photographs" in card
    assert "| num_epochs | `2` |" in card and str(folder) not in card, "a path of this machine is published"
    train(flags(folder, "--num_epochs", "3", "--resume_changed"))
    shutil.copyfile(folder / "checkpoints/tiny/last.pth.tar", folder / "checkpoints/tiny/plants_model.pth.tar")
    assert "**Not measured**" in packed(folder, "--replace_packed")["MODEL_CARD.md"].decode()
    assert "is of another checkpoint" in capsys.readouterr().err


def test_a_model_of_other_photographs_says_so(folder):
    rows = read_table(folder / "dataset/train_labels.csv")
    write_table(folder / "dataset/train_labels.csv", rows[0], rows[1:])
    assert "Other photographs than those of the dataset" in packed(folder)["MODEL_CARD.md"].decode()
    shutil.rmtree(folder / "dataset")
    shutil.rmtree(folder / "packed")
    files = packed(folder, "--pack", "checkpoint")
    assert "DATASET_URL = \"\"" in files["settings.txt"].decode() and "dataset.zip" not in files
    assert "not at hand" in files["MODEL_CARD.md"].decode()


def test_nothing_is_overwritten_unasked(folder):
    first = packed(folder)
    (folder / "packed/mine.txt").write_text("keep")
    (folder / "dataset/split_report.txt").write_text("new\n")
    with pytest.raises(InputError, match="dataset.zip is there and differs.*--replace_packed"):
        packed(folder)
    assert snapshot(folder / "packed") == {**first, "mine.txt": b"keep"}
    second = packed(folder, "--replace_packed")
    assert second["set_aside/dataset.zip"] == first["dataset.zip"] != second["dataset.zip"]
    assert second["mine.txt"] == b"keep" and second["checkpoint.zip"] == first["checkpoint.zip"]
    assert not (folder / "packed/set_aside/checkpoint.zip").exists()


@pytest.mark.parametrize("change, message", [
    (lambda folder: (folder / "dataset" / "test" / NAMES[0] / "rosa_prima_test_1.jpg").unlink(), "rosa_prima_test_1.jpg does not exist"),
    (lambda folder: shutil.rmtree(folder / "checkpoints"), "no finished run"),
    (lambda folder: (folder / "classes.csv").write_text(CLASS_TABLE.replace("tertia", "quarta")), "contradicts|other"),
    (lambda folder: add_row(folder, f"../{NAMES[0]}/out.jpg"), "lies outside"),
])
def test_what_cannot_be_packed_leaves_nothing(folder, change, message):
    change(folder)
    with pytest.raises(InputError, match=message):
        packed(folder)
    assert not (folder / "packed").exists() or snapshot(folder / "packed") == {}


def add_row(folder, path):
    """Label a photograph outside of the dataset."""
    table = folder / "dataset/train_labels.csv"
    (folder / "dataset" / path).parent.mkdir()
    shutil.copyfile(folder / f"dataset/train/{NAMES[0]}/rosa_prima_train_1.jpg", folder / "dataset" / path)
    write_table(table, read_table(table)[0], [*read_table(table), {"path": path, "label": "0", "latin": NAMES[0]}])


def test_a_wrong_choice_is_refused_and_one_named_twice_packed_once(folder):
    with pytest.raises(InputError, match="--pack weights: it takes"):
        packed(folder, "--pack", "weights")
    files = packed(folder, "--pack", "checkpoint,dataset,dataset")
    assert packed(folder) == files, "the order in which they are named matters"


def test_a_part_of_the_class_table_is_told_to_others(folder):
    table = config.ROOT / "data/crimean_plants.csv"
    for label, name in enumerate(read_table(table)[:3]):  # the folders of the first three classes
        for side in ("train", "test"):
            (folder / "dataset" / side / NAMES[label]).rename(folder / "dataset" / side / name["latin"])
            path = folder / f"dataset/{side}_labels.csv"
            path.write_text(path.read_text("utf-8").replace(f"{NAMES[label]}/", f"{name['latin']}/"), "utf-8")
    files = packed(folder, "--pack", "dataset", "--class_table", table, "--limit_classes", 3)
    assert "CLASS_TABLE = " in files["settings.txt"].decode()
