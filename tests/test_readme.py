"""The two READMEs: the same headings and commands, and every command works as written."""
import os
import re
import shlex
import subprocess
import sys

import pytest
import torch

import config
from model import build_model
from settings.scripts import names_of
from tests.conftest import (
    NAMES,
    ROOT,
    copy_repository,
    draw,
    jpeg,
    make_collected,
    write_classes,
)
from utils import read_classes

READMES = ("README.md", "README.ru.md")
SKIPPED = ("pip install", "python quickstart.py", "tensorboard", "python -m pytest", "bash .ci/run")
# Edits of config.py that make the commands quick enough for a test.
SMALL = {"MODEL": "plain_cnn", "INITIAL_WEIGHTS": "none", "IMAGE_SIZE": 64, "NUM_EPOCHS": 1,
         "BATCH_SIZE": 32, "TEST_PER_CLASS": 2, "NUM_WORKERS": 0, "PROCESSES": 2}


def commands(name):
    """Return [(command, comment)] of the lines in the shell blocks of a README."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL):
        for line in block.splitlines():
            command, _, comment = line.partition("   #")
            if command.strip():
                found.append((command.strip(), comment.strip()))
    return found


def heading_levels(name):
    """Return the `#`, `##`, ... of the headings of a README."""
    text = re.sub(r"(?s)```.*?```", "", (ROOT / name).read_text("utf-8"))
    return re.findall(r"(?m)^(#+) ", text)


def test_both_have_the_same_headings_and_commands():
    english, russian = READMES
    assert heading_levels(english) == heading_levels(russian)
    assert [command for command, _ in commands(english)] == [
        command for command, _ in commands(russian)]


def test_linked_pictures_and_files_exist():
    for name in READMES:
        text = (ROOT / name).read_text("utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", text):
            path = "".join(target)
            assert path.startswith("http") or (ROOT / path).exists(), f"{name} points to {path}"


@pytest.mark.parametrize("command", sorted(
    {command for command, _ in commands("README.md") if "python " in command}))
def test_scripts_and_flags_exist(command):
    for part in re.split(r"&&|\||;", command):
        words = shlex.split(part)
        script = next((word for word in words
                       if word.endswith(".py") and not word.startswith("-")), None)
        if "python" not in words or script is None:
            continue
        assert (ROOT / script).is_file()
        if not script.startswith("benchmarks/"):
            flags = {word[2:].removeprefix("no-").upper() for word in words
                     if word.startswith("--")}
            taken = names_of(script.split("/")[-1])
            assert flags <= {*taken, "SETTINGS", "NPROC-PER-NODE", "HELP"}


def edit_settings(clone):
    """Write SMALL to the config.py of a copy of the repository."""
    text = (clone / "config.py").read_text("utf-8")
    for name, value in SMALL.items():
        text, count = re.subn(rf"(?m)^{name} = .*?  #", f"{name} = {value!r}  #", text)
        assert count == 1
    (clone / "config.py").write_text(text, "utf-8")


def write_photographs(clone):
    """Write the photographs and the class table that the commands name."""
    make_collected(clone / "dataset_preparation/parsing/data",
                   [row.latin for row in read_classes(config.CLASS_TABLE)], count=6)
    make_collected(clone / "photos")
    write_classes(clone / "my_plants.csv", NAMES)
    (clone / "photo.jpg").write_bytes(jpeg(draw(5)))
    (clone / "holiday").mkdir()
    (clone / "holiday/one.jpg").write_bytes(jpeg(draw(6)))
    (clone / "walk/plant one").mkdir(parents=True)
    for i in range(2):
        (clone / f"walk/plant one/{i}.jpg").write_bytes(jpeg(draw(8 + i)))
    (clone / "more").mkdir()
    draw(7).save(clone / "more/two.webp")
    torch.save(build_model(SMALL["MODEL"], 3).state_dict(), clone / "weights.pth")


@pytest.mark.slow
def test_every_command_works_as_written(tmp_path):
    """In order, in a copy with small settings, except those that SKIPPED or a "needs" excludes."""
    clone = copy_repository(tmp_path / "clone")
    edit_settings(clone)
    write_photographs(clone)
    lines = ["set -e"]
    for command, comment in commands("README.md"):
        if "needs" in comment or any(word in command for word in SKIPPED):
            continue
        if "app.py" in command or "review.py" in command:  # they serve a page until Ctrl-C
            command = f"timeout --foreground --preserve-status -s INT 20 {command}"
        lines += [f"echo {shlex.quote('>>> ' + command)}", command]
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=clone, capture_output=True,
                          text=True, check=False,
                          env={**os.environ, "PATH": path, "BROWSER": "true"})
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
