"""Connections to untrusted addresses: only to the public internet, and with a time limit.

An address found on the web may lead to a machine in the local network (server-side request
forgery): directly, through a redirect, or through a host name that resolves differently the second
time (DNS rebinding). Its server may also send one byte per second for ever. A proxy resolves names
itself, so with a proxy only numeric addresses can be checked.
"""
import contextlib
import functools
import http.client
import importlib.util
import ipaddress
import os
import re
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy, should_bypass_proxies
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from utils import InputError, warn

BUSY_WAIT = 60  # seconds after HTTP 429 without Retry-After: most sites count per minute
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError,
                  http.client.HTTPException, OSError)
INVALID_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema,
                   requests.exceptions.MissingSchema, urllib3.exceptions.LocationValueError)
LOCAL_NAMES = r"(.*\.)?(localhost|local|internal|lan|home\.arpa)"


class Refused(Exception):
    """A final failure of an address; the message is the reason."""


class Failed(Exception):
    """A failure that may be temporary; the message is the reason.

    `wait` is the number of seconds that the host asks to wait, 0 if it does not ask.
    """

    def __init__(self, reason, wait=0.0):
        super().__init__(reason)
        self.wait = wait


class Busy(Failed):
    """A host that got too many requests and does not say how long to wait."""

    def __init__(self, reason, first_pause=BUSY_WAIT):
        super().__init__(reason)
        self.first_pause = first_pause  # seconds to wait the first time


class Offline(Failed):
    """A host that cannot be reached: it may be gone, or this machine may be offline."""


class Lost(Offline):
    """A broken connection: the network may be down, or the host hangs up on this address."""


REASONS = (  # pattern in a network error, its kind, its reason ({0}: the limits); first match
    (r"IncompleteRead|Connection broken", Failed, "shorter than announced"),
    (r"Tunnel connection failed: 407", Failed, "the proxy asks for a name and a password: give "
                                               "them in its address, http://name:password@host:port"),
    (r"Tunnel connection failed", Failed, "the proxy refuses to connect"),
    (r"CERTIFICATE|certificate", Failed, "untrusted certificate; if a firewall of yours signs "
                                         "connections, give its certificate with --ca_bundle"),
    (r"SSL", Failed, "TLS error"),
    (r"connect timeout", Offline, "no connection within {0.connect_seconds:g} s"),
    (r"[Tt]imed? ?out", Failed, "no byte for {0.read_seconds:g} s"),
    (r"ProxyError|to proxy", Offline, "no connection to the proxy"),
    (r"refused", Offline, "connection refused"),
    (r"Failed to resolve|getaddrinfo", Offline, "no such host"),
    (r"RemoteDisconnected|closed connection|reset|aborted|unreachable", Lost, "connection lost"))


def failure_of(error, limits):
    """Return the Failed, Offline or Lost of a network error, with a short reason."""
    text = re.sub(r"with url: \S*", "", str(error))  # `requests` nests up to three errors
    for pattern, kind, reason in REASONS:
        if re.search(pattern, text):
            return kind(reason.format(limits))
    return Failed(f"network error: {type(error).__name__}")


# ---- the way to the internet ----

class NetworkAccess(NamedTuple):
    """How this machine reaches the internet, and how long it waits for a site in an outage."""

    proxy: str = "environment"  # "environment", "none" or the address of one
    ca_bundle: str = ""  # file of trusted certificates; "" = the environment's, else certifi's
    patience: float = 0.0  # seconds
    busy_wait: float = BUSY_WAIT  # seconds, the first time that a host is `Busy`

    def proxies(self, address):
        """Return the proxies for an address, as `requests` takes them."""
        direct = {"no_proxy": "*"}  # without it, `requests` reads the environment again
        try:
            if self.proxy == "environment":
                return get_environ_proxies(address) or direct
            if self.proxy == "none" or should_bypass_proxies(address, no_proxy=None):
                return direct
        except ValueError:  # an invalid address, which `requests` reports
            return direct
        return {"http": self.proxy, "https": self.proxy}


def build_network_access(s):
    """Return the `NetworkAccess` of the settings; raise InputError if it cannot work."""
    bundle, origin = s.ca_bundle, "CA_BUNDLE"
    for origin in () if bundle else CA_VARIABLES:
        if bundle := os.environ.get(origin, ""):
            break
    if bundle and not Path(bundle).exists():
        raise InputError(f"{origin} names {bundle}, which does not exist; give the file of the "
                         "certificates to trust (PEM)")
    network = NetworkAccess(s.proxy, bundle, 60 * s.patience_minutes, s.busy_seconds)
    if any(proxy.startswith("socks") for proxy in network.proxies("https://example.org").values()
           ) and not importlib.util.find_spec("socks"):
        raise InputError("a SOCKS proxy needs a package; run pip install pysocks")
    return network


@functools.cache
def warn_of_proxy(proxy):
    """Warn once of what cannot be checked with a proxy."""
    shown = re.sub(r"//[^/]*@", "//", proxy)  # without name and password
    warn(f"requests go through the proxy {shown}, which resolves host names; only numeric "
         "addresses found on the web can be checked to be public; --proxy none connects directly")


