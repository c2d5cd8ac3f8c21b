"""What several scripts share and what needs no torch: classes, names, files, locks, groups."""
import csv
import errno
import hashlib
import io
import os
import re
import shutil
import sys
import time
from contextlib import contextmanager
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

if os.name == "nt":
    import msvcrt
else:
    import fcntl

REMEDIES = {errno.ENOSPC: "; free some space, the same command goes on from here",  # number of an error: what to do
            **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS),
                            "; let this user read and write there, or name another place (--help lists the flags)")}
FOLDER_ALIASES = {"Taxus baccat": "Taxus baccata"}  # the spelling of the published dataset


class InputError(ValueError):
    """Something the user gave does not fit; the message says what, where and what to do."""


# ---- scripts ----

def run(main):
    """Run a script's `main()` and exit: 0, or 1 with a one-line message, or 130 when stopped by Ctrl-C."""
    try:
        main()
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except (InputError, OSError) as error:
        said = str(error)
        if getattr(error, "strerror", None):
            where = f"{error.filename}: ".replace(".tmp:", ":") if error.filename else ""
            said = f"{where}{error.strerror}{REMEDIES.get(error.errno, '')}"
        print(f"error: {said}", file=sys.stderr)
        sys.exit(1)


def warn(message):
    """Print a warning to standard error."""
    print(f"warning: {message}", file=sys.stderr)


def progress(items, total, label, unit="photo"):
    """Yield the items, with a tqdm bar on a terminal and a plain line every 30 seconds elsewhere."""
    told = time.monotonic()
    for count, item in enumerate(tqdm(items, total=total, desc=label, unit=unit, leave=False, disable=None), 1):
        yield item
        if time.monotonic() - told > 30 and not sys.stderr.isatty():
            told = time.monotonic()
            print(f"{label}: {count:,} of {total:,}", flush=True)


def process_count(setting, at_most=61):
    """Return the number of processes for a setting where 0 means one per core; Windows takes 61 at most."""
    return min(setting or os.cpu_count() or 1, at_most)


# ---- classes ----

class PlantClass(NamedTuple):
    """One row of the class table; `also` holds synonyms."""

    label: int
    latin: str
    russian: str
    english: str
    also: tuple


def read_classes(path, limit=0):
    """Return the list of `PlantClass` of a class table, label i at place i; `limit` > 0 keeps the first rows.

    Raises InputError unless the labels are 0, 1, 2, ... in order and every Latin name is given once.
    """
    rows = read_table(path, ("label", "latin", "russian", "english", "also"))
    classes = []
    for place, row in enumerate(rows):
        where = f"{path}, line {place + 2}"
        if row["label"].strip() != str(place):
            raise InputError(f"{where}: label {row['label']!r} where {place} was expected; labels run 0, 1, 2, ...")
        latin = row["latin"].strip()
        require_folder_name(latin, where)
        also = tuple(name.strip() for name in row["also"].split(";") if name.strip())
        classes.append(PlantClass(place, latin, row["russian"].strip(), row["english"].strip(), also))
    slugs = [slug(one.latin) for one in classes]
    twice = sorted({one.latin for one in classes if slugs.count(slug(one.latin)) > 1})
    if twice:
        raise InputError(f"{path}: {twice[0]!r} stands there twice; give every class once")
    if not classes:
        raise InputError(f"{path} holds no class; give one line per class")
    return classes[:limit] if limit > 0 else classes


def class_of_folder(name, classes):
    """Return the `PlantClass` a folder name stands for (case and `_` for space do not matter), or None."""
    wanted = slug(FOLDER_ALIASES.get(name, name))
    return next((one for one in classes if slug(one.latin) == wanted), None)


@cache  # a class is looked up once per photograph
def slug(latin):
    """Return a Latin name as published files have it: lower case, `_` for all but letters, digits and hyphens."""
    return re.sub(r"[^\w-]+", "_", latin.lower()).strip("_")


def read_label_rows(table, classes):
    """Return the rows of a label table as dictionaries: `path` with `/`, `label` an integer, other columns as they are.

    Raises InputError naming the line of a label outside the class table, a label that contradicts its folder, a
    repeated row, or a photograph that is gone.
    """
    table = Path(table)
    if not table.is_file():
        raise InputError(f"{table} does not exist; run dataset_preparation/labeling/labeling.py or download_files.py")
    if (table.parent / "labels.journal").exists():
        raise InputError(f"{table.parent}: labelling was interrupted; run labeling.py again, without --check")
    labels = {text: one.label for one in classes for text in (f"{one.label}", f"{one.label}.0")}  # pandas writes both
    rows, folders = {}, {}
    for line, row in enumerate(read_table(table, ("path", "label")), 2):
        path, text = row["path"].replace("\\", "/"), row["label"].strip()
        name, label = Path(path).parent.name, labels.get(text)
        if name not in folders:
            folders[name] = class_of_folder(name, classes)
        wrong = (f"has the label {text!r}, which is not one of 0 to {len(classes) - 1}; give the --class_table and "
                 "--limit_classes it was labelled with"
                 if label is None else
                 f"has the label {label}, which contradicts its folder; is this the class table it was made with?"
                 if folders[name] and folders[name].label != label else
                 "stands there twice; delete one row" if path in rows else
                 "lies outside of the dataset; copy it into it" if re.match(r"/|\w:|(.*/)?\.\./", path) else
                 "is gone; put it back, label again, or delete the row" if not (table.parent / path).is_file() else "")
        if wrong:
            raise InputError(f"{table}, line {line}: {path} {wrong}")
        rows[path] = {**row, "path": path, "label": label}
    if not rows:
        raise InputError(f"{table} names no photographs; label again")
    return list(rows.values())


