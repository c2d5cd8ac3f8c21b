"""Pack the dataset and a checkpoint for publishing: two archives that download_files.py takes back from any address.

    python pack.py                                         # the newest finished run, else the downloaded checkpoint
    python pack.py --pack dataset --packed_url https://example.org/plants
    packed 685 photographs of 12 classes (13.9 MB) and mobilenet_v3_small (6.2 MB) in data/packed

Writes to `<PACKED_DIR>`: dataset.zip (photographs, label tables, classes.csv, ATTRIBUTION.csv, card), checkpoint.zip
(checkpoint, classes.csv, card), both cards, SHA256SUMS, and settings.txt, the lines of config.py by which others get
both. The same input gives the same bytes. An archive that is there and differs stays, unless `--replace_packed` sets
it aside. The numbers of the model card are those of evaluate.py's report.
"""
import json
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import config
from config import ROOT
from dataset import fingerprint, read_labels
from download_files import require_harmless
from model import restore_model
from training.checkpoints import BEST, find_checkpoint, load_checkpoint
from utils import (
    InputError,
    PlantClass,
    file_sha256,
    progress,
    read_classes,
    read_label_rows,
    read_table,
    run,
    set_aside,
    warn,
    write_table,
    write_text,
)

SIDES = ("train", "test")
TABLES = ("train_labels.csv", "test_labels.csv", "split_report.txt")
ATTRIBUTION = ("path", "latin", "title", "author", "license", "page", "url")
UNKNOWN = "none stated"
TRAINED_ON = {
    True: "Exactly the training photographs of the dataset that was at hand when this was packed.",
    False: "Other photographs than those of the dataset that was at hand when this was packed.",
    None: "Photographs that were not at hand when this was packed."}


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    named = {name.strip() for name in s.pack.split(",")}
    chosen = [name for name in PACKERS if name in named]
    if named - set(chosen):
        raise InputError(f"--pack {s.pack}: it takes dataset, checkpoint or dataset,checkpoint")
    classes, work = read_classes(s.class_table, s.limit_classes), s.packed_dir / "unfinished"
    shutil.rmtree(work, ignore_errors=True)  # of a killed run
    try:
        write_table(work / "classes.csv", PlantClass._fields, [
            {**one._asdict(), "also": ";".join(one.also)} for one in classes])
        rows = attribution(s.dataset_dir, classes, s.collected_dir / "found.csv") if (
            "dataset" in chosen or (s.dataset_dir / "train_labels.csv").is_file()) else []
        parts = [PACKERS[name](work, rows, classes, s) for name in chosen]
        sums = {name: file_sha256(work / f"{name}.zip") for name in chosen}
        lines = settings_lines(sums, work, classes, s)
        write_text(work / "settings.txt", lines)
        write_text(work / "SHA256SUMS", "".join(f"{value}  {name}.zip\n" for name, value in sorted(sums.items())))
        publish(work, s.packed_dir, s.replace_packed)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"others get this with these lines in their config.py ({s.packed_dir / 'settings.txt'}):\n")
    print(lines)
    print(f"packed {' and '.join(parts)} in {s.packed_dir}")


# ---- archives ----

