"""What is every part of the recipe worth? One part is changed at a time; validation decides.

    python benchmarks/ablation.py --photos DIR --weights FILE     # FILE: weights of --model
    python benchmarks/ablation.py ... --variants "base,mixup 0.2"  # some of VARIANTS
    python benchmarks/ablation.py --photos DIR --report           # print the results so far
    variant                splits  val NLL  last epoch's  accuracy  difference  standard error
    mixup 0.2                   2  ...

"val NLL" is the loss of the validation photographs at the fitted temperature, for the weights that
train.py keeps; "last epoch's" is that of the last epoch. The test set is not opened. A quarter of
each class is for validation, so that the spread is small. Every line ends with its verdict:
"better" or "worse" if the paired difference is larger than its standard error, else "no
difference". Run the same command again to resume: every variant and
split has a result file. A variant of 1,000 photographs takes 3 to 5 minutes of a core.
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

VARIANTS = {  # what differs from the defaults; evaluation's views are of --image_size
    "base": {},
    "rate 1e-4": {"backbone_learning_rate": 1e-4},
    "rate 3e-4": {"backbone_learning_rate": 3e-4},
    "rate 3e-3": {"backbone_learning_rate": 3e-3},
    "warm-up of 5 epochs": {"warmup_epochs": 5.0},
    "rate 3e-3 and warm-up of 5 epochs": {"backbone_learning_rate": 3e-3, "warmup_epochs": 5.0},
    "training views as large": {"train_size": "image_size"},
    "batchnorm trained": {"freeze_batchnorm": False},
    "mixup 0.2": {"mixup": 0.2},
    "crops from 0.35": {"crop_scale_min": 0.35},
    "no label smoothing": {"label_smoothing": 0.0},
    "the crops and labels before": {"crop_scale_min": 0.35, "label_smoothing": 0.0},
    "erasing 0.1": {"erasing": 0.1},
    "trivial augment": {"trivial_augment": True},
    "trivial augment and erasing 0.1": {"trivial_augment": True, "erasing": 0.1},
    "cutmix 1.0": {"cutmix": 1.0},
    "layer decay 0.8": {"layer_decay": 0.8},
    "no WiSE-FT": {"wise_ft": False},
    "batches of 32": {"batch_size": 32},
    "40 epochs": {"num_epochs": 40},
    "random head": {"linear_probe": False},
    "linear probe only": {"num_epochs": 0},
    "no weight decay": {"weight_decay": 0.0},
    "no flip TTA": {"flip_tta": False}}


def main(argv=None):
    flags = parse(__doc__, argv, model="mobilenet_v3_small", epochs=20, image_size=160,
                  test_per_class=12, variants=",".join(VARIANTS), report=False)
    work = flags.work / f"ablation_{flags.photos.name}"
    if not flags.report:
        splits = prepare_splits(work, flags)
        for split, variant in product(splits, flags.variants.split(",")):
            run_variant(variant, VARIANTS[variant], split, flags)
    report(work, flags.seeds)


def run_variant(variant, changes, split, flags):
    """Train a variant on a split, unless done before; write the validation metrics of its epoch."""
    name = variant.replace(" ", "_").replace(",", "")
    done = split["folder"] / f"{name}.json"
    if done.exists():
        return
    changes = {key: flags.image_size if value == "image_size" else value
               for key, value in changes.items()}
    s = config.namespace(**{
        **split["settings"], "model": flags.model, "initial_weights": flags.weights,
        "num_epochs": flags.epochs, "image_size": flags.image_size,
        "validation_share": 0.25, "num_workers": 0,
        "device": "cpu", "checkpoints_dir": split["folder"], "runs_dir": split["folder"] / "runs",
        "run": name, **changes})
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
        if not paired:
            continue
        changes = [runs[split]["calibrated_loss"] - results["base"][split]["calibrated_loss"]
                   for split in paired]
        error = (statistics.stdev(changes) / len(changes) ** 0.5 if len(changes) > 1 else
                 float("inf"))
        mean = statistics.mean(changes)
        verdict = "better" if mean < -error else "worse" if mean > error else "no difference"
        loss, last, accuracy = (statistics.mean(runs[i][key] for i in paired)
                                for key in ("calibrated_loss", "last", "accuracy"))
        print(f"{variant:22} {len(paired):6}  {loss:7.4f}  {last:12.4f}  {accuracy:8.4f}  "
              f"{mean:+10.4f}  {error:14.4f}" + ("" if variant == "base" else f"  {verdict}"))


if __name__ == "__main__":
    main()
