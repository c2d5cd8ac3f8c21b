"""Model name -> network with a new head; initial weights; freezing."""
import re
import socket
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import nn

from utils import InputError


def plain_cnn(num_classes):
    """Return a small network that learns from scratch in minutes; any image size from 32 pixels."""
    layers = [nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    for before, width in ((24, 64), (64, 128), (128, 256)):
        layers += [nn.MaxPool2d(2), nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
                   nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, num_classes))


# One row per network; the first seven are torchvision's, with ImageNet weights.
TORCHVISION = ("alexnet", "convnext_tiny", "densenet121", "densenet201", "resnet18", "mobilenet_v3_small",
               "mobilenet_v3_large")
MODELS = {name: partial(torchvision.models.get_model, name, weights=None) for name in TORCHVISION}
MODELS["plain_cnn"] = plain_cnn


def build_model(name, num_classes, batchnorm_momentum=0.1):
    """Return the network (B, 3, H, W) -> logits (B, num_classes), all weights random, channels last.

    Its head, the last linear layer, is new in every network. Raises InputError for a name that is not in the table.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; --model takes {', '.join(MODELS)}")
    model = MODELS[name](num_classes=1000)
    replace_head(model, num_classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = batchnorm_momentum
    return model.to(memory_format=torch.channels_last)


def check_image_size(name, image_size):
    """Raise InputError where images of so many pixels a side are too small for the network of that name."""
    with torch.device("meta"):  # shapes alone, nothing is computed
        model, image = build_model(name, 2).eval(), torch.empty(1, 3, image_size, image_size)
    try:
        model(image)
    except RuntimeError as error:
        raise InputError(f"--image_size {image_size} is too small for {name} ({error}); 64 is enough for all") from None


def head_name(model):
    """Return the name of the head: the last linear layer in module order."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def replace_head(model, num_classes):
    """Put a new linear layer of `num_classes` outputs in place of the head."""
    name = head_name(model)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Linear(model.get_submodule(name).in_features, num_classes))


@contextmanager
def without_head(model):
    """Let the network return what stands below its head, (B, 3, H, W) -> (B, D), for as long as the body runs."""
    name = head_name(model)
    head = model.get_submodule(name)
    model.set_submodule(name, nn.Identity())
    try:
        yield head
    finally:
        model.set_submodule(name, head)


# ---- initial weights ----

def load_initial_weights(model, name, source, timeout=10.0):
    """Load weights into everything but the head and return (set of the parameter names left new, message).

    `source` is "imagenet_v1" or "imagenet_v2" (downloaded by torchvision once), a file, or "none". Raises InputError
    where they cannot be had or fit nothing: a run never starts from random weights unasked.
    """
    if source == "none":
        return {key for key, _ in model.named_parameters()}, "initial weights: none, everything starts random"
    state = (read_weights(source) if source not in ("imagenet_v1", "imagenet_v2")
             else download_weights(name, source, timeout))
    # torchvision's DenseNet files spell norm.1 where its networks have norm1
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): value for key, value in state.items()}
    head, own = head_name(model) + ".", model.state_dict()
    wrong = [key for key in state if key in own and not key.startswith(head) and state[key].shape != own[key].shape]
    usable = {key: value for key, value in state.items() if key in own and not key.startswith(head)}
    if wrong or len(usable) < len(own) / 2:
        raise InputError(f"the weights in {source} do not fit {name}, {len(usable)} of {len(own)} tensors do"
                         f"{f': {wrong[0]} is {tuple(state[wrong[0]].shape)}' if wrong else ''}; choose the model they "
                         "were made for with --model")
    model.load_state_dict(usable, strict=False)
    missing = sorted(key for key in own if key not in usable and not key.startswith(head)
                     and not key.endswith("num_batches_tracked"))
    unexpected = sorted(key for key in state if key not in own)
    for key in missing:  # a hidden layer that starts random keeps the scale of its input
        if key.endswith(".weight") and isinstance(model.get_submodule(key[:-len(".weight")]), nn.Linear):
            nn.init.kaiming_normal_(own[key])
    message = (f"initial weights: {len(usable)} tensors from {source}; new: {head[:-1]}"
               f"{', missing there: ' + ', '.join(missing) if missing else ''}"
               f"{', unexpected there: ' + ', '.join(unexpected) if unexpected else ''}")
    return {key for key, _ in model.named_parameters() if key not in usable}, message


