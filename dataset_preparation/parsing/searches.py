"""The searches of one source, page by page, so that none is ever repeated from its start."""
import json
from collections import Counter
from typing import NamedTuple

from dataset_preparation.parsing.collected_tables import RESULT, now, query_of, search_key
from dataset_preparation.parsing.sources import (
    NothingYet,
    SearchFailed,
    SiteFailed,
    SourceStopped,
    UnknownName,
    describe_missing,
)
from utils import warn

# More than three, since a few names in a row may fail for reasons of their own.
FAILURES_IN_A_ROW = 6
SIMILAR_FAILURES_IN_A_ROW = 3  # after which the other searches of a name wait for its next turn
NOTHING_YET = "no results yet"  # start of the reason of such a failure
LONGEST_CELL = 8000  # characters of a text; longer ones are not a title or name, and are cut
LAST = ("all", "empty", "unknown")  # answers of searches that are complete


class Wanted(NamedTuple):
    """The numbers of results wanted."""

    name_results: int  # per name
    synonym_below: int  # results of a name; with fewer, its synonyms are searched too
    similar_to: int  # first results of a name to search similar photographs of
    similar_results: int  # per such search
    try_again: tuple = ()  # answers of earlier runs to ask for once more: empty, unknown


class Position(NamedTuple):
    """The progress of a search, from which it can continue after its last page."""

    state: object = None  # of that page, see `sources.ResultPage`
    taken: int = 0  # results on the pages so far
    passed_over: dict = {}  # reason -> skipped records on the pages so far
    note: str = ""


