"""What every part of the recipe is worth: one part changed at a time, by validation loss.

    python benchmarks/ablation.py --photos DIR --weights FILE     # FILE: weights of --model
    python benchmarks/ablation.py --photos DIR --report           # print the results so far

The loss is that of validation photographs at the fitted temperature, of the epoch that train.py
keeps and of the last one; the test set is not looked at. A quarter of each class is validation, so
that the spread is small. A part is worth its default where the paired difference is more than one
standard error from zero. Run the same command again to resume: there is one result file per variant
and split. The sizes are small so that it ends in an hour on one core; --image_size and --epochs
enlarge it.
"""
import json
import statistics
import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, prepare_splits
from train import train
from training.checkpoints import LAST, load_checkpoint
from utils import write_text

BASE = {"linear_probe": True, "probe_views": 4, "freeze_batchnorm": True, "learning_rate": 1e-3,
        "backbone_learning_rate": 1e-4, "layer_decay": 1.0, "weight_decay": 0.02,
        "label_smoothing": 0.0, "average_epochs": 0, "mixup": 0.0, "cutmix": 0.0,
        "trivial_augment": False, "color_jitter": 0.0, "erasing": 0.0, "crop_scale_min": 0.35,
        "flip_tta": True}
VARIANTS = {  # what differs from the base
    "base": {},
    "linear probe only": {"num_epochs": 0},
    "random head": {"linear_probe": False},
    "batchnorm trained": {"freeze_batchnorm": False},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "layer decay 0.8": {"layer_decay": 0.8},
    "average of 1 epoch": {"average_epochs": 1},
    "trivial augment": {"trivial_augment": True},
    "mixup 0.2": {"mixup": 0.2},
    "jitter and erasing": {"color_jitter": 0.2, "erasing": 0.1},
    "cutmix 1.0": {"cutmix": 1.0},
    "probe on 2 views": {"probe_views": 2},
    "backbone rate 3e-4": {"backbone_learning_rate": 3e-4},
    "no flip TTA": {"flip_tta": False},
    "average of 2 epochs": {"average_epochs": 2},
    "no weight decay": {"weight_decay": 0.0}}


def main(argv=None):
    flags = parse(__doc__, argv, model="mobilenet_v3_small", epochs=4, image_size=128,
                  batch_size=32, test_per_class=12, report=False)
    work = flags.work / "ablation"
    if not flags.report:
        splits = prepare_splits(work, flags)
        for split, (variant, changes) in product(splits, VARIANTS.items()):
            run_variant(variant, changes, split, flags)
    report(work, flags.seeds)


def run_variant(variant, changes, split, flags):
    """Train a variant on a split, unless done before; write the validation metrics of its epoch."""
    name = variant.replace(" ", "_").replace(",", "")
    done = split["folder"] / f"{name}.json"
    if done.exists():
        return
    s = config.namespace(**{
        **split["settings"], "model": flags.model, "initial_weights": flags.weights,
        "num_epochs": flags.epochs, "image_size": flags.image_size,
        "batch_size": flags.batch_size, "validation_share": 0.25, "num_workers": 0,
        "device": "cpu", "checkpoints_dir": split["folder"], "runs_dir": split["folder"] / "runs",
        "run": name, **BASE, **changes})
    best, history = train(s), load_checkpoint(split["folder"] / name / LAST)["history"]
    last = history[-1]["val_calibrated_loss"]
    write_text(done, json.dumps({"variant": variant, **best, "last": last}))


def report(work, splits):
    """Print every variant's mean loss and accuracy and its paired difference from the base."""
    results = {}
    for split in range(splits):
        for path in (work / f"split{split}").glob("*.json"):
            record = json.loads(path.read_text("utf-8"))
            results.setdefault(record["variant"], {})[split] = record
    print(f"{'variant':22} splits  val NLL  last epoch's  accuracy  difference  standard error")
    for variant in VARIANTS:
        runs = results.get(variant, {})
        paired = sorted(runs.keys() & results.get("base", {}).keys())
        if len(paired) < 2:
            continue
        changes = [runs[split]["calibrated_loss"] - results["base"][split]["calibrated_loss"]
                   for split in paired]
        error = statistics.stdev(changes) / len(changes) ** 0.5
        mean = statistics.mean(changes)
        verdict = "better" if mean < -error else "worse" if mean > error else "no difference"
        loss, last, accuracy = (statistics.mean(runs[i][key] for i in paired)
                                for key in ("calibrated_loss", "last", "accuracy"))
        print(f"{variant:22} {len(paired):6}  {loss:7.4f}  {last:12.4f}  {accuracy:8.4f}  "
              f"{mean:+10.4f}  {error:14.4f}" + ("" if variant == "base" else f"  {verdict}"))


if __name__ == "__main__":
    main()
