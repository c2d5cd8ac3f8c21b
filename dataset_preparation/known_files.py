"""What earlier runs learned about photographs, so that a step reads only the files that changed.

Cleaning and labelling each write a table `known_files.csv` beside their photographs. A row holds
while its file has the size and modification time noted there. The table may be deleted at any
time: the next run reads every photograph once and writes it anew.
"""
from pathlib import Path

from utils import read_table, sha256, write_table

COLUMNS = ("path", "size", "modified_ns", "sha256",
           "fingerprint")  # filled in by labeling.py --check alone


class KnownFiles:
    """SHA-256 and fingerprint of the photographs in a folder, by its table; paths start there."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.table = self.folder / "known_files.csv"
        rows = read_table(self.table, COLUMNS) if self.table.is_file() else ()
        self.rows = {row["path"]: row for row in rows}

    def find(self, path):
        """Return the row of a file, or None where the file has changed since or was never read."""
        row, file = self.rows.get(path), self.folder / path
        fits = row and file.is_file() and stamp(file) == (row["size"], row["modified_ns"])
        return row if fits else None

    def sha256(self, path):
        """Return the SHA-256 of a file, reading it only where it is not known."""
        row = self.find(path)
        if row is None:
            read_at = stamp(self.folder / path)
            row = self.note(path, sha256((self.folder / path).read_bytes()), stamped=read_at)
        return row["sha256"]

    def note(self, path, sha256, fingerprint="", stamped=None):
        """Note what a file holds; `stamped` is its stamp when it was read, by default now."""
        size, modified = stamped or stamp(self.folder / path)
        self.rows[path] = {"path": path, "size": size, "modified_ns": modified, "sha256": sha256,
                           "fingerprint": fingerprint}
        return self.rows[path]

    def move(self, path, target):
        """Note that a file was renamed, which keeps its modification time."""
        self.rows[target] = {**self.rows.pop(path), "path": target}

    def write(self, paths):
        """Write the table, which keeps the rows of these paths alone."""
        write_table(self.table, COLUMNS, [self.rows[path] for path in sorted(paths)])


def stamp(path):
    """Return (size, modification time in nanoseconds) of a file, as text."""
    info = path.stat()
    return str(info.st_size), str(info.st_mtime_ns)
