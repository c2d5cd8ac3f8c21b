"""Shared by the benchmarks: flags, running the real scripts, and the lines that state a figure."""
import argparse
import json
import operator
import subprocess
import sys
import time
import venv
from itertools import starmap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from utils import write_table  # noqa: E402 the path must be set before

# A small process that starts a command: the peak memory of a child includes that of the process
# that forked it, which would be the benchmark's own.
LAUNCHER = """import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": time.perf_counter() - start, "cpu": used.ru_utime + used.ru_stime,
                  "mb": used.ru_maxrss / 1000}))
sys.exit(done.stderr.decode()[-2000:] if done.returncode else 0)
"""
BATCH = 32  # photographs whose features are computed at once
COMPARISONS = {">=": operator.ge, "<=": operator.le}


def parse(description, argv=None, **defaults):
    """Return the flags of every benchmark and one per default: a switch for False, or a number."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True,
                        help="folder with one folder of photographs per class")
    parser.add_argument("--weights", default="none",
                        help="file with initial weights, or another value of --initial_weights")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--work", type=Path, default=ROOT / "data/benchmarks",
                        help="folder for what the runs write")
    for name, value in defaults.items():
        kind = {"action": "store_true"} if value is False else {"type": type(value)}
        parser.add_argument(f"--{name}", default=value, help=f"[{value}]", **kind)
    return parser.parse_args(argv)


def run_script(script, *arguments):
    """Run a script of the repository, its errors visible; return the last line it printed."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)],
                          stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1]


def measure(*command, environment=None):
    """Run a command; return {"seconds", "cpu" seconds, "mb" of its largest process}.

    Its children are included.
    """
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *map(str, command)], env=environment,
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def make_environment(folder, *packages):
    """Return the folder of the programs of a virtual environment that has these packages."""
    if not (folder / "bin/pip").exists():
        venv.create(folder, with_pip=True)
    # Where the packages are installed already, this makes no request.
    subprocess.run([folder / "bin/pip", "install", "-q", *packages], check=True)
    return folder / "bin"


def prepare_splits(work, flags):
    """Clean the photographs once and label them once per seed, unless done before.

    Returns one {"folder", "settings"} per seed, which chooses the split.
    """
    collected, classes = work / "collected", work / "classes.csv"
    collected.mkdir(parents=True, exist_ok=True)
    if not (collected / "images").exists():
        (collected / "images").symlink_to(flags.photos.resolve())
    names = sorted(path.name for path in flags.photos.iterdir() if path.is_dir())
    write_table(classes, ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(names)])
    common = ["--class_table", classes, "--collected_dir", collected,
              "--cleaned_dir", work / "cleaned"]
    if not (work / "cleaned/cleaned.csv").exists():
        print(run_script("dataset_preparation/cleaning/cleaning.py", *common), flush=True)
    splits = []
    for seed in range(flags.seeds):
        folder = work / f"split{seed}"
        dataset = folder / "dataset"
        if not (dataset / "train_labels.csv").exists():
            print(run_script("dataset_preparation/labeling/labeling.py", *common,
                             "--dataset_dir", dataset, "--split_seed", seed,
                             "--test_per_class", flags.test_per_class), flush=True)
        splits.append({"folder": folder, "settings": {
            "class_table": classes, "dataset_dir": dataset, "split_seed": seed, "seed": seed}})
    return splits


def probe_features(flags, s, size=224):
    """Return (class names, `Features`) of the photographs under the initial weights, computed once.

    Views are the evaluation view and its mirror image; a group is a photograph.
    """
    import numpy as np
    import torch

    from evaluation.inference import collect_views
    from images import View, evaluation_view, open_image
    from model import build_model, complete, load_initial_weights, without_head
    from training.fit_answers import Features
    s, folders = complete(s), sorted(path for path in flags.photos.iterdir() if path.is_dir())
    file = flags.work / "features" / f"{flags.photos.name}_{s.model}_{size}.npz"
    if not file.exists():
        model = build_model(s.model, len(folders))
        load_initial_weights(model, s.model, s.initial_weights)
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (s.mean, s.std))
        view = View(size, s.crop, s.interpolation)

        def read(label, path):
            image, _ = open_image(str(path), s.max_megapixels, draft_side=2 * size)
            pixels = torch.from_numpy(evaluation_view(image, view)).permute(2, 0, 1)
            return ((pixels / 255 - mean) / std)[None], torch.tensor([label])
        photos = [(label, path) for label, folder in enumerate(folders)
                  for path in sorted(folder.iterdir())]
        batches = (map(torch.cat, zip(*starmap(read, photos[start:start + BATCH]), strict=True))
                   for start in range(0, len(photos), BATCH))
        with without_head(model):
            views, labels = collect_views(model, batches, flip_tta=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, views=views, labels=labels)
    stored = np.load(file)
    return [path.name for path in folders], Features(
        stored["views"], stored["labels"], np.arange(len(stored["labels"])))


def take_turns(ways, rounds, clock=time.perf_counter, apart=1):
    """Call the functions of {name: function} in turn; return {name: seconds of each round}.

    In turn, so that a busy moment of the machine slows all of them; the first `apart` rounds warm
    up and are not counted.
    """
    seconds = {way: [] for way in ways}
    for turn in range(apart + rounds):
        for way, function in ways.items():
            start = clock()
            function()
            if turn >= apart:
                seconds[way].append(clock() - start)
    return seconds


def state(figures):
    """Print a line per (name, value, unit, comparison, target); return 1 if one is missed, or 0."""
    missed = 0
    for name, value, unit, comparison, target in figures:
        met = COMPARISONS[comparison](value, target)
        missed |= not met
        print(f"figure {name} {value:.4g} {unit} target {comparison} {target:g} "
              f"{'met' if met else 'missed'}")
    return int(missed)
