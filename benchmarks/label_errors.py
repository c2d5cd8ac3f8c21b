"""How early does the review show planted label errors, and is the right name proposed?

    python benchmarks/label_errors.py --photos DIR --weights FILE --seeds 3 --others DIR,DIR
    figure look_alikes_in_first_tenth 0.962 fraction target >= 0.9 met

For every seed, a set of each of --kinds is made from DIR (one folder of photographs per class):

- look_alikes: a twentieth of the photographs get the name of a look-alike, see LOOK_ALIKES
- conflicts: two photographs per class are added again under the name of a look-alike, half of them
  at twice the size
- strangers: a twentieth of the photographs are out-of-distribution: half of them from two classes
  that are left out, half drawn flowers and, if given, pictures of --others with sides of 256 pixels

cleaning.py, find_label_errors.py and labeling.py then run as a user runs them. The figures are the
share of planted photographs among the first of the review, which is sorted by the column
`suspicion`, before and after find_label_errors.py and on each side of the split, and the share of
right proposals. The weights were trained on neither DIR nor its labels.
"""
import io
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sklearn.metrics import roc_auc_score

import config
from benchmarks.common import parse, run_script, state
from images import BadImage, View, evaluation_view, open_image, to_rgb
from predict import find_photos
from quickstart_flora.kinds import KINDS as PLANTS
from quickstart_flora.photographs import photograph
from settings.scripts import settings_of
from utils import read_table, sha256, write_table

SHARE = 0.05
LOOK_ALIKES = (  # of the Oxford flowers, and of poison ivy and what is taken for it
    ("Taraxacum", "Tussilago farfara"), ("Galanthus nivalis", "Convallaria majalis"),
    ("Crocus vernus", "Iris germanica"), ("Leucanthemum vulgare", "Anemone nemorosa"),
    ("Narcissus pseudonarcissus", "Tulipa sylvestris"),
    ("Toxicodendron radicans", "Parthenocissus quinquefolia"),
    ("Toxicodendron radicans", "Acer negundo"),
    ("Toxicodendron radicans", "Toxicodendron rydbergii"),
    ("Toxicodendron diversilobum", "Quercus ilicifolia"),
    ("Toxicodendron pubescens", "Rhus aromatica"),
    ("Toxicodendron rydbergii", "Arisaema triphyllum"))
COPIES = 2  # photographs per class uploaded again under another name
CLEAN = "dataset_preparation/cleaning/cleaning.py"
LABEL = "dataset_preparation/labeling/labeling.py"
FIND = "dataset_preparation/cleaning/find_label_errors.py"
TEST_PER_CLASS = 12


def main(argv=None):
    flags = parse(__doc__, argv, others="", image_size=224, model="mobilenet_v3_small",
                  kinds="look_alikes,conflicts,strangers")
    work, kinds = flags.work / "label_errors", flags.kinds.split(",")
    others = []
    if "strangers" in kinds:
        draw_flowers(work / "drawn", count=50)
        folders = [str(work / "drawn"), *filter(None, flags.others.split(","))]
        others = [Path(path) for path in build_pictures(folders, side=256)]
        print(f"{len(others)} pictures to plant")
    figures = []
    for kind in kinds:
        plant, measure_kind = KINDS[kind]
        runs = [measure(plant, measure_kind, seed, others, work / f"{kind}{seed}", flags)
                for seed in range(flags.seeds)]
        print(f"{kind}: mean, smallest and largest of {flags.seeds} seeds")
        means = {}
        for name in runs[0]:
            values = [run[name] for run in runs]
            means[name] = statistics.mean(values)
            print(f"  {name:28} {means[name]:8.3f} {min(values):8.3f} {max(values):8.3f}",
                  flush=True)
        figures += [(f"{kind}_{name.replace(' ', '_')}", means[name], "fraction", ">=", target)
                    for name, target in TARGETS[kind].items()]
    return state(figures)


# ---- what is planted ----

def look_alikes(photos):
    """Return {class: [classes it is taken for]} of those that a folder has."""
    names, found = {path.name for path in photos.iterdir() if path.is_dir()}, {}
    for pair in LOOK_ALIKES:
        if names >= set(pair):
            for one, other in (pair, pair[::-1]):
                found.setdefault(one, []).append(other)
    return found


