"""How early the review shows planted label errors and out-of-distribution pictures.

    python benchmarks/label_errors.py --photos DIR --weights FILE --seeds 3 --others DIR,DIR
    figure wrong_labels_in_first_tenth 0.9815 fraction target >= 0.9 met

Per seed two sets are made of DIR (a folder of photographs per class). In one, a twentieth of the
photographs have a wrong label. In the other, one photograph in twenty is out-of-distribution: half
of them of two classes taken out, half drawn flowers and, where given, pictures of --others with 256
pixels a side. cleaning.py, labeling.py, find_label_errors.py and cleaning.py again then run as a
user runs them. Counted are the planted ones among the first of the review's order, which is that of
the column `suspicion`, before and after find_label_errors.py; those that became test photographs
are not scored and count as missed. MobileNetV3-Small; the weights know neither DIR nor the labels.
"""
import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sklearn.metrics import roc_auc_score

import config
from benchmarks.common import parse, run_script, state
from benchmarks.out_of_distribution import build_pictures, draw_flowers
from images import open_image, to_rgb
from settings.scripts import settings_of
from utils import read_table, write_table

SHARE = 0.05
CLEAN = "dataset_preparation/cleaning/cleaning.py"
LABEL = "dataset_preparation/labeling/labeling.py"
FIND = "dataset_preparation/cleaning/find_label_errors.py"


def main(argv=None):
    flags = parse(__doc__, argv, others="", image_size=224)
    work = flags.work / "label_scores"
    draw_flowers(work / "drawn", count=50)
    folders = [str(work / "drawn"), *filter(None, flags.others.split(","))]
    others = [Path(path) for path in build_pictures(folders, side=256)]
    print(f"{len(others)} pictures to plant")
    results = {kind: [measure(plant, seed, others, work / f"{kind}{seed}", flags)
                      for seed in range(flags.seeds)]
               for kind, plant in PLANTS.items()}
    for kind, runs in results.items():
        print(f"{kind}: {', '.join(str(run['planted']) for run in runs)} planted among "
              f"{', '.join(str(run['shown']) for run in runs)}; "
              f"mean, smallest and largest of {flags.seeds} seeds")
        for name in runs[0]:
            values = [run[name] for run in runs]
            print(f"  {name:28} {statistics.mean(values):8.3f} {min(values):8.3f} "
                  f"{max(values):8.3f}")
    means = {kind: {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
             for kind, runs in results.items()}
    wrong, strange = means["wrong_labels"], means["strangers"]
    return state([("wrong_labels_auroc", wrong["auroc of label_score"], "fraction", ">=", 0.95),
                  ("wrong_labels_in_first_twentieth", wrong["in the first 5 %"], "fraction", ">=",
                   0.7),
                  ("wrong_labels_in_first_tenth", wrong["in the first 10 %"], "fraction", ">=",
                   0.9),
                  ("strangers_auroc", strange["auroc of the order"], "fraction", ">=", 0.9),
                  ("strangers_in_first_tenth", strange["in the first 10 %"], "fraction", ">=",
                   0.8)])


# ---- what is planted ----

def plant_wrong_labels(photos, others, rng):
    """Return ([(photograph, class it stands under)], set of places where the class is wrong)."""
    names = sorted(path.name for path in photos.iterdir() if path.is_dir())
    rows = [(path, name) for name in names for path in sorted((photos / name).iterdir())]
    planted = rng.choice(len(rows), round(SHARE * len(rows)), replace=False).tolist()
    for i in planted:
        rows[i] = rows[i][0], rng.choice([name for name in names if name != rows[i][1]])
    return rows, set(planted)


def plant_strangers(photos, others, rng):
    """Return ([(photograph, class it stands under)], set of places of what belongs to no class)."""
    names = sorted(path.name for path in photos.iterdir() if path.is_dir())
    out = sorted(rng.choice(names, 2, replace=False).tolist())
    known = [name for name in names if name not in out]
    rows = [(path, name) for name in known for path in sorted((photos / name).iterdir())]
    half = round(SHARE * len(rows) / 2)
    plants = sorted(path for name in out for path in (photos / name).iterdir())
    chosen = [some[i] for some in (plants, others)
              for i in rng.choice(len(some), half, replace=False)]
    return [*rows, *((path, rng.choice(known))
                     for path in chosen)], set(range(len(rows), len(rows) + 2 * half))


PLANTS = {"wrong_labels": plant_wrong_labels, "strangers": plant_strangers}


# ---- one set ----

def measure(plant, seed, others, folder, flags):
    """Return {what: value} of one set, made anew."""
    planted = make_set(plant, seed, others, folder, flags.photos)
    values = {"class_table": folder / "classes.csv", "collected_dir": folder / "collected",
              "cleaned_dir": folder / "cleaned", "dataset_dir": folder / "dataset",
              "cache_dir": folder / "cache", "split_seed": seed, "seed": seed, "test_per_class": 1,
              "model": "mobilenet_v3_small", "initial_weights": flags.weights,
              "image_size": flags.image_size, "num_workers": 0}
    run_step(CLEAN, values)
    before = review_order(folder)
    print(run_step(LABEL, values))
    began = time.perf_counter()
    print(run_step(FIND, values), flush=True)
    seconds = time.perf_counter() - began
    run_step(CLEAN, values)
    values = {**compare(before, review_order(folder), planted),
              "seconds of find_label_errors.py": seconds}
    print(f"{folder.name}: {values['in the first 10 %']:.3f} of {values['planted']} planted "
          "in the first 10 %", flush=True)
    return values


def make_set(plant, seed, others, folder, photos):
    """Write the collected photographs of one set; return the files that are planted."""
    if folder.exists():
        shutil.rmtree(folder)
    rows, planted = plant(photos, others, np.random.default_rng(seed))
    names, files = sorted({name for _, name in rows}), set()
    for i, (path, name) in enumerate(rows):
        target = folder / f"collected/images/{name}/{i:05}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jpg":
            shutil.copyfile(path, target)
        else:
            to_rgb(open_image(path, config.MAX_MEGAPIXELS)[0]).save(target, quality=92)
        if i in planted:
            files.add(f"{name}/{target.name}")
    write_table(folder / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": label, "latin": name} for label, name in enumerate(names)])
    return files


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


def compare(before, after, planted):
    """Return {what: value} of where the review shows the planted files, without and with scores.

    Those that cleaning found to be copies or no photographs are not counted.
    """
    found, values = np.array([row["file"] in planted for row in after]), {}
    values.update(shown=len(after), planted=int(found.sum()))
    for when, rows in (("before: ", before), ("", after)):
        there = np.array([row["file"] in planted for row in rows])
        values[f"{when}auroc of the order"] = roc_auc_score(there, [float(row["suspicion"])
                                                                    for row in rows])
        for share in (0.05, 0.1):
            first = there[:round(share * len(there))]
            values[f"{when}in the first {100 * share:.0f} %"] = first.sum() / there.sum()
    for word, column in (("label", "label_score"), ("outlier", "outlier_score")):
        judged = [(row["file"] in planted, -float(row[column])) for row in after if row[column]]
        values[f"auroc of {column}"] = roc_auc_score(*zip(*judged, strict=True))
        marked = np.array([word in row["suspected"].split(", ") for row in after])
        values[f"marked {word}: planted"] = marked[found].mean()
        values[f"marked {word}: others"] = marked[~found].mean()
    return values


if __name__ == "__main__":
    sys.exit(main())
