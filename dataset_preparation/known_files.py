"""What earlier runs learned about photographs, so that a step reads only the files that changed.

Cleaning and labelling each write a table `known_files.csv` beside their photographs. A row holds
while its file has the size and modification time noted there. The table may be deleted at any
time: the next run reads every photograph once and writes it anew.
"""
from pathlib import Path

from utils import read_table, sha256, write_table

TABLE = "known_files.csv"
COLUMNS = ("path", "size", "modified_ns", "sha256", "fingerprint")


class KnownFiles:
    """SHA-256 and fingerprint of the photographs in a folder; paths are relative to it.

    Rows come from the given tables, as far as they exist; of two rows about one path the one that
    describes the file as it is counts.
    """

    def __init__(self, folder, *tables):
        self.folder, self.rows = Path(folder), {}
        for table in tables:
            for row in read_table(table, COLUMNS) if table.is_file() else ():
                if row["path"] not in self.rows or self._fits(row):
                    self.rows[row["path"]] = row

    def _fits(self, row):
        path = self.folder / row["path"]
        return path.is_file() and stamp(path) == (row["size"], row["modified_ns"])

    def find(self, path):
        """Return the row of a file, or None where the file has changed since or was never read."""
        row = self.rows.get(path)
        return row if row and self._fits(row) else None

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


def stamp(path):
    """Return (size, modification time in nanoseconds) of a file, as text."""
    info = path.stat()
    return str(info.st_size), str(info.st_mtime_ns)


def write_known_files(folder, rows):
    """Write the table of a folder."""
    write_table(folder / TABLE, COLUMNS, sorted(rows, key=lambda row: row["path"]))
