"""Tiny training runs on a drawn dataset, and what they leave behind."""
import json

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import config
from model import build_model, complete
from tests.conftest import NAMES, make_labelled, write_classes
from training import checkpoints


def make_folder(folder):
    """Write a labelled dataset and its class table into a folder; return the folder."""
    make_labelled(folder / "dataset")
    write_classes(folder / "classes.csv", NAMES)
    return folder


def flags(folder, *more):
    """Return the flags of a tiny run in `folder`; later ones win."""
    return ["--class_table", folder / "classes.csv", "--dataset_dir", folder / "dataset",
            "--checkpoints_dir", folder / "checkpoints", "--runs_dir", folder / "runs",
            "--model", "plain_cnn", "--initial_weights", "none", "--image_size", "32",
            "--batch_size", "6", "--num_epochs", "3", "--num_workers", "0", "--run", "tiny",
            "--cache_dir", folder / "cache", "--device", "cpu", *more]


def evaluation_flags(folder, *more):
    """Return the flags by which evaluate.py looks at the newest run in `folder`."""
    return [*flags(folder)[:8], "--device", "cpu", "--num_workers", "0", *more]


def settings(folder, *more):
    """Return the settings of a tiny run in `folder`."""
    return complete(config.parse([str(flag) for flag in flags(folder, *more)], "train.py", "")[0])


def write_weights(folder):
    """Write a file of weights for other classes, of which all but the head fits; return it."""
    torch.manual_seed(0)
    torch.save(build_model("plain_cnn", 9).state_dict(), folder / "w.pth")
    return folder / "w.pth"


class Stopped(Exception):
    """Training was stopped by its report."""


def stop_after(epochs):
    """Return a report that stops training after so many epochs."""
    def report(epoch, metrics):
        if epoch == epochs:
            raise Stopped
    return report


# ---- what a run leaves behind ----

def load(folder, run="tiny", name=checkpoints.LAST):
    """Return a checkpoint of a run."""
    return checkpoints.load_checkpoint(folder / "checkpoints" / run / name)


def weights(folder, run="tiny", name=checkpoints.LAST):
    """Return the weights in a checkpoint of a run."""
    return load(folder, run, name)["model_state_dict"]


def same(one, other):
    """Return whether two state dicts are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def read_history(folder, run="tiny"):
    """Return the lines of a run's log.jsonl."""
    lines = (folder / "runs" / run / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def curves(folder, run="tiny"):
    """Return {tag: [(step, value)]} as TensorBoard shows them, without speed and time."""
    events = EventAccumulator(str(folder / "runs" / run))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
            if not tag.startswith(("images_per_second", "time/"))}
