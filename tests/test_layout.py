"""The house: who imports whom, no work at import, docstrings, sizes."""
import ast
import subprocess
import sys

import pytest

from tests.conftest import ROOT

PREPARATION = "dataset_preparation"
SCRIPTS = sorted(path for path in [*ROOT.glob("*.py"), *ROOT.glob(f"{PREPARATION}/*/*.py")])
TORCH = {"torch", "torchvision"}
# File: what of ours it may import. Steps may use the helpers of their own folder; labelling those of cleaning, too.
ALLOWED = {
    "config": set(),
    "utils": {"config"},
    "journal": {"utils"},
    "images": {"config", "utils"},
    "answers": set(),
    "local_page": {"utils"},
    "ranks": {"utils"},
    "runs": {"config", "utils", "ranks"},
    "dataset": {"config", "utils", "images", "runs", "cache", "augment"},
    "model": {"config", "utils", "runs"},
    "head": {"answers", "runs", "dataset", "model"},
    "cache": {"images", "utils"},
    "augment": {"runs"},
    "recipe": {"ranks", "dataset", "model"},
    "train": {"config", "utils", "answers", "cache", "ranks", "runs", "dataset", "model", "head", "recipe"},
    "label_scores": {"config", "utils", "answers", "cache", "runs", "dataset", "model", "head"},
    "explain": set(),
    "study": {"config", "utils", "runs"},
    "hyperparameter_optimization": {"config", "utils", "runs", "dataset", "model", "train", "study"},
    "metrics": {"answers", "runs"},
    "report": {"config", "utils", "images"},
    "evaluate": {"config", "utils", "answers", "runs", "dataset", "model", "explain", "metrics", "report"},
    "predict": {"config", "utils", "images", "answers", "runs", "model"},  # the last two with a checkpoint only
    "app": {"config", "utils", "images", "local_page", "predict", "explain"},  # the last with a checkpoint only
    "export": {"config", "utils", "images", "answers", "runs", "dataset", "model", "predict"},
    "download_files": {"config", "utils"},
    "pack": {"config", "utils", "runs", "dataset", "model", "download_files"},
    "drawn_flora": {"config", "utils"},
    "quickstart": {"config", "utils", "images", "drawn_flora", "model"},  # the last to fetch initial weights only
}
STEP_ALLOWED = {
    "parsing": {"parsing"}, "cleaning": {"cleaning"}, "labeling": {"labeling", "cleaning"}}


def imported(path):
    """Return the names of the modules a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_imports_go_one_way(path):
    ours = {name for name in imported(path) if name.split(".")[0] in {*ALLOWED, PREPARATION}}
    if path.parent == ROOT:
        assert path.stem in ALLOWED, f"{path.name} has no place in the import picture"
        assert ours <= ALLOWED[path.stem]
    else:
        steps = {name.split(".")[1] for name in ours if name.startswith(PREPARATION)}
        assert steps <= STEP_ALLOWED[path.parent.name]
        others = {name for name in ours if not name.startswith(PREPARATION)}
        assert others <= {"config", "utils", "journal", "images", "local_page"}


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
    (("config", "utils", "images", "answers", "local_page", f"{PREPARATION}.cleaning.cleaning",
      "app", f"{PREPARATION}.labeling.labeling"), TORCH | {"pandas"}),
    (("runs", "dataset", "model", "train", "evaluate"), set())])
def test_import_does_no_work_and_preparation_needs_no_torch(modules, absent, tmp_path):
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {', '.join(modules)}; "
            f"print(sorted({absent!r} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []
