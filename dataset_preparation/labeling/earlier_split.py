"""The results of an earlier labelling: sides and names of its photographs, and its settings."""
from dataset_preparation.cleaning.decisions import former_names
from dataset_preparation.known_files import KnownFiles
from dataset_preparation.labeling.split import SIDES, published_number
from names import present_name, slug
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
            found.append((row, side, present_name(row["latin"], renamed)))
    # of two classes that became one, those of the name that stays keep their paths
    taken, earlier = {row["path"] for row, _, latin in found if latin == row["latin"]}, {}
    for row, side, latin in found:
        path = rename_path(row, side, latin, taken) if latin != row["latin"] else row["path"]
        taken.add(path)
        earlier[side, latin, row["sha256"]] = {**row, "side": side, "latin": latin, "path": path}
    return earlier


def find_again(labelled, present, finders):
    """Return (rows of `read_labelled`, {SHA-256: side}), with photographs that changed their form.

    Of a photograph that is not in `present`, {SHA-256 in cleaned.csv: its group there}, each of
    `finders` may return the SHA-256 now from its row. Where a photograph was on both sides, train
    counts. A near-duplicate of one that a person rejected has the side of that one.
    """
    followed, sides = {}, {}
    for (side, latin, content), row in labelled.items():
        if content not in present:
            found = (find(row) for find in finders)
            content = next((new for new in found if new in present), content)
        key = side, latin, content
        if content == row["sha256"] or key not in labelled:
            followed[key] = {**row, "sha256": content}
        note_side(sides, content, side)
    of_group = {}
    for content, side in sides.items():
        if group := present.get(content):
            note_side(of_group, group, side)
    of_copies = {content: of_group[group] for content, group in present.items()
                 if group in of_group}
    return followed, of_copies | sides


def note_side(sides, key, side):
    """Note the side of a photograph or group in a dictionary; of two, train counts."""
    sides[key] = "train" if "train" in (side, sides.get(key)) else side


def build_finders(folder, rows, origins, latest, sources):
    """Return functions that find a photograph labelled before: row of a label table -> SHA-256 now.

    By its former SHA-256, its address, or by the pixels, which are those of its published file.
    """
    published, copied = KnownFiles(folder), {}
    urls = {origins[row["sha256"]].get("url"): row["sha256"] for row in rows
            if row["sha256"] in origins}

    def find_by_pixels(row):
        if not copied:  # only where the others did not find it, as files may have to be read
            copied.update({(row["latin"], sources.sha256(row["source"])): row["sha256"]
                           for row in rows if row["copied"]})
        is_there = (folder / row["path"]).is_file()
        return copied.get((row["latin"], published.sha256(row["path"]))) if is_there else None
    return (lambda row: latest.get(row["sha256"]), lambda row: urls.get(row.get("url") or None),
            find_by_pixels)


def warn_of_lost(labelled, rows, classes, present):
    """Return the line of the report about photographs of `labelled` that are not found again.

    Warn of them if `rows`, with `side` and `sha256`, have new test photographs.
    """
    names = {plant.latin for plant in classes}
    lost = [row for (_, latin, content), row in labelled.items()
            if content not in present and latin in names]
    known = {content for *_, content in labelled}
    new = [row for row in rows if row["side"] == "test" and row["sha256"] not in known]
    if lost and new:
        warn(f"{len(lost)} photographs labelled before, such as {lost[0]['path']}, are not in "
             f"cleaned.csv any more, nor anything recognised as one of them, and {len(new)} test "
             "photographs are new. If these show the same pictures, networks trained before have "
             "learned from them: do not evaluate those on this test set; train again")
    advice = "; do not evaluate networks trained before on test photographs added since"
    return ("photographs labelled before that are neither collected any more nor recognised in "
            f"another form: {len(lost)}{advice if lost else ''}")


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
