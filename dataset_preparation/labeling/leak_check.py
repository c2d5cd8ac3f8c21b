"""The check of a dataset that is already split: data leakage, and a `group` column."""
from collections import defaultdict
from functools import partial

from dataset_preparation.cleaning.cleaning_utils import map_files
from dataset_preparation.cleaning.duplicate_pairs import KINDS, find_pairs
from dataset_preparation.cleaning.feature_store import FILE, FeatureStore
from dataset_preparation.cleaning.near_duplicates import from_hex, pair_equal
from dataset_preparation.known_files import TABLE, KnownFiles, write_known_files
from dataset_preparation.labeling.groups import join_groups
from dataset_preparation.labeling.labeling_utils import (
    SIDES,
    count_lines,
    read_photographs,
    report_leaks,
)
from utils import (
    InputError,
    aside_path,
    copy_file,
    read_label_rows,
    read_table,
    warn,
    write_table,
    write_text,
)

# Of cleaning by default, whatever rule cleaned this dataset; config.py explains the distances.
RULE = {"hash_distance": 12, "check_distance": 48, "borderline_distance": 88}


def check_dataset(folder, classes, max_megapixels, processes, repair=False):
    """Write leak_report.txt and the `group` column of the label tables of a dataset.

    Raises InputError where photographs leak from train to test, unless `repair` is set: then the
    rows of whole groups move to train. The tables need `path` and `label`
    only. Groups that they have are kept, and joined where near-duplicates or borderline pairs
    connect them. No
    photograph is moved, and no row is dropped.
    """
    rows = read_rows(folder, classes)
    if repair:  # a killed repair leaves photographs in both tables: their rows of train count
        rows = [*{row["path"]: row for row in reversed(rows)}.values()][::-1]
    known_files = KnownFiles(folder, folder / TABLE)
    known, pairs = compare_photographs(folder, rows, known_files, max_megapixels, processes)
    fill_in_groups(rows, known, [pair for _, *pair in pairs])
    moved = move_to_train(rows, classes) if repair else []

    leaks, lines = report_leaks(rows, [one["sha256"] for one in known], pairs)
    lines = [*count_lines(rows, classes), *moved, *lines]
    report = folder / "leak_report.txt"
    write_text(report, "\n".join(lines) + "\n")
    print("\n".join(lines))
    if repair:
        write_repaired(folder, rows)
    else:
        write_groups(folder, rows)
    write_known_files(folder, known_files.rows.values())
    print(f"report: {report}")
    if leaks:
        raise InputError(f"data leakage: {leaks} pairs of photographs across train and test, "
                         f"listed in {report}; test results would be too good. Check "
                         "with --repair to move them to train, group by group, or clean and label "
                         "the photographs anew")
    train, test = (sum(row["side"] == side for row in rows) for side in SIDES)
    print(f"checked {len(rows):,} photographs of {len(classes)} classes: {train:,} train, "
          f"{test:,} test, {leaks} leaking pairs (exact duplicates, {', '.join(KINDS)}, groups of "
          "the tables)")


def compare_photographs(folder, rows, known_files, max_megapixels, processes):
    """Return (what is known of the file of each row, [(kind, i, j)] of pairs of rows)."""
    store = FeatureStore(folder / FILE)
    known = read_photographs(known_files, [row["path"] for row in rows], max_megapixels, processes,
                             store=store)
    contents = [one["sha256"] for one in known]
    pairs = find_pairs(contents, from_hex(one["fingerprint"] for one in known), RULE, store,
                       partial(map_files, processes=processes))
    store.keep_only(contents)
    return known, [(pair.kind, pair.first, pair.second) for pair in pairs]


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


def fill_in_groups(rows, known, pairs):
    """Fill in `sha256` and `group`: that of the table, joined by index pairs and equal contents."""
    names = [row.get("group") or one["sha256"][:16] for row, one in zip(rows, known, strict=True)]
    contents = [row.get("sha256") or one["sha256"] for row, one in zip(rows, known, strict=True)]
    groups = join_groups(names, [*pairs, *pair_equal(names), *pair_equal(contents)])
    for row, sha, group in zip(rows, contents, groups, strict=True):
        row.update(sha256=sha, group=group)


def move_to_train(rows, classes):
    """Give the side train to every group that touches both; return the lines of the report."""
    sides = defaultdict(set)
    for row in rows:
        sides[row["group"]].add(row["side"])
    moved = [row for row in rows if row["side"] == "test" and len(sides[row["group"]]) > 1]
    for row in moved:
        row["side"] = "train"
    tested = {row["label"] for row in rows if row["side"] == "test"}
    untested = [one.latin for one in classes if one.label not in tested]
    return [f"test photographs moved to train: {len(moved)}, of "
            f"{len({row['group'] for row in moved})} groups; their files stay where they are",
            *(f"  {row['path']}: group {row['group']}" for row in moved),
            f"classes without test photographs now: {', '.join(untested) or 'none'}"]


def write_repaired(folder, rows):
    """Write both label tables, train first, so that no photograph is in neither at any time."""
    tables = {side: folder / f"{side}_labels.csv" for side in SIDES}
    columns = list(dict.fromkeys(
        [name for table in tables.values() for name in read_table(table)[0]] + ["group"]))
    for side, table in tables.items():
        of_side = [row for row in rows if row["side"] == side]
        groups = [[(row["path"], row.get("group")) for row in some]
                  for some in (of_side, read_table(table))]
        if groups[0] == groups[1]:
            print(f"{table} is without data leakage already")
            continue
        kept = aside_path(table, folder)
        copy_file(table, kept)
        write_table(table, columns, of_side)
        print(f"wrote {table}; the table as it was: {kept}")


def write_groups(folder, rows):
    """Write the `group` of every row into its label table; keep the table as it was before."""
    for side in SIDES:
        table = folder / f"{side}_labels.csv"
        before, groups = read_table(table), [row["group"] for row in rows if row["side"] == side]
        if [row.get("group") for row in before] == groups:
            print(f"{table} has these groups already")
            continue
        kept = aside_path(table, folder)
        copy_file(table, kept)
        grouped = [{**row, "group": group} for row, group in zip(before, groups, strict=True)]
        write_table(table, list(grouped[0]), grouped)
        print(f"wrote the column 'group' into {table}; the table as it was: {kept}")
