"""Split the cleaned photographs into train and test and write their label tables.

    python dataset_preparation/labeling/labeling.py
    labelled 13,723 photographs of 50 classes: 12,223 train, 1,500 test, 0 leaks

Reads `<CLEANED_DIR>` (cleaned.csv, images/) and, where it is, `<COLLECTED_DIR>/found.csv` (address, source page,
author, licence). Writes `<DATASET_DIR>/train/<Latin>/<slug>_train_<n>.jpg`, the same for test, `train_labels.csv`,
`test_labels.csv` and `split_report.txt`. Photographs that are copies of each other or come from one page are never
divided; a photograph labelled before keeps its side and its name, and no number is used twice. What is no longer
wanted is moved to `<DATASET_DIR>/set_aside`; the rows that leave the tables, as photographs wait for review or their
class is not in use, go to `former_labels.csv`, so that they come back to their side and name.

    python dataset_preparation/labeling/labeling.py --check data/dataset
    checked 13,723 photographs of 50 classes: 12,223 train, 1,500 test, 0 leaks

checks a dataset that is already split, such as the published one: `leak_report.txt` beside its tables, and a `group`
column in them (the tables as they were are kept in set_aside/). The status is 1 where something leaks.
"""
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config
from dataset_preparation.labeling.labeling_utils import (
    SIDES,
    check_classes,
    count_lines,
    hash_photographs,
    link,
    name_photographs,
    near_and_borderline,
    published_number,
    report_leaks,
    split,
)
from dataset_preparation.labeling.leak_check import check_dataset
from dataset_preparation.progress_journal import Journal
from utils import (
    FileLock,
    InputError,
    class_of_folder,
    copy_file,
    process_count,
    read_classes,
    read_table,
    require_apart,
    run,
    set_aside,
    sha256,
    warn,
    write_table,
    write_text,
)

COLUMNS = ("path", "label", "latin", "group", "sha256", "url", "license", "author")
FORMER = "former_labels.csv"  # COLUMNS and `side` of photographs that have left the tables


def main(argv=None):
    config.override(argv, description=__doc__)
    classes = read_classes(config.CLASS_TABLE, config.LIMIT_CLASSES)
    processes = process_count(config.PROCESSES)
    folder, cleaned = Path(config.CHECK or config.DATASET_DIR), config.CLEANED_DIR
    lock = FileLock(folder / "labels.lock", f"labels in {folder}")
    if config.CHECK:
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist; --check takes the folder of a dataset")
        with lock:
            return check_dataset(folder, classes, processes, config.MAX_MEGAPIXELS)

    require_apart(cleaned / "images", folder / "train", folder / "test", folder / "set_aside")
    folder.mkdir(parents=True, exist_ok=True)
    with lock:
        tables = [path for path in (cleaned / "cleaned.csv", config.COLLECTED_DIR / "found.csv") if path.is_file()]
        journal = Journal(folder / "labels.journal", {
            "inputs": [sha256(path.read_bytes()) for path in tables], "classes": [one.latin for one in classes],
            "test_per_class": config.TEST_PER_CLASS, "seed": config.SPLIT_SEED})
        if not journal.entries:
            journal.append(build_plan(classes, processes))
        rows, moved, former, waiting = (journal.entries[0][part] for part in ("rows", "moved", "former", "waiting"))

        publish(rows, cleaned, folder)
        leaks, lines = check(rows, folder, processes, config.MAX_MEGAPIXELS)
        lines = [*count_lines(rows, classes, config.TEST_PER_CLASS), *moved_lines(rows, moved), *lines,
                 f"left out until review decides, pictures under several names: {waiting}",
                 f"photographs that were in the tables and keep their side in {FORMER}: {len(former)}"]
        write_text(folder / "split_report.txt", "\n".join(lines) + "\n")
        print("\n".join(lines))
        if leaks:
            raise InputError(f"{leaks} leaks from train to test, listed in {folder / 'split_report.txt'}; no label "
                             "table was written")
        if former or (folder / FORMER).is_file():
            write_table(folder / FORMER, ("side", *COLUMNS), former)  # first: a row is always in one of the tables
        for side in SIDES:
            write_table(folder / f"{side}_labels.csv", COLUMNS, [row for row in rows if row["side"] == side])
        clear(rows, classes, folder)
        journal.finish()
        train, test = (sum(row["side"] == side for row in rows) for side in SIDES)
        print(f"labelled {len(rows):,} photographs of {len(classes)} classes: {train:,} train, {test:,} test, "
              f"{leaks} leaks")


def build_plan(classes, processes):
    """Return {"rows": [row of the label tables, with its source], "moved": [group that came to touch both sides],
    "former": [row of FORMER], "waiting": number of photographs left out until review decides on their class}.
    """
    cleaned, folder = config.CLEANED_DIR, config.DATASET_DIR
    rows, waiting = read_cleaned(cleaned, classes)
    origins, pages = read_origins(config.COLLECTED_DIR / "found.csv")
    earlier = read_earlier(folder)
    kept = [i for i, row in enumerate(rows) if row["kept"]]
    known = hash_photographs([cleaned / rows[i]["source"] for i in kept], config.MAX_MEGAPIXELS, processes)
    for i, (content, look) in zip(kept, known, strict=True):
        rows[i].update(content=content, fingerprint=look, **origins.get(rows[i]["sha256"], {}))
    near, _ = near_and_borderline([rows[i]["fingerprint"] for i in kept])
    for row, group in zip(rows, link(rows, pages, [(kept[i], kept[j]) for i, j in near]), strict=True):
        row["group"] = group
    sides, moved = split(rows, {sha: side for side, _, sha in earlier}, config.TEST_PER_CLASS, config.SPLIT_SEED)
    check_classes(rows, sides, classes, cleaned)
    rows = [{**rows[i], "side": sides[rows[i]["group"]]} for i in kept]
    name_photographs(rows, earlier, folder)
    rows.sort(key=lambda row: (row["label"], published_number(Path(row["path"]).name, row["latin"], row["side"])))
    labelled = {row["sha256"] for row in rows}
    former = sorted((row for row in earlier.values() if row["sha256"] not in labelled), key=lambda row: row["path"])
    return {"rows": rows, "moved": moved, "former": former, "waiting": waiting}


