"""The two READMEs: in step with each other, and every command in them works as written."""
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

import config
from settings.scripts import settings_of
from tests.conftest import ROOT, draw, jpeg, make_collected, write_classes
from utils import read_classes

READMES = ("README.md", "README.ru.md")
# Settings of the copy in which the commands are run, as a user would edit config.py: small enough for a test.
SMALL = {"MODEL": "plain_cnn", "INITIAL_WEIGHTS": "none", "IMAGE_SIZE": 64, "NUM_EPOCHS": 1, "BATCH_SIZE": 32,
         "TEST_PER_CLASS": 2, "NUM_WORKERS": 0, "PROCESSES": 2}


def commands(name):
    """Return [(command, comment)] of the lines in the shell blocks of a README."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL):
        for line in block.splitlines():
            command, _, comment = line.partition("   #")
            if command.strip():
                found.append((command.strip(), comment.strip()))
    return found


def test_both_have_the_same_headings_and_commands():
    levels = [re.findall(r"(?m)^(#+) ", re.sub(r"```.*?```", "", (ROOT / name).read_text("utf-8"), flags=re.DOTALL))
              for name in READMES]
    assert levels[0] == levels[1]
    assert [command for command, _ in commands(READMES[0])] == [command for command, _ in commands(READMES[1])]


def test_pictures_and_files_they_point_to_are_there():
    for name in READMES:
        text = (ROOT / name).read_text("utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", text):
            path = "".join(target)
            assert path.startswith("http") or (ROOT / path).exists(), f"{name} points to {path}"


@pytest.mark.parametrize("command", sorted({command for command, _ in commands("README.md") if "python " in command}))
def test_scripts_and_flags_exist(command):
    for part in re.split(r"&&|\||;", command):
        words = shlex.split(part)
        script = next((word for word in words if word.endswith(".py") and not word.startswith("-")), None)
        if "python" not in words or script is None:
            continue
        assert (ROOT / script).is_file()
        if not script.startswith("benchmarks/"):
            flags = {re.sub("^no-", "", word[2:]).upper() for word in words if word.startswith("--")}
            taken = {name for names in settings_of(script.split("/")[-1]).values() for name in names}
            assert flags <= taken | {"SETTINGS", "NPROC-PER-NODE", "HELP"}


@pytest.mark.slow
def test_every_command_works_as_written(tmp_path):
    """In a copy with small settings, in order, all but those whose comment says what they need beyond this machine."""
    clone = tmp_path / "clone"
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.splitlines()
    for file in files:
        if (ROOT / file).is_file():
            (clone / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, clone / file)
    text = (clone / "config.py").read_text("utf-8")
    for name, value in SMALL.items():
        text, count = re.subn(rf"(?m)^{name} = .*?  #", f"{name} = {value!r}  #", text)
        assert count == 1
    (clone / "config.py").write_text(text, "utf-8")
    make_collected(clone / "dataset_preparation/parsing/data",
                   [one.latin for one in read_classes(config.CLASS_TABLE)], count=6)
    make_collected(clone / "photos")
    write_classes(clone / "my_plants.csv", sorted(path.name for path in (clone / "photos/images").iterdir()))
    (clone / "photo.jpg").write_bytes(jpeg(draw(5)))
    (clone / "holiday").mkdir()
    (clone / "holiday/one.jpg").write_bytes(jpeg(draw(6)))
    (clone / "more").mkdir()
    draw(7).save(clone / "more/two.webp")
    lines = ["set -e"]
    skipped = ("pip install", "python quickstart.py", "tensorboard", "python -m pytest", "bash .ci/run")
    for command, comment in commands("README.md"):
        if "needs" in comment or any(word in command for word in skipped):
            continue
        if any(page in command for page in ("app.py", "review.py")):  # pages are served until Ctrl-C
            command = f"timeout --foreground --preserve-status -s INT 20 {command}"
        lines += [f"echo {shlex.quote('>>> ' + command)}", command]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=clone, capture_output=True, text=True, check=False,
                          env={**os.environ, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "BROWSER": "true"})
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
