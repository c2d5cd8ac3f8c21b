"""The checkpoint format: fields written and read, files refused, and which file is used."""
import sys
import zipfile

import pytest
import torch

import config
import evaluate
import train
from evaluation.out_of_distribution import ARRAYS
from evaluation.predictor import load_predictor
from model import build_model
from tests.conftest import NAMES, ROOT, run_script, write_classes
from tests.training_runs import (
    Stopped,
    evaluation_flags,
    settings,
    stop_after,
    weights,
    write_weights,
)
from training import checkpoints
from training.checkpoints import BEST, FIELDS, FORMAT, LAST, PREDICTION_FIELDS
from utils import InputError

# ---- the format ----

def test_the_format_table_lists_every_key_that_a_run_writes(folder):
    train.train(settings(folder, "--initial_weights", write_weights(folder)))
    best, last = (torch.load(folder / "checkpoints/tiny" / name, weights_only=True)
                  for name in (BEST, LAST))
    assert best.keys() == PREDICTION_FIELDS.keys()
    assert last.keys() == FIELDS.keys() - {"out_of_distribution", "answers", "unknown"}
    assert best["format"] == last["format"] == FORMAT == 6
    for checkpoint in (best, last):
        assert all(isinstance(checkpoint[key], FIELDS[key].types) for key in checkpoint)
    assert best["out_of_distribution"].keys() == {*ARRAYS, "threshold", "photographs"}
    assert [plant["latin"] for plant in best["classes"]] == list(NAMES)
    assert (best["answers"]["source"], best["answers"]["photographs"]) == ("validation", 3)
    assert 0 <= best["unknown"]["named"] <= 1
    assert best["class_names"] == list(NAMES)
    assert (best["image_size"], best["model"], best["run"]) == (32, "plain_cnn", "tiny")
    assert best["settings"]["wise_ft"] is True


def test_format_1_is_upgraded(tmp_path):
    """Its out-of-distribution score was another one, and is dropped."""
    old = {"model": "plain_cnn", "class_names": ["A", "B"], "mirrored_view": False, "epoch": 3,
           "out_of_distribution": {"means": torch.ones(2, 256), "threshold": -1.0},
           "model_state_dict": build_model("plain_cnn", 2).state_dict()}
    torch.save(old, tmp_path / "old.pth.tar")
    found = checkpoints.load_checkpoint(tmp_path / "old.pth.tar")
    assert found["format"] == 6
    assert found["flip_tta"] is False
    assert found["out_of_distribution"] is None
    assert "mirrored_view" not in found


def test_bare_weights_get_the_rest_from_the_settings(folder):
    state = build_model("plain_cnn", 3).state_dict()
    prefixed = {f"model.{key}": value for key, value in state.items()}
    torch.save({"model_state_dict": prefixed}, folder / "bare.pth.tar")
    s = settings(folder, "--no-flip_tta")
    s.checkpoint = folder / "bare.pth.tar"
    path, found = checkpoints.open_checkpoint(s)
    assert path == folder / "bare.pth.tar"
    assert found["model_state_dict"].keys() == state.keys()
    assert (found["image_size"], found["flip_tta"]) == (32, False)
    for key in ("temperature", "out_of_distribution", "epoch", "class_names", "model"):
        assert found[key] is None


def test_settings_that_a_network_states_itself_are_named_as_without_effect(tmp_path, capsys):
    """predict.py --no-flip_tta took as long as without, and said nothing."""
    stored = {"image_size": 32, "mean": [0.5, 0.5, 0.5], "flip_tta": True}
    checkpoints.save_checkpoint(tmp_path / "c.pth.tar", {**WEIGHTS, **stored})
    other = {"image_size": 64, "mean": (0.0, 0.0, 0.0), "flip_tta": False}
    for chosen, named in ((other, set(other)), ({"image_size": 32, "mean": (0.5,) * 3}, set())):
        s = config.namespace(checkpoint=tmp_path / "c.pth.tar", **chosen)
        _, found = checkpoints.open_checkpoint(s)
        assert stored.items() <= found.items()
        lines = capsys.readouterr().err.splitlines()
        assert {line.split()[1] for line in lines if "without effect" in line} == named


# ---- what is refused ----

WEIGHTS = {"model_state_dict": {"0.weight": torch.zeros(1)}}


