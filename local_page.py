"""A small server for the pages of this project: reached from this machine, with the token of this run only.

The standard library's `http.server`, one thread a request. Names of other hosts are refused (DNS rebinding), and so
are requests that another site's page sends (https://owasp.org/www-community/attacks/csrf).
"""
import hmac
import json
import secrets
import sys
import threading
import webbrowser
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

LOCAL = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' "
                               "'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
                               "form-action 'none'"}
READ_SECONDS = 30.0  # without a byte from the browser, before a connection is closed


class Request(NamedTuple):
    """What a route gets: the path, the query as a dictionary of text, and the body of a POST."""

    path: str
    query: dict
    body: bytes


class Reply(NamedTuple):
    """What a route gives: body, its content type, the status, and whether the browser may keep it."""

    body: bytes
    content_type: str = "text/html; charset=utf-8"
    status: int = 200
    keep_seconds: int = 0


def json_reply(value, status=200):
    """Return the reply that carries a value as JSON."""
    return Reply(json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8", status)


class PageServer(ThreadingHTTPServer):
    """Serves `routes` {(method, path): function(Request) -> Reply}; a path ending in `/` stands for all below it.

    Every request needs the token of this run, once in the address (`?token=`) and from then on in a cookie.
    `max_body` is in bytes. Port 0 takes a free one.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, routes, host="127.0.0.1", port=0, max_body=1_000_000):
        self.routes, self.max_body, self.token = routes, max_body, secrets.token_urlsafe(24)
        super().__init__((host, port), Handler)
        self.cookie = f"token_{self.server_port}"  # cookies do not tell ports apart
        self.only_local = host in ("127.0.0.1", "localhost")

    @property
    def url(self):
        """The address to open, with the token."""
        return f"http://{self.server_address[0]}:{self.server_port}/?token={self.token}"

    def handle_error(self, request, client_address):
        """Say nothing of browsers that hang up; anything else is a defect and is shown."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Checks a request and answers it by the server's table."""

    protocol_version = "HTTP/1.1"
    timeout = READ_SECONDS

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def answer(self, method):
        """Answer one request; a body that was not read closes the connection."""
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        refusal = self.refusal(method, query)
        if refusal:
            self.close_connection = True
            return self.send(Reply(refusal[1].encode(), "text/plain; charset=utf-8", refusal[0]))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if method == "POST" else b""
        route = self.route(method, address.path)
        if route is None:
            return self.send(Reply(b"no such page", "text/plain; charset=utf-8", 404))
        return self.send(route(Request(address.path, query, body)))

    def refusal(self, method, query):
        """Return (status, message) for a request that must not be answered, else None."""
        host = self.headers.get("Host", "")
        if self.server.only_local and host.rpartition(":")[0] not in LOCAL:
            return 403, "this page answers to 127.0.0.1 and localhost only"
        if not self.has_token(query):
            return 403, "open the address that the script printed: it carries the token of this run"
        if method == "POST":
            origin = self.headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc != host:
                return 403, "sent by the page of another site"
            length = self.headers.get("Content-Length", "")
            if not length.isdigit():
                return 411, "the length of the body is missing"
            if int(length) > self.server.max_body:
                return 413, f"larger than {self.server.max_body / 1e6:g} MB"
        return None

    def has_token(self, query):
        """Return whether the address or the cookie carries the token of this run."""
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            cookie = None
        self.is_new = "token" in query
        given = query.get("token") or (cookie.value if cookie else "")
        return hmac.compare_digest(given.encode(), self.server.token.encode())

    def route(self, method, path):
        """Return the function of the table for a path, that of its folder where it has none of its own, or None."""
        return self.server.routes.get((method, path)) or self.server.routes.get(
            (method, path[:path.rfind("/") + 1] if path.count("/") > 1 else ""))

    def send(self, reply):
        """Send a reply with the headers every page has."""
        self.send_response(reply.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control",
                         f"private, max-age={reply.keep_seconds}" if reply.keep_seconds else "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        if reply.status < 400 and self.is_new:
            self.send_header("Set-Cookie",
                             f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *_):
        """Print nothing per request."""


def serve(server, open_browser=True):
    """Print the address, open it in the browser where asked, and serve until Ctrl-C."""
    print(f"open {server.url}\nCtrl-C stops the page", flush=True)
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
