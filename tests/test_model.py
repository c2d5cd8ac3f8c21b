"""The model table, heads, initial weights, freezing."""
import re

import pytest
import torch

import model as m
from evaluation.out_of_distribution import add_score
from evaluation.trained_model import restore_model
from tests.conftest import shared
from utils import InputError

SMALL = ("plain_cnn", "mobilenet_v3_small", "resnet18")


@pytest.mark.parametrize("name", m.MODELS)
def test_every_model_has_one_new_head(name):
    with torch.device("meta"):
        model = m.build_model(name, 7)
        assert model.get_submodule(m.head_name(model)).out_features == 7
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(norm.momentum == 0.1 for norm in norms)


@pytest.mark.parametrize("name", SMALL)
def test_every_network_returns_one_logit_per_class(name):
    logits = m.build_model(name, 7).eval()(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 7)


def test_a_network_without_a_score_gets_zeros():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5, 3))
    logits = network(torch.ones(2, 5))
    assert torch.equal(add_score(network, None, "")(torch.ones(2, 5)),
                       torch.cat([logits, torch.zeros(2, 1)], 1))


def test_unknown_model_lists_the_known():
    with pytest.raises(InputError, match=r"resnet50.*mobilenet_v3_large"):
        m.build_model("resnet50", 7)


@pytest.mark.parametrize("name", SMALL)
def test_a_frozen_backbone_is_unchanged_bit_for_bit(name):
    """A step of training changes the head and nothing else, BatchNorm statistics included."""
    model = m.build_model(name, 3)
    head = m.head_name(model)
    m.freeze_backbone(model, {f"{head}.weight", f"{head}.bias"})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    groups = m.parameter_groups(model, set(before), lr=0.1, backbone_lr=0.1, weight_decay=0.1)
    optimizer = torch.optim.AdamW(groups)
    m.set_train_mode(model, freeze_backbone=True)
    logits = model(torch.randn(4, 3, 64, 64))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    after = model.state_dict()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {f"{head}.weight", f"{head}.bias"}
    m.set_train_mode(model, freeze_backbone=False)
    model(torch.randn(4, 3, 64, 64))
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items()
               if key.endswith("running_mean"))


