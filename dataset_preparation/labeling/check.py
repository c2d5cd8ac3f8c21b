"""The check of a dataset that is already split, such as the published one: leaks, and a `group` column of its own."""
from pathlib import Path

from dataset_preparation.cleaning.copies import equal_pairs
from dataset_preparation.labeling.labeling_utils import (
    SIDES,
    count_lines,
    hash_photographs,
    name_groups,
    near_and_borderline,
    report_leaks,
)
from utils import (
    InputError,
    aside_path,
    class_of_folder,
    copy_file,
    join_groups,
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
    names = [row["given"].get("group") or content[:16] for row, content in zip(rows, contents, strict=True)]
    roots = join_groups(len(rows), [*near, *equal_pairs(names)])
    for row, content, group in zip(rows, contents, name_groups(roots, names), strict=True):
        row.update(sha256=row["given"].get("sha256") or content, group=group)

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
    """Return a row {side, path, label, latin, given} per photograph of both tables; `given` is the row as it stands.

    Raises InputError naming the line of a label that is none, contradicts its folder, or of a photograph that is gone
    or stands there twice. Warns of photographs that are in no table.
    """
    if (folder / "labels.journal").exists():
        raise InputError(f"{folder}: labelling was interrupted; run labeling.py again, without --check, first")
    rows, known = {}, {}
    for side in SIDES:
        table = folder / f"{side}_labels.csv"
        for line, given in enumerate(read_table(table, ("path", "label")), 2):
            path, label = given["path"].replace("\\", "/"), given["label"].strip()
            name = Path(path).parent.name
            own = known.setdefault(name, class_of_folder(name, classes))
            wrong = ("stands there twice; delete one row" if path in rows else
                     "is gone; put it back, or delete the row" if not (folder / path).is_file() else
                     f"has the label {label!r}, none of the class table's 0 to {len(classes) - 1}"
                     if label not in map(str, range(len(classes))) else
                     f"has the label {label}, which contradicts its folder; is this the class table it was made with?"
                     if own and own.label != int(label) else "")
            if wrong:
                raise InputError(f"{table}, line {line}: {path} {wrong}")
            rows[path] = {"side": side, "path": path, "label": int(label), "latin": classes[int(label)].latin,
                          "given": given}
        if not any(row["side"] == side for row in rows.values()):
            raise InputError(f"{table} names no photographs")
    loose = [path for side in SIDES for path in (folder / side).rglob("*.jpg")
             if path.relative_to(folder).as_posix() not in rows]
    if loose:
        warn(f"{len(loose)} photographs in {folder} are in no label table and were not compared, such as {loose[0]}")
    return list(rows.values())


def write_groups(folder, rows):
    """Write the `group` of every row into its label table, unless it stands there; keep a copy of the table before."""
    for side in SIDES:
        table = folder / f"{side}_labels.csv"
        given = [row["given"] for row in rows if row["side"] == side]
        grouped = [{**row["given"], "group": row["group"]} for row in rows if row["side"] == side]
        if grouped == given:
            print(f"{table} has these groups already")
            continue
        kept = aside_path(table, folder)
        copy_file(table, kept)
        write_table(table, list(grouped[0]), grouped)
        print(f"wrote the column 'group' into {table}; the table as it was: {kept}")
