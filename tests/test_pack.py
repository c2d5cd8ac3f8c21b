"""pack.py, and back with download_files.py: the same bytes, credits, cards, nothing lost."""
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from file_server import FileServer

import config
import pack
from dataset_preparation.parsing.archives import lock_of
from download_files import main as download
from evaluate import main as evaluate
from tests.conftest import NAMES, ROOT, make_labelled, run_script, snapshot
from train import main as train
from utils import InputError, PlantClass, read_table, write_table

CLASS_TABLE = (
    'label,latin,russian,english,also\n'
    '0,Rosa prima,"роза, первая",first rose,Rosa una; Rosa one\n'
    "1,Rosa secunda,роза вторая,second rose,\n2,Rosa tertia,роза третья,third rose,\n")
SIDES = ("train", "test")
MODEL = "checkpoints/tiny/plants_model.pth.tar"


def flags(folder, *more):
    """Write the settings of a tiny run to a file; return the flags that name it, and more."""
    names = ("dataset", "checkpoints", "runs", "packed", "collected", "cache")
    settings = {**{f"{name}_dir": str(folder / name) for name in names}, "num_workers": 0,
                "class_table": str(folder / "classes.csv"), "model": "plain_cnn", "run": "tiny",
                "initial_weights": "none", "image_size": 32, "batch_size": 6, "num_epochs": 2,
                "device": "cpu"}
    (folder / "settings.json").write_text(json.dumps(settings))
    return ["--settings", str(folder / "settings.json"), *map(str, more)]


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """Return a dataset of 3 classes, half of it with authors, and a trained network; read only."""
    folder = tmp_path_factory.mktemp("tiny_run")
    make_labelled(folder / "dataset")
    (folder / "classes.csv").write_text(CLASS_TABLE, encoding="utf-8")
    found = []
    for side in SIDES:
        table = folder / f"dataset/{side}_labels.csv"
        rows = read_table(table)
        for i, row in enumerate(rows):
            data = (folder / "dataset" / row["path"]).read_bytes()
            row["sha256"] = hashlib.sha256(data).hexdigest()
            if i % 2:
                row.update(url=f"https://photos.example/{side}{i}.jpg", author="Анна, Ann | A.",
                           license="cc-by-nc" if i % 4 == 1 else "cc0")
                found.append({"sha256": row["sha256"], "title": "A rose",
                              "page": f"https://example.org/{side}{i}"})
        write_table(table, rows[0], rows)
    write_table(folder / "collected/found.csv", ("sha256", "title", "page"), found)
    train(flags(folder))
    return folder


@pytest.fixture
def folder(tiny_run, tmp_path):
    """Return a copy of the tiny run that a test may change."""
    return shutil.copytree(tiny_run, tmp_path / "mine")


def packed(folder, *more):
    """Pack a folder and return {name: bytes} of the files written."""
    pack.main(flags(folder, *more))
    return snapshot(folder / "packed")


def test_packing_and_downloading_give_the_same_dataset_and_accuracy(folder, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "*")
    evaluate(flags(folder))
    accuracy = capsys.readouterr().out.splitlines()[-1]
    away = folder.parent / "away"
    with FileServer() as server:
        files = packed(folder, "--packed_url", server.url("/deep/er/"))
        server.files.update({f"/deep/er/{name}": data for name, data in files.items()})
        lines = dict(re.findall(r"(?m)^(\w+) = (.+)$", files["settings.txt"].decode()))
        assert lines.pop("CLASS_TABLE") == 'ROOT / "data/dataset/classes.csv"'
        assert all(lines[f"{name}_SHA256"] for name in ("DATASET", "CHECKPOINT"))
        download(["--dataset_dir", str(away / "dataset"),
                  "--checkpoints_dir", str(away / "checkpoints"),
                  *[part for name, value in lines.items()
                    for part in (f"--{name.lower()}", value.strip('"'))]])
    ours, theirs = snapshot(folder / "dataset"), snapshot(away / "dataset")
    assert theirs.items() >= ours.items()
    assert set(theirs) - set(ours) == {"classes.csv", "ATTRIBUTION.csv", "README.md"}
    model = away / "checkpoints/downloaded/plants_model.pth.tar"
    assert model.read_bytes() == (folder / MODEL).read_bytes()
    done = run_script("evaluate.py", "--checkpoint", model, "--device", "cpu", "--num_workers", 0,
                      "--class_table", away / "dataset/classes.csv",
                      "--dataset_dir", away / "dataset", "--runs_dir", away / "runs")
    assert done.stdout.splitlines()[-1] == accuracy


