"""Settings -> a run: its photographs, its network, and the state that training advances.

`train.py` calls build_data, then build_facts, which finds the checkpoint to resume from (`last`, or
None), then build_run. A run is resumed from its checkpoint LAST; BEST is what predictions use.
"""
import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from PIL import Image
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter

import config
from dataset import (
    build_eval_loader,
    build_train_loader,
    fingerprint,
    read_labels,
    split_validation,
)
from images import View, encode, evaluation_view, open_image
from model import build_model, freeze_backbone, load_initial_weights
from training.checkpoints import LAST, RENAMED_SETTINGS, RESUME_FIELDS, load_checkpoint, rename
from training.distributed import on_rank_zero, rank, world_size
from training.fit_answers import build_fit_answers
from training.image_cache import build_cache, view_of
from training.linear_probe import build_linear_probe
from training.optimization import (
    build_average,
    build_criterion,
    build_mix,
    build_optimizer,
    keeps_batchnorm,
    read_balance,
)
from training.runs import pick_device, plain, run_name, stream_seed
from training.teacher import Teacher, build_teacher, compare_teacher, describe_teacher
from utils import InputError, read_classes, read_table

PICTURE_SIDE = 128  # pixels of the picture of a class stored with the network: 4 to 6 kB


class Data(NamedTuple):
    """The labelled photographs of a run; tables as `dataset.read_labels` returns them."""

    classes: list  # of `PlantClass`, in label order
    table: pd.DataFrame  # all labelled photographs: the two tables below together
    train_table: pd.DataFrame
    val_table: pd.DataFrame


@dataclass
class Run:
    """One training run: what it is made of, the settings of its loop, and its state."""

    facts: dict  # what every checkpoint of the run holds, see training/checkpoints.py
    checkpoints: Path  # folder of the checkpoints
    logs: Path  # folder of TensorBoard's events, settings.json and log.jsonl
    writer: SummaryWriter | None  # on rank 0
    device: torch.device
    model: torch.nn.Module
    fit_linear_probe: Any  # fits the head of the model before the epochs; None: no linear probe
    train_loader: Any
    val_loader: Any
    fit_answers: Any  # (model, temperature) -> entries of BEST, see training/fit_answers.py
    mix: Any  # mixes a batch; None: batches stay as they are
    criterion: torch.nn.Module
    teacher: Teacher | None
    optimizer: torch.optim.Optimizer
    scheduler: Any
    average: AveragedModel | None  # running average of the weights; None: off
    # settings that the loop reads
    seed: int
    num_epochs: int
    patience: int
    average_epochs: int
    micro_batch: int
    freeze_backbone: bool
    keep_batchnorm: bool
    # state
    lock: Any = None  # held while the run is trained
    forward: Any = None  # images -> logits; `train` builds it when the head is fitted
    epoch: int = 0  # epochs done
    best: dict | None = None  # epoch and metrics of the epoch kept, the checkpoint BEST
    lowest: dict | None = None  # epoch and losses (N,) of the lowest mean calibrated loss
    history: list = field(default_factory=list)  # one dictionary per epoch


def build_data(s):
    """Return the `Data` of the settings: train_labels.csv, split into training and validation."""
    classes = read_classes(s.class_table, s.limit_classes)
    table = read_labels(s.dataset_dir / "train_labels.csv", classes)
    train_table, val_table = split_validation(table, classes, s.validation_share, s.split_seed)
    return Data(classes, table, train_table, val_table)


def build_facts(s, data):
    """Return (what every checkpoint of this run holds, its last checkpoint or None).

    Raises InputError where `last` cannot be resumed with these settings, see `check_resumable`, or
    where the ranks have different settings or photographs.
    """
    class_names = [plant.latin for plant in data.classes]
    names = [name.lower() for name in config.settings(*config.TRAINING_GROUPS)]
    # The class names stand for the class table: where the file lies does not matter.
    chosen = plain({name: getattr(s, name) for name in names if name != "class_table"})
    settings = {**chosen, "classes": class_names,
                "photographs": fingerprint(data.table, s.dataset_dir)}
    settings = {key: value for key, value in settings.items() if not key.startswith("teacher")}
    if s.train_size == s.image_size:  # runs from before it could differ keep their names
        del settings["train_size"]
    settings |= describe_teacher(s)  # a teacher is what is in its file, wherever that lies
    balance = read_balance(s.balance, class_names)
    if not isinstance(balance, str):  # the path may stay while the table changes
        settings["balance"] = balance.tolist()
    name = s.run or build_run_name(s, settings)
    facts = {"run": name, "model": s.model, "class_names": class_names,
             **view_of(s)._asdict(), "mean": s.mean, "std": s.std, "flip_tta": s.flip_tta,
             "settings": settings, "classes": describe_classes(data.classes, s)}
    path = s.checkpoints_dir / name / LAST
    last = load_checkpoint(path) if path.exists() else None
    if last:
        check_resumable(last, path, settings, s.resume_changed)
    # All ranks resume from what rank 0 found, which alone writes checkpoints.
    first_name, last = on_rank_zero(lambda: (name, last))
    if first_name != name:
        raise InputError(f"rank 0 trains the run {first_name}, this rank {name}; start all ranks "
                         "with the same settings and photographs")
    return facts, last


