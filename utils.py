"""Shared by the scripts, without torch: running, classes, label tables, files, locks, groups."""
import csv
import errno
import hashlib
import io
import os
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import names
import settings.privacy  # noqa: F401 before any library with telemetry
from settings.startup_errors import MISSING, STOPPED
from settings.streams import standard_streams

if os.name == "nt":
    import msvcrt
else:
    import fcntl

NO_PERMISSION = "give this user access to it, or choose another path (--help lists the flags)"
csv.field_size_limit(2**31 - 1)  # characters of a cell; 131,072, the default, is too few for some
NEEDS_UTF8 = "; names need UTF-8: set the locale LC_ALL=C.UTF-8, or start python with -X utf8"
LARGE_BATCH = 90  # photographs, where BATCH_SIZE is 0: in a step of training at most
REMEDIES = {errno.ENOSPC: "free some disk space, then run the same command again to resume",
            **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NO_PERMISSION)}


class InputError(ValueError):
    """An error that the user can mend; the message says what is wrong, where, and what to do."""


# ---- scripts ----

def run(main):
    """Run a script's `main()` and exit: 0, or 1 with a one-line message, or 130 after Ctrl-C."""
    try:
        with standard_streams():
            main()
        return
    except KeyboardInterrupt as stop:
        status, message = getattr(stop, "exit_status", 130), STOPPED
    except ModuleNotFoundError as error:
        status, message = 1, MISSING.format(error.name)
    except (InputError, OSError, UnicodeEncodeError) as error:
        status, message = 1, f"error: {describe_error(error)}"
    print(names.escape_controls(message, keep="\n"), file=sys.stderr)
    sys.exit(status)


def describe_error(error):
    """Return the message of an InputError, or the path, reason and remedy of an OSError."""
    if not getattr(error, "strerror", None):
        return f"{error}{NEEDS_UTF8 if isinstance(error, UnicodeEncodeError) else ''}"
    path = f"{error.filename}".removesuffix(".tmp") + ": " if error.filename else ""
    remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
    return f"{path}{error.strerror}{remedy}"


def warn(message):
    """Print a warning to standard error without breaking progress bars."""
    tqdm.write(names.escape_controls(f"warning: {message}", keep="\n"), file=sys.stderr)


def progress(items, total, label, unit="photo"):
    """Yield the items with a tqdm bar on a terminal, or else a line every 30 seconds."""
    started = printed = time.monotonic()
    bar = tqdm(items, total=total, desc=label, unit=unit, leave=False, disable=None)
    for count, item in enumerate(bar, 1):
        yield item
        if time.monotonic() - printed > 30 and not sys.stderr.isatty():
            printed = time.monotonic()
            left = names.describe_seconds((printed - started) / count * (total - count))
            print(f"{label}: {count:,} of {total:,}, {left} left", flush=True)