def test_the_same_input_gives_the_same_bytes(folder, capsys):
    first = packed(folder)
    assert packed(folder) == first, "packing again changed something"
    for path in sorted(folder.rglob("*.jpg")):
        path.touch()
        path.chmod(0o600)
    packed(folder, "--packed_dir", folder / "again")
    assert snapshot(folder / "again") == first
    assert "33 photographs of 3 classes" in capsys.readouterr().out.splitlines()[-1]


def test_the_datasets_of_what_is_packed_are_cited(folder):
    packed_once = read_table(folder / "dataset/train_labels.csv")
    rows = [{"source": "gbif", "dataset": f"d{number % 2}", "observation": str(number),
             "license": "cc0", "time": "2026-05-17T00:00:00Z", "sha256": row["sha256"],
             "title": "", "page": ""} for number, row in enumerate(packed_once) if row["sha256"]]
    rows.append({**rows[0], "dataset": "other", "sha256": "of no photograph here"})
    write_table(folder / "collected/found.csv", tuple(rows[0]), rows)
    packed(folder)
    with zipfile.ZipFile(folder / "packed/dataset.zip") as archive:
        table = archive.read("gbif_datasets.csv").decode().splitlines()
        assert "gbif.org/dataset/d0>" in archive.read("CITATIONS.md").decode()
    assert [line.split(",")[0] for line in table] == ["datasetKey", "d0", "d1"]
    assert sum(int(line.split(",")[1]) for line in table[1:]) == len(rows) - 1


def test_sha256sums_match_the_archives(folder):
    packed(folder)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder / "packed",
                   check=True, capture_output=True)
    with zipfile.ZipFile(folder / "packed/dataset.zip") as archive:
        assert archive.testzip() is None


def label_rows(folder):
    """Return the rows of both label tables."""
    return [row for side in SIDES for row in read_table(folder / f"dataset/{side}_labels.csv")]


def test_all_authors_are_credited_and_missing_licences_counted(folder, capsys):
    files = packed(folder)
    rows = list(csv.DictReader(files["ATTRIBUTION.csv"].decode().splitlines()))
    labels = label_rows(folder)
    assert [row["path"] for row in rows] == [row["path"] for row in labels]
    assert rows[1] == {"path": labels[1]["path"], "latin": "Rosa prima", "title": "A rose",
                       "author": "Анна, Ann | A.", "license": "cc-by-nc",
                       "page": "https://example.org/train1",
                       "url": "https://photos.example/train1.jpg"}
    assert (rows[0]["license"], rows[0]["author"]) == ("none stated", "")
    unknown = sum(not row["license"] for row in labels)
    assert f"{unknown} of 33" in capsys.readouterr().err


def test_the_dataset_card_counts_classes_licences_and_hosts(folder):
    card = packed(folder)["DATASET_CARD.md"].decode()
    licences = [row["license"] for row in label_rows(folder)]
    assert "33 photographs: 24 " in card
    assert "| Rosa prima | роза, первая | first rose | 8 | 3 |" in card
    assert f"| photos.example | {33 - licences.count('')} |" in card
    assert f"| none stated | {licences.count('')} |" in card
    assert f"**{licences.count('')} of 33 photographs" in card
    assert f"{licences.count('cc-by-nc')} photographs must not be used commercially" in card


@pytest.mark.parametrize("change, fact", [
    (lambda rows: None, "none of the 33 groups"),
    (lambda rows: rows[0].update(group=rows[-1]["group"]), r"Data leakage.*: 1 of 32 groups"),
    (lambda rows: rows[0].update(group=""), "No group split")])
