"""The one downloader, of photographs and archives: limits, redirects, retries, reasons of failure.

`Web.fetch` returns a whole body from memory (photographs, responses of a REST API); `Web.open` and
`Web.chunks` read one piece by piece (archives). What goes wrong is `Refused` (final) or `Failed`
(may pass), the message being the reason in plain words; `retry` tries again what has failed.
"""
import contextlib
import http.client
import re
import tempfile
import time
import zlib
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.utils import requote_uri

from dataset_preparation.parsing.connections import (
    Failed,
    Refused,
    Watchdog,
    guarded_session,
)

REDIRECTS = 10  # hops; browsers give up at 20, honest hosts of photographs need one or two
LONGEST_WAIT = 300  # seconds before another attempt; a host that asks for more is left alone
CHUNK = 1 << 14  # bytes read at once; a broken connection loses fewer than that
TRANSIENT_STATUSES = (408, 425, 429)  # timeout, too early, too many requests; and every 5xx
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError,
                  http.client.HTTPException, OSError)
INVALID_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                   requests.exceptions.MissingSchema, urllib3.exceptions.LocationValueError)
REASONS = (  # pattern in the text of a network error, its reason ({0}: the limits); first match
    (r"IncompleteRead|Connection broken", "shorter than announced"),
    (r"CERTIFICATE|certificate", "untrusted certificate"),
    (r"SSL", "TLS error"),
    (r"connect timeout", "no connection within {0.connect_seconds:g} s"),
    (r"[Tt]imed? ?out", "no byte for {0.read_seconds:g} s"),
    (r"ProxyError|to proxy", "no connection to the proxy"),
    (r"refused", "connection refused"),
    (r"Failed to resolve|getaddrinfo", "no such host"),
    (r"RemoteDisconnected|closed connection|reset|aborted", "connection lost"))


class HostUnavailable(Failed):
    """A host that asks for a longer wait than LONGEST_WAIT: leave it alone in this run."""


# ---- addresses ----

def clean_address(address, base="https://"):
    """Return an address in one spelling: absolute, quoted, no fragment; "" if it has none."""
    try:
        parts = urlsplit(urljoin(base, address.strip()))
        return requote_uri(parts._replace(fragment="").geturl())
    except ValueError:
        return ""


def host_of(address):
    """Return the host and port of an address in lower case: the unit of delays and limits."""
    return urlsplit(address).netloc.rpartition("@")[2].lower()


def is_downgrade(address, target):
    """Return whether a redirect leads from https to http, which can be changed on the way."""
    return urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http"


# ---- failures and retries ----

def is_transient(status):
    """Return whether a response of this HTTP status may be another one later."""
    return status >= 500 or status in TRANSIENT_STATUSES


