"""Training on a small drawn dataset: it learns, selects on validation, and says what is wrong."""
import json
import math
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import register_optimizer_step_pre_hook

import train
from dataset import batches, build_eval_loader
from evaluation.predictor import load_pytorch
from evaluation.trained_model import restore_model
from images import View
from model import build_model
from predict import read_view
from tests.conftest import NAMES, run_script, shared, snapshot, write_classes
from tests.training_runs import (
    Stopped,
    curves,
    evaluation_flags,
    flags,
    load,
    read_history,
    same,
    settings,
    stop_after,
    weights,
    write_weights,
)
from training import checkpoints
from training.fit_answers import build_fit_answers
from training.run_log import explain_choice
from training.runs import clearly_worse
from utils import FileLock, InputError, read_table


def test_one_process_at_a_time_trains_a_run(folder):
    """Two processes would write the same files, and some saves would fail."""
    run = folder / "checkpoints/tiny"
    run.mkdir(parents=True)
    with FileLock(run / "lock"):
        done = run_script("train.py", *flags(folder), status=1)
    assert "run tiny" in done.stderr and "--run" in done.stderr
    assert [path.name for path in run.iterdir()] == ["lock"]
    assert not (folder / "runs").exists()  # its events would hide those of the other process


def test_it_learns_and_is_evaluated_by_the_scripts(folder):
    done = run_script("train.py", *flags(folder, "--num_epochs", "8", "--num_workers", "2"))
    assert "\x1b" not in done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("val acc 100.00% (3 of 3, 95 % confidence interval 44 to 100; ")
    assert "no sets of names: fewer than 19 photographs" in done.stdout
    assert last.endswith(f"checkpoint {folder / 'checkpoints/tiny' / checkpoints.BEST}")
    assert sum(line.startswith("epoch ") for line in done.stdout.splitlines()) == 8
    assert (folder / "runs/tiny/settings.json").is_file()
    record = json.loads((folder / "runs/tiny/settings.json").read_text())
    assert record["settings"]["num_epochs"] == 8
    assert len(read_history(folder)) == 8

    again = run_script("train.py", *flags(folder, "--num_epochs", "8", "--num_workers", "2"))
    assert again.stdout.splitlines()[-1] == "already finished: " + last

    done = run_script("evaluate.py", *evaluation_flags(folder))
    assert done.stdout.splitlines()[-1].startswith("test accuracy 100.00 %")
    assert "no sets of names: fewer than 19 photographs" in done.stdout
    report = json.loads((folder / "runs/tiny/report.json").read_text())
    assert report["accuracy"] == 1.0
    assert report["interval"] == pytest.approx([0.7009, 1.0], abs=1e-4)
    assert report["photographs"] == 9
    assert len(read_table(folder / "runs/tiny/predictions.csv")) == 9
    per_class = read_table(folder / "runs/tiny/per_class.csv")
    assert [row["recall"] for row in per_class] == ["1.0000"] * 3
    assert (folder / "runs/tiny/confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.gpu
@pytest.mark.parametrize("more", [
    ["--no-compile"], ["--no-cache", "--no-compile", "--no-bfloat16"], []])
def test_a_run_on_a_gpu_learns_and_resumes(folder, more):
    """With a cache and without, compiled and not; stopped and resumed."""
    best = train.train(settings(folder, "--device", "cuda", "--num_epochs", "8", *more))
    assert best["accuracy"] == 1.0
    cut = ["--device", "cuda", "--run", "cut", *more]
    with pytest.raises(Stopped):
        train.train(settings(folder, *cut), stop_after(1))
    assert train.train(settings(folder, *cut))["accuracy"] > 0.5


def test_a_small_dataset_can_be_learned_by_heart(folder):
    train.train(settings(folder, "--num_epochs", "25", "--color_jitter", "0", "--erasing", "0",
                         "--crop_scale_min", "1", "--label_smoothing", "0", "--flip", "0",
                         "--learning_rate", "0.01"))
    history = read_history(folder)
    assert history[-1]["train_loss"] < 0.1 < history[0]["train_loss"]


def test_training_never_opens_the_test_set(folder):
    shutil.rmtree(folder / "dataset/test")
    (folder / "dataset/test_labels.csv").unlink()
    assert train.train(settings(folder, "--num_epochs", "1"))["epoch"] == 1


def test_every_way_of_balancing_trains_an_epoch(folder):
    for balance in ("oversample", "sampling", "weights", "logit_adjustment"):
        s = settings(folder, "--num_epochs", "1", "--balance", balance, "--run", balance)
        assert train.train(s)["epoch"] == 1


def test_tensorboard_has_all_curves_pictures_and_settings(folder):
    norms = []

    def measure(optimizer, *_):
        if isinstance(optimizer, torch.optim.AdamW):  # others fit probes
            norms.append(math.sqrt(sum(
                float(parameter.grad.square().sum()) for group in optimizer.param_groups
                for parameter in group["params"])))
    hook = register_optimizer_step_pre_hook(measure)
    try:
        train.train(settings(folder, "--validation_share", "0.4", "--learning_rate", "1e-6"))
    finally:
        hook.remove()
    events = EventAccumulator(str(folder / "runs/tiny"))
    events.Reload()
    recalls = {f"val_recall/{name}" for name in NAMES}
    assert set(events.Tags()["scalars"]) == {
        "loss/train", "loss/val", "loss/val_calibrated", "accuracy/train", "accuracy/val",
        "macro_f1/val", "learning_rate", "images_per_second", "gradient_norm", "weight_norm/head",
        "weight_norm/other", "time/seconds_per_epoch", "time/minutes_left", *recalls}
    last = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    assert last["gradient_norm"] == pytest.approx(np.mean(norms[-2:]), rel=1e-4)
    trained = weights(folder)
    head = [name for name in trained if name.endswith("weight")][-1]
    assert last["weight_norm/head"] == pytest.approx(trained[head].norm().item(), rel=1e-4)
    # as many validation photographs per class: the mean of the recalls is the accuracy
    assert np.mean([last[tag] for tag in recalls]) == pytest.approx(last["accuracy/val"])
    assert 0 < last["accuracy/train"] <= 1
    assert last["time/minutes_left"] == 0 < events.Scalars("time/minutes_left")[0].value
    assert events.Tags()["images"] == ["first batch", "validation mistakes"]
    assert [image.step for image in events.Images("validation mistakes")] == [3]
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "batch_size = 6" in text


# ---- the epoch that is kept ----

def test_early_stopping_counts_from_the_lowest_loss(folder):
    best = train.train(settings(folder, "--num_epochs", "30", "--patience", "2",
                                "--learning_rate", "0.03"))
    losses = [line["val_calibrated_loss"] for line in read_history(folder)]
    lowest = 1 + losses.index(min(losses))
    assert len(losses) == lowest + 2 < 30
    assert best["epoch"] == load(folder, name=checkpoints.BEST)["epoch"] == lowest


def test_the_last_epoch_is_kept_that_validation_does_not_find_clearly_worse(folder, capsys):
    s = settings(folder, "--num_epochs", "12", "--learning_rate", "0.05",
                 "--validation_share", "0.4")
    loader, losses = build_eval_loader(train.build_data(s).val_table, s), []

    def look(*_):
        last = load(folder)
        model = restore_model(last, "", last["class_names"])
        val_batches = batches(loader, torch.device("cpu"), s.mean, s.std)
        losses.append(train.validate(model, val_batches, s.flip_tta)[1])
    best = train.train(s, look)
    lowest = min(losses, key=torch.mean)
    kept = [epoch for epoch, loss in enumerate(losses, 1) if not clearly_worse(loss, lowest)]
    assert best["epoch"] == kept[-1]
    assert len(kept) < 12
    explained = f"epoch {kept[-1]} is kept" in capsys.readouterr().out
    assert explained == (losses[kept[-1] - 1] is not lowest)


def test_a_mixture_with_a_higher_loss_than_an_earlier_epoch_is_explained(capsys):
    lowest = {"epoch": 3, "losses": torch.tensor([0.1, 0.3])}
    for loss, named in ((0.25, True), (0.19, False)):
        best = {"epoch": 9, "calibrated_loss": loss, "tuned_share": 0.7}
        explain_choice(SimpleNamespace(lowest=lowest, best=best))
        printed = capsys.readouterr().out
        assert ("epoch 3" in printed and "0.2000" in printed and "0.2500" in printed) == named
        assert named or not printed


def test_the_lowest_loss_is_that_at_the_fitted_temperature(folder):
    """The losses that select epochs are the calibrated ones of the history, not the plain ones."""
    train.train(settings(folder, "--num_epochs", "6", "--validation_share", "0.4"))
    last = load(folder)
    lowest = min(last["history"], key=lambda line: line["val_calibrated_loss"])
    assert last["lowest"]["epoch"] == lowest["epoch"]
    assert last["lowest"]["losses"].mean().item() == pytest.approx(lowest["val_calibrated_loss"])
    assert any(line["val_loss"] != pytest.approx(line["val_calibrated_loss"], rel=1e-3)
               for line in last["history"])


# ---- what is trained ----

def test_a_frozen_run_changes_the_head_only(folder):
    before = torch.load(write_weights(folder), weights_only=True)
    train.train(settings(folder, "--freeze_backbone", "--initial_weights", folder / "w.pth"))
    after = weights(folder)
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {"18.weight", "18.bias"}
    with pytest.raises(InputError, match="random network"):
        train.train(settings(folder, "--freeze_backbone", "--run", "no"))


def test_the_linear_probe_alone_is_a_finished_model(folder):
    """With no epochs the head is fitted once, and evaluate.py accepts the checkpoint."""
    options = flags(folder, "--num_epochs", "0", "--initial_weights", write_weights(folder))
    done = run_script("train.py", *options)
    assert "epoch   0/0" in done.stdout and "epoch 0 (the linear probe alone) of 0" in done.stdout
    before = torch.load(folder / "w.pth", weights_only=True)
    checkpoint = load(folder, name=checkpoints.BEST)
    after = checkpoint["model_state_dict"]
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {"18.weight", "18.bias"}
    assert checkpoint["metrics"]["accuracy"] == 1.0
    assert 0.05 <= checkpoint["temperature"] <= 20
    assert np.isfinite(checkpoint["out_of_distribution"]["threshold"])
    assert checkpoint["flip_tta"] is True
    assert [step for step, _ in curves(folder)["loss/val"]] == [0]
    assert "probe loss" in done.stdout and "train loss" not in done.stdout
    assert "loss/train" not in curves(folder), "it is not comparable with that of fine-tuning"
    again = run_script("train.py", *options)
    assert again.stdout.splitlines()[-1].startswith("already finished: ")
    done = run_script("evaluate.py", *evaluation_flags(folder))
    assert done.stdout.splitlines()[-1].startswith("test accuracy 100.00 %")


def test_the_mixture_of_probe_and_last_epoch_with_the_lowest_loss_is_kept(folder):
    """Labels are partly wrong, so that a mixture is best; the test computes all mixtures anew."""
    for i in (0, 3):
        kinds = sorted((folder / "dataset/train").iterdir())
        images = [sorted(kind.iterdir())[i] for kind in kinds]
        contents = [path.read_bytes() for path in images]
        for path, content in zip(images, contents[1:] + contents[:1], strict=True):
            path.write_bytes(content)
    options = ["--initial_weights", write_weights(folder), "--validation_share", "0.3",
               "--backbone_learning_rate", "1e-4"]
    s = settings(folder, *options)
    best = train.train(s)
    probe, last, kept = (weights(folder, name=name) for name in (
        checkpoints.PROBE, checkpoints.LAST, checkpoints.BEST))
    losses, mixtures, model = {}, {}, build_model("plain_cnn", 3)
    loader = build_eval_loader(train.build_data(s).val_table, s)
    for share in train.SHARES:
        mixtures[share] = {name: (1 - share) * probe[name] + share * value
                           if value.is_floating_point() else value for name, value in last.items()}
        model.load_state_dict(mixtures[share])
        losses[share] = train.validate(model, batches(loader, torch.device("cpu"), s.mean, s.std),
                                       s.flip_tta)[0]["calibrated_loss"]
    lowest = min(losses, key=losses.get)
    assert (best["tuned_share"], best["epoch"]) == (lowest, 3)
    assert best["calibrated_loss"] == pytest.approx(losses[lowest], abs=1e-5)
    assert losses[lowest] < read_history(folder)[-1]["val_calibrated_loss"]
    assert all(torch.allclose(kept[name], value, atol=1e-6)
               for name, value in mixtures[lowest].items())
    assert "tuned_share" not in train.train(
        settings(folder, *options, "--run", "plain", "--no-wise_ft"))
    assert same(last, weights(folder, "plain"))


def test_where_fine_tuning_spoils_the_network_the_linear_probe_is_kept(folder):
    """Mixtures are worse, too; thresholds are of the weights that are kept, not of the last."""
    s = settings(folder, "--initial_weights", write_weights(folder), "--validation_share", "0.3",
                 "--backbone_learning_rate", "0.1")
    best = train.train(s)
    assert best["epoch"] == 0 and "tuned_share" not in best
    kept = load(folder, name=checkpoints.BEST)
    assert same(kept["model_state_dict"], weights(folder, name=checkpoints.PROBE))
    model = restore_model(kept, "", kept["class_names"])
    fit = build_fit_answers(s, train.build_data(s), None, torch.device("cpu"))
    found = fit(model)
    assert kept["temperature"] == pytest.approx(found["temperature"])
    threshold = found["out_of_distribution"]["threshold"]
    assert kept["out_of_distribution"]["threshold"] == pytest.approx(threshold, rel=1e-3)
    model.load_state_dict(weights(folder))
    assert fit(model)["out_of_distribution"]["threshold"] != pytest.approx(threshold, rel=0.01)


def test_statistics_of_the_initial_weights_stay(folder):
    """Frozen BatchNorm keeps its statistics to the bit; its scales are trained."""
    before = torch.load(write_weights(folder), weights_only=True)
    options = ["--initial_weights", folder / "w.pth"]
    train.train(settings(folder, *options, "--freeze_batchnorm"))
    after = weights(folder)
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(after["1.weight"], before["1.weight"])
    assert torch.equal(after["1.running_var"], before["1.running_var"])
    train.train(settings(folder, *options, "--run", "trained", "--no-freeze_batchnorm"))
    trained = weights(folder, "trained")
    assert not torch.equal(trained["1.running_mean"], before["1.running_mean"])


def test_out_of_distribution_images_are_told_from_the_classes(folder):
    """The validation photographs reach the threshold, which all photographs set; noise does not."""
    s = settings(folder, "--num_epochs", "20", "--validation_share", "0.5")
    train.train(s)
    s.checkpoint = str(folder / "checkpoints/tiny" / checkpoints.BEST)
    s.max_file_mb = 100.0  # a setting of predict.py
    predictor = load_pytorch(s)

    def scores(views):
        return (predictor.outputs(views)[:, -1] + predictor.outputs(views[:, :, ::-1])[:, -1]) / 2
    photographs = [read_view(path, View(32), s) for path in train.build_data(s).val_table["path"]]
    inside = scores(np.stack(photographs))
    assert np.mean(inside >= predictor.ood_threshold - 1e-5) >= 0.95
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    assert np.mean(scores(noise) < predictor.ood_threshold) > 0.9


# ---- what is refused ----

@pytest.mark.slow
def test_running_out_of_memory_is_reported_with_the_settings_to_lower(folder):
    limited = ("import resource, subprocess, sys; "
               "resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30)); "
               "sys.exit(subprocess.run(sys.argv[1:]).returncode)")
    done = run_script("train.py", *flags(folder, "--image_size", "4000"), status=1,
                      before=(sys.executable, "-c", limited))
    assert "out of memory" in done.stderr
    assert "--micro_batch 6" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("more, named", [
    (["--initial_weights", "/nowhere.pth"], "/nowhere.pth"),
    (["--dataset_dir", "/nowhere"], "/nowhere"), (["--device", "cuda:99"], "cuda:99"),
    (["--run", ".."], "--run: '..'"), (["--run", "a/b"], "--run: 'a/b'"),
    (["--run", "a\\b"], "--run: "), (["--run", " "], "--run: ' '"),
    (["--num_epochs", "0"], "--linear_probe"),
    (["--model", "alexnet"], "--image_size 32 is too small for alexnet"),
    (["--model", "alexnet", "--image_size", "64", "--train_size", "32"], "--train_size 32 ")])
def test_bad_settings_stop_with_a_message(folder, more, named):
    before = snapshot(folder)
    with pytest.raises(InputError, match=named):
        train.train(settings(folder, *more))
    assert snapshot(folder) == before


def test_a_photograph_that_turns_unreadable_mid_training_is_named(folder):
    victim = folder / "dataset/train/Rosa secunda/rosa_secunda_train_3.jpg"

    def damage(epoch, metrics):
        victim.write_bytes(b"gone bad")
    with pytest.raises(InputError, match=r"rosa_secunda_train_3\.jpg: not a picture"):
        train.train(settings(folder, "--num_workers", "1", "--num_epochs", "9", "--no-cache"),
                    damage)
    assert load(folder)["epoch"] >= 1


# ---- real photographs ----

@pytest.mark.photos
@pytest.mark.slow
def test_real_weights_on_real_photographs(folder):
    """Two frozen epochs from ImageNet weights tell two kinds of flowers apart."""
    photos, classes = shared("photos/flowers"), ["Helianthus annuus", "Galanthus nivalis"]
    write_classes(folder / "two.csv", classes)
    for name in classes:
        (folder / "collected/images").mkdir(parents=True, exist_ok=True)
        (folder / "collected/images" / name).symlink_to(photos / name)
    table = ["--class_table", folder / "two.csv"]
    cleaned, dataset = ["--cleaned_dir", folder / "cleaned"], ["--dataset_dir", folder / "two"]
    collected = ["--collected_dir", folder / "collected"]
    run_script("dataset_preparation/cleaning/cleaning.py", *table, *collected, *cleaned)
    run_script("dataset_preparation/labeling/labeling.py", *table, *collected, *cleaned, *dataset,
               "--test_per_class", "12")
    folders = [*table, *dataset, "--checkpoints_dir", folder / "checkpoints",
               "--runs_dir", folder / "runs"]
    run_script("train.py", *folders, "--model", "mobilenet_v3_small", "--freeze_backbone",
               "--initial_weights", shared("weights") / "mobilenet_v3_small_features.pth",
               "--cache_dir", folder / "cache", "--batch_size", "16", "--num_epochs", "2",
               "--image_size", "128")
    line = run_script("evaluate.py", *folders).stdout.splitlines()[-1]
    assert float(line.split()[2]) >= 90.0
