"""A command that fails for lack of input changes no file and blocks no later command."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

import settings.scripts
from settings.scripts import names_of
from settings.startup_errors import MISSING
from tests.conftest import ROOT, run_script, write_classes
from tests.download_inputs import published, tree
from tests.download_runs import finished_tree, publish, run_download
from tests.file_server import FileServer

STEPS = "dataset_preparation"
SCRIPTS = (f"{STEPS}/parsing/parsing.py", f"{STEPS}/cleaning/cleaning.py",
           f"{STEPS}/cleaning/review.py", f"{STEPS}/labeling/labeling.py", "download_files.py",
           "predict.py", "app.py", "pack.py",
           *(pytest.param(name, marks=pytest.mark.slow) for name in (
               f"{STEPS}/cleaning/find_label_errors.py", "train.py", "evaluate.py", "export.py",
               "hyperparameter_optimization.py")))
FOLDERS = ("COLLECTED_DIR", "CLEANED_DIR", "DATASET_DIR", "CHECKPOINTS_DIR", "RUNS_DIR",
           "CACHE_DIR", "PACKED_DIR")
MORE = {"parsing.py": ("--source", "open_data"), "predict.py": ("missing.jpg",),
        "download_files.py": ("--dataset_url", "http://127.0.0.1:9/d.zip", "--checkpoint_url", "",
                              "--download_attempts", "1", "--patience_minutes", "0")}


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_its_input_a_script_says_so_and_leaves_nothing(script, tmp_path):
    name = Path(script).name
    folders = [word for folder in FOLDERS if folder in names_of(name)
               for word in (f"--{folder.lower()}", tmp_path / folder.lower())]
    done = run_script(script, *folders, *MORE.get(name, ()), status=1, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert list(tmp_path.rglob("*")) == []


def test_labels_for_another_flora_leave_no_folder(cleaned_once, tmp_path):
    classes = write_classes(tmp_path / "classes.csv", ["Salvia pratensis"])
    run_script(f"{STEPS}/labeling/labeling.py", "--cleaned_dir", cleaned_once / "cleaned",
               "--collected_dir", cleaned_once / "collected", "--class_table", classes,
               "--dataset_dir", tmp_path / "dataset", status=1)
    assert list(tmp_path.iterdir()) == [classes]


def test_a_folder_without_tables_does_not_keep_the_published_dataset_away(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "data/dataset").mkdir(parents=True)
    (tmp_path / "data/dataset/labels.lock").touch()  # as earlier versions left it
    with FileServer() as server:
        publish(server)
        out, _ = run_download(server, tmp_path)
    assert "4 photographs in train, 2 in test" in out
    assert tree(tmp_path) == {**finished_tree(published()),
                              "data/set_aside/dataset/labels.lock": b""}


SLOW_TO_IMPORT = ("train.py", "evaluate.py", "export.py", "pack.py",
                  "hyperparameter_optimization.py", f"{STEPS}/cleaning/find_label_errors.py")


@pytest.mark.parametrize("script", SLOW_TO_IMPORT)
def test_arguments_come_before_torch_and_its_absence_is_a_sentence(script, tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    wrong = run_script(script, "--class_tabel", "x", status=2, env=environment)
    assert "did you mean --class_table?" in wrong.stderr
    done = run_script(script, status=1, env=environment)
    assert done.stderr.splitlines() == [MISSING.format("torch")]


@pytest.mark.parametrize("script", settings.scripts.SCRIPTS)
def test_without_any_package_a_script_says_what_to_install(script):
    """As in a terminal in which the virtual environment is not activated."""
    [path] = [*ROOT.glob(script), *ROOT.glob(f"{STEPS}/*/{script}")]
    done = subprocess.run([sys.executable, "-S", path, "--help"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line in map(MISSING.format, ("tqdm", "numpy", "PIL"))
