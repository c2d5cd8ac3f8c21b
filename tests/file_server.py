"""A real HTTP server for tests of downloads: ranges, validators, and faults on request."""
import contextlib
import re
import threading
import time
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` {path: bytes} on a free local port.

    `log` holds (path, range, status, bytes sent) per request. `validators` are the headers that
    mark a version: "ETag", "Last-Modified", both or none; "weak" is a weak ETag.
    `faults` {path: [fault, ...]}: each request uses up the first one. A fault is a dictionary:
      status (with headers, body)  of a response in place of the file
      break_after, stall_after     bytes
      declare                      a false Content-Length
      chunked                      without a length
      whole                        ignore a Range
      shift                        a partial response that starts so many bytes late
      pace                         bytes per 10 ms
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.log, self.validators = {}, {}, [], ("ETag", "Last-Modified")
        self.stopping = threading.Event()

    def url(self, path):
        """Return the address of a path on this server."""
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request, client_address):
        """Print nothing: these tests are about clients that break off."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Respond with the file, a part of it, or the next fault."""
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else {}
        body = self.server.files.get(self.path)
        if "status" in fault or body is None:
            self.send(fault.get("status", 404), fault.get("body", b"no such file"),
                      fault.get("headers", {}), fault)
            return
        headers, start = self.version_of(body), 0
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range") in (None, *headers.values())
        if requested and unchanged and not fault.get("whole"):
            start = int(requested[1])
            if start >= len(body):
                self.send(416, b"", {"Content-Range": f"bytes */{len(body)}"}, fault)
                return
        if start:
            start += fault.get("shift", 0)
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.send(206 if start else 200, body[start:], {**headers, "Accept-Ranges": "bytes"}, fault)

    def version_of(self, body):
        """Return the headers by which a client can tell this version of a file from another one."""
        tag = md5(body).hexdigest()
        date = formatdate(1.6e9 + int(tag[:6], 16), usegmt=True)
        known = {"ETag": ("ETag", f'"{tag}"'), "weak": ("ETag", f'W/"{tag}"'),
                 "Last-Modified": ("Last-Modified", date)}
        return dict(known[name] for name in self.server.validators)

    def send(self, status, body, headers, fault):
        """Send a response, broken off, stalled or slowed down as the fault says."""
        entry = [self.path, self.headers.get("Range"), status, 0]
        self.server.log.append(entry)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.get("chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(fault.get("declare", len(body))))
        self.end_headers()
        limit = min(fault.get("break_after", len(body)), fault.get("stall_after", len(body)))
        sent, step = 0, fault.get("pace", len(body) or 1)
        with contextlib.suppress(OSError):
            while sent < limit:
                self.wfile.write(body[sent:min(sent + step, limit)])
                sent = entry[3] = min(sent + step, limit)
                if "pace" in fault:
                    time.sleep(0.01)
        if "stall_after" in fault:
            self.server.stopping.wait(20)
        self.close_connection = self.close_connection or limit < len(body) or "declare" in fault

    def log_message(self, *_):
        """Print nothing."""
