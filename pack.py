"""Pack the dataset and a checkpoint for publishing, as two archives for download_files.py.

    python pack.py                         # the newest finished run, else the downloaded checkpoint
    python pack.py --pack dataset --packed_url https://example.org/plants
    packed 685 photographs of 12 classes (13.9 MB) and mobilenet_v3_small (6.2 MB) in data/packed

Writes to `<PACKED_DIR>`: dataset.zip (photographs, label tables, classes.csv, ATTRIBUTION.csv,
card, CITATIONS.md), checkpoint.zip (checkpoint, classes.csv, card), both cards, SHA256SUMS, and
settings.txt with lines for the config.py of people who download them. The same input gives the
same bytes. A different existing archive stops this, unless `--replace_packed` moves it to
set_aside/. Test results come from evaluate.py's report.
"""
import contextlib
import json
import os
import shutil
import zipfile
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from string import Template
from urllib.parse import urlsplit

import config
from config import ROOT

if __name__ == "__main__":
    config.check_usage(__file__, __doc__)  # before imports that take seconds
from dataset import read_labels
from dataset_preparation.feedback import LICENSE
from dataset_preparation.parsing.archives import lock_of, require_harmless
from dataset_preparation.parsing.collected_tables import read_found
from dataset_preparation.parsing.license_filter import NO_LICENSE, write_citations
from evaluation.trained_model import restore_model
from settings.command_line import script_command
from training.checkpoints import BEST, find_checkpoint, load_checkpoint
from training.contents import BY_CONTENT, contents_of, table_fingerprint
from utils import (
    InputError,
    PlantClass,
    file_sha256,
    progress,
    read_classes,
    read_label_rows,
    run,
    set_aside,
    warn,
    write_table,
    write_text,
)

CARDS = ROOT / "docs/cards"  # the templates
SIDES = ("train", "test")
TABLES = ("train_labels.csv", "test_labels.csv", "split_report.txt")
ATTRIBUTION = ("path", "latin", "title", "author", "license", "page", "url")
HOSTS = 10  # on the dataset card; the rest are one row
TRAINING_DATA = {
    True: "Exactly the training photographs of the dataset present when this was packed.",
    False: "Other photographs than those of the dataset present when this was packed.",
    None: "Unknown: no dataset was present when this was packed, or the training did not record "
          "the contents of its photographs."}
OUT_OF_DISTRIBUTION = {
    True: "Its out-of-distribution threshold makes `predict.py` abstain on some of these.",
    False: "It has no out-of-distribution threshold that would make `predict.py` abstain."}


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    chosen = [name for name in PACKERS if name in s.pack.replace(" ", "").split(",")]
    classes = read_classes(s.class_table, s.limit_classes)
    with lock_of(s.packed_dir, f"packs {s.packed_dir}"):
        pack(s, chosen, classes)


def pack(s, chosen, classes):
    """Write what is `chosen`, keys of PACKERS, to the folder of the settings, and say so."""
    work = s.packed_dir / "unfinished"
    shutil.rmtree(work, ignore_errors=True)  # of a killed run
    try:
        write_table(work / "classes.csv", PlantClass._fields, [
            {**plant._asdict(), "also": ";".join(plant.also)} for plant in classes])
        has_dataset = "dataset" in chosen or (s.dataset_dir / "train_labels.csv").is_file()
        found = read_found(s.collected_dir, ("sha256", "title", "page")) if has_dataset else []
        rows = attribution(s.dataset_dir, classes, found) if has_dataset else []
        packed = [PACKERS[name](work, rows, found, classes, s) for name in chosen]
        sums = {name: file_sha256(work / f"{name}.zip") for name in chosen}
        lines = settings_lines(sums, work, classes, s)
        write_text(work / "settings.txt", lines)
        write_text(work / "SHA256SUMS", "".join(
            f"{digest}  {name}.zip\n" for name, digest in sorted(sums.items())))
        move_packed(work, s.packed_dir, s.replace_packed)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # it contains archives
            s.packed_dir.rmdir()
    print(f"To download this, others put these lines into their config.py "
          f"({s.packed_dir / 'settings.txt'}):\n\n{lines}")
    print(f"packed {' and '.join(packed)} in {s.packed_dir}")


