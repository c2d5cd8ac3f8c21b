"""What is measured at the end of a training: thresholds, limits, unknown plants, background."""
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import train
from evaluation.answers import taxa_of
from evaluation.facts import are_limits
from evaluation.out_of_distribution import score, score_parts
from images import encode
from model import build_model
from tests.conftest import jpeg, one_colour
from tests.training_runs import load, make_folder, settings, write_weights
from training import checkpoints
from training.features import build_features
from training.fit_answers import (
    Features,
    answer,
    build_fit_answers,
    fit_entries,
    folds_of,
    leave_classes_out,
    probe_of,
    probe_out_of_fold,
    read_background,
    unseen_features,
)
from training.run_state import build_data
from utils import InputError, PlantClass, file_sha256


def drawn(classes=5, count=40, spread=1.0, seed=0, dimensions=16, first=0):
    """Return `Features` of classes around means that are drawn alike."""
    means = np.random.default_rng(7).normal(0, 2, (30, dimensions)) + 5
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), count)
    views = means[labels + first] + rng.normal(0, spread, (2, len(labels), dimensions))
    return Features(views.astype(np.float32), labels, np.arange(len(labels)) // 2)


def taxa(classes):
    return taxa_of([PlantClass(label, f"Rosa {label}", "", "") for label in range(classes)])


def entries_of(features, **options):
    everything, classes = np.ones(len(features.labels), bool), features.labels.max() + 1
    return fit_entries(features, None, everything, taxa(classes), 0, **options)


def test_the_threshold_accepts_most_photographs_that_set_nothing():
    entries = entries_of(drawn())
    test = drawn(seed=1, count=400)
    statistics = entries["out_of_distribution"]
    accepted = score(statistics, score_parts(statistics, test.views)) >= statistics["threshold"]
    assert 0.92 < accepted.mean() < 0.985
    assert statistics["photographs"] == 200
    assert entries["answers"]["source"] == "out-of-fold"
    assert entries["answers"]["together"]["groups"] == 100  # of two photographs each


def test_the_threshold_of_few_photographs_of_many_features_is_no_lower_than_it_says():
    accepted = []
    for seed in range(3):
        features = drawn(4, 40, 2.0, seed, dimensions=64)
        features = features._replace(groups=np.arange(160))
        statistics = entries_of(features)["out_of_distribution"]
        test = drawn(4, 200, 2.0, 10 + seed, dimensions=64)
        accepted.append(score(statistics, score_parts(statistics, test.views))
                        >= statistics["threshold"])
    assert 0.93 < np.mean(accepted) < 0.97  # 95 % are asked for


def test_groups_stay_together_and_every_photograph_is_left_out_once():
    features = drawn()
    folds = np.array(folds_of(features.labels, features.groups, 0))
    assert (folds.sum(0) == 1).all()
    assert (folds == folds_of(features.labels, features.groups, 0)).all()
    assert (folds != folds_of(features.labels, features.groups, 1)).any()
    assert len(folds_of(features.labels, features.groups, 0, most=3)) == 3
    for group in np.unique(features.groups):
        assert folds[:, features.groups == group].any(1).sum() == 1
    logits = probe_out_of_fold(features, 0)
    assert np.mean(logits.argmax(1) == features.labels) > 0.9


def share_named(entries, features, unknown):
    classes = features.labels.max() + 1
    logits = probe_of(features, classes)(unknown.views).mean(0)
    return np.mean(answer(unknown.views, logits, entries, taxa(classes)).ranks == "species")


def test_leaving_classes_out_tells_how_many_unknown_plants_are_named():
    for spread, least, most in ((1.5, 0, 0.15), (2.5, 0.4, 0.7)):
        features = drawn(classes=12, spread=spread)
        unknown = drawn(classes=18, count=20, seed=2, first=12, spread=spread)
        true = share_named(entries_of(features), features, unknown)
        told = leave_classes_out(features, taxa(12), 0)
        assert told["photographs"] == 480
        assert told["named"] == pytest.approx(true, abs=0.1)
        assert least <= true <= most
    assert leave_classes_out(drawn(classes=2), taxa(2), 0) is None


def test_background_photographs_turn_more_of_their_like_away():
    features, others = drawn(spread=2.5), drawn(classes=4, seed=3, first=8, spread=2.5)
    unknown = drawn(classes=4, seed=4, first=8, spread=2.5)
    plain, sharp = (share_named(entries_of(features, background=background), features, unknown)
                    for background in (None, others.views))
    assert sharp < 0.7 * plain


def test_a_training_with_background_says_what_it_measured(tmp_path, capsys):
    folder = make_folder(tmp_path)
    (folder / "others").mkdir()
    for i in range(6):
        (folder / f"others/{i}.jpg").write_bytes(jpeg(one_colour(i % 3, (90 + i, 70))))
    train.train(settings(folder, "--background", folder / "others", "--num_epochs", "1",
                         "--initial_weights", write_weights(folder)))
    said = capsys.readouterr().out
    unknown = load(folder, name=checkpoints.BEST)["unknown"]
    assert unknown["others"] == 3
    assert f"about {unknown['named']:.0%} would be named" in said
    assert "limits of risk from 3 (validation); with so few" in said
    with pytest.raises(InputError, match="--background"):
        train.train(settings(folder, "--background", folder / "dataset/none", "--run", "other"))


def test_one_half_of_the_background_sets_thresholds_and_the_other_measures(tmp_path):
    """The other half is of plants that the network knows, then of coloured areas."""
    folder, found = make_folder(tmp_path), {}
    (folder / "others").mkdir()
    options = ["--background", folder / "others", "--num_epochs", "0",
               "--initial_weights", write_weights(folder)]
    areas = [jpeg(one_colour(i % 3, (90 + i, 70))) for i in range(12)]
    plants = [encode(Image.open(path), quality=60)  # not the same files, which are refused
              for path in sorted((folder / "dataset/train").rglob("*.jpg"))]
    for i, area in enumerate(areas):
        (folder / f"others/{i}.jpg").write_bytes(area)
    order = read_background(settings(folder, *options))["path"]
    for run, held in (("plants", plants[::2]), ("areas", areas)):
        for path, content in zip(order[1::2], held, strict=False):
            Path(path).write_bytes(content)
        train.train(settings(folder, *options, "--run", run))
        found[run] = load(folder, run, checkpoints.BEST)
    assert found["plants"]["unknown"]["others_named"] == 1
    assert found["areas"]["unknown"]["others_named"] == 0
    one, other = (found[run]["out_of_distribution"] for run in found)
    assert one["threshold"] == other["threshold"]
    features, background = unseen_features(
        settings(folder, *options), build_data(settings(folder)).table,
        read_background(settings(folder, *options)), None)
    assert (features.views.shape[:2], background.shape[:2]) == ((1, 24), (1, 6))


def test_classes_travel_with_the_checkpoint(tmp_path):
    folder = make_folder(tmp_path)
    (folder / "classes.csv").write_text(
        "label,latin,russian,english,also,family,note_en\n"
        "0,Rosa prima,роза,rose,,Rosaceae,Thorny.\n"
        "1,Rosa secunda,,,,,\n2,Rosa tertia,,,,,\n", encoding="utf-8")
    train.train(settings(folder, "--num_epochs", "1"))
    first, second, _ = load(folder, name=checkpoints.BEST)["classes"]
    assert (first["russian"], first["genus"], first["family"]) == ("роза", "Rosa", "Rosaceae")
    assert first["note_en"] == "Thorny."
    assert first["picture"].startswith("/9j/")  # a JPEG in base64
    assert second["picture"] != first["picture"]


def test_classes_of_fewer_photographs_than_folds_are_folded_all_the_same():
    labels, groups = np.array([0, 0, 0, 1, 1, 2]), np.array(list("abcdef"))
    folds = folds_of(labels, groups, 0)
    assert len(folds) == 3
    assert (np.sum(folds, axis=0) == 1).all()
    for few in (labels[[0, 3, 5]], labels[:1]):
        with pytest.raises(InputError, match="too few photographs"):
            folds_of(few, groups[:len(few)], 0)


def test_unknown_plants_are_counted_on_features_that_saw_no_class(tmp_path):
    folder = make_folder(tmp_path)
    s = settings(folder, "--initial_weights", write_weights(folder))
    data = build_data(s)
    fit = build_fit_answers(s, data, None, torch.device("cpu"))
    table, blank = data.table, build_model(s.model, 3)
    contents = [file_sha256(path) for path in table["path"]]
    features = Features(build_features(table, contents, s)[None], table["label"].to_numpy(),
                        table["group"].to_numpy())
    expected = leave_classes_out(features, taxa_of(data.classes), s.seed)
    for parameter in blank.parameters():
        torch.nn.init.constant_(parameter, 0.01)  # features that tell nothing apart
    assert fit(blank)["unknown"] == expected
    (folder / "w.pth").unlink()
    assert fit(blank)["unknown"] is None


def test_without_initial_weights_no_share_of_unknown_plants_is_claimed(tmp_path, capsys):
    """Every feature has seen all classes: leaving them out found 1 % of what was named later."""
    folder = make_folder(tmp_path)
    train.train(settings(folder, "--num_epochs", "1"))
    assert load(folder, name=checkpoints.BEST)["unknown"] is None
    said = capsys.readouterr().out
    assert "would be named was not measured" in said and "% would be named" not in said


def test_features_that_are_all_alike_are_no_information_and_no_error():
    """As of a network whose last activations are all zero; L-BFGS ended in a traceback."""
    features = Features(np.full((1, 12, 4), 0.5, np.float32), np.arange(12) % 3, np.arange(12))
    logits = probe_out_of_fold(features, 0)
    assert np.isfinite(logits).all() and np.ptp(logits) < 1
    assert np.isfinite(probe_of(features.take([0]), 3)(features.views)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("labels, groups", [([0, 0, 1, 1, 2, 2], "aabbcc"), ([0, 1, 2, 2], "abcc")])
def test_too_few_photographs_to_leave_classes_out_are_not_measured(labels, groups):
    """Where none was left to set the limits, training ended in a traceback at its very end."""
    views = np.random.default_rng(0).normal(0, 1, (1, len(labels), 5)).astype(np.float32)
    features = Features(views, np.array(labels), np.array(list(groups)))
    assert leave_classes_out(features, taxa(3), 0) is None


def test_classes_without_any_feature_have_a_score():
    """0 / 0 made the limits NaN, so that train.py ended well and evaluate.py refused its file."""
    views = np.random.default_rng(0).normal(0, 1, (1, 12, 4)).astype(np.float32)
    for dead in (np.arange(12) % 3 == 0, np.ones(12, bool)):  # one class, all of them
        views[:, dead] = 0
        entries = entries_of(Features(views, np.arange(12) % 3, np.arange(12)))
        assert np.isfinite(entries["out_of_distribution"]["threshold"])
        assert are_limits(entries["answers"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_among_the_background_is_left_out(tmp_path, monkeypatch, capsys):
    """To open it waited for ever, without a word."""
    def read(path, *_):
        assert Path(path).is_file()
    monkeypatch.setattr("training.fit_answers.read_resized", read)
    folder = make_folder(tmp_path)
    background = folder / "dataset/test/Rosa prima"
    os.mkfifo(background / "pipe.jpg")
    s = settings(folder, "--background", background)
    assert len(read_background(s)) == 3
    assert "pipe.jpg" in capsys.readouterr().err
