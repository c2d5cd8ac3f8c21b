"""A small web server for the pages of this project: a table of addresses, a token, nothing another site could misuse.

    server = PageServer({("GET", "/"): page("review.html"), ("POST", "/decide"): decide}, port=8765)
    serve(server)

A route is a function from `Request` to `Reply`. It runs in the thread of its connection, so routes that share
something need a lock. An `InputError` it raises becomes status 400 with the message as text. Requests under the name
of another host are refused (DNS rebinding), and so are those that another site's page sends
(https://owasp.org/www-community/attacks/csrf).
"""
import base64
import hashlib
import hmac
import ipaddress
import json
import os
import re
import secrets
import socket
import socketserver
import sys
import traceback
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from utils import InputError

POLICY = ("default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
          "frame-ancestors 'none'")
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin"}


class Request(NamedTuple):
    """What a route gets: the path, the query as a dictionary of text, and the body of a POST."""

    path: str
    query: dict
    body: bytes


class Reply(NamedTuple):
    """What a route gives: body, its content type, the status, whether the browser may keep it, and what it may run."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    keep_seconds: int = 0
    policy: str = POLICY


def json_reply(value, status=200):
    """Return the reply that carries a value as JSON."""
    return Reply(json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8", status)


def text_reply(status, message):
    """Return the reply that carries a message for people."""
    return Reply(message.encode(), "text/plain; charset=utf-8", status)


def page(path):
    """Return a route that answers with an HTML file, of which the own scripts and styles may run and no others."""
    body, policy = Path(path).read_bytes(), POLICY
    for name in ("script", "style"):
        digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in
                   re.findall(rf"<{name}>(.*?)</{name}>".encode(), body, re.DOTALL)]
        policy += f"; {name}-src " + (" ".join(f"'sha256-{digest}'" for digest in digests) or "'none'")
    return lambda request: Reply(body, policy=policy)


class PageServer(ThreadingHTTPServer):
    """Serves `routes` {(method, path): function}; one thread per connection.

    With `token`, only who opened `url`, which carries this run's random token, is answered; a cookie keeps it. A
    request may have `max_body` bytes. Port 0 takes a free one; InputError for one in use, with its `flag`.
    """

    daemon_threads = True
    request_queue_size = 128  # connections of several users at once wait here
    allow_reuse_address = os.name != "nt"  # on Windows it would let two servers share a port

    def __init__(self, routes, host="127.0.0.1", port=0, max_body=1_000_000, token=True, flag="--port"):
        self.routes, self.max_body = routes, max_body
        self.token = secrets.token_urlsafe(24) if token else ""
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"{host}, port {port}: {getattr(error, 'strerror', None) or error}; name another with "
                             f"{flag}, 0 for any free one") from None
        shown = f"http://{host.replace('0.0.0.0', '127.0.0.1')}:{self.server_port}/"
        self.url = shown + f"?token={self.token}" * token
        self.cookie = f"token_{self.server_port}"  # cookies do not tell ports apart

    def server_bind(self):
        """Bind without asking the network for this machine's name, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        """Say nothing of browsers that hang up; anything else is a defect and is shown."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc()


def serve(server, open_browser=True):
    """Print the address, open it in the browser where there is a screen, and serve until Ctrl-C."""
    screen = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    with server:
        try:
            print(f"open {server.url}")
            if server.server_address[0] == "0.0.0.0":
                print(f"in the same network, on a phone: {server.url.replace('127.0.0.1', network_address())}")
            print("Ctrl-C stops the page", flush=True)
            if open_browser and screen:  # without one, webbrowser would start a text browser in this terminal
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


def network_address():
    """Return the address other machines of the network know this one by, its own name's where there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way_out:
        try:
            way_out.connect(("192.0.2.1", 9))  # sends nothing: it only asks which address would be used (RFC 5737)
            return way_out.getsockname()[0]
        except OSError:
            return socket.gethostbyname(socket.gethostname())


class Handler(BaseHTTPRequestHandler):
    """Checks a request, calls its route and sends the reply."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "plants", ""
    disable_nagle_algorithm = True
    timeout = 120  # seconds of silence after which a connection is closed

    def do_GET(self):
        address, length = urlsplit(self.path), self.headers.get("Content-Length", "0")
        query, self.new_cookie = dict(parse_qsl(address.query, keep_blank_values=True)), False
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            self.close_connection = True  # where the next request starts is not known
            return self.send(text_reply(411, "the length of the body is missing"))
        reply, body, left = self.refusal(address.path, query, int(length)), [], int(length)
        while left and (block := self.rfile.read1(min(left, 1 << 16))):
            left -= len(block)
            body += [] if reply else [block]  # a refused body is read too: closing on it would lose the reply
        if left:
            self.close_connection = True  # the sender went away
            return None
        return self.send(reply or self.answer(Request(address.path, query, b"".join(body))))

    do_POST = do_GET

    def refusal(self, path, query, length):
        """Return the reply to a request that is not to reach its route, or None."""
        host = self.headers.get("Host", "")
        if not is_plain_host(host) or self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            return text_reply(403, "this page answers only under its own address")
        cookies = dict(part.strip().partition("=")[::2] for part in self.headers.get("Cookie", "").split(";"))
        given = query.get("token") or cookies.get(self.server.cookie, "")
        if self.server.token and not hmac.compare_digest(given.encode(), self.server.token.encode()):
            return text_reply(403, "open the address that the script printed: it carries the token of this run")
        self.new_cookie = bool(self.server.token) and "token" in query
        if (self.command, path) not in self.server.routes:
            return text_reply(404, "there is no such page")
        if length > self.server.max_body:
            return text_reply(413, f"larger than {self.server.max_body / 1e6:g} MB")
        return None

    def answer(self, request):
        """Return the reply of the route; its failures become one too."""
        try:
            return self.server.routes[self.command, request.path](request)
        except InputError as error:
            return text_reply(400, str(error))
        except Exception:
            traceback.print_exc()
            return text_reply(500, "this failed; the terminal of the script says why")

    def send(self, reply):
        """Send one reply with the headers every one has."""
        kept = f"private, max-age={reply.keep_seconds}" if reply.keep_seconds else "no-store"
        own = {"Content-Type": reply.content_type, "Content-Length": str(len(reply.body)), "Cache-Control": kept,
               "Content-Security-Policy": reply.policy}
        if self.new_cookie:
            own["Set-Cookie"] = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        if self.close_connection:
            own["Connection"] = "close"
        self.send_response(reply.status)
        for name, value in {**HEADERS, **own}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *_):
        """Print nothing per request."""


def is_plain_host(host):
    """Return whether a Host header is an address or "localhost": another site's page never comes under these."""
    name = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
