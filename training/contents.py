"""Photographs identified by their contents: what a run was trained on, and whether it changed."""
from pathlib import Path

import numpy as np
import torch

from dataset_preparation.known_files import KnownFiles
from names import list_some, table_path
from utils import InputError, file_sha256, read_table, sha256, warn

BY_CONTENT = "2:"  # begins a `table_fingerprint`; those of formats 1 to 5 say nothing of contents
VIEWS = ("image_size", "mean", "std", "flip_tta")  # settings of what validation shows a network
SHARED_KEYS = ("path", "sha256", "group")  # columns by which rows of two tables belong together


def contents_of(table, folder):
    """Return the SHA-256 of the photographs of a label table, which lie in `folder`.

    Files are read only if labelling or --check has not noted what they contain.
    """
    known = KnownFiles(folder)
    return [known.sha256(Path(path).relative_to(folder).as_posix()) for path in table["path"]]


def table_fingerprint(table, folder):
    """Return what identifies the rows of a label table, in any order.

    It is BY_CONTENT and 16 hex digits of paths, labels, groups and the column `content`, which is
    of `contents_of`.
    """
    rows = [(Path(path).relative_to(folder).as_posix(), label, group, content)
            for path, label, group, content
            in table[["path", "label", "group", "content"]].to_numpy()]
    return BY_CONTENT + sha256(repr(sorted(rows)).encode())[:16]


# ---- validation photographs ----

def validation_fingerprint(table):
    """Return 16 hex digits of the contents and labels of validation photographs, in any order."""
    rows = sorted(zip(table["content"], table["label"].tolist(), strict=True))
    return sha256(repr(rows).encode())[:16]


def resume_validation(last, data, settings):
    """Return the checkpoint `last` of a run, without `lowest` and `best` if they no longer count.

    They do not if other photographs, or other views of them, validate the run from now on: only
    losses on the same views can be compared, and thresholds fitted to them would not be those of
    the best epoch. Raises InputError if the run has trained on some of the photographs, or if no
    epoch is left to choose.
    """
    before = last["settings"]
    views = [key for key in VIEWS if before.get(key) != settings[key]]
    if last["validation"] == validation_fingerprint(data.val_table) and not views:
        return last
    kept = ", ".join(("validation_share", "split_seed", *views))
    remedy = (f"keep {kept}, the class table and the photographs as they were, or name another run "
              "with --run")
    moved = set(data.val_table["content"]) - set(data.train_table["content"])
    trained = np.isin(short_hashes(moved), last["seen"]["trained"].numpy()).sum()
    if trained:
        raise InputError(f"the run {last['run']} was trained on {trained:,} of the "
                         f"{len(data.val_table):,} photographs that would validate it now, so "
                         f"their losses would be too low to choose an epoch; {remedy}")
    other = f"photographs with another {', '.join(views)}" if views else "other photographs"
    if last["epoch"] >= settings["num_epochs"]:
        raise InputError(f"the run {last['run']} has no epoch left to be chosen on {other}; raise "
                         f"--num_epochs {settings['num_epochs']}, or {remedy}")
    print(f"{other} validate this run now: the best epoch is one of those to come")
    return {**last, "lowest": None, "best": None}


# ---- what a network has seen ----

def first_bytes(contents):
    """Return the first 8 bytes of SHA-256 in hexadecimal, (N,) int64."""
    return np.array([int(content[:16], 16) for content in contents], np.uint64).view(np.int64)


def short_hashes(contents):
    """Return the `first_bytes` of SHA-256, sorted, each once."""
    return np.unique(first_bytes(contents))


def describe_seen(data, last, teachers):
    """Return the checkpoint field `seen` of the training and validation photographs of a run.

    It keeps what the checkpoint `last`, from which the run is resumed, had seen with other tables.
    `taught` is what the networks of the checkpoints `teachers` have seen.
    """
    earlier = (last or {}).get("seen") or {}
    taught = [hashes.numpy() for teacher in teachers
              for hashes in (teacher.get("seen") or {}).values()]
    seen = {"trained": [short_hashes(data.train_table["content"])],
            "validated": [short_hashes(data.val_table["content"])],
            "taught": [short_hashes([]), *taught]}
    return {how: torch.from_numpy(np.unique(np.concatenate(
                [*hashes, *([earlier[how].numpy()] if how in earlier else [])])))
            for how, hashes in seen.items()}


def require_unseen(table, seen, path, folder):
    """Raise InputError if photographs of a test table are among those that a network has `seen`.

    `path` is that of the checkpoint, `folder` that of the dataset. Warns without `seen`.
    """
    if not seen:
        warn(f"{path} does not record which photographs it was trained on: if test photographs are "
             "among them, the test is too good")
        return
    known = np.concatenate([hashes.numpy() for hashes in seen.values()])
    is_known = np.isin(first_bytes(contents_of(table, folder)), known)
    found = [Path(path).relative_to(folder).as_posix() for path in table["path"][is_known]]
    if found:
        raise InputError(
            f"{len(found):,} of {len(table):,} photographs in {folder / 'test_labels.csv'} were "
            f"used to train or to validate {path}, so a test on them would be too good "
            f"({list_some(found)}); delete their rows from that table, or leave them out of "
            "training and train another run with --run")


def require_separate(folder):
    """Raise InputError if rows of a dataset's train and test tables belong together.

    They do if they share their path, the SHA-256 of the collected file, or their group. Does
    nothing where one of the tables is missing.
    """
    train, test = (folder / f"{side}_labels.csv" for side in ("train", "test"))
    if not (train.is_file() and test.is_file()):
        return
    rows, keys = read_table(test, ("path",)), set()
    for row in read_table(train, ("path",)):
        keys |= keys_of(row)
    shared = [(row["path"], keys & keys_of(row)) for row in rows]
    named = [f"{path}: same {', '.join(sorted(key for key, _ in same))}"
             for path, same in shared if same]
    if named:
        raise InputError(
            f"{len(named):,} of {len(rows):,} rows of {test} belong to rows of {train.name}, so "
            f"a test would be too good ({list_some(named)}); delete them from one of the tables, "
            "or move whole groups to training with "
            f"dataset_preparation/labeling/labeling.py --check {folder} --repair")


def require_foreign(paths, table, s):
    """Raise InputError if files of BACKGROUND are photographs of the dataset.

    They are if they equal a file of its label tables or, by the column `sha256`, the collected
    file that one was made from. `table` is that of training, with its `content`.
    """
    folder, own = s.dataset_dir, set(table["content"])
    for side in ("train", "test"):
        labels = folder / f"{side}_labels.csv"
        rows = read_table(labels, ("path",)) if labels.is_file() else []
        own |= {row.get("sha256") for row in rows}
        if side == "test":
            files = [folder / table_path(row["path"]) for row in rows]
            own |= set(contents_of({"path": filter(Path.is_file, files)}, folder))
    found = [str(path) for path in paths if file_sha256(path) in own]
    if found:
        raise InputError(
            f"--background {s.background}: {len(found):,} of {len(paths):,} photographs there are "
            f"in the label tables of {folder}, but none may show a plant of the class table "
            f"({list_some(found)}); delete them from that folder, or name another")


def keys_of(row):
    """Return the set of (column, value) by which a row of a label table belongs to others."""
    values = {**{key: (row.get(key) or "").strip() for key in SHARED_KEYS},
              "path": table_path(row["path"])}
    return {(key, value) for key, value in values.items() if value}
