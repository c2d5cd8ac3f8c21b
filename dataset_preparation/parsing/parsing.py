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
    Downloads,
    SearchFailed,
    SourceStopped,
    Tables,
    UnknownName,
    now,
)
from dataset_preparation.parsing.web import Limits, Web
from utils import InputError, read_classes, run, warn

# Name of a source: its module, imported when the source is used (Selenium is large), with `build_source(web)`.
# A source has `query(text)`: what is asked for a text, filters included; `search(name)`: yields results for as long as
# it is asked for the next, dictionaries with `url` and any of the columns fallbacks, page, title, author, license,
# width, height; `similar(row)`: the same for a found row, or None; `note`: what a search had to remark; and `close()`.
# Searches raise UnknownName, SearchFailed and SourceStopped.
SOURCES = {"yandex": "yandex_images_parser", "inaturalist": "inaturalist", "gbif": "gbif"}
FAILURES_IN_A_ROW = 3  # unanswered searches after which a source is left for another run


def main(argv=None):
    config.override(argv, description=__doc__)
    classes = choose_classes(read_classes(config.CLASS_TABLE, config.LIMIT_CLASSES), config.CLASSES)
    sources = [name.strip() for name in config.SOURCE.split(",")]
    for name in sources:
        if name not in SOURCES:
            raise InputError(f"SOURCE names {name!r}; there are {', '.join(SOURCES)}")
    tables, web, s = Tables(config.COLLECTED_DIR), build_web(), config.namespace()
    downloads = build_downloads(web, tables)
    progress = Progress(len(classes) * len(sources), downloads)
    unanswered = 0
    try:
        chosen = {one.latin for one in classes}
        downloads.add([row for row in tables.found.values() if row["class"] in chosen and row["source"] in sources])
        for name in sources:
            module = importlib.import_module(f"dataset_preparation.parsing.{SOURCES[name]}")
            with closing(module.build_source(web)) as source:
                unanswered += Search(name, source, s, tables, downloads, progress).run(classes)
        downloads.wait(progress.tick)
    finally:
        downloads.stop()
        progress.close()
        tables.save()
    report(tables, classes)
    if unanswered:
        raise InputError(f"{unanswered:,} searches have no answer yet; the same command asks them again")


def build_web():
    """Return the `Web` of the settings."""
    limits = Limits(config.CONNECT_SECONDS, config.READ_SECONDS, config.PHOTO_SECONDS, int(config.PHOTO_MB * 1e6))
    return Web(limits, config.PRIVATE_HOSTS, config.CONTACT, config.HOST_CONNECTIONS)


def build_downloads(web, tables):
    """Return the `Downloads` of the settings, threads running."""
    return Downloads(web, tables, config.PHOTO_MEGAPIXELS, config.THREADS, config.HOST_CONNECTIONS, config.HOST_DELAY,
                     config.PHOTO_ATTEMPTS,
                     budgets=((60, config.HOST_GB_PER_HOUR * 1e9), (24 * 60, config.HOST_GB_PER_DAY * 1e9)))


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
        found = self._ask(plant, "name", plant.latin, "", self.s.name_results, self.source.search)
        for synonym in plant.also:
            if found is None or found >= self.s.synonym_below:
                break
            more = self._ask(plant, "synonym", synonym, "", self.s.name_results - found, self.source.search)
            found = None if more is None else found + more
        if self.source.similar is None:
            return
        named = [row for row in self.tables.found.values() if row["kind"] != "similar"
                 and (row["class"], row["source"]) == (plant.latin, self.name)]
        named.sort(key=lambda row: (row["kind"] == "synonym", row["query"], int(row["rank"])))
        for row in named[:self.s.similar_to]:
            self._ask(plant, "similar", row["url"], row["url"], self.s.similar_results,
                      lambda _, row=row: self.source.similar(row))

    def _ask(self, plant, kind, text, parent, count, search):
        """Ask one search unless its answer is there; return the number of results, None without an answer."""
        query = self.source.query(text)
        known = self.tables.searches.get((plant.latin, self.name, kind, query))
        if known and (known["answer"].split(":")[0] != "enough" or int(known["results"]) >= count):
            return int(known["results"])
        results, answer, self.source.note = [], None, ""
        try:
            for result in islice(search(text), count):
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
        else:
            self.failures = 0
        finally:
            self._take_over(plant, kind, query, parent, answer, results)
        return None if answer is None else len(results)

    def _take_over(self, plant, kind, query, parent, answer, results):
        """Add a search and its results to the tables and the downloads; without an answer, what there is of results."""
        if answer and self.source.note:
            warn(f"{plant.latin}: {self.source.note}")
            answer = f"{answer}: {self.source.note}"
        common = {"class": plant.latin, "source": self.name, "query": query, "kind": kind, "parent": parent,
                  "status": "new", "reason": "", "sha256": "", "file": "", "time": now()}
        rows = []
        for rank, result in enumerate(results, 1):
            texts = {column: " ".join(str(result.get(column, "")).split())
                     for column in ("url", "fallbacks", "page", "title", "author", "license", "width", "height")}
            rows.append({**common, **texts, "rank": str(rank)})
        search = {"class": plant.latin, "source": self.name, "query": query, "kind": kind, "answer": answer,
                  "results": str(len(results)), "time": now()}
        self.downloads.add(self.tables.add([row for row in rows if row["url"]], search if answer else None))
        self.progress.searches.update()
        self.progress.tick()


class Progress:
    """Bars for names, searches and downloads on a terminal, a plain line every 30 seconds elsewhere."""

    def __init__(self, names, downloads):
        terminal = sys.stderr.isatty()
        self.names, self.searches, self.photos = (
            tqdm(total=total, desc=label, unit="", disable=None, position=place, leave=False)
            for place, (label, total) in enumerate((("names", names), ("searches", None), ("photographs", None))))
        self.downloads, self.terminal, self.told = downloads, terminal, time.monotonic()

    def tick(self):
        """Show where things stand."""
        counts, tables = self.downloads.counts, self.downloads.tables
        if self.terminal:
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
