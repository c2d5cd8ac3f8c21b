"""The downloader of photographs and archives: limits, redirects, retries, reasons of failure.

`Web.fetch` returns a whole body from memory (photographs, responses of a REST API); `Web.open` and
`Web.chunks` read a body in pieces (archives). Errors are `Refused` (final) or `Failed` (possibly
temporary), with the reason in plain words as message; `retry` repeats what has failed.
"""
import contextlib
import re
import tempfile
import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import requests
import urllib3

from dataset_preparation.parsing.addresses import clean_address, is_downgrade, with_ascii_host
from dataset_preparation.parsing.connections import (
    INVALID_ADDRESS,
    NETWORK_ERRORS,
    Busy,
    Failed,
    GuardedAdapter,
    NetworkAccess,
    Offline,
    Refused,
    Watchdog,
    failure_of,
)
from names import whole_number
from utils import warn

REDIRECTS = 10  # hops; browsers allow 20, honest hosts of photographs need one or two
LONGEST_WAIT = 300  # seconds before another attempt; a host that asks for more is not used
CHUNK = 1 << 14  # bytes read at once; a broken connection loses fewer
OFFLINE_WAIT = 30  # at most this many seconds between two attempts to reach a host
# a proxy wants a password, timeout, too early, too many requests; and every 5xx
TRANSIENT_STATUSES = (407, 408, 425, 429)


class HostUnavailable(Failed):
    """A host that asks to wait longer than LONGEST_WAIT: it is not used again in this run."""


# ---- failures and retries ----

def is_transient(status):
    """Return whether this HTTP status may be temporary."""
    return status >= 500 or status in TRANSIENT_STATUSES


def retry_after(headers):
    """Return the seconds of a Retry-After header, a number or a date; 0 if it is neither.

    RFC 9110, 10.2.3: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3. A date is by the clock
    of the server, which its header Date tells: that of this machine may be wrong.
    """
    value, date = headers.get("Retry-After", ""), headers.get("Date")
    if value.isdecimal():
        return float(value)
    until, now = seconds_of(value), seconds_of(date)
    return max(0.0, until - (now or time.time())) if until else 0.0


def seconds_of(date):
    """Return the seconds of the epoch of a date as HTTP has it, None if it is not one."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def require_success(response, statuses, busy_wait):
    """Raise Failed or Refused unless the HTTP status of a response is one of `statuses`.

    A busy host gets no request for `busy_wait` seconds, unless it says how long.
    """
    status = response.status_code
    if status in statuses:
        return
    if not is_transient(status):
        raise Refused(f"HTTP {status}")
    wait = retry_after(response.headers)
    if wait > LONGEST_WAIT:
        raise HostUnavailable(f"HTTP {status}, its host asks to wait {wait / 60:,.0f} minutes")
    if status == 429 and not wait:
        raise Busy(f"HTTP {status}", busy_wait)
    raise Failed(f"HTTP {status}", wait)


def pause_after(error, attempt):
    """Return the seconds to wait after attempt 1, 2, 3, ... has Failed: at least 1, 2, 4, ..."""
    first = error.first_pause if isinstance(error, Busy) else 1
    longest = OFFLINE_WAIT if isinstance(error, Offline) else LONGEST_WAIT
    return max(error.wait, min(first * 2.0 ** min(attempt - 1, 20), longest))


class Patience:
    """Waits until a site is no longer Busy or Offline, together up to `seconds` per outage."""

    asked = False  # whether this machine is online: once for all sites

    def __init__(self, seconds=0.0):
        self.seconds = self.left = seconds
        self.waits = 0  # since the site last responded

    def renew(self):
        """Reset the waiting time, since the site has responded."""
        self.left, self.waits = self.seconds, 0

    def wait(self, error):
        """Wait for a site that has failed; return whether it may be asked again."""
        if not isinstance(error, (Busy, Offline)) or not self.left:
            return False
        self.waits += 1
        pause = min(pause_after(error, self.waits), self.left)
        until = time.monotonic() + pause
        self.left -= pause
        while (rest := until - time.monotonic()) > 0:
            if self.seconds - self.left > 2:  # shorter waits are over before they can be read
                hint = " (is this machine online?)" * isinstance(error, Offline)
                warn(f"{error}{hint}; next attempt at {clock(rest)}, given up "
                     f"at {clock(rest + self.left)}")
            time.sleep(min(rest, 30))
        return True

    def explain(self, error):
        """After too long an outage, ask the user once whether this machine is online."""
        if isinstance(error, Offline) and self.waits and not Patience.asked:
            Patience.asked = True
            warn(f"{error} for {self.seconds / 60:g} minutes: is this machine online? If a proxy "
                 "leads out of this network, name it with --proxy")


def clock(seconds):
    """Return the time of day in this many seconds."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))