def retry_after(value):
    """Return the seconds of a Retry-After header, which may also be a date; 0 if it is neither.

    RFC 9110, 10.2.3: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    try:
        if value.isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


def require_success(response, statuses):
    """Raise Failed or Refused unless the HTTP status of a response is one of `statuses`."""
    status = response.status_code
    if status in statuses:
        return
    if not is_transient(status):
        raise Refused(f"HTTP {status}")
    wait = retry_after(response.headers.get("Retry-After", ""))
    if wait > LONGEST_WAIT:
        raise HostUnavailable(f"HTTP {status}, its host asks to wait {wait / 60:,.0f} minutes")
    raise Failed(f"HTTP {status}", wait)


def network_reason(error, limits):
    """Return the reason of a network error in a few words; `requests` nests up to three errors."""
    text = re.sub(r"with url: \S*", "", str(error))
    for pattern, reason in REASONS:
        if re.search(pattern, text):
            return reason.format(limits)
    return f"network error: {type(error).__name__}"


def pause_after(error, attempt):
    """Return the seconds to wait after attempt 1, 2, 3, ... has Failed: at least 1, 2, 4, ..."""
    return max(error.wait, min(2.0 ** (attempt - 1), LONGEST_WAIT))


def retry(action, attempts, notify=None):
    """Return what `action()` returns, called up to `attempts` times while it raises Failed.

    Raises the last Failed, and HostUnavailable at once. `notify(message)` is called before a wait.
    """
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except Failed as error:
            if attempt == attempts or isinstance(error, HostUnavailable):
                raise
            pause = pause_after(error, attempt)
            if notify:
                notify(f"{error}; attempt {attempt + 1} of {attempts} in {pause:g} s")
            time.sleep(pause)


# ---- requests ----

class Limits(NamedTuple):
    """How long and how large a response may be."""

    connect_seconds: float
    read_seconds: float  # without a byte
    total_seconds: float = float("inf")
    max_bytes: float = float("inf")  # of a body held in memory


class Web:
    """Fetches addresses within limits, for any number of threads."""

    def __init__(self, limits, session, watchdog, contact=""):
        self.limits, self.session, self.watchdog = limits, session, watchdog
        purpose = f"photographs for plant recognition; {contact or 'no contact given'}"
        session.headers.update({"User-Agent": f"crimean-plants/1.0 ({purpose})",
                                "Accept-Encoding": "identity"})

    def fetch(self, address, headers=None):
        """Return the body of an address as bytes; raises Refused or Failed."""
        too_large = Refused(f"more than {self.limits.max_bytes / 1e6:g} MB")
        with self.open(address, headers) as response:
            if re.search(r"(?i)\bno(image)?ai\b", response.headers.get("X-Robots-Tag", "")):
                raise Refused("the site does not allow machine learning (X-Robots-Tag)")
            announced = response.headers.get("Content-Length", "")
            if announced.isdigit() and int(announced) > self.limits.max_bytes:
                raise too_large
            # in memory up to a megabyte, then on disk: many threads hold a body at the same time
            with tempfile.SpooledTemporaryFile(max_size=1_000_000) as file:
                for chunk in self.chunks(response):
                    file.write(chunk)
                    if file.tell() > self.limits.max_bytes:
                        raise too_large
                file.seek(0)
                return file.read()

    @contextlib.contextmanager
    def open(self, address, headers=None, statuses=(200,)):
        """Yield the response at an address, redirects followed; raises Refused or Failed.

        Any other HTTP status than `statuses` raises.
        """
        self.watchdog.start(self.limits.total_seconds)
        try:
            with self._follow_redirects(address, headers) as response:
                require_success(response, statuses)
                yield response
        finally:
            self.watchdog.stop()

    def chunks(self, response):
        """Yield the body of an open response, decompressed, in pieces of at most CHUNK bytes."""
        encoding = response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Refused(f"content encoding {encoding[:20]}")
        decoder = None if encoding in ("", "identity") else zlib.decompressobj(47)  # zlib or gzip
        while data := self._read(response):
            try:
                yield from [data] if decoder is None else decompress(decoder, data)
            except zlib.error:
                raise Refused(f"broken {encoding} encoding") from None
        if decoder and (rest := decoder.flush()):
            yield rest

    def _follow_redirects(self, address, headers):
        """Return the first response that is no redirect; every hop is checked like the first."""
        timeout = (self.limits.connect_seconds, self.limits.read_seconds)
        for _ in range(REDIRECTS + 1):
            if not re.match(r"(?i)https?://[^/?]", address):
                raise Refused(f"not an http or https address: {address[:60]}")
            with self._network():
                response = self.session.get(address, headers=headers, stream=True,
                                            allow_redirects=False, timeout=timeout)
            if not response.is_redirect:
                return response
            with response:
                target = clean_address(self.session.get_redirect_target(response), address)
            if is_downgrade(address, target):
                raise Refused("redirect from https to http")
            address = target
        raise Refused(f"more than {REDIRECTS} redirects")

    def _read(self, response):
        """Return up to CHUNK bytes of a body, b"" at its end."""
        with self._network():
            return response.raw.read(CHUNK, decode_content=False)

    @contextlib.contextmanager
    def _network(self):
        """Raise Failed or Refused, with the reason, for any network error of the body."""
        try:
            yield
        except INVALID_ADDRESS as error:
            raise Refused("not a valid address") from error
        except NETWORK_ERRORS as error:
            self._require_time()
            raise Failed(network_reason(error, self.limits)) from error
        else:
            self._require_time()

    def _require_time(self):
        """Raise Failed if the time is up: what was read last may be cut short by the watchdog."""
        if self.watchdog.expired():
            raise Failed(f"longer than {self.limits.total_seconds:g} s")


def decompress(decoder, data):
    """Yield what a `zlib` decoder makes of data in pieces of at most CHUNK bytes."""
    while data:
        if piece := decoder.decompress(data, CHUNK):
            yield piece
        data = decoder.unconsumed_tail


def guarded_web(limits, private_hosts=(), contact="", connections=2):
    """Return a `Web` for untrusted addresses: to the public internet only, without proxies."""
    watchdog = Watchdog()
    return Web(limits, guarded_session(watchdog, private_hosts, connections), watchdog, contact)


def trusting_web(limits):
    """Return a `Web` for addresses that the user has chosen: through proxies, private ones too."""
    return Web(limits, requests.Session(), Watchdog())
