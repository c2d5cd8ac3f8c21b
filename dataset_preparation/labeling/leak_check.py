"""The check of a dataset that is already split: data leakage, and a `group` column."""
from dataset_preparation.cleaning.near_duplicates import pair_equal
from dataset_preparation.known_files import TABLE, KnownFiles, write_known_files
from dataset_preparation.labeling.groups import join_groups
from dataset_preparation.labeling.labeling_utils import (
    SIDES,
    count_lines,
    find_near_and_borderline,
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


def check_dataset(folder, classes, max_megapixels, processes):
    """Write leak_report.txt and the `group` column of the label tables of a dataset.

    Raises InputError where photographs leak from train to test. The tables need `path` and `label`
    only. Groups that they have are kept, and joined where near-duplicates or borderline pairs
    connect them. No
    photograph is moved, and no row is dropped.
    """
    rows = read_rows(folder, classes)
    known_files = KnownFiles(folder, folder / TABLE)
    known = read_photographs(known_files, [row["path"] for row in rows], max_megapixels, processes)
    near, borderline = find_near_and_borderline([one["fingerprint"] for one in known])
    names = [row.get("group") or one["sha256"][:16] for row, one in zip(rows, known, strict=True)]
    groups = join_groups(names, [*near, *borderline, *pair_equal(names)])
    for row, one, group in zip(rows, known, groups, strict=True):
        row.update(sha256=row.get("sha256") or one["sha256"], group=group)

    leaks, lines = report_leaks(rows, [one["sha256"] for one in known], near, borderline)
    lines = [*count_lines(rows, classes), *lines]
    report = folder / "leak_report.txt"
    write_text(report, "\n".join(lines) + "\n")
    print("\n".join(lines))
    write_groups(folder, rows)
    write_known_files(folder, known_files.rows.values())
    print(f"report: {report}")
    if leaks:
        raise InputError(f"data leakage: {leaks} pairs of photographs across train and test, "
                         f"listed in {report}; test results would be too good. Delete the train "
                         f"photographs of these pairs from {folder / 'train_labels.csv'} and check "
                         "again, or clean and label the photographs anew")
    train, test = (sum(row["side"] == side for row in rows) for side in SIDES)
    print(f"checked {len(rows):,} photographs of {len(classes)} classes: {train:,} train, "
          f"{test:,} test, {leaks} leaking pairs (exact duplicates, near-duplicates, borderline "
          "pairs, groups of the tables)")


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
