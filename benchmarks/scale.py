"""How much time and memory does every step take, on all sets and on a simulated flora?

    python benchmarks/scale.py --photos DIR --weights FILE --sizes 0,1400,2800,14000
    figure scale_14000_memory 1200 MB target <= 2000 met

Size 0 is all photographs of the --sets below DIR, which hold one folder per class. Any other size
is that many pictures of the first 50 classes of the sets: the photographs of a class are taken in
turn, each time another part of one, brighter or darker, perhaps mirrored, in another JPEG quality.
Parts of one photograph are overlapping pictures, which cleaning keeps and labelling keeps on one
side. The network is --model with a linear probe on the initial weights of FILE; --epoch also
measures one epoch of training. Memory is that of the largest process; CPU seconds include starting
Python.
"""
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import ROOT, measure, parse, state
from settings.scripts import settings_of
from utils import progress, read_table, write_table

CLASSES = 50
PREPARATION = "dataset_preparation"
STEPS = {  # name: script
    "cleaning": f"{PREPARATION}/cleaning/cleaning.py",
    "find_label_errors": f"{PREPARATION}/cleaning/find_label_errors.py",
    "labelling": f"{PREPARATION}/labeling/labeling.py",
    "linear probe": "train.py",
    "evaluate": "evaluate.py",
    "predict": "predict.py",
    "export": "export.py",
    "epoch": "train.py"}
MOST_MB = 2000
GROWTH = 1.2  # CPU seconds per photograph at the larger size, of those at the smaller one


def main(argv=None):
    flags = parse(__doc__, argv, sets="wild,market,flowers", sizes="1400,2800", image_size=128,
                  model="mobilenet_v3_small", test_per_class=30, epoch=False)
    sizes, figures = [int(size) for size in flags.sizes.split(",")], []
    used = {size: measure_size(size, flags) for size in sizes}
    for size, steps in used.items():
        largest = max(step["mb"] for step in steps.values())
        figures.append((f"scale_{size or 'all'}_memory", largest, "MB", "<=", MOST_MB))
    simulated = [size for size in sizes if size]
    for small, large in zip(simulated, simulated[1:], strict=False):
        each = {name: (step["cpu"] - used[small][name]["cpu"]) / (large - small)
                for name, step in used[large].items()}
        print(f"CPU milliseconds per photograph from {small:,} to {large:,}: " + ", ".join(
            f"{name} {1000 * seconds:.1f}" for name, seconds in each.items()))
        growth = max(step["cpu"] / used[small][name]["cpu"] for name, step in used[large].items())
        figures.append((f"scale_growth_to_{large}", growth / (large / small), "times", "<=",
                        GROWTH))
    return state(figures)


# ---- one size ----

def measure_size(size, flags):
    """Return {step: {"seconds", "cpu", "mb"}} of all steps with so many photographs, in order."""
    folder = flags.work / f"scale{size}"
    count = make_set(size, folder, flags)
    values = {"class_table": folder / "classes.csv", "collected_dir": folder / "collected",
              "cleaned_dir": folder / "cleaned", "dataset_dir": folder / "dataset",
              "checkpoints_dir": folder / "checkpoints", "runs_dir": folder / "runs",
              "cache_dir": folder / "cache", "num_workers": 0, "model": flags.model,
              "initial_weights": flags.weights, "image_size": flags.image_size,
              "test_per_class": flags.test_per_class,
              "checkpoint": folder / "checkpoints/linear_probe/plants_model.pth.tar"}
    used = {}
    for name, script in STEPS.items():
        if name == "epoch" and not flags.epoch:
            continue
        taken = {**values, "run": name.replace(" ", "_"), "num_epochs": int(name == "epoch")}
        more = [folder / "dataset/test"] if name == "predict" else []
        used[name] = measure(sys.executable, ROOT / script, *options(script, taken), *more)
        print(f"| {count:,} | {name} | {used[name]['seconds']:.0f} | {used[name]['cpu']:.1f} "
              f"| {used[name]['mb']:.0f} |", flush=True)
    for side in ("train", "test"):
        print(f"{side}: {len(read_table(folder / f'dataset/{side}_labels.csv')):,} photographs")
    return used


def options(script, values):
    """Return the flags of those of {setting: value} that a script takes."""
    taken = {name.lower() for names in settings_of(Path(script).name).values() for name in names}
    return [word for name, value in values.items() if name in taken
            for word in (f"--{name}", value)]


# ---- photographs ----

def make_set(size, folder, flags):
    """Write the collected photographs and their class table, unless done; return their number."""
    images = folder / "collected/images"
    if (folder / "classes.csv").exists():
        return len(list(images.glob("*/*")))
    classes = {path.name: sorted(path.iterdir()) for name in flags.sets.split(",")
               for path in sorted((flags.photos / name).iterdir()) if path.is_dir()}
    names = list(classes)[:CLASSES] if size else list(classes)
    for number, name in enumerate(progress(names, len(names), "making", "class")):
        (images / name).mkdir(parents=True, exist_ok=True)
        if not size:
            for path in classes[name]:
                (images / name / path.name).write_bytes(path.read_bytes())
            continue
        rng = np.random.default_rng(number)
        for i in range(size // CLASSES):
            # No running numbers, which would make series of them.
            target = images / name / f"{rng.integers(2**63):016x}.jpg"
            vary(classes[name][i % len(classes[name])], rng).save(
                target, quality=int(rng.integers(70, 96)))
    write_table(folder / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(names)])
    return len(list(images.glob("*/*")))


def vary(path, rng):
    """Return another picture of a photograph: a part of it, brighter or darker, at 288 pixels."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB")
    side = min(image.size) * rng.uniform(0.45, 0.75)
    left, top = rng.uniform(0, 1, 2) * (np.array(image.size) - side)
    part = image.crop((int(left), int(top), int(left + side), int(top + side))).resize(
        (288, 288), Image.Resampling.BICUBIC)
    gain = rng.uniform(0.75, 1.25)
    part = part.point(lambda value: min(255, int(value * gain)))
    return ImageOps.mirror(part) if rng.random() < 0.5 else part


if __name__ == "__main__":
    sys.exit(main())
