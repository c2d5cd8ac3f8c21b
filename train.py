"""Fine-tune a network on the labelled photographs; select on validation; go on where an interrupted run stopped.

    python train.py                                       # the run of config.py
    python train.py --model resnet18 --num_epochs 5       # any setting is a flag
    best val acc 97.92 % (loss 0.1204) at epoch 17 of 20, checkpoint checkpoints/<run>/plants_model.pth.tar

Reads `<DATASET_DIR>/train_labels.csv` (validation is taken from it, the test set is never opened). Writes
`<CHECKPOINTS_DIR>/<run>/` and `<RUNS_DIR>/<run>/`. On a CPU, two runs of one command, or a run killed and started
again, end in the same weights bit for bit.
"""
import json
import math
import time

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

import config
from dataset import (
    batches,
    build_eval_loader,
    build_train_loader,
    class_weights,
    fingerprint,
    read_labels,
    split_validation,
)
from model import build_model, freeze_backbone, load_initial_weights, parameter_groups, set_train_mode
from runs import (
    BEST,
    LAST,
    collect_logits,
    environment,
    load_checkpoint,
    measure,
    pick_device,
    plain,
    run_name,
    save_checkpoint,
    stream_seed,
)
from utils import InputError, read_classes, run, write_text


def main(argv=None):
    changed = config.override(argv, description=__doc__)
    for name, value in changed.items():
        print(f"setting {name.lower()} = {value}")
    train(config.namespace())


def train(s, report=None):
    """Train the run that the settings `s` describe, or finish it, and return its best validation metrics.

    `report(epoch, metrics)` is called after every epoch and may raise to stop the run.
    """
    if s.num_epochs < 1 or s.batch_size < 2:
        raise InputError(f"--num_epochs {s.num_epochs} --batch_size {s.batch_size}: at least 1 epoch of batches of 2")
    classes = read_classes(s.class_table, s.limit_classes)
    table = read_labels(s.dataset_dir / "train_labels.csv", classes)
    train_frame, val_frame = split_validation(table, classes, s.validation_share, s.split_seed)
    record, last = open_run(s, [one.latin for one in classes], fingerprint(table, s.dataset_dir))
    checkpoints, runs = s.checkpoints_dir / record["run"], s.runs_dir / record["run"]
    if last and last["finished"]:
        return announce(last["best"], last["epoch"], checkpoints, "finished before: ")

    device = pick_device(s.device)
    model, record["new"] = build_network(s, len(classes), last)
    model.to(device)
    train_loader, val_loader = build_train_loader(train_frame, s), build_eval_loader(val_frame, s)
    optimizer, scheduler = build_optimizer(s, model, record["new"], len(train_loader))
    criterion = build_criterion(s, train_frame["label"], len(classes)).to(device)
    epoch, best, history = resume(last, model, optimizer, scheduler)
    describe(record, model, train_frame, val_frame, device, runs)
    writer = SummaryWriter(runs, purge_step=epoch + 1)
    if epoch == 0:
        picture(record, train_loader, writer, s)

    finished = False
    while not finished:
        epoch += 1
        began = time.perf_counter()
        loss, seen = train_one_epoch(model, train_loader, criterion, optimizer, scheduler, device, epoch, s)
        seconds = time.perf_counter() - began
        metrics = measure(*collect_logits(model, batches(val_loader, device, s.mean, s.std)))
        if not math.isfinite(loss + metrics["loss"]):
            raise InputError(f"the loss is not finite after epoch {epoch}: {loss} in training, {metrics['loss']} in "
                             f"validation; lower the learning rates; {checkpoints} keeps the epochs before")
        history.append({"epoch": epoch, "train_loss": loss, **{f"val_{key}": metrics[key] for key in metrics},
                        "lr": optimizer.param_groups[0]["lr"], "seconds": seconds, "images_per_second": seen / seconds})
        log(history, writer, runs, s.num_epochs)
        better = best is None or metrics["loss"] < best["loss"]
        best = {"epoch": epoch, **metrics} if better else best
        finished = epoch >= s.num_epochs or 0 < s.patience <= epoch - best["epoch"]
        checkpoint = {**record, "epoch": epoch, "metrics": metrics, "model_state_dict": model.state_dict()}
        if better:
            save_checkpoint(checkpoints / BEST, checkpoint)
        save_checkpoint(checkpoints / LAST, {
            **checkpoint, "best": best, "history": history, "finished": finished,
            "optimizer_state_dict": optimizer.state_dict(), "scheduler_state_dict": scheduler.state_dict()})
        if report:
            report(epoch, metrics)
    writer.close()
    return announce(best, epoch, checkpoints)


def train_one_epoch(model, loader, criterion, optimizer, scheduler, device, epoch, s):
    """Train for one epoch and return (mean loss, photographs seen); everything random is a function of the epoch."""
    torch.manual_seed(stream_seed(s.seed, "dropout", epoch))
    loader.sampler.set_epoch(epoch)
    set_train_mode(model, s.freeze_backbone)
    total, seen = torch.zeros((), device=device), 0
    for images, labels in batches(loader, device, s.mean, s.std):
        loss = criterion(model(images), labels)  # (B, 3, H, W) -> (B, K) -> ()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        total += loss.detach() * len(labels)
        seen += len(labels)
    return total.item() / seen, seen


# ---- building ----

