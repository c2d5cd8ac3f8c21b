"""Reports of a run of collecting: the plan before it, bars during it, the results after it."""
import json
import math
import time
from collections import Counter, defaultdict

from tqdm import tqdm

from dataset_preparation.parsing.addresses import host_of
from dataset_preparation.parsing.collected_tables import FROM_FALLBACK, query_of
from dataset_preparation.parsing.license_filter import set_aside_lines
from dataset_preparation.parsing.safe_download import clock
from dataset_preparation.parsing.sampling import spread_lines
from dataset_preparation.parsing.searches import answer_of, is_finished
from names import describe_seconds

EVERY = 30  # seconds between two lines of progress without a terminal
MEASURED = 5  # pages after which their measured time replaces the source's estimate
PHOTO_SECONDS = 0.5  # assumed time of one download in the plan
LISTED = 10  # at most, reasons, hosts and failed searches in the results


# ---- before: the plan ----

def searches_left(name, source, classes, wanted, tables):
    """Return [(kind, results wanted, number of such searches)] that a source still has to make."""
    similar = Counter(row["class"] for row in tables.searches.values()
                      if row["source"] == name and row["kind"] == "similar"
                      and is_finished(row, wanted.similar_results))
    left = []
    for plant in classes:
        row = tables.searches.get((plant.latin, name, "name", query_of(source, plant.latin)), {})
        is_searched = is_finished(row, wanted.name_results)
        if not is_searched:
            left.append(("name", wanted.name_results - int(row.get("results") or 0), 1))
        if source.similar is not None:
            found = sum(row["source"] == name and row["kind"] != "similar"
                        for row in tables.of_class[plant.latin])
            searches = min(wanted.similar_to, found) if is_searched else wanted.similar_to
            left.append(("similar", wanted.similar_results,
                         max(0, searches - similar[plant.latin])))
    return left


def pages_left(source, left):
    """Return the largest number of pages for the result of `searches_left`."""
    return sum(source.page_count(kind, count) * times for kind, count, times in left)


def photo_time(count, source, s):
    """Return (seconds to download `count` photographs of a source, the assumptions)."""
    gb, assumed = count * source.usual_mb / 1000, f"{source.usual_mb:g} MB and {PHOTO_SECONDS:g} s"
    if not source.one_host:
        return count * PHOTO_SECONDS / s.threads, f"{assumed} each, {s.threads} at once"
    days = max(0, math.ceil(gb / s.host_gb_per_day) - 1)  # after the first
    hours = 24 * days + (gb - days * s.host_gb_per_day) / s.host_gb_per_hour
    seconds = max(count * s.host_delay, count * PHOTO_SECONDS / s.host_connections, 3600 * hours)
    return seconds, (f"{assumed} each, {s.host_connections} at once from one host, "
                     f"{s.host_gb_per_hour:g} GB per hour, {s.host_gb_per_day:g} per day")


def print_plan(sources, classes, wanted, tables, s):
    """Print names, pages, photographs, limits and hours of every source, and the total time."""
    print(f"plan: {len(classes):,} names, up to {wanted.name_results:,} photographs by name from "
          f"each of: {', '.join(sources)}")
    waiting = Counter(row["source"] for plant in classes for row in tables.of_class[plant.latin]
                      if row["status"] in ("new", "failed") or row["ask_again"])
    reading, downloading = 0.0, []
    for name, source in sources.items():
        left = searches_left(name, source, classes, wanted, tables)
        pages = pages_left(source, left)
        count = waiting[name] + sum(count * times for _, count, times in left)
        seconds, assumed = photo_time(count, source, s)
        reading, downloading = reading + pages * source.page_seconds, [*downloading, seconds]
        similar = ("" if source.similar is None else f", and {wanted.similar_results:,} similar to "
                   f"each of the first {wanted.similar_to:,}")
        limits = f"; limits: {source.limits}" if source.limits else ""
        print(f"  {name}{similar}: at most {pages:,} pages, about "
              f"{describe_seconds(pages * source.page_seconds)}{limits}")
        print(f"    photographs: at most {count:,}, {waiting[name]:,} of them waiting from earlier "
              f"runs, about {describe_seconds(seconds)} (assuming {assumed})")
    print(f"  in all about {describe_seconds(max(reading, *downloading))}: photographs are "
          "downloaded while pages are read", flush=True)