def test_parameter_groups_separate_new_and_decayed():
    model = m.build_model("resnet18", 3)
    groups = m.parameter_groups(model, {"fc.weight", "fc.bias"}, lr=1.0, backbone_lr=0.1,
                                weight_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert {(group["lr"], group["weight_decay"]) for group in groups} == {
        (1.0, 0.5), (1.0, 0.0), (0.1, 0.5), (0.1, 0.0)}
    for group in groups:
        decays = group["weight_decay"] > 0
        assert all((parameter.ndim > 1) == decays for parameter in group["params"])


@pytest.mark.parametrize("name", m.MODELS)
def test_rates_fall_layer_by_layer_from_the_head(name):
    with torch.device("meta"):
        model = m.build_model(name, 3)
    depths = m.layer_depths(model)
    assert list(depths.values()) == sorted(depths.values(), reverse=True)
    head = m.head_name(model)
    new = {f"{head}.weight", f"{head}.bias"}
    assert {key for key, depth in depths.items() if depth == 0} == new
    groups = m.parameter_groups(model, new, 1.0, 0.1, 0.5, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(depths)
    rates = sorted({group["lr"] for group in groups}, reverse=True)
    assert rates == pytest.approx([1.0, *(0.1 * 0.5**i for i in range(max(depths.values())))])


# ---- initial weights ----

def test_weights_from_a_file_fill_everything_but_the_head(tmp_path):
    source = m.build_model("plain_cnn", 5)
    state = {f"model.{key}": value.half() for key, value in source.state_dict().items()}
    state["model.extra"] = torch.zeros(1)
    del state["model.0.weight"]
    torch.save({"model_state_dict": state}, tmp_path / "w.pth")
    model = m.build_model("plain_cnn", 3)
    new, message = m.load_initial_weights(model, "plain_cnn", str(tmp_path / "w.pth"))
    head = m.head_name(model)
    assert new == {"0.weight", f"{head}.weight", f"{head}.bias"}
    assert "missing there: 0.weight" in message
    assert "unexpected there: extra" in message
    expected = source.state_dict()["4.weight"].half().float()
    assert torch.equal(model.state_dict()["4.weight"], expected)


def test_without_weights_everything_is_new_and_the_message_says_so():
    model = m.build_model("plain_cnn", 3)
    new, message = m.load_initial_weights(model, "plain_cnn", "none")
    assert new == {key for key, _ in model.named_parameters()}
    assert "random" in message


def test_densenet_weights_as_torchvision_publishes_them(tmp_path):
    """Their keys have denselayer1.norm.1 where the network has denselayer1.norm1."""
    source = m.build_model("densenet121", 4)
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
             for key, value in source.state_dict().items()}
    assert len(set(state) - set(source.state_dict())) > 300
    torch.save(state, tmp_path / "w.pth")
    model = m.build_model("densenet121", 3)
    new, message = m.load_initial_weights(model, "densenet121", str(tmp_path / "w.pth"))
    assert new == {"classifier.weight", "classifier.bias"}
    assert "missing" not in message


@pytest.mark.parametrize("content, fact", [
    (None, "does not exist"), (b"junk", "no readable weights"),
    ({"other": torch.zeros(3)}, "do not fit"), ({"0.weight": torch.zeros(3)}, "0.weight is")])
def test_weights_that_do_not_fit_are_refused(tmp_path, content, fact):
    file = tmp_path / "w.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(InputError, match=fact):
        m.load_initial_weights(m.build_model("plain_cnn", 3), "plain_cnn", str(file))


def test_a_network_without_published_weights_is_refused_with_the_alternatives():
    for source in ("imagenet_v1", "imagenet_v2"):
        with pytest.raises(InputError, match=f"no {source} weights for plain_cnn.*takes a file or"):
            m.load_initial_weights(m.build_model("plain_cnn", 2), "plain_cnn", source)


def test_without_network_and_file_the_options_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    model = m.build_model("mobilenet_v3_small", 3)
    named = "cannot be downloaded.*--initial_weights FILE.*--initial_weights none"
    with pytest.raises(InputError, match=named):
        m.load_initial_weights(model, "mobilenet_v3_small", "imagenet_v1")
    with pytest.raises(InputError, match="no imagenet_v2 weights for mobilenet_v3_small"):
        m.load_initial_weights(model, "mobilenet_v3_small", "imagenet_v2")
    with pytest.raises(InputError, match="no imagenet_v1 weights for plain_cnn"):
        m.load_initial_weights(m.build_model("plain_cnn", 3), "plain_cnn", "imagenet_v1")


@pytest.mark.photos
@pytest.mark.parametrize("name, file, missing", [
    ("mobilenet_v3_large", "mobilenet_v3_large_imagenet_fp16.pth", 0),
    ("mobilenet_v3_small", "mobilenet_v3_small_features.pth", 2)])
def test_published_imagenet_weights_load(name, file, missing):
    model = m.build_model(name, 12)
    new, message = m.load_initial_weights(model, name, str(shared("weights") / file))
    assert len(new) == 2 + missing
    assert "unexpected" not in message
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


# ---- trained networks ----

def test_the_published_checkpoint_is_recognised():
    """It has no class names; load_checkpoint has removed the `model.` in front of every key."""
    state = m.build_model("mobilenet_v3_small", 3).state_dict()
    model = restore_model({"model_state_dict": state, "epoch": 4}, "x", ["a", "b", "c"])
    assert type(model).__name__ == "MobileNetV3"
    assert not model.training
    with pytest.raises(InputError, match="fits no network of 4 classes"):
        restore_model({"model_state_dict": state}, "x", ["a", "b", "c", "d"])


def test_a_checkpoint_of_other_classes_is_refused():
    state = m.build_model("plain_cnn", 2).state_dict()
    checkpoint = {"model_state_dict": state, "model": "plain_cnn", "class_names": ["a", "b"]}
    assert restore_model(checkpoint, "x", ["a", "b"])
    with pytest.raises(InputError, match="'b' where the table has 'c'"):
        restore_model(checkpoint, "x", ["a", "c"])
    with pytest.raises(InputError, match="2 classes, the table has 3"):
        restore_model(checkpoint, "x", ["a", "b", "c"])
