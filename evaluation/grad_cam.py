"""Where a network looked: Grad-CAM heat maps of an answer, and photographs with the heat laid over them."""
import threading

import matplotlib
import numpy as np
import torch
from torch.nn import functional


@torch.enable_grad()
def grad_cam(model, images, targets):
    """Return heat maps (B, H, W) float32 in [0, 1] on the CPU: what in each image speaks for its target class.

    `images` (B, 3, H, W) are normalised as for the network, `targets` (B,) int64 are class labels. Grad-CAM (Selvaraju
    et al., "Grad-CAM: Visual Explanations from Deep Networks", 2017): the channels of the last feature map that still
    has a place in the image, weighted by their mean gradient, of which the positive part is kept; 1 is the warmest
    place of each image, and all are 0 where nothing speaks for the class. The model is left in evaluation mode.
    """
    features, caller = [None], threading.get_ident()  # other threads may use the model meanwhile

    def keep(module, inputs, output):
        """Remember the last output with two places in height and width; containers come after their contents."""
        shape = output.shape if threading.get_ident() == caller and isinstance(output, torch.Tensor) else ()
        if len(shape) == 4 and min(shape[2:]) > 1:
            features[0] = output

    hooks = [module.register_forward_hook(keep) for module in model.eval().modules()]
    try:
        logits = model(images.clone().requires_grad_())  # a gradient even where all weights are frozen
    finally:
        for hook in hooks:
            hook.remove()
    chosen = logits.gather(1, targets.to(logits.device)[:, None]).sum()
    gradient, = torch.autograd.grad(chosen, features[0])  # (B, C, h, w)
    heat = (gradient.mean((2, 3), keepdim=True) * features[0].detach()).sum(1, keepdim=True).relu().float()
    heat = functional.interpolate(heat, images.shape[2:], mode="bilinear", align_corners=False)[:, 0].cpu()
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)


def heat_layer(heat, strength=0.6):
    """Return heat (H, W) in [0, 1] as colours to lay over its image, clear where it is cold: uint8 (H, W, 4) RGBA."""
    heat = np.asarray(heat)
    layer = matplotlib.colormaps["turbo"](heat)
    layer[..., 3] = strength * np.sqrt(heat)
    return np.round(255 * layer).astype(np.uint8)


def overlay(image, heat):
    """Return an image uint8 (H, W, 3) with heat (H, W) in [0, 1] laid over it in colours: uint8 (H, W, 3)."""
    layer = heat_layer(heat)
    share = layer[..., 3:] / 255
    return np.round((1 - share) * np.asarray(image) + share * layer[..., :3]).astype(np.uint8)