# ---- names and files ----

def sha256(data):
    """Return the SHA-256 of bytes as 64 hex digits; a photograph's file is named by the first 16."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path):
    """Return the SHA-256 of a file of any size as 64 hex digits."""
    so_far = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            so_far.update(block)
    return so_far.hexdigest()


@contextmanager
def atomic_path(path):
    """Yield a temporary path beside `path`; rename it to `path` if the body succeeds, remove it if not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path, text):
    """Write a UTF-8 text file whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def copy_file(source, path):
    """Copy a file whole or not at all."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def write_table(path, columns, rows):
    """Write dictionaries as a CSV table with these columns, whole or not at all; missing values are left empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_table(path, columns=()):
    """Return the rows of a CSV table as dictionaries of text; where Excel writes ; between cells, it is read so.

    Raises InputError where one of `columns` is missing and for a line with more cells than the first.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} {'is a folder, not a table' if path.is_dir() else 'does not exist'}")
    with open(path, encoding="utf-8-sig", newline="") as file:
        first = file.buffer.readline()
        file.seek(0)
        reader = csv.DictReader(file, restval="", delimiter=";" if b";" in first and b"," not in first else ",")
        try:
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            rows = []
            for row in reader:
                if None in row:
                    raise InputError(f"{path}, line {reader.line_num}: more cells than the first line has; put quotes "
                                     "around a text with a comma in it")
                rows.append(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{path}, line {reader.line_num + 1}: {error}; save it as CSV in UTF-8") from None
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; its first line must name {', '.join(columns)}")
    return rows


def require_folder_name(name, where):
    """Raise InputError where a name could not be one folder of its own on every system, as "", ".." or "a/b"."""
    if not name.strip() or re.search(r'[/\\:*?"<>|\x00-\x1f]|^\.', name):
        raise InputError(f'{where}: {name!r} cannot be a folder name; leave out / \\ : * ? " < > | and a dot in front')


def require_apart(*folders):
    """Raise InputError where one folder lies in another or is the same: a step would write over its own input."""
    for one, other in combinations([Path(folder).resolve() for folder in folders], 2):
        if one == other or one in other.parents or other in one.parents:
            raise InputError(f"{one} and {other} are not apart; what is read and what is written need own folders")


def aside_path(path, base):
    """Return a free path below `base`/set_aside for a file below `base`: its relative name, numbered where taken."""
    path, target = Path(path), Path(base) / "set_aside" / Path(path).relative_to(base)
    copies = 0
    while target.exists():
        copies += 1
        target = target.with_name(f"{path.stem}_{copies}{path.suffix}")
    return target


def set_aside(path, base):
    """Move a file below `base` into `base`/set_aside, keeping its relative name, and return the new path."""
    target = aside_path(path, base)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
    return target


class FileLock:
    """A lock between processes: it ends with the process that holds it, however that ends, and is not inherited.

    `doing` is what those who wait are told of the holder, such as "cleans into data"; without it they wait silently.
    """

    def __init__(self, path, doing=""):
        self.path, self.doing, self.file = path, doing, None

    def acquire(self, wait=True):
        """Take the lock and return True, or False where another process has it and `wait` is False."""
        untold = self.doing
        while True:
            file = open(self.path, "a")  # noqa: SIM115 open until release()
            try:
                if os.name == "nt":
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                else:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.close()
                if not wait:
                    return False
                if untold:
                    print(f"waiting for another process that {untold}", flush=True)
                    untold = ""
                time.sleep(0.01)
            else:
                self.file = file
                return True

    def release(self):
        """Give the lock back, if it is held."""
        if self.file:
            self.file.close()

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()


# ---- groups ----

def pick_groups(sizes, quota, seed):
    """Return the set of groups, in hash order of (seed, group), that fill `quota` photographs without exceeding it.

    `sizes` maps a group's name to its number of photographs. The order of a group depends on nothing but its name
    and the seed, so a new group changes no other group's place.
    """
    picked, total = set(), 0
    for group in sorted(sizes, key=lambda name: sha256(f"{seed}:{name}".encode())):
        if total + sizes[group] <= quota:
            picked.add(group)
            total += sizes[group]
    return picked
