"""Training and evaluation on a small drawn dataset: it learns, resumes to the bit, and says what is wrong."""
import json
import shutil
import sys
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import register_optimizer_step_post_hook

import config
import evaluate
import train
from dataset import build_eval_loader, read_labels, split_validation
from evaluation import metrics
from model import build_model, head_name, parameter_groups, restore_model
from predict import load_trained, read_view
from tests.conftest import NAMES, make_labelled, run_script, shared, snapshot, write_classes
from training import checkpoints, runs
from training.linear_probe import fit_linear
from training.optimization import build_criterion, build_forward
from utils import InputError, read_classes, read_table


@pytest.fixture
def folder(tmp_path):
    make_labelled(tmp_path / "dataset")
    write_classes(tmp_path / "classes.csv", NAMES)
    return tmp_path


def flags(folder, *more):
    """Return the flags of a tiny run in `folder`; later ones win."""
    return ["--class_table", folder / "classes.csv", "--dataset_dir", folder / "dataset", "--checkpoints_dir",
            folder / "checkpoints", "--runs_dir", folder / "runs", "--model", "plain_cnn", "--initial_weights", "none",
            "--image_size", "32", "--batch_size", "6", "--num_epochs", "3", "--num_workers", "0", "--run", "tiny",
            "--cache_dir", folder / "cache", "--device", "cpu", *more]


UNTOUCHED = config.settings()


def settings(folder, *more):
    vars(config).update(UNTOUCHED)  # flags of an earlier call in the same test do not stay
    config.override([str(flag) for flag in flags(folder, *more)])
    return config.namespace()


def weights(folder, run="tiny", name=checkpoints.LAST):
    return checkpoints.load_checkpoint(folder / "checkpoints" / run / name)["model_state_dict"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def curves(folder, run="tiny"):
    """Return {tag: [(step, value)]} as TensorBoard shows them, times aside."""
    events = EventAccumulator(str(folder / "runs" / run))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
            if tag != "images_per_second"}


class Stopped(Exception):
    pass


def stop_after(epochs):
    def report(epoch, metrics):
        if epoch == epochs:
            raise Stopped
    return report


def test_it_learns_and_is_evaluated_by_the_scripts(folder):
    done = run_script("train.py", *flags(folder, "--num_epochs", "8", "--num_workers", "2"))
    assert "\x1b" not in done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("val acc 100.00%")
    assert last.endswith(f"checkpoint {folder / 'checkpoints/tiny' / checkpoints.BEST}")
    assert sum(line.startswith("epoch ") for line in done.stdout.splitlines()) == 8
    assert {path.name for path in (folder / "runs/tiny").iterdir()} >= {"settings.json", "log.jsonl"}
    record = json.loads((folder / "runs/tiny/settings.json").read_text())
    assert record["settings"]["num_epochs"] == 8
    assert len((folder / "runs/tiny/log.jsonl").read_text().splitlines()) == 8

    again = run_script("train.py", *flags(folder, "--num_epochs", "8", "--num_workers", "2"))
    assert again.stdout.splitlines()[-1] == "finished before: " + last

    done = run_script("evaluate.py", *[flag for flag in flags(folder) if flag != "--run"][:8])
    assert done.stdout.splitlines()[-1] == (
        "test accuracy 100.00 % (95 % interval 70.1 to 100.0), macro-F1 1.000, 9 photographs")
    report = json.loads((folder / "runs/tiny/report.json").read_text())
    assert report["accuracy"] == 1.0
    assert report["photographs"] == 9
    assert len(read_table(folder / "runs/tiny/predictions.csv")) == 9
    assert [row["recall"] for row in read_table(folder / "runs/tiny/per_class.csv")] == ["1.0000"] * 3
    assert (folder / "runs/tiny/confusion_matrix.png").read_bytes().startswith(b"\x89PNG")