def open_run(s, class_names, data):
    """Return (what every checkpoint of this run says about it, last checkpoint or None).

    Raises InputError listing what differs from the settings the run was started with, unless `resume_changed`.
    """
    names = [name.lower() for name in config.settings(*config.TRAINING_GROUPS) if name != "CLASS_TABLE"]
    settings = plain({name: getattr(s, name) for name in names})
    now = {**settings, "classes": class_names, "photographs": data}
    record = {"run": s.run or run_name(now), "model": s.model, "class_names": class_names, "image_size": s.image_size,
              "mean": s.mean, "std": s.std, "settings": now}
    path = s.checkpoints_dir / record["run"] / LAST
    if not path.exists():
        return record, None
    last = load_checkpoint(path)
    if "settings" not in last or "finished" not in last:
        raise InputError(f"{path} was not written by train.py; give the run another name with --run")
    changes = [f"{key}: {last['settings'].get(key)} -> {now[key]}" for key in now
               if now[key] != last["settings"].get(key)]
    if changes and (not s.resume_changed or s.model != last["model"] or class_names != last["class_names"]):
        raise InputError(f"run {record['run']} was started with other settings ({'; '.join(changes)}); give this one "
                         "another name with --run, or go on all the same (same model and classes) with "
                         "--resume_changed")
    if changes:
        last["finished"] = last["finished"] and last["epoch"] >= s.num_epochs
    return record, last


def build_network(s, num_classes, last):
    """Return (network, sorted names of the parameters that started new); the weights of `last` come in `resume`."""
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, num_classes, s.batchnorm_momentum)
    if s.freeze_backbone and s.initial_weights == "none":
        raise InputError("--freeze_backbone with --initial_weights none would train a head on a random network; name "
                         "initial weights")
    if last:
        new, message = last["new"], f"going on after epoch {last['epoch']}"
    else:
        new, message = load_initial_weights(model, s.model, s.initial_weights)
    print(message)
    if s.freeze_backbone:
        freeze_backbone(model, new)
    return model, sorted(new)


def build_optimizer(s, model, new, steps_per_epoch):
    """Return (AdamW, learning rate schedule per step: linear warm-up, then cosine decay to zero)."""
    groups = parameter_groups(model, set(new), s.learning_rate, s.backbone_learning_rate, s.weight_decay)
    optimizer = torch.optim.AdamW(groups)
    warmup, total = s.warmup_epochs * steps_per_epoch, s.num_epochs * steps_per_epoch

    def factor(step):
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup)))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def build_criterion(s, labels, num_classes):
    """Return the cross-entropy loss, weighted by class where the settings say so."""
    weight = class_weights(labels.to_numpy(), num_classes) if s.balance == "weights" else None
    return nn.CrossEntropyLoss(weight, label_smoothing=s.label_smoothing)


def resume(last, model, optimizer, scheduler):
    """Load the last checkpoint, if any, and return (epochs done, best metrics or None, records of the epochs)."""
    if last is None:
        return 0, None, []
    model.load_state_dict(last["model_state_dict"])
    optimizer.load_state_dict(last["optimizer_state_dict"])
    scheduler.load_state_dict(last["scheduler_state_dict"])
    return last["epoch"], last["best"], last["history"]


# ---- telling ----

def describe(record, model, train_frame, val_frame, device, runs):
    """Print what is about to run and write it to settings.json."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"run {record['run']} on {device}: {record['model']}, {parameters:,} parameters, {trained:,} trained")
    print(f"{len(record['class_names'])} classes, {len(train_frame):,} photographs for training, {len(val_frame):,} "
          "for validation")
    write_text(runs / "settings.json", json.dumps({**record, **environment()}, indent=1, ensure_ascii=False) + "\n")


def picture(record, loader, writer, s):
    """Write the settings and the first batch, as the network sees it, to TensorBoard."""
    lines = [f"    {key} = {value}" for key, value in record["settings"].items()]
    writer.add_text("settings", "\n".join(lines), 0)
    loader.sampler.set_epoch(1)
    images, _ = next(iter(loader))
    writer.add_image("first batch", make_grid(images[:32], nrow=8), 0)


def log(history, writer, runs, num_epochs):
    """Tell the newest record on the terminal, in TensorBoard and in log.jsonl."""
    last = history[-1]
    print("epoch {epoch:3}/{num_epochs}  train loss {train_loss:.4f}  val loss {val_loss:.4f}  val acc "
          "{val_accuracy:7.2%}  macro-F1 {val_macro_f1:.4f}  lr {lr:.1e}  {seconds:.1f} s  "
          "{images_per_second:,.0f} img/s".format(**last, num_epochs=num_epochs), flush=True)
    for tag, key in {"loss/train": "train_loss", "loss/val": "val_loss", "accuracy/val": "val_accuracy",
                     "macro_f1/val": "val_macro_f1", "learning_rate": "lr",
                     "images_per_second": "images_per_second"}.items():
        writer.add_scalar(tag, last[key], last["epoch"])
    writer.flush()
    write_text(runs / "log.jsonl", "".join(json.dumps(record) + "\n" for record in history))


def announce(best, epochs, checkpoints, before=""):
    """Print the result of a run and return its best metrics."""
    print(f"{before}best val acc {best['accuracy']:.2%} (loss {best['loss']:.4f}) at epoch {best['epoch']} of "
          f"{epochs}, checkpoint {checkpoints / BEST}")
    return best


if __name__ == "__main__":
    run(main)