def list_rows(photos, names=None):
    """Return [(photograph, class it stands under)] of a folder, sorted."""
    names = names or sorted(path.name for path in photos.iterdir() if path.is_dir())
    return [(path, name) for name in names for path in sorted((photos / name).iterdir())]


def plant_look_alikes(photos, others, rng):
    """Return ([(photograph, class it stands under)], {place planted: true class})."""
    rows, alike, planted = list_rows(photos), look_alikes(photos), {}
    eligible = [i for i, (_, name) in enumerate(rows) if name in alike]
    for i in rng.choice(eligible, round(SHARE * len(rows)), replace=False).tolist():
        path, name = rows[i]
        planted[i], rows[i] = name, (path, str(rng.choice(alike[name])))
    return rows, planted


def plant_conflicts(photos, others, rng):
    """Return the same, planted being photographs uploaded again under the name of a look-alike."""
    rows, planted = list_rows(photos), {}
    for name, wrong in look_alikes(photos).items():
        mine = [path for path, of_class in rows if of_class == name]
        for number, i in enumerate(rng.choice(len(mine), COPIES, replace=False).tolist()):
            planted[len(rows)] = name
            rows.append((again(mine[i], 2 if number % 2 else 1), str(rng.choice(wrong))))
    return rows, planted


def again(path, scale):
    """Return the bytes of a photograph encoded anew, `scale` times as large."""
    image, data = to_rgb(open_image(path, config.MAX_MEGAPIXELS)[0]), io.BytesIO()
    image.resize([scale * side for side in image.size], Image.Resampling.LANCZOS).save(
        data, "JPEG", quality=80)
    return data.getvalue()


def plant_strangers(photos, others, rng):
    """Return the same, planted being what belongs to no class."""
    names = sorted(path.name for path in photos.iterdir() if path.is_dir())
    out = sorted(rng.choice(names, 2, replace=False).tolist())
    known = [name for name in names if name not in out]
    rows = list_rows(photos, known)
    half = round(SHARE * len(rows) / 2)
    plants = sorted(path for name in out for path in (photos / name).iterdir())
    chosen = [some[i] for some in (plants, others)
              for i in rng.choice(len(some), half, replace=False)]
    planted = dict.fromkeys(range(len(rows), len(rows) + 2 * half), "")
    return [*rows, *((path, str(rng.choice(known))) for path in chosen)], planted


# ---- one set ----

