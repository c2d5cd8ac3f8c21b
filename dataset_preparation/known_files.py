"""A cache of the SHA-256 of photographs, so that a step reads only files that have changed.

Cleaning and labelling each write a table `known_files.csv` next to their photographs. A row is
valid while its file has the size and modification time in the table. The table may be deleted at
any time: the next run reads every photograph once and writes it again.
"""
from pathlib import Path

from utils import read_table, sha256, write_table

COLUMNS = ("path", "size", "modified_ns", "sha256",
           "fingerprint")  # only filled in by labeling.py --check


class KnownFiles:
    """SHA-256 and fingerprint of the photographs in a folder; paths are relative to it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.table = self.folder / "known_files.csv"
        rows = read_table(self.table, COLUMNS) if self.table.is_file() else ()
        self.rows = {row["path"]: row for row in rows}

    def find(self, path):
        """Return the row of a file, or None if the file has changed or was never read."""
        row, file = self.rows.get(path), self.folder / path
        fits = row and file.is_file() and stamp(file) == (row["size"], row["modified_ns"])
        return row if fits else None

    def sha256(self, path):
        """Return the SHA-256 of a file, reading it only if it is not known."""
        row = self.find(path)
        if row is None:
            read_at = stamp(self.folder / path)
            row = self.note(path, sha256((self.folder / path).read_bytes()), stamped=read_at)
        return row["sha256"]

    def note(self, path, sha256, fingerprint="", stamped=None):
        """Add a row for a file; `stamped` is its stamp when it was read, by default the current."""
        size, modified = stamped or stamp(self.folder / path)
        self.rows[path] = {"path": path, "size": size, "modified_ns": modified, "sha256": sha256,
                           "fingerprint": fingerprint}
        return self.rows[path]

    def move(self, path, target):
        """Rename a file's row; renaming a file keeps its modification time."""
        self.rows[target] = {**self.rows.pop(path), "path": target}

    def write(self, paths):
        """Write the table with the rows of these paths only."""
        write_table(self.table, COLUMNS, [self.rows[path] for path in sorted(paths)])


def stamp(path):
    """Return (size, modification time in nanoseconds) of a file, as text."""
    info = path.stat()
    return str(info.st_size), str(info.st_mtime_ns)
