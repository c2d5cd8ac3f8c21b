"""What a finished network needs to answer: out-of-distribution score, limits of risk, their tests.

The out-of-distribution threshold comes from out-of-fold scores of all labelled photographs. Limits
of risk come from validation photographs or, where the backbone kept its initial weights, from
out-of-fold predictions of linear probes: a backbone that was fine-tuned on a photograph is surer of
it than it will ever be of others.
"""
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedGroupKFold

from dataset import batches, build_eval_loader
from evaluation.answers import answer_outputs, fit_answers, taxa_of
from evaluation.calibration import threshold_at
from evaluation.inference import collect_views
from evaluation.out_of_distribution import fit_statistics, score, score_parts, standardize
from evaluation.together import fit_together
from images import photo_endings
from model import without_head
from names import list_some
from training.contents import contents_of, require_foreign
from training.features import build_features
from training.image_cache import read_resized, view_of
from training.linear_probe import fit_linear, scale_of
from training.runs import numpy_seed
from utils import InputError, file_sha256, progress, require_file, sha256, warn

FOLDS = 5  # of cross-validation, and the most in which classes are left out
SCORE_FOLDS = 20  # for the out-of-distribution threshold: with 5, statistics of 80 % of 180
# photographs scored the rest so low that the threshold accepted all known photographs, not 95 %
SCORED = 20_000  # photographs fitted in all folds together; large sets need fewer folds
UNKNOWN_RISK = 0.2  # MAX_RISK, as config.py has it, at which unknown plants are counted
DECAY = 1e-2  # weight decay of the probes; what validation usually chooses among DECAYS


class Features(NamedTuple):
    """Features of labelled photographs under one network, and what splits them."""

    views: np.ndarray  # (V, N, D)
    labels: np.ndarray  # (N,)
    groups: np.ndarray  # (N,)

    def take(self, chosen):
        """Return the features of some photographs, by mask or indices (N,)."""
        return Features(self.views[:, chosen], self.labels[chosen], self.groups[chosen])


def build_fit_answers(s, data, cache, device):
    """Return a function of a model that returns entries of the checkpoint.

    They are "temperature", "out_of_distribution", "answers" and "unknown".
    """
    frozen = s.initial_weights != "none" and (s.freeze_backbone or s.num_epochs == 0)
    loader = build_eval_loader(data.table, s, cache)
    others, identity = read_background(s), identify(find_background(s))
    if others is not None:
        require_foreign(others["path"], data.table, s)
    groups = data.table["group"].to_numpy()
    validation = data.table["path"].isin(data.val_table["path"]).to_numpy()
    taxa = taxa_of(data.classes)

    def fit(model):
        with without_head(model) as head:
            shown = progress(batches(loader, device, s.mean, s.std), len(loader),
                             "features of all labelled photographs", "batch")
            views, labels = collect_views(model, shown, s.flip_tta)
            outside = None if others is None else collect_views(
                model, batches(build_eval_loader(others, s), device, s.mean, s.std), s.flip_tta)[0]
        features = Features(views, labels, groups)
        weight, bias = head.weight.detach().cpu().numpy(), head.bias.detach().cpu().numpy()
        logits = None if frozen else (views @ weight.T + bias).mean(0)
        background = None if outside is None else outside[:, ::2]  # the others measure
        entries = fit_entries(features, logits, validation, taxa, s.seed, background)
        if not frozen:
            features, background = unseen_features(s, data.table, others, cache)
        unknown = (features and leave_classes_out(features, taxa, s.seed, background)) or {}
        if outside is not None:
            held = outside[:, 1::2]
            answers = answer(held, (held @ weight.T + bias).mean(0), entries, taxa)
            unknown |= {"others_named": float(np.mean(answers.ranks == "species")),
                        "others": held.shape[1], "background": identity}
        return {**entries, "unknown": unknown or None}
    return fit


def find_background(s):
    """Return the sorted paths below the folder BACKGROUND that end as those of photographs do."""
    return sorted(path for path in Path(s.background).rglob("*")
                  if path.name.lower().endswith(photo_endings())) if s.background else []


