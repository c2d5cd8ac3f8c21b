"""Networks of timm through every step: their own view and normalisation, kept to the end."""
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import app
import config
import evaluate
import export
import predict
from evaluation.grad_cam import grad_cam, to_maps
from evaluation.predictor import load_onnx
from images import View, evaluation_view
from model import (
    build_model,
    check_image_size,
    complete,
    find_network,
    head_name,
    load_initial_weights,
    parameter_groups,
)
from tests.conftest import NAMES, draw, jpeg, run_script, shared
from tests.training_runs import evaluation_flags, flags, load, make_folder, settings
from train import train
from training.checkpoints import BEST, save_checkpoint
from utils import InputError
from web.page_server import Request

timm = pytest.importorskip("timm")
CONVOLUTIONAL, TRANSFORMER = "timm:test_convnext", "timm:test_vit"


@pytest.fixture(scope="module", params=[CONVOLUTIONAL, TRANSFORMER])
def trained(request, tmp_path_factory):
    """Return (folder, network) of a run from a file of random weights, as timm would save it."""
    safetensors = pytest.importorskip("safetensors.torch")
    folder, name = make_folder(tmp_path_factory.mktemp("timm")), request.param
    torch.manual_seed(0)
    weights = timm.create_model(name.removeprefix("timm:"), num_classes=9).state_dict()
    (folder / "weights").mkdir()
    safetensors.save_file(weights, folder / f"weights/{name.removeprefix('timm:')}.safetensors")
    train(settings(folder, "--model", name, "--image_size", 0, "--initial_weights",
                   folder / "weights", "--num_epochs", 1, "--layer_decay", 0.8))
    return folder, name


def test_the_view_is_that_of_the_pretrained_configuration(trained):
    folder, name = trained
    best, facts = load(folder, name=BEST), timm.get_pretrained_cfg(name.removeprefix("timm:"))
    assert best["image_size"] == facts.input_size[-1] == 160
    assert (best["crop"], best["interpolation"]) == (facts.crop_pct, facts.interpolation)
    assert tuple(best["mean"]) == tuple(best["std"]) == (0.5, 0.5, 0.5)
    assert best["new"] == [f"{head_name(build_model(name, 3))}.{key}" for key in ("bias", "weight")]


