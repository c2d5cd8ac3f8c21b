"""Initial weights load in every common form; unsuitable files are refused with the reason."""
import argparse
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

import model as m
from tests.training_runs import load, make_folder, settings
from train import train
from training.checkpoints import BEST
from utils import InputError


class Trainer:
    """A class of somebody's training script."""


@pytest.fixture(scope="module")
def source():
    torch.manual_seed(1)
    return m.build_model("plain_cnn", 5)


def with_prefix(state, prefix):
    return {f"{prefix}{key}": value for key, value in state.items()}


FORMS = {
    "state dict": lambda state: state,
    "float16": lambda state: {key: value.half() if value.is_floating_point() else value
                              for key, value in state.items()},
    "torchvision's references": lambda state: {
        "model": OrderedDict(state), "args": argparse.Namespace(lr=0.1), "epoch": 3,
        "best": np.float64(0.5), "optimizer": {"state": {0: {"step": torch.zeros(1)}}}},
    "Lightning": lambda state: {"state_dict": with_prefix(state, "model.backbone."),
                                "callbacks": {}, "hyper_parameters": {"lr": np.float32(0.1)}},
    "DDP": lambda state: with_prefix(state, "module."),
    "compiled": lambda state: {"model_state_dict": with_prefix(state, "_orig_mod.module.")},
    "nested": lambda state: {"weights": {"student": {"net": state}}},
    "averaged": lambda state: {"state_dict": {key: 0 * value for key, value in state.items()},
                               "state_dict_ema": state},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_every_common_form_are_found(form, source, tmp_path):
    torch.save(FORMS[form](source.state_dict()), tmp_path / "w.pth")
    require_loaded(tmp_path / "w.pth", source)


def test_safetensors_are_read_whatever_the_name_of_the_file(source, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    for name in ("w.safetensors", "w.bin"):
        state = {key: value.contiguous() for key, value in source.state_dict().items()}
        safetensors.save_file(with_prefix(state, "module."), tmp_path / name)
        require_loaded(tmp_path / name, source)
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.bin").read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cut\.safetensors has no readable weights: damaged"):
        load_into("plain_cnn", tmp_path / "cut.safetensors")


def test_a_run_starts_from_both_checkpoints_of_another(tmp_path):
    """The last one holds the moments of AdamW, too."""
    folder = make_folder(tmp_path)
    train(settings(folder))
    for name in (BEST, "last.pth.tar"):
        model = load_into("plain_cnn", folder / "checkpoints/tiny" / name)[0]
        trained = load(folder, name=name)["model_state_dict"]
        assert torch.equal(model.state_dict()["0.weight"], trained["0.weight"])


def require_loaded(path, source):
    model, new, message = load_into("plain_cnn", path)
    head = m.head_name(model)
    assert new == {f"{head}.weight", f"{head}.bias"}
    assert "missing" not in message
    assert "unexpected" not in message
    for key, value in model.state_dict().items():
        if not key.startswith(head):
            assert value.dtype in (torch.float32, torch.int64)
            assert torch.allclose(value, source.state_dict()[key], atol=1e-3)


def load_into(name, path):
    model = m.build_model(name, 3)
    return model, *m.load_initial_weights(model, name, str(path))


def test_a_folder_has_a_file_for_every_network(source, tmp_path):
    torch.save(source.state_dict(), tmp_path / "plain_cnn.pth")
    model, new, _ = load_into("plain_cnn", tmp_path)
    assert len(new) == 2
    with pytest.raises(InputError, match=r"named resnet18 .* found: none"):
        load_into("resnet18", tmp_path)
    torch.save(source.state_dict(), tmp_path / "plain_cnn.pt")
    with pytest.raises(InputError, match=r"found: plain_cnn\.pt, plain_cnn\.pth"):
        load_into("plain_cnn", tmp_path)


# ---- what is said of others ----

def test_the_network_that_the_weights_fit_is_named(tmp_path):
    state = m.build_model("mobilenet_v3_small", 4).state_dict()
    torch.save({"state_dict": with_prefix(state, "net.")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="do not fit resnet18.*--model mobilenet_v3_small"):
        load_into("resnet18", tmp_path / "w.pth")


def test_an_unfit_file_of_weights_is_described_by_what_it_contains(tmp_path):
    torch.save({"encoder.conv": torch.zeros(3, 4)}, tmp_path / "w.pth")
    fact = r"0 of its \d+ tensors.*has 1: encoder\.conv is \(3, 4\); resnet18 begins with conv1"
    with pytest.raises(InputError, match=fact):
        load_into("resnet18", tmp_path / "w.pth")


def test_a_pickled_network_is_not_executed_and_its_class_is_named(source, tmp_path):
    torch.save({"model": source, "trainer": Trainer()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"could run code.*save its state dict"):
        load_into("plain_cnn", tmp_path / "w.pth")


def test_a_torchscript_file_is_recognised_and_refused(source, tmp_path):
    torch.jit.trace(source.eval(), torch.zeros(1, 3, 32, 32)).save(tmp_path / "w.pt")
    with pytest.raises(InputError, match="TorchScript"):
        load_into("plain_cnn", tmp_path / "w.pt")


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(2)]])
def test_a_file_without_tensors_by_name_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="contains no tensors"):
        load_into("plain_cnn", tmp_path / "w.pth")


def test_a_pickle_without_tensors_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps(Trainer()))
    with pytest.raises(InputError, match="no readable weights"):
        load_into("plain_cnn", tmp_path / "w.pth")


def test_a_long_list_of_unexpected_tensors_is_cut(source, tmp_path):
    more = {f"decoder.{i}": torch.zeros(1) for i in range(300)}
    torch.save({**source.state_dict(), **more}, tmp_path / "w.pth")
    message = load_into("plain_cnn", tmp_path / "w.pth")[2]
    assert "and 295 more" in message
    assert len(message) < 400
