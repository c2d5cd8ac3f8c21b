"""Grad-CAM heat maps, and images overlaid with them."""
import math
import threading

import matplotlib
import numpy as np
import torch
from torch.nn import functional

OPACITY = 0.6  # of the colours where the heat is 1


@torch.enable_grad()
def grad_cam(model, images, targets):
    """Return heat maps (B, H, W) float32 in [0, 1] on the CPU: the evidence for a target class.

    `images` (B, 3, H, W) are normalised as for the network, `targets` (B,) int64 are class labels.
    Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", 2017) weights
    the channels of the last feature map, see `to_maps`, by their mean gradient and keeps the
    positive part. Each map is scaled to a maximum of 1, or 0 everywhere without evidence for the
    class. Returns None if the network has no feature maps. It is left in evaluation mode.
    """
    features, caller = [None], threading.get_ident()  # other threads may use the model meanwhile

    def remember(module, inputs, output):
        """Store the last spatial output; the hooks of containers run after those of contents."""
        if threading.get_ident() != caller or not isinstance(output, torch.Tensor):
            return
        if to_maps(output, model, module) is not None:
            features[0] = output, module

    # Attention weights (B, heads, N, N) are no maps.
    hooks = [module.register_forward_hook(remember)
             for name, module in model.eval().named_modules() if "attn" not in name.split(".")]
    try:  # inputs that require gradients give one even if all weights are frozen
        logits = model(images.clone().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    if features[0] is None:
        return None
    output, module = features[0]
    target_logits = logits.gather(1, targets.to(logits.device)[:, None]).sum()
    gradient, = torch.autograd.grad(target_logits, output)
    gradient, maps = (to_maps(tensor, model, module)
                      for tensor in (gradient, output.detach()))
    weights = gradient.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    heat = (weights * maps).sum(1, keepdim=True).relu().float()  # (B, 1, h, w)
    heat = functional.interpolate(heat, images.shape[2:], mode="bilinear", align_corners=False)
    heat = heat[:, 0].cpu()
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)


def to_maps(output, model, module):
    """Return a module's output as feature maps (B, C, h, w), h and w above 1; None if it has none.

    `output_fmt` of timm's networks tells channels last, (B, h, w, C). Tokens (B, N, C) are maps
    up to the attention of the last block; after it, in a vision transformer, only the class token
    gets a gradient (https://github.com/jacobgil/pytorch-grad-cam).
    """
    if output.ndim == 4:
        maps = output.movedim(3, 1) if getattr(model, "output_fmt", "") == "NHWC" else output
        return maps if min(maps.shape[2:]) > 1 else None
    blocks = getattr(model, "blocks", None)
    if output.ndim == 3 and blocks and module is getattr(blocks[-1], "norm1", None):
        return tokens_to_maps(output, getattr(model, "num_prefix_tokens", 0))
    return None


def tokens_to_maps(tokens, prefix):
    """Return tokens (B, N, C) of a square image as maps (B, C, h, h); None if they are no square.

    The first `prefix` tokens stand for no place, but some networks (CaiT) add them after the maps.
    """
    for skipped in (prefix, 0):
        side = math.isqrt(tokens.shape[1] - skipped)
        if side > 1 and side ** 2 == tokens.shape[1] - skipped:
            return tokens[:, skipped:].transpose(1, 2).unflatten(2, (side, side))
    return None


def heat_layer(heat):
    """Return heat (H, W) in [0, 1] as colours, uint8 RGBA, transparent where it is low."""
    heat = np.asarray(heat)
    layer = matplotlib.colormaps["turbo"](heat)  # (H, W, 4)
    layer[..., 3] = OPACITY * np.sqrt(heat)
    return np.round(255 * layer).astype(np.uint8)


def overlay(image, heat):
    """Return an image, uint8 (H, W, 3), overlaid with heat (H, W) in [0, 1]."""
    layer = heat_layer(heat)
    alpha = layer[..., 3:] / 255
    return np.round((1 - alpha) * np.asarray(image) + alpha * layer[..., :3]).astype(np.uint8)