def test_the_dataset_card_says_whether_it_is_a_group_split(folder, change, fact):
    rows = label_rows(folder)
    change(rows)
    write_table(folder / "dataset/train_labels.csv", rows[0], rows[:24])
    card = packed(folder, "--pack", "dataset")["DATASET_CARD.md"].decode()
    assert re.search(fact, " ".join(card.split()))


@pytest.mark.parametrize("name", ["DATASET_CARD.md", "MODEL_CARD.md"])
def test_cards_are_markdown_with_the_metadata_of_the_hub(folder, name):
    evaluate(flags(folder))
    card = packed(folder)[name].decode()
    _, metadata, text = card.split("---\n", 2)
    assert re.search("^license: other$", metadata, re.MULTILINE)
    assert re.search("image-classification$", metadata, re.MULTILINE)
    assert text.startswith("# ")
    assert "$" not in text, "a fact is missing"
    assert max(map(len, re.findall("\n+", text))) == 2, "two empty lines follow each other"


def test_the_model_card_takes_its_numbers_from_the_report_of_this_checkpoint(folder, capsys):
    card = packed(folder)["MODEL_CARD.md"].decode()
    assert "**Not measured**" in card
    assert f"evaluate.py --checkpoint {folder / MODEL}" in capsys.readouterr().err
    evaluate(flags(folder))
    report = json.loads((folder / "runs/tiny/report.json").read_text("utf-8"))
    card = packed(folder, "--replace_packed")["MODEL_CARD.md"].decode()
    low, high = report["interval"]
    assert f"| {report['accuracy']:.2%} (95 % confidence interval {low:.1%} to {high:.1%}" in card
    assert "# plain_cnn for 3 kinds" in card
    assert pack.TRAINING_DATA[True] in card
    assert "| num_epochs | `2` |" in card
    assert str(folder) not in card, "a path of this machine is published"
    train(flags(folder, "--num_epochs", "3", "--resume_changed"))
    shutil.copyfile(folder / "checkpoints/tiny/last.pth.tar", folder / MODEL)
    assert "**Not measured**" in packed(folder, "--replace_packed")["MODEL_CARD.md"].decode()
    assert "another checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("known", [True, False])
def test_the_model_card_says_whether_the_model_has_an_out_of_distribution_threshold(folder, known):
    checkpoint = torch.load(folder / MODEL, weights_only=True)
    entry = {"threshold": 0.0} if known else None
    torch.save({**checkpoint, "out_of_distribution": entry}, folder / MODEL)
    card = packed(folder, "--pack", "checkpoint")["MODEL_CARD.md"].decode()
    assert pack.OUT_OF_DISTRIBUTION[known] in " ".join(card.split())


def test_the_model_card_says_whether_the_model_was_trained_on_this_dataset(folder):
    rows = read_table(folder / "dataset/train_labels.csv")
    write_table(folder / "dataset/train_labels.csv", rows[0], rows[1:])
    assert pack.TRAINING_DATA[False] in packed(folder)["MODEL_CARD.md"].decode()
    shutil.rmtree(folder / "dataset")
    shutil.rmtree(folder / "packed")
    files = packed(folder, "--pack", "checkpoint")
    assert 'DATASET_URL = ""' in files["settings.txt"].decode()
    assert "dataset.zip" not in files
    assert pack.TRAINING_DATA[None] in files["MODEL_CARD.md"].decode()


def test_a_photograph_changed_since_it_was_collected_keeps_its_title_and_page(tmp_path):
    make_labelled(tmp_path / "dataset")
    table = tmp_path / "dataset/train_labels.csv"
    rows = read_table(table)
    rows[0] |= {"sha256": "b" * 64, "url": "https://x.example/1.jpg", "license": "cc-by"}
    write_table(table, rows[0], rows)
    found = [{"sha256": "a" * 64, "url": "https://x.example/1.jpg", "title": "A rose",
              "page": "https://x.example/"}]
    classes = [PlantClass(label, name, "", "") for label, name in enumerate(NAMES)]
    row = pack.attribution(tmp_path / "dataset", classes, found)[0]
    assert (row["title"], row["page"]) == ("A rose", "https://x.example/")


