"""Collect photographs of every plant of the class table, and found.csv that says where each came from.

    python dataset_preparation/parsing/parsing.py --source inaturalist --limit_classes 5   # licensed, in minutes
    python dataset_preparation/parsing/parsing.py                                          # Yandex Images, in hours

Per name: NAME_RESULTS photographs by the Latin name and, where a source can search by image, SIMILAR_RESULTS similar
ones for each of its first SIMILAR_TO results. Stopped and started again it goes on: no answered search is asked and no
saved photograph is fetched again. The last line is `collected N photographs of K classes: <found.csv>`.
"""
import importlib
import sys
import time
from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # repository root
import config
from dataset_preparation.parsing.parsing_utils import (
    RESULT,
    Downloads,
    SearchFailed,
    SourceStopped,
    Tables,
    UnknownName,
    now,
    query_of,
    require_known,
)
from dataset_preparation.parsing.safe_download import Limits, Web
from utils import InputError, read_classes, run, warn

# Name of a source: its module, imported when the source is used (Selenium is large), with `build_source(web)`.
# A source has `terms`: {name: value} of what its answers depend on besides the text; `search(name)`: yields results for
# as long as it is asked for the next, dictionaries with `url` and any of the columns fallbacks, page, title, author,
# license, width, height; `similar(row)`: the same for a found row, or None; `note`: what a search had to remark; and
# `close()`.
# Searches raise UnknownName, SearchFailed and SourceStopped.
SOURCES = {"yandex": "yandex_images_parser", "inaturalist": "inaturalist", "gbif": "gbif"}
ANSWER_SECONDS, ANSWER_MB = 300, 100  # of an open interface at most; 200 observations of iNaturalist may have 12 MB
FAILURES_IN_A_ROW = 3  # unanswered searches after which a source is left for another run


def main(argv=None):
    config.override(argv, description=__doc__)
    s = config.namespace()
    classes = choose_classes(read_classes(s.class_table, s.limit_classes), s.classes)
    sources = build_sources()
    tables = Tables(s.collected_dir)
    downloads = Downloads(build_web(s.photo_seconds, s.photo_mb), tables, s.photo_megapixels, s.threads,
                          s.host_connections, s.host_delay, s.photo_attempts,
                          budgets=((60, s.host_gb_per_hour * 1e9), (24 * 60, s.host_gb_per_day * 1e9)))
    progress = Progress(len(classes) * len(sources), downloads)
    unanswered = 0
    try:
        chosen = {one.latin for one in classes}
        downloads.add([row for row in tables.found.values() if row["class"] in chosen and row["source"] in sources])
        for name, source in sources.items():
            with closing(source):
                unanswered += Search(name, source, s, tables, downloads, progress).run(classes)
        downloads.wait(progress.tick)
    finally:
        downloads.stop()
        progress.close()
        tables.save()
    report(tables, classes)
    if unanswered:
        raise InputError(f"searches without an answer: {unanswered:,}; the same command asks them again")


def build_web(seconds, megabytes):
    """Return the `Web` of the settings, an answer taking at most so many seconds and megabytes."""
    limits = Limits(config.CONNECT_SECONDS, config.READ_SECONDS, seconds, int(megabytes * 1e6))
    return Web(limits, config.PRIVATE_HOSTS, config.CONTACT, config.HOST_CONNECTIONS)


def build_sources():
    """Return {name: source} of the settings, all of them: what does not fit the last is said before the first asks."""
    names = [name.strip() for name in config.SOURCE.split(",")]
    require_known("SOURCE", names, SOURCES)
    web = build_web(ANSWER_SECONDS, ANSWER_MB)
    return {name: importlib.import_module(f"dataset_preparation.parsing.{SOURCES[name]}").build_source(web)
            for name in names}


