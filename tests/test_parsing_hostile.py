"""Collecting from a hostile server: each address ends within its limits, with a named reason."""
import gzip
import io
import re
import socket
import socketserver
import struct
import threading
import time
import zlib

import pytest
from PIL import Image

from dataset_preparation.parsing.connections import is_public
from dataset_preparation.parsing.photo_check import check_photo
from dataset_preparation.parsing.safe_download import Failed, Limits, Refused, guarded_web
from tests.collecting_server import CollectingServer, jpeg, observation
from tests.conftest import run_measured, snapshot, write_classes
from utils import read_table, sha256

LIMITS = Limits(connect_seconds=2, read_seconds=2, total_seconds=4, max_bytes=5_000_000)


def png(width, height, mode="L"):
    """Return a PNG of one colour, written without ever having its pixels in memory."""
    kind, channels = {"L": (0, 1), "RGBA": (6, 4)}[mode]
    packer, row = zlib.compressobj(1), bytes(1 + width * channels)
    data = b"".join(packer.compress(row) for _ in range(min(height, 8000))) + packer.flush()

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
            + chunk(b"IEND", b""))


def animation():
    file = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def bomb(size):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunks = [packer.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)]
    return b"".join(chunks) + packer.flush()


def response(status, headers, body=b""):
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def found(body, **headers):
    """Return a response with a body, called a JPEG whatever it is."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return response(200, {"Content-Length": len(body), "Content-Type": "image/jpeg", **headers},
                    body)


def redirect(target):
    return response(302, {"Location": target, "Content-Length": 0})


PHOTO = jpeg("good")
SVG = (b'<?xml version="1.0"?><!-- x --><svg xmlns="http://www.w3.org/2000/svg">'
       b'<script>alert(1)</script></svg>')
SCANS = PHOTO[:-2] + b"\xff\xda\x00\x02" * 1000 + b"\xff\xd9"
PRIVATE = "not a public address: "
RESPONSES = {  # path: (response, status of the row, pattern of its reason)
    "page.jpg": (found(b"\n<!DOCTYPE html><html>Not found</html>"), "refused",
                 "not a picture: an HTML page"),
    "drawing.jpg": (found(SVG), "refused", "not a picture: an SVG drawing"),
    "paper.jpg": (found(b"%PDF-1.7 ..."), "refused", "not a picture: a PDF document"),
    "noise.jpg": (found(bytes(range(256))), "refused", "not a picture: unknown"),
    "empty.jpg": (found(b""), "refused", "empty"),
    "404": (response(404, {"Content-Length": 0}), "refused", "HTTP 404"),
    "403": (response(403, {"Content-Length": 0}), "refused", "HTTP 403"),
    "204": (response(204, {}), "refused", "HTTP 204"),
    "429": (response(429, {"Content-Length": 0, "Retry-After": 1}), "failed", "HTTP 429"),
    "500": (response(500, {"Content-Length": 0}), "failed", "HTTP 500"),
    "announced_more": (response(200, {"Content-Length": 9999}, PHOTO), "failed",
                       "shorter than announced"),
    "announced_less": (response(200, {"Content-Length": 500}, PHOTO), "refused", "broken: .*"),
    "announced_huge": (response(200, {"Content-Length": 10**12}, PHOTO), "refused",
                       "more than 5 MB"),
    "cut.jpg": (found(PHOTO[:-100]), "refused", "broken: .*"),
    "scans.jpg": (found(SCANS), "refused", "too many scans: 1,001.*"),
    "animation.gif": (found(animation()), "refused", "2 frames or more"),
    "big.png": (found(png(50_000, 50_000)), "refused", "too large: 50000 x 50000"),
    "wide.png": (found(png(5000, 5000, "RGBA")), "saved", ""),
    "bomb": (found(bomb(1_000_000_000), Content_Encoding="gzip"), "refused", "more than 5 MB"),
    "no_gzip": (found(PHOTO, Content_Encoding="gzip"), "refused", "broken content encoding"),
    "brotli": (found(PHOTO, Content_Encoding="br"), "refused", "content encoding br"),
    "noai": (found(PHOTO, X_Robots_Tag="noindex, noai"), "refused", ".*X-Robots-Tag.*"),
    "loop": (redirect("/loop"), "refused", "more than 10 redirects"),
    "to_own": (redirect("http://127.0.0.1:PORT/good.jpg"), "refused", PRIVATE + r"127\.0\.0\.1"),
    "to_cloud": (redirect("http://169.254.169.254/latest/meta-data/"), "refused",
                 PRIVATE + r"169\.254\.169\.254"),
    "to_odd": (redirect("http://2130706433/"), "refused", PRIVATE + r"127\.0\.0\.1"),
    "to_v6": (redirect("http://[::ffff:10.0.0.1]/"), "refused", PRIVATE + ".*"),
    "to_name": (redirect("http://PRIVATE_NAME/"), "refused", PRIVATE + ".*"),
    "to_umlaut": (redirect("/\u00f6.jpg"), "saved", ""),
    "to_nowhere": (redirect("http://no-such-host.invalid/"), "failed", "no such host: .*"),
    "to_file": (redirect("file:///etc/passwd"), "refused",
                "not an http or https address: file:///etc/passwd"),
    "no_http": (b"SSH-2.0-OpenSSH_9.2\r\n", "failed", "network error: .*|connection lost"),
    "hang_up": (b"", "failed", "connection lost"),
    "good.jpg": (found(PHOTO), "saved", ""),
    "good.gz": (found(gzip.compress(jpeg("zipped")), Content_Encoding="gzip"), "saved", ""),
    "good.zlib": (found(zlib.compress(jpeg("deflated")), Content_Encoding="deflate"), "saved", ""),
    "to_good": (redirect("//localhost:PORT/good.jpg?again"), "saved", ""),
    "%C3%B6.jpg": (found(jpeg("umlaut")), "saved", ""),
    "..%2F..%2F..%2Fescape.jpg": (found(jpeg("up")), "saved", ""),
    "name?a=/../../b.php%00.jpg": (found(jpeg("odd")), "saved", ""),
}
JPEG_START, CHUNKED = b"\xff\xd8\xff", {"Transfer-Encoding": "chunked"}
SLOW = {  # path: (start, piece sent again and again, seconds between, status, reason)
    "endless": (response(200, {}, JPEG_START), bytes(65536), 0, "refused", "more than 5 MB"),
    "drip": (response(200, {}, JPEG_START), b"x", 1, "failed", "longer than 4 s"),
    "drip_in_headers": (b"HTTP/1.1 200 OK\r\nX-A: ", b"x", 1, "failed", "longer than 4 s"),
    "drip_in_chunks": (response(200, CHUNKED), b"1\r\nx\r\n", 1, "failed", "longer than 4 s"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 50, 0, "failed",
                "network error: .*|connection lost"),
    "silence": (b"HTTP/1.1 200 OK\r\n", b"", 1, "failed", "no byte for 2 s"),
}


class Hostile(socketserver.BaseRequestHandler):
    def handle(self):
        path = self.request.recv(65536).split(b" ")[1].decode()[1:]
        try:
            if path in SLOW:
                start, piece, pause, *_ = SLOW[path]
                self.request.sendall(start)
                while not self.server.stopping.wait(pause):
                    self.request.sendall(piece)
            else:
                data = RESPONSES.get(path, RESPONSES["good.jpg"])[0]
                port = str(self.server.server_address[1]).encode()
                data = data.replace(b"PORT", port).replace(b"PRIVATE_NAME", private_name().encode())
                self.request.sendall(data)
        except OSError:
            pass  # the client has hung up


def private_name():
    """Return a host name that resolves to a private address here."""
    for name in (socket.gethostname(), "ip6-localhost", "localhost.localdomain", "ip6-loopback"):
        try:
            if not is_public(socket.getaddrinfo(name, 80)[0][4][0]):
                return name
        except OSError:
            continue
    return "127.0.0.1"


@pytest.fixture
def hostile():
    """The address of a hostile server, as `localhost`."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Hostile) as server:
        server.daemon_threads, server.block_on_close = True, False
        server.stopping = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}"
        server.stopping.set()
        server.shutdown()