@pytest.mark.parametrize("content, named", [
    (b"", "not a readable checkpoint"), (b"PK junk", "not a readable checkpoint"),
    ({"a": 1}, "no model_state_dict"), ({"model_state_dict": {"epoch": 3}}, "no model_state_dict"),
    ([1, 2], "no model_state_dict"), ({**WEIGHTS, "format": 7, "epoch": "later"}, "format 7"),
    ({**WEIGHTS, "class_names": 7}, "class_names"), ({**WEIGHTS, "format": "two"}, "format"),
    ({**WEIGHTS, "epoch": "last"}, "epoch"), ({**WEIGHTS, "settings": None}, "settings")])
def test_damaged_foreign_and_newer_files_are_named(folder, content, named):
    file = folder / "x.pth.tar"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(InputError, match=named) as raised:
        evaluate.main([str(flag) for flag in evaluation_flags(folder, "--checkpoint", file)])
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_checkpoint_with_code_in_it_is_not_run(folder):
    class Evil:
        def __reduce__(self):
            return open, (str(folder / "owned"), "w")
    torch.save({"model_state_dict": {}, "x": Evil()}, folder / "evil.pth.tar")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        checkpoints.load_checkpoint(folder / "evil.pth.tar")
    assert not (folder / "owned").exists()


def test_evaluation_refuses_other_classes(folder):
    train.train(settings(folder, "--num_epochs", "1"))
    write_classes(folder / "classes.csv", [*NAMES[:2], "Rosa quarta"])
    with pytest.raises(InputError, match="Rosa tertia"):
        evaluate.main([str(flag) for flag in evaluation_flags(folder)])


# ---- which one is used ----

def test_the_newest_finished_run_is_used_else_the_downloaded_checkpoint(folder, capsys):
    with pytest.raises(InputError, match="no finished run"):
        checkpoints.find_checkpoint("", folder / "checkpoints")
    downloaded = folder / "checkpoints/downloaded" / BEST
    checkpoints.save_checkpoint(downloaded, {"model_state_dict": {}})
    with pytest.raises(Stopped):
        train.train(settings(folder), stop_after(1))
    assert checkpoints.find_checkpoint("", folder / "checkpoints") == downloaded
    tiny = folder / "checkpoints/tiny" / BEST
    load_predictor(config.namespace(checkpoint=tiny, class_table=folder / "classes.csv"))
    assert "its run has not ended" in capsys.readouterr().err  # not only "an earlier version"
    train.train(settings(folder))
    assert checkpoints.find_checkpoint("", folder / "checkpoints") == tiny
    assert str(checkpoints.find_checkpoint("mine.pth", folder / "checkpoints")) == "mine.pth"


def test_a_damaged_run_is_passed_over_with_a_warning(folder, capsys):
    train.train(settings(folder, "--num_epochs", "1"))
    damaged = folder / "checkpoints/damaged"
    damaged.mkdir()
    for name in (BEST, LAST):
        (damaged / name).write_bytes(b"junk")
    assert checkpoints.find_checkpoint("", folder / "checkpoints").parent.name == "tiny"
    assert str(damaged / LAST) in capsys.readouterr().err


MEASURE = """import resource, sys
sys.path.insert(0, sys.argv[1])
from training.checkpoints import find_checkpoint
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(find_checkpoint("", sys.argv[2]).parent.name)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_finding_a_run_loads_no_weights(tmp_path):
    """Three runs of 200 MB each, of which the second is finished."""
    for run, finished in (("a", False), ("b", True), ("c", False)):
        state = {"weight": torch.zeros(50_000_000)}
        checkpoints.save_checkpoint(tmp_path / run / LAST, {
            "model_state_dict": state, "finished": finished})
        (tmp_path / run / BEST).touch()
    (tmp_path / "measure.py").write_text(MEASURE)
    found, kilobytes = run_script(tmp_path / "measure.py", ROOT, tmp_path).stdout.split()
    assert found == "b"
    assert int(kilobytes) < 50_000


def test_the_published_dataset_and_checkpoint_are_evaluated_as_they_are(folder, capsys):
    """Only `path,label`, keys that begin with `model.`, no class names; nothing to convert."""
    for side in ("train", "test"):
        table = folder / f"dataset/{side}_labels.csv"
        rows = [",".join(line.split(",")[:2]) for line in table.read_text().splitlines()]
        table.write_text("\n".join(rows) + "\n")
    train.train(settings(folder, "--num_epochs", "8"))
    state = {f"model.{key}": value for key, value in weights(folder).items()}
    published = folder / "published.pth.tar"
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}, "epoch": 8}, published)
    evaluate.main([str(flag) for flag in evaluation_flags(
        folder, "--checkpoint", published, "--image_size", "32")])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("test accuracy 100.00 %")
    assert "group" in printed.err
    assert zipfile.is_zipfile(published)
