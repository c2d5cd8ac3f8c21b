"""The linear probe: a network's head, fitted in seconds to the features below it."""
from types import SimpleNamespace

import torch

from dataset import batches, build_eval_loader, build_train_loader
from evaluation.inference import collect_logits
from evaluation.metrics import cross_entropy
from model import without_head
from training.optimization import build_criterion
from utils import progress

DECAYS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)  # each fit starts from the one before


def build_linear_probe(s, balance, train_table, val_loader, num_classes, cache, device):
    """Return a function that fits the head of a model in place, None if the probe is off.

    `balance` is that of `training.optimization.build_criterion`. The function returns (training
    loss, chosen weight decay, number of views). A random network gets no probe: its features are
    not worth fitting to.
    """
    if not s.linear_probe or s.initial_weights == "none":
        return None
    if s.balance in ("oversample", "sampling"):  # the probe's batches are not resampled
        balance = "weights"
    criterion = build_criterion(balance, train_table["label"], num_classes)
    views = build_views(s, train_table, cache, device)

    def fit(model):
        val_batches = batches(val_loader, device, s.mean, s.std)
        val_batches = progress(val_batches, len(val_loader), "linear probe, validation", "batch")
        return fit_linear_probe(model, views(), val_batches, criterion, s.flip_tta)
    return fit


def build_views(s, table, cache, device):
    """Return a function that yields the batches (images, labels) of PROBE_VIEWS per photograph.

    The first is the evaluation view, the second its mirror image; the others are augmented, each
    differently.
    """
    def views():
        plain = build_eval_loader(table, s, cache)
        every = SimpleNamespace(**{**vars(s), "balance": "none",  # every photograph once
                                   "batch_size": min(s.batch_size, len(table))})
        augmented = build_train_loader(table, every, cache)
        for view in range(s.probe_views):
            augmented.sampler.set_epoch(1 - view)  # training's epochs start at 1: other draws
            loader = plain if view < 2 else augmented
            shown = f"linear probe, view {view + 1} of {s.probe_views}"
            for images, labels in progress(batches(loader, device, s.mean, s.std), len(loader),
                                           shown, "batch"):
                yield (images.flip(3) if view == 1 else images), labels
    return views


def fit_linear_probe(model, train_views, val_batches, criterion, flip_tta):
    """Fit the head of `model` in place; return (training loss, weight decay, number of views).

    Softmax regression on features that are centred and divided by one common scale; the weight
    decay is the one with the lowest validation loss. Standardising each feature separately would
    give nearly constant features such large weights that dropout and the first steps of
    fine-tuning break the network. Fine-tuning from this head distorts the initial features less
    than from a random one (LP-FT: Kumar et al., "Fine-Tuning can Distort Pretrained Features",
    2022).
    """
    with without_head(model) as head:
        features, labels = map(torch.from_numpy, collect_logits(model, train_views))
        val_features, val_labels = collect_logits(model, val_batches, flip_tta)
    mean, scale = features.mean(0), scale_of(features)
    features = (features - mean) / scale  # (N, D)
    val_features = (torch.from_numpy(val_features) - mean) / scale

    fits = []
    weight, bias = torch.zeros(head.out_features, len(mean)), torch.zeros(head.out_features)
    for decay in progress(DECAYS, len(DECAYS), "linear probe, weight decays", "fit"):
        weight, bias, loss = fit_linear(features, labels, weight, bias, criterion, decay)
        val_loss = cross_entropy((val_features @ weight.T + bias).numpy(), val_labels)
        fits.append((val_loss, decay, weight, bias, loss))
    _, decay, weight, bias, loss = min(fits, key=lambda fit: fit[0])
    with torch.no_grad():  # fold centring and scaling into the weights
        head.weight.copy_(weight / scale)
        head.bias.copy_(bias - weight @ (mean / scale))
    return loss, decay, len(labels)


def scale_of(features):
    """Return the common scale () of features (N, D), 1 if they are all alike or of one photograph.

    Alike are those of a network whose last activations are all zero.
    """
    scale = features.std(0, correction=min(1, len(features) - 1)).square().mean().sqrt()
    return scale if scale > 0 else torch.ones(())


def fit_linear(features, labels, weight, bias, criterion, decay):
    """Return (weight (K, D), bias (K,), loss) that minimise criterion + decay/2 |weight|^2.

    L-BFGS starts from `weight` and `bias`; the returned loss excludes the decay.
    """
    weight, bias = (start.clone().requires_grad_() for start in (weight, bias))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-5,
                                  line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = criterion(features @ weight.T + bias, labels)  # (N, K) -> ()
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    with torch.no_grad():
        loss = criterion(features @ weight.T + bias, labels).item()
        return weight.detach(), bias.detach(), loss