# ---- during: bars and lines ----

class Progress:
    """Bars for names and photographs on a terminal, a line every 30 seconds elsewhere."""

    def __init__(self, names, downloads):
        self.names = tqdm(total=names, desc="names", unit="", disable=None, leave=False)
        self.photos = tqdm(desc="photographs", unit="", disable=None, position=1, leave=False)
        self.downloads, self.now, self.time_left = downloads, "", ""
        self.begun = self.started = self.last_line = time.monotonic()
        self.left, self.estimate, self.pages = None, 1.0, 0

    def begin(self, source, left):
        """Start a source; `left()` returns its remaining pages."""
        self.left, self.estimate = left, source.page_seconds
        self.started, self.pages = time.monotonic(), 0

    def count_page(self):
        """Count a page of a search."""
        self.pages += 1
        self.tick()

    def end(self):
        """End the searches; from here on, only downloads remain."""
        self.left, self.now, self.time_left = None, "downloading what is left", ""

    def _time_left(self, resting):
        """Return in words the time left for the searches of this source, or for the downloads."""
        if self.left is None:
            counts, unfinished = self.downloads.counts, len(self.downloads.unfinished)
            each = (time.monotonic() - self.begun) / max(1, counts.total())
            seconds = max([unfinished * each, *(host[1] for host in resting)])
            return f", about {describe_seconds(seconds)} left" if counts else ""
        measured = (time.monotonic() - self.started) / max(1, self.pages)
        seconds = measured if self.pages >= MEASURED else self.estimate
        return f", at most {describe_seconds(self.left() * seconds)} of searching left"

    def tick(self):
        """Show the state of the run; every 30 seconds also the time left and paused hosts."""
        is_due = time.monotonic() - self.last_line >= EVERY
        if is_due:
            self.last_line = time.monotonic()
            with self.downloads.changed:
                resting = self.downloads.schedule.resting()
            self.time_left = self._time_left(resting)
            for host, seconds, reason, waiting in resting[:LISTED]:
                tqdm.write(f"{host} rests until {clock(seconds)} ({reason}), "
                           f"{waiting:,} wait for it")
        counts, found = self.downloads.counts, len(self.downloads.tables.found)
        unfinished = len(self.downloads.unfinished)
        done = counts["saved"] + counts["refused"] + counts["failed"]
        self.photos.n, self.photos.total = done, done + unfinished
        self.photos.set_postfix(found=found, **counts)
        self.names.set_postfix_str(f"{self.now}, {self.pages:,} pages{self.time_left}")
        if is_due and self.names.disable:
            print(f"{self.now}: {self.pages:,} pages, {found:,} found, {counts['saved']:,} saved, "
                  f"{counts['refused']:,} refused, {counts['failed']:,} failed, {unfinished:,} to "
                  f"do{self.time_left}", flush=True)

    def close(self):
        """Remove the bars."""
        self.photos.close()
        self.names.close()


# ---- after: the results ----

def print_results(tables, classes, sources, wanted, replaced):
    """Print what was collected of every class and why the rest is missing; return saved files."""
    searches = [row for row in tables.searches.values() if row["source"] in sources]
    print_classes(tables, classes, sources, wanted, reasons_of_classes(searches))
    rows = [row for plant in classes for row in tables.of_class[plant.latin]]
    saved = [row for row in rows if row["status"] == "saved"]
    missing = Counter(f"{row['status']}: {row['reason']}" for row in rows
                      if row["status"] in ("refused", "failed"))
    hosts = Counter(host_of(row["url"]) for row in rows if row["status"] == "failed")
    smaller = sum(row["reason"].startswith(FROM_FALLBACK) for row in saved)
    for line in [*spread_lines(saved, classes), *set_aside_lines(tables.set_aside)]:
        print(line)
    if damaged := sum("damaged: " in row["reason"] for row in saved):
        print(f"{damaged:,} damaged: no intact copy was found, cleaning will reject them (see the "
              "column reason of found.csv)")
    print(f"{len(saved) - smaller:,} originals, {smaller:,} from smaller copies"
          f"{f', {replaced:,} copies replaced and moved to set_aside/' if replaced else ''}")
    for title, counted in (("without a photograph", missing), ("failed downloads from", hosts),
                           ("passed over by", passed_over_by_source(searches))):
        for reason, count in counted.most_common(LISTED):
            print(f"{count:7,} {title} {reason}")
        if len(counted) > LISTED:
            print(f"        and {len(counted) - LISTED:,} further kinds {title} ...")
    print_unanswered(searches, classes, sources, tables)
    return {row["file"] for row in saved}


