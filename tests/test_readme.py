"""The READMEs and docs/: short, the same in both languages, every command and figure as written."""
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
import torch

import config
from dataset_preparation.cleaning import decisions
from dataset_preparation.labeling import labeling
from model import build_model
from settings.scripts import names_of, scripts_with
from tests.conftest import NAMES, ROOT, copy_repository, draw, jpeg, make_collected, write_classes
from training.checkpoints import PREDICTION_FIELDS
from utils import InputError, PlantClass, read_classes, read_label_rows

# In the order in which a reader meets them; what one page's commands write, the next may read.
ENGLISH = ["README.md", *(f"docs/{page}.md" for page in (
    "tour", "collecting", "cleaning", "labelling", "training", "evaluation", "using", "scaling",
    "formats", "troubleshooting", "measuring", "history"))]
RUSSIAN = ["README.ru.md", *sorted(f"docs/ru/{path.name}" for path in ROOT.glob("docs/ru/*.md"))]
PAIRS = [(path.replace("docs/ru", "docs").replace(".ru.md", ".md"), path) for path in RUSSIAN]
MAX_LINES = {"README.md": 200, "README.ru.md": 200}  # of a page of docs/: 150
FIGURES = "benchmarks/RESULTS.md"
SKIPPED = ("pip install", "-m venv", "python quickstart.py", "tensorboard", "python -m pytest")
# Flags of other programs, and two that every script takes.
FOREIGN = {"help", "settings", "nproc-per-node", "nnodes", "rdzv-backend", "rdzv-endpoint",
           "index-url", "sandbox"}
# Edits of config.py that make the commands quick enough for a test.
SMALL = {"MODEL": "plain_cnn", "INITIAL_WEIGHTS": "none", "IMAGE_SIZE": 64, "NUM_EPOCHS": 1,
         "BATCH_SIZE": 32, "TEST_PER_CLASS": 2, "NUM_WORKERS": 0, "PROCESSES": 2,
         "SEARCH_MODELS": ("plain_cnn",)}


def text_of(page):
    """Return the text of a page."""
    return (ROOT / page).read_text("utf-8")


def commands(page):
    """Return [(command, comment)] of the lines in the shell blocks of a page."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            command, _, comment = line.partition("   #")
            if command.strip():
                found.append((command.strip(), comment.strip()))
    return found


def blocks(page, language):
    """Return the code blocks of a page that are in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def python_code(page):
    """Return the Python blocks of a page without their comments."""
    return [re.sub(r" *#.*", "", block) for block in blocks(page, "python")]


def prose(page):
    """Return a page without its code blocks."""
    return re.sub(r"(?s)```.*?```", "", text_of(page))


def headings(page):
    """Return [(level, anchor)] of the headings of a page, anchors as GitHub makes them."""
    return [(len(level), re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"))
            for level, title in re.findall(r"(?m)^(#+) (.+)$", prose(page))]


def numbers(text, russian=False):
    """Return the numbers of a text in order: 1,260.5 or, in Russian, 1 260,5 as "1260.5"."""
    if russian:
        text = re.sub(r"(?<=\d)\s(?=\d{3}\b)", "", text).replace(", ", "; ").replace(",", ".")
    return re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))


def test_pages_are_short_listed_and_linked_from_their_readme():
    assert sorted(ENGLISH[1:]) == sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))
    for pages in (ENGLISH, RUSSIAN):
        for page in pages:
            lines = len(text_of(page).splitlines())
            assert lines <= MAX_LINES.get(page, 150), f"{page} has {lines} lines"
            assert page == pages[0] or f"]({page})" in text_of(pages[0]), f"{page} is not linked"


@pytest.mark.parametrize("english, russian", PAIRS)
def test_both_languages_have_the_same_headings_commands_and_tables(english, russian):
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(russian)]
    assert [command for command, _ in commands(english)] == [
        command for command, _ in commands(russian)]
    assert python_code(english) == python_code(russian)
    rows = r"(?m)^\|(?: (`[^`|]+`) \|)?"  # of tables, with a first cell that is a name
    assert re.findall(rows, text_of(english)) == re.findall(rows, text_of(russian))


def test_links_and_anchors_exist():
    for page in (*ENGLISH, *RUSSIAN, "CONTRIBUTING.md"):
        for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", prose(page)):
            path = (ROOT / page).parent / target if target else ROOT / page
            assert target.startswith("http") or path.exists(), f"{page} points to {target}"
            if anchor:
                linked = path.resolve().relative_to(ROOT).as_posix()
                assert anchor in [name for _, name in headings(linked)], f"{page}: #{anchor}"


def flags_of_benchmark(script):
    """Return the flags that a benchmark takes: those named in its source, and of common.parse."""
    text = text_of(script)
    added = " ".join(re.findall(r"(?s)\bparse\(__doc__(.*?)\)\n", text))
    shared = text_of("benchmarks/common.py") if added else ""
    return {*re.findall(r"--([a-z_]+)", text + shared), *re.findall(r"\b([a-z_]+)=", added)}


@pytest.mark.parametrize("page", ENGLISH)
def test_scripts_and_flags_of_commands_exist(page):
    for command, _ in commands(page):
        for part in re.split(r"&&|\||;", command):
            words = shlex.split(part)
            scripts = [word for word in words if word.endswith(".py") and not word.startswith("-")]
            if not scripts:
                continue
            script = scripts[0]
            assert (ROOT / script).is_file(), f"{page}: {script}"
            taken = (flags_of_benchmark(script) if script.startswith("benchmarks/")
                     else {name.lower() for name in names_of(script.split("/")[-1])})
            flags = {word[2:].removeprefix("no-") for word in words if word.startswith("--")} - {""}
            flags = {flag.split("=")[0] for flag in flags}
            assert flags <= taken | FOREIGN, f"{page}: {command}"


