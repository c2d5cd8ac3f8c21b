"""Download the photographs of found rows in many threads, and check them."""
import calendar
import re
import threading
import time
from collections import Counter

from dataset_preparation.parsing.addresses import is_downgrade
from dataset_preparation.parsing.collected_tables import (
    FIRST_TIME,
    FROM_FALLBACK,
    TIME_FORMAT,
    area,
    holds_bytes,
    used_address,
)
from dataset_preparation.parsing.host_schedule import HostSchedule
from dataset_preparation.parsing.license_filter import SET_ASIDE
from dataset_preparation.parsing.photo_check import Photo, check_photo
from dataset_preparation.parsing.safe_download import Failed, Refused
from utils import atomic_path, file_sha256, set_aside

# Refusals that may be temporary: every HTTP status but 410 "gone" and 451 "unavailable for legal
# reasons", and what a host sends that is about to break down or has just come back.
MAY_PASS = re.compile(r"HTTP (?!410|451)\d{3}|broken|empty$|more than \d+ redirects")
ACCEPT = "image/avif,image/webp,image/jpeg,image/png,image/*;q=0.8,*/*;q=0.5"


class Damaged(Failed):
    """A photograph with missing data; another run asks for it once more."""


class Downloads:
    """Threads that download the photographs of found rows, each address once.

    A row has one or several addresses (`fallbacks`), tried in order. If a better address than that
    of its photograph may work in another run, it is in `ask_again`: that run asks for it and
    replaces the photograph by a larger one. The steps of an address:

    1. `_advance` puts it into the schedule, and the row waits for it.
    2. A thread takes it when its host is free, downloads and checks it (`_work`, `_fetch`).
    3. `_finish` reports the outcome to the schedule, which queues the address again if it may
       still succeed. Otherwise every row that waits for the address advances:
    4. to its photograph (`_store`), to its next address (step 1) or, without one, to the status
       "failed" (if one of its addresses has failed) or "refused" (`_settle`).

    The lock of the tables protects all attributes that threads share.
    """

    def __init__(self, web, tables, limits, max_megapixels, threads, try_again=()):
        self.web, self.tables, self.max_megapixels = web, tables, max_megapixels
        self.try_again = try_again  # what of earlier runs: refused, failed, thumbnails
        self.changed, self.damaged = threading.Condition(tables.lock), {}
        self.schedule = HostSchedule(limits, self.changed)  # `damaged`: address -> its SHA-256
        self.unfinished = {}  # (class, url) of a row -> (addresses left, [(address, error)])
        self.referers = {}  # address in the schedule -> page that shows it
        self.waiting_rows = {}  # address in the schedule -> rows that wait for it
        self.outcomes = {}  # address -> Photo without its data, Refused or Failed
        self.paths = {}  # sha256 -> path of a stored photograph
        self.removed = {(row["class"], row["sha256"]) for row in tables.found.values()
                        if row["status"] == "removed" and row["sha256"]}
        self.counts = Counter()  # status -> rows settled in this run
        self.stopping, self.error = False, None
        self._remember()
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def _remember(self):
        """Load what earlier runs saved, which is not downloaded again but counts in the budgets."""
        for row in self.tables.found.values():
            if path := self.tables.photo_path(row):
                address = used_address(row)
                damage = row["reason"].partition("damaged: ")
                self.outcomes[address] = Photo(b"", row["sha256"], path.suffix[1:], row["width"],
                                               row["height"], "".join(damage[1:]))
                self.paths[row["sha256"]] = path
                sent_at = calendar.timegm(time.strptime(row["time"] or FIRST_TIME, TIME_FORMAT))
                if 0 <= time.time() - sent_at < 24 * 3600:  # not by a clock that was ahead
                    self.schedule.count_earlier(address, path.stat().st_size, sent_at)

    # ---- the calling thread ----

    def add(self, rows):
        """Download the photographs of these rows, unless they are saved or finally refused."""
        with self.changed:
            self._require_no_error()
            for row in rows:
                if addresses := self._addresses_to_ask(row):
                    self.unfinished[row["class"], row["url"]] = (addresses, [])
                    self._advance(row)

    def _addresses_to_ask(self, row):
        """Return the addresses of a row that this run asks for, best first."""
        addresses, again = [row["url"], *row["fallbacks"].split()], row.get("ask_again", "").split()
        if row["status"] in (SET_ASIDE, "removed"):
            return []
        if self.tables.photo_path(row):
            used = used_address(row)
            is_smaller = "thumbnails" in self.try_again and used in addresses
            return addresses[:addresses.index(used)] if is_smaller else again
        if row["status"] == "saved" or row["status"] in self.try_again:
            return addresses
        return {"new": addresses, "failed": again or addresses}.get(row["status"], again)

    def wait(self, tick):
        """Return when all rows are settled; call `tick()` twice a second until then."""
        with self.changed:
            while self.unfinished and not self.error:
                self.changed.wait(0.5)
                tick()
            self._require_no_error()

    def stop(self):
        """End the threads; unfinished downloads are left for another run."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        for thread in self.threads:
            while thread.is_alive():
                self.web.watchdog.expire_all()  # repeatedly: it may just be starting a download
                thread.join(0.1)

    def _require_no_error(self):
        """Raise the error that stopped a thread, if any."""
        if self.error:
            raise self.error

    # ---- the downloading threads ----

    def _work(self):
        try:
            while address := self._next_address():
                outcome = self.schedule.unavailable(address) or self._fetch(address)
                with self.changed:
                    if not self.stopping:
                        self._finish(address, outcome)
                    # The schedule wakes one thread per address. Waking all threads each time would
                    # cost more CPU time than the downloads.
                    if not self.unfinished:
                        self.changed.notify_all()
        except BaseException as error:  # such as a full disk: raised by `add` or `wait`
            with self.changed:
                self.error, self.stopping = error, True
                self.changed.notify_all()

    def _next_address(self):
        """Return the next address when its time has come, None when stopping."""
        with self.changed:
            while not self.stopping:
                address, seconds = self.schedule.take()
                if address:
                    return address
                self.changed.wait(seconds)
            return None

    def _fetch(self, address):
        """Return the Photo at an address, or the Refused or Failed it ended in."""
        try:
            data = self.web.fetch(address, {"Accept": ACCEPT, **self.referers.get(address, {})})
            photo = check_photo(data, self.max_megapixels)
            return Failed(photo.damage) if self._may_be_whole_next_time(address, photo) else photo
        except (Refused, Failed) as error:
            return error
        except OSError as error:  # a local one, such as a full disk for temporary files
            return Failed(f"{error.strerror or type(error).__name__} on this machine")
        except Exception as error:  # an odd response must not end the run
            return Refused(f"broken response: {type(error).__name__}")

    def _may_be_whole_next_time(self, address, photo):
        """Return whether to download a damaged photograph again; the same bytes twice are final."""
        before = self.damaged.get(address)
        if not photo.damage or before == photo.sha256:
            return False
        self.damaged[address] = photo.sha256
        return self.schedule.attempts[address] + 1 < self.schedule.limits.attempts

    def _finish(self, address, outcome):
        """Report an outcome; if it is final, advance the rows that wait for the address."""
        size = len(outcome.data) if isinstance(outcome, Photo) else 0
        if not self.schedule.finish(address, outcome, size):
            return
        self.outcomes[address] = outcome
        self.referers.pop(address, None)
        for row in self.waiting_rows.pop(address):
            self._advance(row)
        if isinstance(outcome, Photo):
            self.outcomes[address] = outcome._replace(data=b"")  # stored: free the memory

    def _advance(self, row):
        """Advance a row to its photograph, its next address, or the end of its addresses."""
        addresses, errors = self.unfinished[row["class"], row["url"]]
        while addresses:
            address = addresses[0]
            outcome = self._outcome(address)
            if outcome is None:
                if address not in self.waiting_rows:
                    self.waiting_rows[address] = []
                    self.referers[address] = referer(row["page"], address)
                    self.schedule.put(address)
                self.waiting_rows[address].append(row)
                return
            # another address may have an intact copy of a damaged photograph
            is_last_resort = len(addresses) == 1 and not self.tables.photo_path(row)
            if isinstance(outcome, Photo) and (is_last_resort or not outcome.damage):
                self._store(row, address, outcome, self._ask_again(row, errors))
                return
            if isinstance(outcome, Photo):
                outcome = Damaged(outcome.damage)
            errors.append((address, outcome))
            addresses.pop(0)
        again = self._ask_again(row, errors)
        if self.tables.photo_path(row):  # there is nothing better
            self._settle(row, status="saved", ask_again=again)
            return
        # the next run asks only for this one, and keeps it even if it is damaged
        again = next((address for address, error in errors if isinstance(error, Damaged)), again)
        status = "failed" if any(isinstance(error, Failed) for _, error in errors) else "refused"
        self._settle(row, status=status, ask_again=again,
                     reason="; ".join(dict.fromkeys(str(error) for _, error in errors)))

    def _outcome(self, address):
        """Return the outcome of an address, None if it is to be downloaded.

        A stored photograph that was changed or removed by hand is no copy for another row.
        """
        outcome = self.outcomes.get(address)
        if isinstance(outcome, Photo) and not outcome.data:
            path = self.paths.get(outcome.sha256)
            if not (path and path.is_file() and file_sha256(path) == outcome.sha256):
                return None
        return outcome

    def _ask_again(self, row, errors):
        """Return the addresses that may work in the next run, in the form of the table.

        They have failed, or were refused for the first time with a possibly temporary status.
        """
        before = self.tables.asked_before.get((row["class"], row["url"]), ())
        return " ".join(address for address, error in errors if address not in before and (
            MAY_PASS.search(str(error)) or isinstance(error, Damaged))
            or isinstance(error, Failed) and not isinstance(error, Damaged))

    def _store(self, row, address, photo, again):
        """Write a photograph to the folder of its row's class, unless the row has a larger one.

        One that was removed by hand stays away, whatever address it comes from.
        """
        if (row["class"], photo.sha256) in self.removed:
            self._settle(row, status="removed", sha256=photo.sha256, ask_again="",
                         reason="this photograph was removed by hand")
            return
        file = f"images/{row['class']}/{photo.sha256[:16]}.{photo.extension}"
        path, smaller = self.tables.folder / file, self.tables.photo_path(row)
        if smaller and smaller != path:
            if area(row["width"], row["height"]) >= area(photo.width, photo.height):
                self._settle(row, status="saved", ask_again=again)
                return
            self._set_aside(row, smaller)
        values = {"status": "saved", "file": file, "sha256": photo.sha256,
                  "reason": "; ".join(filter(None, (
                      "" if address == row["url"] else FROM_FALLBACK + address, photo.damage))),
                  "width": str(photo.width), "height": str(photo.height), "ask_again": again}
        if holds_bytes(path):
            self._settle(row, **values)
        else:
            data = photo.data or self.paths[photo.sha256].read_bytes()
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
                # Before the file is renamed: after a kill between the two, the photograph is
                # fetched again. In the other order, the row would not know of the file.
                self._settle(row, **values)
        self.paths.setdefault(photo.sha256, path)

    def _set_aside(self, row, path):
        """Move the smaller copy of a row to set_aside/, unless another row has it, too.

        This is before the larger one is written: after a kill between the two, both are fetched
        again.
        """
        self.counts["replaced"] += 1
        if not self.tables.is_shared(row):
            self.paths[row["sha256"]] = set_aside(path, self.tables.folder)

    def _settle(self, row, status, **values):
        """Write the outcome of a row to the tables."""
        self.tables.change(row, status=status, **values)
        del self.unfinished[row["class"], row["url"]]
        self.counts[status] += 1


def referer(page, address):
    """Return the header with the page of a photograph, which some hosts require."""
    fits = re.match(r"https?://", page) and page.isascii() and not is_downgrade(page, address)
    return {"Referer": page} if fits else {}