def initial_weights(folder):
    """Write weights of a network for other classes into a file and return it: all but the head fits."""
    torch.manual_seed(0)
    torch.save(build_model("plain_cnn", 9).state_dict(), folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize("options", [
    ["--trivial_augment", "--erasing", "0.5", "--balance", "sampling", "--average_epochs", "2"],
    ["--initial_weights", "w.pth", "--mixup", "0.4", "--cutmix", "1", "--balance", "logit_adjustment", "--layer_decay",
     "0.7", "--probe_views", "3", "--average_epochs", "2"]])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(folder, options):
    """Stopped after the first epoch, within the averaged ones, and when only the average is left to judge.

    The rest comes from another number of workers, with and without the cache.
    """
    others = {1: ["--num_workers", "1"], 2: ["--num_workers", "2", "--no-cache"], 3: ["--no-cache"]}
    options = [initial_weights(folder) if option == "w.pth" else option for option in options]
    train.train(settings(folder, *options))
    whole, whole_curves = weights(folder), curves(folder)
    for stop in (1, 2, 3):
        with pytest.raises(Stopped):
            train.train(settings(folder, *options, "--run", f"cut{stop}"), stop_after(stop))
        time.sleep(1.1)  # TensorBoard orders the files of one process and second by text: 10 before 9
        train.train(settings(folder, *options, "--run", f"cut{stop}", *others[stop]))
        assert same(whole, weights(folder, f"cut{stop}"))
        assert same(weights(folder, name=checkpoints.BEST), weights(folder, f"cut{stop}", checkpoints.BEST))
        assert curves(folder, f"cut{stop}") == whole_curves
        first = 0 if "--probe_views" in options else 1
        assert [step for step, _ in curves(folder, f"cut{stop}")["loss/val"]] == list(range(first, 4))
        found = [checkpoints.load_checkpoint(folder / "checkpoints" / run / checkpoints.LAST)
                 for run in ("tiny", f"cut{stop}")]
        assert found[0]["best"] == found[1]["best"]
        assert same(found[0]["average"], found[1]["average"])
    train.train(settings(folder, *options, "--run", "other", "--seed", "1"))
    assert not same(whole, weights(folder, "other"))


@pytest.mark.gpu
@pytest.mark.parametrize("more", [["--no-compile"], ["--no-cache", "--no-compile", "--no-bfloat16"], []])
def test_a_gpu_trains_as_well(folder, more):
    """With a cache and without, compiled and not; stopped and resumed."""
    best = train.train(settings(folder, "--device", "cuda", "--num_epochs", "8", *more))
    assert best["accuracy"] == 1.0
    with pytest.raises(Stopped):
        train.train(settings(folder, "--device", "cuda", "--run", "cut", *more), stop_after(1))
    assert train.train(settings(folder, "--device", "cuda", "--run", "cut", *more))["accuracy"] > 0.5


@pytest.mark.parametrize("able, dtype", [(True, torch.bfloat16), (False, torch.float32)])
def test_bfloat16_is_used_where_the_device_is_made_for_it(folder, monkeypatch, able, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": able}, raising=False)
    model, device, seen = build_model("plain_cnn", 3), torch.device("cpu"), []
    model.get_submodule(head_name(model)).register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    for option in ([], ["--no-bfloat16"]):
        logits = build_forward(settings(folder, *option), model, device)(torch.zeros(2, 3, 32, 32))
        assert logits.dtype == torch.float32
        logits.sum().backward()
    assert seen == [dtype, torch.float32]
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_what_tensorboard_shows(folder):
    train.train(settings(folder))
    events = EventAccumulator(str(folder / "runs/tiny"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss/train", "loss/val", "loss/val_calibrated", "accuracy/val",
                                             "macro_f1/val", "learning_rate", "images_per_second"}
    assert events.Tags()["images"] == ["first batch"]
    assert "batch_size = 6" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_early_stopping_counts_from_the_lowest_loss(folder):
    best = train.train(settings(folder, "--num_epochs", "30", "--patience", "2", "--learning_rate", "0.03"))
    history = [json.loads(line) for line in (folder / "runs/tiny/log.jsonl").read_text().splitlines()]
    losses = [record["val_calibrated_loss"] for record in history]
    lowest = 1 + losses.index(min(losses))
    assert len(losses) == lowest + 2 < 30
    assert lowest <= best["epoch"]
    assert checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.BEST)["epoch"] == best["epoch"]


def test_the_last_epoch_is_kept_that_validation_does_not_find_clearly_worse(folder):
    s, losses = settings(folder, "--num_epochs", "12", "--learning_rate", "0.05", "--validation_share", "0.4"), []
    classes = read_classes(s.class_table)
    table = read_labels(s.dataset_dir / "train_labels.csv", classes)
    loader = build_eval_loader(split_validation(table, classes, s.validation_share, s.split_seed)[1], s)

    def look(*_):
        last = checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.LAST)
        model = restore_model(last, "", last["class_names"])
        losses.append(train.validate(model, loader, torch.device("cpu"), s)[1])
    best = train.train(s, look)
    lowest = min(losses, key=torch.mean)
    kept = [epoch for epoch, loss in enumerate(losses, 1) if not runs.clearly_worse(loss, lowest)]
    assert best["epoch"] == kept[-1]
    assert len(kept) < 12


def test_clearly_worse():
    lowest = torch.tensor([0.1, 0.2, 0.3, 0.2])
    assert not runs.clearly_worse(lowest, lowest)
    assert not runs.clearly_worse(lowest + torch.tensor([0.4, 0.0, 0.0, -0.1]), lowest)  # one photograph's bad luck
    assert runs.clearly_worse(lowest + torch.tensor([0.1, 0.1, 0.05, 0.1]), lowest)


def test_training_never_opens_the_test_set(folder):
    shutil.rmtree(folder / "dataset/test")
    (folder / "dataset/test_labels.csv").unlink()
    assert train.train(settings(folder, "--num_epochs", "1"))["epoch"] == 1


def test_the_run_is_named_by_what_affects_training(folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")  # a machine without git
    train.train(settings(folder, "--run", "", "--num_epochs", "1"))
    train.train(settings(folder, "--run", "", "--num_epochs", "1", "--num_workers", "1"))
    assert len(list((folder / "checkpoints").iterdir())) == 1
    train.train(settings(folder, "--run", "", "--num_epochs", "1", "--flip", "0.1"))
    train.train(settings(folder, "--run", "", "--num_epochs", "1", "--split_seed", "1"))
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert len(names) == 3
    assert all(name.startswith("plain_cnn_") for name in names)


def test_changed_settings_are_listed_and_refused_unless_told(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    with pytest.raises(InputError, match=r"batch_size: 6 -> 4.*--resume_changed"):
        train.train(settings(folder, "--batch_size", "4"))
    with pytest.raises(InputError, match="any change but of model"):
        train.train(settings(folder, "--model", "resnet18", "--resume_changed"))
    assert train.train(settings(folder, "--batch_size", "4", "--learning_rate", "1e-5", "--resume_changed"))
    rates = [json.loads(line)["lr"] for line in (folder / "runs/tiny/log.jsonl").read_text().splitlines()]
    assert rates[0] > 1e-4 > 1e-5 >= rates[1]  # the new rate holds from the next step on
    assert len((folder / "runs/tiny/log.jsonl").read_text().splitlines()) == 3
    table = folder / "dataset/train_labels.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match="photographs: "):
        train.train(settings(folder, "--batch_size", "4"))


def test_a_run_goes_on_with_other_validation_photographs(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder, "--num_epochs", "2"), stop_after(1))
    best = train.train(settings(folder, "--num_epochs", "2", "--validation_share", "0.4", "--learning_rate", "0.5",
                                "--resume_changed"))
    assert best["epoch"] == 1  # the second, its rate far too high, is worse on any photographs


def test_weights_and_sampling_are_one_setting_and_both_train(folder):
    for balance in ("oversample", "sampling", "weights", "logit_adjustment"):
        assert train.train(settings(folder, "--num_epochs", "1", "--balance", balance, "--run", balance))["epoch"] == 1


def test_a_frozen_run_changes_the_head_only(folder):
    before = torch.load(initial_weights(folder), weights_only=True)
    train.train(settings(folder, "--freeze_backbone", "--initial_weights", folder / "w.pth"))
    after = weights(folder)
    head = [key for key in after if not torch.equal(after[key], before[key])] if same(
        {key: after[key] for key in after if before[key].shape == after[key].shape},
        {key: before[key] for key in after if before[key].shape == after[key].shape}) else None
    assert head is not None
    with pytest.raises(InputError, match="random network"):
        train.train(settings(folder, "--freeze_backbone", "--run", "no"))


def test_the_head_alone_is_a_finished_model(folder):
    """No epochs: one fit of the head, a checkpoint with temperature and threshold, and evaluation takes it."""
    options = flags(folder, "--num_epochs", "0", "--initial_weights", initial_weights(folder))
    done = run_script("train.py", *options)
    assert "epoch   0/0" in done.stdout
    before, after = torch.load(folder / "w.pth", weights_only=True), weights(folder, name=checkpoints.BEST)
    assert {key for key in after if not torch.equal(after[key], before[key])} == {"18.weight", "18.bias"}
    checkpoint = checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.BEST)
    assert checkpoint["metrics"]["accuracy"] == 1.0
    assert 0.05 <= checkpoint["temperature"] <= 20
    assert np.isfinite(checkpoint["out_of_distribution"]["threshold"])
    assert checkpoint["flip_tta"] is True
    assert [step for step, _ in curves(folder)["loss/val"]] == [0]
    assert run_script("train.py", *options).stdout.splitlines()[-1].startswith("finished before: ")
    assert run_script("evaluate.py", *options).stdout.splitlines()[-1].startswith("test accuracy 100.00 %")


def test_strangers_are_told_from_the_classes(folder):
    """95 % of the validation photographs reach the threshold; noise does not."""
    train.train(settings(folder, "--num_epochs", "20", "--validation_share", "0.5"))
    predictor = load_trained(config.namespace(checkpoint=str(folder / "checkpoints/tiny" / checkpoints.BEST),
                                              class_table=folder / "classes.csv", device="cpu"))
    classes = read_classes(folder / "classes.csv")
    _, val = split_validation(read_labels(folder / "dataset/train_labels.csv", classes), classes, 0.5, 0)
    s = config.namespace()

    def scores(views):
        return (predictor.outputs(views)[:, -1] + predictor.outputs(views[:, :, ::-1])[:, -1]) / 2
    known = scores(np.stack([read_view(path, 32, s) for path in val["path"]]))
    assert np.mean(known >= predictor.threshold - 1e-5) >= 0.95
    assert known.min() < predictor.threshold + 1e-5
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    assert np.mean(scores(noise) < predictor.threshold) > 0.9


def test_what_the_head_is_fitted_to():
    """The slope of the loss at the fitted weights is that of their decay: a minimum, with and without labels mixed."""
    torch.manual_seed(0)
    features, labels = torch.randn(60, 5), torch.randint(0, 3, (60,))
    criterion = build_criterion(SimpleNamespace(balance="weights"), pd.Series(labels.numpy()), 3)
    weight, bias, loss = fit_linear(features, labels, torch.zeros(3, 5), torch.zeros(3), criterion, 0.1)
    weight.requires_grad_()
    bias.requires_grad_()
    found = criterion(features @ weight.T + bias, labels)
    found.backward()
    assert loss == pytest.approx(found.item())
    assert torch.allclose(weight.grad, -0.1 * weight.detach(), atol=1e-4)
    assert bias.grad.abs().max() < 1e-4


def test_the_average_is_that_of_the_weights_after_every_step(folder):
    steps = []

    def record(optimizer, *_):
        steps.append(torch.cat([parameter.detach().flatten() for group in optimizer.param_groups
                                for parameter in group["params"]]))
    hook = register_optimizer_step_post_hook(record)
    try:
        train.train(settings(folder, "--average_epochs", "2"))
    finally:
        hook.remove()
    last = checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.LAST)
    model, per_epoch = build_model("plain_cnn", 3), len(steps) // 3
    model.load_state_dict({key.removeprefix("module."): value for key, value in last["average"].items()
                           if key != "n_averaged"})
    groups = parameter_groups(model, set(last["new"]), 1.0, 1.0, 0.1)
    average = torch.cat([parameter.detach().flatten() for group in groups for parameter in group["params"]])
    assert last["average"]["n_averaged"] == 2 * per_epoch
    assert torch.allclose(average, torch.stack(steps[per_epoch:]).mean(0), atol=1e-6)
    assert not torch.allclose(average, steps[-1], atol=1e-4)


