"""What cleaning knows of the photographs: the rows that labelling starts from."""
from dataset_preparation.cleaning.cleaned_table import read_cleaned_table
from dataset_preparation.cleaning.duplicate_pairs import TABLE as PAIRS
from utils import InputError, class_of_folder, warn

# Of cleaned.csv; tables of earlier versions lack some.
COLUMNS = ("file", "class", "label_class", "sha256", "status", "group", "camera", "taken")


def require_cleaned(cleaned):
    """Return the path of cleaned.csv; raise InputError unless cleaning has finished there."""
    table = cleaned / "cleaned.csv"
    if not table.is_file():
        raise InputError(f"{table} does not exist; run dataset_preparation/cleaning/cleaning.py "
                         "first")
    if table.with_name("cleaned.csv.journal").exists():
        raise InputError(f"{cleaned}: cleaning was interrupted; run "
                         "dataset_preparation/cleaning/cleaning.py again")
    if not (cleaned / PAIRS).is_file():
        raise InputError(f"{cleaned / PAIRS} does not exist; run "
                         "dataset_preparation/cleaning/cleaning.py again: this version lists there "
                         "which photographs must stay on one side")
    return table


def warn_of_other_collected(cleaned, collected):
    """Warn where not one file that was cleaned is in the folder of collected photographs."""
    rows = read_cleaned_table(cleaned / "cleaned.csv", ("file",))
    if not any((collected / "images" / row["file"]).is_file() for row in rows):
        warn(f"none of the photographs of {cleaned} are in {collected / 'images'}: licences, "
             "pages, observers and corrections are not known, so photographs of one plant can "
             "part; --collected_dir names the folder that was cleaned")


def read_cleaned(cleaned, classes):
    """Return (kept photographs and duplicates, those under several names, all files).

    Those under several names wait until a person decides. `kept` says whether the cleaned
    photograph `source` is to be published, `doubtful` whether the label is in doubt, see `judge`.
    All files are (label, file) of every status.
    """
    table = require_cleaned(cleaned)
    rows, waiting, unknown, gone, files = [], [], set(), [], []
    columns = ("file", "label_class", "sha256", "status", "group")
    for row in read_cleaned_table(table, columns):
        of_class = find_class(row, classes)
        if of_class is None:
            unknown.add(row["label_class"])
            continue
        files.append((of_class.label, row["file"]))
        if row["status"] == "rejected":
            continue
        folder = "images" if row["status"] == "kept" else "others"
        source = f"{folder}/{row['label_class']}/{row['sha256'][:16]}.jpg"
        kept = row["status"] == "kept" and (cleaned / source).is_file()
        if row["status"] == "kept" and not kept:
            gone.append(source)
        some = waiting if row["status"] == "review" else rows
        some.append({**{name: row.get(name, "") for name in COLUMNS}, "label": of_class.label,
                     "latin": of_class.latin, "source": source, "kept": kept,
                     "doubtful": judge(row)})
    warn_of_left_out(unknown, gone, table)
    return rows, waiting, files


def judge(row):
    """Return whether the label of a row of cleaned.csv is in doubt: yes, no, or "" if not judged.

    A label that a person decided on is not in doubt.
    """
    if not row.get("label_score"):
        return ""
    return "yes" if "label" in row.get("suspected", "").split(", ") else "no"


def warn_of_left_out(unknown, gone, table):
    """Warn of classes that are not in use and of photographs that are gone."""
    if unknown:
        more = ", ..." if len(unknown) > 5 else ""
        warn(f"left out {len(unknown)} classes that are not in use: "
             f"{', '.join(sorted(unknown)[:5])}{more}")
    if gone:
        warn(f"{len(gone)} photographs of {table} are gone and are left out "
             f"({table.parent / gone[0]}); run cleaning again to restore them")


def find_class(row, classes):
    """Return the `PlantClass` of a row of cleaned.csv, or None where it is not in use.

    That is the class with its `label`, unless the class table has changed since or the table has
    no such column yet: then it is looked up by name.
    """
    number = row.get("label", "")
    if number.isdecimal() and int(number) < len(classes):
        of_class = classes[int(number)]
        if of_class.latin == row["label_class"]:
            return of_class
    return class_of_folder(row["label_class"], classes)
