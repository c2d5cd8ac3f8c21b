"""Whether a photograph shows one of the classes at all: a score beside the logits."""
import numpy as np
import torch
from scipy.linalg import solve_triangular
from sklearn.utils.extmath import randomized_svd
from torch import nn
from torch.nn.functional import normalize

from model import head_name
from utils import InputError

RANK = 64  # directions of the scatter within classes that are kept; the rest counts as equal
BACKGROUND_RANK = 32  # directions of background photographs that are kept besides
SHRINKAGE = 0.3  # of both covariances: features of fine-tuned photographs scatter less than those
# of others will, in some directions hardly at all
MARGIN = 1.5  # standard deviations by which the plain cosine must be the lower one to decide


class ScoredHead(nn.Module):
    """The head of a trained network with an out-of-distribution score: (B, D) -> (B, K + 1).

    The score, in the last column, is high for photographs of the classes. Its parts are in standard
    deviations of the known photographs. Added are the cosine to the nearest class mean of features
    whitened by the covariance within the classes, the relative Mahalanobis distance (Ren et al.,
    2021), by which the nearest class is nearer than the mean of all photographs, and the share that
    this is of the latter distance. With background photographs, they are that cosine less the one
    to the nearest background photograph, and the log odds of the classes against the background by
    a linear probe. All detect other plants. The score is their sum or, if it is lower by MARGIN,
    the plain cosine to the nearest class mean, which detects pictures of other things.
    benchmarks/out_of_distribution.py compares scores. A length counts as at least half that of the
    shortest class mean, so that an almost empty picture is not familiar.
    """

    def __init__(self, head, entry):
        super().__init__()
        self.head = head
        for name in ARRAYS:
            self.register_buffer(name, entry[name].to(head.weight.device))
        self.register_buffer("min_length", self.means.norm(dim=1).min() / 2)
        whitened = (self.means - self.center) * self.units[0] @ self.basis @ self.within
        self.register_buffer("whitened_means", whitened)

    def forward(self, features):
        logits = self.head(features).float()
        parts = self.parts(features.float())
        scores = combine(parts, self.offsets.float(), self.scales.float())
        return torch.cat([logits, scores[:, None]], 1)

    def parts(self, features):
        """Return the parts, (P, B), before they are standardised; the plain cosine is the last."""
        means, (unit, within, total) = self.whitened_means.float(), self.units.float()
        centred = (features - self.center.float()) * unit
        inside = centred @ self.basis.float()  # (B, Q)
        outside = (centred.square().sum(1) - inside.square().sum(1)).clamp(min=0)
        whitened = inside @ self.within.float()
        lengths = whitened.square().sum(1) + outside * within
        products = whitened @ means.T  # (B, K)
        distance = (lengths[:, None] - 2 * products + means.square().sum(1)).amin(1)
        general = (inside @ self.total.float()).square().sum(1) + outside * total
        if len(self.background):
            whitened = normalize(whitened)
            cosine = ((whitened @ normalize(means).T).amax(1)
                      - (whitened @ self.background.float().T).amax(1))
            logits = features @ self.probe[:, 1:].float().T + self.probe[:, 0].float()
            detectors = [cosine, logits[:, :-1].logsumexp(1) - logits[:, -1]]
        else:
            norms = means.norm(dim=1).clamp(min=1e-12)  # 0 if there is a single class
            cosine = (products / norms).amax(1) / lengths.sqrt().clamp(min=1e-12)
            nearer = general - distance
            detectors = [cosine, nearer / len(self.center), nearer / general.clamp(min=1e-12)]
        length = torch.maximum(features.norm(dim=1, keepdim=True), self.min_length.float())
        length = length.clamp(min=1e-12)  # 0 if all features of a class are
        plain = (features / length @ normalize(self.means.float()).T).amax(1)
        return torch.stack([*detectors, plain])


# `within`, `total` and `background` are in a basis of Q directions, on photographs scaled by the
# first of `units`, the two others of which weigh what lies outside of it.
ARRAYS = ("center", "basis", "within", "total", "units", "means", "background", "probe", "offsets",
          "scales")


def combine(parts, offsets, scales):
    """Return the scores (N,) of parts (P, N), as ScoredHead describes them.

    `offsets` (P,) and `scales` (P + 1,) standardise them; the last scale is that of the sum.
    """
    standard = (parts - offsets[:, None]) / scales[:-1, None]
    return torch.minimum(standard[:-1].sum(0) / scales[-1], standard[-1] + MARGIN)