def describe_classes(classes, s):
    """Return the classes as a checkpoint holds them: texts, and a small picture with its credit.

    The picture is the first training photograph whose licence is known, else the first.
    """
    rows = {}
    for row in read_table(s.dataset_dir / "train_labels.csv", ("path", "label")):
        label = int(float(row["label"]))
        if label not in rows or (row.get("license") and not rows[label].get("license")):
            rows[label] = row
    stored = []
    for plant in classes:
        row = rows[plant.label]
        image = open_image(s.dataset_dir / row["path"].replace("\\", "/"), s.max_megapixels,
                           draft_side=PICTURE_SIDE)[0]
        view = Image.fromarray(evaluation_view(image, View(PICTURE_SIDE)))
        texts = {key: value for key, value in plant._asdict().items()
                 if key not in ("label", "also")}
        stored.append({**texts, "picture": base64.b64encode(encode(view, quality=80)).decode(),
                       **{key: row.get(key) or "" for key in ("author", "license", "url")}})
    return stored


def build_run_name(s, settings):
    """Return the name of the run: its model and a hash of its settings.

    A run from before settings were renamed has its name from the old names of the settings, and
    keeps it.
    """
    earlier = run_name(rename(settings, {new: old for old, new in RENAMED_SETTINGS.items()}))
    return earlier if (s.checkpoints_dir / earlier).is_dir() else run_name(settings)


def check_resumable(last, path, settings, resume_changed):
    """Raise InputError where a run cannot be resumed from `last`, its checkpoint at `path`.

    The error lists the settings that differ from those the run was started with. With
    `resume_changed`, most may differ; a finished run whose number of epochs was raised is then
    marked as unfinished in `last`.
    """
    if not {"settings", *RESUME_FIELDS} <= last.keys():
        raise InputError(f"{path} is not of a run of this train.py; name another run with --run")
    before = last["settings"]
    names = list(settings) + [key for key in ("teacher",) if key in before.keys() - settings.keys()]
    changes = {key: f"{key}: {before.get(key)} -> {settings.get(key)}" for key in names
               if settings.get(key) != before.get(key)}
    if changes and (not resume_changed or {"model", "classes", "freeze_backbone"} & set(changes)):
        raise InputError(f"run {path.parent.name} was started with other settings "
                         f"({'; '.join(changes.values())}); name another run with --run, or resume "
                         "with --resume_changed, which allows any change but of model, classes "
                         "and freeze_backbone")
    if changes:
        last["finished"] = last["finished"] and last["epoch"] >= settings["num_epochs"]


def build_run(s, data, facts, last):
    """Return the `Run` of the settings, at its beginning or where the checkpoint `last` left it."""
    device, num_classes = pick_device(s.device), len(data.classes)
    teacher = build_teacher(s, facts["class_names"], device)
    compare_teacher(s, facts["settings"])
    model, new = build_network(s, num_classes, last)
    model.to(device)
    cache = build_cache(data.table, s)
    train_loader = build_train_loader(data.train_table, s, cache, rank(), world_size())
    val_loader = build_eval_loader(data.val_table, s, cache)
    balance = read_balance(s.balance, facts["class_names"])
    probe = build_linear_probe(s, balance, data.train_table, val_loader, num_classes, cache, device)
    still_random = [] if probe else new  # a fitted head gets the learning rate of the backbone
    optimizer, scheduler = build_optimizer(s, model, still_random, len(train_loader), last)
    labels = data.train_table["label"]
    criterion = build_criterion(balance, labels, num_classes, s.label_smoothing).to(device)
    logs = s.runs_dir / facts["run"]
    next_epoch = last["epoch"] + 1 if last else 0  # of events from here on, the new ones count
    writer = SummaryWriter(logs, purge_step=next_epoch) if rank() == 0 else None
    state = {key: last[key] for key in ("epoch", "best", "lowest", "history")} if last else {}
    return Run(
        facts={**facts, "new": new}, checkpoints=s.checkpoints_dir / facts["run"], logs=logs,
        writer=writer, device=device, model=model, fit_linear_probe=probe,
        train_loader=train_loader, val_loader=val_loader,
        fit_answers=build_fit_answers(s, data, cache, device),
        mix=build_mix(s, num_classes), criterion=criterion, teacher=teacher, optimizer=optimizer,
        scheduler=scheduler, average=build_average(s, model, last), seed=s.seed,
        num_epochs=s.num_epochs, patience=s.patience, average_epochs=s.average_epochs,
        micro_batch=s.micro_batch,
        freeze_backbone=s.freeze_backbone, keep_batchnorm=keeps_batchnorm(s), **state)


def build_network(s, num_classes, last):
    """Return (network, sorted names of the parameters that started random).

    The weights come from the checkpoint `last` where there is one, else they are initial ones.
    """
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, num_classes, s.batchnorm_momentum)
    if last:
        model.load_state_dict(last["model_state_dict"])
        new, message = last["new"], f"resuming after epoch {last['epoch']}"
    else:
        new, message = load_initial_weights(model, s.model, s.initial_weights)
    print(message)
    if s.freeze_backbone:
        freeze_backbone(model, new)
    return model, sorted(new)