def test_logit_adjustment_asks_more_of_frequent_classes():
    labels = pd.Series([0] * 90 + [1] * 10)
    logits, target = torch.zeros(1, 2), torch.tensor([1])
    plain, adjusted = (build_criterion(SimpleNamespace(balance=balance), labels, 2)(logits, target).item()
                       for balance in ("none", "logit_adjustment"))
    assert plain == pytest.approx(np.log(2))
    assert adjusted == pytest.approx(-np.log(0.1), abs=1e-6)


def test_statistics_of_the_initial_weights_stay(folder):
    """Frozen BatchNorm keeps its statistics to the bit while its scales are trained, the average included."""
    before = torch.load(initial_weights(folder), weights_only=True)
    train.train(settings(folder, "--initial_weights", folder / "w.pth", "--average_epochs", "1", "--freeze_batchnorm"))
    after = weights(folder)
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(after["1.weight"], before["1.weight"])
    average = checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.LAST)["average"]
    assert torch.equal(average["module.1.running_var"], before["1.running_var"])
    train.train(settings(folder, "--initial_weights", folder / "w.pth", "--run", "trained", "--no-freeze_batchnorm"))
    assert not torch.equal(weights(folder, "trained")["1.running_mean"], before["1.running_mean"])


@pytest.mark.slow
def test_too_little_memory_is_told(folder):
    limited = ("import resource, subprocess, sys; resource.setrlimit(resource.RLIMIT_AS, (5 << 30, 5 << 30)); "
               "sys.exit(subprocess.run(sys.argv[1:]).returncode)")
    done = run_script("train.py", *flags(folder, "--image_size", "4000"), status=1,
                      before=(sys.executable, "-c", limited))
    assert "out of memory" in done.stderr
    assert "--batch_size 6" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("more, said", [
    (["--model", "resnet50"], "unknown model"), (["--initial_weights", "/nowhere.pth"], "no such file"),
    (["--dataset_dir", "/nowhere"], "does not exist"), (["--device", "cuda:99"], "cuda:99"),
    (["--run", ".."], "--run: '..' cannot be"), (["--run", "a/b"], "cannot be"), (["--run", "a\\b"], "cannot be"),
    (["--run", " "], "cannot be"), (["--num_epochs", "0"], "head alone, which needs"),
    (["--model", "alexnet"], "32 is too small for alexnet")])