def test_a_second_process_waits_for_the_first(folder):
    work = folder / "packed/unfinished"  # of the first
    work.mkdir(parents=True)
    with lock_of(folder / "packed", ""):
        second = subprocess.Popen(
            [sys.executable, ROOT / "pack.py", *flags(folder, "--pack", "dataset")],
            stdout=subprocess.PIPE, text=True)
        assert "waiting for another process that packs" in second.stdout.readline()
        assert work.is_dir()
    assert second.communicate(timeout=300)[0].splitlines()[-1].startswith("packed ")


def test_nothing_is_overwritten_without_the_flag(folder):
    first = packed(folder)
    (folder / "packed/mine.txt").write_text("keep")
    (folder / "dataset/split_report.txt").write_text("new\n")
    with pytest.raises(InputError, match="dataset.zip.*--replace_packed"):
        packed(folder)
    assert snapshot(folder / "packed") == {**first, "mine.txt": b"keep"}
    second = packed(folder, "--replace_packed")
    assert second["set_aside/dataset.zip"] == first["dataset.zip"] != second["dataset.zip"]
    assert second["mine.txt"] == b"keep"
    assert second["checkpoint.zip"] == first["checkpoint.zip"]
    assert not (folder / "packed/set_aside/checkpoint.zip").exists()


def delete_a_photograph(folder):
    (folder / "dataset/test" / NAMES[0] / "rosa_prima_test_1.jpg").unlink()


def rename_a_class(folder):
    table = folder / "classes.csv"
    table.write_text(CLASS_TABLE.replace("tertia", "quarta"), encoding="utf-8")


def label_a_photograph_outside(folder):
    table = folder / "dataset/train_labels.csv"
    row = {"path": f"../{NAMES[0]}/out.jpg", "label": "0", "latin": NAMES[0]}
    (folder / "dataset" / row["path"]).parent.mkdir()
    shutil.copyfile(folder / f"dataset/train/{NAMES[0]}/rosa_prima_train_1.jpg",
                    folder / "dataset" / row["path"])
    write_table(table, read_table(table)[0], [*read_table(table), row])


@pytest.mark.parametrize("change, facts", [
    (delete_a_photograph, "line 2: .*rosa_prima_test_1.jpg"),
    (lambda folder: shutil.rmtree(folder / "checkpoints"), "checkpoints.*--checkpoint"),
    (rename_a_class, "Rosa tertia"),
    (label_a_photograph_outside, "line 26: .*out.jpg")])
def test_input_that_cannot_be_packed_leaves_no_file(folder, change, facts):
    change(folder)
    with pytest.raises(InputError, match=facts):
        packed(folder)
    assert not (folder / "packed").exists() or snapshot(folder / "packed") == {}


def test_a_wrong_choice_is_refused_and_a_repeated_one_packed_once(folder, capsys):
    with pytest.raises(SystemExit) as refused:
        packed(folder, "--pack", "weights")
    assert refused.value.code == 2
    assert "--pack" in capsys.readouterr().err
    files = packed(folder, "--pack", "checkpoint,dataset,dataset")
    assert packed(folder) == files, "the order of the names matters"


def test_the_settings_name_the_class_table_where_some_of_its_classes_are_packed(folder):
    table = config.ROOT / "data/crimean_plants.csv"
    for label, row in enumerate(read_table(table)[:3]):  # the folders of the first three classes
        for side in SIDES:
            (folder / "dataset" / side / NAMES[label]).rename(
                folder / "dataset" / side / row["latin"])
            path = folder / f"dataset/{side}_labels.csv"
            path.write_text(path.read_text("utf-8").replace(
                f"{NAMES[label]}/", f"{row['latin']}/"), "utf-8")
    files = packed(folder, "--pack", "dataset", "--class_table", table, "--limit_classes", 3)
    assert "CLASS_TABLE = " in files["settings.txt"].decode()


def test_line_breaks_in_cells_do_not_end_a_table():
    text = pack.table(("host", "photographs"), [("a.example\n\n# Heading", 3)])
    assert text.splitlines()[2:] == ["| a.example # Heading | 3 |"]


@pytest.mark.parametrize("text", ["[1]", "null", '"text"', "[" * 100_000])
def test_a_report_that_is_none_is_named(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=r"report\.json is damaged"):
        pack.read_report(tmp_path / "report.json", tmp_path / "none")
