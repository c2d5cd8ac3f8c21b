"""What a run prints and logs: terminal, TensorBoard, settings.json, log.jsonl."""
import json
import time

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn.utils import get_total_norm
from torchvision.utils import make_grid

from evaluation.answers import FEWEST_FOR_SETS, NO_SETS
from evaluation.inference import collect_logits
from evaluation.metrics import classification_metrics, wilson_interval
from evaluation.together import describe_together
from model import head_name
from names import describe_seconds
from training.checkpoints import BEST
from training.distributed import rank, world_size
from training.runs import environment
from utils import write_text

TILES, MISTAKES_EVERY = 12, 5  # photographs per picture in TensorBoard; epochs between mistakes
MOST_CURVES = 100  # classes: with more curves TensorBoard gets slow
TILE = 192  # pixels, side of a photograph in TensorBoard
FEW = 60  # photographs: with fewer, a 5 % quantile depends on fewer than three of them
MANY = 1000  # photographs, of which an accuracy is exact enough to stand alone
CURVES = {"loss/train": "train_loss", "loss/train_labels": "label_loss",
          "loss/train_teacher": "teacher_loss", "loss/val": "val_loss",
          "loss/val_calibrated": "val_calibrated_loss", "accuracy/val": "val_accuracy",
          "accuracy/train": "train_accuracy", "gradient_norm": "gradient_norm",
          "macro_f1/val": "val_macro_f1", "learning_rate": "lr",
          "images_per_second": "images_per_second"}  # TensorBoard's tag: key of the history
LINE = ("epoch {epoch:3}/{num_epochs}  train loss {train_loss:.4f}  val loss {val_loss:.4f} "
        "(calibrated {val_calibrated_loss:.4f})  val acc {val_accuracy:7.2%}  "
        "macro-F1 {val_macro_f1:.4f}  lr {lr:.1e}  {seconds:.1f} s  {images_per_second:,.0f} img/s")


def describe(run, data):
    """Print the network and the photographs of a run; write its facts to settings.json."""
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    trained = sum(parameter.numel() for parameter in run.model.parameters()
                  if parameter.requires_grad)
    print(f"run {run.facts['run']} on {run.device}: {run.facts['model']}, {parameters:,} "
          f"parameters, {trained:,} trained")
    print(f"{len(data.classes)} classes, {len(data.train_table):,} photographs for training, "
          f"{len(data.val_table):,} for validation")
    counts = data.train_table["label"].value_counts()
    fewest, most = (f"{counts[label]:,} ({data.classes[label].latin})"
                    for label in (counts.idxmin(), counts.idxmax()))
    if counts.min() < counts.max():
        print(f"per class {fewest} to {most} for training")
    if world_size() > 1:
        print(f"{world_size()} ranks, {run.train_loader.batch_size} photographs each per step" + (
            "" if run.keep_batchnorm else
            "; BatchNorm statistics are those of each rank's photographs"))
    if rank() == 0:
        facts = {key: value for key, value in run.facts.items() if key not in ("classes", "seen")}
        text = json.dumps({**facts, **environment()}, indent=1, ensure_ascii=False)
        write_text(run.logs / "settings.json", text + "\n")


def log_first_batch(run):
    """Write the settings and the augmented first training batch to TensorBoard."""
    if rank() > 0:
        return
    lines = [f"    {key} = {value}" for key, value in run.facts["settings"].items()]
    run.writer.add_text("settings", "\n".join(lines), 0)
    run.train_loader.sampler.set_epoch(1)
    images, labels = (part[:TILES] for part in next(iter(run.train_loader)))
    tiles = [draw_tile(view.permute(1, 2, 0).numpy(), (run.facts["class_names"][label], "black"))
             for view, label in zip(images, labels, strict=True)]
    run.writer.add_image("first batch", make_grid(tiles, nrow=4), 0)


def log_teacher(run, val_batches):
    """Print the teacher's validation accuracy and the time that it adds to an epoch."""
    if rank() > 0 or not run.teacher:
        return
    photographs, started = len(run.train_loader) * run.train_loader.batch_size, time.perf_counter()
    logits, labels = collect_logits(run.teacher, val_batches)
    seconds = (time.perf_counter() - started) / len(labels)
    numbers = classification_metrics(logits, labels)
    print(f"teacher: val acc {numbers['accuracy']:.2%} (loss {numbers['loss']:.4f}) on the views "
          f"of this run; it adds about {describe_seconds(seconds * photographs)} to an epoch "
          f"({1000 * seconds:.0f} ms per photograph)")


def log_epoch(run, seconds):
    """Print the newest line of the history; write it to TensorBoard and log.jsonl.

    `seconds` is the time of the epoch with its validation, from which the time left is estimated.
    """
    if rank() > 0:
        return
    newest = run.history[-1]
    left = run.num_epochs - newest["epoch"] if newest["epoch"] else 0  # unknown after the probe
    line = LINE if newest["epoch"] else LINE.replace("train loss", "probe loss")
    print(line.format(**newest, num_epochs=run.num_epochs)
          + (f"  {describe_seconds(left * seconds)} left" if left else ""), flush=True)
    head = run.model.get_submodule(head_name(run.model)).weight
    weights = [parameter for parameter in run.model.parameters() if parameter is not head]
    values = {tag: newest[key] for tag, key in CURVES.items() if key in newest}
    if not newest["epoch"]:  # the probe's loss has no smoothing, and is of other views
        del values["loss/train"]
    values |= {"weight_norm/head": head.norm(), "weight_norm/other": get_total_norm(weights),
               "time/seconds_per_epoch": seconds, "time/minutes_left": left * seconds / 60}
    for tag, value in values.items():
        run.writer.add_scalar(tag, value, newest["epoch"])
    write_text(run.logs / "log.jsonl", "".join(json.dumps(line) + "\n" for line in run.history))


