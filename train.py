"""Fine-tune a network on the labelled photographs; select on validation; go on where an interrupted run stopped.

    python train.py                                       # the run of config.py
    python train.py --model resnet18 --num_epochs 5       # any setting is a flag
    torchrun --nproc-per-node=2 -- train.py               # two processes, half a batch each, see training/distributed.py
    val acc 97.92% (calibrated loss 0.1204) at epoch 20 of 20, checkpoint checkpoints/<run>/plants_model.pth.tar

Reads `<DATASET_DIR>/train_labels.csv` (validation is taken from it, the test set is never opened). Of the epochs the
last is kept that validation does not find clearly worse than the best. Writes `<CHECKPOINTS_DIR>/<run>/` and
`<RUNS_DIR>/<run>/`. On a CPU, two runs of one command, or a run killed and started again, end in the same weights bit
for bit.
"""
import json
import math
import time
from types import SimpleNamespace

import torch
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import update_bn
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

import config
from dataset import batches, build_eval_loader, build_train_loader, fingerprint, read_labels, split_validation
from evaluation.calibration import fit_temperature
from evaluation.metrics import collect_logits, measure
from evaluation.out_of_distribution import fit_score
from model import build_model, check_image_size, freeze_backbone, load_initial_weights, set_train_mode
from training.checkpoints import BEST, LAST, load_checkpoint, save_checkpoint
from training.distributed import mean_over_ranks, on_rank_zero, process_group, rank, world_size
from training.image_cache import build_cache
from training.linear_probe import fit_head
from training.optimization import (
    build_average,
    build_criterion,
    build_forward,
    build_mix,
    build_optimizer,
    fits_head,
    freezes_batchnorm,
)
from training.runs import clearly_worse, environment, is_out_of_memory, pick_device, plain, run_name, stream_seed
from utils import InputError, read_classes, require_folder_name, run, write_text


class Diverged(InputError):
    """The loss is not finite."""


def main(argv=None):
    s, changed = config.parse(argv, __file__, __doc__)
    try:
        with process_group(s):
            for name, value in changed.items():
                print(f"setting {name.lower()} = {value}")
            train(s)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory: {str(error).splitlines()[0]}; lower --batch_size {s.batch_size} or "
                         f"--image_size {s.image_size}; what {s.checkpoints_dir} holds is whole") from None


def train(s, report=None):
    """Train the run that the settings `s` describe, or finish it, and return the metrics of the epoch kept.

    `report(epoch, metrics)` is called after every epoch and may raise to stop the run.
    """
    check_settings(s)
    classes = read_classes(s.class_table, s.limit_classes)
    table = read_labels(s.dataset_dir / "train_labels.csv", classes)
    train_frame, val_frame = split_validation(table, classes, s.validation_share, s.split_seed)
    record, last = build_run(s, [one.latin for one in classes], fingerprint(table, s.dataset_dir))
    first, last = on_rank_zero(lambda: (record["run"], last))
    if first != record["run"]:
        raise InputError(f"rank 0 trains {first}, this one {record['run']}; all need the same settings and photographs")
    checkpoints, runs = s.checkpoints_dir / record["run"], s.runs_dir / record["run"]
    if last and last["finished"]:
        return announce(last["best"], last["epoch"], checkpoints, "finished before: ")

    device = pick_device(s.device)
    model, record["new"] = build_network(s, len(classes), last)
    model.to(device)
    cache = build_cache(table, s)
    train_loader = build_train_loader(train_frame, s, cache, rank(), world_size())
    val_loader = build_eval_loader(val_frame, s, cache)
    optimizer, scheduler = build_optimizer(s, model, [] if fits_head(s) else record["new"], len(train_loader),
                                           last)
    criterion = build_criterion(s, train_frame["label"], len(classes), s.label_smoothing).to(device)
    mix, average = build_mix(s, len(classes)), build_average(s, model, last)
    epoch, best, lowest, history = (last[key] for key in ("epoch", "best", "lowest", "history")) if last else (
        0, None, None, [])
    describe(record, model, train_frame, val_frame, device, runs, s)
    writer = SummaryWriter(runs, purge_step=epoch + 1 if last else 0) if rank() == 0 else None

    def keep(numbers):
        """Measure the network on validation, tell it, and write both checkpoints."""
        nonlocal best, lowest
        metrics, losses = on_rank_zero(lambda: validate(model, val_loader, device, s))
        if not math.isfinite(numbers["train_loss"] + metrics["loss"]):
            raise Diverged(f"the loss is not finite after epoch {epoch}: {numbers['train_loss']} in training, "
                           f"{metrics['loss']} in validation; lower the learning rates; {checkpoints} keeps the "
                           "epochs before")
        history.append({"epoch": epoch, **numbers, **{f"val_{key}": metrics[key] for key in metrics}})
        if rank() == 0:
            log(history, writer, runs, s.num_epochs)
        checkpoint = describe_checkpoint(record, epoch, metrics, model, s)
        if lowest is None or losses.mean() < lowest["losses"].mean():
            lowest = {"epoch": epoch, "losses": losses}
        if not clearly_worse(losses, lowest["losses"]):
            best = {"epoch": epoch, **metrics}
            save_checkpoint(checkpoints / BEST, checkpoint)
        save_checkpoint(checkpoints / LAST, {
            **checkpoint, "best": best, "lowest": lowest, "history": history, "finished": False,
            "average": average.state_dict() if average.n_averaged else None,
            "optimizer_state_dict": optimizer.state_dict()})
        return metrics

    if last is None:
        if rank() == 0:
            picture(record, train_loader, writer, s)
        if fits_head(s):
            keep(on_rank_zero(lambda: start_head(model, train_frame, val_loader, device, s, len(classes), cache)))
    forward = build_forward(s, model, device)  # among ranks, with the head that rank 0 fitted
    while epoch < s.num_epochs and not (lowest and 0 < s.patience <= epoch - lowest["epoch"]):
        epoch += 1
        began, lr = time.perf_counter(), max(group["lr"] for group in optimizer.param_groups)
        averaged = average if epoch > s.num_epochs - s.average_epochs else None
        loss, seen = train_one_epoch(model, train_loader, criterion, optimizer, scheduler, device, epoch, s, forward,
                                     mix, averaged)
        seconds = time.perf_counter() - began
        metrics = keep({"train_loss": loss, "lr": lr, "seconds": seconds, "images_per_second": seen / seconds})
        if report:
            report(epoch, metrics)
    if writer:
        writer.close()
    best = finish(average, best, train_loader, val_loader, checkpoints, record, epoch, device, s)
    if rank() == 0:
        close(train_frame, val_loader, cache, checkpoints, best, device, s)
    return announce(best, epoch, checkpoints)


