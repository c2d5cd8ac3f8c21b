"""The drawn flora is what it says, weights are found in time or not at all, and the quickstart learns form."""
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.models import MobileNet_V3_Small_Weights

from quickstart import CASES, TWO_NAMES, build_weights, draw_flora
from quickstart_flora.drawn_flora import KINDS
from tests.conftest import run_script, snapshot
from utils import InputError, read_classes, read_table, sha256

COPIES = ("repeated", "saved again", "made smaller", "mirrored", "cropped", "turned by EXIF")
PER_CLASS = 4


@pytest.fixture(scope="module")
def flora(tmp_path_factory):
    """A small flora as a search returns it; tests may read it only."""
    folder = tmp_path_factory.mktemp("flora")
    draw_flora(folder, PER_CLASS, seed=1, processes=2)
    return folder


def test_the_flora_is_a_function_of_the_seed(flora, tmp_path):
    again = tmp_path / "again"
    draw_flora(again, PER_CLASS, seed=1, processes=1)
    assert snapshot(again) == snapshot(flora)
    draw_flora(tmp_path / "other", 1, seed=2, processes=2)
    drawn = [{row["file"] for row in read_table(folder / "drawn.csv") if row["case"] == "photographs"}
             for folder in (flora, tmp_path / "other")]
    assert not drawn[0] & drawn[1]


def test_an_interrupted_drawing_is_completed_and_another_flora_is_not_touched(flora, tmp_path):
    draw_flora(tmp_path, 1, seed=1, processes=1)
    before = snapshot(tmp_path)
    for path in (tmp_path / "drawn.csv", sorted((tmp_path / "images").rglob("*.jpg"))[3]):
        path.unlink()
    draw_flora(tmp_path, 1, seed=1, processes=1)
    assert snapshot(tmp_path) == before
    with pytest.raises(InputError, match="another flora.*--quickstart_dir"):
        draw_flora(tmp_path, 2, seed=1, processes=1)
    assert snapshot(tmp_path) == before


def test_files_lie_as_collecting_leaves_them(flora):
    assert [one.latin for one in read_classes(flora / "flora.csv")] == list(KINDS)
    rows = read_table(flora / "drawn.csv")
    files = sorted(path for path in (flora / "images").rglob("*") if path.is_file())
    assert [path.relative_to(flora / "images").as_posix() for path in files] == [row["file"] for row in rows]
    for path in files:
        assert path.parent.name in KINDS
        assert path.stem == sha256(path.read_bytes())[:16]
    counts = Counter(row["case"] for row in rows)
    assert counts == {"photographs": PER_CLASS * len(KINDS),
                      **{case: count * len(KINDS) for case, (count, _) in CASES.items()}}


def test_cleaning_finds_what_was_planted_and_nothing_else(flora, tmp_path):
    """Copies share the group of what they were made of, two drawings never do, the rest is rejected or for review."""
    run_script("dataset_preparation/cleaning/cleaning.py", "--class_table", flora / "flora.csv", "--collected_dir",
               flora, "--cleaned_dir", tmp_path)
    fates = {row["file"]: row for row in read_table(tmp_path / "cleaned.csv")}
    groups = defaultdict(set)
    for row in read_table(flora / "drawn.csv"):
        fate = fates[row["file"]]
        if row["case"] == "photographs":
            groups[fate["group"]].add(row["file"])
        elif row["case"] in COPIES:
            assert fate["group"] == fates[row["source"]]["group"] != "", row
        else:
            assert fate["status"] == ("review" if row["case"] == TWO_NAMES else "rejected"), row
    assert {len(files) for files in groups.values()} == {1}


def test_initial_weights_are_found_or_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert not build_weights(0.5)
        assert time.monotonic() - began < 15  # seconds, most of them for loading torch
    (tmp_path / "hub/checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save({}, tmp_path / "hub/checkpoints" / Path(MobileNet_V3_Small_Weights.IMAGENET1K_V1.url).name)
    assert build_weights(30), "what is there needs no server"


def colour_histogram(path):
    """Return the shares (512,) of the 8 x 8 x 8 boxes of RGB in a photograph."""
    boxes = np.asarray(Image.open(path)).reshape(-1, 3).astype(int) // 32 @ (64, 8, 1)
    return np.bincount(boxes, minlength=512) / len(boxes)


def colour_accuracy(dataset):
    """Return the test accuracy of logistic regression on colour histograms, on the split of a labelled dataset."""
    (train, labels), (test, answers) = (
        (np.array([colour_histogram(dataset / row["path"]) for row in rows]), [row["label"] for row in rows])
        for rows in (read_table(dataset / f"{side}_labels.csv") for side in ("train", "test")))
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(train, labels).score(test, answers)


def answers_at(line, folder):
    """Run a command as a person pastes it, and return whether a page comes at the address that it prints."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DISPLAY": "",
           "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(line, shell=True, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, start_new_session=True)
    try:
        for printed in process.stdout:
            if found := re.search(r"http://(127\.0\.0\.1|localhost):\S+", printed):
                return requests.get(found[0], timeout=60).ok
        return False
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.mark.slow
def test_the_quickstart_learns_form_and_not_colour(tmp_path):
    """It ends in a good network, and the commands it names, pasted as they stand, open pages."""
    base = tmp_path / "my flora"
    done = run_script("quickstart.py", "--quickstart_offline", "--quickstart_dir", base)
    found = re.fullmatch(r"quickstart: test accuracy (\d+\.\d\d) % on 120 photographs of 10 kinds in \d+ s",
                         done.stdout.splitlines()[-1])
    accuracy, colour = float(found[1]) / 100, colour_accuracy(base / "dataset")
    print(f"test accuracy {accuracy:.4f}, colour histograms alone {colour:.4f}")
    assert accuracy >= 0.80
    assert accuracy >= colour + 0.15

    told = done.stdout[done.stdout.index("look at  "):].splitlines()[:-1]
    files, lines = [line[9:].split("  ")[0] for line in told[:4]], [line.strip() for line in told[5::2]]
    assert all(Path(file).exists() for file in files)
    assert files[3].endswith("report.html")
    any_port = {"app.py": "", "review.py": "--review_port 0", "tensorboard": "--port 0"}
    for line, (program, flag) in zip(lines, any_port.items(), strict=True):
        assert program in line
        assert os.name == "nt" or answers_at(f"{line} {flag}", tmp_path)
    again = run_script("quickstart.py", "--quickstart_offline", "--quickstart_dir", base).stdout
    assert "finished before" in again
    assert again.splitlines()[-1].split(" in ")[0] == done.stdout.splitlines()[-1].split(" in ")[0]
