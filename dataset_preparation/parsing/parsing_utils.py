"""The tables of collecting: what was found, what was searched, and what became of both."""
import threading
import time
from collections import defaultdict
from pathlib import Path

from dataset_preparation.progress_journal import Journal
from utils import FileLock, InputError, read_table, write_table

# Columns of found.csv that a source fills, each from the value of that name in a result; a further
# column is a further line here. Tables written before have it empty.
RESULT = (
    "url",  # of the photograph at its best; one row for each class and url
    "fallbacks",  # addresses of smaller or other copies, best first, separated by spaces
    "page",  # where it is shown
    "title", "author", "license",
    "width", "height",  # pixels, as announced, then as downloaded
    "observation",  # the source's name of the observation: several photographs show one plant
    "observer",  # the source's name of the person who made it
    "date",  # of the observation, as YYYY-MM-DD or shorter
    "latitude", "longitude",  # degrees
    "obscured",  # "yes" where the source has blurred them
)
FOUND = (
    "class", "source", "query", "kind", "rank", "parent", *RESULT,
    "status",  # new, saved, failed (may work in another run) or refused
    "reason",  # why it is not saved, or saved from another address
    "ask_again",  # addresses better than what was saved that may work in the next run
    "sha256", "file", "time",
)
SEARCHES = (
    "class", "source", "query", "kind",
    "answer",  # open, failed: <reason>, or how it ended: enough, all, empty or unknown: <note>
    "results", "pages", "failures", "time",  # failures: turns without an answer since the last page
    "passed_over",  # JSON {reason: records or photographs that were not taken}
    "progress",  # JSON, of a search that may go on: see `searches.Progress`
)
NEEDED = {"found.csv": ("class", "source", "query", "kind", "rank", "url", "status"),
          "searches.csv": ("class", "source", "query", "kind", "answer", "results")}
ATTRIBUTION = ("file", "title", "author", "license", "page")
KINDS = ("name", "synonym", "similar")  # of searches
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # UTC


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
        self.found, self.searches, self.of_class = {}, {}, defaultdict(list)
        # (class, url) -> `ask_again` as an earlier run left it; what a killed run, which this one
        # resumes, has written to the journal does not count
        self.asked_before = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process_lock = FileLock(self.folder / "found.csv.lock")
        if not self.process_lock.acquire(wait=False):
            raise InputError(f"another process collects into {self.folder}; wait until it has "
                             "ended, or choose another folder with --collected_dir")
        for row in self._read("found.csv", FOUND):
            self._place(row)
            if row["ask_again"]:
                self.asked_before[row["class"], row["url"]] = row["ask_again"].split()
        for row in self._read("searches.csv", SEARCHES):
            self.searches[search_key(row)] = row
        self.journal = Journal(self.folder / "found.csv.journal",
                               {"table": "found.csv", "version": 1})
        for entry in self.journal.entries:
            self._apply(**entry)

    def _read(self, name, columns):
        """Return the rows of a table of this or an earlier version, missing columns empty."""
        path, empty = self.folder / name, dict.fromkeys(columns, "")
        rows = read_table(path, NEEDED[name]) if path.exists() else []
        return [{**empty, **row} for row in rows]

    def _place(self, row):
        """Put a found row that is new into the indices."""
        self.found[row["class"], row["url"]] = row
        self.of_class[row["class"]].append(row)

    def _apply(self, rows=(), search=None, changes=None):
        """Apply one journal entry: new rows, a finished search, changes of one row."""
        for row in rows:
            if (row["class"], row["url"]) not in self.found:
                self._place({**dict.fromkeys(FOUND, ""), **row})
        if search:
            self.searches[search_key(search)] = {**dict.fromkeys(SEARCHES, ""), **search}
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
            return [self.found[key] for key in new]

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
