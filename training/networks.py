"""A row of the model table, and the rows that timm provides as `timm:NAME`.

timm (https://github.com/huggingface/pytorch-image-models) has a thousand networks. It is imported
only when one of them is used.
"""
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple

from torch import nn

from images import IMAGENET_MEAN, IMAGENET_STD, View
from utils import InputError

TIMM = "timm:"  # prefix of the names of its networks


class Network(NamedTuple):
    """A network, and the view and normalisation that its published weights expect."""

    build: Callable  # num_classes -> network with random weights, its head the last linear layer
    view: View = View()
    mean: tuple = IMAGENET_MEAN  # per channel, of pixels in [0, 1]
    std: tuple = IMAGENET_STD
    any_size: bool = True  # whether it takes images of another size than its view's


def timm_network(name):
    """Return the `Network` of a name such as timm:vit_tiny_patch16_224, from its configuration."""
    timm, name = import_timm(name), name.removeprefix(TIMM)
    try:
        facts = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError as error:  # an unknown tag, such as .in1k
        raise InputError(f"--model {TIMM}{name}: {error}") from None
    if facts is None:
        close = get_close_matches(name, timm.list_models(), 3) or ["tf_efficientnet_lite0"]
        raise InputError(f"timm {timm.__version__} has no network {name!r}; it has, for example, "
                         f"{', '.join(TIMM + other for other in close)}")
    if not isinstance(facts.classifier, str):
        raise InputError(f"{TIMM}{name} has several heads; choose a network with one")
    interpolation = "bicubic" if facts.interpolation == "random" else facts.interpolation
    return Network(partial(build_timm, name, facts.classifier),
                   View(facts.input_size[-1], float(facts.crop_pct), interpolation),
                   facts.mean, facts.std, not facts.fixed_input_size)


def similar_networks(name):
    """Return up to 12 names of timm's networks that are spelled like `name`, as timm:NAME."""
    known, name = import_timm(name).list_models(), name.removeprefix(TIMM).split(".")[0]
    return [TIMM + other for other in get_close_matches(name, known, 12, 0.8)]


def build_timm(name, head, num_classes):
    """Return a network of timm with random weights; raise InputError if its head is not linear."""
    model = import_timm(TIMM + name).create_model(name, num_classes=num_classes)
    linear = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    if linear[-1:] != [head]:
        raise InputError(f"{TIMM}{name}: its head, {head or 'of no name'}, is not its last linear "
                         "layer; choose another network")
    return model


def import_timm(name):
    """Return the package timm; raise InputError that says how to install it for `name`."""
    try:
        import timm
    except ImportError:
        raise InputError(f"--model {name} needs the Python package timm; run "
                         "pip install timm") from None
    return timm


def download_timm(name):
    """Return the weights that timm publishes for a network, from its cache or the internet."""
    try:
        return import_timm(name).create_model(name.removeprefix(TIMM), pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:  # no connection, or no such weights
        raise InputError(f"timm cannot download the weights of {name} ({error}); try again "
                         "with a network, save them elsewhere and name the file with "
                         "--initial_weights FILE, or start from random weights with "
                         "--initial_weights none") from None
