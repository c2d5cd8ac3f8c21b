"""Several processes of torchrun train as one does: same loss, one writer, and a common end."""
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from model import build_model
from tests.conftest import ROOT, run_script, snapshot
from tests.training_runs import curves, flags, load, read_history, weights
from training import checkpoints

pytestmark = pytest.mark.slow


def start(world_size, arguments):
    """Start that many ranks of train.py and return torchrun's process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               f"--nproc-per-node={world_size}", "--", ROOT / "train.py", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, status=0):
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == status, stdout + stderr
    return stdout, stderr


@pytest.mark.parametrize("options", [
    ["--no-linear_probe", "--balance", "oversample", "--trivial_augment", "--color_jitter", "0.2",
     "--erasing", "0.3", "--learning_rate", "3e-4"],
    ["--balance", "logit_adjustment", "--probe_views", "3",
     "--backbone_learning_rate", "1e-6"],
    ["--num_epochs", "1", "--backbone_learning_rate", "1e-6", "--teacher", "a trained one"]])
def test_two_ranks_train_as_one_process_does(folder, options):
    """With frozen BatchNorm, and without dropout (ResNet has none), mixing and class weights.

    The ranks see together what the process sees, step by step, so that their mean gradient is its
    gradient. BatchNorm, dropout and mixing are each rank's own, and class weights are normalised
    within each rank's photographs.
    """
    table = folder / "dataset/train_labels.csv"  # less of one class, for class balance to matter
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-5]))
    torch.manual_seed(0)
    torch.save(build_model("resnet18", 9).state_dict(), folder / "w.pth")
    if "--teacher" in options:
        run_script("train.py", *flags(folder, "--run", "teacher"))
        options = [*options[:-1], folder / "checkpoints/teacher" / checkpoints.BEST]
    options = ["--model", "resnet18", "--initial_weights", folder / "w.pth", "--freeze_batchnorm",
               "--num_epochs", "2", *options]  # later ones win
    process = start(2, flags(folder, *options, "--run", "two"))
    run_script("train.py", *flags(folder, *options))
    stdout, _ = finish(process)
    one, two = read_history(folder), read_history(folder, "two")
    assert len(one) == len(two) >= 2
    # Adam turns rounding of gradients near zero into steps: noise of 1e-7 in the initial weights
    # alone moves these losses by up to 6e-4, and at the default rate, with smoothed labels, by 0.04
    for key in ("epoch", "train_loss", "val_loss", "val_calibrated_loss", "val_accuracy"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one],
                                                            abs=4e-3), key
    one, two = weights(folder), weights(folder, "two")
    assert all(torch.allclose(one[key], two[key], atol=1e-3) for key in one)

    assert stdout.count("2 ranks, 3 photographs each") == stdout.count("\nval acc") == 1
    epochs = re.findall(r"^epoch +\d+/\d+ ", stdout, re.MULTILINE)
    assert len(epochs) == len(read_history(folder, "two")), "rank 0 alone prints"
    assert len(list((folder / "runs/two").glob("events*"))) == 1, "and writes"
    points = [{tag: len(values) for tag, values in curves(folder, run).items()}
              for run in ("tiny", "two")]
    assert points[0] == points[1]


def test_ranks_mix_and_average_with_class_weights(folder):
    """Where results may differ from one process, training still learns and ranks end alike."""
    stdout, _ = finish(start(2, flags(folder, "--mixup", "0.2", "--cutmix", "1", "--num_epochs",
                                      "8", "--balance", "weights")))
    lines = read_history(folder)
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert lines[-1]["val_loss"] < lines[0]["val_loss"]
    assert stdout.count("\nval acc") == 1


def test_a_run_resumes_with_another_number_of_ranks_after_one_was_killed(folder):
    """Rank 1 is killed during a run: all ranks end, and three ranks resume from the last epoch."""
    arguments = flags(folder, "--num_epochs", "30")
    process, printed = start(2, arguments), ""
    for line in process.stdout:
        printed += line
        if line.startswith("epoch   2/"):
            break
    assert "2 ranks, 3 photographs each" in printed
    command = ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)]
    children = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ranks = [int(line.split()[0]) for line in children.splitlines() if "train.py" in line]
    os.kill(ranks[1], signal.SIGKILL)
    _, stderr = finish(process, status=1)
    assert "SIGKILL" in stderr or "another rank has ended" in stderr
    stopped = load(folder)
    assert 2 <= stopped["epoch"] < 30
    stdout, _ = finish(start(3, arguments))
    assert f"after epoch {stopped['epoch']}" in stdout
    assert [line["epoch"] for line in read_history(folder)] == list(range(1, 31))


def test_a_batch_too_small_for_the_ranks_is_refused(folder):
    before = snapshot(folder)
    _, stderr = finish(start(2, flags(folder, "--batch_size", "3", "--no-cache")), status=1)
    assert "--batch_size is 3" in stderr
    assert snapshot(folder) == before
