"""Go the whole way once on a small drawn flora: draw, clean, label, train, evaluate. Needs minutes and no network.

    python quickstart.py
    quickstart: test accuracy 96.67 % on 120 photographs of 10 kinds in 98 s

The photographs are invented, and arrive as an image search would return them: with copies, broken files and pictures
under two names. The rest is done by the real scripts, whose commands are printed. Everything lies below
QUICKSTART_DIR; killed or started again, the same command goes on from there.
"""
import io
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import config
from images import encode
from quickstart_flora.drawn_flora import KINDS, photograph
from utils import InputError, atomic_path, process_count, progress, read_table, run, sha256, write_table, write_text

CLASS_TABLE, DRAWN = "flora.csv", "drawn.csv"  # beside images/; the second is written last
SCRIPTS = ("dataset_preparation/cleaning/cleaning.py", "dataset_preparation/labeling/labeling.py", "train.py",
           "evaluate.py")
RECIPES = {  # network: the settings that teach it the flora within two minutes on two cores
    "mobilenet_v3_small": {"initial_weights": "imagenet_v1", "image_size": 128, "num_epochs": 5, "batch_size": 32},
    "plain_cnn": {"initial_weights": "none", "image_size": 80, "num_epochs": 28, "batch_size": 16,
                  "learning_rate": 2e-3, "weight_decay": 0.05, "crop_scale_min": 0.5},
}


def main(argv=None):
    changed = config.override(argv, description=__doc__)
    began, base = time.monotonic(), config.QUICKSTART_DIR
    print(f"drawing {config.QUICKSTART_PER_CLASS} photographs of each of {len(KINDS)} kinds in {base / 'collected'}",
          flush=True)
    planted = draw_flora(base / "collected", config.QUICKSTART_PER_CLASS, config.SEED, config.PROCESSES)
    print("; ".join(f"{count:,} {case}" for case, count in planted.items()))

    model = changed.get("MODEL") or ("mobilenet_v3_small" if build_weights() else "plain_cnn")
    name = f"quickstart_{model}"
    checkpoints, runs = base / "checkpoints", base / "runs"
    settings = {"model": model, "test_per_class": 12, **RECIPES.get(model, {}),
                **{key.lower(): value for key, value in changed.items()},
                "class_table": base / "collected" / CLASS_TABLE, "collected_dir": base / "collected",
                "cleaned_dir": base / "cleaned", "dataset_dir": base / "dataset", "checkpoints_dir": checkpoints,
                "runs_dir": runs, "cache_dir": base / "cache", "run": name,
                "checkpoint": checkpoints / name / "plants_model.pth.tar"}
    flags = "--settings", base / "settings.json"
    write_text(flags[1], json.dumps(settings, indent=1, default=str) + "\n")
    for script in SCRIPTS:
        print(f"\n{command(script, *flags)}", flush=True)
        run_script(config.ROOT / script, flags[1])

    report = json.loads((runs / name / "report.json").read_text("utf-8"))
    print(f"""
look at  {base / "collected" / "images"}  the photographs as they came
         {base / "cleaned" / "cleaned.csv"}  what cleaning thought of each
         {base / "dataset" / "split_report.txt"}  what went to training and what to the test
         {runs / name / "report.html"}  how good the network is, and where it is wrong
to name plants in the browser
         {command("app.py", *flags)}
to clean by hand
         {command("dataset_preparation/cleaning/review.py", *flags)}
to see the course of the training
         {command("tensorboard", "--logdir", runs)}""")
    print(f"quickstart: test accuracy {100 * report['accuracy']:.2f} % on {report['photographs']:,} photographs of "
          f"{len(KINDS)} kinds in {time.monotonic() - began:.0f} s")


def command(program, *arguments):
    """Return the line that runs a script of this repository, or a program, to be pasted into a terminal."""
    here = Path(__file__).resolve().parent
    if program.endswith(".py"):
        program, arguments = "python", (program if Path.cwd() == here else here / program, *arguments)
    parts = [str(part) for part in (program, *arguments)]
    return subprocess.list2cmdline(parts) if os.name == "nt" else shlex.join(parts)


def run_script(script, settings):
    """Run a script with a settings file; raise InputError where it fails.

    Threads that wait for work sleep: spinning, torch's default, they slow a small network down fivefold where the
    processor has other work to do as well, such as reading the photographs.
    """
    status = subprocess.run([sys.executable, script, "--settings", settings], check=False,
                            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ}).returncode
    if status:
        raise InputError(f"{script.name} ended with status {status}; its own message stands above")


# ---- initial weights ----

def build_weights(seconds=10):
    """Return whether torchvision's ImageNet weights of mobilenet_v3_small are at hand, after so long a try to fetch."""
    if config.QUICKSTART_OFFLINE:
        print("asked to stay offline: a small network learns from scratch")
        return False
    from model import download_weights
    found = []

    def fetch():
        with suppress(InputError):
            found.append(download_weights("mobilenet_v3_small", "imagenet_v1", seconds))
    trying = threading.Thread(target=fetch, daemon=True)  # the time limit in there is one of each connection and read
    trying.start()
    trying.join(seconds)
    print("starting from ImageNet weights" if found else
          f"no ImageNet weights within {seconds} s: a small network learns from scratch")
    return bool(found)