def train_one_epoch(model, loader, criterion, optimizer, scheduler, device, epoch, s, forward, mix=None, average=None):
    """Train for one epoch and return (mean loss, photographs seen); all that is random depends on (seed, epoch, step).

    `forward` is what `build_forward` makes of the model; `mix(images, labels)` blends a batch; `average` takes in the
    weights after every step.
    """
    loader.sampler.set_epoch(epoch)
    set_train_mode(model, s.freeze_backbone, freezes_batchnorm(s))
    total, seen = torch.zeros((), device=device), 0
    for step, (images, labels) in enumerate(batches(loader, device, s.mean, s.std)):
        torch.manual_seed(stream_seed(s.seed, "step", epoch, step, rank()))  # of mixing and dropout
        if mix:
            images, labels = mix(images, labels)  # labels (B,) -> (B, K)
        loss = criterion(forward(images), labels)  # (B, 3, H, W) -> (B, K) -> ()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        if average:
            average.update_parameters(model)
        total += loss.detach() * len(labels)
        seen += len(labels)
    loss = mean_over_ranks(torch.tensor(total.item() / seen, dtype=torch.float64)).item()
    return loss, seen * world_size()  # all ranks have seen equally many


def validate(model, loader, device, s):
    """Return (metrics, losses (N,)) of the validation photographs, each in the views that the settings name.

    The losses, whose mean is `calibrated_loss`, are those at the temperature that fits best, as every finished
    checkpoint gets one: they choose.
    """
    logits, labels = collect_logits(model, batches(loader, device, s.mean, s.std), s.flip_tta)
    temperature = fit_temperature(logits, labels)
    losses = cross_entropy(torch.from_numpy(logits / temperature).double(), torch.from_numpy(labels), reduction="none")
    return {**measure(logits, labels), "calibrated_loss": losses.mean().item(), "temperature": temperature}, losses


def start_head(model, train_frame, val_loader, device, s, num_classes, cache=None):
    """Fit the head to the features of the initial weights and return what the history says of epoch 0."""
    began = time.perf_counter()
    balance = "weights" if s.balance in ("oversample", "sampling") else s.balance
    criterion = build_criterion(SimpleNamespace(balance=balance), train_frame["label"], num_classes)
    loss, decay = fit_head(model, train_frame, val_loader, criterion, device, s, cache)
    seconds = time.perf_counter() - began
    print(f"head fitted on {s.probe_views} views of {len(train_frame):,} photographs, weight decay {decay:g} chosen on "
          "validation")
    return {"train_loss": loss, "lr": 0.0, "seconds": seconds,
            "images_per_second": s.probe_views * len(train_frame) / seconds}


def finish(average, best, train_loader, val_loader, checkpoints, record, epoch, device, s):
    """Put the averaged weights in the best checkpoint where validation agrees; return the best metrics."""
    if average.n_averaged:
        train_loader.sampler.set_epoch(epoch + 1)
        torch.manual_seed(stream_seed(s.seed, "average"))
        if not freezes_batchnorm(s):
            update_bn(batches(train_loader, device, s.mean, s.std), average.module)
        metrics, _ = on_rank_zero(lambda: validate(average.module, val_loader, device, s))
        steps = int(average.n_averaged)
        print(f"average of the last {steps} steps: val loss {metrics['loss']:.4f}, calibrated "
              f"{metrics['calibrated_loss']:.4f}, val acc {metrics['accuracy']:.2%}")
        if metrics["calibrated_loss"] < best["calibrated_loss"]:
            best = {"epoch": epoch, **metrics, "averaged_steps": steps}
            save_checkpoint(checkpoints / BEST, describe_checkpoint(record, epoch, metrics, average.module, s))
    return best


