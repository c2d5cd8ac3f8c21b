"""A small web server for the pages of this project: a table of addresses, a token, nothing another site could misuse.

    server = build_server({("GET", "/"): page("review.html"), ("POST", "/api/decide"): decide}, port=8765)
    serve(server, "review", open_page=True)

A route is a function of a `Request` that returns (status, content type, bytes), or these and a dictionary of further
headers. It runs in the thread of its connection, so routes that share something need a lock. What it raises as
`InputError` becomes status 400 with the message as text.
"""
import base64
import hashlib
import hmac
import io
import ipaddress
import os
import re
import secrets
import socketserver
import sys
import time
import traceback
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from utils import InputError

IDLE_SECONDS = 300  # how long a connection may wait for its next request
POLICY = ("default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
          "frame-ancestors 'none'")
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": POLICY,
           "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"}


class Request(NamedTuple):
    """What a route is given: path and query of the address, headers, and the body as it was sent."""

    path: str
    query: dict
    headers: object
    body: bytes


def page(path):
    """Return a route that answers with an HTML file whose own scripts and styles, and no others, may run."""
    body = Path(path).read_bytes()
    sources = {name: " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in
                              re.findall(rf"<{name}>(.*?)</{name}>".encode(), body, re.DOTALL)) or "'none'"
               for name in ("script", "style")}
    policy = f"{POLICY}; script-src {sources['script']}; style-src {sources['style']}"
    return lambda request: (200, "text/html; charset=utf-8", body, {"Content-Security-Policy": policy})


def build_server(routes, host="127.0.0.1", port=0, token=True, max_mb=1.0, seconds=30.0):
    """Return a listening `Server`; `url` is the address to open.

    `routes` maps (method, path) to a function. With `token`, only who has the address with this run's random token is
    answered. A request may have `max_mb` megabytes and take `seconds` to arrive. Port 0 is any free one.
    """
    try:
        server = Server((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(f"{host}, port {port} cannot be used ({error}); choose another, 0 for any free port") from None
    server.routes, server.max_bytes, server.seconds = routes, int(max_mb * 1e6), seconds
    server.token = secrets.token_urlsafe(16) if token else ""
    shown = f"http://{host if host != '0.0.0.0' else '127.0.0.1'}:{server.server_port}/"
    server.url = shown + (f"?token={server.token}" if token else "")
    return server


def serve(server, name, open_page=False):
    """Print the address and answer requests until Ctrl-C; open the address in a browser where there is a screen."""
    screen = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    try:
        print(f"{name}: {server.url}   (Ctrl-C stops it)", flush=True)
        if open_page and screen:  # without one, webbrowser would start a text browser in this terminal
            webbrowser.open(server.url)
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.server_close()


class Server(ThreadingHTTPServer):
    """One thread per connection; `build_server` sets what it needs to know."""

    daemon_threads = True
    request_queue_size = 128  # connections of several users at once wait here
    allow_reuse_address = os.name != "nt"  # on Windows it would let two servers share a port

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)  # HTTPServer asks the network for this machine's name
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a browser that left is no error
            traceback.print_exc()


class DeadlineReader(io.RawIOBase):
    """Bytes of a socket that must all have arrived by `deadline` (of `time.monotonic`), else TimeoutError."""

    def __init__(self, connection):
        self.connection, self.deadline = connection, 0.0

    def readable(self):
        return True

    def readinto(self, buffer):
        self.connection.settimeout(max(0.001, self.deadline - time.monotonic()))
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Checks a request, calls its route and sends the answer."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "plants", ""
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.reader = DeadlineReader(self.connection)
        self.rfile = io.BufferedReader(self.reader)

    def handle_one_request(self):
        self.reader.deadline = time.monotonic() + IDLE_SECONDS
        try:
            self.rfile.peek(1)
        except OSError:
            self.close_connection = True
            return
        self.reader.deadline = time.monotonic() + self.server.seconds
        super().handle_one_request()

    def do_GET(self):
        address, length = urlsplit(self.path), self.headers.get("Content-Length", "0")
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            self.close_connection = True  # where the next request starts is not known
            self.send(*text(411, "say how long the body is"))
            return
        answer, body, left = self.refusal(address.path, query, int(length)), [], int(length)
        while left and (block := self.rfile.read1(min(left, 1 << 16))):
            left -= len(block)
            body += [] if answer else [block]  # a refused body is read too: closing on it would lose the answer
        if left:
            self.close_connection = True  # the sender went away
        else:
            self.send(*answer or self.answer(Request(address.path, query, self.headers, b"".join(body))))

    do_POST = do_GET

    def refusal(self, path, query, length):
        """Return the answer to a request that is not to reach its route, or None."""
        host = self.headers.get("Host", "")
        if not is_plain_host(host) or self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            return text(403, "this page answers only under its own address")
        cookie = f"token_{self.server.server_port}"
        given = dict(part.strip().partition("=")[::2] for part in self.headers.get("Cookie", "").split(";"))
        offered = query.get("token", self.headers.get("X-Token", given.get(cookie, "")))
        if self.server.token and not hmac.compare_digest(offered.encode(), self.server.token.encode()):
            return text(403, "open the address that the script printed when it was started; each start has a new one")
        if "token" in query and self.command == "GET" and self.server.token:
            return *text(303, ""), {"Location": path, "Set-Cookie":
                                    f"{cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"}
        if (self.command, path) not in self.server.routes:
            known = any(path == route for _, route in self.server.routes)
            return text(405, "not that method") if known else text(404, "there is nothing here")
        if length > self.server.max_bytes:
            return text(413, f"more than {self.server.max_bytes / 1e6:g} megabytes")
        return None

    def answer(self, request):
        """Return what the route answers; its failures become an answer too."""
        try:
            return self.server.routes[self.command, request.path](request)
        except InputError as error:
            return text(400, str(error))
        except Exception:
            traceback.print_exc()
            return text(500, "this failed; the terminal of the script says why")

    def send(self, status, kind, body, headers=()):
        """Send one answer."""
        self.connection.settimeout(self.server.seconds)
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Keep the terminal for what people need to read."""


def text(status, message):
    """Return an answer of plain text."""
    return status, "text/plain; charset=utf-8", message.encode()


def is_plain_host(host):
    """Return whether a Host header names this machine without asking the network: another site's name never does."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
