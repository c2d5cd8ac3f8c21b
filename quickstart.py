"""Run the whole chain on a small drawn flora: draw, clean, label, train, evaluate.

    python quickstart.py
    quickstart: test accuracy 93.33 % on 120 photographs of 6 kinds in 112 s

Takes about two minutes, offline. The photographs are drawings of invented plants, as an image
search would return them: with near-duplicates, damaged files, and photographs under two names. The
other scripts do the rest; their commands are printed. Everything is written to `<QUICKSTART_DIR>`.
The same command resumes.
"""
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress

import config
from config import ROOT
from quickstart_flora.kinds import KINDS
from quickstart_flora.search_results import CLASS_TABLE, draw_flora
from settings.command_line import script_command, shell_join
from utils import InputError, run, write_text

SCRIPTS = ("dataset_preparation/cleaning/cleaning.py", "dataset_preparation/labeling/labeling.py",
           "train.py", "evaluate.py")
RECIPES = {  # network: settings to train it on the flora within two minutes on two cores
    "mobilenet_v3_small": {"initial_weights": "imagenet_v1", "image_size": 128, "num_epochs": 5},
    "plain_cnn": {"initial_weights": "none", "image_size": 80, "num_epochs": 32, "batch_size": 16,
                  "learning_rate": 2e-3, "weight_decay": 0.05, "crop_scale_min": 0.5,
                  "label_smoothing": 0.0},
}
TEST_SHARE = 0.2  # of the photographs drawn


def main(argv=None):
    s, changed = config.parse(argv, __file__, __doc__)
    start, base = time.monotonic(), s.quickstart_dir
    print(f"drawing {s.quickstart_per_class} photographs of each of {len(KINDS)} kinds in "
          f"{base / 'collected'}", flush=True)
    drawn = draw_flora(base / "collected", s.quickstart_per_class, s.seed, s.processes)
    print("; ".join(f"{count:,} {case}" for case, count in drawn.items()))

    if "MODEL" in changed:
        model = s.model
    else:
        model = "mobilenet_v3_small" if has_imagenet_weights(s.quickstart_offline) else "plain_cnn"
    test_per_class = max(1, round(TEST_SHARE * s.quickstart_per_class))
    settings = {"test_per_class": test_per_class, **RECIPES.get(model, {}),
                **{name.lower(): value for name, value in changed.items()}, "model": model,
                **folders(base, f"quickstart_{model}")}
    settings_file = base / "settings.json"
    write_text(settings_file, json.dumps(settings, indent=1, default=str) + "\n")
    for script in SCRIPTS:
        print(f"\n{script_command(script, '--settings', settings_file)}", flush=True)
        run_script(script, settings_file)

    run_dir = settings["runs_dir"] / settings["run"]
    report = json.loads((run_dir / "report.json").read_text("utf-8"))
    print_next_steps(base, run_dir, settings_file)
    print(f"quickstart: test accuracy {100 * report['accuracy']:.2f} % on "
          f"{report['photographs']:,} photographs of {len(KINDS)} kinds in "
          f"{time.monotonic() - start:.0f} s")


def folders(base, run_name):
    """Return the settings that name the run and put all of its files below `base`."""
    return {"class_table": base / "collected" / CLASS_TABLE, "collected_dir": base / "collected",
            "cleaned_dir": base / "cleaned", "dataset_dir": base / "dataset",
            "checkpoints_dir": base / "checkpoints", "runs_dir": base / "runs",
            "cache_dir": base / "cache", "run": run_name,
            "checkpoint": base / "checkpoints" / run_name / "plants_model.pth.tar"}


def has_imagenet_weights(offline, seconds=10):
    """Return whether ImageNet weights of mobilenet_v3_small are cached or arrive in `seconds`."""
    if offline:
        print("offline: training a small network from scratch")
        return False
    from model import download_weights
    found = []

    def fetch():
        with suppress(InputError):
            found.append(download_weights("mobilenet_v3_small", "imagenet_v1", seconds))
    # In a thread, because the timeout of the download applies to each connection and each read.
    attempt = threading.Thread(target=fetch, daemon=True)
    attempt.start()
    attempt.join(seconds)
    print("starting from ImageNet weights" if found else
          f"no ImageNet weights within {seconds} s: training a small network from scratch")
    return bool(found)


def run_script(script, settings_file):
    """Run a script with a settings file; raise InputError if it fails.

    OMP_WAIT_POLICY makes waiting threads sleep. By default they spin, which makes a small network
    five times slower if other processes, such as those that read photographs, need the cores.
    """
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    status = subprocess.run([sys.executable, ROOT / script, "--settings", settings_file],
                            env=environment, check=False).returncode
    if status:
        raise InputError(f"{script} ended with status {status}; its message is printed above")


def print_next_steps(base, run_dir, settings_file):
    """Print which files to look at and which commands to try."""
    flags = "--settings", settings_file
    print(f"""
look at  {base / "collected" / "images"}  the photographs as collected
         {base / "cleaned" / "cleaned.csv"}  what cleaning decided about each
         {base / "dataset" / "split_report.txt"}  the split into training and test
         {run_dir / "report.html"}  the accuracy and the mistakes of the network
to name plants in the browser, or in the terminal
         {script_command("app.py", *flags)}
         {script_command("predict.py", *flags, base / "dataset" / "test")}
to export the network for use without torch
         {script_command("export.py", *flags)}
to review the cleaning by hand
         {script_command("dataset_preparation/cleaning/review.py", *flags)}
to see the training curves
         {shell_join(("tensorboard", "--logdir", run_dir.parent))}""")


if __name__ == "__main__":
    run(main)