def retry(action, attempts, notify=None, patience=None):
    """Return what `action()` returns, called up to `attempts` times while it raises Failed.

    First waits for a Busy or Offline host, as long as there is `patience`. Raises the last Failed,
    and HostUnavailable immediately. `notify(message)` is called before a wait.
    """
    patience, attempt = patience or Patience(), 1
    while True:
        try:
            result = action()
            patience.renew()
            return result
        except Failed as error:
            if patience.wait(error):
                continue
            if attempt == attempts or isinstance(error, HostUnavailable):
                patience.explain(error)
                raise
            pause = pause_after(error, attempt)
            attempt += 1
            if notify:
                notify(f"{error}; attempt {attempt} of {attempts} in {pause:g} s")
            time.sleep(pause)


# ---- requests ----

class Limits(NamedTuple):
    """The limits of a response in time and size."""

    connect_seconds: float
    read_seconds: float  # without a byte
    total_seconds: float = float("inf")
    max_bytes: float = float("inf")  # of a body held in memory


class Web:
    """Fetches addresses within limits, for any number of threads.

    The session keeps cookies, each for its host: some sites redirect until they see one.
    """

    def __init__(self, limits, session, watchdog, contact="", network=None):
        self.limits, self.session, self.watchdog = limits, session, watchdog
        self.network = network or NetworkAccess()
        purpose = f"photographs for plant recognition; {contact or 'no contact given'}"
        session.headers.update({"User-Agent": f"crimean-plants/1.0 ({purpose})",
                                "Accept-Encoding": "identity"})

    def fetch(self, address, headers=None):
        """Return the body of an address as bytes; raises Refused or Failed."""
        too_large = Refused(f"more than {self.limits.max_bytes / 1e6:g} MB")
        with self.open(address, headers, (200, 203)) as response:  # 203: changed by a proxy
            if re.search(r"(?i)\bno(image)?ai\b", response.headers.get("X-Robots-Tag", "")):
                raise Refused("the site does not allow machine learning (X-Robots-Tag)")
            announced = whole_number(response.headers.get("Content-Length", ""))
            if (announced or 0) > self.limits.max_bytes:
                raise too_large
            # in memory up to a megabyte, then on disk, because many threads have bodies at once
            with tempfile.SpooledTemporaryFile(max_size=1_000_000) as file:
                for chunk in self.chunks(response):
                    file.write(chunk)
                    if file.tell() > self.limits.max_bytes:
                        raise too_large
                file.seek(0)
                return file.read()

    @contextlib.contextmanager
    def open(self, address, headers=None, statuses=(200,)):
        """Yield the response of one of `statuses` at an address; raises Refused or Failed."""
        self.watchdog.start(self.limits.total_seconds)
        try:
            with self._follow_redirects(address, headers) as response:
                require_success(response, statuses, self.network.busy_wait)
                yield response
        finally:
            self.watchdog.stop()

    def chunks(self, response):
        """Yield the body of an open response, decompressed, in pieces of at most CHUNK bytes."""
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "none", "gzip", "x-gzip", "deflate"):
            raise Refused(f"content encoding {encoding[:20]}")
        while True:
            with self._network():
                data = response.raw.read(CHUNK, decode_content=True)
            if not data:
                return
            yield data

    def _follow_redirects(self, address, headers):
        """Return the first response that is not a redirect; every hop is checked like the first."""
        for hop in range(REDIRECTS + 1):
            if not re.match(r"(?i)https?://[^/?]", address):
                raise Refused(f"not an http or https address: {address[:60]}")
            address = with_ascii_host(address)
            try:
                with self._network():
                    response = self.session.get(
                        address, headers=headers, stream=True, allow_redirects=False,
                        timeout=(self.limits.connect_seconds, self.limits.read_seconds),
                        proxies=self.network.proxies(address),
                        verify=self.network.ca_bundle or None)
            except Offline as error:  # after a hop, it is another host than the address's
                raise (Failed(str(error)) if hop else error) from None
            if not response.is_redirect:
                return response
            with response:
                target = clean_address(self.session.get_redirect_target(response), address)
            if is_downgrade(address, target):
                raise Refused("redirect from https to http")
            address = target
        raise Refused(f"more than {REDIRECTS} redirects")

    @contextlib.contextmanager
    def _network(self):
        """Raise Failed or Refused, with the reason, for any network error of the body.

        When the time is up, the watchdog may have cut off the last read.
        """
        try:
            yield
        except INVALID_ADDRESS as error:
            raise Refused("not a valid address") from error
        except urllib3.exceptions.DecodeError as error:
            raise Refused("broken content encoding") from error
        except NETWORK_ERRORS as error:
            if not self.watchdog.expired():
                raise failure_of(error, self.limits) from error
        if self.watchdog.expired():
            raise Failed(f"longer than {self.limits.total_seconds:g} s")


def guarded_web(limits, private_hosts=(), contact="", connections=2, network=None):
    """Return a `Web` for untrusted addresses: only to the public internet."""
    session, watchdog = requests.Session(), Watchdog()
    session.trust_env = False  # no login of ~/.netrc; `Web` gives proxies and certificates
    for scheme in ("http://", "https://"):
        session.mount(scheme, GuardedAdapter(private_hosts, watchdog, connections))
    return Web(limits, session, watchdog, contact, network)


def trusting_web(limits, network=None):
    """Return a `Web` for addresses chosen by the user, which may be private."""
    return Web(limits, requests.Session(), Watchdog(), network=network)
