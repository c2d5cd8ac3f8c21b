"""What the benchmarks share: their flags, running the real scripts, and the lines that state a figure."""
import argparse
import json
import operator
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from utils import write_table  # noqa: E402 after the path that leads there

# Starts a command from a small process: a forked one would be counted with the memory of a benchmark.
LAUNCHER = """import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": used.ru_utime + used.ru_stime,
                  "mb": used.ru_maxrss / 1000}))
sys.exit(done.stderr.decode()[-2000:] if done.returncode else 0)
"""
COMPARISONS = {">=": operator.ge, "<=": operator.le}


def parse(description, argv=None, **defaults):
    """Return the flags every benchmark takes: --photos, --weights, --seeds, --work; `defaults` add numbers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with one folder of photographs per class")
    parser.add_argument("--weights", default="none", help="file with initial weights, or what --initial_weights takes")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--work", type=Path, default=ROOT / "data/benchmarks", help="folder for what the runs write")
    for name, value in defaults.items():
        kind = {"action": "store_true"} if value is False else {"type": type(value)}
        parser.add_argument(f"--{name}", default=value, help=f"[{value}]", **kind)
    return parser.parse_args(argv)


def run_script(script, *arguments):
    """Run a script of the repository and return the last line it printed; what it says on errors goes through."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout.splitlines()[-1]


def measure(*command, environment=None):
    """Run a command; return {"seconds", "cpu" seconds, "mb" of the largest process}, all with its children."""
    done = subprocess.run([sys.executable, "-c", LAUNCHER, *map(str, command)], env=environment, stdout=subprocess.PIPE,
                          check=True)
    return json.loads(done.stdout)


def make_environment(folder, *packages):
    """Return the folder of the programs of an environment, made if it is not there, with these packages."""
    if not (folder / "bin/pip").exists():
        venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin/pip", "install", "-q", *packages], check=True)  # asks nobody where they are installed
    return folder / "bin"


def prepare_splits(work, flags):
    """Clean and group the photographs once, label them once per seed; return one {"folder", "settings"} per split."""
    (work / "collected").mkdir(parents=True, exist_ok=True)
    if not (work / "collected/images").exists():
        (work / "collected/images").symlink_to(flags.photos.resolve())
    names = sorted(path.name for path in flags.photos.iterdir() if path.is_dir())
    write_table(work / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(names)])
    common = ["--class_table", work / "classes.csv", "--collected_dir", work / "collected", "--cleaned_dir",
              work / "cleaned"]
    if not (work / "cleaned/cleaned.csv").exists():
        print(run_script("dataset_preparation/cleaning/cleaning.py", *common), flush=True)
    splits = []
    for seed in range(flags.seeds):
        folder = work / f"split{seed}"
        if not (folder / "dataset/train_labels.csv").exists():
            print(run_script("dataset_preparation/labeling/labeling.py", *common, "--dataset_dir", folder / "dataset",
                             "--split_seed", seed, "--test_per_class", flags.test_per_class), flush=True)
        splits.append({"folder": folder, "settings": {"class_table": work / "classes.csv", "dataset_dir":
                                                      folder / "dataset", "split_seed": seed, "seed": seed}})
    return splits


def take_turns(ways, rounds, clock=time.perf_counter, apart=1):
    """Call every function of {name: function} in turn and return {name: seconds of each round} after `apart` others."""
    seconds = {way: [] for way in ways}
    for turn in range(apart + rounds):
        for way, function in ways.items():
            began = clock()
            function()
            if turn >= apart:
                seconds[way].append(clock() - began)
    return seconds


def state(figures):
    """Print one line per (name, value, unit, comparison, target) and return 1 if a target is missed, else 0."""
    missed = 0
    for name, value, unit, comparison, target in figures:
        met = COMPARISONS[comparison](value, target)
        missed |= not met
        print(f"figure {name} {value:.4g} {unit} target {comparison} {target:g} {'met' if met else 'missed'}")
    return int(missed)
