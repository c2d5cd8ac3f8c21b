"""Several processes of torchrun train as one does: same batches, same loss, one writer, and one end."""
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from dataset import OwnParts
from model import build_model
from tests.conftest import NAMES, ROOT, make_labelled, run_script, snapshot, write_classes
from tests.test_train import curves, flags
from training import checkpoints
from training.optimization import build_mix


@pytest.fixture
def folder(tmp_path):
    make_labelled(tmp_path / "dataset")
    write_classes(tmp_path / "classes.csv", NAMES)
    return tmp_path


def start(count, arguments):
    """Start `count` ranks of train.py and return torchrun's process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "--",
               ROOT / "train.py", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, status=0):
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == status, stdout + stderr
    return stdout, stderr


def history(folder, run):
    return [json.loads(line) for line in (folder / "runs" / run / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    ["--no-linear_probe", "--balance", "weights", "--trivial_augment"],
    ["--mixup", "0.4", "--cutmix", "1", "--probe_views", "3", "--average_epochs", "1"]])
def test_two_ranks_lose_as_much_as_one_process(folder, options):
    """With frozen BatchNorm and no dropout, as ResNet has none; batches of 7 make uneven parts."""
    table = folder / "dataset/train_labels.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-5]))  # so that class weights differ
    torch.manual_seed(0)
    torch.save(build_model("resnet18", 9).state_dict(), folder / "w.pth")
    options = ["--model", "resnet18", "--initial_weights", folder / "w.pth", "--freeze_batchnorm", "--batch_size", "7",
               "--num_epochs", "2", *options]
    process = start(2, flags(folder, *options, "--run", "two"))
    run_script("train.py", *flags(folder, *options))
    stdout, _ = finish(process)
    one, two = history(folder, "tiny"), history(folder, "two")
    assert len(one) == len(two) >= 2
    for key in ("epoch", "train_loss", "val_loss", "val_calibrated_loss", "val_accuracy"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], abs=1e-4), key
    assert stdout.count("2 ranks, each with its part of every batch\n") == stdout.count("\nval acc") == 1
    assert sum(line.startswith("epoch ") for line in stdout.splitlines()) == len(one)
    assert len(list((folder / "runs/two").glob("events*"))) == 1
    assert {tag: len(values) for tag, values in curves(folder, "two").items()} == {
        tag: len(values) for tag, values in curves(folder).items()}
    one, two = (checkpoints.load_checkpoint(folder / "checkpoints" / run / checkpoints.LAST)["model_state_dict"]
                for run in ("tiny", "two"))
    assert all(torch.allclose(one[key], two[key], atol=1e-3) for key in one)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks_after_one_died(folder):
    """Rank 1 is killed in mid-run: all end, the last epoch is kept, and three ranks go on from there."""
    arguments = flags(folder, "--num_epochs", "30")
    process, told = start(2, arguments), ""
    for line in process.stdout:
        told += line
        if line.startswith("epoch   2/"):
            break
    assert "2 ranks, each with its part of every batch; BatchNorm sees one part at a time" in told
    children = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True,
                              check=True).stdout.splitlines()
    os.kill(int([child.split()[0] for child in children if "train.py" in child][1]), signal.SIGKILL)
    _, stderr = finish(process, status=1)
    assert "SIGKILL" in stderr or "another rank has ended" in stderr
    stopped = checkpoints.load_checkpoint(folder / "checkpoints/tiny" / checkpoints.LAST)
    assert 2 <= stopped["epoch"] < 30
    stdout, _ = finish(start(3, arguments))
    assert f"going on after epoch {stopped['epoch']}" in stdout
    assert [line["epoch"] for line in history(folder, "tiny")] == list(range(1, 31))


@pytest.mark.slow
def test_batches_too_small_to_share_are_refused(folder):
    before = snapshot(folder)
    _, stderr = finish(start(2, flags(folder, "--batch_size", "3", "--no-cache")), status=1)
    assert "error: 2 ranks cannot share batches of 3 photographs" in stderr
    assert snapshot(folder) == before


# ---- parts, without processes ----

@pytest.mark.parametrize("count, batch_size", [(2, 7), (3, 10), (1, 4), (4, 9)])
def test_parts_make_up_the_batches(count, batch_size):
    order, parts = list(range(31)), []
    for number in range(count):
        own = OwnParts(order, batch_size, number, count, before=False)
        draws = list(own)
        assert len(own) == len(draws)
        parts.append(torch.tensor(draws).view(-1, len(own.places)))
    whole = torch.cat(parts, dim=1)
    assert whole.tolist() == torch.arange(31 // batch_size * batch_size).view(-1, batch_size).tolist()


@pytest.mark.parametrize("mixup, cutmix", [(0.8, 0), (0, 0.8), (0.8, 0.8)])
def test_parts_are_mixed_as_the_whole_batch_is(mixup, cutmix):
    s, mixed = SimpleNamespace(mixup=mixup, cutmix=cutmix), []
    images, labels = torch.rand(7, 3, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    torch.manual_seed(5)
    wanted = build_mix(s, 3)(images, labels)
    for number in range(2):
        places = list(OwnParts(list(range(7)), 7, number, 2, before=True))
        torch.manual_seed(5)
        mixed.append(build_mix(s, 3, count=2)(images[places], labels[places]))
    for part, whole in zip(zip(*mixed, strict=True), wanted, strict=True):
        assert torch.allclose(torch.cat(part), whole)
