"""Fine-tune a network on the labelled photographs; select on validation; resume exactly.

    python train.py                                    # 20 photographs a second on one core
    python train.py --model resnet18 --num_epochs 5    # --help lists the settings
    torchrun --nproc-per-node=2 -- train.py            # two processes, half a batch each
    val acc 97.92% (47 of 48, 95 % confidence interval 89 to 100; calibrated loss 0.1204) at ...

A linear probe of the initial weights (epoch 0) is followed by fine-tuning with warm-up and cosine
decay. Reads `<DATASET_DIR>/train_labels.csv` and holds out a part of it for validation; of the test
set only the table is read, to refuse photographs that are in both. Kept is the last epoch whose
validation loss is not clearly higher than the lowest, or a mixture of the last epoch's weights with
the linear probe's, if its loss is lower. Writes `<CHECKPOINTS_DIR>/<run>/` and `<RUNS_DIR>/<run>/`.
On a CPU, two runs of one command, or a run that was killed and started again, end in the same
weights bit for bit.
"""
import math
import time

import config

if __name__ == "__main__":
    config.check_usage(__file__, __doc__)  # before imports that take seconds
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import get_total_norm

from dataset import batches
from evaluation.calibration import fit_temperature
from evaluation.inference import collect_logits
from evaluation.metrics import classification_metrics
from model import check_image_size, complete, set_train_mode
from training import run_log
from training.checkpoints import BEST, LAST, PROBE, check_numbers, load_checkpoint, save_checkpoint
from training.distributed import mean_over_ranks, on_rank_zero, process_group, rank, world_size
from training.fit_answers import has_background
from training.image_cache import view_of
from training.optimization import build_forward, keeps_batchnorm, optimizer_state
from training.plan import describe_enlarging, describe_idle, describe_plan
from training.run_state import build_data, build_facts, build_run, open_writer
from training.runs import clearly_worse, is_out_of_memory, stream_seed
from training.teacher import build_teacher
from utils import LARGE_BATCH, FileLock, InputError, progress, require_folder_name
from utils import run as run_script

CHECK_EVERY = 20  # steps between two checks of the loss; each check makes a GPU wait
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)  # of the fine-tuned weights, beside those of the linear probe


class Diverged(InputError):
    """The loss is not finite."""


def main(argv=None):
    s, given = config.parse(argv, __file__, __doc__)  # given by flags or a --settings file
    try:
        with process_group(s):
            for name, value in given.items():
                print(f"setting {name.lower()} = {value}")
            train(s)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory: {str(error).splitlines()[0]}; lower --micro_batch "
                         f"{s.micro_batch or s.batch_size or LARGE_BATCH} or --image_size; the "
                         f"checkpoints in {s.checkpoints_dir} are complete") from None


def train(s, report=None):
    """Train or resume the run that the settings describe; return the metrics of its best epoch.

    `report(epoch, metrics)` is called after every epoch and may raise to stop the run.
    """
    s = complete(s)
    check_settings(s)
    data = build_data(s)
    facts, last = build_facts(s, data)
    folder = s.checkpoints_dir / facts["run"]
    if last and last["finished"] and on_rank_zero(
            lambda: has_background(s, load_checkpoint(folder / BEST))):
        return run_log.announce(last["best"], data, last["epoch"], folder, "already finished: ")
    run = build_run(s, data, facts, last)
    run.lock = lock_run(folder) if report is None else None
    run.writer = open_writer(run.logs, last)  # no earlier: the newest events hide all others
    run_log.describe(run, data)
    steps, batch_size = len(run.train_loader), run.train_loader.batch_size
    for line in (*describe_idle(s),
                 *describe_plan(s, len(data.classes), steps, batch_size, run.device),
                 *describe_enlarging(data.table["path"].tolist(), view_of(s))):
        print(line)
    if last is None:
        run_log.log_first_batch(run)
        run_log.log_teacher(run, run_batches(run, run.val_loader, "the teacher's validation"))
        if run.fit_linear_probe:  # epoch 0; run.epoch is 0 already
            end_epoch(run, on_rank_zero(lambda: fit_probe(run)))
    # Not before the probe: this copies rank 0's weights, the fitted head included, to all ranks.
    run.forward = build_forward(s, run.model, run.device)
    while run.epoch < run.num_epochs and not out_of_patience(run):
        run.epoch += 1
        metrics = end_epoch(run, train_one_epoch(run))
        if report:
            report(run.epoch, metrics)
    interpolate_weights(run)
    finish(run)
    run_log.explain_choice(run)
    return run_log.announce(run.best, data, run.epoch, run.checkpoints)