def test_bad_settings_stop_with_a_message(folder, more, said):
    before = snapshot(folder)
    with pytest.raises(InputError, match=said):
        train.train(settings(folder, *more))
    assert snapshot(folder) == before


def test_a_diverging_run_stops_and_keeps_the_epochs_before(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(2))
    kept = snapshot(folder / "checkpoints")
    last = checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.LAST)
    last["model_state_dict"]["0.weight"].fill_(float("nan"))
    checkpoints.save_checkpoint(folder / "checkpoints/tiny" / checkpoints.LAST, last)
    poisoned = snapshot(folder / "checkpoints")
    with pytest.raises(InputError, match="not finite after epoch 3"):
        train.train(settings(folder))
    assert snapshot(folder / "checkpoints") == poisoned
    assert poisoned[f"tiny/{checkpoints.BEST}"] == kept[f"tiny/{checkpoints.BEST}"]


def test_a_photograph_that_turns_unreadable_mid_training_is_named(folder):
    victim = folder / "dataset/train/Rosa secunda/rosa_secunda_train_3.jpg"

    def damage(epoch, metrics):
        victim.write_bytes(b"gone bad")
    with pytest.raises(InputError, match=r"rosa_secunda_train_3\.jpg: not a picture"):
        train.train(settings(folder, "--num_workers", "1", "--num_epochs", "9", "--no-cache"), damage)
    assert checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.LAST)["epoch"] >= 1


