"""The tables of collecting: found photographs and searches, and their states."""
import json
import re
import threading
import time
from collections import defaultdict
from pathlib import Path, PurePosixPath

from dataset_preparation.licenses import read_license, strictest
from dataset_preparation.parsing.addresses import identity
from dataset_preparation.parsing.license_filter import (
    SET_ASIDE,
    filter_by_license,
    licenses_of,
    write_citations,
)
from dataset_preparation.progress_journal import Journal, read_journal
from names import whole_number
from utils import FileLock, InputError, read_table, write_table

# Columns of found.csv that a source fills, each from the value of that name in a result; a further
# column is a further line here. Tables written before have it empty.
RESULT = (
    "url",  # of the photograph at its best; one row for each class and url
    "fallbacks",  # addresses of smaller or other copies, best first, separated by spaces
    "page",  # where it is shown
    "title", "author", "license",
    "rights_holder",  # to be credited where no author is known: a publisher, no observer
    "width", "height",  # pixels, as announced, then as downloaded
    "observation",  # the source's name of the observation: several photographs show one plant
    "observer",  # the source's name of the person who made it
    "date",  # of the observation, as YYYY-MM-DD or shorter
    "latitude", "longitude",  # degrees
    "obscured",  # "yes" where the source has blurred them
    "dataset",  # GBIF's key of the dataset it is from, for the citation
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
    "progress",  # JSON, of a search that may continue: see `searches.Position`
)
NEEDED = {"found.csv": ("class", "source", "query", "kind", "rank", "url", "status"),
          "searches.csv": ("class", "source", "query", "kind", "answer", "results")}
JOURNAL, HEADER = "found.csv.journal", {"table": "found.csv", "version": 1}
STATUSES = ("new", "saved", "failed", "refused",
            "removed",  # by hand, of a photograph that must not come back
            SET_ASIDE)  # its licence is not wanted at present
ATTRIBUTION = ("file", "title", "author", "license", "page")
FROM_FALLBACK = "from fallback "  # reason of a row whose photograph came from a fallback address
FACTS = ("title", "author", "license", "rights_holder", "observation", "observer", "date",
         "latitude", "longitude", "obscured", "dataset")  # of a photograph, from whatever search
OBSERVATION_PAGE = re.compile(r"https?://www\.inaturalist\.org/observations/\d+")
KINDS = ("name", "synonym", "similar")  # of searches
TIME_FORMAT, FIRST_TIME = "%Y-%m-%dT%H:%M:%SZ", "1970-01-01T00:00:00Z"  # UTC


def query_of(source, text):
    """Return the query of a search in the tables: its text and the source's terms."""
    return " ".join([text, *(f"{name}={value}" for name, value in source.terms.items())])


def now():
    """Return the current time in the form of the tables: UTC, to the second."""
    return time.strftime(TIME_FORMAT, time.gmtime())


