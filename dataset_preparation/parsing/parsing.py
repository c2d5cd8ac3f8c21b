"""Collect photographs of every plant of the class table; found.csv records where each is from.

    python dataset_preparation/parsing/parsing.py --source inaturalist --limit_classes 5  # minutes
    python dataset_preparation/parsing/parsing.py                         # Yandex Images: hours

For each name: NAME_RESULTS photographs found by the Latin name and, where a source can search by
image, SIMILAR_RESULTS similar ones for each of its first SIMILAR_TO results. Run the same command
again to resume: no finished search is made and no saved photograph is downloaded twice. The last
line is `collected N photographs of K classes: <found.csv>`.
"""
import importlib
import sys
import time
from collections import Counter, defaultdict
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # repository root
import config
from dataset_preparation.parsing.host_schedule import HostLimits
from dataset_preparation.parsing.parsing_utils import (
    RESULT,
    SearchFailed,
    SourceStopped,
    Tables,
    UnknownName,
    now,
    query_of,
    search_key,
)
from dataset_preparation.parsing.photo_downloads import Downloads
from dataset_preparation.parsing.safe_download import Limits, guarded_web
from utils import InputError, read_classes, run, warn

# Name of a source -> its module, which has `build_source(web, s)` and is imported when the source
# is used (Selenium is large). A source has
#   terms           {name: value} of what its results depend on besides the text of the search
#   search(name)    an iterator of results, which makes no request before the first is taken:
#                   dictionaries with `url` and any other column of `parsing_utils.RESULT`
#   similar(row)    the same for photographs like that of a found row; None if it cannot
#   note            what a search had to remark, "" if nothing
#   close()
# Searches raise UnknownName, SearchFailed and SourceStopped.
SOURCES = {"yandex": "yandex_images_parser", "inaturalist": "inaturalist", "gbif": "gbif"}
# limits of one response of a REST API; 200 observations of iNaturalist may have 12 MB
RESPONSE_SECONDS, RESPONSE_MB = 300, 100
FAILURES_IN_A_ROW = 3  # failed searches after which a source is left for another run


class Wanted(NamedTuple):
    """How many results are wanted."""

    name_results: int  # per name
    synonym_below: int  # results of a name; with fewer, its synonyms are searched too
    similar_to: int  # first results of a name to search similar photographs of
    similar_results: int  # per such search


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    classes = choose_classes(read_classes(s.class_table, s.limit_classes), s.classes)
    sources = build_sources(s)
    tables = Tables(s.collected_dir)
    downloads = build_downloads(tables, s)
    wanted = Wanted(s.name_results, s.synonym_below, s.similar_to, s.similar_results)
    progress = Progress(len(classes) * len(sources), downloads)
    failed = 0
    try:
        chosen = {plant.latin for plant in classes}
        downloads.add([row for row in tables.found.values()
                       if row["class"] in chosen and row["source"] in sources])
        for name, source in sources.items():
            with closing(source):
                search = Search(name, source, wanted, tables, downloads, progress)
                failed += search.run(classes)
        downloads.wait(progress.tick)
    finally:
        downloads.stop()
        progress.close()
        tables.save()
    report(tables, classes)
    if failed:
        raise InputError(f"searches that failed: {failed:,}; run the same command again to repeat "
                         "them")


def build_web(s, seconds, megabytes):
    """Return the `Web` of the settings; a response may take this many seconds and megabytes."""
    limits = Limits(s.connect_seconds, s.read_seconds, seconds, int(megabytes * 1e6))
    return guarded_web(limits, s.private_hosts, s.contact, s.host_connections)


def build_downloads(tables, s):
    """Return the running `Downloads` of the settings."""
    budgets = ((60, s.host_gb_per_hour * 1e9), (24 * 60, s.host_gb_per_day * 1e9))
    limits = HostLimits(s.host_connections, s.host_delay, s.photo_attempts, budgets)
    web = build_web(s, s.photo_seconds, s.photo_mb)
    return Downloads(web, tables, limits, s.photo_megapixels, s.threads)