def lock_run(folder):
    """Lock a run until this process ends, and return the lock. Trials of a search need none.

    Raises InputError if another process trains the run: each would overwrite the other's work.
    """
    if rank() > 0:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    if not lock.acquire(wait=False):
        raise InputError(f"another process trains the run {folder.name}; wait for it, or name "
                         "another run with --run")
    return lock


def check_settings(s):
    """Raise InputError for combinations of settings that cannot be trained."""
    if s.num_epochs == 0 and (not s.linear_probe or s.initial_weights == "none"):
        raise InputError("--num_epochs 0 only fits the linear probe, which needs --linear_probe "
                         "and initial weights")
    if s.freeze_backbone and s.initial_weights == "none":
        raise InputError("--freeze_backbone with --initial_weights none would train the head of a "
                         "random network; name initial weights")
    if s.micro_batch == 1 and not keeps_batchnorm(s):
        raise InputError("--micro_batch 1 would train BatchNorm on single photographs, of which "
                         "there are no statistics; pass at least 2")
    if s.run:
        require_folder_name(s.run, "--run")
    if s.num_epochs == 0 and s.teacher:
        raise InputError("--teacher has no effect with --num_epochs 0; leave one of them out")
    for name in ("image_size", "train_size"):
        check_image_size(s.model, getattr(s, name), f"--{name}")
    build_teacher(s)


# ---- epochs ----

def fit_probe(run):
    """Fit the head by a linear probe; return the training numbers of epoch 0 for the history."""
    started = time.perf_counter()
    loss, decay, views = run.fit_linear_probe(run.model)
    seconds = time.perf_counter() - started
    print(f"linear probe fitted on {views:,} views, weight decay {decay:g} chosen on validation")
    return {"train_loss": loss, "lr": 0.0, "seconds": seconds, "images_per_second": views / seconds}


def train_one_epoch(run):
    """Train for one epoch; return its training numbers for the history.

    Everything random is a function of (seed, epoch, step, rank), so a resumed run draws the same
    numbers. `lr` is the highest learning rate of the epoch's first step.
    """
    started, lr = time.perf_counter(), max(group["lr"] for group in run.optimizer.param_groups)
    run.train_loader.sampler.set_epoch(run.epoch)
    set_train_mode(run.model, run.freeze_backbone, run.keep_batchnorm)
    sums, steps = {}, len(run.train_loader)  # all steps have equally many photographs
    train_batches = run_batches(run, run.train_loader, f"epoch {run.epoch}/{run.num_epochs}")
    for step, (images, labels) in enumerate(train_batches):
        torch.manual_seed(stream_seed(run.seed, "step", run.epoch, step, rank()))  # mixing, dropout
        if run.mix:
            images, labels = run.mix(images, labels)  # labels (B,) -> (B, K)
        run.optimizer.zero_grad(set_to_none=True)
        means = add_gradients(run, images, labels)
        means["gradient_norm"] = get_total_norm(  # already averaged over the ranks
            [p.grad for p in run.model.parameters() if p.grad is not None])
        run.optimizer.step()
        run.scheduler.step()
        for name, value in means.items():  # summed on the device, so that nothing waits for it
            sums[name] = sums.get(name, 0.0) + value
        if step % CHECK_EVERY == 0:
            require_finite(run, sums["train_loss"].item(), "in training")
    means = {name: mean_over_ranks(total).item() / steps for name, total in sums.items()}
    seconds = time.perf_counter() - started
    images_per_second = steps * run.train_loader.batch_size * world_size() / seconds
    return {**means, "lr": lr, "seconds": seconds, "images_per_second": images_per_second}