@pytest.mark.parametrize("page", [*ENGLISH, *RUSSIAN])
def test_flags_and_files_named_in_a_page_exist(page):
    """Flags in the text, and what looks like a path of this repository."""
    if page == "docs/history.md":  # of earlier code
        return
    text = prose(page)
    benchmarks = set().union(*(flags_of_benchmark(f"benchmarks/{path.name}")
                               for path in ROOT.glob("benchmarks/*.py")))
    for flag in re.findall(r"(?<![\w-])--([a-z][a-z0-9_-]*)", text):
        name = flag.removeprefix("no-")
        assert (scripts_with(name.upper()) or name in benchmarks | FOREIGN), f"{page}: --{flag}"
    for path in re.findall(r"`((?:\w+/)*\w+\.py)\b", text):
        assert any(list(ROOT.glob(f"{above}{path}")) for above in ("", "*/", "*/*/")), (
            f"{page}: {path}")


def test_tables_have_the_columns_that_the_pages_name():
    for page in ("docs/formats.md", "docs/labelling.md", "docs/ru/labelling.md"):
        assert f"`{','.join(labeling.COLUMNS)}`" in text_of(page)
    formats = text_of("docs/formats.md")
    assert f"({', '.join(decisions.ACTIONS)})" in formats
    assert all(f"`{name}`" in formats for name in (*PlantClass._fields, *decisions.COLUMNS,
                                                   *PREDICTION_FIELDS.keys() - {"format", "run"}))


def test_a_class_table_is_made_of_the_names_of_folders(tmp_path):
    make_collected(tmp_path / "photos", ("Rosa canina", "Abies alba"), count=1)
    code, = (block for block in python_code("docs/training.md") if "folders.csv" in block)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    classes = read_classes(tmp_path / "folders.csv")
    assert [plant.latin for plant in classes] == ["Abies alba", "Rosa canina"]
    with pytest.raises(InputError, match="see docs/training.md"):
        read_label_rows(tmp_path / "photos/train_labels.csv", classes)


@pytest.mark.parametrize("page", ["docs/training.md", "docs/ru/training.md"])
def test_defaults_of_the_recipe_are_those_of_config(page):
    rows = re.findall(r"(?m)^\| `([A-Z_]+)` \| `([^`]*)` \|", text_of(page))
    assert len(rows) >= 10
    assert rows == [(name, str(config.settings()[name])) for name, _ in rows]


def test_every_benchmark_is_among_the_commands():
    shown = " ".join(command for command, _ in commands("docs/measuring.md"))
    for path in ROOT.glob("benchmarks/*.py"):  # without those that others import or start
        if "import argparse" in (text := path.read_text("utf-8")) or "parse(__doc__" in text:
            assert path.name in shown or path.name == "common.py", (
                f"docs/measuring.md: add a command of {path.name}")


def figure_rows(page):
    """Return [(result, benchmark)] of the rows of a README that state what a benchmark measured."""
    return re.findall(r"(?m)^\|[^|]*\| (.*) \| `benchmarks/(\w+)\.py[^|`]*` \|$", text_of(page))


def is_measured(number, measured):
    """Return whether a number is one of `measured` (strings) rounded, as it is or in per cent."""
    decimals = len(number.partition(".")[2])
    return any(abs(scale * float(value) - float(number)) <= 0.501 * 10 ** -decimals
               for value in measured for scale in (1, 100))


def test_figures_of_the_readmes_are_in_the_results_of_their_command():
    english, russian = (figure_rows(page) for page in ("README.md", "README.ru.md"))
    assert len(english) >= 9
    assert [(sorted(numbers(result)), script) for result, script in english] == [
        (sorted(numbers(result, russian=True)), script) for result, script in russian]
    sections = re.split(r"(?m)^## ", text_of(FIGURES))
    for result, script in english:
        measured = {number for section in sections if f"benchmarks/{script}.py" in section
                    for number in numbers(section)}
        plain = re.sub(r"MobileNetV3|V3", "", result)
        missing = [number for number in numbers(plain) if not is_measured(number, measured)]
        assert not missing, f"{script}.py: {missing} not in {FIGURES}"


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


def run_page(command, **options):
    """Run a script that serves a page; stop it like Ctrl-C once it has printed its address."""
    process = subprocess.Popen(shlex.split(command), **options)
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("open http"):
            process.send_signal(signal.SIGINT)
    return process.wait(), printed


def run_line(command, **options):
    """Run a command line; return (exit status, what it printed)."""
    done = subprocess.run(["bash", "-c", command], check=False, **options)
    return done.returncode, done.stdout


@pytest.mark.slow
def test_every_command_works_as_written(tmp_path):
    """In order, in a copy with small settings, except those that SKIPPED or a "needs" excludes.

    Blocks of Python run after the commands of their page.
    """
    clone = copy_repository(tmp_path / "clone")
    edit_settings(clone)
    write_photographs(clone)
    environment = {**os.environ, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
                   "BROWSER": "true"}
    lines = [line for page in ENGLISH for line in [
        *commands(page), *((f"python -c {shlex.quote(block)}", "") for block in python_code(page))]]
    for command, comment in lines:
        if "needs" not in comment and not any(word in command for word in SKIPPED):
            serves = "app.py" in command or "review.py" in command
            status, printed = (run_page if serves else run_line)(
                command, cwd=clone, env=environment, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT)
            assert status == 0, f"{command}\n{printed[-3000:]}"
