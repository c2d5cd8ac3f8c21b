"""What the sources and the script of this step share: how a search ends, the tables, the downloads."""
import calendar
import heapq
import itertools
import threading
import time
from collections import Counter, defaultdict, deque
from pathlib import Path

from dataset_preparation.parsing.safe_download import LONGEST_WAIT, Failed, Photo, Refused, check_photo, host_of
from dataset_preparation.progress_journal import Journal
from utils import FileLock, InputError, atomic_path, read_table, write_table


class UnknownName(Exception):
    """A source has no such name; the message says what it has instead."""


class SearchFailed(Exception):
    """A search without an answer, to be asked again by another run; the message is the reason."""


class SourceStopped(SearchFailed):
    """A source that must not be asked further in this run; the message is the reason."""


def require_known(setting, values, known):
    """Raise InputError where a setting names something that is not known and would find nothing."""
    for value in values:
        if value not in known:
            raise InputError(f"{setting} names {value!r}; there are {', '.join(known)}")


def query_of(source, text):
    """Return what the tables remember of a question: its text and its terms, see `parsing.SOURCES`."""
    return " ".join([text, *(f"{name}={value}" for name, value in source.terms.items())])


# ---- the tables ----

RESULT = ("url", "fallbacks", "page", "title", "author", "license", "width", "height")  # what a source says of one
FOUND = ("class", "source", "query", "kind", "rank", "parent", *RESULT, "status", "reason", "sha256", "file", "time")
SEARCHES = ("class", "source", "query", "kind", "answer", "results", "time")
ATTRIBUTION = ("file", "title", "author", "license", "page")
KINDS = ("name", "synonym", "similar")
FALLBACK = "from fallback "  # reason of a row whose photograph came from one of its fallbacks
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"  # UTC


def now():
    """Return the time as the tables have it: UTC, to the second."""
    return time.strftime(TIME_FORMAT, time.gmtime())