# ---- checkpoints ----

@pytest.mark.parametrize("content, said", [
    (b"", "not a readable checkpoint .*; name another"), (b"PK junk", "not a readable checkpoint"),
    ({"a": 1}, "no model_state_dict"), ({"model_state_dict": {"epoch": 3}}, "no model_state_dict"),
    ([1, 2], "no model_state_dict")])
def test_corrupt_and_foreign_checkpoints_are_named(folder, content, said):
    file = folder / "x.pth.tar"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(InputError, match=said) as raised:
        evaluate.main([str(flag) for flag in flags(folder, "--checkpoint", file)])
    assert str(file) in str(raised.value)


def test_a_checkpoint_with_code_in_it_is_not_run(folder):
    class Evil:
        def __reduce__(self):
            return open, (str(folder / "owned"), "w")
    torch.save({"model_state_dict": {}, "x": Evil()}, folder / "evil.pth.tar")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoints.load_checkpoint(folder / "evil.pth.tar")
    assert not (folder / "owned").exists()


def test_a_truncated_last_checkpoint_is_named(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    last = folder / "checkpoints/tiny" / checkpoints.LAST
    last.write_bytes(last.read_bytes()[:-500])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        train.train(settings(folder))


def test_which_checkpoint_is_used(folder):
    with pytest.raises(InputError, match="no finished run"):
        checkpoints.find_checkpoint("", folder / "checkpoints")
    downloaded = folder / "checkpoints/downloaded" / checkpoints.BEST
    checkpoints.save_checkpoint(downloaded, {"model_state_dict": {}})
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    assert checkpoints.find_checkpoint("", folder / "checkpoints") == downloaded
    train.train(settings(folder))
    assert checkpoints.find_checkpoint("", folder / "checkpoints") == folder / "checkpoints/tiny" / checkpoints.BEST
    assert str(checkpoints.find_checkpoint("mine.pth", folder / "checkpoints")) == "mine.pth"


def test_the_published_dataset_and_checkpoint_are_evaluated_as_they_are(folder, capsys):
    """Only `path,label`, keys that begin with `model.`, no class names: nothing to convert by hand."""
    for side in ("train", "test"):
        table = folder / f"dataset/{side}_labels.csv"
        table.write_text("".join(",".join(line.split(",")[:2]) + "\n" for line in table.read_text().splitlines()))
    train.train(settings(folder, "--num_epochs", "8"))
    state = {f"model.{key}": value for key, value in weights(folder).items()}
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}, "epoch": 8}, folder / "published.pth.tar")
    evaluate.main([str(flag) for flag in flags(folder, "--checkpoint", folder / "published.pth.tar")])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("test accuracy 100.00 %")
    assert "no column 'group'" in printed.err
    assert zipfile.is_zipfile(folder / "published.pth.tar")


