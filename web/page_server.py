"""A small web server for the pages of this project: routes, a token, no access for other sites.

    server = PageServer({("GET", "/"): page("review.html"), ("POST", "/decide"): decide}, port=8765)
    serve(server)

A route is a function from `Request` to `Reply`. It runs in the thread of its connection, so routes
with shared state need a lock. An `InputError` becomes status 400 with its message as text. Requests
for another host (DNS rebinding) or from another site's page (cross-site request forgery,
https://owasp.org/www-community/attacks/csrf) are refused.
"""
import base64
import ctypes
import hashlib
import hmac
import io
import ipaddress
import json
import os
import re
import secrets
import socket
import socketserver
import sys
import time
import traceback
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from names import whole_number
from utils import InputError
from web.body_memory import BodyMemory

OWN_FILES = ("default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; "
             "form-action 'none'")
POLICY = f"{OWN_FILES}; frame-ancestors 'none'"
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses: address on this machine
BODY_SILENCE = 20  # seconds without a byte before a body is abandoned, as others wait for it
# A body is also abandoned when PART bytes of it, or its last ones, took longer than PART_SECONDS.
PART, PART_SECONDS, BLOCK = 1_000_000, 30, 1 << 16  # 33 kB/s; bytes read at once
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin"}


class Request(NamedTuple):
    """The argument of a route: the path, the query {name: text}, and the body of a POST.

    `has_left` returns whether the client has hung up, so that nobody reads a reply.
    """

    path: str
    query: dict
    body: bytes
    has_left: Callable = lambda: False


class Reply(NamedTuple):
    """The result of a route.

    Browsers may cache it for `keep_seconds`; `policy` is its Content-Security-Policy and `encoding`
    its Content-Encoding.
    """

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    keep_seconds: int = 0
    policy: str = POLICY
    encoding: str = ""


def json_reply(value, status=200):
    """Return the reply that carries a value as JSON."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return Reply(body, "application/json; charset=utf-8", status)


def text_reply(status, message):
    """Return the reply that carries a message for people."""
    return Reply(message.encode(), "text/plain; charset=utf-8", status)


def page(path):
    """Return a route that serves an HTML file; only its inline scripts and styles may run."""
    body = read_html(path)
    return lambda request: Reply(body, policy=f"{POLICY}; {inline_sources(body)}")


def read_html(path, changes=()):
    """Return an HTML file in which scripts of its folder, `<script src="NAME">`, are inline.

    Texts in `changes` {old: new} are replaced before.
    """
    def inline(found):
        return f"<script>\n{(Path(path).parent / found[1]).read_text('utf-8')}</script>"
    text = Path(path).read_text("utf-8")
    for old, new in dict(changes).items():
        text = text.replace(old, new)
    return re.sub(r'<script src="([\w.]+)"></script>', inline, text).encode()


def inline_sources(body):
    """Return the Content-Security-Policy that allows a page's inline scripts and styles."""
    policy = []
    for name in ("script", "style"):
        texts = re.findall(rf"<{name}>(.*?)</{name}>".encode(), body, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in texts]
        sources = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
        policy.append(f"{name}-src {sources}")
    return "; ".join(policy)


class PageServer(ThreadingHTTPServer):
    """Serves `routes` {(method, path): function}; one thread per connection.

    With `token`, `url` contains a random token, a cookie keeps it, and requests without it are
    refused; `link` is a fixed word instead, which the address ends with. A request's body may have
    `max_body` bytes, on the paths in `large` {path: bytes} as many as stated there. Port 0 is any
    free one; a port in use raises InputError, which names the `flag` that sets it.
    """

    daemon_threads = True
    request_queue_size = 128  # connections waiting to be accepted; the default is 5
    allow_reuse_address = os.name != "nt"  # on Windows, two servers could then share a port

    def __init__(self, routes, host="127.0.0.1", port=0, max_body=1_000_000, token=True,
                 flag="--port", link="", large=()):
        self.routes, self.max_body, self.large = routes, max_body, dict(large)
        self.bodies = BodyMemory()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if link and ("GET", f"/{link}") in routes:
            raise InputError(f"--link {link} is an address of the page; choose another word")
        self.link, self.token = link, link or (secrets.token_urlsafe(24) if token else "")
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{host}, port {port}: {reason}; choose another port with {flag}, 0 "
                             "for any free one") from None
        # Another name than localhost would be refused, see is_plain_host: its address is shown.
        shown = ANY_ADDRESS.get(host, host if is_plain_host(host) else self.server_address[0])
        self.url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.server_port}/"
        if self.token:
            self.url += link or f"?token={self.token}"
        self.cookie = f"token_{self.server_port}"  # cookies are shared by all ports of a host

    def server_bind(self):
        """Bind without HTTPServer's DNS look-up of this machine's name."""
        if self.address_family == socket.AF_INET6:  # let "::" accept IPv4, too
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_port = self.server_address[1]

    def handle_error(self, request, client_address):
        """Ignore browsers that hang up; print the traceback of anything else."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc()


def serve(server, open_browser=True):
    """Print the address, open it in the browser if there is a screen, and serve until Ctrl-C."""
    screen = (sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY")
              or os.environ.get("WAYLAND_DISPLAY"))
    return_large_blocks()
    with server:
        try:
            print(f"open {server.url}")
            if server.server_address[0] in ANY_ADDRESS and (address := network_address()):
                phone_url = re.sub(r"//[^/]*:", f"//{address}:", server.url, count=1)
                print(f"on a phone in the same network: {phone_url}")
                print_qr_code(phone_url)
            print("Ctrl-C stops the page", flush=True)
            if open_browser and screen:  # without one, webbrowser would start a text browser
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


def print_qr_code(text):
    """Print a QR code of a text on a terminal, or how to install the package for it."""
    if not sys.stdout.isatty():
        return
    try:
        import segno
    except ImportError:
        print("to scan this address, run pip install segno")
    else:
        segno.make(text, error="l", micro=False).terminal(compact=True)


def return_large_blocks():
    """Make glibc return every freed block of a megabyte to the system.

    By default the thread of each connection would keep some of the memory that it has freed.
    """
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD


def network_address():
    """Return this machine's address in its network, or else that of its host name, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # RFC 5737; UDP sends nothing here
        return probe.getsockname()[0]
    with suppress(OSError):
        return socket.gethostbyname(socket.gethostname())