# ---- archives ----

def pack_dataset(work, rows, found, classes, s):
    """Write dataset.zip and DATASET_CARD.md to `work`; return a summary of them."""
    if feedback := sum(row["license"] == LICENSE for row in rows):
        raise InputError(f"{feedback} photographs came by feedback and may not be published; run "
                         "labeling.py with --licenses, which leaves them out, or --pack checkpoint")
    write_table(work / "ATTRIBUTION.csv", ATTRIBUTION, rows)
    write_text(work / "DATASET_CARD.md", dataset_card(rows, classes))
    tables = [name for name in TABLES if (s.dataset_dir / name).is_file()]
    names = *tables, *(row["path"] for row in rows)
    packed = {row["sha256"] for row in rows} - {""}
    cited = [row for row in found
             if row["sha256"] in packed and {"source", "license", "time"} <= row.keys()]
    citations = write_citations(work, cited) if cited else []
    write_archive(work / "dataset.zip", {
        **{name: s.dataset_dir / name for name in names}, "classes.csv": work / "classes.csv",
        "ATTRIBUTION.csv": work / "ATTRIBUTION.csv", "README.md": work / "DATASET_CARD.md",
        **{name: work / name for name in citations}})
    unknown = sum(row["license"] == NO_LICENSE for row in rows)
    if unknown:
        warn(f"{unknown:,} of {len(rows):,} photographs have no licence stated; ask their authors "
             "before you publish them (ATTRIBUTION.csv lists them)")
    return (f"{len(rows):,} photographs of {len(classes)} classes "
            f"({megabytes(work / 'dataset.zip')})")


def pack_checkpoint(work, rows, found, classes, s):
    """Write checkpoint.zip and MODEL_CARD.md to `work`; return a summary of them."""
    path = find_checkpoint(s.checkpoint, s.checkpoints_dir)
    checkpoint = load_checkpoint(path)
    model = restore_model(checkpoint, path, [plant.latin for plant in classes])
    report = read_report(s.runs_dir / path.resolve().parent.name / "report.json", path)
    settings, same = checkpoint.get("settings", {}), None
    if rows and settings.get("photographs", "").startswith(BY_CONTENT):
        labels = read_labels(s.dataset_dir / "train_labels.csv", classes)
        labels["content"] = contents_of(labels, s.dataset_dir)
        same = settings["photographs"] == table_fingerprint(labels, s.dataset_dir)
    facts = {
        "model": checkpoint.get("model", "A network"), "classes": len(classes), "file": BEST,
        "parameters": f"{sum(weights.numel() for weights in model.parameters()):,}",
        "image_size": checkpoint.get("image_size", "unknown"),
        "epoch": describe_epoch(checkpoint), "results": results(report),
        "training_data": TRAINING_DATA[same], "settings": settings_table(settings),
        "licences": licences([row for row in rows if row["side"] == "train"]) if same else
        "See the dataset on which it was trained.",
        "out_of_distribution": OUT_OF_DISTRIBUTION[bool(checkpoint.get("out_of_distribution"))]
        + unknown_plants(checkpoint.get("unknown"))}
    write_text(work / "MODEL_CARD.md", fill("model_card.md", facts))
    write_archive(work / "checkpoint.zip", {BEST: path, "classes.csv": work / "classes.csv",
                                            "README.md": work / "MODEL_CARD.md"})
    return f"{checkpoint.get('model', path.name)} ({megabytes(work / 'checkpoint.zip')})"


PACKERS = {"dataset": pack_dataset, "checkpoint": pack_checkpoint}


