"""A run resumes to the bit, finds its own folder, and refuses what does not belong to it."""
import re
import time

import pytest
import torch

import train
from tests.conftest import snapshot
from tests.training_runs import (
    Stopped,
    curves,
    load,
    read_history,
    same,
    settings,
    stop_after,
    weights,
    write_weights,
)
from training import checkpoints
from training.runs import run_name
from utils import InputError


@pytest.mark.parametrize("options", [
    ["--trivial_augment", "--erasing", "0.5", "--balance", "sampling"],
    ["--initial_weights", "w.pth", "--mixup", "0.4", "--cutmix", "1", "--balance",
     "logit_adjustment", "--layer_decay", "0.7", "--probe_views", "3",
     "--micro_batch", "4"]])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(folder, options):
    """Stopped after each epoch, the last time before the weights are interpolated.

    It is resumed with another number of workers, with and without the cache.
    """
    others = {1: ["--num_workers", "1"], 2: ["--num_workers", "2", "--no-cache"], 3: ["--no-cache"]}
    options = [write_weights(folder) if option == "w.pth" else option for option in options]
    train.train(settings(folder, *options))
    whole, whole_curves = weights(folder), curves(folder)
    for stop, changes in others.items():
        run = f"cut{stop}"
        with pytest.raises(Stopped):
            train.train(settings(folder, *options, "--run", run), stop_after(stop))
        time.sleep(1.1)  # TensorBoard sorts event files of the same second by text: 10 before 9
        train.train(settings(folder, *options, "--run", run, *changes))
        assert same(whole, weights(folder, run))
        assert same(weights(folder, name=checkpoints.BEST), weights(folder, run, checkpoints.BEST))
        assert curves(folder, run) == whole_curves
        first = 0 if "--probe_views" in options else 1
        assert [step for step, _ in curves(folder, run)["loss/val"]] == list(range(first, 4))
        undisturbed, resumed = load(folder), load(folder, run)
        assert undisturbed["best"] == resumed["best"]
    train.train(settings(folder, *options, "--run", "other", "--seed", "1"))
    assert not same(whole, weights(folder, "other"))


def test_a_resumed_run_takes_its_place_in_the_schedule(folder):
    train.train(settings(folder, "--num_epochs", "6"))
    with pytest.raises(Stopped):
        train.train(settings(folder, "--num_epochs", "6", "--run", "cut"), stop_after(3))
    train.train(settings(folder, "--num_epochs", "6", "--run", "cut"))
    rates = [line["lr"] for line in read_history(folder, "cut")]
    assert rates == [line["lr"] for line in read_history(folder)]
    assert rates[1:] == sorted(rates[1:], reverse=True)  # the first epoch warms up
    assert rates[-1] < rates[1] / 5


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


def test_changed_settings_are_listed_and_refused_unless_allowed(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    with pytest.raises(InputError, match=r"batch_size: 6 -> 4.*--resume_changed"):
        train.train(settings(folder, "--batch_size", "4"))
    with pytest.raises(InputError, match="model: plain_cnn -> resnet18"):
        train.train(settings(folder, "--model", "resnet18", "--resume_changed"))
    assert train.train(settings(folder, "--batch_size", "4", "--learning_rate", "1e-5",
                                "--resume_changed"))
    rates = [line["lr"] for line in read_history(folder)]
    assert rates[0] > 1e-4 > 1e-5 >= rates[1]  # the new rate applies from the next step on
    assert len(rates) == 3
    table = folder / "dataset/train_labels.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match="photographs or their labels have changed"):
        train.train(settings(folder, "--batch_size", "4"))


def test_a_finished_run_is_extended(folder, capsys):
    train.train(settings(folder, "--num_epochs", "1"))
    assert load(folder)["finished"]
    train.train(settings(folder, "--num_epochs", "1", "--flip", "0.4", "--resume_changed"))
    assert re.search("without effect.*flip: 0.5 -> 0.4", capsys.readouterr().out)
    best = train.train(settings(folder, "--num_epochs", "2", "--resume_changed"))
    assert [line["epoch"] for line in read_history(folder)] == [1, 2]
    assert load(folder)["finished"]
    assert load(folder, name=checkpoints.BEST)["epoch"] == best["epoch"]


def test_a_clearly_worse_epoch_is_not_kept(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder, "--num_epochs", "2"), stop_after(1))
    best = train.train(settings(folder, "--num_epochs", "2", "--learning_rate", "0.5",
                                "--resume_changed"))
    assert best["epoch"] == 1  # the rate of the second is far too high


