"""Connections for untrusted addresses: to the public internet only, and ended in time.

An address found on the web may lead to a machine of the local network (server-side request
forgery): directly, through a redirect, or through a host name that resolves differently the second
time (DNS rebinding). Its server may also send one byte a second for ever.
"""
import contextlib
import http.cookiejar
import ipaddress
import socket
import threading
import time

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Refused(Exception):
    """An address that is not worth another attempt; the message is the reason."""


class Failed(Exception):
    """An address that may work later; the message is the reason.

    `wait` is the number of seconds that its host asks to wait, 0 if it does not ask.
    """

    def __init__(self, reason, wait=0.0):
        super().__init__(reason)
        self.wait = wait


def is_public(address):
    """Return whether an IP address (text) is on the public internet, also when wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    candidates = [ip]
    if ip.version == 6:
        candidates += [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in ipaddress.ip_network("64:ff9b::/96"):  # NAT64, RFC 6052
            candidates.append(ipaddress.ip_address(int(ip) & 0xFFFFFFFF))
    return all(ip.is_global and not ip.is_multicast for ip in candidates if ip is not None)


class Watchdog:
    """Shuts the connection of a thread whose time is up: in the handshake, the headers or the body.

    The time limit of `requests` is per read: a server that sends one byte a second would block a
    thread for ever.
    """

    def __init__(self):
        self.lock, self.deadlines, self.sockets = threading.Lock(), {}, {}
        threading.Thread(target=self._patrol, daemon=True).start()

    def start(self, seconds):
        """Give the calling thread this many seconds."""
        with self.lock:
            self.deadlines[threading.get_ident()] = time.monotonic() + seconds

    def connected(self, sock):
        """Note the socket that the calling thread now uses."""
        with self.lock:
            self.sockets[threading.get_ident()] = sock.fileno()

    def expired(self):
        """Return whether the calling thread's time is up; its last read may then be cut short."""
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
    """Shut the connection of a socket's file number, by which TLS wrappers share it."""
    with contextlib.suppress(OSError, ValueError):  # closed already
        sock = socket.socket(fileno=number)
        try:
            sock.shutdown(socket.SHUT_RDWR)
        finally:
            sock.detach()


class GuardedConnection:
    """Resolves a host name once, checks every address it gets, and connects to one of those.

    Looking the name up again when connecting would leave room for DNS rebinding.
    """

    private_hosts, watchdog = (), None

    def _new_conn(self):
        name = self._dns_host
        addresses = self._resolve(name)
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
        self.watchdog.connected(sock)
        return sock

    def _resolve(self, name):
        """Return the IP addresses of a host name; raise Refused if one of them is not public."""
        try:
            found = socket.getaddrinfo(name, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Failed(f"no such host: {name[:60]}") from error
        addresses = list(dict.fromkeys(entry[4][0] for entry in found))
        for address in addresses:
            if name not in self.private_hosts and not is_public(address):
                raise Refused(f"not a public address: {address}")
        return addresses

    def request(self, *args, **kwargs):
        """Send a request; over a connection kept from an earlier one, no new one is opened."""
        if self.sock is not None:
            self.watchdog.connected(self.sock)
        return super().request(*args, **kwargs)


def guarded_session(watchdog, private_hosts, connections):
    """Return a `requests` session for untrusted addresses: guarded, no proxies, no cookies.

    `private_hosts` are the names that may resolve to private addresses; `connections` is the number
    kept open per host.
    """
    session = requests.Session()
    session.trust_env = False  # a proxy would connect for us, past the check of addresses
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    guard = {"private_hosts": private_hosts, "watchdog": watchdog}
    adapter = HTTPAdapter(pool_connections=256, pool_maxsize=connections)
    adapter.poolmanager.pool_classes_by_scheme = {
        "http": guarded_pool(HTTPConnectionPool, HTTPConnection, guard),
        "https": guarded_pool(HTTPSConnectionPool, HTTPSConnection, guard)}
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def guarded_pool(pool, connection, guard):
    """Return a class of `urllib3` connection pools whose connections are guarded."""
    guarded = type("Guarded", (GuardedConnection, connection), guard)
    return type("GuardedPool", (pool,), {"ConnectionCls": guarded})
