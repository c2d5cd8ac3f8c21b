"""How many out-of-distribution photographs are rejected where 95 % of the known are accepted.

    python benchmarks/out_of_distribution.py --photos DIR --weights FILE --seeds 3 --others DIR
    figure ood_accepted_known 0.9574 fraction target >= 0.9 met

Each third of the classes in DIR is held out in turn; train.py fine-tunes MobileNetV3-Small on the
others with the settings of config.py except the epochs. A quarter of each known class is the test
set. Out-of-distribution are the held-out classes, drawn flowers, and the images of --others
(folders, separated by commas). Thresholds are set on the validation photographs, that
of the score in use by train.py, out of fold; "formats 1 and 2" is the score before. Finished runs
are not trained again.
"""
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sklearn.metrics import roc_auc_score

import config
from benchmarks.common import parse, run_script, state
from dataset import read_labels, split_validation
from evaluation.calibration import probabilities, threshold_at
from evaluation.out_of_distribution import fit_statistics
from evaluation.predictor import load_pytorch
from images import BadImage, View, evaluation_view, open_image
from model import head_name
from predict import find_photos, read_view
from quickstart_flora.kinds import KINDS
from quickstart_flora.photographs import photograph
from utils import pick_groups, read_classes, write_table

FOLDS = 3


def main(argv=None):
    flags = parse(__doc__, argv, epochs=8, others="", model="mobilenet_v3_small", image_size=224)
    work = flags.work / "out_of_distribution"
    draw_flowers(work / "drawn", count=50)
    others = {"drawn": build_pictures([str(work / "drawn")])}
    if flags.others:
        others["others"] = build_pictures(flags.others.split(","))
    print(", ".join(f"{len(paths)} {kind}" for kind, paths in others.items()))
    seeds = [defaultdict(list) for _ in range(flags.seeds)]
    for seed, results in enumerate(seeds):
        for fold in range(FOLDS):
            for key, value in measure_fold(train_fold(seed, fold, flags, work), others).items():
                results[key].append(value)
    means = [{key: statistics.mean(values) for key, values in results.items()} for results in seeds]
    spread = {}
    for key in means[0]:
        values = [mean[key] for mean in means]
        spread[key] = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    print_table(spread)
    kinds = sorted({key[1] for key in spread if key[2] == "rejected"})
    best = {kind: max(spread[score, kind, "rejected"][0] for score in SCORES) for kind in kinds}
    accepted = spread["in use", "test", "accepted"][0]
    gain = [spread[score, "held out", "rejected"][0] for score in ("in use", "formats 1 and 2")]
    behind = {kind: best[kind] - spread["in use", kind, "rejected"][0] for kind in kinds}
    return state([("ood_accepted_known", accepted, "fraction", ">=", 0.9),
                  *((f"ood_{kind.replace(' ', '_')}_behind_best", behind[kind], "fraction", "<=",
                     0.05) for kind in kinds),
                  ("ood_held_out_gain", gain[0] - gain[1], "fraction", ">=", 0.1)])


def draw_flowers(folder, count):
    """Draw images of an invented flora into a folder, except those it already has."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(list(folder.iterdir())), count):
        picture = photograph(list(KINDS)[i % len(KINDS)], np.random.default_rng(i))
        picture.save(folder / f"{i:03}.png")


def build_pictures(folders, side=64):
    """Return the paths of the distinct images in the folders, of at least `side` x `side`."""
    distinct = {}
    for path in find_photos(folders):
        try:
            image, size = open_image(path, config.MAX_MEGAPIXELS)
            if min(size) >= side:
                distinct.setdefault(evaluation_view(image, View(side)).tobytes(), path)
        except BadImage:
            continue
    return sorted(distinct.values())


def train_fold(seed, fold, flags, work):
    """Train on the classes that this fold does not hold out; return settings to predict with."""
    folder = work / f"seed{seed}fold{fold}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "photos").exists():
        (folder / "photos").symlink_to(flags.photos.resolve())
    names = sorted(path.name for path in flags.photos.iterdir() if path.is_dir())
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    known = [name for rank, name in zip(order, names, strict=True) if rank % FOLDS != fold]
    write_table(folder / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(known)])
    rows = {"train": [], "test": []}
    for label, name in enumerate(known):
        files = {path.name: 1 for path in (flags.photos / name).iterdir()}
        test = pick_groups(files, len(files) // 4, seed)
        for file in sorted(files):
            rows["test" if file in test else "train"].append(
                {"path": f"photos/{name}/{file}", "label": label, "group": f"{name}/{file}"})
    for side in rows:
        write_table(folder / f"{side}_labels.csv", ("path", "label", "group"), rows[side])
    print(run_script("train.py", "--class_table", folder / "classes.csv", "--dataset_dir", folder,
                     "--model", flags.model, "--initial_weights", flags.weights,
                     "--num_epochs", flags.epochs, "--image_size", flags.image_size,
                     "--batch_size", 32, "--num_workers", 0,
                     "--seed", seed, "--split_seed", seed, "--run", "run",
                     "--checkpoints_dir", folder, "--runs_dir", folder), flush=True)
    return config.namespace(checkpoint=str(folder / "run/plants_model.pth.tar"),
                            class_table=folder / "classes.csv", dataset_dir=folder, split_seed=seed)


def measure_fold(s, others):
    """Return {(score, kind of photograph, what): value} of one trained network."""
    classes = read_classes(s.class_table)
    train, val = split_validation(read_labels(s.dataset_dir / "train_labels.csv", classes), classes,
                                  s.validation_share, s.split_seed)
    test = read_labels(s.dataset_dir / "test_labels.csv", classes)
    known = {row.latin for row in classes}
    held_out = sorted(str(path) for folder in (s.dataset_dir / "photos").iterdir()
                      if folder.name not in known for path in folder.iterdir())
    predictor = load_pytorch(s)
    photos = {"train": train["path"], "val": val["path"], "test": test["path"],
              "held out": held_out, **others}
    outputs = {kind: run_network(predictor, paths, s) for kind, paths in photos.items()}
    fitted = fit_features(outputs["train"][1], train["label"].to_numpy())
    values = {}
    for name in (*SCORES, "formats 1 and 2"):
        if name in SCORES:
            scores = {kind: SCORES[name](*arrays, fitted) for kind, arrays in outputs.items()}
        else:  # both parts with the same spread over the validation photographs
            cosine, logit = ({kind: SCORES[part](*arrays, fitted)
                              for kind, arrays in outputs.items()}
                             for part in ("cosine to class mean", "max logit / |features|"))
            weight = cosine["val"].std() / logit["val"].std()
            scores = {kind: cosine[kind] + weight * logit[kind] for kind in outputs}
        threshold = predictor.ood_threshold if name == "in use" else threshold_at(scores["val"])
        values[name, "test", "accepted"] = np.mean(scores["test"] >= threshold)
        for kind in ("held out", *others):
            values[name, kind, "rejected"] = np.mean(scores[kind] < threshold_at(scores["test"]))
            values[name, kind, "by validation"] = np.mean(scores[kind] < threshold)
            is_known = np.repeat([1, 0], (len(scores["test"]), len(scores[kind])))
            values[name, kind, "AUROC"] = roc_auc_score(
                is_known, np.r_[scores["test"], scores[kind]])
    return {key: float(value) for key, value in values.items()}


@torch.inference_mode()
def run_network(predictor, paths, s):
    """Return logits (N, K), features (N, F) before the last layer and the network's score (N,)."""
    views = [read_view(path, predictor.view, s) for path in paths]
    features, layer = [], predictor.network.model.get_submodule(head_name(predictor.network.model))
    hook = layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].numpy()))
    outputs = np.concatenate([predictor.outputs(np.stack(views[i:i + 32]))
                              for i in range(0, len(views), 32)])
    hook.remove()
    return outputs[:, :-1], np.concatenate(features), outputs[:, -1]