def draw_flowers(folder, count):
    """Draw images of an invented flora into a folder, except those it already has."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(list(folder.iterdir())), count):
        picture = photograph(list(PLANTS)[i % len(PLANTS)], np.random.default_rng(i))
        picture.save(folder / f"{i:03}.png")


def build_pictures(folders, side):
    """Return the paths of the distinct images in the folders, of at least `side` x `side`."""
    distinct = {}
    for path in find_photos(folders):
        try:
            image, size = open_image(path, config.MAX_MEGAPIXELS)
        except BadImage:
            continue
        if min(size) >= side:
            distinct.setdefault(evaluation_view(image, View(side)).tobytes(), path)
    return sorted(distinct.values())


def measure(plant, measure_kind, seed, others, folder, flags):
    """Return {what: value} of one set, made anew."""
    planted = make_set(plant, seed, others, folder, flags.photos)
    values = {"class_table": folder / "classes.csv", "collected_dir": folder / "collected",
              "cleaned_dir": folder / "cleaned", "dataset_dir": folder / "dataset",
              "cache_dir": folder.parent / "cache", "split_seed": seed, "seed": seed,
              "test_per_class": TEST_PER_CLASS, "model": flags.model,
              "initial_weights": flags.weights, "image_size": flags.image_size, "num_workers": 0}
    run_step(CLEAN, values)
    before = review_order(folder)
    began = time.perf_counter()
    print(run_step(FIND, values), flush=True)
    seconds = time.perf_counter() - began
    print(run_step(LABEL, values), flush=True)
    return {**measure_kind(before, review_order(folder), planted, sides(folder)),
            "seconds of find_label_errors.py": seconds}


def make_set(plant, seed, others, folder, photos):
    """Write the collected photographs of one set; return {planted file: true class}."""
    if folder.exists():
        shutil.rmtree(folder)
    rows, planted = plant(photos, others, np.random.default_rng(seed))
    names, files = sorted({name for _, name in rows}), {}
    for i, (source, name) in enumerate(rows):
        # No running numbers: those of planted files would make series of the others.
        target = folder / f"collected/images/{name}/{sha256(str(i).encode())[:16]}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            target.write_bytes(source)
        elif source.suffix == ".jpg":
            shutil.copyfile(source, target)
        else:
            target.write_bytes(again(source, 1))
        if i in planted:
            files[f"{name}/{target.name}"] = planted[i]
    write_table(folder / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(names)])
    return files


def sides(folder):
    """Return {SHA-256: train or test} of the label tables."""
    return {row["sha256"]: side for side in ("train", "test")
            for row in read_table(folder / f"dataset/{side}_labels.csv")}


def run_step(script, values):
    """Run a script with those of {setting: value} that it takes; return its last line."""
    taken = {name.lower() for names in settings_of(Path(script).name).values() for name in names}
    return run_script(script, *(word for name, value in values.items() if name in taken
                                for word in (f"--{name}", value)))


def review_order(folder):
    """Return the rows of cleaned.csv that the contact sheets show, in their order."""
    rows = [row for row in read_table(folder / "cleaned/cleaned.csv")
            if row["status"] in ("kept", "review")]
    return sorted(rows, key=lambda row: (-float(row["suspicion"]), row["file"]))


def compare(before, after, planted, side_of):
    """Return {what: value} of where the review shows the planted files, without and with scores.

    Those that cleaning found to be duplicates or no photographs are not counted.
    """
    found = np.array([row["file"] in planted for row in after])
    values = {"shown": len(after), "planted": int(found.sum())}
    for when, rows in (("before: ", before), ("", after)):
        there = np.array([row["file"] in planted for row in rows])
        values[f"{when}auroc"] = roc_auc_score(there, [float(row["suspicion"]) for row in rows])
        for share, name in ((0.05, "twentieth"), (0.1, "tenth")):
            first = there[:round(share * len(there))]
            values[f"{when}in first {name}"] = first.sum() / there.sum()
    first = {row["file"] for row in after[:round(0.1 * len(after))]}
    for side in ("train", "test"):
        mine = {row["file"] for row in after
                if row["file"] in planted and side_of.get(row["sha256"]) == side}
        values[f"in first tenth of {side}"] = len(mine & first) / len(mine)
        values[f"planted in {side}"] = len(mine)
    for word, column in (("label", "label_score"), ("outlier", "outlier_score")):
        judged = [(row["file"] in planted, -float(row[column])) for row in after if row[column]]
        values[f"auroc of {column}"] = roc_auc_score(*zip(*judged, strict=True))
        marked = np.array([word in row["suspected"].split(", ") for row in after])
        values[f"marked {word}: planted"] = marked[found].mean()
        values[f"marked {word}: others"] = marked[~found].mean()
    right = [row["proposal"] == planted[row["file"]] for row in after if row["file"] in planted]
    others = [bool(row["proposal"]) for row in after if row["file"] not in planted]
    return {**values, "proposals right": np.mean(right), "proposals for others": np.mean(others)}


def compare_conflicts(before, after, planted, side_of):
    """Return {what: value} of the proposals for pictures under several names."""
    waiting = [row for row in after if row["file"] in planted and row["status"] == "review"]
    right = sum(row["proposal"] == planted[row["file"]] for row in waiting)
    made = sum(bool(row["proposal"]) for row in waiting)
    others = [row for row in after if row["status"] == "review" and row["file"] not in planted]
    return {"planted": len(planted), "waiting": len(waiting), "their originals": len(others),
            "proposals right": right / len(waiting), "proposals wrong": (made - right)
            / len(waiting), "no proposal": 1 - made / len(waiting),
            "right of those made": right / max(made, 1)}


KINDS = {"look_alikes": (plant_look_alikes, compare), "strangers": (plant_strangers, compare),
         "conflicts": (plant_conflicts, compare_conflicts)}
TARGETS = {"look_alikes": {"auroc": 0.95, "in first tenth": 0.9, "in first tenth of train": 0.9,
                           "in first tenth of test": 0.9, "proposals right": 0.9},
           "conflicts": {"proposals right": 0.9},
           "strangers": {"auroc": 0.9, "in first tenth": 0.8}}


if __name__ == "__main__":
    sys.exit(main())