def batch_accuracy(logits, labels):
    """Return the accuracy () of logits (B, K); a mixed label (B, K) counts as its larger part."""
    labels = labels if labels.ndim == 1 else labels.argmax(1)
    return (logits.detach().argmax(1) == labels).float().mean()


def add_gradients(run, images, labels):
    """Backpropagate the mean loss of a batch; return {name: mean over the batch}.

    At most MICRO_BATCH photographs pass through the network at once, or 3 instead of 2 so that
    none is alone where BatchNorm is trained. Except for rounding, the gradient is that of a single
    pass, unless the loss weights classes or BatchNorm is trained.
    """
    passes, means = math.ceil(len(images) / (run.micro_batch or len(images))), {}
    if not run.keep_batchnorm:  # of a single photograph there are no statistics
        passes = min(passes, max(1, len(images) // 2))
    for few, targets in zip(images.tensor_split(passes), labels.tensor_split(passes), strict=True):
        logits, share = run.forward(few), len(few) / len(images)  # (B, 3, H, W) -> (B, K)
        loss, parts = run.criterion(logits, targets), {}
        if run.teacher:
            loss, parts = run.teacher.blend(loss, logits, few)
        (loss * share).backward()
        parts |= {"train_loss": loss, "train_accuracy": batch_accuracy(logits, targets)}
        for name, value in parts.items():
            means[name] = means.get(name, 0.0) + share * value.detach()
    return means


def run_batches(run, loader, label):
    """Yield normalised batches of a loader on the run's device, with a progress bar."""
    images = batches(loader, run.device, run.facts["mean"], run.facts["std"])
    return progress(images, len(loader), label, "batch")


def require_finite(run, loss, where):
    """Raise Diverged if a loss is infinite or not a number."""
    if not math.isfinite(loss):
        raise Diverged(f"the loss is not finite {where} in epoch {run.epoch}: {loss}; lower the "
                       f"learning rates; {run.checkpoints} still has the previous epoch")


def validate(model, val_batches, flip_tta):
    """Return (metrics, losses (N,), predicted labels (N,)) of the validation photographs.

    Losses are at the fitted temperature, which the checkpoint will predict with. Their mean is
    `calibrated_loss`, by which epochs are selected.
    """
    logits, labels = collect_logits(model, val_batches, flip_tta)
    temperature = fit_temperature(logits, labels)
    scaled = torch.from_numpy(logits / temperature).double()
    losses = cross_entropy(scaled, torch.from_numpy(labels), reduction="none")
    metrics = {**classification_metrics(logits, labels), "calibrated_loss": losses.mean().item()}
    return {**metrics, "temperature": temperature}, losses, logits.argmax(1)


def end_epoch(run, numbers):
    """Validate, log, and write the checkpoints after an epoch; return its validation metrics.

    `numbers` are the training numbers of the epoch. BEST is written before LAST, so a run killed
    between the two resumes from the older LAST and repeats this epoch.
    """
    require_finite(run, numbers["train_loss"], "in training")
    started = time.perf_counter()
    metrics, losses, predicted = on_rank_zero(lambda: validate(
        run.model, run_batches(run, run.val_loader, "validation"), run.facts["flip_tta"]))
    require_finite(run, metrics["loss"], "in validation")
    run.history.append({"epoch": run.epoch, **numbers,
                        **{f"val_{key}": value for key, value in metrics.items()}})
    run_log.log_epoch(run, numbers["seconds"] + time.perf_counter() - started)
    run_log.log_validation(run, losses, predicted)
    checkpoint = build_checkpoint(run, metrics)
    if run.epoch == 0:
        save_checkpoint(run.checkpoints / PROBE, checkpoint)
    if run.lowest is None or losses.mean() < run.lowest["losses"].mean():
        run.lowest = {"epoch": run.epoch, "losses": losses}
    # With early stopping the learning rate never reaches zero, so later epochs need not be better.
    is_lowest = run.lowest["epoch"] == run.epoch
    if is_lowest or not (run.patience or clearly_worse(losses, run.lowest["losses"])):
        run.best = {"epoch": run.epoch, **metrics}
        save_checkpoint(run.checkpoints / BEST, checkpoint)
    save_checkpoint(run.checkpoints / LAST, {
        **checkpoint, "best": run.best, "lowest": run.lowest, "history": run.history,
        "optimizer_state_dict": optimizer_state(run.optimizer, run.model), "finished": False})
    return metrics


def out_of_patience(run):
    """Return whether the loss has not fallen for PATIENCE epochs; never with PATIENCE 0."""
    return run.lowest and 0 < run.patience <= run.epoch - run.lowest["epoch"]


def build_checkpoint(run, metrics):
    """Return the fields that prediction needs, with the present weights of the run's network."""
    return {**run.facts, "epoch": run.epoch, "metrics": metrics,
            "temperature": metrics["temperature"], "model_state_dict": run.model.state_dict()}


# ---- the end of a run; killed here, a resumed run repeats this with the same result ----

def interpolate_weights(run):
    """Keep weights between the linear probe's and the last epoch's if their loss is lower.

    Of the mixtures with SHARES of fine-tuned weights, the one with the lowest calibrated loss is
    compared with the best epoch. Such a mixture keeps more of what the initial weights knew
    (WiSE-FT: Wortsman et al., "Robust Fine-Tuning of Zero-Shot Models", 2022).
    """
    # Without a linear probe of its own, the file may be what another run of that name has left.
    if rank() > 0 or not (run.wise_ft and run.epoch and run.fit_linear_probe
                          and (run.checkpoints / PROBE).exists()):
        return
    probe = load_checkpoint(run.checkpoints / PROBE)["model_state_dict"]
    tuned = {name: value.to("cpu", copy=True) for name, value in run.model.state_dict().items()}
    tried = []
    for share in SHARES:
        load_mixture(run.model, probe, tuned, share)
        metrics, losses, _ = validate(run.model, run_batches(run, run.val_loader, "interpolation"),
                                      run.facts["flip_tta"])
        tried.append(({"epoch": run.epoch, **metrics, "tuned_share": share}, losses))
    best, losses = min(tried, key=lambda one: one[0]["calibrated_loss"])
    print(f"with {best['tuned_share']:.0%} of the fine-tuned and the rest of the linear probe's "
          f"weights: calibrated loss {best['calibrated_loss']:.4f}, val acc {best['accuracy']:.2%}")
    if best["calibrated_loss"] < run.best["calibrated_loss"]:
        load_mixture(run.model, probe, tuned, best["tuned_share"])
        run.best = best
        save_checkpoint(run.checkpoints / BEST, build_checkpoint(run, best))
        if losses.mean() < run.lowest["losses"].mean():
            run.lowest = {"epoch": run.epoch, "losses": losses}


def load_mixture(model, probe, tuned, share):
    """Load `share` of the weights `tuned` and 1 - share of `probe`; counters are those of tuned."""
    model.load_state_dict({
        name: torch.lerp(probe[name], value, share) if value.is_floating_point() else value
        for name, value in tuned.items()})


def finish(run):
    """Add the limits and thresholds for prediction to BEST; mark the run as finished.

    BEST is read back because the model now has the weights of the last epoch.
    """
    if rank() > 0:
        return
    run.writer.close()
    best, last = (load_checkpoint(run.checkpoints / name) for name in (BEST, LAST))
    run.model.load_state_dict(best["model_state_dict"])
    entries = run.fit_answers(run.model)
    check_numbers({**best, **entries}, run.checkpoints / BEST)  # not only once it is to be used
    run.best["answers"] = run_log.describe_answers(entries)
    save_checkpoint(run.checkpoints / BEST, {**best, **entries, "seen": run.facts["seen"]})
    save_checkpoint(run.checkpoints / LAST, {
        **last, "best": run.best, "lowest": run.lowest, "finished": True})


if __name__ == "__main__":
    run_script(main)