@pytest.mark.parametrize("change", [("--split_seed", "1"), ("--validation_share", "0.5")])
def test_a_run_is_not_validated_on_photographs_that_it_was_trained_on(folder, change):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    before = snapshot(folder / "checkpoints")
    with pytest.raises(InputError, match=r"trained on \d+ of the \d+ photographs.*--run"):
        train.train(settings(folder, *change, "--resume_changed"))
    assert snapshot(folder / "checkpoints") == before
    assert train.train(settings(folder, "--flip", "0.4", "--resume_changed"))


def test_a_run_of_an_earlier_format_is_refused(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    torch.save({**load(folder), "format": 5}, folder / "checkpoints/tiny" / checkpoints.LAST)
    with pytest.raises(InputError, match="this version of train.py.*--run"):
        train.train(settings(folder, "--resume_changed"))


def test_losses_on_other_validation_photographs_are_not_compared(folder):
    """With less of them, the rest is trained on: the earlier epoch was chosen on both."""
    larger = settings(folder, "--num_epochs", "2", "--validation_share", "0.4")
    with pytest.raises(Stopped):
        train.train(larger, stop_after(1))
    smaller = ("--num_epochs", "2", "--validation_share", "0.2", "--learning_rate", "0.5",
               "--resume_changed")
    with pytest.raises(InputError, match="no epoch left"):
        train.train(settings(folder, *smaller, "--num_epochs", "1"))
    best = train.train(settings(folder, *smaller))
    assert best["epoch"] == 2
    seen = load(folder)["seen"]
    assert [len(seen[how]) for how in ("trained", "validated")] == [21, 9]


def test_losses_of_other_views_are_not_compared(folder):
    """The best epoch kept its views, and got thresholds fitted to the others."""
    with pytest.raises(Stopped):
        train.train(settings(folder, "--num_epochs", "2"), stop_after(1))
    single = ("--no-flip_tta", "--resume_changed")
    with pytest.raises(InputError, match=r"no epoch left .*flip_tta.*--run"):
        train.train(settings(folder, "--num_epochs", "1", *single))
    train.train(settings(folder, "--num_epochs", "2", "--learning_rate", "0.5", *single))
    best = load(folder, name=checkpoints.BEST)
    assert (best["epoch"], best["flip_tta"]) == (2, False)


def test_a_diverging_run_stops_and_keeps_the_epochs_before(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(2))
    kept = snapshot(folder / "checkpoints")
    with pytest.raises(train.Diverged, match="epoch 3"):
        train.train(settings(folder, "--learning_rate", "1e30", "--resume_changed"))
    assert snapshot(folder / "checkpoints") == {**kept, "tiny/lock": b""}


def test_a_truncated_last_checkpoint_is_named(folder):
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    last = folder / "checkpoints/tiny" / checkpoints.LAST
    last.write_bytes(last.read_bytes()[:-500])
    with pytest.raises(InputError, match="not a readable checkpoint") as raised:
        train.train(settings(folder))
    assert str(last) in str(raised.value)


def forget_settings(folder, run, *names):
    """Rewrite the checkpoints of a run, and its name, as before these settings were added."""
    record = {key: value for key, value in load(folder, run)["settings"].items()
              if key not in names}
    for path in (folder / "checkpoints" / run).glob("*.tar"):
        checkpoints.save_checkpoint(path, {**checkpoints.load_checkpoint(path),
                                           "settings": record})
    earlier = folder / "checkpoints" / run_name(record)
    (folder / "checkpoints" / run).rename(earlier)
    return earlier.name


def test_a_run_outlives_the_addition_of_settings_that_were_off(folder):
    """As if ERASING and TRIVIAL_AUGMENT had been added after its first epoch."""
    with pytest.raises(Stopped):
        train.train(settings(folder, "--run", ""), stop_after(1))
    (new,) = (folder / "checkpoints").iterdir()
    name = forget_settings(folder, new.name, "erasing", "trivial_augment")
    train.train(settings(folder, "--run", ""))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [name]
    assert [line["epoch"] for line in load(folder, name)["history"]] == [1, 2, 3]
    train.train(settings(folder, "--run", "undisturbed"))
    assert same(weights(folder, name), weights(folder, "undisturbed"))
    with pytest.raises(InputError, match="erasing"):
        train.train(settings(folder, "--run", forget_settings(folder, name, "erasing"),
                             "--erasing", "0.5"))
    train.train(settings(folder, "--run", "", "--erasing", "0.5"))
    assert len(list((folder / "checkpoints").iterdir())) == 3
