"""The check of a dataset that is already split, such as the published one: leaks, and a `group` column of its own."""
from dataset_preparation.cleaning.near_duplicates import equal_pairs
from dataset_preparation.labeling.labeling_utils import (
    SIDES,
    count_lines,
    hash_photographs,
    join_groups,
    near_and_borderline,
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


def check_dataset(folder, classes, processes, max_megapixels):
    """Write leak_report.txt and the `group` column of the label tables of a dataset; raise InputError on a leak.

    The tables need `path` and `label` only. Groups they have are kept, and joined where copies connect them. No
    photograph is moved, and no row is dropped.
    """
    rows = read_rows(folder, classes)
    hashed = hash_photographs([folder / row["path"] for row in rows], max_megapixels, processes)
    contents, looks = zip(*hashed, strict=True)
    near, borderline = near_and_borderline(looks)
    names = [row.get("group") or content[:16] for row, content in zip(rows, contents, strict=True)]
    groups = join_groups(names, [*near, *equal_pairs(names)])
    for row, content, group in zip(rows, contents, groups, strict=True):
        row.update(sha256=row.get("sha256") or content, group=group)

    leaks, lines = report_leaks(rows, contents, near, borderline)
    lines = [*count_lines(rows, classes), *lines]
    report = folder / "leak_report.txt"
    write_text(report, "\n".join(lines) + "\n")
    print("\n".join(lines))
    write_groups(folder, rows)
    print(f"report: {report}")
    if leaks:
        raise InputError(f"{leaks} leaks from train to test, listed in {report}: a test would flatter. Take the "
                         f"photographs of these pairs out of {folder / 'train_labels.csv'} and check again, or clean "
                         "and label them anew")
    train, test = (sum(row["side"] == side for row in rows) for side in SIDES)
    print(f"checked {len(rows):,} photographs of {len(classes)} classes: {train:,} train, {test:,} test, 0 leaks")


def read_rows(folder, classes):
    """Return the rows of both tables with their `side` and `latin`; warn of photographs that are in no table."""
    rows = [{**row, "side": side, "latin": classes[row["label"]].latin}
            for side in SIDES for row in read_label_rows(folder / f"{side}_labels.csv", classes)]
    named = {row["path"] for row in rows}
    loose = [path for side in SIDES for path in (folder / side).rglob("*.jpg")
             if path.relative_to(folder).as_posix() not in named]
    if loose:
        warn(f"{len(loose)} photographs in {folder} are in no label table and were not compared, such as {loose[0]}")
    return rows


def write_groups(folder, rows):
    """Write the `group` of every row into its label table, unless it stands there; keep a copy of the table before."""
    for side in SIDES:
        table = folder / f"{side}_labels.csv"
        given, groups = read_table(table), [row["group"] for row in rows if row["side"] == side]
        if [row.get("group") for row in given] == groups:
            print(f"{table} has these groups already")
            continue
        kept = aside_path(table, folder)
        copy_file(table, kept)
        grouped = [{**row, "group": group} for row, group in zip(given, groups, strict=True)]
        write_table(table, list(grouped[0]), grouped)
        print(f"wrote the column 'group' into {table}; the table as it was: {kept}")