class Handler(BaseHTTPRequestHandler):
    """Checks a request, calls its route and sends the reply."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "plants", ""
    disable_nagle_algorithm = True
    timeout = 120  # seconds of silence after which a connection is closed

    def do_GET(self):
        length, self.new_cookie = whole_number(self.headers.get("Content-Length", "0")), False
        try:
            url = urlsplit(self.path)
        except ValueError:  # such as http://[
            self.close_connection = True
            return self.send(text_reply(400, "this is not an address"))
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if self.server.link and url.path == f"/{self.server.link}":
            url, query = url._replace(path="/"), {**query, "token": self.server.link}
        if "Transfer-Encoding" in self.headers or length is None:
            self.close_connection = True  # where the next request starts is unknown
            return self.send(text_reply(411, "the request has no Content-Length"))
        if refusal := self.refuse(url.path, query, length):
            return self.send(refusal) if self.skip_body(length) else None
        with self.server.bodies.hold(length, self.client_address[0]) as take:
            body = self.read_body(length, take)
            if body is not None:
                return self.send(self.call_route(Request(url.path, query, body,
                                                         self.has_left)))

    def read_body(self, length, take):
        """Return the body; None if its sender hung up or is too slow, which then is told so."""
        body, seconds = io.BytesIO(), 0
        self.connection.settimeout(min(BODY_SILENCE, self.timeout))
        while missing := length - body.tell():
            began = time.monotonic()
            block = self.rfile.read1(min(missing, BLOCK, PART - body.tell() % PART))
            seconds += time.monotonic() - began
            if not block or seconds > PART_SECONDS:
                self.close_connection = True
                return self.send(text_reply(408, f"slower than {PART / 1e6:g} MB in "
                                            f"{PART_SECONDS} seconds")) if block else None
            take(len(block))
            body.write(block)
            seconds = seconds if body.tell() % PART else 0
        self.connection.settimeout(self.timeout)
        return body.getvalue()

    def has_left(self):
        """Return whether the client has hung up; another thread may ask while a route waits."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError as error:
            return not isinstance(error, BlockingIOError)
        finally:
            self.connection.settimeout(self.timeout)

    def skip_body(self, length):
        """Read and discard a body (closing early would lose the reply); return if it was whole."""
        while length and (block := self.rfile.read1(min(length, 1 << 16))):
            length -= len(block)
        self.close_connection = self.close_connection or bool(length)
        return not length

    do_POST = do_GET

    def refuse(self, path, query, length):
        """Return the reply to a request that must not reach its route, or None."""
        host = self.headers.get("Host", "")
        origin, server = self.headers.get("Origin", f"http://{host}"), self.server
        if not is_plain_host(host) or origin != f"http://{host}":
            return text_reply(403, "requests from other sites are refused")
        cookies = dict(part.strip().partition("=")[::2]
                       for part in self.headers.get("Cookie", "").split(";"))
        token = query.get("token") or cookies.get(server.cookie, "")
        if server.token and not hmac.compare_digest(token.encode(), server.token.encode()):
            return text_reply(403, "the token is missing; open the address that the script printed")
        self.new_cookie = bool(server.token) and "token" in query
        if (self.command, path) not in server.routes:
            return text_reply(404, "there is no such page")
        if length > (most := server.large.get(path, server.max_body)):
            return text_reply(413, f"larger than {most / 1e6:g} MB")
        return None

    def call_route(self, request):
        """Return the reply of the route, or one for its exception."""
        try:
            return self.server.routes[self.command, request.path](request)
        except InputError as error:
            return text_reply(400, str(error))
        except Exception:
            traceback.print_exc()
            return text_reply(500, "internal error; see the terminal of the script")

    def send(self, reply):
        """Send a reply with the common headers."""
        caching = f"private, max-age={reply.keep_seconds}" if reply.keep_seconds else "no-store"
        headers = {**HEADERS, "Content-Type": reply.content_type,
                   "Content-Length": str(len(reply.body)), "Cache-Control": caching,
                   "Content-Security-Policy": reply.policy}
        if reply.encoding:
            headers["Content-Encoding"] = reply.encoding
        if self.new_cookie:
            headers["Set-Cookie"] = (f"{self.server.cookie}={self.server.token}; HttpOnly; "
                                     "SameSite=Strict; Path=/")
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *_):
        """Print nothing: one line per request would hide the address."""


def is_plain_host(host):
    """Return whether a Host header is an IP address or "localhost", which no other site can use."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