def test_evaluation_refuses_other_classes(folder):
    train.train(settings(folder, "--num_epochs", "1"))
    write_classes(folder / "classes.csv", [*NAMES[:2], "Rosa quarta"])
    with pytest.raises(InputError, match=r"rosa_tertia|Rosa tertia"):
        evaluate.main([str(flag) for flag in flags(folder)])


# ---- numbers ----

def test_metrics():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], dtype=np.float32))
    measured = metrics.measure(logits, np.array([0, 1, 1, 2]))
    assert measured["accuracy"] == 0.75
    assert measured["loss"] == pytest.approx(-np.log([0.7, 0.5, 0.3, 0.8]).mean(), abs=1e-6)
    assert measured["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_a_batch_of_eight_can_be_learned_by_heart(folder):
    train.train(settings(folder, "--num_epochs", "25", "--color_jitter", "0", "--erasing", "0", "--crop_scale_min", "1",
                         "--label_smoothing", "0", "--flip", "0", "--learning_rate", "0.01"))
    history = [json.loads(line) for line in (folder / "runs/tiny/log.jsonl").read_text().splitlines()]
    assert history[-1]["train_loss"] < 0.1 < history[0]["train_loss"]


@pytest.mark.photos
@pytest.mark.slow
def test_real_weights_on_real_photographs(folder):
    """Two frozen epochs from ImageNet weights tell two kinds of flowers apart."""
    photos, classes = shared("photos/flowers"), ["Helianthus annuus", "Galanthus nivalis"]
    write_classes(folder / "two.csv", classes)
    for name in classes:
        (folder / "collected/images").mkdir(parents=True, exist_ok=True)
        (folder / "collected/images" / name).symlink_to(photos / name)
    common = ["--class_table", folder / "two.csv", "--collected_dir", folder / "collected", "--cleaned_dir",
              folder / "cleaned", "--dataset_dir", folder / "two"]
    run_script("dataset_preparation/cleaning/cleaning.py", *common)
    run_script("dataset_preparation/labeling/labeling.py", *common, "--test_per_class", "12")
    options = [*common, "--model", "mobilenet_v3_small", "--freeze_backbone", "--initial_weights",
               shared("weights") / "mobilenet_v3_small_features.pth", "--checkpoints_dir", folder / "checkpoints",
               "--runs_dir", folder / "runs", "--cache_dir", folder / "cache", "--batch_size", "16", "--num_epochs",
               "2", "--image_size", "128"]
    run_script("train.py", *options)
    line = run_script("evaluate.py", *options).stdout.splitlines()[-1]
    assert float(line.split()[2]) >= 90.0
