"""Settings -> a run: its photographs, its network, and the state that training advances.

`train.py` calls build_data, then build_facts, which also returns the checkpoint to resume from
(`last`, or None), then build_run.
"""
import base64
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

import config
from dataset import build_eval_loader, build_train_loader, read_labels, split_validation
from evaluation.facts import CREDIT, TEXTS
from images import View, encode, evaluation_view, open_image
from model import build_model, freeze_backbone, load_initial_weights
from training import contents
from training.checkpoints import BEST, LAST, RESUME_FIELDS, changed_settings, load_checkpoint
from training.distributed import on_rank_zero, rank, world_size
from training.fit_answers import build_fit_answers
from training.image_cache import build_cache, naming, view_of
from training.linear_probe import build_linear_probe
from training.optimization import (
    build_criterion,
    build_mix,
    build_optimizer,
    keeps_batchnorm,
    read_balance,
)
from training.runs import as_stored, pick_device, run_name, stream_seed
from training.teacher import (
    Teacher,
    build_teacher,
    compare_teacher,
    describe_teacher,
    read_teachers,
)
from utils import InputError, read_classes, require_file

PICTURE_SIDE = 128  # pixels of the picture of a class stored with the network: 4 to 6 kB


class Data(NamedTuple):
    """The labelled photographs of a run; tables of `dataset.read_labels` with their `content`."""

    classes: list  # of `PlantClass`, in label order
    table: pd.DataFrame  # all labelled photographs: the two tables below together
    train_table: pd.DataFrame
    val_table: pd.DataFrame


@dataclass
class Run:
    """One training run: its parts, the settings that the training loop reads, and its state."""

    facts: dict  # fields of every checkpoint of the run, see training/checkpoints.py
    checkpoints: Path  # folder of the checkpoints
    logs: Path  # folder of TensorBoard's events, settings.json and log.jsonl
    device: torch.device
    model: torch.nn.Module
    fit_linear_probe: Any  # fits the head of the model as epoch 0; None: no linear probe
    train_loader: Any
    val_loader: Any
    fit_answers: Any  # model -> fields of BEST, see training/fit_answers.py
    mix: Any  # MixUp or CutMix of a batch; None: off
    criterion: torch.nn.Module
    teacher: Teacher | None
    optimizer: torch.optim.Optimizer
    scheduler: Any
    # settings
    seed: int
    num_epochs: int
    patience: int
    wise_ft: bool
    micro_batch: int
    freeze_backbone: bool
    keep_batchnorm: bool
    # state
    lock: Any = None  # of the run, while it is trained
    writer: SummaryWriter | None = None  # on rank 0
    forward: Any = None  # images -> logits; `train` builds it once the head is fitted
    epoch: int = 0  # epochs done
    best: dict | None = None  # epoch and metrics of the epoch kept, the checkpoint BEST
    lowest: dict | None = None  # epoch and losses (N,) of the lowest mean calibrated loss
    history: list = field(default_factory=list)  # one dictionary per epoch


def build_data(s):
    """Return the `Data` of the settings: train_labels.csv, split into training and validation."""
    classes = read_classes(s.class_table, s.limit_classes)
    if len(classes) < 2:
        raise InputError(f"{classes[0].latin} is the only class of {s.class_table}, so there is "
                         "nothing to tell apart; name at least 2 classes there, or raise "
                         "--limit_classes")
    table = read_labels(s.dataset_dir / "train_labels.csv", classes)
    contents.require_separate(s.dataset_dir)
    table["content"] = contents.contents_of(table, s.dataset_dir)
    train_table, val_table = split_validation(table, classes, s.validation_share, s.split_seed)
    return Data(classes, table, train_table, val_table)


def build_facts(s, data):
    """Return (fields of every checkpoint of this run, its last checkpoint or None)."""
    class_names = [plant.latin for plant in data.classes]
    photographs = contents.table_fingerprint(data.table, s.dataset_dir)
    settings = record_settings(s, class_names, photographs)
    name = s.run or build_run_name(s, settings)
    facts = {"run": name, "model": s.model, "class_names": class_names,
             **view_of(s)._asdict(), "mean": s.mean, "std": s.std, "flip_tta": s.flip_tta,
             "settings": settings, "classes": describe_classes(data, s)}
    last = open_last(s.checkpoints_dir / name, settings, s.resume_changed)
    # Only rank 0 writes checkpoints, so all ranks resume from the one that it found.
    first_name, last = on_rank_zero(lambda: (name, last))
    if first_name != name:
        raise InputError(f"rank 0 trains the run {first_name}, this rank {name}; start all ranks "
                         "with the same settings and photographs")
    last = last and contents.resume_validation(last, data, settings)
    teachers = [checkpoint for _, checkpoint in read_teachers(s)]
    return {**facts, "seen": contents.describe_seen(data, last, teachers),
            "validation": contents.validation_fingerprint(data.val_table)}, last


