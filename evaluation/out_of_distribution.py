"""Whether a photograph shows one of the classes at all: a score beside the logits, and its threshold."""
import numpy as np
import torch
from torch import nn

from dataset import batches, build_eval_loader
from evaluation.metrics import collect_logits
from model import head_name, restore_model, without_head


class ScoredHead(nn.Module):
    """The head of a trained network, and how much a photograph looks like one of the classes: (B, D) -> (B, K + 1).

    The score, in the last column, is the largest cosine between the features and a class mean, plus `weight` times the
    largest logit over the length of the features. The first finds what is no plant at all, whose features point
    elsewhere, the second plants that are none of the classes: benchmarks/out_of_distribution.py compares the scores. A length
    counts as half the shortest class mean's at least, so that next to no features are not the strongest.
    """

    def __init__(self, head, means, weight):
        super().__init__()
        self.head, self.weight = head, weight
        lengths = means.norm(dim=1, keepdim=True)
        self.register_buffer("means", means / lengths)  # (K, D)
        self.register_buffer("least", lengths.min() / 2)

    def forward(self, features):
        logits, features = self.head(features).float(), features.float()
        length = torch.maximum(features.norm(dim=1, keepdim=True), self.least.float())
        cosines = features / length @ self.means.float().T
        score = cosines.amax(1, keepdim=True) + self.weight * logits.amax(1, keepdim=True) / length
        return torch.cat([logits, score], 1)


def add_score(model, known):
    """Put a `ScoredHead` in place of the head: logits (B, K) -> (B, K + 1). Return the model.

    `known` are its {"means" (K, D), "weight"}, None for a checkpoint that has none: the score then says nothing.
    """
    name = head_name(model)
    head = model.get_submodule(name)
    known = known or {"means": torch.ones(1, head.in_features), "weight": 0.0}
    model.set_submodule(name, ScoredHead(head, known["means"].to(head.weight.device), known["weight"]))
    return model


def fit_score(checkpoint, train_frame, val_loader, device, s, cache=None):
    """Return {"means", "weight", "threshold"} of a checkpoint: the score of `ScoredHead` and its threshold.

    The class means are those of the training photographs as evaluation sees them. The weight makes both parts of the
    score spread alike on the validation photographs; 95 % of these reach the threshold.
    """
    model = restore_model(checkpoint, "the best checkpoint", checkpoint["class_names"]).to(device)
    with without_head(model) as head:
        loader = build_eval_loader(train_frame, s, cache)
        features, labels = map(torch.from_numpy, collect_logits(model, batches(loader, device, s.mean, s.std)))
        means = torch.stack([features[labels == label].mean(0) for label in labels.unique()])
        scored = ScoredHead(head, means.to(device), weight=0.0)
        network = nn.Sequential(model, scored)

        def score(weight):
            scored.weight = weight
            return collect_logits(network, batches(val_loader, device, s.mean, s.std), s.flip_tta)[0][:, -1]
        cosine = score(0.0)
        strength = score(1.0) - cosine
    weight = float(cosine.std() / max(strength.std(), 1e-12))
    return {"means": means, "weight": weight, "threshold": threshold_at(cosine + weight * strength)}


def threshold_at(scores, acceptance=0.95):
    """Return the largest of the scores (N,) of known photographs that at least this fraction of them reaches."""
    return float(np.quantile(scores, 1 - acceptance, method="lower"))
