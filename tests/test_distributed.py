"""Several processes of torchrun train as one does: same batches, same loss, one writer, and one end."""
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from dataset import EpochOrder
from model import build_model
from tests.conftest import NAMES, ROOT, make_labelled, run_script, snapshot, write_classes
from tests.test_train import curves, flags
from training import checkpoints


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
    ["--no-linear_probe", "--balance", "oversample", "--trivial_augment", "--color_jitter", "0.2", "--erasing", "0.3"],
    ["--balance", "logit_adjustment", "--probe_views", "3", "--average_epochs", "1"]])
def test_two_ranks_lose_as_much_as_one_process(folder, options):
    """With frozen BatchNorm, no dropout (ResNet has none), no mixing and no class weights in the loss."""
    table = folder / "dataset/train_labels.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-5]))  # so that class frequencies differ
    torch.manual_seed(0)
    torch.save(build_model("resnet18", 9).state_dict(), folder / "w.pth")
    options = ["--model", "resnet18", "--initial_weights", folder / "w.pth", "--freeze_batchnorm", "--batch_size", "6",
               "--num_epochs", "2", *options]
    process = start(2, flags(folder, *options, "--run", "two"))
    run_script("train.py", *flags(folder, *options))
    stdout, _ = finish(process)
    one, two = history(folder, "tiny"), history(folder, "two")
    assert len(one) == len(two) >= 2
    for key in ("epoch", "train_loss", "val_loss", "val_calibrated_loss", "val_accuracy"):
        assert [line[key] for line in two] == pytest.approx([line[key] for line in one], abs=1e-4), key
    assert stdout.count("2 ranks, 3 photographs each per step\n") == stdout.count("\nval acc") == 1
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
    assert "2 ranks, 3 photographs each per step; BatchNorm" in told
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
    assert "--batch_size is 3" in stderr
    assert snapshot(folder) == before


# ---- shards, without processes ----

@pytest.mark.parametrize("balance", ["none", "oversample", "sampling"])
@pytest.mark.parametrize("world_size, share", [(2, 3), (3, 4), (4, 2)])
def test_shards_of_a_step_make_up_the_batch_of_one_process(balance, world_size, share):
    """And so for every epoch: no photograph twice, none left out but those of a smaller last batch."""
    labels, batch_size = [0] * 20 + [1] * 11, world_size * share
    orders = [EpochOrder(labels, balance, 7, rank, world_size) for rank in range(world_size)]
    whole = EpochOrder(labels, balance, 7)
    for epoch in (1, 2):
        for order in (*orders, whole):
            order.set_epoch(epoch)
        draws, shards = list(whole), [list(order) for order in orders]
        assert [len(shard) for shard in shards] == [len(order) for order in orders] == [len(whole) // world_size] * world_size
        assert len(shards[0]) // share == len(whole) // batch_size
        for step in range(len(draws) // batch_size):
            together = [draw for shard in shards for draw in shard[step * share:(step + 1) * share]]
            assert sorted(together) == sorted(draws[step * batch_size:(step + 1) * batch_size])
