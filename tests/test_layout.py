"""The house: who imports whom, no work at import, docstrings, sizes."""
import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PREPARATION = "dataset_preparation"
ROOMS = ("settings", "training", "evaluation", "web", "quickstart_flora", PREPARATION)
# The top floor: what people run or edit, and the two files that every room may use.
TOP = {"config", "utils", "images", "dataset", "model", "train", "hyperparameter_optimization", "evaluate", "predict",
       "app", "export", "pack", "quickstart", "download_files"}
FILES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in ROOT.glob(f"{room}/**/*.py"))])
SCRIPTS = FILES
TORCH = {"torch", "torchvision"}
# Scripts that import others: they drive them, or share their answers and checks.
DRIVERS = {"hyperparameter_optimization": {"train"}, "app": {"predict"}, "export": {"predict"}}
SHARED = {"config", "utils", "images", "dataset", "model"}  # top floor, below the rooms
TORCH_FREE = {"utils", "images", "config", "settings", "settings.kinds", "settings.table", "settings.scripts", "settings.command_line", "web.page_server", "evaluation.calibration", "evaluation.metrics"}


def module_of(path):
    """Return the dotted name of a file of the repository."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(path):
    """Return the names of the modules a file imports anywhere in it, `from package import module` included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            names |= inner or {node.module}
    return names


ARROWS = {module: imported(path) & set(MODULES) for module, path in MODULES.items()}


def test_the_top_floor_holds_what_people_run_or_edit():
    assert {path.stem for path in ROOT.glob("*.py")} == TOP


def test_imports_go_one_way():
    done = set()

    def visit(module, trail):
        assert module not in trail, f"a circle: {' -> '.join([*trail, module])}"
        if module not in done:
            for target in sorted(ARROWS[module]):
                visit(target, [*trail, module])
            done.add(module)
    for module in sorted(MODULES):
        visit(module, [])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_arrow_leads_from_a_room_to_a_script(module):
    scripts = ARROWS[module] & (TOP - SHARED)
    assert scripts <= DRIVERS.get(module, set())
    if module in SHARED:
        assert not {target for target in ARROWS[module] if target.startswith(PREPARATION)}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_preparation_needs_no_torch(module):
    """The arrows are followed: what a torch-free file imports is torch-free, too."""
    free = module in TORCH_FREE or (module.startswith(PREPARATION) and not module.endswith("find_label_errors"))
    assert not free or not (TORCH & {name.split(".")[0] for name in imported(MODULES[module])})
    assert not free or all(target in TORCH_FREE or target.startswith(PREPARATION) for target in ARROWS[module])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_settings_are_read_where_flags_are_seen(path):
    """Only main and build_* functions read config: workers started afresh would see the file, not the flags."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name != "main" and not node.name.startswith("build_"):
            read = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)
                    and isinstance(inner.value, ast.Name) and inner.value.id == "config" and inner.attr.isupper()}
            assert read <= {"TRAINING_GROUPS"}, f"{path.name}: {node.name} reads {read}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_files_are_short_and_say_what_they_are(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert len(path.read_text("utf-8").splitlines()) <= 350
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_") and node.name != "main":
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
        if isinstance(node, ast.FunctionDef) and node.name not in ("main", "train"):
            assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name} is too long"
        assert not (isinstance(node, ast.FunctionDef) and node.name == "main") or node.end_lineno - node.lineno < 60


def test_no_escape_codes_and_no_exit_outside_run():
    for path in SCRIPTS:
        text = path.read_text("utf-8")
        assert "\\x1b" not in text
        assert "\\033" not in text
        assert "sys.exit" not in text or path.name == "utils.py"


@pytest.mark.parametrize("modules, absent", [
    (("config", "utils", "images", "evaluation.calibration", "web.page_server", f"{PREPARATION}.cleaning.cleaning",
      "app", f"{PREPARATION}.labeling.labeling"), TORCH | {"pandas"}),
    (("training.runs", "dataset", "model", "train", "evaluate"), set())])
def test_import_does_no_work_and_preparation_needs_no_torch(modules, absent, tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(modules)}; "
            f"print(sorted({absent!r} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
