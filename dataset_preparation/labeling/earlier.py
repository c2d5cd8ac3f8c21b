"""What an earlier labelling decided: sides and names of its photographs, and its settings."""
from dataset_preparation.cleaning.decisions import former_names
from dataset_preparation.labeling.split import SIDES, published_number
from names import slug
from utils import InputError, read_table, warn, write_table

FORMER = "former_labels.csv"  # COLUMNS and `side` of photographs that have left the tables
SETTINGS_TABLE = "split_settings.csv"  # settings by which the first photographs were split
SETTINGS = ("split_seed", "test_per_class")


def read_earlier(folder, classes):
    """Return {(side, latin, SHA-256): row} of the tables that an earlier run wrote.

    The tables of train come last, as their rows win: a killed run may have moved a photograph to
    train and left it in the table of test. Photographs of a class that was renamed since, its old
    name in `also`, are returned under the new name, with their number.
    """
    renamed, found = former_names(classes), []
    for name in (FORMER, "test_labels.csv", "train_labels.csv"):
        table = folder / name
        for row in read_table(table) if table.is_file() else ():
            side = row.get("side") if name == FORMER else name.partition("_")[0]
            if not (row.get("sha256") and row.get("latin") and side in SIDES):
                raise InputError(f"{table} was not written by this script; name another folder "
                                 "with --dataset_dir")
            found.append((row, side, renamed.get(slug(row["latin"]), row["latin"])))
    # of two classes that became one, those of the name that stays keep their paths
    taken, earlier = {row["path"] for row, _, latin in found if latin == row["latin"]}, {}
    for row, side, latin in found:
        path = rename_path(row, side, latin, taken) if latin != row["latin"] else row["path"]
        taken.add(path)
        earlier[side, latin, row["sha256"]] = {**row, "side": side, "latin": latin, "path": path}
    return earlier


def rename_path(row, side, latin, taken):
    """Return the published path of a photograph whose class is called `latin` now."""
    number = published_number(row["path"].split("/")[-1], row["latin"], side) or 1
    while (path := f"{side}/{latin}/{slug(latin)}_{side}_{number}.jpg") in taken:
        number += 1
    return path


def warn_of_ignored_settings(folder, s):
    """Warn where a setting differs from the one by which the photographs were split.

    Without label tables there is no earlier split: then the settings are noted as those of the
    first split.
    """
    table, now = folder / SETTINGS_TABLE, {name: str(getattr(s, name)) for name in SETTINGS}
    if not table.is_file() or not (folder / "train_labels.csv").is_file():
        write_table(table, ("setting", "value"),
                    [{"setting": name, "value": value} for name, value in now.items()])
        return
    first = {row["setting"]: row["value"] for row in read_table(table, ("setting", "value"))}
    changed = [f"{name} {value} (first split: {first[name]})" for name, value in now.items()
               if first.get(name, value) != value]
    if changed:
        warn(f"{', '.join(changed)}: only photographs that are new follow it; those in "
             f"{folder} keep their side. To split all of them anew, name another --dataset_dir, or "
             f"move train_labels.csv, test_labels.csv and {FORMER} out of {folder} first")