@pytest.mark.slow
def test_every_hostile_response_ends_within_its_limits(hostile, tmp_path):
    cases = {path: case[-2:] for path, case in {**RESPONSES, **SLOW}.items()}
    addresses = {f"{hostile}/{path}": path for path in cases}
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    with CollectingServer() as server:
        taxon = {"id": 1, "name": "Rosa canina", "rank": "species", "is_active": True,
                 "iconic_taxon_name": "Plantae"}
        server.world.taxa["Rosa canina"] = [taxon]
        others = ["ftp://localhost/a.jpg", "file:///etc/passwd"]
        for number, address in enumerate([*addresses, *others], 1):
            server.world.observations.append(observation(server, number, taxon))
            server.world.observations[-1]["photos"][0]["url"] = address
        started = time.monotonic()
        done, megabytes = run_measured(
            tmp_path, "dataset_preparation/parsing/parsing.py", "--source", "inaturalist",
            "--inaturalist_url", server.url.replace("127.0.0.1", "localhost") + "/inat",
            "--class_table", tmp_path / "classes.csv", "--collected_dir", tmp_path / "out",
            "--private_hosts", "('localhost',)", "--api_delay", "0", "--host_delay", "0",
            "--host_connections", "16", "--photo_attempts", "1", "--connect_seconds", "2",
            "--read_seconds", "2", "--photo_seconds", "4", "--photo_mb", "5")
        seconds = time.monotonic() - started
    assert seconds < 120
    assert megabytes < 300, done.stdout
    rows = {row["url"]: row for row in read_table(tmp_path / "out/found.csv")}
    for address, path in addresses.items():
        status, reason = cases[path]
        row = rows.pop(address)
        assert row["status"] == status and re.fullmatch(reason, row["reason"]), f"{path}: {row}"
    assert {row["url"]: row["reason"] for row in rows.values()} == {
        address: f"not an http or https address: {address}" for address in others}
    names = ("good", "zipped", "deflated", "umlaut", "up", "odd")
    files = {f"{sha256(jpeg(name))[:16]}.jpg" for name in names}
    files.add(f"{sha256(png(5000, 5000, 'RGBA'))[:16]}.png")
    tables = ("found.csv.lock", "found.csv", "searches.csv", "ATTRIBUTION.csv", "CITATIONS.md")
    assert set(snapshot(tmp_path)) == {
        "classes.csv", *(f"out/{table}" for table in tables),
        *(f"out/images/Rosa canina/{file}" for file in files)}


