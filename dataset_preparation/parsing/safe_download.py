"""Fetch what strangers serve: addresses checked, bytes and seconds limited, pictures told by their content.

What can go wrong has one of two names: `Refused` is final, `Failed` may pass and is tried again.
"""
import contextlib
import http.client
import http.cookiejar
import ipaddress
import re
import socket
import tempfile
import threading
import time
import zlib
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import requote_uri
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from images import BadImage, open_image
from utils import sha256

REDIRECTS = 5  # hops; browsers give up at 20, honest picture hosts need one or two
LONGEST_WAIT = 300  # seconds; a host that asks for more is left for another run
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
RETRIED = (408, 425, 429, 500, 502, 503, 504)  # answers that may be different later
MAGIC = (  # first bytes of the pictures taken, https://en.wikipedia.org/wiki/List_of_file_signatures
    (rb"\xff\xd8\xff", "jpg"), (rb"\x89PNG\r\n\x1a\n", "png"), (rb"RIFF....WEBP", "webp"),
    (rb"GIF8[79]a", "gif"), (rb"....ftypavi[fs]", "avif"))
NOT_PICTURES = ((rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)", "an HTML page"),
                (rb"\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*)*(<!doctype svg.*?>\s*)?<svg", "an SVG drawing"),
                (rb"%PDF", "a PDF document"), (rb"\s*[{\[]", "JSON"))


class Refused(Exception):
    """An address not worth another attempt; the message is the reason."""


class Failed(Exception):
    """An address that may work later, after `wait` seconds if its host asked for that; the message is the reason."""

    def __init__(self, reason, wait=0.0):
        super().__init__(reason)
        self.wait = wait


# ---- addresses and names ----

def clean_address(address, base="https://"):
    """Return an address in one spelling: absolute, spaces and non-ASCII letters quoted, no fragment; "" if hopeless."""
    try:
        return requote_uri(urlsplit(urljoin(base, address.strip()))._replace(fragment="").geturl())
    except ValueError:
        return ""


def host_of(address):
    """Return the host and port of an address in lower case: what delays and limits are counted for."""
    return urlsplit(address).netloc.rpartition("@")[2].lower()


def is_public(address):
    """Return whether an IP address, given as text, belongs to the public internet, also when wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    wrapped = [ip]
    if ip.version == 6:
        wrapped += [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64, RFC 6052
            wrapped.append(ipaddress.ip_address(int(ip) & 0xFFFFFFFF))
    return all(one.is_global and not one.is_multicast for one in wrapped if one is not None)


# ---- one request ----

class Limits(NamedTuple):
    """How long and how large an answer may be."""

    connect_seconds: float
    read_seconds: float  # without a byte
    total_seconds: float
    max_bytes: int


class Watchdog:
    """Shuts the connection of a thread whose time is up, whatever it waits for: handshake, headers or body.

    The time limit of `requests` is per read: a server that sends one byte a second would hold a thread forever.
    """

    def __init__(self):
        self.lock, self.deadlines, self.sockets = threading.Lock(), {}, {}
        threading.Thread(target=self.patrol, daemon=True).start()

    def begin(self, seconds):
        """Give the calling thread so many seconds."""
        with self.lock:
            self.deadlines[threading.get_ident()] = time.monotonic() + seconds

    def connected(self, sock):
        """Note the socket the calling thread now uses."""
        with self.lock:
            self.sockets[threading.get_ident()] = sock.fileno()

    def late(self):
        """Return whether the calling thread's time is up; what it read last may then be cut short."""
        return time.monotonic() > self.deadlines[threading.get_ident()]

    def end(self):
        """Forget the calling thread."""
        with self.lock:
            self.deadlines.pop(threading.get_ident(), None)
            self.sockets.pop(threading.get_ident(), None)

    def hurry(self):
        """Let every thread's time be up."""
        with self.lock:
            self.deadlines = dict.fromkeys(self.deadlines, 0.0)

    def patrol(self):
        """Shut late connections, again and again: a late thread may just be opening the next one."""
        while True:
            time.sleep(0.1)
            with self.lock:
                late = [thread for thread, deadline in self.deadlines.items() if time.monotonic() > deadline]
                for thread in set(late) & set(self.sockets):
                    with contextlib.suppress(OSError, ValueError):  # closed already
                        # by number: wrapping in TLS changes the socket object
                        sock = socket.socket(fileno=self.sockets[thread])
                        try:
                            sock.shutdown(socket.SHUT_RDWR)
                        finally:
                            sock.detach()


