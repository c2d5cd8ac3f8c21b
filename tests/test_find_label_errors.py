"""Label errors, before the split: folds of groups, out-of-fold scores, proposals by content."""
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

import config
from dataset_preparation.cleaning import find_label_errors
from dataset_preparation.cleaning.decisions import append_decisions
from model import build_model
from tests.conftest import (
    NAMES,
    draw,
    jpeg,
    make_labelled,
    run_script,
    shared,
    snapshot,
    write_classes,
)
from tests.preparing import CLEANING, LABELING, clean, flags
from training.checkpoints import save_checkpoint
from utils import InputError, read_table, write_table

SCRIPT = "dataset_preparation/cleaning/find_label_errors.py"
# Wrong: class it is a picture of
SWAPPED = {f"{NAMES[0]}/003.jpg": NAMES[1], f"{NAMES[2]}/007.jpg": NAMES[0]}
# A photograph of the first class, larger under the name of the second; and one of no class in two.
ORIGINAL, ENLARGED = f"{NAMES[0]}/005.jpg", f"{NAMES[1]}/enlarged.jpg"
GREY, GREY_COPY = f"{NAMES[1]}/grey.jpg", f"{NAMES[2]}/grey.jpg"


def test_an_interrupted_cleaning_is_not_taken_for_a_finished_one(tmp_path):
    (tmp_path / "cleaned.csv.journal").touch()
    with pytest.raises(InputError, match="cleaning was interrupted"):
        find_label_errors.build_table(config.namespace(cleaned_dir=tmp_path), [])


