"""What a run prints: expected memory, photographs per class, progress bars, time left."""
import os
import re
import struct
import subprocess
import sys

import pytest
import torch
from PIL import Image

import config
import train
from hyperparameter_optimization import build_space
from images import View
from model import complete
from tests.conftest import NAMES, ROOT, make_labelled, write_classes
from tests.training_runs import flags, make_folder, same, settings, weights, write_weights
from training.plan import (
    DEFAULTS,
    describe_enlarging,
    describe_idle,
    describe_plan,
    estimate_memory,
)


def completed(**changes):
    return complete(config.namespace(**{"train_size": changes.get("image_size", 224), **changes}))


@pytest.mark.parametrize("name, least, most", [  # MB per photograph, measured: 53, 110, 209
    ("mobilenet_v3_large", 42, 64), ("convnext_tiny", 88, 132), ("densenet201", 167, 251)])
def test_memory_per_photograph_is_near_the_measured(name, least, most):
    fixed, each = estimate_memory(completed(model=name), 50)
    assert least < 1000 * each < most
    assert 0.5 < fixed < 2
    smaller = estimate_memory(completed(model=name, image_size=112), 50)[1]
    assert smaller == pytest.approx(each / 4, rel=0.1)
    frozen = estimate_memory(completed(model=name, freeze_backbone=True), 50)[1]
    assert frozen < each / 100


def test_photographs_smaller_than_the_view_are_announced(tmp_path):
    for number, side in enumerate((100, 110, 300)):
        Image.new("RGB", (side, 400)).save(tmp_path / f"{number}.jpg")
    paths = sorted(map(str, tmp_path.glob("*.jpg")))
    line, = describe_enlarging(paths, View(112))
    assert "2 of 3" in line and "from 100 to 110 pixels to 128" in line
    assert "--output_side 128" in line
    assert not describe_enlarging(paths, View(64))


def test_a_batch_that_does_not_fit_is_announced_with_one_that_does():
    s, cpu = completed(model="mobilenet_v3_small"), torch.device("cpu")
    assert len(describe_plan(s, 50, 100, 2, cpu)) == 1
    plan, advice = describe_plan(s, 50, 1, 100_000, cpu)
    assert "100000 photographs" in plan
    fits = int(re.search(r"--micro_batch (\d+)", advice)[1])
    s.micro_batch = fits * 3 // 4  # for other processes take and give back memory meanwhile
    again, = describe_plan(s, 50, 1, 100_000, cpu)
    needed, free = map(float, re.findall(r"([\d.]+) GB", again))
    assert f"{-(-100_000 // s.micro_batch)} passes" in again
    assert 0.6 * free < needed < 0.95 * free
    huge = completed(model="mobilenet_v3_small", image_size=40_000)
    assert "--image_size" in describe_plan(huge, 50, 1, 2, cpu)[1]


def test_a_run_says_what_it_will_take(tmp_path, capsys):
    folder = make_folder(tmp_path)
    table = folder / "dataset/train_labels.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-4]) + "\n")
    train.train(settings(folder, "--num_epochs", "2"))
    printed = capsys.readouterr().out
    assert f"per class 3 ({NAMES[2]}) to 7 ({NAMES[0]}) for training" in printed
    assert re.search(r"epochs: 2, of 2 steps of 6 photographs, about 0\.\d GB of memory", printed)
    first, second = (line for line in printed.splitlines() if line.startswith("epoch "))
    assert re.search(r" \d+ s left$", first)
    assert "left" not in second


def test_settings_without_effect_are_named_and_not_searched(tmp_path, capsys):
    folder = make_folder(tmp_path)
    rates = {}
    for rate in ("1e-5", "1e-1"):
        s = settings(folder, "--initial_weights", write_weights(folder), "--num_epochs", "1",
                     "--learning_rate", rate, "--run", rate)
        train.train(s)
        rates[rate] = weights(folder, rate)
    assert same(*rates.values())
    named = [line for line in capsys.readouterr().out.splitlines() if "without effect" in line]
    assert len(named) == 2
    assert all("learning_rate" in line and "--backbone_learning_rate" in line for line in named)
    for initial_weights in ("w.pth", "none"):
        assert describe_idle(completed(initial_weights=initial_weights)) == []
    assert {name: getattr(config, name.upper()) for name in DEFAULTS} == DEFAULTS
    space = build_space(completed(initial_weights="w.pth"))
    assert "learning_rate" not in space and "layer_decay" in space
    assert "layer_decay" not in build_space(completed(initial_weights="none"))


@pytest.mark.parametrize("chosen, idle, active", [
    ({"freeze_backbone": True, "linear_probe": False}, {"backbone_learning_rate": 1e-5},
     {"learning_rate": 1e-4}),
    ({"freeze_backbone": True}, {"freeze_batchnorm": False}, {"backbone_learning_rate": 1e-5}),
    ({}, {"batchnorm_momentum": 0.5, "teacher_weight": 0.5}, {"mixup": 0.3}),
    ({"freeze_batchnorm": False}, {}, {"batchnorm_momentum": 0.5}),
    ({"num_epochs": 0}, {"mixup": 0.3, "patience": 2, "weight_decay": 0.5}, {"probe_views": 2})])
def test_only_settings_that_change_nothing_are_named(chosen, idle, active):
    named = " ".join(describe_idle(completed(initial_weights="w.pth", **chosen, **idle, **active)))
    assert all(f"{name} {value} (" in named for name, value in idle.items())
    assert not any(f"{name} {value} (" in named for name, value in active.items())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals")
def test_every_phase_has_a_bar_on_a_terminal(tmp_path):
    import fcntl
    import pty
    import termios
    folder = make_folder(tmp_path)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))  # else no room
    command = [sys.executable, ROOT / "train.py",
               *flags(folder, "--num_epochs", "1", "--initial_weights", write_weights(folder))]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL,
                          stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # the other end was closed
            pass
    assert process.returncode == 0
    for phase in ("linear probe, view 1 of 4", "linear probe, view 4 of 4",
                  "linear probe, validation", "linear probe, weight decays", "epoch 1/1",
                  "validation", "features of all labelled photographs"):
        assert f"{phase}:".encode() in shown


def test_a_loss_that_is_not_a_number_stops_the_epoch_within_some_steps(tmp_path):
    make_labelled(tmp_path / "dataset", train=40)
    write_classes(tmp_path / "classes.csv", NAMES)
    s = settings(tmp_path, "--batch_size", "2", "--learning_rate", "1e30", "--warmup_epochs", "0")
    steps = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: steps.append(1)
        if isinstance(module, torch.nn.Flatten) and module.training else None)
    try:
        with pytest.raises(train.Diverged, match="in training in epoch 1"):
            train.train(s)
    finally:
        hook.remove()
    assert len(steps) <= 21 < 54
