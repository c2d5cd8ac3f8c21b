"""Whether a photograph shows one of the classes at all: a score beside the logits."""
import numpy as np
import torch
from scipy.linalg import solve_triangular
from sklearn.covariance import LedoitWolf
from torch import nn
from torch.nn.functional import normalize

from model import head_name

SHRINKAGE = 0.3  # of the covariance beyond Ledoit and Wolf's: features of fine-tuned photographs
# scatter less than those of others will, in some directions hardly at all
MARGIN = 0.7  # standard deviations by which the plain cosine must be the lower one to decide


class ScoredHead(nn.Module):
    """The head of a trained network with an out-of-distribution score: (B, D) -> (B, K + 1).

    The score, in the last column, is high for photographs of the classes. It is the lower of two
    cosines between the features and the nearest class mean, in standard deviations of the known
    photographs: one of features whitened by the covariance within the classes (as Lee et al., 2018,
    do for distances), which detects other plants, and the plain one plus MARGIN, which detects
    pictures of other things. benchmarks/out_of_distribution.py compares scores. With background
    photographs, the first is twice the cosine less that to the nearest of them. A length counts as
    at least half that of the shortest class mean, so that an almost empty picture is not familiar.
    """

    def __init__(self, head, entry):
        super().__init__()
        self.head = head
        for name in ARRAYS:
            self.register_buffer(name, entry[name].to(head.weight.device))
        self.register_buffer("min_length", self.means.norm(dim=1).min() / 2)

    def forward(self, features):
        logits = self.head(features).float()
        offsets, scales = self.offsets.float(), self.scales.float()
        nearest, plain = (self.parts(features.float()) - offsets[:, None]) / scales[:, None]
        return torch.cat([logits, torch.minimum(nearest, plain + MARGIN)[:, None]], 1)

    def parts(self, features):
        """Return both cosines, (2, B), before they are standardised."""
        means, center, whitening = (self.means.float(), self.center.float(),
                                    self.whitening.float())
        whitened = normalize((features - center) @ whitening)
        nearest = (whitened @ normalize((means - center) @ whitening).T).amax(1)
        if len(self.background):
            nearest = 2 * nearest - (whitened @ self.background.float().T).amax(1)
        length = torch.maximum(features.norm(dim=1, keepdim=True), self.min_length.float())
        return torch.stack([nearest, (features / length @ normalize(means).T).amax(1)])


ARRAYS = ("center", "whitening", "means", "background", "offsets", "scales")


class EarlierScoredHead(nn.Module):
    """The head with the score of formats 1 and 2, for checkpoints that have its threshold.

    The largest cosine to a class mean, plus `weight` times the largest logit over the length.
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
        score = cosines.amax(1, keepdim=True) + self.weight * logits.amax(1, keepdim=True) / length
        return torch.cat([logits, score], 1)


def add_score(model, entry):
    """Replace the head by one with a score: logits (B, K) -> (B, K + 1). Return the model.

    `entry` is the checkpoint's `out_of_distribution`; None, in an older one, gives scores without
    meaning.
    """
    name = head_name(model)
    head = model.get_submodule(name)
    entry = entry or {"means": torch.ones(1, head.in_features), "weight": 0.0}
    if "whitening" in entry:
        scored = ScoredHead(head, entry)
    else:
        scored = EarlierScoredHead(head, entry["means"].to(head.weight.device), entry["weight"])
    model.set_submodule(name, scored)
    return model


# ---- fitting, on the features of photographs ----

def fit_statistics(features, labels, background=None):
    """Return what ScoredHead needs but its standardisation, from features (N, D), labels (N,).

    `background` (M, D) are features of photographs that show none of the classes.
    """
    known, codes = np.unique(labels, return_inverse=True)
    means = np.stack([features[codes == code].mean(0) for code in range(len(known))])
    center = features.mean(0)
    # Its precision would be an eigendecomposition: minutes at the 4096 features of AlexNet.
    estimate = LedoitWolf(store_precision=False, assume_centered=True)
    covariance = estimate.fit(features - means[codes]).covariance_
    even = SHRINKAGE * max(np.trace(covariance) / len(covariance), 1e-12)
    covariance = (1 - SHRINKAGE) * covariance + even * np.eye(len(covariance))
    # Any W with W W^T = covariance^-1 gives the same cosines; Cholesky's is the fastest.
    whitening = solve_triangular(np.linalg.cholesky(covariance), np.eye(len(covariance)),
                                 lower=True).T
    whitening /= np.abs(whitening).max()  # cosines do not depend on its scale; float16 holds it
    others = np.zeros((0, features.shape[1])) if background is None else background
    others = (others - center) @ whitening
    others /= np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-12)
    arrays = (center, whitening, means, others, np.zeros(2), np.ones(2))
    return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32))
            for name, array in zip(ARRAYS, arrays, strict=True)}


@torch.inference_mode()
def score_parts(statistics, views):
    """Return the parts of the score, float64 (2, N): means over the views (V, N, D)."""
    head = ScoredHead(nn.Linear(1, 1), statistics)
    return torch.stack([head.parts(torch.from_numpy(features)) for features in views]
                       ).mean(0).double().numpy()


def standardize(statistics, parts):
    """Return the statistics with the offsets and scales of parts (2, N) of known photographs."""
    scales = np.maximum(parts.std(1), 1e-6)
    return {**statistics, "offsets": torch.from_numpy(parts.mean(1)).float(),
            "scales": torch.from_numpy(scales).float()}


def score(statistics, parts):
    """Return the scores (N,) of parts (2, N), as ScoredHead combines them."""
    offsets, scales = (statistics[name].numpy()[:, None] for name in ("offsets", "scales"))
    nearest, plain = (parts - offsets) / scales
    return np.minimum(nearest, plain + MARGIN)