def write_archive(path, members):
    """Write {name: path of a file} as a zip archive; the same members give the same bytes.

    Members are not compressed: photographs and weights do not shrink, and the bytes would depend
    on the version of zlib. Raises InputError if download_files.py would refuse a member.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "x") as archive:
        label = f"packing {path.name}"
        for name, source in progress(sorted(members.items()), len(members), label):
            member = zipfile.ZipInfo(name)  # dated 1980-01-01
            # A regular file that everybody may read, even if packed on Windows.
            member.create_system, member.external_attr = 3, 0o100644 << 16
            member.file_size = source.stat().st_size  # makes zipfile use ZIP64 above 2 GiB
            with open(source, "rb") as file, archive.open(member, "w") as target:
                shutil.copyfileobj(file, target, 1 << 20)
        require_harmless(archive.infolist(), archive.namelist(), path, float("inf"))


def move_packed(work, folder, replace):
    """Move the finished files to their folder, SHA256SUMS last: it marks the folder as complete.

    Raises InputError if a different file exists there, unless `replace` sets it aside.
    """
    names = sorted((path.name for path in work.iterdir()),
                   key=lambda name: (name == "SHA256SUMS", name))
    differing = [name for name in names if (folder / name).exists()
                 and file_sha256(folder / name) != file_sha256(work / name)]
    if differing and not replace:
        raise InputError(f"{folder / differing[0]} exists and differs from what was packed now; "
                         "set it aside with --replace_packed, or name another --packed_dir")
    for name in names:
        if name in differing:
            print(f"{folder / name} is kept as {set_aside(folder / name, folder)}")
        os.replace(work / name, folder / name)


def settings_lines(sums, work, classes, s):
    """Return the lines of config.py that make download_files.py fetch these archives."""
    base = s.packed_url.rstrip("/") or "https://..."
    lines = [line for name, digest in sums.items() for line in (
        f'{name.upper()}_URL = "{base}/{name}.zip"', f'{name.upper()}_SHA256 = "{digest}"')]
    lines += [f'{name.upper()}_URL = ""' for name in PACKERS if name not in sums]
    size = max((work / f"{name}.zip").stat().st_size for name in sums) / 1e9
    if size > s.max_unpacked_gb:
        lines.append(f"MAX_UNPACKED_GB = {size + 1:.0f}.0")
    if "dataset" in sums and classes != read_classes(ROOT / "data/crimean_plants.csv"):
        lines.append('CLASS_TABLE = ROOT / "data/dataset/classes.csv"')
    return "\n".join(lines) + "\n"


def megabytes(path):
    """Return the size of a file as text."""
    return f"{path.stat().st_size / 1e6:,.1f} MB"


# ---- facts ----

def attribution(folder, classes, found):
    """Return the rows of ATTRIBUTION.csv, with side and group, in the order of the label tables.

    Title, page, and what the label tables lack come from `found`, the rows of found.csv.
    """
    origins = {row[name]: row for name in ("url", "sha256") for row in reversed(found)
               if row.get(name)}
    rows = []
    for side in SIDES:
        for row in read_label_rows(folder / f"{side}_labels.csv", classes):
            # by address where the photograph was changed since it was collected
            origin = origins.get(row.get("sha256")) or origins.get(row.get("url"), {})
            rows.append({**{name: row.get(name) or origin.get(name, "") for name in ATTRIBUTION},
                         "path": str(PurePosixPath(row["path"])), "side": side,
                         "latin": classes[row["label"]].latin, "group": row.get("group", ""),
                         "sha256": row.get("sha256", ""),
                         "license": row.get("license") or NO_LICENSE})
    return rows


def read_report(path, checkpoint):
    """Return evaluate.py's report on exactly this checkpoint file, or {} with a warning."""
    try:
        report = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if not isinstance(report, dict):
            raise ValueError("not a JSON object")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); run evaluate.py again") from None
    if report.get("checkpoint_sha256") == file_sha256(checkpoint):
        return report
    problem = "is about another checkpoint" if report else "does not exist"
    warn(f"{path} {problem}, so the model card has no test results; run "
         f"{script_command('evaluate.py', '--checkpoint', checkpoint)}")
    return {}


# ---- cards ----

def fill(template, facts):
    """Return a template of `CARDS` with its $names replaced by facts."""
    return Template((CARDS / template).read_text("utf-8")).substitute(facts)


