"""Label errors: folds of whole groups, out-of-fold scores, planted errors first."""
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dataset_preparation.cleaning import find_label_errors
from model import build_model
from tests.conftest import NAMES, draw, jpeg, run_script, shared, snapshot, write_classes
from tests.preparing import CLEANING, LABELING, flags
from training.checkpoints import save_checkpoint
from utils import InputError, read_table

SCRIPT = "dataset_preparation/cleaning/find_label_errors.py"
# Wrong: class it is a picture of
SWAPPED = {f"{NAMES[0]}/003.jpg": NAMES[1], f"{NAMES[2]}/007.jpg": NAMES[0]}


def coloured(label, seed):
    """Return a picture with one channel of its class raised."""
    pixels = np.asarray(draw(seed)) // 2
    pixels[..., label] += 100
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Three classes of 14 that differ by colour, two label errors; cleaned and labelled."""
    folder = tmp_path_factory.mktemp("labelled")
    write_classes(folder / "classes.csv", NAMES)
    for label, name in enumerate(NAMES):
        (folder / "collected/images" / name).mkdir(parents=True)
        for i in range(14):
            true = NAMES.index(SWAPPED.get(f"{name}/{i:03}.jpg", name))
            (folder / f"collected/images/{name}/{i:03}.jpg").write_bytes(
                jpeg(coloured(true, 100 * label + i)))
    # A network that knows other things: its features are not fitted to these photographs
    torch.manual_seed(1)
    save_checkpoint(folder / "weights.pth",
                    {"model_state_dict": build_model("plain_cnn", 5).state_dict()})
    for script in (CLEANING, LABELING):
        run_script(script, *flags(script, folder, test_per_class=1))
    return folder


def options(folder):
    return flags(SCRIPT, folder, class_table=folder / "classes.csv", cache_dir=folder / "cache",
                 model="plain_cnn", initial_weights=folder / "weights.pth", image_size=64,
                 num_workers=0, device="cpu")


def test_folds_hold_whole_groups_and_all_classes():
    table = pd.DataFrame({"label": [i % 3 for i in range(60)], "group": [
        *(f"g{i // 6}" for i in range(30)), *(f"single{i}" for i in range(30))]})
    folds = find_label_errors.assign_folds(table, 4, seed=0)
    assert set(table.assign(fold=folds).groupby("group")["fold"].nunique()) == {1}
    counts = table.assign(fold=folds).groupby(["fold", "label"]).size()
    assert len(counts) == 12
    assert counts.max() - counts.min() <= 3
    assert list(folds) == list(find_label_errors.assign_folds(table, 4, seed=0))
    assert list(folds) != list(find_label_errors.assign_folds(table, 4, seed=1))


def test_a_label_does_not_influence_its_own_logits():
    """With another label, a photograph gets the same logits, at one weight decay bit for bit."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = (rng.normal(size=(30, 8)) + 3 * np.eye(8)[labels]).astype(np.float32)
    folds = np.arange(30) // 3 % 5
    logits, decay = find_label_errors.cross_validate(features, labels, folds, 3)
    assert (logits.argmax(1) == labels).mean() > 0.8
    changed = labels.copy()
    changed[4] = (labels[4] + 1) % 3
    again, same = find_label_errors.cross_validate(features, changed, folds, 3)
    assert same == decay
    own = folds == folds[4]
    assert np.array_equal(again[own], logits[own])
    assert not np.array_equal(again[~own], logits[~own])  # it is in the training set of the others


