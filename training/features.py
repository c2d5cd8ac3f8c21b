"""Features of photographs by a network that was not trained on them, computed once and cached.

Each network, set of weights and view has one cache file, `<CACHE_DIR>/<16 hex digits>.features`,
whose keys are the SHA-256 of photographs. It may be deleted at any time.
"""
import hashlib
import zipfile

import numpy as np
import torch

from dataset import batches, build_eval_loader
from evaluation.inference import collect_logits
from model import build_model, complete_view, head_name, load_initial_weights, without_head
from training.image_cache import view_of
from training.runs import pick_device, stream_seed
from utils import FileLock, atomic_path, progress, warn


def build_features(table, contents, s, images=None):
    """Return features, float32 (N, D), of the photographs of a table with `path`.

    Features are the inputs of the head of MODEL with its INITIAL_WEIGHTS, averaged over each
    photograph and its mirror image. `contents` are the SHA-256 of the files. Only photographs that
    are not in the cache are read, from the image cache `images` if there is one.
    """
    s = complete_view(s)
    torch.manual_seed(stream_seed(s.seed, "weights"))
    model = build_model(s.model, 2)
    message = load_initial_weights(model, s.model, s.initial_weights)[1]
    # as tuples: a checkpoint's settings have lists
    key = identify_features(model, (s.model, view_of(s), tuple(s.mean), tuple(s.std)))
    file = s.cache_dir / f"{key[:16]}.features"
    known = read_features(file, key)
    missing = table.assign(sha256=contents)[[sha not in known for sha in contents]]
    missing = missing.drop_duplicates("sha256").reset_index(drop=True)
    print(f"features of {len(set(contents)) - len(missing):,} photographs are in {file}; "
          f"{len(missing):,} to compute ({message})")
    if len(missing):
        computed = compute_features(model, missing.assign(label=0), s, images)
        known |= dict(zip(missing["sha256"], computed, strict=True))
        keep_features(file, key, known)
    return np.stack([known[sha] for sha in contents])


def identify_features(model, view):
    """Return 64 hex digits that identify a network's weights without the head, and the view."""
    head, digest = head_name(model), hashlib.sha256(repr(view).encode())
    for name, tensor in model.state_dict().items():
        if not name.startswith(f"{head}."):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def compute_features(model, table, s, images):
    """Return the features (N, D) of the photographs of a table with `path` and `label`."""
    device, loader = pick_device(s.device), build_eval_loader(table, s, images)
    images = batches(loader, device, s.mean, s.std)
    with without_head(model):
        return collect_logits(model.to(device), progress(images, len(loader), "features", "batch"),
                              flip_tta=True)[0]


def read_features(file, key):
    """Return {SHA-256: features (D,)} of a cache file, {} if there is none for this key."""
    try:
        with np.load(file) as kept:
            if str(kept["key"]) == key:
                return dict(zip(kept["sha256"].tolist(), kept["features"], strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warn(f"{file} cannot be used ({type(error).__name__}); its features are computed again")
    return {}


def keep_features(file, key, features):
    """Add features to a cache file atomically; warn if it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            features = {**read_features(file, key), **features}  # keep those of other processes
            with atomic_path(file) as temporary, open(temporary, "wb") as stream:
                np.savez(stream, key=key, sha256=list(features),
                         features=np.stack(list(features.values())))
    except OSError as error:
        warn(f"features cannot be kept ({error}); they will be computed again. Name a folder on a "
             "disk with room with --cache_dir")