class Ledger:
    """What found.csv, searches.csv and the journal of an unfinished run say together.

    `found` maps (class, url) to a row, `of_class` a Latin name to its rows, `searches` (class,
    source, kind, query) to a row; all values are text. `columns` are those of found.csv, with those
    that the user has added. Reading changes no file and takes no lock: any step may do it during a
    run. Raises InputError naming the line that cannot be read.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.found, self.searches, self.of_class = {}, {}, defaultdict(list)
        self.photographs = defaultdict(list)  # (class, identity of a photograph) -> its rows
        # (class, url) -> `ask_again` as an earlier run left it; what a killed run, which this one
        # resumes, has written to the journal does not count
        self.asked_before = {}
        # first: a run that ends in between has then written to the table what is missing here
        entries, _ = read_journal(self.folder / JOURNAL)
        rows = self._read("found.csv", FOUND, check_found)
        self.columns = tuple(dict.fromkeys((*FOUND, *filter(None, rows[0] if rows else ()))))
        for row in rows:
            self._place(row)
            if row["ask_again"]:
                self.asked_before[row["class"], row["url"]] = row["ask_again"].split()
        for row in self._read("searches.csv", SEARCHES, check_search):
            self.searches[search_key(row)] = row
        if entries and entries[0] != HEADER:
            raise InputError(f"{self.folder / JOURNAL} was written by another version of this "
                             "program; finish its run with that version")
        for entry in entries[1:]:
            self._apply(**entry)

    def _read(self, name, columns, check):
        """Return the rows of a table of this or an earlier version, missing columns empty."""
        path, empty = self.folder / name, dict.fromkeys(columns, "")
        rows = read_table(path, NEEDED[name]) if path.exists() else []
        for line, row in enumerate(rows, 2):
            problem = check(row)
            if problem:
                raise InputError(f"{path}, line {line}: {problem}; correct the cell, or restore "
                                 "the table as it was written")
        return [{**empty, **row} for row in rows]

    def _place(self, row):
        """Add a new found row to the indices."""
        self.found[row["class"], row["url"]] = row
        self.photographs[photograph_of(row)].append(row)
        self.of_class[row["class"]].append(row)

    def _apply(self, rows=(), search=None, changes=None):
        """Apply one journal entry: new rows, the state of a search, or changes of one row."""
        for row in rows:
            if photograph_of(row) not in self.photographs:
                self._place({**dict.fromkeys(FOUND, ""), **row})
        if search:
            self.searches[search_key(search)] = {**dict.fromkeys(SEARCHES, ""), **search}
        if changes:  # its row is missing if the user has removed found.csv after a kill
            key = changes["class"], changes["url"]
            self.found.get(key, {}).update(changes)
            if "ask_again" in changes:  # by the journal's run, which may have written the table
                self.asked_before.pop(key, None)

    def photo_path(self, row):
        """Return where the photograph of a row is, None unless it is saved and still there.

        An empty file, as a power cut leaves one, does not count.
        """
        path = self.folder / row["file"]
        return path if row["status"] == "saved" and holds_bytes(path) else None

    def is_shared(self, row):
        """Return whether another row of the class has the photograph of a row, too."""
        return any(other["file"] == row["file"] and other is not row
                   for other in self.of_class[row["class"]])


def read_found(folder, columns):
    """Return the rows of found.csv and of the journal beside it, sorted, with these columns.

    Both together are current at every moment of a run, also after a kill. A table alone may be the
    user's own, with fewer columns than ours; [] where there is neither.
    """
    table = Path(folder) / "found.csv"
    if unfinished_run(folder):
        return sorted(Ledger(folder).found.values(), key=found_order)
    return read_table(table, columns) if table.is_file() else []


def unfinished_run(folder):
    """Return the warning for a folder whose run of collecting has not finished, or ""."""
    journal = Path(folder) / JOURNAL
    if not journal.exists():
        return ""
    return (f"collecting has not finished: found.csv is read with {journal}; run parsing.py again "
            "for the rest")


class Tables(Ledger):
    """The ledger of a folder that one process may change; each change goes to the journal at once.

    Raises InputError where another process has it open: the later of the two would overwrite what
    the first has found. With `licenses`, rows and photographs of any other are set aside, when it
    is opened and when it is saved; `set_aside` counts those photographs by licence.
    """

    def __init__(self, folder, licenses=None):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.lock, self.process_lock = threading.RLock(), FileLock(Path(folder) / "found.csv.lock")
        if not self.process_lock.acquire(wait=False):
            raise InputError(f"another process collects into {folder}; wait until it has "
                             "ended, or choose another folder with --collected_dir")
        super().__init__(folder)
        self.journal = Journal(self.folder / JOURNAL, HEADER)
        self.licenses, self.set_aside = licenses, filter_by_license(self, licenses)

    def _record(self, **entry):
        self.journal.append(entry)
        self._apply(**entry)

    def add(self, rows, search=None):
        """Add rows and, if it is finished, the row of a search; return the rows that are new."""
        with self.lock:
            new = {}
            for row in rows:
                if photograph_of(row) not in self.photographs:
                    new.setdefault(photograph_of(row), row)
                else:
                    self.complete(row)
            self._record(rows=list(new.values()), search=search)
            return [self.found[row["class"], row["url"]] for row in new.values()]

    def complete(self, row):
        """Add to the known rows of a photograph what only a row of another search says.

        Where both state a licence the stricter one counts.
        """
        for known in self.photographs.get(photograph_of(row), ()):
            new = {name: row[name] for name in FACTS if row.get(name) and not known[name]}
            if OBSERVATION_PAGE.match(row["page"]) and not OBSERVATION_PAGE.match(known["page"]):
                new |= {"page": row["page"], "observation": row.get("observation", "")}
            if known["license"] and read_license(row["license"]) != read_license(known["license"]):
                new["license"] = row["license"] and strictest([known["license"], row["license"]])
            new = {name: value for name, value in new.items() if value and value != known[name]}
            if new:
                self.change(known, **new)

    def change(self, row, **values):
        """Change values of a row."""
        with self.lock:
            key = {"class": row["class"], "url": row["url"]}
            self._record(changes={**key, **values, "time": now()})

    def save(self):
        """Write the tables and ATTRIBUTION.csv; delete the journal."""
        with self.lock:
            self.set_aside = filter_by_license(self, self.licenses)
            found = sorted(self.found.values(), key=found_order)
            searches = [self.searches[key] for key in sorted(self.searches)]
            saved, licenses = [row for row in found if row["status"] == "saved"], licenses_of(found)
            kept = {row["file"]: {**row, "author": credited(row),
                                  "license": licenses.get(row["sha256"], row["license"])}
                    for row in reversed(saved)}
            write_table(self.folder / "found.csv", self.columns, found)
            write_table(self.folder / "searches.csv", SEARCHES, searches)
            write_table(self.folder / "ATTRIBUTION.csv", ATTRIBUTION,
                        [kept[file] for file in sorted(kept)])
            write_citations(self.folder, saved)
            self.journal.finish()
            self.process_lock.release()


def credited(row):
    """Return whom to credit for the photograph of a row."""
    return row["author"] or row.get("rights_holder", "")


def photograph_of(row):
    """Return the identity of a found row's photograph within its class, the same in all sources."""
    return row["class"], identity(row["url"])


