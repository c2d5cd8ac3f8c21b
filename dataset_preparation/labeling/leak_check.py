"""The check of a dataset that is already split: data leakage, and a `group` column."""
from collections import defaultdict
from functools import partial

from dataset_preparation.cleaning.duplicate_pairs import KINDS, find_pairs
from dataset_preparation.cleaning.feature_store import FeatureStore, to_columns
from dataset_preparation.cleaning.inspection import map_files
from dataset_preparation.cleaning.local_features import describe_image
from dataset_preparation.cleaning.near_duplicates import fingerprint, from_hex, pair_equal, to_hex
from dataset_preparation.known_files import KnownFiles, stamp
from dataset_preparation.labeling.groups import join_groups
from dataset_preparation.labeling.split import SIDES, count_lines, report_leaks
from images import open_image, to_rgb
from utils import (
    InputError,
    aside_path,
    copy_file,
    progress,
    read_label_rows,
    read_table,
    sha256,
    warn,
    write_table,
    write_text,
)

# The defaults of cleaning, even if this dataset was cleaned with others; explained in config.py.
RULE = {"hash_distance": 12, "check_distance": 48, "borderline_distance": 88}


def check_dataset(folder, classes, max_megapixels, processes, repair):
    """Write leak_report.txt and the `group` column of the label tables of a dataset.

    The tables need only `path` and `label`; the old tables are kept in set_aside/. Existing groups
    are kept, and joined if near-duplicates or borderline pairs connect them. Raises InputError if
    photographs leak from train to test, unless `repair` is set: then the rows of whole groups move
    to train. No photograph is moved, and no row is dropped.
    """
    rows = read_rows(folder, classes)
    if repair:  # a killed repair leaves photographs in both tables: the rows in train count
        rows = [*{row["path"]: row for row in reversed(rows)}.values()][::-1]
    known_files = KnownFiles(folder)
    pairs = compare_photographs(rows, known_files, max_megapixels, processes)
    contents = [known_files.rows[row["path"]]["sha256"] for row in rows]
    fill_in_groups(rows, contents, [pair for _, *pair in pairs])
    moved = move_to_train(rows, classes) if repair else []

    leaks, lines = report_leaks(rows, contents, pairs)
    lines = [*count_lines(rows, classes), *moved, *lines]
    report = folder / "leak_report.txt"
    write_text(report, "\n".join(lines) + "\n")
    print("\n".join(lines))
    write_groups(folder, rows)
    known_files.write(row["path"] for row in rows)
    print(f"report: {report}")
    if leaks:
        raise InputError(f"data leakage: {leaks} pairs of photographs across train and test, "
                         f"listed in {report}; test results would be too good. Add --repair to "
                         "move whole groups to train, or clean and label the photographs again")
    train, test = (sum(row["side"] == side for row in rows) for side in SIDES)
    print(f"checked {len(rows):,} photographs of {len(classes)} classes: {train:,} train, "
          f"{test:,} test, {leaks} leaking pairs (exact duplicates, {', '.join(KINDS)}, groups of "
          "the tables)")


def read_rows(folder, classes):
    """Return the rows of both tables with `side` and `latin`; warn of files that are in neither."""
    rows = [{**row, "side": side, "latin": classes[row["label"]].latin}
            for side in SIDES for row in read_label_rows(folder / f"{side}_labels.csv", classes)]
    listed = {row["path"] for row in rows}
    unlisted = [path for side in SIDES for path in (folder / side).rglob("*.jpg")
                if path.relative_to(folder).as_posix() not in listed]
    if unlisted:
        warn(f"{len(unlisted)} photographs in {folder} are in no label table and were not "
             f"compared, such as {unlisted[0]}")
    return rows


# ---- the photographs ----

def compare_photographs(rows, known_files, max_megapixels, processes):
    """Return [(kind, i, j)] of pairs of rows; adds their files to `known_files`."""
    store = FeatureStore(known_files.folder)
    read_photographs([row["path"] for row in rows], known_files, store, max_megapixels, processes)
    known = [known_files.rows[row["path"]] for row in rows]
    contents = [row["sha256"] for row in known]
    pairs = find_pairs(contents, from_hex(row["fingerprint"] for row in known), RULE, store,
                       partial(map_files, processes=processes))
    store.keep_only(contents)
    return [(pair.kind, pair.first, pair.second) for pair in pairs]


def read_photographs(paths, known_files, store, max_megapixels, processes):
    """Store SHA-256, fingerprint and features of the photographs that are new or changed."""
    new = {}
    for path in paths:
        row = known_files.find(path)
        if not (row and row["fingerprint"] and row["sha256"] in store.described):
            new[path] = stamp(known_files.folder / path)
    jobs = [(known_files.folder / path, max_megapixels) for path in new]
    results = map_files(read_photograph, jobs, processes, ("crashes its decoder", "", None))
    for path, ((file, _), (content, looks, features)) in zip(
            new, progress(results, len(jobs), "reading"), strict=True):
        if not looks:
            raise InputError(f"{file}: {content}; delete it and its row, or replace it")
        known_files.note(path, content, looks, new[path])
        store.add(content, features)
        store.save()


def read_photograph(file, max_megapixels):
    """Return (SHA-256, fingerprint, features) of a picture, (reason, "", None) of another file."""
    try:
        data = file.read_bytes()
        image = to_rgb(open_image(data, max_megapixels)[0])
        return sha256(data), to_hex(fingerprint(image)), to_columns(describe_image(image))
    except (InputError, OSError) as error:
        return str(error), "", None


# ---- groups ----

def fill_in_groups(rows, contents, pairs):
    """Fill in `sha256` and `group`: those of the table, joined by pairs and equal contents."""
    names = [row.get("group") or content[:16]
             for row, content in zip(rows, contents, strict=True)]
    originals = [row.get("sha256") or content for row, content in zip(rows, contents, strict=True)]
    groups = join_groups(names, [*pairs, *pair_equal(names), *pair_equal(originals)])
    for row, original, group in zip(rows, originals, groups, strict=True):
        row.update(sha256=original, group=group)


def move_to_train(rows, classes):
    """Move groups that are on both sides to train; return the lines of the report."""
    sides = defaultdict(set)
    for row in rows:
        sides[row["group"]].add(row["side"])
    moved = [row for row in rows if row["side"] == "test" and len(sides[row["group"]]) > 1]
    for row in moved:
        row["side"] = "train"
    tested = {row["label"] for row in rows if row["side"] == "test"}
    untested = [plant.latin for plant in classes if plant.label not in tested]
    return [f"test photographs moved to train: {len(moved)}, of "
            f"{len({row['group'] for row in moved})} groups; their files stay where they are",
            *(f"  {row['path']}: group {row['group']}" for row in moved),
            f"classes without test photographs now: {', '.join(untested) or 'none'}"]


def write_groups(folder, rows):
    """Write rows with their `group` to both label tables; keep the old tables.

    Train is written first, so that every photograph is always in one of them.
    """
    tables = {side: folder / f"{side}_labels.csv" for side in SIDES}
    before = {side: read_table(table) for side, table in tables.items()}
    columns = list(dict.fromkeys([*before["train"][0], *before["test"][0], "group"]))
    for side, table in tables.items():
        of_side = [row for row in rows if row["side"] == side]
        if [(row["path"], row.get("group")) for row in before[side]] == [
                (row["path"], row["group"]) for row in of_side]:
            print(f"{table} has these groups already")
            continue
        kept = aside_path(table, folder)
        copy_file(table, kept)
        write_table(table, columns, of_side)
        print(f"wrote {table}, with the column 'group'; the table as it was: {kept}")