def log_validation(run, losses, predicted):
    """Write recall per class and mistakes to TensorBoard, from losses and predicted labels (N,).

    Recall is a histogram and, for up to MOST_CURVES classes, a curve each. The mistakes of highest
    loss are shown every MISTAKES_EVERY epochs and after the last one.
    """
    if rank() > 0:
        return
    dataset, names = run.val_loader.dataset, run.facts["class_names"]
    labels = np.array(dataset.labels)
    recalls = {names[label]: np.mean(predicted[labels == label] == label)
               for label in np.unique(labels)}
    run.writer.add_histogram("val_recall", np.array(list(recalls.values())), run.epoch)
    if len(recalls) <= MOST_CURVES:
        for name, recall in recalls.items():
            run.writer.add_scalar(f"val_recall/{name}", recall, run.epoch)
    wrong = [i for i in np.argsort(-losses.numpy(), kind="stable") if predicted[i] != labels[i]]
    if wrong and (run.epoch % MISTAKES_EVERY == 0 or run.epoch == run.num_epochs):
        tiles = [draw_tile(dataset[i][0].numpy(), (names[labels[i]], "darkgreen"),
                           (f"as {names[predicted[i]]}", "firebrick")) for i in wrong[:TILES]]
        run.writer.add_image("validation mistakes", make_grid(tiles, nrow=4), run.epoch)
    run.writer.flush()


def draw_tile(view, *lines):
    """Return a view, uint8 (H, W, 3), above lines of (text, colour), as a tensor (3, H', W')."""
    tile = Image.new("RGB", (TILE, TILE + 15 * len(lines) + 2), "white")
    tile.paste(Image.fromarray(view).resize((TILE, TILE)))
    draw = ImageDraw.Draw(tile)
    for line, (name, color) in enumerate(lines):
        draw.text((3, TILE + 1 + 15 * line), name, color, ImageFont.load_default(12))
    return torch.from_numpy(np.array(tile)).permute(2, 0, 1)


def explain_choice(run):
    """Print why the best epoch is not that of the lowest validation loss, if it is not."""
    lowest, least = run.lowest["epoch"], run.lowest["losses"].mean().item()
    kept, loss = run.best["epoch"], run.best["calibrated_loss"]
    if rank() > 0:
        return
    if "tuned_share" in run.best and least < loss:
        print(f"epoch {lowest} has the lowest validation loss ({least:.4f}); the mixture is kept, "
              f"whose loss ({loss:.4f}) is lower than that of a later epoch, which is not clearly "
              "higher (see training.runs.clearly_worse)")
    elif "tuned_share" not in run.best and lowest != kept:
        print(f"epoch {lowest} has the lowest validation loss ({least:.4f}); epoch {kept} is kept, "
              f"whose loss ({loss:.4f}) is not clearly higher and which has seen more (see "
              "training.runs.clearly_worse)")


def announce(best, data, epochs, checkpoints, prefix=""):
    """Print the result of a run and return the metrics of its best epoch.

    With fewer than MANY validation photographs, this includes their count and Wilson's 95 %
    confidence interval, in which a group is one trial.
    """
    sample, groups = "", data.val_table["group"]
    count, trials = len(groups), groups.nunique()
    if count < MANY:
        low, high = wilson_interval(best["accuracy"] * trials, trials)
        sample = (f"{round(best['accuracy'] * count)} of {count}, 95 % confidence interval "
                  f"{100 * low:.0f} to {100 * high:.0f}; ")
    for line in best.get("answers", ()):
        print(line)
    epoch = best["epoch"] or "0 (the linear probe alone)"
    mixed = f" ({best['tuned_share']:.0%} of its weights)" if "tuned_share" in best else ""
    print(f"{prefix}val acc {best['accuracy']:.2%} ({sample}calibrated loss "
          f"{best['calibrated_loss']:.4f}) at epoch {epoch} of {epochs}{mixed}, "
          f"checkpoint {checkpoints / BEST}")
    return best


def describe_answers(entries):
    """Return the lines about the thresholds and limits of a finished network."""
    threshold, answers, unknown = (entries[key] for key in (
        "out_of_distribution", "answers", "unknown"))
    few = min(threshold["photographs"], answers["photographs"]) < FEW
    lines = [f"out-of-distribution threshold from {threshold['photographs']:,} photographs, limits "
             f"of risk from {answers['photographs']:,} ({answers['source']})"
             + ("; with so few, they are uncertain" if few else "")]
    lines += [NO_SETS] if answers["photographs"] < FEWEST_FOR_SETS else []
    lines.append(describe_together(answers["together"]))
    if unknown and "others_named" in unknown:
        lines.append("of photographs like those of --background, about "
                     f"{unknown['others_named']:.0%} would be named (measured on "
                     f"{unknown['others']:,} that were not used for the threshold)")
    if unknown and "named" in unknown:
        lines.append(f"of photographs of plants it does not know, about {unknown['named']:.0%} "
                     "would be named (measured by leaving classes out in turn from linear probes "
                     f"of the initial weights, {unknown['photographs']:,} photographs)")
    else:
        lines.append("how many photographs of plants it does not know would be named was not "
                     "measured, which takes initial weights and at least 3 classes")
    return lines