class GuardedConnection:
    """Connects to checked addresses only: resolves the name once and uses that very answer (no DNS rebinding)."""

    private_hosts, watchdog = (), None

    def _new_conn(self):
        name = self._dns_host
        try:
            found = socket.getaddrinfo(name, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Failed(f"no such host: {name[:60]}") from error
        addresses = list(dict.fromkeys(entry[4][0] for entry in found))
        if name not in self.private_hosts:
            for address in addresses:
                if not is_public(address):
                    raise Refused(f"not a public address: {address}")
        for address in addresses:
            try:
                self._dns_host = address
                sock = super()._new_conn()
                break
            except urllib3.exceptions.HTTPError:
                if address == addresses[-1]:
                    raise
            finally:
                self._dns_host = name
        if name not in self.private_hosts and not is_public(sock.getpeername()[0]):
            sock.close()
            raise Refused(f"not a public address: {sock.getpeername()[0]}")
        self.watchdog.connected(sock)
        return sock

    def request(self, *args, **kwargs):
        """Send a request, also over a connection kept from an earlier one."""
        if self.sock is not None:
            self.watchdog.connected(self.sock)
        return super().request(*args, **kwargs)


def guarded_session(private_hosts, watchdog, user_agent, connections):
    """Return a `requests` session without cookies and proxies whose connections are `GuardedConnection`s."""
    own = {"private_hosts": private_hosts, "watchdog": watchdog}
    session = requests.Session()
    session.trust_env = False  # a proxy would connect for us, past the check
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update({"User-Agent": user_agent, "Accept-Encoding": "identity"})
    adapter = HTTPAdapter(pool_connections=256, pool_maxsize=connections)
    adapter.poolmanager.pool_classes_by_scheme = {
        scheme: type("GuardedPool", (pool,), {"ConnectionCls": type("Guarded", (GuardedConnection, connection), own)})
        for scheme, pool, connection in (("http", HTTPConnectionPool, HTTPConnection),
                                         ("https", HTTPSConnectionPool, HTTPSConnection))}
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class Web:
    """Fetches addresses within limits, for any number of threads."""

    def __init__(self, limits, private_hosts=(), contact="", connections=2):
        self.limits, self.watchdog = limits, Watchdog()
        user_agent = f"crimean-plants/1.0 (photographs for plant recognition; {contact or 'no contact given'})"
        self.session = guarded_session(private_hosts, self.watchdog, user_agent, connections)

    def fetch(self, address):
        """Return the body of an address as bytes, redirects followed; raises Refused or Failed."""
        too_late = Failed(f"longer than {self.limits.total_seconds:g} s")
        self.watchdog.begin(self.limits.total_seconds)
        try:
            for _ in range(REDIRECTS + 1):
                target, body = self._hop(address)
                if self.watchdog.late():
                    raise too_late
                if target is None:
                    return body
                if address.startswith("https:") and target.startswith("http:"):
                    raise Refused("redirect from https to http")
                address = target
            raise Refused(f"more than {REDIRECTS} redirects")
        except NETWORK_ERRORS as error:
            raise (too_late if self.watchdog.late() else Failed(reason_of(error))) from error
        finally:
            self.watchdog.end()

    def _hop(self, address):
        """Return (target of the redirect, None) or (None, body) of one request."""
        if not re.match(r"https?://[^/?]", address):
            raise Refused("not an http or https address")
        timeout = (self.limits.connect_seconds, self.limits.read_seconds)
        with self.session.get(address, stream=True, allow_redirects=False, timeout=timeout) as response:
            if response.is_redirect:
                return clean_address(self.session.get_redirect_target(response), address), None
            if response.status_code in RETRIED:
                raise Failed(f"HTTP {response.status_code}", retry_after(response.headers.get("Retry-After", "")))
            if response.status_code != 200:
                raise Refused(f"HTTP {response.status_code}")
            if re.search(r"(?i)\bno(image)?ai\b", response.headers.get("X-Robots-Tag", "")):
                raise Refused("the site asks not to use it for learning (X-Robots-Tag)")
            return None, self._body(response)

    def _body(self, response):
        """Return the body, at most `max_bytes` of it held, on disk while it grows beyond a megabyte."""
        most, encoding = self.limits.max_bytes, response.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Refused(f"content encoding {encoding[:20]}")
        announced = response.headers.get("Content-Length", "")
        too_large = Refused(f"more than {most / 1e6:g} MB")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        with tempfile.SpooledTemporaryFile(max_size=1_000_000) as file:
            while piece := response.raw.read(65536, decode_content=False):
                file.write(piece)
                if file.tell() > most:
                    raise too_large
            file.seek(0)
            data = file.read()
        if encoding in ("", "identity"):
            return data
        try:
            data = zlib.decompressobj(47 if "gzip" in encoding else 15).decompress(data, most + 1)
        except zlib.error:
            raise Refused(f"broken {encoding} encoding") from None
        if len(data) > most:
            raise too_large
        return data


def reason_of(error):
    """Return a short name for a network error."""
    text = str(error)
    for pattern, reason in (("IncompleteRead|Connection broken", "shorter than announced"),
                            ("CERTIFICATE|certificate", "untrusted certificate"), ("SSL", "TLS error"),
                            ("[Tt]imed? ?out", "no byte in time"), ("refused", "connection refused"),
                            ("RemoteDisconnected|closed connection|reset|aborted", "connection lost")):
        if re.search(pattern, text):
            return reason
    return f"network error: {type(error).__name__}"


def retry_after(value):
    """Return the seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3); 0 if neither."""
    try:
        return float(value) if value.isdigit() else max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


# ---- pictures ----

class Photo(NamedTuple):
    """A fetched photograph that is one."""

    data: bytes
    sha256: str
    extension: str  # of the real format
    width: int
    height: int


def check_photo(data, max_megapixels):
    """Return the `Photo` in these bytes, told by its first bytes and decoded whole; raises Refused."""
    kinds = [kind for pattern, kind in MAGIC if re.match(pattern, data, re.DOTALL)]
    if not kinds:
        start = data[:2000].lower()
        what = next((name for pattern, name in NOT_PICTURES if re.match(pattern, start, re.DOTALL | re.I)), "unknown")
        raise Refused(f"not a picture: {what}" if data else "empty")
    if kinds[0] == "jpg" and data.count(b"\xff\xda") > 200:  # honest ones have about 10; each is a pass over all pixels
        raise Refused("too many scans")
    try:
        _, (width, height) = open_image(data, max_megapixels, draft_side=64)
    except BadImage as error:
        raise Refused(str(error)) from None
    return Photo(data, sha256(data), kinds[0], width, height)
