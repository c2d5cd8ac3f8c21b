"""Model name -> network with a new head; initial weights; which parameters are trained."""
import socket
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import torch
import torchvision
from torch import nn

from training.networks import TIMM, Network, download_timm, similar_networks, timm_network
from training.weight_files import pick_file, read_weights, remove_prefix
from utils import InputError


def plain_cnn(num_classes):
    """Return a small network that learns from scratch in minutes; images of 32 pixels or more."""
    layers = [nn.Conv2d(3, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    for channels, width in ((24, 64), (64, 128), (128, 256)):
        layers += [nn.MaxPool2d(2), nn.Conv2d(channels, width, 3, padding=1, bias=False),
                   nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2),
                         nn.Linear(256, num_classes))


# Networks with ImageNet weights in torchvision.
TORCHVISION = ("alexnet", "convnext_tiny", "densenet121", "densenet201", "resnet18",
               "mobilenet_v3_small", "mobilenet_v3_large")
MODELS = {name: Network(partial(torchvision.models.get_model, name, weights=None))
          for name in TORCHVISION} | {"plain_cnn": Network(plain_cnn)}
# Peak learning rate of parameters that do not start random, and its factor per layer away from the
# head. Measured on wild plants, most of them look-alikes: with a three times higher rate, training
# broke down.
RATES = {"mobilenet_v3_small": (1e-3, 1.0), "mobilenet_v3_large": (3e-4, 1.0),
         "timm:tf_efficientnet_lite0": (1e-3, 0.8)}
DEFAULT_RATES = 1e-4, 1.0  # not measured, so a cautious one


def find_network(name):
    """Return the `Network` of a name in MODELS or of timm:NAME; else raise InputError."""
    if name.startswith(TIMM):
        return timm_network(name)
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}; --model takes {', '.join(MODELS)} or timm:NAME")
    return MODELS[name]


def complete(s):
    """Return the settings of a training with the network's own values where they are unset."""
    network, s = find_network(s.model), complete_view(s)
    rate, decay = default_rates(s.model)
    return SimpleNamespace(**{**vars(s), "train_size": s.train_size or training_size(network, s),
                              "backbone_learning_rate": s.backbone_learning_rate or rate,
                              "layer_decay": s.layer_decay or decay})


def default_rates(name):
    """Return what BACKBONE_LEARNING_RATE 0 and LAYER_DECAY 0 mean for a network."""
    return RATES.get(name, DEFAULT_RATES)


def complete_view(s):
    """Return settings with the network's own `View` and normalisation where they are unset."""
    network = find_network(s.model)
    size = s.image_size or network.view.image_size
    view = network.view._replace(image_size=size)._asdict()
    return SimpleNamespace(**{**vars(s), **view, "mean": s.mean or network.mean,
                              "std": s.std or network.std})


def training_size(network, s):
    """Return the default of TRAIN_SIZE: at most 6/7 of the view, a multiple of 32 (192 for 224).

    A random crop shows a plant larger than the evaluation view does; smaller training views make
    up for it and take less time (FixRes: Touvron et al., "Fixing the train-test resolution
    discrepancy", 2019). A multiple of 32 because networks halve the side up to five times.
    Measured with initial weights, from 160 pixels on; otherwise the view's own size.
    """
    smaller = network.any_size and s.initial_weights != "none" and s.image_size >= 160
    return s.image_size * 6 // 7 // 32 * 32 if smaller else s.image_size


def build_model(name, num_classes, batchnorm_momentum=0.1):
    """Return the network (B, 3, H, W) -> logits (B, num_classes), all weights random.

    Its head is the last linear layer. Memory layout is channels last, which trains faster.
    """
    model = find_network(name).build(num_classes=1000)
    head = head_name(model)
    model.set_submodule(head, nn.Linear(model.get_submodule(head).in_features, num_classes))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = batchnorm_momentum
    return model.to(memory_format=torch.channels_last)


def check_image_size(name, side, flag="--image_size"):
    """Raise InputError, which names the flag, unless the network takes squares of this side."""
    network = find_network(name)
    if not (network.any_size or side == network.view.image_size):
        raise InputError(f"{name} takes images of {network.view.image_size} pixels; leave {flag} "
                         "out, or choose another network")
    with torch.device("meta"):  # shapes only, nothing is computed
        model, image = build_model(name, 2).eval(), torch.empty(1, 3, side, side)
    try:
        model(image)
    except RuntimeError as error:
        raise InputError(f"{flag} {side} is too small for {name} ({error}); 64 is enough for every "
                         "network") from None