def download_weights(name, source, timeout):
    """Return torchvision's ImageNet weights, from its cache or the network (giving up after `timeout` seconds)."""
    choices = torchvision.models.get_model_weights(name) if name in TORCHVISION else {}
    key = f"IMAGENET1K_{source[-2:].upper()}"
    known = getattr(choices, "__members__", ())
    if key not in known:
        others = "imagenet_v1, a file or none" if known else "a file or none, from which everything starts random"
        raise InputError(f"torchvision has no {source} weights for {name}; --initial_weights takes {others}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        return choices[key].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"the {source} weights of {name} cannot be downloaded ({error}); try again with a network, "
                         f"put {choices[key].url} into a file and name it with --initial_weights FILE, or start from "
                         "random weights with --initial_weights none") from None
    finally:
        socket.setdefaulttimeout(before)


def read_weights(path):
    """Return the state dict in a file: a plain one or a checkpoint's, `model.` prefixes removed, as float32."""
    if not Path(path).is_file():
        raise InputError(f"--initial_weights {path}: no such file; it takes imagenet_v1, imagenet_v2, a file or none")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file raises many kinds
        raise InputError(f"{path} holds no readable weights ({type(error).__name__})") from None
    state = state.get("model_state_dict", state) if isinstance(state, dict) else {}
    return {key.removeprefix("model."): value.float() if value.is_floating_point() else value
            for key, value in state.items() if isinstance(value, torch.Tensor)}


# ---- what is trained ----

def freeze_backbone(model, new):
    """Keep every parameter that is not `new` from changing."""
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key in new)


def set_train_mode(model, freeze_backbone, freeze_batchnorm=False):
    """Put the network in training mode; a frozen one only at its head, so that BatchNorm statistics stay too.

    With `freeze_batchnorm` the statistics stay although everything is trained, scales and shifts included.
    """
    model.train(not freeze_backbone)
    model.get_submodule(head_name(model)).train()
    for module in model.modules():
        if freeze_batchnorm and isinstance(module, nn.BatchNorm2d):
            module.eval()


def parameter_groups(model, new, lr, backbone_lr, weight_decay, layer_decay=1.0):
    """Return AdamW parameter groups: new parameters at `lr`, others at `backbone_lr`, no decay on norms and biases.

    The further below the head, the slower: `backbone_lr` is that of the layer next to the head and falls by the
    factor `layer_decay` per layer (Clark et al., "ELECTRA", 2020).
    """
    depths, groups = layer_depths(model), {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = lr if key in new else backbone_lr * layer_decay ** max(0, depths[key] - 1)
            groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": weight_decay * decays}
            for (rate, decays), parameters in groups.items()]


def layer_depths(model):
    """Return {parameter name: layers between it and the output}: 0 for the head, the most for the first convolution.

    A layer is what the first two parts of a module's name stand for, such as `features.7` or `layer1.0`.
    """
    layers = {key: ".".join(key.split(".")[:-1][:2]) for key, _ in model.named_parameters()}
    order = list(dict.fromkeys(layers.values()))
    return {key: len(order) - 1 - order.index(layer) for key, layer in layers.items()}


# ---- trained networks ----

def restore_model(checkpoint, path, class_names):
    """Return the network of a checkpoint, in evaluation mode.

    A checkpoint that names neither model nor classes (the published one) is matched with the model table by the
    shapes of its weights. Raises InputError where its classes are not `class_names` or its weights fit no network.
    """
    state = checkpoint["model_state_dict"]
    own = checkpoint.get("class_names")
    if own is not None and list(own) != list(class_names):
        odd = next((f"{a!r} where the table has {b!r}" for a, b in zip(own, class_names, strict=False) if a != b),
                   f"{len(own)} of them, the table has {len(class_names)}")
        raise InputError(f"{path} was trained on other classes: {odd}; name its class table with --class_table")
    num_classes = len(class_names)
    name = checkpoint.get("model") or identify_model(state, num_classes)
    if name is None:
        raise InputError(f"{path} fits no network of {num_classes} classes in the model table ({', '.join(MODELS)})")
    model = build_model(name, num_classes)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {name}: {str(error).splitlines()[1].strip()}") from None
    return model.eval()


def identify_model(state, num_classes):
    """Return the name of the network in the table whose tensors have the names and shapes of `state`, or None."""
    shapes = {key: value.shape for key, value in state.items()}
    for name in MODELS:
        with torch.device("meta"):
            if {key: value.shape for key, value in build_model(name, num_classes).state_dict().items()} == shapes:
                return name
    return None


class PixelModel(nn.Module):
    """A trained network that takes pixels: uint8 (B, H, W, 3) -> float32 (B, K + 1), see `ScoredHead`.

    `mean` and `std` are per channel, of pixels in [0, 1].
    """

    def __init__(self, model, mean, std):
        super().__init__()
        self.model = model
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1))

    def forward(self, views):
        return self.model(self.normalize(views)).float()

    def normalize(self, views):
        """Return what the network inside takes: (B, 3, H, W), channels last in memory as the views are."""
        images = (views.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return images.to(next(self.model.parameters()).dtype)