def dataset_card(rows, classes):
    """Return the dataset card as Markdown with the metadata of the Hugging Face Hub."""
    counts = Counter((row["latin"], row["side"]) for row in rows)
    train, test = (sum(row["side"] == side for row in rows) for side in SIDES)
    hosts = Counter(urlsplit(row["url"]).hostname or "not recorded" for row in rows)
    shown = hosts.most_common(HOSTS)
    if len(hosts) > HOSTS:
        shown.append(("others", hosts.total() - sum(count for _, count in shown)))
    return fill("dataset_card.md", {
        "classes": len(classes), "photographs": f"{len(rows):,}", "train": f"{train:,}",
        "test": f"{test:,}", "licences": licences(rows), "split": split_sentences(rows),
        "source_table": table(("host", "photographs"), shown),
        "class_table": table(("Latin", "Russian", "English", *SIDES), [
            (*plant[1:4], *(counts[plant.latin, side] for side in SIDES)) for plant in classes])})


def table(head, rows):
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in line]
             for line in lines]
    return "\n".join(  # a line break in a cell would end the table
        f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in line)} |"
        for line in cells)


def licences(rows):
    """Return the Markdown about the licences: counts and restrictions."""
    counts = Counter(row["license"] for row in rows)
    lines = [table(("licence", "photographs"), counts.most_common())]
    if unstated := counts[NO_LICENSE]:
        lines.append(f"**{unstated:,} of {len(rows):,} photographs have no licence stated.** They "
                     "belong to their authors and are included for research; ask the author before "
                     "any other use.")
    closed = sum(count for name, count in counts.items() if "-nc" in name.lower())
    if closed:
        lines.append(f"{closed:,} photographs must not be used commercially (`nc` licences).")
    return "\n\n".join(lines)


def split_sentences(rows):
    """Return the sentences about the split: by groups, with leakage, or without groups."""
    sides = defaultdict(set)
    for row in rows:
        sides[row["group"]].add(row["side"])
    leaks = sum(len(both) > 1 for group, both in sides.items() if group)
    if "" in sides:
        return ("**No group split**: not every photograph has a group, so near-duplicates may be "
                "split across train and test (data leakage).")
    if leaks:
        return f"**Data leakage**: {leaks:,} of {len(sides):,} groups are in both train and test."
    return (f"A group split. Near-duplicates and photographs from one page share a group; none of "
            f"the {len(sides):,} groups is split across train and test.")


def settings_table(settings):
    """Return the settings of a training as a Markdown table, without paths of this machine."""
    values = {**settings, "initial_weights": Path(settings.get("initial_weights", "")).name}
    rows = [(name, f"`{values[name]}`") for name in sorted(settings)
            if name not in ("classes", "photographs")]
    return table(("setting", "value"), rows) if rows else "Not recorded in the checkpoint."


def describe_epoch(checkpoint):
    """Return the epoch whose weights a checkpoint has, and what they are mixed with."""
    share, epoch = checkpoint.get("metrics", {}).get("tuned_share"), checkpoint.get("epoch", "?")
    return f"{epoch}, {share:.0%} of them, and of the linear probe the rest" if share else epoch


def unknown_plants(unknown):
    """Return the sentence about photographs of unknown plants that would be named."""
    if not unknown or "named" not in unknown:
        return " How many photographs of unknown plants would be named was not measured."
    return (f" Of photographs of plants it does not know, about {unknown['named']:.0%} would be "
            f"named: measured by leaving classes out of {unknown['photographs']:,} training "
            "photographs in turn.")


def results(report):
    """Return the Markdown with the results on the test set, or that they were not measured."""
    if not report:
        return "**Not measured**: there was no report of `evaluate.py` when this was packed."
    low, high = report["interval"]
    return fill("test_results.md", {
        **report, "accuracy": f"{report['accuracy']:.2%}", "low": f"{low:.1%}",
        "high": f"{high:.1%}", "macro_f1": f"{report['macro_f1']:.3f}",
        "loss": f"{report.get('loss_after', report['loss']):.4f}",
        "flip_tta": "on" if report["flip_tta"] else "off"}).rstrip()


if __name__ == "__main__":
    run(main)