def print_classes(tables, classes, sources, wanted, lacking):
    """Print the numbers wanted, found and saved of every class; `lacking` is {class: reason}."""
    goal = sum(wanted.name_results + (0 if source.similar is None else
                                      wanted.similar_to * wanted.similar_results)
               for source in sources.values())
    print(f"{'class':32} {'wanted':>7} {'found':>7} {'saved':>7} {'photographs':>11} "
          f"{'smaller':>8} {'refused':>8} {'failed':>7} {'to do':>7}")
    for plant in classes:
        rows = tables.of_class[plant.latin]
        saved = [row for row in rows if row["status"] == "saved"]
        counts = Counter(row["status"] for row in rows)
        smaller = sum(row["reason"].startswith(FROM_FALLBACK) for row in saved)
        why = "" if saved else lacking.get(plant.latin, "")
        print(f"{plant.latin:32} {goal:7,} {len(rows):7,} {len(saved):7,} "
              f"{len({row['file'] for row in saved}):11,} {smaller:8,} {counts['refused']:8,} "
              f"{counts['failed']:7,} {counts['new']:7,}{'  ' + why if why else ''}")


def reasons_of_classes(searches):
    """Return {class: most frequent reason why its searches found nothing}."""
    reasons = defaultdict(Counter)
    for row in searches:
        reasons[row["class"]].update(json.loads(row["passed_over"] or "{}"))
        if answer_of(row) in ("unknown", "empty", "failed"):
            reasons[row["class"]][row["answer"]] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in reasons.items() if counts}


def passed_over_by_source(searches):
    """Return {"source: reason": number of records or photographs that were skipped}."""
    counts = Counter()
    for row in searches:
        for reason, count in json.loads(row["passed_over"] or "{}").items():
            counts[f"{row['source']}: {reason}"] += count
    return counts


def count_unanswered(tables, classes, sources):
    """Return {kind in words: number of searches of that kind without an answer}."""
    chosen, asked, answers = {plant.latin for plant in classes}, set(), Counter()
    for row in tables.searches.values():
        if row["class"] in chosen and row["source"] in sources:
            answers[answer_of(row)] += 1
            asked |= {(row["class"], row["source"])} if row["kind"] == "name" else set()
    return {"searches that failed": answers["failed"], "not finished": answers["open"],
            "names never asked": len(chosen) * len(sources) - len(asked)}


def describe_counts(counts):
    """Return {kind: number} in words."""
    return ", ".join(f"{kind}: {count:,}" for kind, count in counts.items())


def print_unanswered(searches, classes, sources, tables):
    """Print how many searches have no answer, and the first reasons."""
    pages = sum(int(row["pages"] or 0) for row in searches)
    print(f"pages read: {pages:,}; {describe_counts(count_unanswered(tables, classes, sources))}")
    if fruitless := sum(row["kind"] == "similar" and answer_of(row) == "empty" for row in searches):
        print(f"{fruitless:7,} searches for similar photographs found none")
    failed = sorted((row for row in searches if answer_of(row) == "failed"),
                    key=lambda row: row["time"])
    for row in failed[:LISTED]:
        print(f"        {row['time']} {row['source']}: {row['class']}"
              f"{' (similar)' if row['kind'] == 'similar' else ''}: {row['answer'][8:]}")