# ---- scores, high = known: (logits, features, the network's score, fit_features()) -> (N,) ----

def fit_features(features, labels):
    """Return unit-length features, class means, inverse of the shrunk within-class covariance.

    And the mean of all features, and the matrix that whitens them within the classes.
    """
    means = np.stack([features[labels == label].mean(0) for label in range(labels.max() + 1)])
    covariance = np.cov(features - means[labels], rowvar=False)
    variance = np.trace(covariance) / len(covariance)
    shrunk = 0.9 * covariance + 0.1 * variance * np.eye(len(covariance))
    statistics = fit_statistics(features, labels)
    return (unit(features), means, np.linalg.inv(shrunk), features.mean(0),
            statistics["whitening"].numpy())


def unit(rows):
    """Return rows scaled to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def whitened_cosine(features, center, whitening, means):
    """Return the cosine to the nearest class mean of features whitened within the classes, (N,)."""
    return (unit((features - center) @ whitening) @ unit((means - center) @ whitening).T).max(1)


def mahalanobis(features, means, inverse):
    """Return the smallest squared Mahalanobis distance to a class mean (Lee et al., 2018), (N,)."""
    differences = features[:, None] - means
    return np.einsum("nkf,nkf->nk", differences @ inverse, differences).min(1)


SCORES = {
    "in use": lambda logits, features, score, fitted: score,
    "max probability": lambda logits, features, score, fitted: probabilities(logits).max(1),
    "max logit": lambda logits, features, score, fitted: logits.max(1),
    "energy": lambda logits, features, score, fitted: np.log(np.exp(logits.astype(float)).sum(1)),
    "max - mean logit": lambda logits, features, score, fitted: logits.max(1) - logits.mean(1),
    "max logit / |features|": lambda logits, features, score, fitted: (
        logits.max(1) / np.linalg.norm(features, axis=1)),
    "cosine to class mean": lambda logits, features, score, fitted: (
        unit(features) @ unit(fitted[1]).T).max(1),
    "5th nearest neighbour": lambda logits, features, score, fitted: (
        np.sort(unit(features) @ fitted[0].T, 1)[:, -5]),
    "Mahalanobis": lambda logits, features, score, fitted: -mahalanobis(features, *fitted[1:3]),
    "whitened cosine": lambda logits, features, score, fitted: (
        whitened_cosine(features, *fitted[3:], fitted[1])),
}


def print_table(spread):
    """Print mean and standard deviation over the seeds, a row per score and kind of image."""
    print(f"{'score':22}  {'images':9}  AUROC          rejected at 95 %  by validation  "
          "known accepted")
    for score, kind, what in spread:
        if what == "AUROC":
            cells = [spread[score, kind, key] for key in ("AUROC", "rejected", "by validation")]
            cells.append(spread[score, "test", "accepted"])
            numbers = "  ".join(f"{mean:.3f} +- {std:.3f}" for mean, std in cells)
            print(f"{score:22}  {kind:9}  {numbers}")


if __name__ == "__main__":
    sys.exit(main())