def grey(seed):
    """Return a picture with no channel raised."""
    return Image.fromarray(np.asarray(draw(seed)) // 2)


def coloured(label, seed):
    """Return a picture with one channel of its class raised."""
    pixels = np.asarray(draw(seed)) // 2
    pixels[..., label] += 100
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    """Three classes of 14 that differ by colour, two label errors, one picture under two names."""
    folder = tmp_path_factory.mktemp("cleaned")
    write_classes(folder / "classes.csv", NAMES)
    for label, name in enumerate(NAMES):
        (folder / "collected/images" / name).mkdir(parents=True)
        for i in range(14):
            true = NAMES.index(SWAPPED.get(f"{name}/{i:03}.jpg", name))
            (folder / f"collected/images/{name}/{i:03}.jpg").write_bytes(
                jpeg(coloured(true, 100 * label + i)))
    for path, data in {ENLARGED: jpeg(coloured(0, 5).resize((600, 560))),
                       GREY: jpeg(grey(900)), GREY_COPY: jpeg(grey(900), quality=70)}.items():
        (folder / "collected/images" / path).write_bytes(data)
    # A network that knows other things: its features are not fitted to these photographs
    torch.manual_seed(1)
    save_checkpoint(folder / "weights.pth",
                    {"model_state_dict": build_model("plain_cnn", 5).state_dict()})
    run_script(CLEANING, *flags(CLEANING, folder))
    return folder


@pytest.fixture(scope="module")
def judged(cleaned):
    """The same, judged and cleaned again."""
    done = run_script(SCRIPT, *options(cleaned))
    assert done.stdout.splitlines()[-1].startswith("scored 45 photographs in 5 folds: ")
    assert "of 2 pictures under several names, 1 get a proposal" in done.stdout
    return cleaned


def options(folder):
    return flags(SCRIPT, folder, class_table=folder / "classes.csv", cache_dir=folder / "cache",
                 model="plain_cnn", initial_weights=folder / "weights.pth", image_size=64,
                 num_workers=0, device="cpu")


def test_a_label_does_not_influence_its_own_logits():
    """With another label, a photograph gets the same logits, at one weight decay bit for bit."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = (rng.normal(size=(30, 8)) + 3 * np.eye(8)[labels]).astype(np.float32)
    folds = np.arange(30) // 3 % 5
    logits, decay = find_label_errors.cross_validate(features, labels, folds, 3, folds >= 0)
    assert (logits.argmax(1) == labels).mean() > 0.8
    changed = labels.copy()
    changed[4] = (labels[4] + 1) % 3
    again, same = find_label_errors.cross_validate(features, changed, folds, 3, folds >= 0)
    assert same == decay
    own = folds == folds[4]
    assert np.array_equal(again[own], logits[own])
    assert not np.array_equal(again[~own], logits[~own])  # it is in the training set of the others


def test_photographs_left_out_of_training_influence_no_logits():
    """Pictures under several names are predicted, but no regression is fitted on them."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = (rng.normal(size=(30, 8)) + 3 * np.eye(8)[labels]).astype(np.float32)
    folds, trains = np.arange(30) // 3 % 5, np.arange(30) != 4
    logits, decay = find_label_errors.cross_validate(features, labels, folds, 3, trains)
    changed = np.where(trains, labels, (labels + 1) % 3)
    again, same = find_label_errors.cross_validate(features, changed, folds, 3, trains)
    assert (same, np.array_equal(again, logits)) == (decay, True)
    assert logits[4].argmax() == labels[4]


def by_file(folder):
    return {row["file"]: row for row in read_table(folder / "cleaned/cleaned.csv")}


def test_planted_labels_come_first_on_both_sides_of_the_later_split(judged):
    scores = read_table(judged / "cleaned/label_scores.csv", find_label_errors.COLUMNS)
    assert len(scores) == 45  # of the photographs under several names, too
    alone = [row for row in scores if row["file"] not in (ORIGINAL, ENLARGED, GREY, GREY_COPY)]
    assert {row["file"] for row in alone[:2]} == set(SWAPPED)
    for row in alone[:2]:
        assert float(row["label_score"]) < 0.3
        assert row["proposal"] == SWAPPED[row["file"]]
        assert float(row["proposal_probability"]) > 0.5
    assert all(0 <= float(row[name]) <= 1 for row in scores
               for name in ("label_score", "outlier_score"))
    rows = by_file(judged)
    assert all("label" in rows[file]["suspected"].split(", ") for file in SWAPPED)
    assert {rows[file]["status"] for file in SWAPPED} == {"kept"}
    for seed in range(4):  # the split comes later: whatever it is, both are judged
        dataset = judged / f"dataset{seed}"
        run_script(LABELING, *flags(LABELING, judged, dataset_dir=dataset, split_seed=seed,
                                    test_per_class=5))
        sides = {row["sha256"]: (side, row["doubtful"]) for side in ("train", "test")
                 for row in read_table(dataset / f"{side}_labels.csv")}
        planted = [sides[rows[file]["sha256"]] for file in SWAPPED]
        assert {doubtful for _, doubtful in planted} == {"yes"}
        counts = {side: sum(one == (side, "yes") for one in sides.values())
                  for side in ("train", "test")}
        assert (f"doubtful labels by label_scores.csv, not decided in review: {counts['train']} in "
                f"train, {counts['test']} in test; judged 41 of 41"
                ) in (dataset / "split_report.txt").read_text()


def test_a_name_is_proposed_by_content_and_none_where_it_is_unsure(judged):
    """By numbers and sizes of files, the enlarged file's class would be proposed."""
    rows = by_file(judged)
    for file in (ORIGINAL, ENLARGED):
        assert (rows[file]["status"], rows[file]["proposal"]) == ("review", NAMES[0])
        assert float(rows[file]["proposal_probability"]) >= 0.5
    assert float(rows[ORIGINAL]["label_score"]) > float(rows[ENLARGED]["label_score"])
    assert {(rows[file]["status"], rows[file]["proposal"]) for file in (GREY, GREY_COPY)} == {
        ("review", "")}


def test_a_label_decided_by_hand_is_not_in_doubt(judged, tmp_path):
    folder = shutil.copytree(judged, tmp_path / "folder")
    file, name = next(iter(SWAPPED.items()))
    row = by_file(folder)[file]
    append_decisions(folder / "cleaned/decisions.csv",
                     [(row["sha256"], row["class"], "keep", "", "")])
    run_script(CLEANING, *flags(CLEANING, folder))
    run_script(LABELING, *flags(LABELING, folder))
    [labelled] = [one for side in ("train", "test")
                  for one in read_table(folder / f"dataset/{side}_labels.csv")
                  if one["sha256"] == row["sha256"]]
    assert (labelled["latin"], labelled["doubtful"]) == (row["class"], "no")


def test_scores_are_copied_to_cleaned_csv_at_once(cleaned, tmp_path):
    """Cleaning again changes no byte of it; labelling says where nothing was judged."""
    folder = shutil.copytree(cleaned, tmp_path / "folder",
                             ignore=shutil.ignore_patterns("dataset*"))
    scores, table = folder / "cleaned/label_scores.csv", folder / "cleaned/cleaned.csv"
    scores.unlink(missing_ok=True)
    clean(folder)
    assert "doubtful labels: not judged" in run_script(LABELING, *flags(LABELING, folder)).stdout
    run_script(SCRIPT, *options(folder))
    after = table.read_bytes()
    assert "label" in by_file(folder)[min(SWAPPED)]["suspected"].split(", ")
    clean(folder)
    assert table.read_bytes() == after


def test_features_are_computed_once_and_again_if_the_cache_is_damaged(judged, tmp_path, capsys):
    """A second run reads them from the cache; a damaged cache is computed anew, with a warning."""
    table = judged / "cleaned/label_scores.csv"
    before, [cache] = table.read_bytes(), list((judged / "cache").glob("*.features"))
    find_label_errors.main(options(judged))
    assert "; 0 to compute" in capsys.readouterr().out
    assert table.read_bytes() == before
    whole = cache.read_bytes()
    cache.write_bytes(whole[:len(whole) // 2])
    find_label_errors.main(options(judged))
    printed = capsys.readouterr()
    assert "cannot be used" in printed.err
    assert "; 45 to compute" in printed.out
    assert table.read_bytes() == before
    torch.manual_seed(2)
    save_checkpoint(tmp_path / "other.pth",
                    {"model_state_dict": build_model("plain_cnn", 5).state_dict()})
    find_label_errors.main([*options(judged), "--initial_weights", str(tmp_path / "other.pth")])
    assert "; 45 to compute" in capsys.readouterr().out
    table.write_bytes(before)


def test_a_published_dataset_without_groups_or_sha256_is_scored(judged, tmp_path, capsys):
    """Where nothing was cleaned: a photograph is identified by the SHA-256 of its own file."""
    make_labelled(tmp_path / "dataset")
    rows = read_table(tmp_path / "dataset/train_labels.csv")
    (tmp_path / "dataset/train_labels.csv").write_text("path,label\n" + "".join(
        f"{row['path']},{row['label']}\n" for row in rows))
    find_label_errors.main([*options(judged), "--dataset_dir", str(tmp_path / "dataset"),
                            "--cleaned_dir", str(tmp_path / "nothing")])
    said = capsys.readouterr().err
    assert "no column 'group'" in said
    assert "has no cleaned.csv" in said
    scores = read_table(tmp_path / "nothing/label_scores.csv", find_label_errors.COLUMNS)
    assert {row["file"] for row in scores} == {row["path"] for row in rows}
    assert all(len(row["sha256"]) == 64 for row in scores)


def test_a_class_of_one_group_is_left_out_and_named(judged, tmp_path, capsys):
    """No other fold could teach it: all its labels would be doubted."""
    rows = [row for row in read_table(judged / "cleaned/cleaned.csv")
            if row["class"] == NAMES[1] and row["status"] == "kept"]
    (tmp_path / "collected").mkdir()
    write_table(tmp_path / "collected/found.csv", ("url", "page", "license", "author", "sha256"),
                [{"page": "https://example.org/plant", "sha256": row["sha256"]} for row in rows])
    before = (judged / "cleaned/label_scores.csv").read_bytes()
    find_label_errors.main([*options(judged), "--collected_dir", str(tmp_path / "collected")])
    assert f"photographs of {NAMES[1]} are not scored" in capsys.readouterr().err
    scores = read_table(judged / "cleaned/label_scores.csv")
    assert {row["class"] for row in scores} == {NAMES[0], NAMES[2]}
    (judged / "cleaned/label_scores.csv").write_bytes(before)


@pytest.mark.parametrize("more, said", [
    (["--initial_weights", "none"], "random network"),
    (["--cleaned_dir", "nowhere", "--dataset_dir", "nowhere"], "does not exist")])
def test_bad_input_is_named_and_nothing_is_written(judged, more, said):
    before = snapshot(judged)
    with pytest.raises(InputError, match=said):
        find_label_errors.main([*options(judged), *more])
    assert snapshot(judged) == before


def test_a_photograph_unlike_its_neighbours_is_an_outlier():
    features = np.random.default_rng(0).normal(3, 0.3, (60, 8)).astype(np.float32)
    features[7] *= -1
    scores = find_label_errors.score_outliers(features)
    assert scores.argmin() == 7 and scores[7] < 0.01
    assert np.median(scores) == pytest.approx(np.exp(-1), abs=0.01)


def test_outlier_scores_take_little_memory_whatever_the_number_of_photographs():
    features = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    tracemalloc.start()
    find_label_errors.score_outliers(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 70e6  # all distances at once, with their order: 108 MB


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
    first = {row["file"] for row in read_table(tmp_path / "cleaned/label_scores.csv")[:30]}
    assert len(first & wrong) >= 10