def holds_bytes(path):
    """Return whether a path is a file that is not empty."""
    return path.is_file() and path.stat().st_size > 0


def area(width, height):
    """Return the number of pixels of a photograph; its sides may be text, or "" if unknown."""
    return int(width or 0) * int(height or 0)


def search_key(row):
    """Return the key of a row of searches.csv."""
    return row["class"], row["source"], row["kind"], row["query"]


def found_order(row):
    """Return the sort key of a row of found.csv."""
    return (row["class"], row["source"], KINDS.index(row["kind"]), row["query"], int(row["rank"]),
            row["url"])


# ---- rows as written, or edited by hand ----

def check_found(row):
    """Return what is wrong with a row of found.csv, "" if nothing."""
    for name, values in (("kind", KINDS), ("status", STATUSES)):
        if row[name] not in values:
            return f"{name} {row[name]!r} is not one of {', '.join(values)}"
    if not is_inside(row.get("file", "")):
        row["file"] = ""  # as if it were gone
    try:
        time.strptime(row.get("time") or FIRST_TIME, TIME_FORMAT)
    except ValueError:
        return f"time {row['time']!r} is not like {now()}"
    return check_whole_numbers(row, "rank", "width", "height")


def check_search(row):
    """Return what is wrong with a row of searches.csv, "" if nothing."""
    for name, fits in (("progress", is_progress), ("passed_over", lambda value: all(
            isinstance(count, int) for count in value.values()))):
        try:
            value = json.loads(row.get(name) or "{}")
        except ValueError:
            value = None
        if not (isinstance(value, dict) and fits(value)):
            return f"{name} {row[name][:40]!r} is not what collecting has written"
    return check_whole_numbers(row, "results", "pages", "failures")


def check_whole_numbers(row, needed, *others):
    """Return which cell is not a whole number, "" if none; all but `needed` may be empty."""
    for name in (needed, *others):
        row[name] = row.get(name, "").removesuffix(".0")  # as spreadsheets and pandas may write it
        if whole_number(row[name]) is None and (row[name] or name == needed):
            return f"{name} {row[name]!r} is not a whole number"
    return ""


def is_progress(value):
    """Return whether a JSON object has the fields of `searches.Position`."""
    return (set(value) <= {"state", "taken", "passed_over", "note"}
            and isinstance(value.get("taken", 0), int)
            and isinstance(value.get("passed_over", {}), dict))


def is_inside(file):
    """Return whether a row's file, which may be untrusted, is below images/<Latin>/."""
    parts = PurePosixPath(file.replace("\\", "/")).parts
    return len(parts) > 2 and parts[0] == "images" and ".." not in parts


def used_address(row):
    """Return the address that the photograph of a row came from."""
    reason = row.get("reason", "")
    if reason.startswith(FROM_FALLBACK):
        return reason.removeprefix(FROM_FALLBACK).partition("; ")[0]
    return row["url"]
