"""A store of the features of photographs and of the matches between them.

`near_duplicates.sqlite` is next to the table of the step that made it. It may be deleted at any
time: the next run describes and compares the photographs again. Photographs are identified by the
SHA-256 of their files.
"""
import errno
import os
import sqlite3
from functools import lru_cache, wraps
from pathlib import Path

import cv2
import numpy as np

from dataset_preparation.cleaning.local_features import (
    MIN_INLIERS,
    STEPS,
    Description,
    Match,
    compare,
)

FILE = "near_duplicates.sqlite"
BYTES = 32  # of the bits of a feature
VERSION = 3  # of local_features.py; the data of another version is dropped
TABLES = """
CREATE TABLE IF NOT EXISTS features (sha256 TEXT PRIMARY KEY, points BLOB, bits BLOB, grey BLOB);
CREATE TABLE IF NOT EXISTS matches (first TEXT, second TEXT, same_extent INTEGER, inliers INTEGER,
    alike REAL, equal REAL, first_inside REAL, second_inside REAL, differs REAL,
    PRIMARY KEY (first, second, same_extent)) WITHOUT ROWID;
"""


def to_columns(description):
    """Return the columns (points, bits, grey) of a `Description`, about 15 kB."""
    points = np.round(description.points * STEPS).astype("<u2")
    _, jpeg = cv2.imencode(".jpg", description.grey, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return points.tobytes(), description.bits.astype("<u8").tobytes(), jpeg.tobytes()


def unpack_points(data):
    """Return (N, 3) float32 of the column `points`."""
    return np.frombuffer(data, "<u2").reshape(-1, 3).astype(np.float32) / STEPS


def unpack_bits(data):
    """Return (N, 4) uint64 of the column `bits`."""
    return np.frombuffer(data, "<u8").reshape(-1, 4).astype(np.uint64)


def connect(path):
    """Open a store; empty it if another version wrote it."""
    connection = sqlite3.connect(path, timeout=60)
    try:
        # what a power cut destroys is computed again
        connection.execute("PRAGMA synchronous = OFF")
        # Else a transaction too large for the cache locks out the processes whose results it waits
        # for.
        connection.execute("PRAGMA cache_spill = OFF")
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            connection.executescript("DROP TABLE IF EXISTS features; DROP TABLE IF EXISTS matches;"
                                     f"{TABLES} PRAGMA user_version = {VERSION};")
        connection.execute("CREATE INDEX IF NOT EXISTS matches_second ON matches (second)")
        connection.execute("SELECT count(*) FROM features")
    except sqlite3.Error:
        connection.close()  # Windows deletes no open file
        raise
    return connection


def names_the_file(method):
    """Wrap a method so that errors such as a full disk are an OSError that names the file."""
    @wraps(method)
    def wrapped(self, *arguments):
        try:
            return method(self, *arguments)
        except sqlite3.OperationalError as error:
            code = errno.ENOSPC if "full" in str(error) else errno.EIO
            reason = os.strerror(code) if code == errno.ENOSPC else f"SQLite: {error}"
            raise OSError(code, reason, self.path) from error
    return wrapped


class FeatureStore:
    """Features and matches in a folder's FILE; raises OSError if it cannot be read or written."""

    @names_the_file
    def __init__(self, folder):
        self.path = str(Path(folder).resolve() / FILE)
        try:
            self.connection = connect(self.path)
        except sqlite3.OperationalError:  # no space, no permission or another process's lock
            raise
        except sqlite3.DatabaseError:  # damaged, e.g. by a power cut: it is only a cache
            Path(self.path).unlink()
            self.connection = connect(self.path)
        rows = self.connection.execute("SELECT sha256, length(bits) FROM features").fetchall()
        self.described = {sha for sha, _ in rows}
        self.with_features = {sha for sha, size in rows if size >= MIN_INLIERS * BYTES}  # not flat

    @names_the_file
    def add(self, sha256, columns):
        """Add the features of a photograph, made by `to_columns`; `save` writes them.

        If they differ from the stored ones, as after a changed setting, its matches are deleted:
        they are those of the earlier features.
        """
        stored = self.connection.execute("SELECT points, bits, grey FROM features WHERE sha256 = ?",
                                         (sha256,)).fetchone()
        if stored and stored != tuple(columns):
            for end in ("first", "second"):
                self.connection.execute(f"DELETE FROM matches WHERE {end} = ?", (sha256,))
        self.with_features.discard(sha256)
        self.connection.execute("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
                                (sha256, *columns))
        self.described.add(sha256)
        if len(columns[1]) >= MIN_INLIERS * BYTES:
            self.with_features.add(sha256)

    @names_the_file
    def save(self):
        """Write what was added to disk."""
        self.connection.commit()

    @names_the_file
    def matches(self):
        """Return {(first, second, same_extent): `Match`} of all pairs compared so far."""
        rows = self.connection.execute("SELECT * FROM matches")
        return {(first, second, bool(same_extent)): Match(*values)
                for first, second, same_extent, *values in rows}

    @names_the_file
    def add_match(self, key, match):
        """Add the match of (first, second, same_extent); `save` writes it."""
        self.connection.execute("INSERT OR REPLACE INTO matches VALUES "
                                "(?, ?, ?, ?, ?, ?, ?, ?, ?)", (*key, *match))

    @names_the_file
    def features(self, names, count):
        """Return (index of the photograph, bits, angle) of the first `count` features of each.

        Arrays of (N,) int32, (N, 4) uint64 and (N,) float32, degrees.
        """
        owner = np.zeros(len(names) * count, np.int32)
        bits, angles = np.zeros((len(owner), 4), np.uint64), np.zeros(len(owner), np.float32)
        end = 0
        for i, name in enumerate(names):
            points, packed = self.connection.execute(
                "SELECT points, bits FROM features WHERE sha256 = ?", (name,)).fetchone()
            some = unpack_bits(packed[:BYTES * count])
            place = np.s_[end:end + len(some)]
            owner[place], bits[place] = i, some
            angles[place] = unpack_points(points)[:len(some), 2]
            end += len(some)
        return owner[:end], bits[:end], angles[:end]

    @names_the_file
    def keep_only(self, names):
        """Drop the features and matches of all other photographs, and close the file."""
        gone = [(name,) for name in self.described - set(names)]
        self.connection.executemany("DELETE FROM features WHERE sha256 = ?", gone)
        self.connection.execute("DELETE FROM matches WHERE first NOT IN (SELECT sha256 FROM "
                                "features) OR second NOT IN (SELECT sha256 FROM features)")
        self.save()
        self.connection.close()


@lru_cache(1)
def open_to_read(path):
    """Return this process's connection to a store, with which it only reads."""
    return sqlite3.connect(path, timeout=60)  # no URI: it cannot name a network drive of Windows


@lru_cache(64)
def read_description(path, name):
    """Return the `Description` of a photograph in a store."""
    points, bits, grey = open_to_read(path).execute(
        "SELECT points, bits, grey FROM features WHERE sha256 = ?", (name,)).fetchone()
    picture = cv2.imdecode(np.frombuffer(grey, np.uint8), cv2.IMREAD_GRAYSCALE)
    return Description(unpack_points(points), unpack_bits(bits), picture)


def compare_stored(path, first, second, same_extent):
    """Return the `Match` of two photographs in a store; called in several processes."""
    return compare(read_description(path, first), read_description(path, second), same_extent)