def choose_classes(classes, text):
    """Return the classes that a text like "Rosa canina,10-19" names by Latin name or range of labels; all for ""."""
    if not text.strip():
        return classes
    chosen = set()
    for part in (part.strip() for part in text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            named = {one.label for one in classes if int(first) <= one.label <= int(last or first)}
        else:
            named = {one.label for one in classes if one.latin.lower() == part.lower()}
        if not named:
            raise InputError(f"CLASSES names {part!r}, neither a Latin name of the table nor a range of labels")
        chosen |= named
    return [one for one in classes if one.label in chosen]


class Search:
    """The searches of one source; what they find goes to the tables and at once to the downloads."""

    def __init__(self, name, source, s, tables, downloads, progress):
        self.name, self.source, self.s, self.tables = name, source, s, tables
        self.downloads, self.progress, self.failures, self.unanswered = downloads, progress, 0, 0

    def run(self, classes):
        """Ask for every class; return the number of searches without an answer, at least 1 if the source stopped."""
        try:
            for plant in classes:
                self._search_class(plant)
                self.progress.names.update()
        except SourceStopped as error:
            warn(f"{self.name} stopped at {plant.latin}: {error}")
            self.unanswered += 1
        return self.unanswered

    def _search_class(self, plant):
        found, wanted = 0, self.s.name_results
        for kind, name in [("name", plant.latin), *(("synonym", synonym) for synonym in plant.also)]:
            more = self._ask(plant, kind, name, wanted - found, self.source.search(name))
            found += more or 0
            if more is None or found >= min(self.s.synonym_below, wanted):
                break
        if self.source.similar is None:
            return
        named = [row for row in self.tables.found.values() if row["kind"] != "similar"
                 and (row["class"], row["source"]) == (plant.latin, self.name)]
        named.sort(key=lambda row: (row["kind"] == "synonym", row["query"], int(row["rank"])))
        for row in named[:self.s.similar_to]:
            self._ask(plant, "similar", row["url"], self.s.similar_results, self.source.similar(row))

    def _ask(self, plant, kind, text, count, search):
        """Ask one search unless its answer is there; return the number of results, None without an answer.

        `search` yields the results and asks nothing before the first is taken.
        """
        query = query_of(self.source, text)
        known = self.tables.searches.get((plant.latin, self.name, kind, query))
        if known and (known["answer"].split(":")[0] != "enough" or int(known["results"]) >= count):
            return int(known["results"])
        results, answer, self.source.note = [], None, ""
        try:
            for result in islice(search, count):
                results.append(result)
            answer = "enough" if len(results) >= count else "all" if results else "empty"
        except UnknownName as error:
            answer, self.source.note = "unknown", str(error)
        except (SearchFailed, LookupError, TypeError, AttributeError) as error:  # the latter: an answer of a new form
            if not isinstance(error, SearchFailed):
                error = SearchFailed(f"cannot read the answer: {error!r}")
            self.failures += 1
            if isinstance(error, SourceStopped) or self.failures >= FAILURES_IN_A_ROW:
                raise SourceStopped(str(error)) from error
            self.unanswered += 1
            warn(f"{plant.latin}: {self.name}: {error}")
        finally:
            self._take_over(plant, kind, text, query, answer, results)
        if answer is None:
            return None
        self.failures = 0
        return len(results)

    def _take_over(self, plant, kind, text, query, answer, results):
        """Add a search and its results to the tables and the downloads; without an answer, what there is of results."""
        if answer and self.source.note:
            warn(f"{plant.latin}: {self.source.note}")
            answer = f"{answer}: {self.source.note}"
        asked = {"class": plant.latin, "source": self.name, "query": query, "kind": kind, "time": now()}
        untried = {"parent": text if kind == "similar" else "", "status": "new", "reason": "", "sha256": "", "file": ""}
        rows = [{**asked, **untried, "rank": str(rank),
                 **{column: " ".join(str(result.get(column, "")).split()) for column in RESULT}}
                for rank, result in enumerate(results, 1)]
        search = {**asked, "answer": answer, "results": str(len(results))} if answer else None
        self.downloads.add(self.tables.add([row for row in rows if row["url"]], search))
        self.progress.searches.update()
        self.progress.tick()


class Progress:
    """Bars for names, searches and downloads on a terminal, a plain line every 30 seconds elsewhere."""

    def __init__(self, names, downloads):
        self.names, self.searches, self.photos = (
            tqdm(total=total, desc=label, unit="", disable=None, position=place, leave=False)
            for place, (label, total) in enumerate((("names", names), ("searches", None), ("photographs", None))))
        self.downloads, self.told = downloads, time.monotonic()

    def tick(self):
        """Show where things stand."""
        counts, tables = self.downloads.counts, self.downloads.tables
        if not self.photos.disable:
            self.photos.n, self.photos.total = counts.total(), counts.total() + len(self.downloads.left)
            self.photos.set_postfix(found=len(tables.found), **counts)
        elif time.monotonic() - self.told > 30:
            self.told = time.monotonic()
            print(f"{len(tables.searches):,} searches answered, {len(tables.found):,} found, "
                  f"{counts['saved']:,} saved, {counts['refused']:,} refused, {counts['failed']:,} failed, "
                  f"{len(self.downloads.left):,} to do", flush=True)

    def close(self):
        """Take the bars away."""
        for bar in (self.photos, self.searches, self.names):
            bar.close()


def report(tables, classes):
    """Print a line per class, the commonest reasons for having no photograph, and the closing line."""
    print(f"{'class':32} {'found':>7} {'saved':>7} {'photographs':>11} {'refused':>8} {'failed':>7}")
    chosen, files, reasons = {one.latin for one in classes}, set(), Counter()
    rows = [row for row in tables.found.values() if row["class"] in chosen]
    for plant in classes:
        own = [row for row in rows if row["class"] == plant.latin]
        counts = Counter(row["status"] for row in own)
        photos = {row["file"] for row in own if row["status"] == "saved"}
        files |= photos
        print(f"{plant.latin:32} {len(own):7,} {counts['saved']:7,} {len(photos):11,} {counts['refused']:8,} "
              f"{counts['failed']:7,}")
        reasons.update(row["reason"] for row in own if row["status"] in ("refused", "failed"))
    for reason, count in reasons.most_common(10):
        print(f"{count:7,} without a photograph: {reason}")
    print(f"collected {len(files):,} photographs of {len(classes)} classes: {tables.folder / 'found.csv'}")


if __name__ == "__main__":
    run(main)
