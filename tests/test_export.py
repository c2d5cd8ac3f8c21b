"""The ONNX file: the predictions of the checkpoint, without torch, or no file."""
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch

import export
import predict
from config import namespace
from evaluation.answers import RANKS, fit_answers
from evaluation.predictor import load_onnx, load_pytorch
from model import build_model
from tests.conftest import NAMES, ROOT, draw, jpeg, make_labelled, snapshot
from training.checkpoints import load_checkpoint, save_checkpoint
from utils import InputError


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of the trained network's folder to write to."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def network_flags(folder):
    return ["--checkpoint", str(folder / "plants_model.pth.tar"),
            "--class_table", str(folder / "classes.csv")]


def flags(folder, *more):
    return [*network_flags(folder), *map(str, ("--dataset_dir", folder / "dataset", *more))]


def load(folder):
    return load_pytorch(namespace(checkpoint=folder / "plants_model.pth.tar",
                                  class_table=folder / "classes.csv", device="cpu"))


def test_onnx_file_holds_everything_and_predicts_as_the_checkpoint(folder, capsys):
    export.main(flags(folder, "--check_photos", folder / "photos"))
    assert "same first name on all 3 photographs" in capsys.readouterr().out
    trained = load(folder)
    exported = load_onnx(folder / "plants_model.onnx")
    assert exported[1:6] == trained[1:6]  # all but path, function and network
    assert exported.network is None
    for count in (1, 5):
        views = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
        differences = np.abs(exported.outputs(views) - trained.outputs(views))
        assert differences[:, :3].max() < 1e-4
        assert differences[:, 3].max() < 1e-5 * np.abs(trained.outputs(views)[:, 3]).max()
        assert exported.outputs(views).shape == (count, 4)
        images = (torch.from_numpy(views).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        with torch.inference_mode():  # normalised by hand
            expected = restore(folder)(images).numpy()
        assert np.abs(exported.outputs(views)[:, :3] - expected).max() < 1e-4

    printed = []
    for chosen in (network_flags(folder), ["--onnx", str(folder / "plants_model.onnx")]):
        predict.main([str(folder / "photos"), "--format", "json", *chosen])
        printed.append(json.loads(capsys.readouterr().out))
    for one, other in zip(*printed, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=2e-3)
        for key in ("latin", "russian", "label"):
            assert [name[key] for name in one["names"]] == [name[key] for name in other["names"]]


def restore(folder):
    """Return the network of the checkpoint alone, built as tests/conftest.py built it."""
    checkpoint = load_checkpoint(folder / "plants_model.pth.tar")
    model = build_model("plain_cnn", 3).eval()
    model.load_state_dict(checkpoint["model_state_dict"])
    return model


def test_older_onnx_metadata_loads_and_newer_or_foreign_is_refused(folder):
    """Format 1 had other names and loads; a newer format is refused, a foreign file, too."""
    export.main(flags(folder, "--check_photos", folder / "photos"))
    path = folder / "plants_model.onnx"
    model, current = onnx.load(path), load_onnx(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts.pop("format") == "5"
    names = {"flip_tta": "mirrored_view", "out_of_distribution_threshold": "threshold"}
    three = json.dumps([plant[1:4] for plant in current.classes])
    older = {names.get(key, key): text for key, text in {**facts, "classes": three}.items()
             if key not in ("answers", "unknown")}
    onnx.helper.set_model_props(model, older)
    onnx.save(model, path)
    assert load_onnx(path)[1:6] == current[1:6]
    assert load_onnx(path).answers is None
    for metadata, fact in (({**facts, "format": "6"}, "format '6'"), ({}, "not an ONNX file of"),
                           *damaged_metadata(facts)):
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
        with pytest.raises(InputError, match=fact):
            load_onnx(path)
    onnx.helper.set_model_props(model, {**facts, "format": "4", "temperature": "null"})
    onnx.save(model, path)
    assert load_onnx(path).temperature == 1
    side = model.graph.input[0].type.tensor_type.shape.dim[0]
    side.Clear()
    side.dim_value = 7  # photographs at once, and no other number
    onnx.save(model, path)
    with pytest.raises(InputError, match="do not fit"):
        load_onnx(path)
    with pytest.raises(InputError, match="is a folder"):
        load_onnx(folder)


def test_a_class_table_beside_an_onnx_file_overrides_its_names(folder, capsys):
    export.main(flags(folder, "--check_photos", folder / "photos"))
    path = str(folder / "plants_model.onnx")
    (folder / "other.csv").write_text("label,latin,russian,english,also\n" + "".join(
        f"{label},{name},,my rose,\n" for label, name in enumerate(NAMES)))
    for name, english in (("other.csv", "my rose"), ("classes.csv", "first rose")):
        table = folder / name
        capsys.readouterr()
        predict.main([str(folder / "photos/a.jpg"), "--onnx", path, "--class_table", str(table),
                      "--format", "json"])
        printed, said = capsys.readouterr()
        name = json.loads(printed)[0]["names"][0]
        assert (name["russian"], name["english"]) == ("роза первая", english)
        assert str(table) in said
    predict.main([str(folder / "photos/a.jpg"), "--onnx", path, "--checkpoint", "my.pth.tar"])
    assert "--checkpoint my.pth.tar is ignored" in capsys.readouterr().err


def damaged_metadata(facts):
    """Return (metadata, text of the message) with one fact changed by hand each."""
    classes = json.loads(facts["classes"])
    changes = [("temperature", value) for value in (
        "NaN", "0", "-1", '"warm"', "Infinity", f"1{'0' * 400}")]
    changes += [("image_size", value) for value in ("100000", "128", '"64"', "1.5", "true")]
    changes += [("classes", json.dumps(value)) for value in (
        [1, 2, 3], [["A"], ["B"], ["C"]], classes[:2], classes + classes[:1], {}, "ABC",
        [*classes[:2], {"latin": 7}], [*classes[:2], {"latin": "\ud800"}])]
    changes += [("flip_tta", "3"), ("out_of_distribution_threshold", "NaN"), ("answers", "[1]"),
                ("answers", '{"source": "", "photographs": 1, "limits": {}, "set_limit": 0}'),
                ("unknown", '{"named": 2}')]
    return [({**facts, "format": "4", key: value}, key) for key, value in changes]


def test_half_is_half_the_size_and_refused_where_it_is_less_accurate(folder, capsys):
    make_labelled(folder / "dataset")
    export.main(flags(folder))
    assert "validation photographs" in capsys.readouterr().out
    export.main(flags(folder, "--half", "--max_risk", "0.1"))
    printed = capsys.readouterr()
    assert "-> " in printed.out
    assert "--max_risk without effect" in printed.err
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


def test_an_export_with_other_outputs_is_refused():
    outputs = np.array([[1.0, 2.0, 9.0], [3.0, 0.0, 9.0]])  # two logits and the score
    assert "same" in export.check_exact(outputs, outputs + 1e-6)
    with pytest.raises(InputError, match="1 first names differ"):
        export.check_exact(outputs, np.array([[2.1, 2.0, 9.0], [3.0, 0.0, 9.0]]))
    with pytest.raises(InputError, match="2.0e-03"):
        export.check_exact(outputs, outputs + [0, 0.002, 0])
    assert "same" in export.check_exact(outputs, outputs + [0, 0, 0.01])
    with pytest.raises(InputError, match="3.0e-02"):
        export.check_exact(outputs, outputs + [0, 0, 0.03])


def test_float16_that_changes_the_score_is_refused():
    expected = np.random.default_rng(0).normal(size=(40, 5))
    labels = expected[:, :-1].argmax(1)
    assert "same" in export.check_half(expected, expected + 0.05, labels, 0.01)
    for score in (expected[:, -1] - 1000, expected[:, -1] + 1, 0):
        outputs = expected.copy()
        outputs[:, -1] = score
        with pytest.raises(InputError, match="score"):
            export.check_half(expected, outputs, labels, 0.01)
    for column, value in ((1, np.nan), (4, np.nan), (4, np.inf)):
        outputs = expected.copy()
        outputs[3, column] = value
        with pytest.raises(InputError, match="float16"):
            export.check_half(expected, outputs, labels, 1.0)


@pytest.mark.parametrize("name, value", [("validation_share", "x"), ("split_seed", [1]),
                                         ("validation_share", float("nan"))])
def test_settings_of_a_foreign_checkpoint_are_checked(name, value, folder):
    make_labelled(folder / "dataset")
    checkpoint = load_checkpoint(folder / "plants_model.pth.tar")
    save_checkpoint(folder / "plants_model.pth.tar", {**checkpoint, "settings": {name: value}})
    with pytest.raises(InputError, match=f"{name} is not a"):
        export.main(flags(folder))


def test_a_missing_input_of_the_export_is_reported(folder):
    with pytest.raises(InputError, match="--check_photos DIR"):
        export.main(flags(folder))
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="no photographs found"):
        export.main(flags(folder, "--check_photos", folder / "empty"))
    with pytest.raises(InputError, match="notes.txt: not a picture"):
        export.main(flags(folder, "--check_photos", folder / "photos/notes.txt"))
    code = ("import sys; sys.modules['onnxscript'] = None; import export; from utils import run; "
            f"sys.argv[1:] = {flags(folder, '--check_photos', folder / 'photos')!r}; "
            "run(export.main)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("pip install onnx onnxscript onnxruntime\n")
    assert not list(folder.glob("*.onnx*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v3_large", "densenet121", "convnext_tiny"])
def test_every_network_of_torchvision_can_be_exported(name, folder):
    torch.manual_seed(0)
    save_checkpoint(folder / "plants_model.pth.tar", {
        "model": name, "class_names": ["A", "B", "C"], "image_size": 64, "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "model_state_dict": build_model(name, 3).state_dict()})
    export.main(flags(folder, "--check_photos", folder / "photos"))
    assert load_onnx(folder / "plants_model.onnx").ood_threshold is None


@pytest.mark.parametrize("size", [(90, 70), (400, 333)])
def test_the_code_of_the_page_gives_the_probability_of_predict(folder, size):
    """Flip TTA, a temperature by score, and a photograph to be enlarged or reduced in two steps."""
    checkpoint = load_checkpoint(folder / "plants_model.pth.tar")
    outputs = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    _, answers = fit_answers(outputs, np.arange(30) % 3, {rank: np.array(NAMES) for rank in RANKS},
                             -1e9, "validation")
    answers |= {"temperature_by_score": [0.3, 1.0], "together": {"correlation": 0.5, "groups": 0}}
    save_checkpoint(folder / "plants_model.pth.tar", {
        **checkpoint, "answers": answers, "flip_tta": True, "temperature": 2.0})
    export.main(flags(folder, "--check_photos", folder / "photos"))
    (folder / "checkpoints/mine").mkdir(parents=True)
    shutil.copy(folder / "plants_model.onnx", folder / "checkpoints/mine")
    (folder / "photo.jpg").write_bytes(jpeg(draw(7, size)))
    page = (ROOT / "docs/formats.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.S)[-1]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True,
                          encoding="utf-8", check=True)
    s = namespace(checkpoint=str(folder / "plants_model.pth.tar"), device="cpu",
                  class_table=folder / "classes.csv")
    prediction, = predict.predict([folder / "photo.jpg"], predict.load_predictor(s), s)
    name = prediction["names"][0]
    latin, _, probability = done.stdout.strip().rpartition(" ")
    assert latin == name["latin"]
    assert float(probability) == pytest.approx(name["probability"], abs=2e-4)
    assert 0.34 < name["probability"] < 0.9999


@pytest.mark.slow
def test_prediction_with_onnx_needs_neither_torch_nor_pandas(folder):
    """A new environment has only the packages that docs/using.md names."""
    export.main(flags(folder, "--check_photos", folder / "photos"))
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = subprocess.run(
        [python, "-m", "pip", "install", "-q", "numpy", "pillow", "simplejpeg", "tqdm",
         "onnxruntime"],
        capture_output=True, text=True, check=False)
    if pip.returncode:
        pytest.skip(f"pip could not install ONNX Runtime: {pip.stderr.strip().splitlines()[-1]}")
    code = ("import importlib.util as i; "
            "print([i.find_spec(name) for name in ('torch', 'pandas', 'scipy', 'sklearn')])")
    absent = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert absent.stdout == "[None, None, None, None]\n"
    command = [python, ROOT / "predict.py", folder / "photos", "--format", "json"]
    done = subprocess.run([*command, "--onnx", folder / "plants_model.onnx"], capture_output=True,
                          text=True, encoding="utf-8", check=True, cwd=folder)
    predictions = json.loads(done.stdout)
    assert [one["names"][0]["latin"] for one in predictions] == list(NAMES)
    assert [one["verdict"] for one in predictions] == ["ok"] * 3
    done = subprocess.run([*command, *network_flags(folder)], capture_output=True, text=True,
                          check=False, cwd=folder)
    assert done.returncode == 1
    assert "'torch' is not installed" in done.stderr
    assert "Traceback" not in done.stderr