def write_archive(path, members):
    """Write {name: path of a file} as a zip archive; the same members give the same bytes anywhere.

    Members are stored, not deflated: photographs and weights do not shrink, and versions of zlib differ. Raises
    InputError where download_files.py would refuse a member.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "x") as packed:
        for name, source in progress(sorted(members.items()), len(members), f"packing {path.name}"):
            member = zipfile.ZipInfo(name)  # of 1980-01-01
            member.create_system, member.external_attr = 3, 0o100644 << 16  # an ordinary file, on every system
            member.file_size = source.stat().st_size  # lets zipfile choose the form for more than 4 GB
            with open(source, "rb") as file, packed.open(member, "w") as target:
                shutil.copyfileobj(file, target, 1 << 20)
        require_harmless(packed.infolist(), path, float("inf"))


def publish(work, folder, replace):
    """Move finished files to their folder, the sums last; raise InputError where another file stands in the way."""
    names = sorted((path.name for path in work.iterdir()), key=lambda name: (name == "SHA256SUMS", name))
    differing = [name for name in names if (folder / name).exists()
                 and file_sha256(folder / name) != file_sha256(work / name)]
    if differing and not replace:
        raise InputError(f"{folder / differing[0]} is there and differs from what was packed now; --replace_packed "
                         "sets it aside, or name another folder with --packed_dir")
    for name in names:
        if name in differing:
            print(f"{folder / name} is kept as {set_aside(folder / name, folder)}")
        os.replace(work / name, folder / name)


def settings_lines(sums, work, classes, s):
    """Return the lines of config.py that make download_files.py fetch these archives."""
    base = s.packed_url.rstrip("/") or "https://..."
    lines = [line for name, value in sums.items() for line in (
        f'{name.upper()}_URL = "{base}/{name}.zip"', f'{name.upper()}_SHA256 = "{value}"')]
    lines += [f'{name.upper()}_URL = ""' for name in PACKERS if name not in sums]
    size = max((work / f"{name}.zip").stat().st_size for name in sums) / 1e9
    if size > s.max_unpacked_gb:
        lines.append(f"MAX_UNPACKED_GB = {size + 1:.0f}.0")
    if "dataset" in sums and classes != read_classes(ROOT / "data/crimean_plants.csv"):
        lines.append('CLASS_TABLE = ROOT / "data/dataset/classes.csv"')
    return "\n".join(lines) + "\n"


def pack_dataset(work, rows, classes, s):
    """Write dataset.zip and DATASET_CARD.md to `work` and return what was packed, in words."""
    tables = [path for path in map(s.dataset_dir.joinpath, TABLES) if path.is_file()]
    write_table(work / "ATTRIBUTION.csv", ATTRIBUTION, rows)
    write_text(work / "DATASET_CARD.md", dataset_card(rows, classes))
    write_archive(work / "dataset.zip", {
        **{row["path"]: s.dataset_dir / row["path"] for row in rows},
        **{path.name: path for path in tables}, "classes.csv": work / "classes.csv",
        "ATTRIBUTION.csv": work / "ATTRIBUTION.csv", "README.md": work / "DATASET_CARD.md"})
    unknown = sum(row["license"] == UNKNOWN for row in rows)
    if unknown:
        warn(f"{unknown:,} of {len(rows):,} photographs have no licence stated; they belong to their authors, and "
             "publishing them may need their consent (dataset card, ATTRIBUTION.csv)")
    return f"{len(rows):,} photographs of {len(classes)} classes ({megabytes(work / 'dataset.zip')})"


def pack_checkpoint(work, rows, classes, s):
    """Write checkpoint.zip and MODEL_CARD.md to `work` and return what was packed, in words."""
    path = find_checkpoint(s.checkpoint, s.checkpoints_dir)
    checkpoint = load_checkpoint(path)
    model = restore_model(checkpoint, path, [one.latin for one in classes])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report = read_report(s.runs_dir / path.resolve().parent.name / "report.json", path)
    here = trained_here(checkpoint, s.dataset_dir, classes) if rows else None
    write_text(work / "MODEL_CARD.md", model_card(checkpoint, parameters, rows, classes, report, here))
    write_archive(work / "checkpoint.zip", {BEST: path, "classes.csv": work / "classes.csv",
                                            "README.md": work / "MODEL_CARD.md"})
    return f"{checkpoint.get('model', path.name)} ({megabytes(work / 'checkpoint.zip')})"


PACKERS = {"dataset": pack_dataset, "checkpoint": pack_checkpoint}


def megabytes(path):
    """Return the size of a file in words."""
    return f"{path.stat().st_size / 1e6:,.1f} MB"


# ---- facts ----

def attribution(folder, classes, found):
    """Return the rows of ATTRIBUTION.csv, and their side, one per labelled photograph, as the label tables order them.

    Address, author and licence are those of the label tables, title and page those of found.csv, where it is at hand.
    """
    origins = {}
    for row in read_table(found, ("sha256", "title", "page")) if found.is_file() else ():
        origins.setdefault(row["sha256"], row)
    rows = []
    for side in SIDES:
        for row in read_label_rows(folder / f"{side}_labels.csv", classes):
            origin = origins.get(row.get("sha256") or None, {})
            rows.append({**{name: row.get(name) or origin.get(name, "") for name in ATTRIBUTION}, "side": side,
                         "path": str(PurePosixPath(row["path"])), "latin": classes[row["label"]].latin,
                         "license": row.get("license") or UNKNOWN})
    return rows


def trained_here(checkpoint, folder, classes):
    """Return whether the checkpoint was trained on exactly the photographs of this dataset."""
    return fingerprint(read_labels(folder / "train_labels.csv", classes), folder) == checkpoint.get(
        "settings", {}).get("photographs")


def read_report(path, checkpoint):
    """Return evaluate.py's report on a checkpoint file, {} where there is none on this very file."""
    report = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if report.get("checkpoint_sha256") == file_sha256(checkpoint):
        return report
    warn(f"{path} {'is of another checkpoint' if report else 'does not exist'}, so the model card has no numbers; run "
         f"python evaluate.py --checkpoint {checkpoint}")
    return {}


# ---- cards ----

def table(head, rows):
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)


