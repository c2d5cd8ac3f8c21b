"""Grad-CAM: equal to what it reduces to by hand, on every network, and pointing at what decides."""
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional

from evaluation.grad_cam import grad_cam, overlay
from model import MODELS, build_model, freeze_backbone


@pytest.mark.parametrize("name", MODELS)
def test_grad_cam_explains_every_network(name):
    torch.manual_seed(0)
    model = build_model(name, 5)
    images = torch.randn(1, 3, 96, 96).expand(5, 3, 96, 96)
    with torch.inference_mode():
        before = model.eval()(images)
    heat = grad_cam(model.train(), images, torch.arange(5))
    assert heat.shape == (5, 96, 96)
    assert heat.dtype == torch.float32
    assert heat.min() >= 0
    assert set(heat.amax((1, 2)).tolist()) <= {0.0, 1.0}
    assert heat.amax() == 1  # for some class at least
    assert len(heat.unique(dim=0)) > 1  # and the classes differ
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(model(images), before)  # in evaluation mode, and unchanged


@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_the_class_activation_map_where_a_mean_feeds_the_head(frozen):
    """Its weights are those of a head that follows a global mean directly (Zhou et al., 2016)."""
    torch.manual_seed(1)
    model = build_model("plain_cnn", 4).eval()
    if frozen:
        freeze_backbone(model, set())
    images, target = torch.randn(3, 3, 64, 64), torch.tensor([2, 0, 2])
    features = model[:-4](images)
    by_hand = torch.einsum("bchw,bc->bhw", features, model[-1].weight[target]).relu()
    by_hand = functional.interpolate(by_hand[:, None], (64, 64), mode="bilinear")[:, 0].detach()
    assert features.shape[2:] == (4, 4)
    by_hand = by_hand / by_hand.amax((1, 2), keepdim=True)
    assert torch.allclose(grad_cam(model, images, target), by_hand, atol=1e-5)


def spotted(count, rng):
    """Return (images, labels, corners): noise with a red or a blue disc in one of four corners."""
    images = rng.normal(0, 0.5, (count, 3, 64, 64)).astype(np.float32)
    labels, corners = rng.integers(0, 2, count), rng.integers(0, 2, (count, 2))
    rows, columns = np.mgrid[:64, :64]
    for image, label, (down, right) in zip(images, labels, corners, strict=True):
        disc = (rows - 16 - 32 * down) ** 2 + (columns - 16 - 32 * right) ** 2 < 100
        image[2 * label][disc] += 3
    return torch.from_numpy(images), torch.from_numpy(labels), corners


def test_grad_cam_points_at_what_distinguishes_the_class():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = build_model("plain_cnn", 2)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(30):
        images, labels, _ = spotted(32, rng)
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    images, labels, corners = spotted(40, rng)
    assert (model.eval()(images).argmax(1) == labels).float().mean() > 0.95
    heat = grad_cam(model, images, labels)
    warmest = [np.divmod(int(one.argmax()), 64) for one in heat]
    assert np.mean((np.array(warmest) >= 32) == corners) > 0.9  # 0.5 if it looked anywhere
    with ThreadPoolExecutor(4) as pool:  # threads that share a network do not mix up their images
        both = list(pool.map(
            lambda i: grad_cam(model, images[i:i + 1], labels[i:i + 1])[0], range(40)))
    assert torch.allclose(torch.stack(both), heat, atol=1e-4)


def test_a_network_without_feature_maps_has_no_heat_map():
    """Tokens that are no square, and attention weights, are no maps."""
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.Sequential(torch.nn.ModuleDict({"norm1": torch.nn.Identity()}))
            self.attn, self.head = torch.nn.Softmax(3), torch.nn.Linear(64, 2)

        def forward(self, images):  # (B, 3, 8, 8)
            tokens = self.blocks[0]["norm1"](images.flatten(2))[:, :, :50]  # (B, 3, 50)
            self.attn(images)
            return self.head(images[:, 0].flatten(1)) + tokens.sum()
    images = torch.randn(2, 3, 8, 8)
    assert grad_cam(Tokens(), images, torch.tensor([0, 1])) is None


def test_the_overlay_leaves_cold_pixels_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    heat = np.zeros((8, 8))
    heat[0, 0] = 1
    laid = overlay(image, heat)
    assert laid.dtype == np.uint8
    assert np.array_equal(laid[1:], image[1:])
    assert not np.array_equal(laid[0, 0], image[0, 0])
    assert np.array_equal(overlay(image, torch.zeros(8, 8)), image)
