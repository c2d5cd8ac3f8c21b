"""The results of an earlier labelling: sides and names of its photographs, and its settings."""
from dataset_preparation.cleaning.decisions import former_names
from dataset_preparation.labeling.split import SIDES, published_number
from names import look, slug
from utils import InputError, read_table, warn, write_table

FORMER = "former_labels.csv"  # rows, with `side`, of photographs that left the label tables
SETTINGS_TABLE = "split_settings.csv"  # settings of the first split
SETTINGS = ("split_seed", "test_per_class")


def read_labelled(folder, classes):
    """Return {(side, latin, SHA-256): row} of the tables that an earlier run wrote.

    The train table is read last, as its rows win: a killed run may have moved a photograph to train
    and left it in the test table. If a class was renamed (its old name is in `also`), its
    photographs are returned under the new name, with their number.
    """
    renamed, found = former_names(classes), []
    for name in (FORMER, "test_labels.csv", "train_labels.csv"):
        table = folder / name
        for row in read_table(table) if table.is_file() else ():
            side = row.get("side") if name == FORMER else name.partition("_")[0]
            if not (row.get("sha256") and row.get("latin") and side in SIDES):
                raise InputError(f"{table} was not written by this script; name another folder "
                                 "with --dataset_dir")
            found.append((row, side, renamed.get(look(row["latin"]), row["latin"])))
    # of two classes that became one, those of the name that stays keep their paths
    taken, earlier = {row["path"] for row, _, latin in found if latin == row["latin"]}, {}
    for row, side, latin in found:
        path = rename_path(row, side, latin, taken) if latin != row["latin"] else row["path"]
        taken.add(path)
        earlier[side, latin, row["sha256"]] = {**row, "side": side, "latin": latin, "path": path}
    return earlier


def rename_path(row, side, latin, taken):
    """Return the published path of a photograph whose class is now called `latin`."""
    number = published_number(row["path"].split("/")[-1], row["latin"], side) or 1
    while (path := f"{side}/{latin}/{slug(latin)}_{side}_{number}.jpg") in taken:
        number += 1
    return path


def warn_of_ignored_settings(folder, s):
    """Warn if a setting differs from that of the first split.

    Without label tables there is no earlier split, so the settings are written as those of the
    first.
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
        warn(f"{', '.join(changed)}: this applies to new photographs only; those in {folder} keep "
             "their side. To split all of them again, name another --dataset_dir, or move "
             f"train_labels.csv, test_labels.csv and {FORMER} out of {folder} first")