def test_planted_labels_come_first_and_cleaning_joins_them_in(labelled):
    done = run_script(SCRIPT, *options(labelled))
    assert done.stdout.splitlines()[-1].startswith("scored 39 photographs in 5 folds: ")
    table = labelled / "cleaned/label_scores.csv"
    rows = read_table(table, find_label_errors.COLUMNS)
    assert len(rows) == 39  # the three of the test are not looked at
    cleaned = {(row["sha256"], row["label_class"]): row
               for row in read_table(labelled / "cleaned/cleaned.csv")}
    files = {cleaned[row["sha256"], row["class"]]["file"]: row for row in rows}
    judged = [file for file in SWAPPED if file in files]
    assert judged
    assert set(list(files)[:len(judged)]) == set(judged)
    for file in judged:
        assert float(files[file]["label_score"]) < 0.3
        assert files[file]["proposal"] == SWAPPED[file]
    assert all(0 <= float(row[name]) <= 1 for row in rows
               for name in ("label_score", "outlier_score"))

    run_script(CLEANING, *flags(CLEANING, labelled))
    joined = {row["file"]: row for row in read_table(labelled / "cleaned/cleaned.csv")}
    assert all("label" in joined[file]["suspected"].split(", ") for file in judged)
    assert all(row["status"] == "kept" for row in joined.values())
    before = table.read_bytes()
    find_label_errors.main([str(one) for one in options(labelled)])
    assert table.read_bytes() == before


def test_a_dataset_without_groups_or_sums_is_judged_too(labelled, tmp_path, capsys):
    """As the published tables: a photograph is identified by the SHA-256 of its own file."""
    shutil.copytree(labelled / "dataset", tmp_path / "dataset")
    rows = read_table(tmp_path / "dataset/train_labels.csv")
    (tmp_path / "dataset/train_labels.csv").write_text("path,label\n" + "".join(
        f"{row['path']},{row['label']}\n" for row in rows))
    find_label_errors.main([str(one) for one in (*options(labelled), "--dataset_dir",
                                                 tmp_path / "dataset", "--cleaned_dir",
                                            tmp_path / "cleaned")])
    said = capsys.readouterr().err
    assert "no column 'group'" in said
    assert "holds no cleaned.csv" in said
    scores = read_table(tmp_path / "cleaned/label_scores.csv", find_label_errors.COLUMNS)
    assert {row["path"] for row in scores} == {row["path"] for row in rows}
    assert all(len(row["sha256"]) == 64 for row in scores)


@pytest.mark.parametrize("more, said", [
    (["--initial_weights", "none"], "random network"),
    (["--dataset_dir", "nowhere"], "does not exist")])
def test_bad_input_is_named_and_nothing_is_written(labelled, more, said):
    before = snapshot(labelled)
    with pytest.raises(InputError, match=said):
        find_label_errors.main([str(one) for one in (*options(labelled), *more)])
    assert snapshot(labelled) == before


def test_without_cleanlab_the_message_says_how_to_install_it(monkeypatch):
    # As Python marks what cannot be imported
    monkeypatch.setitem(sys.modules, "cleanlab.outlier", None)
    with pytest.raises(InputError,
                       match=r"^find_label_errors.py needs cleanlab: pip install cleanlab$"):
        find_label_errors.main([])


@pytest.mark.photos
def test_wrong_names_of_real_flowers_are_found(tmp_path):
    """Of 12 label errors among 720 flowers, at least 10 are among the 30 most doubtful labels."""
    weights, photos = shared("weights/mobilenet_v3_small_features.pth"), shared("photos/flowers")
    names = sorted(path.name for path in photos.iterdir())
    write_classes(tmp_path / "classes.csv", names)
    wrong, lines = set(), ["path,label,sha256"]
    (tmp_path / "train").mkdir()
    for label, name in enumerate(names):
        for i, photo in enumerate(sorted((photos / name).iterdir())):
            given = (label + 1) % len(names) if i == 5 else label
            path = f"train/{names[given]}/{label}_{i}.jpg"
            wrong |= {path} if given != label else set()
            (tmp_path / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(photo, tmp_path / path)
            lines.append(f"{path},{given},{path}")
    (tmp_path / "train_labels.csv").write_text("\n".join(lines) + "\n")
    run_script(SCRIPT, "--class_table", tmp_path / "classes.csv", "--dataset_dir", tmp_path,
               "--cleaned_dir",
               tmp_path / "cleaned", "--cache_dir", tmp_path / "cache", "--model",
               "mobilenet_v3_small",
               "--initial_weights", weights, "--image_size", 128, "--num_workers", 0)
    first = {row["path"] for row in read_table(tmp_path / "cleaned/label_scores.csv")[:30]}
    assert len(first & wrong) >= 10
