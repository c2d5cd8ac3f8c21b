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
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # repository root
import config
from dataset_preparation.parsing.connections import build_network
from dataset_preparation.parsing.host_schedule import HostLimits
from dataset_preparation.parsing.license_filter import set_aside_lines
from dataset_preparation.parsing.parsing_utils import Tables
from dataset_preparation.parsing.photo_downloads import Downloads
from dataset_preparation.parsing.safe_download import Limits, guarded_web
from dataset_preparation.parsing.sampling import spread_lines
from dataset_preparation.parsing.searches import Searches, Wanted, answer_of
from dataset_preparation.parsing.source_settings import require_followed
from utils import InputError, read_classes, run

# Name of a source -> its module, which has `build_source(web, s)` and is imported when the source
# is used (Selenium is large).
SOURCES = {"yandex": "yandex_images_parser", "inaturalist": "inaturalist", "gbif": "gbif"}
# limits of one response of a REST API; 200 observations of iNaturalist may have 12 MB
RESPONSE_SECONDS, RESPONSE_MB = 300, 100


def main(argv=None):
    s, given = config.parse(argv, __file__, __doc__)
    require_followed(s, given, source_names(s))
    classes = choose_classes(read_classes(s.class_table, s.limit_classes), s.classes)
    sources = build_sources(s)
    tables = Tables(s.collected_dir, s.licenses)
    downloads = build_downloads(tables, s)
    wanted = Wanted(s.name_results, s.synonym_below, s.similar_to, s.similar_results)
    progress = Progress(len(classes) * len(sources), downloads)
    try:
        chosen = {plant.latin for plant in classes}
        downloads.add([row for row in tables.found.values()
                       if row["class"] in chosen and row["source"] in sources])
        for name, source in sources.items():
            with closing(source):
                Searches(name, source, wanted, tables, downloads, progress.show,
                         progress.tick).run(classes)
        downloads.wait(progress.tick)
    finally:
        downloads.stop()
        progress.close()
        tables.save()
    report(tables, classes)
    require_answers(tables, classes, sources)


def require_answers(tables, classes, sources):
    """Raise InputError where a search failed or a name was never asked."""
    chosen = {plant.latin for plant in classes}
    rows = [row for row in tables.searches.values()
            if row["class"] in chosen and row["source"] in sources]
    failed = sum(answer_of(row) == "failed" for row in rows)
    asked = {(row["class"], row["source"]) for row in rows if row["kind"] == "name"}
    never = len(chosen) * len(sources) - len(asked)
    waiting = sum(answer_of(row) == "open" for row in rows)
    if failed or never or waiting:
        raise InputError(f"searches that failed: {failed:,}, not finished: {waiting:,}, names "
                         f"never asked: {never:,}; run the same command again to go on")


def build_web(s, seconds, megabytes):
    """Return the `Web` of the settings; a response may take this many seconds and megabytes."""
    limits = Limits(s.connect_seconds, s.read_seconds, seconds, int(megabytes * 1e6))
    return guarded_web(limits, s.private_hosts, s.contact, s.host_connections, build_network(s))


def build_downloads(tables, s):
    """Return the running `Downloads` of the settings."""
    budgets = ((60, s.host_gb_per_hour * 1e9), (24 * 60, s.host_gb_per_day * 1e9))
    limits = HostLimits(s.host_connections, s.host_delay, s.photo_attempts, budgets,
                        60 * s.patience_minutes)
    web = build_web(s, s.photo_seconds, s.photo_mb)
    return Downloads(web, tables, limits, s.photo_megapixels, s.threads)


def source_names(s):
    """Return the names of the chosen sources."""
    return [name.strip() for name in s.source.split(",")]


def build_sources(s):
    """Return {name: source} of the settings; raises InputError before the first request."""
    web = build_web(s, RESPONSE_SECONDS, RESPONSE_MB)
    sources = {}
    for name in source_names(s):
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


class Progress:
    """Bars for names, searches and downloads on a terminal, a line every 30 seconds elsewhere."""

    def __init__(self, names, downloads):
        self.names, self.searches, self.photos = (
            tqdm(total=total, desc=label, unit="", disable=None, position=position, leave=False)
            for position, (label, total) in enumerate(
                (("names", names), ("searches", None), ("photographs", None))))
        self.downloads, self.last_line = downloads, time.monotonic()

    def show(self, name):
        """Name what is searched."""
        self.names.set_postfix_str(name)

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
    saved = {plant.latin: [row for row in rows_of[plant.latin] if row["status"] == "saved"]
             for plant in classes}
    for line in [*spread_lines(saved), *set_aside_lines(tables.set_aside)]:
        print(line)
    for reason, count in reasons.most_common(10):
        print(f"{count:7,} without a photograph: {reason}")
    print(f"collected {len(files):,} photographs of {len(classes)} classes: "
          f"{tables.folder / 'found.csv'}")


if __name__ == "__main__":
    run(main)