def test_evaluation_prediction_and_page_see_what_training_saw(trained, capsys):
    """The photographs' logits are those of timm's own transform of them, but for the rounding."""
    folder, name = trained
    evaluate.main(evaluation_flags(folder))
    photos = sorted(map(str, (folder / "dataset/test").rglob("*.jpg")))
    s = config.namespace(checkpoint=str(folder / "checkpoints/tiny" / BEST), device="cpu",
                         class_table=folder / "classes.csv")
    predictor = predict.load_predictor(s)
    assert predictor.view == find_network(name).view != View(160)
    outputs = predictor.outputs(np.stack([predict.read_view(path, predictor.view, s)
                                          for path in photos]))[:, :-1]
    network = timm.create_model(name.removeprefix("timm:"), num_classes=3).eval()
    network.load_state_dict(load(folder, name=BEST)["model_state_dict"])
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))
    images = torch.stack([transform(Image.open(path)) for path in photos])
    with torch.inference_mode():
        theirs = (network(images) + network(images.flip(3))) / 2
    theirs = theirs.numpy()
    assert np.abs(outputs - theirs).max() < 0.02 * np.abs(theirs).max()
    report = json.loads((folder / "runs/tiny/report.json").read_text("utf-8"))
    assert report["accuracy"] == np.mean(outputs.argmax(1) == np.arange(len(photos)) // 3)
    reply = app.post_heat(predictor, s, Request("/heat", {"label": "1"}, jpeg(draw(0))))
    assert reply.status == 200


def test_a_batch_in_passes_takes_the_same_steps(tmp_path):
    """There is no BatchNorm in it. AdamW's moments show what its steps hide: the scale."""
    states = []
    for size in (0, 4):
        s = settings(make_folder(tmp_path / str(size)), "--model", TRANSFORMER, "--image_size", 0,
                     "--num_epochs", 1, "--micro_batch", size)
        train(s)
        states.append(load(tmp_path / str(size))["optimizer_state_dict"]["state"])
    for key, state in states[0].items():
        moment, passes = state["exp_avg"], states[1][key]["exp_avg"]
        assert torch.allclose(passes, moment, rtol=0, atol=0.01 * moment.abs().max()), key


@pytest.mark.slow
def test_the_exported_file_keeps_the_networks_own_view(trained):
    folder, name = trained
    export.main([str(flag) for flag in (
        "--checkpoint", folder / "checkpoints/tiny" / BEST, "--check_photos", folder / "dataset")])
    assert load_onnx(folder / "checkpoints/tiny/plants_model.onnx").view == find_network(name).view


@pytest.mark.parametrize("name", [CONVOLUTIONAL, TRANSFORMER, "timm:test_resnet"])
def test_layers_are_frozen_and_slowed_as_in_other_networks(name):
    with torch.device("meta"):
        model = build_model(name, 3)
    head = head_name(model)
    assert model.get_submodule(head) is model.get_classifier()
    new = {f"{head}.weight", f"{head}.bias"}
    groups = parameter_groups(model, new, 1.0, 0.1, 0.5, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    first = min(rates.values())
    assert rates[id(next(model.parameters()))] == first < 0.1 * 0.5**4
    assert all(min(parameter.shape) > 1 or parameter.ndim > 2 for group in groups
               if group["weight_decay"] for parameter in group["params"])


@pytest.mark.parametrize("name", [TRANSFORMER, "timm:swin_tiny_patch4_window7_224"])
def test_grad_cam_maps_tokens_to_their_places(name):
    """Maps are read from tokens and from channels last as the network lays them out."""
    torch.manual_seed(0)
    network = find_network(name)
    model = build_model(name, 3).eval()
    size = network.view.image_size
    heat = grad_cam(model, torch.randn(2, 3, size, size), torch.tensor([0, 1]))
    assert heat.shape == (2, size, size) and heat.amax() == 1
    if name == TRANSFORMER:
        tokens = torch.zeros(1, 1 + 10 * 10, 64)
        tokens[0, 1 + 10 * 3 + 7] = 1
        assert to_maps(tokens, model, model.blocks[-1].norm1)[0, 5].nonzero().tolist() == [[3, 7]]
        assert to_maps(tokens, model, model.blocks[0].norm1) is None
    else:
        assert to_maps(torch.zeros(1, 7, 9, 64), model, model.norm).shape == (1, 64, 7, 9)


@pytest.mark.parametrize("name", ["mixer_s32_224", "gmixer_12_224", "resmlp_12_224",
                                  "cait_xxs24_224", "xcit_nano_12_p16_224"])
def test_grad_cam_finds_the_square_of_tokens_in_every_kind_of_network(name):
    """Mixers have no class token; CaiT and XCiT add theirs after the blocks with the maps."""
    torch.manual_seed(0)
    heat = grad_cam(build_model(f"timm:{name}", 2), torch.randn(2, 3, 224, 224), torch.arange(2))
    assert heat.shape == (2, 224, 224)
    assert heat.amax((1, 2)).tolist() == [1, 1]
    assert len(heat[0].unique()) > 100


def test_a_network_whose_class_token_comes_last_is_evaluated(tmp_path):
    folder, name = make_folder(tmp_path), "timm:xcit_nano_12_p16_224"
    save_checkpoint(folder / "checkpoints/tiny" / BEST, {
        "model": name, "class_names": list(NAMES), "image_size": 224, "epoch": 1,
        "model_state_dict": build_model(name, len(NAMES)).state_dict()})
    evaluate.main(evaluation_flags(folder, "--checkpoint", folder / "checkpoints/tiny" / BEST))
    assert "data:image/jpeg" in (folder / "runs/tiny/report.html").read_text("utf-8")


def test_the_view_has_its_side_crop_and_interpolation():
    image = draw(3, (700, 500))
    by_hand = image.resize((round(700 * 236 / 500), 236), Image.Resampling.BICUBIC)
    by_hand = np.asarray(by_hand)[6:230, 53:277]
    view = evaluation_view(image, View(224, 0.95, "bicubic"))
    assert np.abs(view.astype(float) - by_hand).mean() < 3  # resized twice, as from the cache
    assert np.abs(view.astype(float) - evaluation_view(image, View())).mean() > 10


@pytest.mark.parametrize("name, fact", [
    ("timm:test_vti", "timm:test_vit"), ("timm:test_vit.nothing", "nothing"),
    ("timm:deit_tiny_distilled_patch16_224", "several heads"), ("nothing", "timm:NAME")])
def test_networks_that_cannot_be_used_are_refused(name, fact):
    with pytest.raises(InputError, match=fact):
        build_model(name, 3)


def test_a_network_of_one_size_refuses_others():
    check_image_size(TRANSFORMER, 160)
    with pytest.raises(InputError, match="images of 160 pixels"):
        check_image_size(TRANSFORMER, 128)
    check_image_size(CONVOLUTIONAL, 128)


@pytest.mark.parametrize("given, lite0, lite2", [
    ({}, (1e-3, 0.8), (1e-4, 1.0)), ({"layer_decay": 0.9}, (1e-3, 0.9), (1e-4, 0.9)),
    ({"backbone_learning_rate": 3e-4}, (3e-4, 0.8), (3e-4, 1.0))])
def test_a_network_has_its_measured_learning_rates_unless_others_are_given(given, lite0, lite2):
    for name, expected in (("tf_efficientnet_lite0", lite0), ("tf_efficientnet_lite2", lite2)):
        s = complete(config.namespace(model=f"timm:{name}", **given))
        assert (s.backbone_learning_rate, s.layer_decay) == expected


def test_weights_of_a_sister_network_are_recognised(tmp_path):
    state = timm.create_model("tf_efficientnet_lite2").state_dict()
    torch.save(state, tmp_path / "w.pth")
    name = "timm:tf_efficientnet_lite0"
    with pytest.raises(InputError, match="They fit --model timm:tf_efficientnet_lite2"):
        load_initial_weights(build_model(name, 3), name, tmp_path / "w.pth")


def test_without_timm_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="pip install timm"):
        complete(settings(make_folder(tmp_path), "--model", TRANSFORMER))


def test_without_a_network_the_options_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = build_model(TRANSFORMER, 3)
    for source, fact in (("imagenet_v1", "--initial_weights FILE"), ("imagenet_v2", "has no")):
        with pytest.raises(InputError, match=fact):
            load_initial_weights(model, TRANSFORMER, source)


@pytest.mark.photos
def test_real_weights_train_from_a_folder_of_photographs(tmp_path):
    """EfficientNet-Lite0: a linear probe tells drawn flowers apart at once."""
    folder = make_folder(tmp_path)
    weights = shared("weights") / "tf_efficientnet_lite0_imagenet_fp16.pth"
    done = run_script("train.py", *flags(
        folder, "--model", "timm:tf_efficientnet_lite0", "--image_size", 128, "--initial_weights",
        weights, "--num_epochs", 0, "--probe_views", 2))
    assert f"tensors from {weights}; new: classifier" in done.stdout
    best = load(folder, name=BEST)
    assert best["metrics"]["accuracy"] == 1 and best["interpolation"] == "bicubic"