def process_count(setting, at_most=61, cpu_max=Path("/sys/fs/cgroup/cpu.max")):
    """Return the number of processes for a setting, where 0 means one per available core."""
    cores = len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))
    with suppress(OSError, ValueError):  # not a Linux container, or "max": no quota
        quota, period = map(int, cpu_max.read_text().split())  # microseconds
        cores = max(1, min(cores, quota // period))
    return min(setting or cores, at_most)  # Windows can wait for 61 processes at most


# ---- classes and label tables ----

class PlantClass(NamedTuple):
    """One row of the class table; `also` are synonyms, `note_en` and `note_ru` are cautions."""

    label: int
    latin: str
    russian: str
    english: str
    also: tuple = ()
    genus: str = ""
    family: str = ""
    note_en: str = ""
    note_ru: str = ""


def read_classes(path, limit=0):
    """Return the list of `PlantClass` of a class table, the first `limit` if that is above 0.

    Raises InputError unless the labels are 0, 1, 2, ... in order and the Latin names are unique.
    """
    rows = read_table(path, ("label", "latin"))  # the other columns may be left out
    classes, seen = [], {}
    for label, row in enumerate(rows):
        where = f"{path}, line {label + 2}"
        if row["label"].strip().removesuffix(".0") != str(label):
            raise InputError(f"{where}: label {row['label']!r} where {label} was expected; "
                             "number the rows 0, 1, 2, ...")
        latin = names.plain_name(row["latin"])
        if not latin:
            raise InputError(f"{where}: the Latin name is empty; fill it in")
        require_folder_name(latin, where)
        line, earlier = seen.setdefault(names.look(latin), (label + 2, latin))
        if line != label + 2:
            raise InputError(f"{where}: {latin!r} is listed twice, first in line {line}"
                             f"{names.describe_spelling(latin, earlier)}; delete one of the rows")
        more = {key: (row.get(key) or "").strip() for key in PlantClass._fields[2:]}
        more["also"] = tuple(filter(None, map(names.plain_name, more["also"].split(";"))))
        more["genus"] = more["genus"] or names.genus_of(latin)
        classes.append(PlantClass(label, latin, **more))
    if not classes:
        raise InputError(f"{path} lists no classes; add one row per class")
    return classes[:limit] if limit > 0 else classes


def read_label_rows(table, classes):
    """Return the rows of a label table as dictionaries, `path` with `/` and `label` an integer."""
    table = Path(table)
    require_file(table, "run labeling.py or download_files.py (or see docs/training.md)")
    if (table.parent / "labels.journal").exists():
        raise InputError(f"{table.parent}: labelling was interrupted; run it again without --check")
    labels = {str(plant.label): plant.label for plant in classes}
    rows, folders = {}, {}
    for line, row in enumerate(read_table(table, ("path", "label")), 2):
        path = names.table_path(row["path"])
        text = row["label"].strip().removesuffix(".0")  # pandas may write 3.0
        label, folder = labels.get(text), Path(path).parent.name
        if folder not in folders:
            folders[folder] = names.class_of_folder(folder, classes)
        checks = (  # (whether it failed, what is wrong and what to do)
            (label is None, f"has the label {text!r}, not one of 0 to {len(classes) - 1}; pass the "
                            "--class_table and --limit_classes that labeling.py was run with"),
            (label is not None and folders[folder] and folders[folder].label != label,
             f"has the label {label}, which contradicts its folder; pass the --class_table that "
             "labeling.py was run with"),
            (path in rows, "is listed twice; delete one of the rows"),
            (names.leaves_folder(path), "lies outside the dataset; copy it there"))
        if problem := next((problem for failed, problem in checks if failed), ""):
            raise InputError(f"{table}, line {line}: {path} {problem}")
        rows[path] = {**row, "path": path, "label": label}
    if missing := [f"line {line}: {path}" for line, path in enumerate(rows, 2)
                   if not (table.parent / path).is_file()]:
        raise InputError(f"{table}: files that do not exist: {len(missing):,}; restore them, label "
                         f"again, or delete their rows ({names.list_some(missing)})")
    if not rows:
        raise InputError(f"{table} lists no photographs; run labeling.py again")
    return list(rows.values())


def pick_groups(sizes, quota, seed, most=None):
    """Return a set of at most `most` groups with together at most `quota` photographs.

    `sizes` maps group names to numbers of photographs. Groups are taken in the order of
    SHA-256(seed, name), so a new group never reorders the others.
    """
    picked, total = set(), 0
    for group in sorted(sizes, key=lambda name: sha256(f"{seed}:{name}".encode())):
        if total + sizes[group] <= quota and (most is None or len(picked) < most):
            picked.add(group)
            total += sizes[group]
    return picked


# ---- files ----

def sha256(data):
    """Return the SHA-256 of bytes as 64 hex digits; the first 16 name a photograph's file."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path):
    """Return the SHA-256 of a file of any size as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def atomic_path(path):
    """Yield a temporary path next to `path`; rename it to `path` on success, else delete it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        error.filename = getattr(error, "filename", None) or str(path)  # a full disk names none
        raise


def write_text(path, text):
    """Write a UTF-8 text file atomically; half an emoji, which cannot be encoded, becomes ?."""
    with atomic_path(path) as temporary, open(temporary, "w", -1, "utf-8", "replace", "\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave an empty file under the final name


def copy_file(source, path):
    """Copy a file atomically."""
    with atomic_path(path) as temporary:
        shutil.copyfile(source, temporary)


def write_table(path, columns, rows):
    """Write dictionaries as a CSV table with these columns atomically."""
    text = io.StringIO()
    writer = names.table_writer(text, columns)
    writer.writeheader()
    writer.writerows({key: names.escape_cell(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def read_table(path, columns=()):
    """Return the rows of a CSV table, cells separated by `,` or `;`, as dictionaries of text."""
    require_file(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        header = file.buffer.readline()
        file.seek(0)
        delimiter = ";" if b";" in header and b"," not in header else ","
        if header.startswith(b"PK"):
            raise InputError(f"{path} is an Excel workbook; save it as CSV UTF-8")
        reader = csv.DictReader(file, restval="", delimiter=delimiter)
        try:
            found = reader.fieldnames = list(map(names.plain_column, reader.fieldnames or ()))
            missing = [name for name in columns if found.count(name) != 1]
            rows = []
            for row in reader:
                if None in row:
                    raise InputError(f"{path}, line {reader.line_num}: more cells than the header "
                                     "has; quote a text that contains the separator")
                rows.append({name: names.exact_cell(text) for name, text in row.items()})
        except (csv.Error, UnicodeDecodeError) as error:
            problem = (" is not in UTF-8" if isinstance(error, UnicodeDecodeError) else
                       f", line {reader.line_num + 1}: {error}")
            raise InputError(f"{path}{problem}; save the table as CSV UTF-8") from None
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}, or two; its header must list "
                         f"{', '.join(columns)}, and lists {names.list_some(found) or 'nothing'}")
    return [row for row in rows if any(row.values())]  # spreadsheets add lines of separators


def require_file(path, remedy=""):
    """Raise InputError, with the remedy if there is one, unless `path` is a file."""
    if not Path(path).is_file():
        problem = "is a folder" if Path(path).is_dir() else "does not exist"
        raise InputError("; ".join(filter(None, (f"{path} {problem}", remedy))))


def require_folder_name(name, where):
    """Raise InputError unless a name can be a folder on every operating system."""
    if not name.strip() or names.NO_FOLDER.search(name):
        raise InputError(f"{where}: {name!r} cannot be a folder name on every system; avoid "
                         r'/ \ : * ? " < > |, dots at its ends, names of devices such as Con')


def require_apart(*folders):
    """Raise InputError if folders overlap: a step would overwrite its own input."""
    for one, other in combinations([Path(folder).resolve() for folder in folders], 2):
        if one == other or one in other.parents or other in one.parents:
            raise InputError(f"{one} and {other} overlap; choose separate folders for input and "
                             "output")


def aside_path(path, base):
    """Return a free path in `base`/set_aside for a file below `base`, numbered if taken."""
    path = Path(path)
    target, count = Path(base) / "set_aside" / path.relative_to(base), 0
    while target.exists():
        count += 1
        target = target.with_name(f"{path.stem}_{count}{path.suffix}")
    return target


def set_aside(path, base):
    """Move a file below `base` into `base`/set_aside and return its new path."""
    target = aside_path(path, base)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(path, target)
    return target


class FileLock:
    """A lock between processes, released when its process ends, even if killed; not inherited.

    `doing` tells those who wait what its owner does ("cleans into data"), "" tells nothing.
    """

    def __init__(self, path, doing=""):
        self.path, self.doing, self.file = path, doing, None

    def acquire(self, wait=True):
        """Take the lock and return True; without `wait`, return False if it is taken."""
        announce = bool(self.doing)
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
                if announce:
                    print(f"waiting for another process that {self.doing}", flush=True)
                    announce = False
                time.sleep(0.01)
            else:
                self.file = file
                return True

    def release(self):
        """Release the lock if it is taken."""
        if self.file:
            self.file.close()

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        self.release()