def close(train_frame, val_loader, cache, checkpoints, best, device, s):
    """Add to the best checkpoint what tells strangers, and mark the run finished.

    Killed, the same work is done again with the same result.
    """
    checkpoint = load_checkpoint(checkpoints / BEST)
    save_checkpoint(checkpoints / BEST, {**checkpoint, "out_of_distribution": fit_score(
        checkpoint, train_frame, val_loader, device, s, cache)})
    save_checkpoint(checkpoints / LAST, {**load_checkpoint(checkpoints / LAST), "best": best, "finished": True})


def describe_checkpoint(record, epoch, metrics, model, s):
    """Return what every checkpoint holds: all that answering needs but what tells strangers, which `close` adds."""
    return {**record, "epoch": epoch, "metrics": metrics, "temperature": metrics["temperature"],
            "flip_tta": s.flip_tta, "model_state_dict": model.state_dict()}


# ---- building ----

def check_settings(s):
    """Raise InputError for settings no run can be made of."""
    if s.num_epochs == 0 and not fits_head(s):
        raise InputError("--num_epochs 0 fits the head alone, which needs --linear_probe and initial weights")
    if s.freeze_backbone and s.initial_weights == "none":
        raise InputError("--freeze_backbone with --initial_weights none would train a head on a random network; name "
                         "initial weights")
    if s.run:
        require_folder_name(s.run, "--run")
    check_image_size(s.model, s.image_size)


def build_run(s, class_names, data):
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
    if not {"settings", "finished", "lowest"} <= last.keys():
        raise InputError(f"{path} was not written by this train.py; give the run another name with --run")
    changes = {key: f"{key}: {last['settings'].get(key)} -> {now[key]}" for key in now
               if now[key] != last["settings"].get(key)}
    if changes and (not s.resume_changed or {"model", "classes", "freeze_backbone"} & set(changes)):
        raise InputError(f"run {record['run']} was started with other settings ({'; '.join(changes.values())}); give "
                         "this one another name with --run, or go on all the same with --resume_changed, which takes "
                         "any change but of model, classes and freezing")
    if changes:
        last["finished"] = last["finished"] and last["epoch"] >= s.num_epochs
    return record, last


def build_network(s, num_classes, last):
    """Return (network, sorted names of the parameters that started new), with the weights of `last` if it is given."""
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, num_classes, s.batchnorm_momentum)
    if last:
        model.load_state_dict(last["model_state_dict"])
        new, message = last["new"], f"going on after epoch {last['epoch']}"
    else:
        new, message = load_initial_weights(model, s.model, s.initial_weights)
    print(message)
    if s.freeze_backbone:
        freeze_backbone(model, new)
    return model, sorted(new)


# ---- telling ----

def describe(record, model, train_frame, val_frame, device, runs, s):
    """Print what is about to run and write it to settings.json."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"run {record['run']} on {device}: {record['model']}, {parameters:,} parameters, {trained:,} trained")
    print(f"{len(record['class_names'])} classes, {len(train_frame):,} photographs for training, {len(val_frame):,} "
          "for validation")
    if world_size() > 1:
        print(f"{world_size()} ranks, {s.batch_size // world_size()} photographs each per step" + (
            "" if freezes_batchnorm(s) else "; BatchNorm statistics are those of each rank's photographs"))
    if rank() == 0:
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
    print("epoch {epoch:3}/{num_epochs}  train loss {train_loss:.4f}  val loss {val_loss:.4f} (calibrated "
          "{val_calibrated_loss:.4f})  val acc {val_accuracy:7.2%}  macro-F1 {val_macro_f1:.4f}  lr {lr:.1e}  "
          "{seconds:.1f} s  {images_per_second:,.0f} img/s".format(**last, num_epochs=num_epochs), flush=True)
    for tag, key in {"loss/train": "train_loss", "loss/val": "val_loss",
                     "loss/val_calibrated": "val_calibrated_loss", "accuracy/val": "val_accuracy",
                     "macro_f1/val": "val_macro_f1", "learning_rate": "lr",
                     "images_per_second": "images_per_second"}.items():
        writer.add_scalar(tag, last[key], last["epoch"])
    writer.flush()
    write_text(runs / "log.jsonl", "".join(json.dumps(record) + "\n" for record in history))


def announce(best, epochs, checkpoints, before=""):
    """Print the result of a run and return its metrics."""
    print(f"{before}val acc {best['accuracy']:.2%} (calibrated loss {best['calibrated_loss']:.4f}) at epoch "
          f"{best['epoch']} of {epochs}, checkpoint {checkpoints / BEST}")
    return best


if __name__ == "__main__":
    run(main)