def build_sources(s):
    """Return {name: source} of the settings; raises InputError before the first request."""
    web = build_web(s, RESPONSE_SECONDS, RESPONSE_MB)
    sources = {}
    for name in map(str.strip, s.source.split(",")):
        module = importlib.import_module(f"dataset_preparation.parsing.{SOURCES[name]}")
        sources[name] = module.build_source(web, s)
    return sources


def choose_classes(classes, text):
    """Return the classes that a text names by Latin name or range of labels; all of them for "".

    Such a text is "Rosa canina,10-19".
    """
    if not text.strip():
        return classes
    chosen = set()
    for part in (part.strip() for part in text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            labels = range(int(first), int(last or first) + 1)
            named = {plant.label for plant in classes if plant.label in labels}
        else:
            named = {plant.label for plant in classes if plant.latin.lower() == part.lower()}
        if not named:
            raise InputError(f"CLASSES has {part!r}, which is neither a Latin name of the class "
                             "table nor a range of its labels")
        chosen |= named
    return [plant for plant in classes if plant.label in chosen]


class Search:
    """The searches of one source; their results go to the tables and at once to the downloads."""

    def __init__(self, name, source, wanted, tables, downloads, progress):
        self.name, self.source, self.wanted, self.tables = name, source, wanted, tables
        self.downloads, self.progress = downloads, progress
        self.failures_in_a_row = self.failed = 0

    def run(self, classes):
        """Search every class; return the number of failed searches, at least 1 after a stop."""
        try:
            for plant in classes:
                self._search_names(plant)
                if self.source.similar is not None:
                    self._search_similar(plant)
                self.progress.names.update()
        except SourceStopped as error:
            warn(f"{self.name} stopped at {plant.latin}: {error}")
            self.failed += 1
        return self.failed

    def _search_names(self, plant):
        """Search the Latin name, then synonyms while there are too few results."""
        found, wanted = 0, self.wanted.name_results
        enough = min(self.wanted.synonym_below, wanted)
        names = [("name", plant.latin), *(("synonym", name) for name in plant.also)]
        for kind, name in names:
            count = self._search(plant, kind, name, wanted - found, self.source.search(name))
            if count is None:
                return
            found += count
            if found >= enough:
                return

    def _search_similar(self, plant):
        """Search photographs like the first results of the class's names."""
        rows = [row for row in self.tables.found.values() if row["kind"] != "similar"
                and (row["class"], row["source"]) == (plant.latin, self.name)]
        rows.sort(key=lambda row: (row["kind"] == "synonym", row["query"], int(row["rank"])))
        for row in rows[:self.wanted.similar_to]:
            self._search(plant, "similar", row["url"], self.wanted.similar_results,
                         self.source.similar(row))

    def _search(self, plant, kind, text, count, results):
        """Make one search, unless the tables have it; return its number of results, None if failed.

        `results` is what the source's `search` or `similar` has returned.
        """
        search = {"class": plant.latin, "source": self.name, "kind": kind,
                  "query": query_of(self.source, text)}
        earlier = self.tables.searches.get(search_key(search))
        if earlier and (earlier["answer"].split(":")[0] != "enough"
                        or int(earlier["results"]) >= count):
            return int(earlier["results"])
        taken, outcome, self.source.note = [], "", ""
        try:
            for result in islice(results, count):
                taken.append(result)  # one by one: those before a failure are kept
            outcome = "enough" if len(taken) >= count else "all" if taken else "empty"
        except UnknownName as error:
            outcome, self.source.note = "unknown", str(error)
        except SearchFailed as error:
            self._fail(plant, error)
        except (LookupError, TypeError, AttributeError) as error:  # known keys with other values
            self._fail(plant, SearchFailed(f"cannot read the response: {error!r}"))
        finally:  # also after Ctrl-C
            self._record(search, text, outcome, taken)
        if not outcome:
            return None
        self.failures_in_a_row = 0
        return len(taken)

    def _fail(self, plant, error):
        """Count and print a failed search; raise SourceStopped if it is one too many in a row."""
        self.failures_in_a_row += 1
        if isinstance(error, SourceStopped) or self.failures_in_a_row >= FAILURES_IN_A_ROW:
            raise SourceStopped(str(error)) from error
        self.failed += 1
        warn(f"{plant.latin}: {self.name}: {error}")

    def _record(self, search, text, outcome, results):
        """Write a finished search and its results to the tables, and start their downloads.

        `outcome` is "enough" (as many results as wanted), "all" (the source has no more), "empty",
        "unknown" (the source does not know the name), or "" for a failed search, of which only
        the results are written.
        """
        finished, parent = None, text if search["kind"] == "similar" else ""
        if outcome:
            if self.source.note:
                warn(f"{search['class']}: {self.source.note}")
                outcome += f": {self.source.note}"
            finished = {**search, "answer": outcome, "results": str(len(results)), "time": now()}
        rows = found_rows(search, parent, results)
        self.downloads.add(self.tables.add(rows, finished))
        self.progress.searches.update()
        self.progress.tick()


def found_rows(search, parent, results):
    """Return the rows of found.csv for the results of a search, before any download."""
    rows = []
    for rank, result in enumerate(results, 1):
        if result["url"]:
            values = {column: " ".join(str(result.get(column, "")).split()) for column in RESULT}
            rows.append({**search, **values, "rank": str(rank), "parent": parent, "status": "new",
                         "reason": "", "sha256": "", "file": "", "time": now()})
    return rows


class Progress:
    """Bars for names, searches and downloads on a terminal, a line every 30 seconds elsewhere."""

    def __init__(self, names, downloads):
        self.names, self.searches, self.photos = (
            tqdm(total=total, desc=label, unit="", disable=None, position=position, leave=False)
            for position, (label, total) in enumerate(
                (("names", names), ("searches", None), ("photographs", None))))
        self.downloads, self.last_line = downloads, time.monotonic()

    def tick(self):
        """Show the state of the run."""
        counts, tables = self.downloads.counts, self.downloads.tables
        unfinished = len(self.downloads.unfinished)
        if not self.photos.disable:
            self.photos.n, self.photos.total = counts.total(), counts.total() + unfinished
            self.photos.set_postfix(found=len(tables.found), **counts)
        elif time.monotonic() - self.last_line > 30:
            self.last_line = time.monotonic()
            print(f"{len(tables.searches):,} searches finished, {len(tables.found):,} found, "
                  f"{counts['saved']:,} saved, {counts['refused']:,} refused, "
                  f"{counts['failed']:,} failed, {unfinished:,} to do", flush=True)

    def close(self):
        """Remove the bars."""
        for bar in (self.photos, self.searches, self.names):
            bar.close()


def report(tables, classes):
    """Print a line per class, the commonest reasons for missing photographs, and the last line."""
    rows_of = defaultdict(list)
    for row in tables.found.values():
        rows_of[row["class"]].append(row)
    print(f"{'class':32} {'found':>7} {'saved':>7} {'photographs':>11} {'refused':>8} "
          f"{'failed':>7}")
    files, reasons = set(), Counter()
    for plant in classes:
        rows = rows_of[plant.latin]
        counts = Counter(row["status"] for row in rows)
        photos = {row["file"] for row in rows if row["status"] == "saved"}
        files |= photos
        print(f"{plant.latin:32} {len(rows):7,} {counts['saved']:7,} {len(photos):11,} "
              f"{counts['refused']:8,} {counts['failed']:7,}")
        reasons.update(row["reason"] for row in rows if row["status"] in ("refused", "failed"))
    for reason, count in reasons.most_common(10):
        print(f"{count:7,} without a photograph: {reason}")
    print(f"collected {len(files):,} photographs of {len(classes)} classes: "
          f"{tables.folder / 'found.csv'}")


if __name__ == "__main__":
    run(main)
