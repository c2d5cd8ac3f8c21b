"""What the sources and the script of this step share: how a search ends, and the tables."""
import threading
import time
from pathlib import Path

from dataset_preparation.progress_journal import Journal
from utils import FileLock, InputError, read_table, write_table

# columns that a source fills
RESULT = ("url", "fallbacks", "page", "title", "author", "license", "width", "height")
FOUND = ("class", "source", "query", "kind", "rank", "parent", *RESULT,
         "status", "reason", "sha256", "file", "time")
SEARCHES = ("class", "source", "query", "kind", "answer", "results", "time")  # answer: how it ended
ATTRIBUTION = ("file", "title", "author", "license", "page")
KINDS = ("name", "synonym", "similar")  # of searches
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # UTC


class UnknownName(Exception):
    """A source has no such name; the message names what it has instead."""


class SearchFailed(Exception):
    """A search that failed, for another run to repeat; the message is the reason."""


class SourceStopped(SearchFailed):
    """A source that must not be used again in this run; the message is the reason."""


def query_of(source, text):
    """Return what the tables remember of a search: its text and the source's terms."""
    return " ".join([text, *(f"{name}={value}" for name, value in source.terms.items())])


def now():
    """Return the time as the tables have it: UTC, to the second."""
    return time.strftime(TIME_FORMAT, time.gmtime())


class Tables:
    """found.csv and searches.csv of a folder, and the journal of what is not yet written to them.

    `found` maps (class, url) to a row, `searches` (class, source, kind, query) to a row; all values
    are text. Raises InputError where another process has them open: the later of the two would
    overwrite what the first has found.
    """

    def __init__(self, folder):
        self.folder, self.lock = Path(folder), threading.RLock()
        self.found, self.searches = {}, {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process_lock = FileLock(self.folder / "found.csv.lock")
        if not self.process_lock.acquire(wait=False):
            raise InputError(f"another process collects into {self.folder}; wait until it has "
                             "ended, or choose another folder with --collected_dir")
        for row in self._read("found.csv", FOUND):
            self.found[row["class"], row["url"]] = row
        for row in self._read("searches.csv", SEARCHES):
            self.searches[search_key(row)] = row
        self.journal = Journal(self.folder / "found.csv.journal",
                               {"table": "found.csv", "version": 1})
        for entry in self.journal.entries:
            self._apply(**entry)

    def _read(self, name, columns):
        path = self.folder / name
        return read_table(path, columns) if path.exists() else []

    def _apply(self, rows=(), search=None, changes=None):
        """Apply one journal entry: new rows, a finished search, changes of one row."""
        for row in rows:
            self.found.setdefault((row["class"], row["url"]), row)
        if search:
            self.searches[search_key(search)] = search
        if changes:  # without its row if the user has removed found.csv after a kill
            self.found.get((changes["class"], changes["url"]), {}).update(changes)

    def _record(self, **entry):
        self.journal.append(entry)
        self._apply(**entry)

    def add(self, rows, search=None):
        """Add rows and, if it is finished, the row of a search; return the rows that are new."""
        with self.lock:
            new = {}
            for row in rows:
                if (row["class"], row["url"]) not in self.found:
                    new.setdefault((row["class"], row["url"]), row)
            self._record(rows=list(new.values()), search=search)
            return list(new.values())

    def change(self, row, **values):
        """Change values of a row."""
        with self.lock:
            key = {"class": row["class"], "url": row["url"]}
            self._record(changes={**key, **values, "time": now()})

    def photo_path(self, row):
        """Return where the photograph of a row is, None unless it is saved and still there."""
        path = self.folder / row["file"]
        return path if row["status"] == "saved" and path.is_file() else None

    def save(self):
        """Write the tables and ATTRIBUTION.csv; the journal is then no longer needed."""
        with self.lock:
            found = sorted(self.found.values(), key=found_order)
            searches = [self.searches[key] for key in sorted(self.searches)]
            kept = {row["file"]: row for row in reversed(found) if row["status"] == "saved"}
            write_table(self.folder / "found.csv", FOUND, found)
            write_table(self.folder / "searches.csv", SEARCHES, searches)
            write_table(self.folder / "ATTRIBUTION.csv", ATTRIBUTION,
                        [kept[file] for file in sorted(kept)])
            self.journal.finish()
            self.process_lock.release()


def search_key(row):
    """Return what identifies a row of searches.csv."""
    return row["class"], row["source"], row["kind"], row["query"]


def found_order(row):
    """Return the sort key of a row of found.csv."""
    return (row["class"], row["source"], KINDS.index(row["kind"]), row["query"], int(row["rank"]),
            row["url"])
