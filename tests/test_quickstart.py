"""The drawn flora is what its table says, and the quickstart learns form, not colour."""
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

import quickstart
from quickstart import has_imagenet_weights
from quickstart_flora.kinds import KINDS
from quickstart_flora.search_results import CASES, TWO_NAMES, draw_flora
from tests.conftest import run_script, snapshot
from utils import InputError, read_classes, read_table, sha256

NEAR_DUPLICATES = ("exact duplicates", "recompressed", "scaled down", "mirrored", "cropped",
                   "turned by EXIF")
PER_CLASS = 4


@pytest.fixture(scope="module")
def flora(tmp_path_factory):
    """A small flora as a search returns it. Tests only read it."""
    folder = tmp_path_factory.mktemp("flora")
    draw_flora(folder, PER_CLASS, seed=1, processes=2)
    return folder


def test_the_flora_is_a_function_of_the_seed(flora, tmp_path):
    again = tmp_path / "again"
    draw_flora(again, PER_CLASS, seed=1, processes=1)
    assert snapshot(again) == snapshot(flora)
    draw_flora(tmp_path / "other", 1, seed=2, processes=2)
    first, second = (
        {row["file"] for row in read_table(folder / "drawn.csv") if row["case"] == "photographs"}
        for folder in (flora, tmp_path / "other"))
    assert not first & second


def test_a_killed_drawing_is_completed_and_another_flora_is_not_touched(tmp_path):
    draw_flora(tmp_path, 1, seed=1, processes=1)
    before = snapshot(tmp_path)
    for path in (tmp_path / "drawn.csv", sorted((tmp_path / "images").rglob("*.jpg"))[3]):
        path.unlink()
    draw_flora(tmp_path, 1, seed=1, processes=1)
    assert snapshot(tmp_path) == before
    with pytest.raises(InputError, match='"per_class": 1.*"per_class": 2.*--quickstart_dir'):
        draw_flora(tmp_path, 2, seed=1, processes=1)
    assert snapshot(tmp_path) == before


def test_a_flora_of_ten_kinds_drawn_by_an_earlier_version_is_refused(tmp_path):
    (tmp_path / "flora.json").write_text('{"per_class": 1, "seed": 1}\n')
    with pytest.raises(InputError, match=f"{tmp_path.name}.*--quickstart_dir"):
        draw_flora(tmp_path, 1, seed=1)
    assert list(snapshot(tmp_path)) == ["flora.json"]


def test_the_drawn_flora_has_the_layout_of_collecting(flora):
    assert [one.latin for one in read_classes(flora / "flora.csv")] == list(KINDS)
    rows = read_table(flora / "drawn.csv")
    files = sorted(path for path in (flora / "images").rglob("*") if path.is_file())
    relative = [path.relative_to(flora / "images").as_posix() for path in files]
    assert relative == [row["file"] for row in rows]
    for path in files:
        assert path.parent.name in KINDS
        assert path.stem == sha256(path.read_bytes())[:16]
    counts = Counter(row["case"] for row in rows)
    assert counts == {"photographs": PER_CLASS * len(KINDS),
                      **{case: count * len(KINDS) for case, (count, _) in CASES.items()}}


def test_cleaning_finds_what_was_planted_and_nothing_else(flora, tmp_path):
    """Near-duplicates share the group of their source; no two photographs share one."""
    run_script("dataset_preparation/cleaning/cleaning.py", "--class_table", flora / "flora.csv",
               "--collected_dir", flora, "--cleaned_dir", tmp_path)
    cleaned = {row["file"]: row for row in read_table(tmp_path / "cleaned.csv")}
    groups = defaultdict(set)
    for row in read_table(flora / "drawn.csv"):
        result = cleaned[row["file"]]
        if row["case"] == "photographs":
            groups[result["group"]].add(row["file"])
        elif row["case"] in NEAR_DUPLICATES:
            assert result["group"] == cleaned[row["source"]]["group"] != "", row
        else:
            status = "review" if row["case"] == TWO_NAMES else "rejected"
            assert result["status"] == status, row
    assert {len(files) for files in groups.values()} == {1}


def test_initial_weights_are_found_or_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, never replies
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not has_imagenet_weights(offline=False, seconds=0.5)
        assert time.monotonic() - start < 120  # seconds, nearly all of them for importing torch
    file = tmp_path / "hub/checkpoints" / Path(MobileNet_V3_Small_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({}, file)
    assert has_imagenet_weights(offline=False, seconds=60), "weights at hand need no server"


def colour_histogram(path):
    """Return the shares (512,) of the 8 x 8 x 8 boxes of RGB in a photograph."""
    boxes = np.asarray(Image.open(path)).reshape(-1, 3).astype(int) // 32 @ (64, 8, 1)
    return np.bincount(boxes, minlength=512) / len(boxes)


def colour_accuracy(dataset):
    """Return the test accuracy of logistic regression on colour histograms of a dataset."""
    (x_train, y_train), (x_test, y_test) = (
        (np.array([colour_histogram(dataset / row["path"]) for row in rows]),
         [row["label"] for row in rows])
        for rows in (read_table(dataset / f"{side}_labels.csv") for side in ("train", "test")))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return classifier.fit(x_train, y_train).score(x_test, y_test)


def serves_a_page(line, folder):
    """Run a command as a user pastes it; return whether a page opens at the address it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DISPLAY": "", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(line, shell=True, cwd=folder, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
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
    """It ends in a good network, and the commands it prints, pasted unchanged, open pages."""
    base = tmp_path / "my flora"
    command = "quickstart.py", "--quickstart_offline", "--quickstart_dir", base
    printed = run_script(*command).stdout
    pattern = r"quickstart: test accuracy (\d+\.\d\d) % on 120 photographs of 6 kinds in \d+ s"
    accuracy = float(re.fullmatch(pattern, printed.splitlines()[-1])[1]) / 100
    colour = colour_accuracy(base / "dataset")
    print(f"test accuracy {accuracy:.4f}, colour histograms alone {colour:.4f}")
    assert accuracy >= 0.85
    assert accuracy >= colour + 0.15

    steps = printed[printed.index("look at  "):].splitlines()[:-1]
    files = [line[9:].split("  ")[0] for line in steps[:4]]
    assert all(Path(file).exists() for file in files)
    assert files[3].endswith("report.html")
    lines = [line.strip() for line in steps if line.startswith("   ")]
    any_port = {"app.py": "", "review.py": "--review_port 0", "tensorboard": "--port 0"}
    for program, flag in any_port.items():
        line, = (line for line in lines if program in line)
        assert os.name == "nt" or serves_a_page(f"{line} {flag}", tmp_path)
    checkpoint = base / "checkpoints/quickstart_plain_cnn/plants_model.pth.tar"
    modified = checkpoint.stat().st_mtime_ns
    again = run_script(*command).stdout.splitlines()[-1]
    assert again.split(" in ")[0] == printed.splitlines()[-1].split(" in ")[0]
    assert checkpoint.stat().st_mtime_ns == modified, "a finished run was trained again"


def test_the_next_steps_name_every_way_to_use_the_network(tmp_path, capsys):
    quickstart.print_next_steps(tmp_path, tmp_path / "runs/a", tmp_path / "settings.json")
    printed = capsys.readouterr().out
    for script in ("app.py", "predict.py", "export.py"):
        assert f"{script} --settings {tmp_path / 'settings.json'}" in printed