def local_web(**limits):
    return guarded_web(LIMITS._replace(**limits), private_hosts=("localhost",))


@pytest.mark.parametrize(("path", "error"), [
    ("drip", Failed), ("drip_in_headers", Failed), ("endless", Refused)])
def test_slow_and_endless_responses_end_in_time(hostile, path, error):
    web, started = local_web(total_seconds=1.5), time.monotonic()
    with pytest.raises(error):
        web.fetch(f"{hostile}/{path}")
    assert time.monotonic() - started < 10  # drip and endless would never end


@pytest.mark.parametrize("path", ["to_own", "to_cloud", "to_odd", "to_v6", "to_name", "to_file",
                                  "loop"])
def test_redirects_do_not_lead_to_private_addresses(hostile, path):
    with pytest.raises(Refused, match=RESPONSES[path][2]):
        local_web().fetch(f"{hostile}/{path}")


def test_a_redirect_in_utf8_is_followed(hostile):
    assert local_web().fetch(f"{hostile}/to_umlaut") == jpeg("umlaut")


def test_a_private_host_is_not_even_connected_to():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        with pytest.raises(Refused, match=PRIVATE):
            guarded_web(LIMITS).fetch(f"http://localhost:{listener.getsockname()[1]}/")
        with pytest.raises(TimeoutError):
            listener.accept()


def test_large_pictures_are_decoded_up_to_the_limit_only():
    assert check_photo(png(3000, 2000, "RGBA"), 7)[2:5] == ("png", 3000, 2000)
    with pytest.raises(Refused, match="3000 x 2000"):
        check_photo(png(3000, 2000, "RGBA"), 5)
