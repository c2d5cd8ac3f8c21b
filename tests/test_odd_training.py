"""Odd names, seeds, files and folders: training and evaluation use them or say what is wrong."""
import json
import os
import warnings

import numpy as np
import pytest
import torch

import train
from dataset import read_labels
from evaluate import count_training, draw_confusion
from evaluation.learning_curve import probe_shares
from model import build_model, load_initial_weights
from settings import command_line
from tests.conftest import NAMES, draw, jpeg
from tests.training_runs import load, settings
from training import checkpoints
from training.fit_answers import Features, leave_classes_out, set_threshold, statistics_of
from training.optimization import read_balance
from training.study import open_sqlite
from utils import InputError, PlantClass, file_sha256

CLASSES = [PlantClass(label, name, "", "") for label, name in enumerate(NAMES)]


# ---- names, seeds, paths ----

def test_plots_show_names_with_dollar_signs_as_they_are_and_cut_long_ones(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "axes sizes collapsed to zero"
        figure = draw_confusion(tmp_path / "m.png", np.eye(3), ["Rosa $a_{$", "b$", 150 * "c"])
    assert figure.axes[0].get_yticklabels()[1].get_text() == r"b\$"


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_any_integer_seeds_the_folds(seed):
    """With SEED -1, training once ended with a traceback after its last epoch."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 4
    views = rng.normal(labels[None, :, None], 1, (1, 40, 5)).astype(np.float32)
    features = Features(views, labels, np.arange(40))
    taxa = {rank: np.array(list("abcd")) for rank in ("species", "genus", "family")}
    assert leave_classes_out(features, taxa, seed)["photographs"] == 40
    assert probe_shares(features, 4, 1, seed, True)[0].any()


def test_a_single_class_has_a_finite_out_of_distribution_score():
    """Its mean is that of all photographs, so the cosine to it would be 0 / 0."""
    views = np.random.default_rng(0).normal(1, 1, (1, 30, 5)).astype(np.float32)
    features = Features(views, np.zeros(30, int), np.arange(30))
    statistics = statistics_of(features)
    entry, scores = set_threshold(statistics, np.concatenate([
        np.zeros((2, 30)), views.sum(2)]))
    assert np.isfinite(scores).all()
    from evaluation.out_of_distribution import score_parts
    assert np.isfinite(score_parts(entry, views)).all()


def test_a_single_class_is_not_trained(folder):
    """It would reach a validation accuracy of 100 % and name everything alike."""
    with pytest.raises(InputError, match="Rosa prima is the only class.* 2 classes"):
        train.train(settings(folder, "--limit_classes", "1"))
    assert not list((folder / "checkpoints").glob("*"))


@pytest.mark.parametrize("folder", ["what?now", "%41%20#1", "{0} 'q'"])
def test_a_study_is_written_to_its_folder_whatever_the_name(tmp_path, folder):
    (tmp_path / folder).mkdir()
    open_sqlite(tmp_path / folder / "study.db", {}).engine.dispose()
    assert (tmp_path / folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_a_settings_file_of_a_windows_editor_is_read(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps({"num_epochs": 7}), encoding="utf-8-sig")
    assert command_line.read_file(tmp_path / "s.json", None) == {"NUM_EPOCHS": 7}


# ---- photographs and tables ----

def test_one_path_spelled_in_two_ways_is_reported_as_listed_twice(folder):
    table = folder / "dataset/train_labels.csv"
    line = table.read_text().splitlines()[1]
    table.write_text(table.read_text() + line.replace("train/", ".//train/", 1) + "\n")
    with pytest.raises(InputError, match="listed twice"):
        read_labels(table, CLASSES)


def test_all_missing_photographs_are_counted(folder):
    for number in (2, 5):
        (folder / f"dataset/train/Rosa prima/rosa_prima_train_{number}.jpg").unlink()
    with pytest.raises(InputError, match=r": 2; .*train_2\.jpg.*train_5\.jpg"):
        read_labels(folder / "dataset/train_labels.csv", CLASSES)


def test_all_unreadable_photographs_are_named(folder):
    for number in (1, 2, 5):
        path = folder / f"dataset/train/Rosa prima/rosa_prima_train_{number}.jpg"
        kept = path.read_bytes() if number == 1 else kept  # noqa: F821 the first sets it
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"train_1\.jpg"):  # it is the picture of its class
        train.train(settings(folder))
    (folder / "dataset/train/Rosa prima/rosa_prima_train_1.jpg").write_bytes(kept)
    with pytest.raises(InputError, match=r"(?s)train_2\.jpg.*train_5\.jpg"):
        train.train(settings(folder))
    assert not list((folder / "cache").glob("*.frames*"))


def test_training_photographs_of_no_class_are_not_counted(folder):
    table = folder / "dataset/train_labels.csv"
    text = table.read_text().replace(",1,Rosa", ",nan,Rosa").replace(",2,Rosa", ",2.0,Rosa")
    table.write_text(text)
    assert count_training(folder / "dataset", CLASSES) == {0: 8, 1: 0, 2: 8}


def test_a_class_with_two_expected_shares_is_named(tmp_path):
    (tmp_path / "mix.csv").write_text("latin,share\na,1\nb,2\na,3\n")
    with pytest.raises(InputError, match="line 4: a"):
        read_balance(str(tmp_path / "mix.csv"), ["a", "b"])


# ---- runs ----

def test_a_checkpoint_is_on_the_disk_before_it_replaces_another(tmp_path, monkeypatch):
    """Otherwise a power cut could leave an empty file under its name."""
    done, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    checkpoints.save_checkpoint(tmp_path / "c", {})
    assert done == ["sync", "replace"]


def test_a_run_whose_best_checkpoint_is_gone_says_so(folder):
    train.train(settings(folder, "--num_epochs", "1"))
    (folder / "checkpoints/tiny" / checkpoints.BEST).unlink()
    with pytest.raises(InputError, match=checkpoints.BEST):
        train.train(settings(folder, "--num_epochs", "1"))


def test_the_checkpoint_of_another_run_is_not_overwritten(folder):
    """Such as that in checkpoints/downloaded, or one that somebody put into a folder by hand."""
    train.train(settings(folder, "--num_epochs", "1"))
    last, best = (folder / "checkpoints/tiny" / name for name in (checkpoints.LAST,
                                                                  checkpoints.BEST))
    last.unlink()
    before = best.read_bytes()
    with pytest.raises(InputError, match="--run"):
        train.train(settings(folder, "--num_epochs", "2"))
    assert best.read_bytes() == before
    train.train(settings(folder, "--num_epochs", "1"))  # as if killed before LAST was written
    assert last.is_file()


def draw_photographs(folder, count):
    """Write so many photographs of nothing known to a new folder; return it."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(jpeg(draw(number, (64, 64))))
    return folder


@pytest.mark.parametrize("name", ["train", "test", "collected"])
def test_a_background_of_known_photographs_is_refused(folder, name):
    """They were counted as unknown plants of which none get a name."""
    background = draw_photographs(folder / "weeds", 3)
    if name == "collected":
        table = folder / "dataset/test_labels.csv"
        content = file_sha256(background / "1.jpg")
        table.write_text(table.read_text().replace(",test00,,", f",test00,{content},"))
    else:
        photograph = folder / f"dataset/{name}/Rosa prima/rosa_prima_{name}_2.jpg"
        (background / "1.jpg").write_bytes(photograph.read_bytes())
    with pytest.raises(InputError, match=r"1 of 3 photographs .*weeds.1\.jpg"):
        train.train(settings(folder, "--num_epochs", "1", "--background", background))


def test_a_background_named_later_sets_the_thresholds_of_a_finished_run(folder, capsys):
    train.train(settings(folder, "--num_epochs", "1"))
    before = load(folder, name=checkpoints.BEST)
    background = draw_photographs(folder / "weeds", 3)
    (background / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    for expected in (False, True):  # the second time there is nothing to do
        capsys.readouterr()
        train.train(settings(folder, "--num_epochs", "1", "--background", background))
        assert ("already finished" in capsys.readouterr().out) == expected
    after = load(folder, name=checkpoints.BEST)
    assert after["unknown"]["others"] == 1 and "others" not in (before["unknown"] or {})
    assert all(torch.equal(value, after["model_state_dict"][key])
               for key, value in before["model_state_dict"].items())


def test_passes_of_a_batch_are_of_equal_size(folder):
    """7 photographs in passes of 6 would leave one, of which BatchNorm has no statistics."""
    few = ["--model", "mobilenet_v3_small", "--batch_size", "7", "--num_epochs", "1"]
    train.train(settings(folder, *few, "--micro_batch", "6"))
    train.train(settings(folder, *few, "--micro_batch", "2", "--run", "pairs"))  # 7 = 2 + 2 + 3
    with pytest.raises(InputError, match="--micro_batch 1"):
        train.train(settings(folder, *few, "--micro_batch", "1", "--run", "other"))


def test_the_probe_of_an_earlier_run_is_not_mixed_in(folder, capsys):
    """Its checkpoints were deleted to begin again, but for the file that nobody knows."""
    checkpoint = {"model_state_dict": build_model("plain_cnn", 9).state_dict()}
    checkpoints.save_checkpoint(folder / "checkpoints/tiny" / checkpoints.PROBE, checkpoint)
    train.train(settings(folder, "--num_epochs", "1"))
    assert "rest of the linear probe" not in capsys.readouterr().out


def test_a_run_does_not_end_in_a_file_that_nothing_reads(folder, monkeypatch):
    broken = {"temperature": float("nan"), "out_of_distribution": None, "answers": None}
    monkeypatch.setattr("training.run_state.build_fit_answers", lambda *_: lambda model: broken)
    with pytest.raises(InputError, match="temperature"):
        train.train(settings(folder, "--num_epochs", "1"))
    assert not load(folder)["finished"]
    load(folder, name=checkpoints.BEST)


# ---- weights ----

def test_initial_weights_that_are_not_finite_are_refused(tmp_path):
    state = build_model("plain_cnn", 3).state_dict()
    state["1.running_var"][3] = float("inf")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"1\.running_var"):
        load_initial_weights(build_model("plain_cnn", 3), "plain_cnn", str(tmp_path / "w.pth"))


def test_a_network_without_a_linear_head_is_refused():
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="linear"):
        build_model("timm:dla34", 3)


STRANGE = {"sparse": torch.ones(3).to_sparse(), "complex": torch.ones(3, dtype=torch.complex64),
           "without data": torch.empty(3, device="meta")}


@pytest.mark.parametrize("kind", STRANGE)
def test_tensors_of_other_kinds_are_refused(tmp_path, kind):
    """Functions that check them raised what no script expects."""
    state = build_model("plain_cnn", 3).state_dict()
    head = {f"{key}.weight": STRANGE[kind] for key in ("head", "1")}
    torch.save({"model_state_dict": {**state, **head}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="plain tensors"):
        checkpoints.load_checkpoint(tmp_path / "w.pth")
    model = build_model("plain_cnn", 3)
    _, message = load_initial_weights(model, "plain_cnn", str(tmp_path / "w.pth"))
    assert "missing there: 1.weight" in message
    torch.save({"model_state_dict": {3: torch.ones(3)}}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="plain tensors"):
        checkpoints.load_checkpoint(tmp_path / "w.pth")