def record_settings(s, class_names, photographs):
    """Return the settings that affect training as a checkpoint stores them.

    What they name is identified by its content, not its path: the class table, the photographs (by
    their `table_fingerprint`), a teacher and the table of an expected class mix.
    """
    names = [name.lower() for name in config.settings(*config.TRAINING_GROUPS)]
    record = as_stored({name: getattr(s, name) for name in names
                        if name != "class_table" and not name.startswith("teacher")})
    balance = read_balance(s.balance, class_names)
    if not isinstance(balance, str):
        record["balance"] = balance.tolist()
    return {**record, "classes": class_names, "photographs": photographs, **describe_teacher(s)}


def describe_classes(data, s):
    """Return the field `classes` of a checkpoint: texts, and a small picture with its credit.

    The picture is the first photograph of the class whose label is not in doubt and whose licence
    is known; a doubtful label is worse than an unknown licence.
    """
    stored = []
    for plant in data.classes:
        rows = data.table[data.table["label"] == plant.label]
        faults = 2 * (rows["doubtful"] == "yes") + (rows["license"] == "")
        row = rows.loc[faults.idxmin()]  # the first of the best
        with naming(row["path"]):
            image = open_image(row["path"], s.max_megapixels, draft_side=PICTURE_SIDE)[0]
            view = Image.fromarray(evaluation_view(image, View(PICTURE_SIDE)))
        texts = {key: getattr(plant, key) for key in TEXTS}
        stored.append({**texts, "picture": base64.b64encode(encode(view, quality=80)).decode(),
                       **{key: row[key] for key in CREDIT}})
    return stored


def build_run_name(s, settings):
    """Return the name of the run: its model and a hash of its settings.

    A run that started before settings were added keeps its name: it is found by its record.
    """
    name = run_name(settings)
    if (s.checkpoints_dir / name).is_dir():
        return name
    for path in sorted(s.checkpoints_dir.glob(f"{name[:-8]}{'[0-9a-f]' * 8}/{LAST}")):
        with suppress(InputError):  # a damaged one cannot be resumed
            if not changed_settings(load_checkpoint(path, mmap=True).get("settings", {}), settings):
                return path.parent.name
    return name


def open_last(folder, settings, resume_changed):
    """Return the last checkpoint of the run in a folder, None if it has none yet.

    Raises InputError if it cannot be resumed, see `check_resumable`, or without LAST, if BEST is of
    other settings: it was put there by download_files.py or by hand.
    """
    best, path = folder / BEST, folder / LAST
    if not path.exists():
        if best.exists() and changed_settings(
                load_checkpoint(best).get("settings", {}), settings):
            raise InputError(f"{best} is not of this run, which would overwrite it; name another "
                             "run with --run")
        return None
    require_file(best, f"without it the run cannot be resumed; delete {path} to start again, or "
                 "name another run with --run")
    last = load_checkpoint(path)
    check_resumable(last, path, settings, resume_changed)
    return last


def check_resumable(last, path, settings, resume_changed):
    """Raise InputError if a run cannot be resumed from `last`, its checkpoint at `path`.

    The error lists the settings that have changed. With `resume_changed`, most may change; a
    finished run whose number of epochs was raised is then marked as unfinished in `last`.
    """
    if not {"settings", *RESUME_FIELDS} <= last.keys():
        raise InputError(f"{path} is not of a run of this version of train.py; name another run "
                         "with --run")
    changes = changed_settings(last["settings"], settings)
    if changes and (not resume_changed or {"model", "classes", "freeze_backbone"} & set(changes)):
        raise InputError(f"run {path.parent.name} was started with other settings "
                         f"({'; '.join(changes.values())}); name another run with --run, or resume "
                         "with --resume_changed, which allows any change but of model, classes "
                         "and freeze_backbone")
    if changes:
        last["finished"] = last["finished"] and last["epoch"] >= settings["num_epochs"]
        if last["finished"]:
            print(f"without effect, as the run is finished: {'; '.join(changes.values())}")


def build_run(s, data, facts, last):
    """Return the `Run` of the settings, new or resumed from the checkpoint `last`."""
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
    still_random = [] if probe else new  # a fitted head gets the backbone's learning rate
    optimizer, scheduler = build_optimizer(s, model, still_random, len(train_loader), last)
    labels = data.train_table["label"]
    criterion = build_criterion(balance, labels, num_classes, s.label_smoothing).to(device)
    state = {key: last[key] for key in ("epoch", "best", "lowest", "history")} if last else {}
    return Run(
        facts={**facts, "new": new}, checkpoints=s.checkpoints_dir / facts["run"],
        logs=s.runs_dir / facts["run"], device=device, model=model, fit_linear_probe=probe,
        train_loader=train_loader, val_loader=val_loader,
        fit_answers=build_fit_answers(s, data, cache, device),
        mix=build_mix(s, num_classes), criterion=criterion, teacher=teacher, optimizer=optimizer,
        scheduler=scheduler, seed=s.seed,
        num_epochs=s.num_epochs, patience=s.patience, wise_ft=s.wise_ft,
        micro_batch=s.micro_batch, freeze_backbone=s.freeze_backbone,
        keep_batchnorm=keeps_batchnorm(s), **state)


def open_writer(logs, last):
    """Return TensorBoard's writer on rank 0, which hides events of epochs after `last`."""
    return SummaryWriter(logs, purge_step=last["epoch"] + 1 if last else 0) if rank() == 0 else None


def build_network(s, num_classes, last):
    """Return (network, sorted names of the parameters that started random)."""
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
