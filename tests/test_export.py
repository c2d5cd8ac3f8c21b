"""The ONNX file: the answers of the checkpoint, without torch, or no file."""
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import export
import predict
from config import namespace
from model import build_model
from predict import load_onnx, load_trained
from tests.conftest import ROOT, make_labelled, snapshot
from training.checkpoints import load_checkpoint, save_checkpoint
from utils import InputError


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of the trained network's folder to write to."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def flags(folder, *more):
    return [*map(str, ("--checkpoint", folder / "plants_model.pth.tar", "--class_table", folder / "classes.csv",
                       "--dataset_dir", folder / "dataset", *more))]


def test_onnx_file_carries_all_and_answers_as_the_checkpoint(folder, capsys):
    export.main(flags(folder, "--check_photos", folder / "photos"))
    assert "same first name on all 3 given photographs" in capsys.readouterr().out
    trained = load_trained(namespace(checkpoint=folder / "plants_model.pth.tar", class_table=folder / "classes.csv",
                                     device="cpu"))
    exported = load_onnx(folder / "plants_model.onnx")
    assert exported[1:6] == trained[1:6]  # all but path, function and network
    assert exported.network is None
    for count in (1, 5):
        views = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        assert np.abs(exported.outputs(views) - trained.outputs(views)).max() < 1e-4
        assert exported.outputs(views).shape == (count, 4)

    said = []
    for chosen in (flags(folder), ["--onnx", str(folder / "plants_model.onnx")]):
        predict.main([str(folder / "photos"), "--format", "json", *chosen])
        said.append(json.loads(capsys.readouterr().out))
    for ours, theirs in zip(*said, strict=True):
        assert ours["score"] == pytest.approx(theirs.pop("score"), abs=2e-3)
        assert [name["latin"] for name in ours["names"]] == [name["latin"] for name in theirs["names"]]
        assert ours["names"][0]["russian"] == theirs["names"][0]["russian"]


def test_half_is_half_the_size_and_refused_where_it_answers_worse(folder, capsys):
    make_labelled(folder / "dataset")
    export.main(flags(folder))
    assert "validation photographs" in capsys.readouterr().out
    export.main(flags(folder, "--half"))
    assert "-> " in capsys.readouterr().out
    sizes = [(folder / f"plants_model{half}.onnx").stat().st_size for half in ("", "_half")]
    assert sizes[1] < 0.55 * sizes[0]

    checkpoint = load_checkpoint(folder / "plants_model.pth.tar")
    for name, value in checkpoint["model_state_dict"].items():
        if name == "18.weight":
            value *= 1e6  # beyond what float16 holds
    save_checkpoint(folder / "plants_model.pth.tar", checkpoint)
    before = snapshot(folder)
    with pytest.raises(InputError, match="nothing was written"):
        export.main(flags(folder, "--half"))
    assert snapshot(folder) == before


def test_an_export_that_answers_otherwise_is_refused(trained):
    s = namespace()
    outputs = np.array([[1.0, 2.0, 9.0], [3.0, 0.0, 9.0]])  # two logits and the score
    assert "same" in export.compare(outputs, outputs + 1e-6, None, s)
    with pytest.raises(InputError, match="1 first names differ"):
        export.compare(outputs, np.array([[2.1, 2.0, 9.0], [3.0, 0.0, 9.0]]), None, s)
    with pytest.raises(InputError, match="logits by up to 1.0e-02"):
        export.compare(outputs, outputs + [0, 0, 0.01], None, s)


def test_what_is_missing_is_said(folder):
    with pytest.raises(InputError, match="--check_photos DIR"):
        export.main(flags(folder))
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no photograph there"):
        export.main(flags(folder, "--check_photos", folder / "empty"))
    with pytest.raises(InputError, match="notes.txt: not a picture"):
        export.main(flags(folder, "--check_photos", folder / "photos/notes.txt"))
    code = ("import sys; sys.modules['onnxscript'] = None; import export; from utils import run; "
            f"sys.argv[1:] = {flags(folder, '--check_photos', folder / 'photos')!r}; run(export.main)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("pip install onnx onnxscript onnxruntime\n")
    assert not list(folder.glob("*.onnx*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_large", "densenet121", "convnext_tiny"])
def test_networks_of_the_table_export(name, folder):
    torch.manual_seed(0)
    save_checkpoint(folder / "plants_model.pth.tar", {
        "model": name, "class_names": ["A", "B", "C"], "image_size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3,
        "model_state_dict": build_model(name, 3).state_dict()})
    export.main(flags(folder, "--check_photos", folder / "photos"))
    assert load_onnx(folder / "plants_model.onnx").threshold is None


@pytest.mark.slow
def test_answering_needs_neither_torch_nor_pandas(folder):
    """A new environment with what the ONNX branch needs and no more."""
    export.main(flags(folder, "--check_photos", folder / "photos"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "pillow", "tqdm", "onnxruntime"],
                         capture_output=True, text=True, check=False)
    if pip.returncode:
        pytest.skip(f"pip could not install ONNX Runtime: {pip.stderr.strip().splitlines()[-1]}")
    absent = subprocess.run([python, "-c", "import importlib.util as i; print([i.find_spec(name) for name in "
                             "('torch', 'pandas', 'scipy', 'sklearn')])"], capture_output=True, text=True, check=True)
    assert absent.stdout == "[None, None, None, None]\n"
    command = [python, ROOT / "predict.py", folder / "photos", "--format", "json"]
    done = subprocess.run([*command, "--onnx", folder / "plants_model.onnx"], capture_output=True, text=True,
                          encoding="utf-8", check=True, cwd=folder)
    answers = json.loads(done.stdout)
    assert [one["names"][0]["latin"] for one in answers] == ["Rosa prima", "Rosa secunda", "Rosa tertia"]
    assert [one["verdict"] for one in answers] == ["ok"] * 3