def read_background(s):
    """Return a table of the photographs below the folder BACKGROUND in a random order, or None.

    Those that cannot be read are left out with a warning, now and not at the end of the training.
    Raises InputError where there are fewer than 2.
    """
    if not s.background:
        return None
    paths, unreadable = [], []
    for path in map(str, find_background(s)):
        try:
            require_file(path)  # to open a pipe would wait for ever
            read_resized(path, view_of(s), s.max_megapixels)
            paths.append(path)
        except InputError:
            unreadable.append(path)
    if unreadable:
        warn(f"--background {s.background}: {len(unreadable)} photographs cannot be read and are "
             f"left out: {list_some(unreadable)}")
    if len(paths) < 2:
        raise InputError(f"--background {s.background}: {len(paths)} photographs can be read, at "
                         "least 2 are needed; add some, or leave it out")
    order = np.random.default_rng(numpy_seed(s.seed)).permutation(len(paths))
    return pd.DataFrame({"path": [paths[index] for index in order], "label": 0})


def identify(paths):
    """Return 16 hex digits of the names and sizes of background photographs; opens none."""
    files = sorted((path.name, path.stat().st_size) for path in paths if path.is_file())
    return sha256(repr(files).encode())[:16]


def has_background(s, checkpoint):
    """Return whether a network's thresholds were fitted with BACKGROUND, if that is set."""
    fitted = (checkpoint.get("unknown") or {}).get("background")
    return not s.background or fitted == identify(find_background(s))


def initial_features(table, s, cache=None):
    """Return the `Features` of a label table under the initial weights, a single view of each."""
    contents = contents_of(table, s.dataset_dir)
    return Features(build_features(table, contents, s, cache)[None], table["label"].to_numpy(),
                    table["group"].to_numpy())


def unseen_features(s, table, others, cache):
    """Return (Features of a label table, features (1, M, D) of the background's first half).

    The features are those of the initial weights. A fine-tuned network has already learned the
    classes that are left out, and would recognise them as unknown far too easily. Both are None if
    there are no initial weights or, with a warning, if they can no longer be loaded.
    """
    if s.initial_weights == "none":
        return None, None
    try:
        features = initial_features(table, s, cache)
        if others is None:
            return features, None
        shown = others[::2]
        contents = [file_sha256(path) for path in shown["path"]]
        return features, build_features(shown, contents, s)[None]
    except InputError as error:
        warn(f"how many unknown plants would be named is not measured: {error}")
        return None, None


def answer(views, logits, entries, taxa, max_risk=UNKNOWN_RISK):
    """Return the `Answers` to photographs from features (V, N, D) and logits (N, K)."""
    entry = entries["out_of_distribution"]
    outputs = np.column_stack([logits, score(entry, score_parts(entry, views))])
    return answer_outputs(outputs, taxa, entries["temperature"], entry["threshold"],
                          entries["answers"], max_risk)[2]


def fit_entries(features, logits, validation, taxa, seed, background=None):
    """Return the entries of a checkpoint but "unknown".

    `logits` (N, K) are those of the network, of which the photographs that `validation` (N,) marks
    set the limits; None: those of out-of-fold probes set them. `background` (V, M, D) are features.
    """
    entry, scores = set_threshold(statistics_of(features, background),
                                  score_out_of_fold(features, seed, background))
    chosen, source = validation, "validation"
    if logits is None:
        chosen, source, logits = slice(None), "out-of-fold", probe_out_of_fold(features, seed)
    outputs = np.column_stack([logits, scores])[chosen]
    labels, groups = features.labels[chosen], features.groups[chosen]
    temperature, answers = fit_answers(outputs, labels, taxa, entry["threshold"], source)
    answers["together"] = fit_together(outputs, labels, groups, temperature, answers)
    return {"temperature": temperature, "answers": answers, "out_of_distribution": {
        **entry, "photographs": len(scores)}}


def set_threshold(statistics, parts):
    """Return (statistics with the scales and threshold of parts (P, N), their scores (N,))."""
    statistics = standardize(statistics, parts)
    scores = score(statistics, parts)
    return {**statistics, "threshold": threshold_at(scores)}, scores