class Searches:
    """The searches of one source; results go to the tables and immediately to the downloads."""

    def __init__(self, name, source, wanted, tables, downloads, progress):
        self.name, self.source, self.wanted, self.tables = name, source, wanted, tables
        self.downloads, self.progress = downloads, progress
        self.failures_in_a_row = self.answered = 0

    def run(self, classes):
        """Search every class; repeat failed ones after all others."""
        plant, failed = None, []  # (class, number of answered searches at that time)
        try:
            for plant in self._in_turn(classes):
                if not self._search_class(plant):
                    failed.append((plant, self.answered))
                self.progress.names.update()
            for plant, answered in failed:
                if self.answered > answered:  # the source works: it may have been a passing fault
                    self._search_class(plant)
        except SourceStopped as error:
            warn(f"{self.name} stopped at {plant.latin}: {error}")

    def _in_turn(self, classes):
        """Return the classes; those that failed in an earlier run are last, the oldest first."""
        failed_at = {}
        for row in self.tables.searches.values():
            if row["source"] == self.name and answer_of(row) == "failed":
                failed_at[row["class"]] = max(row["time"], failed_at.get(row["class"], ""))
        return sorted(classes, key=lambda plant: failed_at.get(plant.latin, ""))

    def _search_class(self, plant):
        """Make every search of a class; return False if one has failed and should be repeated."""
        self.progress.now = f"{self.name}: {plant.latin}"
        done = self._search_names(plant)
        if self.source.similar is not None:
            done = self._search_similar(plant) and done
        return done

    def _search_names(self, plant):
        """Search the Latin name, then synonyms as long as there are too few results."""
        found, wanted = 0, self.wanted.name_results
        enough = min(self.wanted.synonym_below, wanted)
        names = [("name", plant.latin), *(("synonym", name) for name in plant.also)]
        for kind, name in names:
            count = self._search(plant, kind, name, wanted - found)
            if count is None:
                return False
            found += count
            if found >= enough:
                break
        return True

    def _search_similar(self, plant):
        """Search photographs similar to the first results of the class's names."""
        rows = [row for row in self.tables.of_class[plant.latin]
                if row["kind"] != "similar" and row["source"] == self.name]
        rows.sort(key=lambda row: (row["kind"] == "synonym", row["query"], int(row["rank"])))
        # those that failed in an earlier run are last: three of them would stop the others
        rows = sorted(rows[:self.wanted.similar_to], key=self._failed_at)
        failures, done = 0, True
        for row in rows:
            if self._search(plant, "similar", row["url"], self.wanted.similar_results, row) is None:
                failures, done = failures + 1, False
            else:
                failures = 0
            if failures == SIMILAR_FAILURES_IN_A_ROW:
                break
        return done

    def _failed_at(self, row):
        """Return when the search for photographs like this row's has failed, "" if it has not."""
        key = row["class"], self.name, "similar", query_of(self.source, row["url"])
        search = self.tables.searches.get(key, {})
        return search["time"] if answer_of(search) == "failed" else ""

    # ---- one search ----

    def _search(self, plant, kind, text, count, row=None):
        """Make one search, unless it is finished; return its number of results, None if failed.

        It continues after the last page that an earlier run recorded. `row` is the found row of a
        search for similar photographs.
        """
        search = {"class": plant.latin, "source": self.name, "kind": kind,
                  "query": query_of(self.source, text)}
        earlier = self.tables.searches.get(search_key(search), {})
        if is_finished(earlier, count) and answer_of(earlier) not in self.wanted.try_again:
            return int(earlier["results"])
        position = Position(**json.loads(earlier.get("progress") or "{}"))
        search = {**search, "results": "0", "pages": "0", "failures": "0", "progress": "",
                  **{name: value for name, value in earlier.items() if value}}
        self.source.note = position.note
        ask, about = (self.source.similar, row) if row else (self.source.search, text)
        try:
            before = self._rows_of(search, position.taken)
            self._take_pages(search, row["url"] if row else "", count, position,
                             ask(about, position.state, before))
        except UnknownName as error:
            self._record({**search, "progress": ""}, f"unknown: {error}")
            warn(f"{search['class']}: {error}")
        except NothingYet as error:
            if not earlier.get("answer", "").startswith(f"failed: {NOTHING_YET}"):
                return self._fail(search, earlier, NothingYet(f"{NOTHING_YET}: {error}"))
            self._record({**search, "progress": ""}, "all" if int(search["results"]) else "empty")
        except SearchFailed as error:
            return self._fail(search, earlier, error)
        except (LookupError, TypeError, AttributeError) as error:  # known keys with other values
            return self._fail(search, earlier, SearchFailed(
                f"the response has an unexpected form: {describe_missing(error)}"))
        self.failures_in_a_row, self.answered = 0, self.answered + 1
        return int(search["results"])

    def _rows_of(self, search, count):
        """Return the found rows of a search among its first `count` results."""
        key = search_key(search)
        rows = [row for row in self.tables.of_class[search["class"]]
                if search_key(row) == key and int(row["rank"]) <= count] if count else []
        return sorted(rows, key=lambda row: int(row["rank"]))

    def _take_pages(self, search, parent, count, position, pages):
        """Record pages until there are `count` results."""
        for page in pages:
            kept = page.results[:count - position.taken]
            taken, rows = position.taken + len(kept), found_rows(search, parent, kept, position)
            lost = Counter({"no usable address": sum(not result["url"] for result in kept)})
            passed_over = dict(Counter(position.passed_over) + Counter(page.passed_over) + lost)
            if len(kept) == len(page.results):  # else this page is read again if more are wanted
                position = Position(page.state, taken, passed_over, self.source.note)
            is_end = page.state is None and len(kept) == len(page.results)
            answer = "open"
            if is_end:
                answer = "all" if taken else "empty"
            elif taken >= count:
                answer = "enough"
            search.update(results=str(taken), pages=str(int(search["pages"]) + 1), failures="0",
                          passed_over=json.dumps(passed_over) if passed_over else "",
                          progress="" if is_end else json.dumps(position._asdict()))
            self._record(search, answer, rows)
            if answer != "open":
                break
        else:  # the source had no more pages
            self._record(search, "all" if int(search["results"]) else "empty")
        if self.source.note:
            warn(f"{search['class']}: {self.source.note}")

    def _fail(self, search, earlier, error):
        """Record a failed search; raise SourceStopped after too many in a row."""
        if isinstance(error, SourceStopped):
            raise error  # not a failure of this search
        search["failures"] = str(int(search["failures"]) + 1)
        known = answer_of(earlier) == "failed" and not isinstance(error, SiteFailed)
        self.failures_in_a_row += not known  # a repeated failure is no news about the site
        self._record(search, f"failed: {error}")
        warn(f"{search['class']}: {self.name}: {error}")
        if self.failures_in_a_row >= FAILURES_IN_A_ROW:
            raise SourceStopped(str(error))

    def _record(self, search, answer, rows=()):
        """Write the state of a search and new rows to the tables, and start their downloads."""
        note = f": {self.source.note}" if self.source.note and answer in LAST + ("enough",) else ""
        row = {**search, "answer": answer + note, "time": now()}
        self.downloads.add(self.tables.add(rows, row))
        self.progress.count_page()


def answer_of(row):
    """Return the first word of a search's answer, "" if it has none."""
    return row.get("answer", "").split(":")[0]


def is_finished(row, count):
    """Return whether a row of searches.csv needs no further page for `count` results."""
    answer = answer_of(row)
    return answer in LAST or answer == "enough" and int(row["results"]) >= count


def found_rows(search, parent, results, position):
    """Return the rows of found.csv for results that follow those before `position`."""
    rows = []
    for rank, result in enumerate(results, position.taken + 1):
        if result["url"]:
            values = {column: table_cell(column, result.get(column, "")) for column in RESULT}
            rows.append({**{name: search[name] for name in ("class", "source", "query", "kind")},
                         **values, "rank": str(rank), "parent": parent, "status": "new",
                         "time": now()})
    return rows


def table_cell(column, value):
    """Return a value of a result, which may be of any type and length, as a cell of found.csv."""
    text = " ".join(str(value).replace("\0", "").split())
    if column in ("width", "height"):  # whole pixels, or not known
        return text if text.isascii() and text.isdigit() and len(text) < 7 else ""
    return text if column in ("url", "fallbacks") else text[:LONGEST_CELL]