def require_public_name(name):
    """Raise Refused for a host whose name or number is private, without a DNS look-up."""
    if re.fullmatch(LOCAL_NAMES, name.lower().rstrip(".")):
        raise Refused(f"not a public address: {name}")
    try:  # resolvers accept 2130706433 and 0x7f.1 as numbers, too
        found = socket.getaddrinfo(name, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return  # a name
    require_public([entry[4][0] for entry in found])


def require_public(addresses):
    """Raise Refused if one of the IP addresses is not public."""
    for address in addresses:
        if not is_public(address):
            raise Refused(f"not a public address: {address}")


def is_public(address):
    """Return whether an IP address (text) is on the public internet, even if wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    candidates = [ip]
    if ip.version == 6:
        candidates += [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64, RFC 6052
            candidates.append(ipaddress.ip_address(int(ip) & 0xFFFFFFFF))
    return all(ip.is_global and not ip.is_multicast for ip in candidates if ip is not None)


class Watchdog:
    """Shuts the connection of a thread whose time is up, in the handshake, headers or body.

    The timeout of `requests` applies to each read: a server that sends one byte per second would
    block a thread for ever.
    """

    def __init__(self):
        self.lock, self.deadlines, self.sockets = threading.Lock(), {}, {}
        threading.Thread(target=self._patrol, daemon=True).start()

    def start(self, seconds):
        """Give the calling thread this many seconds."""
        with self.lock:
            self.deadlines[threading.get_ident()] = time.monotonic() + seconds

    def connected(self, sock):
        """Register the socket that the calling thread now uses."""
        with self.lock:
            self.sockets[threading.get_ident()] = sock.fileno()

    def expired(self):
        """Return whether the calling thread's time is up; its last read may be incomplete."""
        return time.monotonic() > self.deadlines[threading.get_ident()]

    def stop(self):
        """Forget the calling thread."""
        with self.lock:
            self.deadlines.pop(threading.get_ident(), None)
            self.sockets.pop(threading.get_ident(), None)

    def expire_all(self):
        """End the time of every thread."""
        with self.lock:
            self.deadlines = dict.fromkeys(self.deadlines, 0.0)

    def _patrol(self):
        """Shut late connections repeatedly: a late thread may just be opening the next one."""
        while True:
            time.sleep(0.1)
            with self.lock:
                now = time.monotonic()
                late = {thread for thread, deadline in self.deadlines.items() if now > deadline}
                for thread in late & set(self.sockets):
                    shut_down(self.sockets[thread])


def shut_down(number):
    """Shut the connection of a socket's file number, which its TLS wrapper shares."""
    with contextlib.suppress(OSError, ValueError):  # closed already
        sock = socket.socket(fileno=number)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        finally:
            sock.detach()


class Response(http.client.HTTPResponse):
    """Skips informational responses, such as 103 Early Hints, before the real one."""

    def _read_status(self):
        while True:
            version, status, reason = super()._read_status()
            if not 102 <= status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class WatchedConnection:
    """A connection that the watchdog can shut."""

    watchdog, response_class = None, Response

    def _new_conn(self):
        sock = super()._new_conn()
        self.watchdog.connected(sock)
        return sock

    def request(self, *args, **kwargs):
        """Send a request, reusing an open connection if there is one."""
        if self.sock is not None:
            self.watchdog.connected(self.sock)
        return super().request(*args, **kwargs)


class GuardedConnection(WatchedConnection):
    """Resolves a host name once, checks all of its addresses, and connects to one of them.

    A second look-up when connecting would allow DNS rebinding.
    """

    private_hosts = ()

    def _new_conn(self):
        name = self._dns_host
        addresses = self._resolve(name)
        for address in addresses:
            try:
                self._dns_host = address
                return super()._new_conn()
            except urllib3.exceptions.HTTPError:
                if address == addresses[-1]:
                    raise
            finally:
                self._dns_host = name

    def _resolve(self, name):
        """Return the IP addresses of a host name; raise Refused if one of them is not public."""
        try:
            found = socket.getaddrinfo(name, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Offline(f"no such host: {name[:60]}") from error
        addresses = list(dict.fromkeys(entry[4][0] for entry in found))
        if name not in self.private_hosts:
            require_public(addresses)
        return addresses


class GuardedAdapter(HTTPAdapter):
    """Sends requests to untrusted addresses: directly only to public ones, or through a proxy.

    `private_hosts` are names that may resolve to private addresses; `connections` is the number
    kept open per host.
    """

    def __init__(self, private_hosts, watchdog, connections):
        self.private_hosts, self.watchdog = private_hosts, watchdog
        super().__init__(pool_connections=256, pool_maxsize=connections)
        guard = {"private_hosts": private_hosts, "watchdog": watchdog}
        self.poolmanager.pool_classes_by_scheme = {
            "http": guarded_pool(HTTPConnectionPool, GuardedConnection, guard),
            "https": guarded_pool(HTTPSConnectionPool, GuardedConnection, guard)}

    def send(self, request, *args, proxies=None, **kwargs):
        """Send a request; check its host here if a proxy will resolve it."""
        if proxy := select_proxy(request.url, proxies):
            warn_of_proxy(proxy)
            host = urlsplit(request.url).hostname or ""
            if host not in self.private_hosts:
                require_public_name(host)
        return super().send(request, *args, proxies=proxies, **kwargs)

    def proxy_manager_for(self, proxy, **kwargs):
        """Return the manager of connections through a proxy, which the watchdog can shut, too."""
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {
            scheme: guarded_pool(pool, WatchedConnection, {"watchdog": self.watchdog})
            for scheme, pool in manager.pool_classes_by_scheme.items()}
        return manager


def guarded_pool(pool, guard, attributes):
    """Return a class of `urllib3` connection pools whose connections are guarded."""
    connection = type("Guarded", (guard, pool.ConnectionCls), attributes)
    return type("GuardedPool", (pool,), {"ConnectionCls": connection})
