"""The layout of the repository: who imports whom, no work at import, docstrings, sizes."""
import ast
import re
import subprocess
import sys
from collections import defaultdict

import pytest

from tests.conftest import ROOT

PREPARATION = "dataset_preparation"
ROOMS = ("settings", "training", "evaluation", "web", "quickstart_flora", PREPARATION)
# on top, imported by the rooms
SHARED = {"config", "utils", "names", "images", "image_metadata", "image_structure", "dataset",
          "model"}
# The top floor: what people run or edit, and the files that every room may import.
TOP = SHARED | {"train", "hyperparameter_optimization", "evaluate", "predict", "app", "export",
                "pack", "quickstart", "download_files"}
FILES = sorted([*ROOT.glob("*.py"),
                *(path for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py"))])
TORCH = {"torch", "torchvision"}
# Scripts that import others, to run them or to share their predictions and checks.
DRIVERS = {"hyperparameter_optimization": {"train"}, "app": {"predict"}, "export": {"predict"}}
TORCH_FREE = {"utils", "names", "images", "image_metadata", "image_structure",
              "config", "settings", "settings.kinds", "settings.table", "settings.scripts",
              "settings.command_line", "settings.startup_errors", "settings.privacy",
              "settings.streams",
              "web.body_memory", "web.page_server",
              "evaluation.calibration", "evaluation.answers", "evaluation.facts",
              "evaluation.metrics", "evaluation.together"}
# What several files define because each does the same for its own script or source.
SAME_ROLE = {"main", "parse", "build_server", "build_source", "fit_probe"}
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 39
MAX_STEPS_LINES = {"main": 60, "train": 60}  # these read as a list of steps


def module_of(path):
    """Return the dotted name of a file of the repository."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path):
    """Return the modules that a file imports, at its top or in a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            names |= inner or {node.module}
    return names


def functions(path):
    """Return the syntax trees of all functions and methods of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def is_setting(node):
    """Return whether a syntax tree is `config.NAME`."""
    return (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            and node.value.id == "config" and node.attr.isupper())


ARROWS = {module: imported(path) & set(MODULES) for module, path in MODULES.items()}


def test_the_top_folder_has_only_files_that_people_run_or_edit():
    assert {path.stem for path in ROOT.glob("*.py")} == TOP


def test_imports_have_no_circle():
    done = set()

    def visit(module, trail):
        assert module not in trail, f"circular import: {' -> '.join([*trail, module])}"
        if module not in done:
            for target in sorted(ARROWS[module]):
                visit(target, [*trail, module])
            done.add(module)
    for module in sorted(MODULES):
        visit(module, [])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_package_imports_a_script(module):
    scripts = ARROWS[module] & (TOP - SHARED)
    assert scripts <= DRIVERS.get(module, set())
    if module in SHARED:
        assert not {target for target in ARROWS[module] if target.startswith(PREPARATION)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_preparation_needs_no_torch(module):
    """Everything that a torch-free file imports is torch-free, too."""
    if module in TORCH_FREE or (module.startswith(PREPARATION)
                                and not module.endswith("find_label_errors")):
        assert not TORCH & {name.split(".")[0] for name in imported(MODULES[module])}
        assert all(target in TORCH_FREE or target.startswith(PREPARATION)
                   for target in ARROWS[module])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_only_main_and_build_functions_read_settings(path):
    """A spawned worker imports config.py anew and sees the values of the file, not the flags."""
    for function in functions(path):
        if function.name != "main" and not function.name.startswith("build_"):
            read = {node.attr for node in ast.walk(function) if is_setting(node)}
            assert read <= {"TRAINING_GROUPS"}, f"{path.name}: {function.name} reads {read}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_and_functions_are_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= MAX_FILE_LINES
    for function in functions(path):
        lines = function.end_lineno - function.lineno + 1
        most = MAX_STEPS_LINES.get(function.name, MAX_FUNCTION_LINES)
        assert lines <= most, f"{path.name}: {function.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_and_public_names_have_docstrings(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name != "main":
            assert node.name.startswith("_") or ast.get_docstring(node), f"{path.name}: {node.name}"


def test_no_two_files_give_a_name_to_different_things():
    places = defaultdict(set)
    for path in FILES:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                places[node.name].add(path.name)
    shared = {name: files for name, files in places.items() if len(files) > 1}
    assert shared.keys() <= SAME_ROLE, shared


def test_no_escape_codes_and_no_exit_outside_run():
    for path in FILES:
        text = path.read_text("utf-8")
        assert "\\x1b" not in text
        assert "\\033" not in text
        assert "sys.exit" not in text or path.name == "utils.py"


def test_no_message_has_a_command_with_unquoted_values():
    """`script_command` quotes them, and finds the script from any folder."""
    for path in FILES:
        assert not re.search(r"python [\w/]+\.py[^\"\n]*\{", path.read_text("utf-8")), path.name


@pytest.mark.parametrize("modules, absent", [
    (("config", "utils", "images", "evaluation.calibration", "web.page_server", "app",
      f"{PREPARATION}.cleaning.cleaning", f"{PREPARATION}.labeling.labeling"), TORCH | {"pandas"}),
    (("training.runs", "dataset", "model", "train", "evaluate"), set())])
def test_import_does_no_work_and_preparation_needs_no_torch(modules, absent, tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(modules)}; "
            f"print(sorted({absent!r} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True,
                          text=True, check=True)
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
