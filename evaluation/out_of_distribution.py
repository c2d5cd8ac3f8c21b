"""Whether a photograph shows one of the classes at all: a score beside the logits."""
import torch
from torch import nn

from evaluation.calibration import threshold_at
from evaluation.inference import collect_logits
from model import head_name, without_head


class ScoredHead(nn.Module):
    """The head of a trained network with an out-of-distribution score: (B, D) -> (B, K + 1).

    The score, in the last column, is high for photographs of the classes. It is the largest cosine
    between the features and a class mean, plus `weight` times the largest logit divided by the
    length of the features. The cosine detects pictures of other things, whose features point
    elsewhere; the logit detects other plants: benchmarks/out_of_distribution.py compares scores. A
    length counts as at least half that of the shortest class mean, so that an almost empty picture
    does not get the largest ratio.
    """

    def __init__(self, head, means, weight):
        super().__init__()
        self.head, self.weight = head, weight
        lengths = means.norm(dim=1, keepdim=True)
        self.register_buffer("means", means / lengths)  # (K, D), of length 1
        self.register_buffer("min_length", lengths.min() / 2)

    def forward(self, features):
        logits, features = self.head(features).float(), features.float()
        length = torch.maximum(features.norm(dim=1, keepdim=True), self.min_length.float())
        cosines = features / length @ self.means.float().T
        largest_logit = logits.amax(1, keepdim=True)
        score = cosines.amax(1, keepdim=True) + self.weight * largest_logit / length
        return torch.cat([logits, score], 1)


def add_score(model, entry):
    """Replace the head by a `ScoredHead`: logits (B, K) -> (B, K + 1). Return the model.

    `entry` is the checkpoint's `out_of_distribution`; None, in an older one, gives scores without
    meaning.
    """
    name = head_name(model)
    head = model.get_submodule(name)
    entry = entry or {"means": torch.ones(1, head.in_features), "weight": 0.0}
    means = entry["means"].to(head.weight.device)
    model.set_submodule(name, ScoredHead(head, means, entry["weight"]))
    return model


def fit_score(model, train_batches, val_batches, flip_tta):
    """Return the `out_of_distribution` entry of a checkpoint: class means, weight and threshold.

    The class means are those of the training photographs in their evaluation view. The weight gives
    both terms of the score the same standard deviation on the validation photographs, 95 % of which
    reach the threshold. `val_batches` is a function, as its batches are read twice.
    """
    with without_head(model) as head:
        features, labels = map(torch.from_numpy, collect_logits(model, train_batches))
        means = torch.stack([features[labels == label].mean(0) for label in labels.unique()])
        device_means = means.to(head.weight.device)
        cosine, both = (
            collect_logits(nn.Sequential(model, ScoredHead(head, device_means, weight)),
                           val_batches(), flip_tta)[0][:, -1]
            for weight in (0.0, 1.0))
    logit_term = both - cosine
    weight = float(cosine.std() / max(logit_term.std(), 1e-12))
    return {"means": means, "weight": weight,
            "threshold": threshold_at(cosine + weight * logit_term)}