# ---- the flora ----

def draw_flora(folder, per_class, seed, processes=0):
    """Draw a flora as a search returns it and return {case: number of files}.

    Writes `folder`/images/<Latin>/<16 hex of SHA-256>.<ext>, a class table flora.csv, and drawn.csv, which tells for
    every file what it is and which one it was made of. The files are a function of `per_class` and `seed` alone.
    Raises InputError where the folder holds another flora.
    """
    write_once(folder / "flora.json", json.dumps({"per_class": per_class, "seed": seed}) + "\n")
    write_table(folder / CLASS_TABLE, ("label", "latin", "russian", "english", "also"), [
        {"label": label, "latin": latin, "russian": kind.russian, "english": kind.english}
        for label, (latin, kind) in enumerate(KINDS.items())])
    if not (folder / DRAWN).is_file():
        with ProcessPoolExecutor(process_count(processes)) as pool:
            job = partial(draw_kind, folder / "images", per_class=per_class, seed=seed)
            rows = sum(progress(pool.map(job, KINDS), len(KINDS), "drawing"), [])
        write_table(folder / DRAWN, ("file", "case", "source"), sorted(rows, key=lambda row: row["file"]))
    cases = Counter(row["case"] for row in read_table(folder / DRAWN, ("case",)))
    return {case: cases[case] for case in ("photographs", *CASES) if cases[case]}


def write_once(path, text):
    """Write a file, or raise InputError where it stands there with another text."""
    if path.is_file() and path.read_text("utf-8") != text:
        raise InputError(f"{path.parent} holds another flora, {path.read_text('utf-8').strip()}; name another folder "
                         "with --quickstart_dir, or move that one away")
    write_text(path, text)


def draw_kind(images, latin, per_class, seed):
    """Write the photographs of a kind, and what a search returns besides, and return their rows of drawn.csv."""
    place = list(KINDS).index(latin)
    following = list(KINDS)[(place + 1) % len(KINDS)]

    def stream(number):
        return np.random.default_rng([seed % 2 ** 32, place, number])

    def save(data, folder, ending, case, source=""):
        file = f"{folder}/{sha256(data)[:16]}.{ending}"
        with atomic_path(images / file) as temporary:
            temporary.write_bytes(data)
        return {"file": file, "case": case, "source": source}

    drawn = [encode(photograph(latin, stream(number))) for number in range(per_class)]
    rows = [save(data, latin, "jpg", "photographs") for data in drawn]
    sources = np.resize(stream(per_class).permutation(per_class), sum(count for count, _ in CASES.values())).tolist()
    for case, (count, change) in CASES.items():
        for source in [sources.pop() for _ in range(count)]:
            data, ending = change(Image.open(io.BytesIO(drawn[source])), drawn[source])
            folder = following if case == TWO_NAMES else latin
            rows.append(save(data, folder, ending, case, rows[source]["file"]))
    return rows


def cropped(image):
    """Return an image without 4 % of its width and height on every side."""
    return ImageOps.crop(image, (image.width // 25, image.height // 25, image.width // 25, image.height // 25))


def turned(image):
    """Return a JPEG stored on its side, with the EXIF orientation that sets it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    return encode(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


def cut_out(image):
    """Return an image that is transparent towards its edges."""
    image = image.convert("RGBA")
    image.putalpha(ImageOps.invert(Image.radial_gradient("L").resize(image.size)))
    return image


TWO_NAMES = "under two names"
CASES = {  # what a search returns besides: files per kind, (image, its bytes) -> (bytes, ending)
    "repeated": (2, lambda image, data: (data, "jpeg")),
    "saved again": (2, lambda image, data: (encode(image, quality=60), "jpg")),
    "made smaller": (2, lambda image, data: (encode(ImageOps.scale(image, 0.9)), "jpg")),
    "mirrored": (2, lambda image, data: (encode(ImageOps.mirror(image)), "jpg")),
    "cropped": (2, lambda image, data: (encode(cropped(image)), "jpg")),
    "turned by EXIF": (2, lambda image, data: (turned(image), "jpg")),
    TWO_NAMES: (1, lambda image, data: (data, "jpg")),
    "too small": (2, lambda image, data: (encode(ImageOps.scale(image, 0.5)), "jpg")),
    "broken off": (2, lambda image, data: (data[:len(data) // 2], "jpg")),
    "web pages": (1, lambda image, data: (f"<!DOCTYPE html><p>No picture {sha256(data)}".encode(), "jpg")),
    "grey": (1, lambda image, data: (encode(image.convert("L")), "jpg")),
    "with a palette": (1, lambda image, data: (encode(image.quantize(64), "PNG"), "png")),
    "with transparency": (1, lambda image, data: (encode(cut_out(image), "WEBP"), "webp")),
}


if __name__ == "__main__":
    run(main)