def licences(rows):
    """Return the Markdown that counts licences and says what follows from them."""
    counts = Counter(row["license"] for row in rows)
    unknown = counts[UNKNOWN]
    closed = sum(count for name, count in counts.items() if "-nc" in name.lower())
    lines = [table(("licence", "photographs"), [(name, f"{count:,}") for name, count in counts.most_common()]), ""]
    if unknown:
        lines.append(f"**{unknown:,} of {len(rows):,} photographs have no licence stated.** They belong to their "
                     "authors and are here for research; ask the author before any other use.")
    if closed:
        lines.append(f"{closed:,} photographs may not be used commercially (licences with `nc`).")
    return "\n".join(lines).rstrip()


def dataset_card(rows, classes):
    """Return the dataset card: counts, sources, licences, how it was split, limits (Markdown with Hub metadata)."""
    counts = Counter((row["latin"], row["side"]) for row in rows)
    train, test = (sum(counts[one.latin, side] for one in classes) for side in SIDES)
    hosts = Counter(urlsplit(row["url"]).hostname or "not recorded" for row in rows).most_common()
    shown = [*hosts[:10], *([("others", sum(count for _, count in hosts[10:]))] if hosts[10:] else [])]
    names = [(one.latin, one.russian, one.english, *(f"{counts[one.latin, side]:,}" for side in SIDES))
             for one in classes]
    return f"""---
license: other
task_categories:
- image-classification
---
# Photographs of {len(classes)} kinds of plants

{len(rows):,} photographs: {train:,} for training and validation, {test:,} for the test.

`train_labels.csv` and `test_labels.csv` name every photograph's path and label, and where they are known its group,
address, licence and author; `classes.csv` names the labels; `ATTRIBUTION.csv` credits every photograph.

## Classes

{table(("Latin", "Russian", "English", "train", "test"), names)}

## Where the photographs come from

{table(("host", "photographs"), [(name, f"{count:,}") for name, count in shown])}

## Licences

{licences(rows)}

## Limits

- Nobody has determined every plant: a label is the name the photograph was found under, then cleaned.
- Copies and photographs of one page share a `group`, and a group is never divided between train and test. A table
  without that column makes no such promise.
- Photographs from the web show plants in flower, close and centred, more often than a walk does.
"""


def model_card(checkpoint, parameters, rows, classes, report, here):
    """Return the model card: what it is, numbers of the report, training, licences, limits (Markdown).

    `here` says whether it was trained on the dataset at hand, None where there is none.
    """
    size = checkpoint.get("image_size", "unknown")
    return f"""---
license: other
pipeline_tag: image-classification
library_name: pytorch
---
# {checkpoint.get("model", "A network")} for {len(classes)} kinds of plants

{parameters:,} parameters; photographs of {size} x {size} pixels in, probabilities of {len(classes)} names out
(`classes.csv`). Saved after epoch {checkpoint.get("epoch", "unknown")}.

    python predict.py --checkpoint checkpoints/downloaded/{BEST} photograph.jpg

## How good it is

{numbers(report)}

## Training

{TRAINED_ON[here]}

{training(checkpoint)}

## Licences of the photographs it learned from

{licences([row for row in rows if row["side"] == "train"]) if here else "See the dataset it was trained on."}

## Limits

- It knows {len(classes)} kinds and no other. Shown anything else it may still name one of them with confidence; a
  threshold, where the checkpoint has one, turns most of that away, not all.
- The numbers hold for photographs like those of the test set. Never eat, or treat anybody with, a plant on its word.
"""


def training(checkpoint):
    """Return the Markdown table of the settings a checkpoint was trained with; of a path only the name."""
    settings = {name: Path(value).name if name == "initial_weights" else value for name, value in sorted(
        checkpoint.get("settings", {}).items()) if name not in ("classes", "photographs")}
    return table(("setting", "value"), [(name, f"`{value}`") for name, value in settings.items()]) if settings else (
        "The checkpoint does not say how it was trained.")


def numbers(report):
    """Return the Markdown that states the accuracy on the test set, or that it was not measured."""
    if not report:
        return "**Not measured**: there was no report of `evaluate.py` on this checkpoint when it was packed."
    low, high = report["interval"]
    rows = [("accuracy", f"{report['accuracy']:.2%} (95 % interval {low:.1%} to {high:.1%}, "
                         f"{report['interval_method']})"), ("macro-F1", f"{report['macro_f1']:.3f}"),
            ("cross-entropy", f"{report.get('loss_after', report['loss']):.4f} nats"),
            ("photographs", f"{report['photographs']:,}"),
            ("independent groups", f"{report['groups']:,}"), ("mirrored view", report["flip_tta"]),
            ("code", report["commit"])]
    return f"Measured once by `evaluate.py`, on test photographs it was not chosen by:\n\n{table(('', ''), rows)}"


if __name__ == "__main__":
    run(main)