class UnscoredHead(nn.Module):
    """The head of a checkpoint without a score, which is 0 for every photograph."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, features):
        return nn.functional.pad(self.head(features).float(), (0, 1))


def add_score(model, entry, path):
    """Replace the head by one with a score: logits (B, K) -> (B, K + 1). Return the model.

    `entry` is the `out_of_distribution` of the checkpoint `path`, None in an older one. Raises
    InputError where it does not fit the network.
    """
    name = head_name(model)
    head = model.get_submodule(name)
    try:
        scored = ScoredHead(head, entry) if entry else UnscoredHead(head)
        with torch.inference_mode():  # nothing but a trial shows whether all shapes fit
            scored(torch.ones(2, head.in_features, device=head.weight.device))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        raise InputError(f"{path}: out_of_distribution does not fit the network; the file is "
                         "damaged, use another one") from None
    model.set_submodule(name, scored)
    return model


# ---- fitting, on the features of photographs ----

def fit_statistics(features, labels, background=None, probe=None):
    """Return what ScoredHead needs but its standardisation, from features (N, D), labels (N,).

    `background` (M, D) are features of photographs that show none of the classes, and `probe`
    (K + 1, 1 + D) is a linear probe of the classes and the background, its bias first.
    """
    known, codes = np.unique(labels, return_inverse=True)
    center = features.mean(0)
    means = np.stack([features[codes == code].mean(0) for code in range(len(known))])
    unit = max((features - means[codes]).var(), 1e-9) ** -0.5  # float16 holds what follows
    scatter, features = (features - means[codes]) * unit, (features - center) * unit
    others = np.zeros((0, len(center))) if background is None else (background - center) * unit
    directions = [principal(scatter, RANK), means - center, principal(others, BACKGROUND_RANK)]
    basis = np.linalg.qr(np.concatenate(directions).T)[0]  # (D, Q)
    within, within_rest = whiten(scatter, basis)
    total, total_rest = whiten(features, basis)
    others = others @ basis @ within
    others /= np.maximum(np.linalg.norm(others, axis=1, keepdims=True), 1e-12)
    arrays = (center, basis, within, total, np.array([unit, within_rest, total_rest]),
              means, others,
              np.zeros((0, 1 + len(center))) if probe is None else probe, np.zeros(1), np.ones(2))
    return {name: torch.from_numpy(np.ascontiguousarray(array, np.float32))
            for name, array in zip(ARRAYS, arrays, strict=True)}


def principal(rows, count):
    """Return up to `count` directions (count, D) in which rows (N, D) are largest."""
    count = min(count, *rows.shape)
    return randomized_svd(rows, count, random_state=0)[2] if count else rows[:0]


def whiten(rows, basis):
    """Return (W (Q, Q), w): W W^T is the inverse covariance of rows (N, D) within a basis (D, Q).

    w is the inverse variance outside of it; both are shrunk towards the mean variance.
    """
    inside = rows @ basis
    covariance = inside.T @ inside / len(rows)
    total = rows.var() * len(basis)
    rest = max(total - np.trace(covariance), 0) / max(len(basis) - len(covariance), 1)
    even = SHRINKAGE * max(total / len(basis), 1e-12)
    covariance = (1 - SHRINKAGE) * covariance + even * np.eye(len(covariance))
    factor = solve_triangular(np.linalg.cholesky(covariance), np.eye(len(covariance)), lower=True)
    return factor.T, 1 / ((1 - SHRINKAGE) * rest + even)


@torch.inference_mode()
def score_parts(statistics, views):
    """Return the parts of the score, float64 (P, N): means over the views (V, N, D)."""
    head = ScoredHead(nn.Linear(1, 1), statistics)
    return torch.stack([head.parts(torch.from_numpy(features)) for features in views]
                       ).mean(0).double().numpy()


def standardize(statistics, parts):
    """Return the statistics with the offsets and scales of parts (P, N) of known photographs."""
    offsets, scales = parts.mean(1), np.maximum(parts.std(1), 1e-6)
    added = ((parts - offsets[:, None]) / scales[:, None])[:-1].sum(0)
    scales = np.append(scales, max(added.std(), 1e-6))
    return {**statistics, "offsets": torch.from_numpy(offsets).float(),
            "scales": torch.from_numpy(scales).float()}


def score(statistics, parts):
    """Return the scores (N,) of parts (P, N), as ScoredHead combines them."""
    return combine(torch.from_numpy(parts), statistics["offsets"].double(),
                   statistics["scales"].double()).numpy()
