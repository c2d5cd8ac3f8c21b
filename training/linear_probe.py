"""The linear head of a network, fitted in seconds on cached features of everything below it."""
from types import SimpleNamespace

import torch

from dataset import batches, build_eval_loader, build_train_loader
from evaluation.metrics import collect_logits, measure
from model import without_head

DECAYS = (3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)  # tried from the strongest on, each from the weights before


def fit_head(model, train_frame, val_loader, criterion, device, s, cache=None):
    """Fit the head of `model` in place to the features below it, and return (training loss, weight decay chosen).

    The head is the softmax regression whose weight decay has the lowest validation loss, on centred features divided by
    one number: standardised each by itself, those that hardly vary get weights so large that dropout and the first
    steps of fine-tuning break the network. Fine-tuning from this head keeps more of what the network knows than from a
    random one (Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022).
    """
    with without_head(model) as head:
        features, labels = (torch.from_numpy(array) for array in collect_views(model, train_frame, device, s, cache))
        held, held_labels = collect_logits(model, batches(val_loader, device, s.mean, s.std), s.flip_tta)
    mean, scale = features.mean(0), features.std(0).square().mean().sqrt()
    features, held = (features - mean) / scale, (torch.from_numpy(held) - mean) / scale

    tried = []
    weight, bias = torch.zeros(head.out_features, len(mean)), torch.zeros(head.out_features)
    for decay in DECAYS:
        weight, bias, loss = fit_linear(features, labels, weight, bias, criterion, decay)
        val_loss = measure((held @ weight.T + bias).numpy(), held_labels)["loss"]
        tried.append((val_loss, decay, weight, bias, loss))
    _, decay, weight, bias, loss = min(tried, key=lambda one: one[0])
    with torch.no_grad():  # centring and scaling go into the weights
        head.weight.copy_(weight / scale)
        head.bias.copy_(bias - weight @ (mean / scale))
    return loss, decay


def collect_views(model, frame, device, s, cache):
    """Return (features (views * N, D) float32, labels (views * N,)) of all views of the photographs, as numpy arrays.

    Of `s.probe_views` per photograph the first is as evaluation sees it, the second its mirror image, others augmented.
    """
    plain = build_eval_loader(frame, s, cache)
    augmented = build_train_loader(frame, SimpleNamespace(**{**vars(s), "balance": "none"}), cache)

    def views():
        for view in range(s.probe_views):
            augmented.sampler.set_epoch(1 - view)  # the epochs of training begin at 1
            for images, labels in batches(plain if view < 2 else augmented, device, s.mean, s.std):
                yield (images.flip(3) if view == 1 else images), labels
    return collect_logits(model, views())


def fit_linear(features, labels, weight, bias, criterion, decay):
    """Return (weight (K, D), bias (K,), loss) that minimise criterion + decay/2 |weight|^2, by L-BFGS."""
    weight, bias = (start.clone().requires_grad_() for start in (weight, bias))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = criterion(features @ weight.T + bias, labels) + decay / 2 * weight.square().sum()  # (N, K) -> ()
        loss.backward()
        return loss
    optimizer.step(closure)
    with torch.no_grad():
        return weight.detach(), bias.detach(), criterion(features @ weight.T + bias, labels).item()