def score_out_of_fold(features, seed, background=None):
    """Return the parts of the score, out of fold, float64 (P, N)."""
    most = min(max(SCORED // len(features.labels), FOLDS), SCORE_FOLDS)
    parts = np.zeros((4 if background is None else 3, len(features.labels)))
    for out in folds_of(features.labels, features.groups, seed, most):
        statistics = statistics_of(features.take(~out), background)
        parts[:, out] = score_parts(statistics, features.views[:, out])
    return parts


def probe_out_of_fold(features, seed):
    """Return the logits (N, K) of linear probes, out of fold."""
    logits = np.zeros((len(features.labels), features.labels.max() + 1), np.float32)
    for out in folds_of(features.labels, features.groups, seed):
        probe = probe_of(features.take(~out), logits.shape[1])
        logits[out] = probe(features.views[:, out]).mean(0)
    return logits


def folds_of(labels, groups, seed, most=FOLDS):
    """Return masks (N,) of the photographs that each fold leaves out; groups stay together.

    Raises InputError where there are not two groups, or no class has two photographs.
    """
    folds = min(most, len(np.unique(groups)), int(np.bincount(labels).max()))
    if folds < 2:
        raise InputError("too few photographs for cross-validation: one class at least needs two, "
                         "and there must be two groups; add photographs")
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=numpy_seed(seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer photographs than folds
        return [np.isin(np.arange(len(labels)), out)
                for _, out in splitter.split(labels, labels, groups)]


def statistics_of(features, background=None):
    """Return what `fit_statistics` does, with a linear probe if there is a background (V, M, D)."""
    if background is None:
        return fit_statistics(features.views[0], features.labels)
    known, codes = np.unique(features.labels, return_inverse=True)
    both = Features(np.concatenate([features.views, background], 1),
                    np.append(codes, np.full(background.shape[1], len(known))), None)
    weight, bias = fit_probe(both, len(known) + 1)
    return fit_statistics(features.views[0], features.labels, background[0],
                          np.concatenate([bias[:, None], weight], 1))


def probe_of(features, num_classes):
    """Return a function, views (V, N, D) -> logits (V, N, K), of a linear probe on `features`."""
    weight, bias = fit_probe(features, num_classes)
    return lambda views: views @ weight.T + bias


def fit_probe(features, num_classes):
    """Return the weight (K, D) and bias (K,) of a linear probe on `features`, as arrays."""
    rows = torch.from_numpy(features.views.reshape(-1, features.views.shape[-1]))
    labels = torch.from_numpy(np.tile(features.labels, len(features.views)))
    mean, scale = rows.mean(0), scale_of(rows)
    start = torch.zeros(num_classes, rows.shape[1]), torch.zeros(num_classes)
    weight, bias, _ = fit_linear((rows - mean) / scale, labels, *start,
                                 torch.nn.CrossEntropyLoss(), DECAY)
    weight = weight / scale
    return weight.numpy(), (bias - weight @ mean).numpy()


# ---- unknown plants ----

def leave_classes_out(features, taxa, seed, background=None):
    """Return the checkpoint's `unknown`: how many photographs of unknown plants would be named.

    In turn each class is left out, of more than ten a fifth at once: a linear probe is fitted to
    the others, and the photographs of those left out are answered. None with fewer than 3 classes,
    or with so few photographs that none are left to set the limits.
    """
    known = np.unique(features.labels)
    if len(known) < 3:
        return None
    order = np.random.default_rng(numpy_seed(seed)).permutation(known)
    count = len(known) if len(known) <= 2 * FOLDS else FOLDS
    folds = folds_of(features.labels, features.groups, seed)
    named = [count_named(features, np.isin(features.labels, order[turn::count]),
                         folds[turn % len(folds)], taxa, background) for turn in range(count)]
    return None if None in named else {
            "named": sum(named) / len(features.labels), "photographs": len(features.labels),
            "max_risk": UNKNOWN_RISK}


def count_named(features, unknown, held, taxa, background):
    """Return how many photographs marked `unknown` (N,) a probe without their classes names.

    Of the others, those marked `held` (N,) set temperature and limits, the rest fits the probe.
    Returns None if no photograph is left to set the limits.
    """
    rest, val = features.take(~unknown & ~held), features.take(~unknown & held)
    names, codes = np.unique(rest.labels, return_inverse=True)
    val = val.take(np.isin(val.labels, names))
    if not len(val.labels):
        return None
    val_labels = np.searchsorted(names, val.labels)
    inner = {rank: column[names] for rank, column in taxa.items()}
    predict = probe_of(rest._replace(labels=codes), len(names))
    val_logits, logits = (predict(views).mean(0)
                          for views in (val.views, features.views[:, unknown]))
    statistics = statistics_of(rest, background)
    entry, scores = set_threshold(statistics, score_parts(statistics, val.views))
    temperature, answers = fit_answers(np.column_stack([val_logits, scores]), val_labels, inner,
                                       entry["threshold"], "")
    entries = {"temperature": temperature, "answers": answers, "out_of_distribution": entry}
    answers = answer(features.views[:, unknown], logits, entries, inner)
    return int(np.sum(answers.ranks == "species"))