def head_name(model):
    """Return the name of the head: the last linear layer in module order."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


@contextmanager
def without_head(model):
    """Make the network return the inputs of its head, (B, D), meanwhile; yield the head."""
    name = head_name(model)
    head = model.get_submodule(name)
    model.set_submodule(name, nn.Identity())
    try:
        yield head
    finally:
        model.set_submodule(name, head)


# ---- initial weights ----

def load_initial_weights(model, name, source):
    """Load weights into everything but the head; return (set of parameters left random, message).

    `source` is "imagenet_v1" or "imagenet_v2" (torchvision or timm downloads them once), a file, a
    folder with a file per network, or "none". Raises InputError if the weights are unavailable or
    do not fit: a run starts from random weights only with "none".
    """
    if source == "none":
        everything = {key for key, _ in model.named_parameters()}
        return everything, "initial weights: none, everything starts random"
    downloads = source in ("imagenet_v1", "imagenet_v2")
    head, target = head_name(model), model.state_dict()
    if downloads:
        state, where = remove_prefix(download_weights(name, source), target), ""
    else:
        source = pick_file(source, name)
        state, where = read_weights(source, target)
    body = {key for key in target if not key.startswith(f"{head}.")}
    usable = {key: value for key, value in state.items() if key in body}
    require_fit(usable, state, target, source, name)
    for key, value in usable.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{source}: {key} contains numbers that are not finite; the file is "
                             "damaged or its training diverged, name another one")
    model.load_state_dict(usable, strict=False)
    missing = sorted(key for key in body - usable.keys() if not key.endswith("num_batches_tracked"))
    unexpected = sorted(state.keys() - target.keys())
    for key in missing:  # He initialisation keeps the scale of the input in hidden layers
        module = model.get_submodule(key.rpartition(".")[0])
        if key.endswith(".weight") and isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    inside = f" ({where})" if where else ""
    message = f"initial weights: {len(usable)} tensors from {source}{inside}; new: {head}"
    for what, keys in (("missing there", missing), ("unexpected there", unexpected)):
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        message += f", {what}: {', '.join(keys[:5])}{more}" if keys else ""
    return {key for key, _ in model.named_parameters() if key not in usable}, message


def require_fit(usable, state, target, source, name):
    """Raise InputError unless the tensors have the network's shapes and are at least half of it."""
    wrong = [key for key, value in usable.items() if value.shape != target[key].shape]
    if not wrong and len(usable) >= len(target) / 2:
        return
    example = next(iter(wrong or state))
    fitting = find_fitting(state, name)
    raise InputError(
        f"the weights in {source} do not fit {name}: they contain {len(usable)} of its "
        f"{len(target)} tensors. The file has {len(state)}: {example} is "
        f"{tuple(state[example].shape)}"
        + (f", in {name} {tuple(target[example].shape)}" if wrong else f"; {name} begins with "
           f"{next(iter(target))}")
        + (f". They fit --model {fitting}" if fitting else
           "; name the network they were made for with --model"))


def find_fitting(state, name):
    """Return the network that most tensors of a state dict fit; None if under half do.

    Tried are those in MODELS or, if `name` is a network of timm, those of timm with similar names.
    """
    fits = {}
    for other in similar_networks(name) if name.startswith(TIMM) else MODELS:
        try:
            with torch.device("meta"):
                target = build_model(other, 2).state_dict()
        except InputError:  # its head is not linear
            continue
        renamed = remove_prefix(state, target)
        same = sum(renamed[key].shape == target[key].shape for key in renamed.keys() & target)
        fits[other] = same / len(target)
    best = max(fits, key=fits.get, default=None)
    return best if fits.get(best, 0) > 0.5 else None


def download_weights(name, source, timeout=10.0):
    """Return the published weights of torchvision or timm, from their caches or the internet.

    A download from torchvision fails after `timeout` seconds without a byte.
    """
    if name.startswith(TIMM) and source == "imagenet_v1":
        return download_timm(name)
    weights = torchvision.models.get_model_weights(name).__members__ if name in TORCHVISION else {}
    key = f"IMAGENET1K_{source[-2:].upper()}"
    if key not in weights:
        others = "imagenet_v1, a file or none" if weights else "a file or none (all starts random)"
        raise InputError(f"torchvision has no {source} weights for {name}; --initial_weights takes "
                         f"{others}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        return weights[key].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"the {source} weights of {name} cannot be downloaded ({error}); try "
                         f"again with a network, download {weights[key].url} elsewhere and "
                         "name the file with --initial_weights FILE, or start from random weights "
                         "with --initial_weights none") from None
    finally:
        socket.setdefaulttimeout(before)


# ---- what is trained ----

def freeze_backbone(model, new):
    """Train only the parameters named in `new`."""
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key in new)


def set_train_mode(model, freeze_backbone, freeze_batchnorm=False):
    """Put the network in training mode; with a frozen backbone, only its head.

    With `freeze_batchnorm`, BatchNorm keeps its statistics, but its scales and shifts are trained.
    """
    model.train(not freeze_backbone)
    model.get_submodule(head_name(model)).train()
    for module in model.modules():
        if freeze_batchnorm and isinstance(module, nn.BatchNorm2d):
            module.eval()


def parameter_groups(model, new, lr, backbone_lr, weight_decay, layer_decay=1.0):
    """Return AdamW parameter groups: `new` parameters at `lr`, others at `backbone_lr` or less.

    `backbone_lr` is the rate of the layer below the head; each layer further down has it multiplied
    by `layer_decay` once more (Clark et al., "ELECTRA", 2020). Norms, biases and scales, which have
    a single dimension longer than 1, get no weight decay.
    """
    depths, groups = layer_depths(model), {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = lr if key in new else backbone_lr * layer_decay ** max(0, depths[key] - 1)
            decays = parameter.squeeze().ndim > 1  # ConvNeXt scales its channels by (C, 1, 1)
            groups.setdefault((rate, decays), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": weight_decay if decays else 0.0}
            for (rate, decays), parameters in groups.items()]


def layer_depths(model):
    """Return {parameter name: number of layers above it}, 0 for the head.

    Parameters whose names share the first two parts (`features.7`, `layer1.0`) are one layer.
    """
    layers = {key: ".".join(key.split(".")[:-1][:2]) for key, _ in model.named_parameters()}
    order = list(dict.fromkeys(layers.values()))
    return {key: len(order) - 1 - order.index(layer) for key, layer in layers.items()}