class Tables:
    """found.csv and searches.csv of a folder, and the journal of what is not yet written to them.

    `found` maps (class, url) to a row, `searches` maps (class, source, kind, query) to a row; all values are text.
    Raises InputError where another process has them open: the later of two would save without what the first found.
    """

    def __init__(self, folder):
        self.folder, self.lock, self.found, self.searches = Path(folder), threading.RLock(), {}, {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self.alone = FileLock(self.folder / "found.csv.lock")
        if not self.alone.acquire(wait=False):
            raise InputError(f"another process collects into {self.folder}; wait for its end, or give this one a "
                             "--collected_dir of its own")
        for row in self._read("found.csv", FOUND):
            self.found[row["class"], row["url"]] = row
        for row in self._read("searches.csv", SEARCHES):
            self.searches[row["class"], row["source"], row["kind"], row["query"]] = row
        self.journal = Journal(self.folder / "found.csv.journal", {"table": "found.csv", "version": 1})
        for entry in self.journal.entries:
            self._apply(**entry)

    def _read(self, name, columns):
        return read_table(self.folder / name, columns) if (self.folder / name).exists() else []

    def _apply(self, rows=(), search=None, changes=None):
        """Take over one journal entry: new rows, an answered search, changes of one row."""
        for row in rows:
            self.found.setdefault((row["class"], row["url"]), row)
        if search:
            self.searches[search["class"], search["source"], search["kind"], search["query"]] = search
        if changes:  # of no row: someone has taken found.csv away after a kill
            self.found.get((changes["class"], changes["url"]), {}).update(changes)

    def _record(self, **entry):
        self.journal.append(entry)
        self._apply(**entry)

    def add(self, rows, search=None):
        """Add what a search found and, if it was answered, the search; return the rows that are new."""
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
            self._record(changes={"class": row["class"], "url": row["url"], **values, "time": now()})

    def photo_path(self, row):
        """Return where the photograph of a row is, None unless it is saved and still there."""
        path = self.folder / row["file"]
        return path if row["status"] == "saved" and path.is_file() else None

    def save(self):
        """Write the tables and ATTRIBUTION.csv; the journal is then no longer needed."""
        with self.lock:
            found = sorted(self.found.values(), key=lambda row: (
                row["class"], row["source"], KINDS.index(row["kind"]), row["query"], int(row["rank"]), row["url"]))
            write_table(self.folder / "found.csv", FOUND, found)
            write_table(self.folder / "searches.csv", SEARCHES, [self.searches[key] for key in sorted(self.searches)])
            kept = {row["file"]: row for row in reversed(found) if row["status"] == "saved"}
            write_table(self.folder / "ATTRIBUTION.csv", ATTRIBUTION, [kept[file] for file in sorted(kept)])
            self.journal.finish()
            self.alone.release()


# ---- downloads ----

class Host:
    """One host: the addresses that wait for it, when it may be asked next, and how much it gave in which minute."""

    def __init__(self):
        self.waiting, self.offered, self.active = deque(), 0, 0
        self.free_at = self.paused_until = 0.0  # time.monotonic()
        self.failures, self.given, self.closed = 0, Counter(), None  # closed: the Failed that ends it for this run

    def count(self, seconds, size, budgets):
        """Add bytes given at a time in seconds of the epoch; pause the host where a budget is used up."""
        self.given[int(seconds) // 60] += size
        minute = int(time.time()) // 60
        for minutes, most in budgets:
            recent = {then: given for then, given in self.given.items() if minute - then < minutes}
            if recent and sum(recent.values()) >= most:
                self.pause(60 * (min(recent) + minutes - minute))

    def pause(self, seconds):
        """Leave the host alone for at least so long."""
        self.paused_until = max(self.paused_until, time.monotonic() + seconds)


class Downloads:
    """Threads that bring the photographs of found rows, each address once.

    Per host at most `per_host` at a time and `delay` seconds between starts; `budgets` are (minutes, bytes) pairs. A
    thread never waits for a host: what must wait stands in a queue. All that is shared is under the tables' lock.
    """

    def __init__(self, web, tables, max_megapixels, threads, per_host, delay, attempts, budgets):
        self.web, self.tables, self.max_megapixels, self.budgets = web, tables, max_megapixels, budgets
        self.per_host, self.delay, self.attempts = per_host, delay, attempts
        self.hosts, self.ready, self.serial = defaultdict(Host), [], itertools.count()
        self.left = {}  # (class, url) of an unfinished row -> (addresses not yet tried, errors so far)
        self.asking = {}  # address on its way -> rows that wait for it
        self.known = {}  # address -> Photo without its data, Refused or Failed
        self.stored = {}  # sha256 -> path
        self.tried, self.counts = Counter(), Counter()
        self.changed, self.decoding = threading.Condition(tables.lock), threading.Lock()
        self.stopping, self.error = False, None
        self._remember()
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _remember(self):
        """Take over what earlier runs saved: their addresses need no download, their bytes count in the budgets."""
        for row in self.tables.found.values():
            if path := self.tables.photo_path(row):
                address = row["reason"].removeprefix(FALLBACK) or row["url"]
                self.known[address] = Photo(b"", row["sha256"], path.suffix[1:], row["width"], row["height"])
                self.stored[row["sha256"]] = path
                seconds = calendar.timegm(time.strptime(row["time"], TIME_FORMAT))
                if time.time() - seconds < 24 * 3600:
                    self.hosts[host_of(address)].count(seconds, path.stat().st_size, self.budgets)

    def add(self, rows):
        """Bring these rows' photographs, unless they are there or refused for good; raises what stopped a thread."""
        with self.changed:
            if self.error:
                raise self.error
            for row in rows:
                if row["status"] != "refused" and not self.tables.photo_path(row):
                    self.left[row["class"], row["url"]] = ([row["url"], *row["fallbacks"].split()], [])
                    self._advance(row)

    def wait(self, tick):
        """Return when all is done, calling `tick()` twice a second; raises what stopped a thread."""
        with self.changed:
            while self.left and not self.error:
                self.changed.wait(0.5)
                tick()
            if self.error:
                raise self.error

    def stop(self):
        """End the threads; what is on its way is given up and remains to be done."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        for thread in self.threads:
            while thread.is_alive():
                self.web.watchdog.hurry()  # again and again: it may just be beginning
                thread.join(0.1)

    def _work(self):
        try:
            while job := self._next():
                host, address = job
                outcome = host.closed or self._fetch(address)
                with self.changed:
                    host.active -= 1
                    if not self.stopping:
                        self._finish(host, address, outcome)
                        self._offer(host)
                    if not self.left:  # `_offer` wakes one thread per download; waking all would cost more than those
                        self.changed.notify_all()
        except BaseException as error:  # such as a full disk: for the thread that waits
            with self.changed:
                self.error, self.stopping = error, True
                self.changed.notify_all()

    def _next(self):
        """Return (host, address) of the next download when its time has come, None when stopping."""
        with self.changed:
            while not self.stopping:
                pause = None
                if self.ready:
                    when, _, host = self.ready[0]
                    pause = max(when, host.paused_until) - time.monotonic()
                    if pause <= 0:
                        heapq.heappop(self.ready)
                        host.offered, host.active = host.offered - 1, host.active + 1
                        return host, host.waiting.popleft()
                    if host.paused_until > when:
                        heapq.heapreplace(self.ready, (host.paused_until, next(self.serial), host))
                        continue
                self.changed.wait(min(pause or 1.0, 1.0))
            return None

    def _offer(self, host):
        """Put a host in the queue as often as it may be asked now."""
        while host.offered + host.active < self.per_host and host.offered < len(host.waiting):
            when = max(host.free_at, time.monotonic())
            host.free_at, host.offered = when + self.delay * (not host.closed), host.offered + 1
            heapq.heappush(self.ready, (when, next(self.serial), host))
            self.changed.notify()

    def _fetch(self, address):
        """Return the Photo at an address, or Refused or Failed."""
        try:
            data = self.web.fetch(address)
            with self.decoding:  # one at a time: a decoded photograph is large
                return check_photo(data, self.max_megapixels)
        except (Refused, Failed) as error:
            return error
        except Exception as error:  # whatever a stranger's answer may raise ends this address, not the run
            return Refused(f"broken answer: {type(error).__name__}")

    def _finish(self, host, address, outcome):
        """Take over the outcome of a download, or queue it again if it may still succeed."""
        if isinstance(outcome, Failed):
            host.failures += 1
            self.tried[address] += 1
            if outcome.wait > LONGEST_WAIT:
                host.closed = Failed(f"{outcome}, its host asks to wait {outcome.wait / 60:,.0f} minutes")
                outcome = host.closed
            # a host that fails all the time gets one attempt per address: it would hold up the run for hours
            last = host.closed or self.tried[address] >= (self.attempts if host.failures <= 3 * self.attempts else 1)
            if not host.closed:
                host.pause(max(outcome.wait, 2.0 ** self.tried[address] / 2))
            if not last:
                host.waiting.append(address)
                return
        else:
            host.failures = 0
        if isinstance(outcome, Photo):
            host.count(time.time(), len(outcome.data), self.budgets)
        self.known[address] = outcome
        for row in self.asking.pop(address):
            self._advance(row)
        if isinstance(outcome, Photo):
            self.known[address] = outcome._replace(data=b"")

    def _advance(self, row):
        """Bring a row on: to its photograph, to its next address, or to the end of its addresses."""
        addresses, errors = self.left[row["class"], row["url"]]
        while addresses:
            address = addresses[0]
            outcome = self.known.get(address)
            if outcome is None:
                if address not in self.asking:
                    self.asking[address], host = [], self.hosts[host_of(address)]
                    host.waiting.append(address)
                    self._offer(host)
                self.asking[address].append(row)
                return
            if isinstance(outcome, Photo):
                self._store(row, address, outcome)
                return
            errors.append(outcome)
            addresses.pop(0)
        status = "failed" if any(isinstance(error, Failed) for error in errors) else "refused"
        self._settle(row, status=status, reason="; ".join(dict.fromkeys(map(str, errors))))

    def _store(self, row, address, photo):
        """Write a photograph into the folder of its class."""
        file = f"images/{row['class']}/{photo.sha256[:16]}.{photo.extension}"
        path = self.tables.folder / file
        values = {"status": "saved", "reason": "" if address == row["url"] else FALLBACK + address, "file": file,
                  "sha256": photo.sha256, "width": str(photo.width), "height": str(photo.height)}
        if path.exists():
            self._settle(row, **values)
        else:
            data = photo.data or self.stored[photo.sha256].read_bytes()
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
                # before the renaming: a kill between the two leaves an address to fetch, never one to fetch twice
                self._settle(row, **values)
        self.stored.setdefault(photo.sha256, path)

    def _settle(self, row, status, **values):
        self.tables.change(row, status=status, **values)
        del self.left[row["class"], row["url"]]
        self.counts[status] += 1
