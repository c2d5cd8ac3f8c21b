"""Folders of cleaned photographs: images/ (kept), others/ (the rest), work/ (not yet judged)."""
from collections import defaultdict
from pathlib import Path

from dataset_preparation.cleaning.cleaned_table import cleaned_name, cleaned_path
from utils import copy_file, set_aside, sha256

FOLDERS = ("images", "others")


def work_name(file):
    """Return the name in work/ of the cleaned photograph of a file that is not yet judged."""
    return f"{sha256(file.encode())[:16]}.jpg"


def list_cleaned(base):
    """Return the sorted paths, relative to `base`, of all files below images/ and others/."""
    return [path.relative_to(base).as_posix() for folder in FOLDERS
            for path in sorted((base / folder).rglob("*")) if path.is_file()]


def move_into_place(rows, known_files):
    """Move every cleaned photograph to images/ or others/, set other files there aside."""
    base, wanted = known_files.folder, {}
    for row in sorted(rows, key=lambda row: row["status"] == "kept"):  # kept ones win
        if row["fingerprint"]:
            wanted.pop(f"others/{cleaned_name(row)}", None)
            wanted[cleaned_path(row)] = row
    spare = defaultdict(list)
    for path in list_cleaned(base):
        if path not in wanted:
            spare[Path(path).name].append(path)
    for path, row in wanted.items():
        move_one(path, row, spare[Path(path).name], known_files)
    set_spare_aside([path for paths in spare.values() for path in paths], base)
    known_files.write(wanted)


def move_one(path, row, spare, known_files):
    """Move the cleaned photograph of a row to its path, from its earlier path or from work/.

    `spare` lists files of that name that are not wanted where they are; the one used is removed.
    """
    base, content = known_files.folder, row["cleaned_sha256"]
    target, work = base / path, base / "work" / work_name(row["file"])
    if target.exists():
        if known_files.sha256(path) == content:
            return
        set_aside(target, base)
    target.parent.mkdir(parents=True, exist_ok=True)
    fitting = next((file for file in spare if known_files.sha256(file) == content), None)
    if fitting:  # class or status has changed
        spare.remove(fitting)
        (base / fitting).replace(target)
        known_files.move(fitting, path)
        return
    if work.exists():
        work.replace(target)
    else:  # the same file is also in another class
        source = next(file for file in known_files.rows
                      if file.endswith(f"/{target.name}") and known_files.find(file))
        copy_file(base / source, target)
    known_files.note(path, content)


def set_spare_aside(paths, base):
    """Set files aside that are no longer wanted; remove empty folders."""
    for path in sorted(base / path for path in paths):
        if path.suffix == ".tmp":
            path.unlink()  # incomplete, of a killed run
        else:
            set_aside(path, base)
    for folder in FOLDERS:
        for path in sorted((base / folder).rglob("*"), reverse=True):  # inner ones first
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    if paths:
        print(f"moved {len(paths):,} files that are no longer wanted to {base / 'set_aside'}")
