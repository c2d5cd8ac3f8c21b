"""Shared by the tests: drawn photographs, small datasets, scripts run as a user runs them."""
import io
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import config

# The networks are so small that threads would spend more time waiting than they save.
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = config.ROOT
SHARED = ROOT.parent / "shared"


def shared(name):
    """Return the path of real photographs or weights; skip the test where they are absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


def run_script(script, *arguments, status=0, before=(), **kwargs):
    """Run a script of the repository, check its exit status, and return the finished process.

    `before` is a command that starts it, written in front of its own.
    """
    command = [*before, sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          **{"cwd": ROOT.anchor, **kwargs})
    printed = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == status, f"{script} ended with {done.returncode}\n{printed}"
    return done


def copy_repository(folder):
    """Copy the repository, with uncommitted changes and new files, to a folder; return it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not deleted without a commit
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


LAUNCHER = """import resource, subprocess, sys
status = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


def run_measured(folder, script, *arguments):
    """Run a script and return (the finished process, peak memory in MB of its largest process).

    A small process starts it, as the peak that the system reports includes the parent's memory.
    """
    peak = folder / "peak_kilobytes"
    done = run_script(script, *arguments, before=(sys.executable, "-c", LAUNCHER, str(peak)))
    megabytes = int(peak.read_text()) / 1000
    peak.unlink()
    return done, megabytes


def draw(seed, size=(300, 280), detail=9):
    """Return a smooth random RGB image; the perceptual hashes of different seeds differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (detail, detail, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(image, **options):
    """Return the bytes of an image as a JPEG, of quality 90 by default."""
    data = io.BytesIO()
    image.save(data, "JPEG", **{"quality": 90, **options})
    return data.getvalue()


def write_classes(path, names):
    """Write a class table of these Latin names and return its path."""
    rows = [f"{label},{name},,," for label, name in enumerate(names)]
    text = "\n".join(["label,latin,russian,english,also", *rows]) + "\n"
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


NAMES = ("Rosa prima", "Rosa secunda", "Rosa tertia")


def make_collected(folder, names=NAMES, count=8):
    """Write `count` different photographs per class, as parsing.py does; return their folder."""
    for label, name in enumerate(names):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(count):
            (folder / "images" / name / f"{i:03}.jpg").write_bytes(jpeg(draw(1000 * label + i)))
    return folder


def make_labelled(folder, names=NAMES, train=8, test=3, size=(64, 64)):
    """Write a small dataset with label tables, a colour per class; return its folder."""
    for side, count in (("train", train), ("test", test)):
        lines = ["path,label,latin,group,sha256,url,license,author"]
        for label, name in enumerate(names):
            (folder / side / name).mkdir(parents=True)
            for i in range(count):
                path = f"{side}/{name}/{name.lower().replace(' ', '_')}_{side}_{i + 1}.jpg"
                seed = 116_000 + 100 * label + i + 50 * (side == "test")
                pixels = np.asarray(draw(seed, size)) // 3
                pixels[..., label % 3] += 120
                (folder / path).write_bytes(jpeg(Image.fromarray(pixels)))
                lines.append(f"{path},{label},{name},{side}{label}{i},,,,")
        (folder / f"{side}_labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220))


def one_colour(label, size=(80, 70)):
    """Return an image in the colour of a class, lighter on the left: its mirror image differs."""
    pixels = np.tile(np.array(COLOURS[label], np.float32), (size[1], size[0], 1))
    return Image.fromarray((pixels * np.linspace(1, 0.6, size[0])[:, None]).astype(np.uint8))


def score_entry(classes):
    """Return the `out_of_distribution` of a checkpoint of plain_cnn, fitted to random features."""
    from evaluation.out_of_distribution import fit_statistics, score_parts, standardize
    features = np.random.default_rng(0).normal(1, 1, (30, 256))
    statistics = fit_statistics(features, np.arange(30) % classes)
    statistics = standardize(statistics, score_parts(statistics, features[None].astype("f")))
    return {**statistics, "threshold": -1e9}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a folder with a checkpoint, a class table and photographs, for reading only.

    The network distinguishes red, green and blue. Two of its three classes are in the table, in
    another order.
    """
    import torch

    from model import build_model
    from training.checkpoints import save_checkpoint
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model = build_model("plain_cnn", 3, 0.5)
    views = torch.from_numpy(np.stack([one_colour(label, (64, 64)) for label in (0, 1, 2)] * 8))
    images = (views.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    labels = torch.tensor([0, 1, 2] * 8)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    save_checkpoint(folder / "plants_model.pth.tar", {
        "model": "plain_cnn", "class_names": list(NAMES), "image_size": 64,
        "mean": (0.5,) * 3, "std": (0.5,) * 3,
        "model_state_dict": model.state_dict(), "temperature": 1.5,
        "out_of_distribution": score_entry(3)})
    (folder / "classes.csv").write_text(
        "label,latin,russian,english,also\n0,Rosa secunda,роза вторая,second rose,\n"
        "1,Rosa prima,роза первая,first rose,\n2,Rosa quarta,,,\n", encoding="utf-8")
    (folder / "photos/deep").mkdir(parents=True)
    for label, name in enumerate(("a.jpg", "b.PNG", "deep/c.webp")):
        one_colour(label).save(folder / "photos" / name)
    (folder / "photos/notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a dataset to train on; tests of other steps define their own."""
    from tests.training_runs import make_folder
    return make_folder(tmp_path)


@pytest.fixture
def server():
    """Yield a server that plays the sources of photographs; some tests define their own."""
    from tests.collecting_server import CollectingServer
    with CollectingServer() as running:
        yield running


@pytest.fixture(scope="session")
def cleaned_once(tmp_path_factory):
    """Return a cleaned folder to be reviewed, for copying only."""
    from tests.reviewing import make_cleaned
    return make_cleaned(tmp_path_factory.mktemp("cleaned"))


@pytest.fixture(scope="module")
def screen(browser):
    """Return the browser with a screen of 1600 x 1000."""
    from tests.review_browser import emulate
    emulate(browser, 1600, 1000, phone=False)
    browser.set_script_timeout(120)
    return browser


@pytest.fixture(scope="module")
def browser():
    """Yield a headless Chromium that logs its requests and the messages of its console."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--force-prefers-reduced-motion"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options)
    yield driver
    driver.quit()


def snapshot(folder):
    """Return {relative path: bytes} of all files below a folder, without the store of features.

    That is a cache which holds the same in other bytes after every run.
    """
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "near_duplicates.sqlite"}


@contextmanager
def on_screen(browser, width, height, scale=1, mobile=True):
    """Give a browser's window another size in CSS pixels while the block runs."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