def read_cleaned(cleaned, classes):
    """Return (the kept photographs and their copies in cleaned.csv, number of photographs that wait for review).

    `kept` says which ones are to be published.
    """
    table = cleaned / "cleaned.csv"
    if not table.is_file():
        raise InputError(f"{table} does not exist; run dataset_preparation/cleaning/cleaning.py first")
    if table.with_name("cleaned.csv.journal").exists():
        raise InputError(f"{cleaned}: cleaning was interrupted; run dataset_preparation/cleaning/cleaning.py again")
    rows, strange, gone, waiting = [], set(), [], 0
    for row in read_table(table, ("file", "label_class", "sha256", "status", "group")):
        known = class_of_folder(row["label_class"], classes)
        if known is None:
            strange.add(row["label_class"])
        elif row["status"] == "review":
            waiting += 1
        elif row["status"] in ("kept", "copy"):
            source = f"images/{row['label_class']}/{row['sha256'][:16]}.jpg"
            kept = row["status"] == "kept" and (cleaned / source).is_file()
            if row["status"] == "kept" and not kept:
                gone.append(source)
            rows.append({"sha256": row["sha256"], "group": row["group"], "label": known.label, "latin": known.latin,
                         "source": source, "kept": kept})
    if strange:
        warn(f"left out {len(strange)} folders that are no class in use: {', '.join(sorted(strange)[:5])}"
             f"{', ...' * (len(strange) > 5)}")
    if gone:
        warn(f"{len(gone)} photographs of {table} are gone and are left out ({cleaned / gone[0]}); cleaning again "
             "brings them back")
    return rows, waiting


def read_origins(found):
    """Return ({SHA-256: {url, license, author}}, {SHA-256: source pages}) from found.csv, empty where it is not."""
    origins, pages = {}, defaultdict(set)
    for row in read_table(found, ("sha256", "url", "license", "author", "page")) if found.is_file() else ():
        if row["sha256"]:
            origins.setdefault(row["sha256"], {name: row[name] for name in ("url", "license", "author")})
            pages[row["sha256"]] |= {row["page"]} - {""}
    return origins, pages


def read_earlier(folder):
    """Return {(side, latin, SHA-256): row} of the tables an earlier run wrote, the latest word on a photograph last.

    That is train: a killed run may have moved a photograph there and left it in the table of test.
    """
    earlier = {}
    for name in (FORMER, "test_labels.csv", "train_labels.csv"):
        table = folder / name
        for row in read_table(table) if table.is_file() else ():
            side = row.get("side") if name == FORMER else name.partition("_")[0]
            if not (row.get("sha256") and row.get("latin") and side in SIDES):
                raise InputError(f"{table} was not written by this script; name another folder with --dataset_dir")
            earlier[side, row["latin"], row["sha256"]] = {**row, "side": side}
    return earlier


def publish(rows, cleaned, folder):
    """Copy the cleaned photographs to their published names, unless they are there; another one there is set aside."""
    for row in rows:
        source, path = cleaned / row["source"], folder / row["path"]
        if path.is_file():
            if path.read_bytes() == source.read_bytes():
                continue
            set_aside(path, folder)
        copy_file(source, path)


def check(rows, folder, processes, max_megapixels):
    """Return (number of leaks, lines of the report) found by reading the published files."""
    known = {row["content"]: row["fingerprint"] for row in rows}
    hashed = hash_photographs([folder / row["path"] for row in rows], max_megapixels, processes, known)
    contents, looks = zip(*hashed, strict=True)
    return report_leaks(rows, contents, *near_and_borderline(looks))


def moved_lines(rows, moved):
    """Return the lines of the report that name the groups which came to touch both sides."""
    members = defaultdict(list)
    for row in rows:
        members[row["group"]].append(row["path"])
    return [f"groups moved to train because a new photograph joined both sides: {len(moved)}",
            *(f"  {group}: {', '.join(members[group])}" for group in moved)]


def clear(rows, classes, folder):
    """Move published photographs that are in no table to `set_aside`; leave other files alone and say so."""
    wanted, foreign = {folder / row["path"] for row in rows}, []
    for side in SIDES:
        for path in sorted((folder / side).rglob("*")):
            if path in wanted or path.is_dir():
                continue
            known = class_of_folder(path.parent.name, classes)
            if path.suffix == ".tmp":
                path.unlink()  # the half-written copy of a killed run
            elif known and published_number(path.name, known.latin, side) is not None:
                set_aside(path, folder)
            else:
                foreign.append(path)
    if foreign:
        warn(f"{len(foreign)} files in {folder} are in no label table and were left alone, such as {foreign[0]}")


if __name__ == "__main__":
    run(main)
