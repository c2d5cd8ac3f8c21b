"""Collecting from a hostile server: every address ends within its limits, with a named reason."""
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

from dataset_preparation.parsing.safe_download import Failed, Limits, Refused, Web, check_photo, is_public
from tests.collecting_server import CollectingServer, jpeg, observation
from tests.conftest import run_measured, snapshot, write_classes
from utils import read_table, sha256

LIMITS = Limits(connect_seconds=2, read_seconds=2, total_seconds=4, max_bytes=5_000_000)


def png(width, height, mode="L"):
    """Return a PNG of one colour, written without ever holding its pixels."""
    kinds, channels = {"L": 0, "RGBA": 6}, {"L": 1, "RGBA": 4}
    packer, row = zlib.compressobj(1), bytes(1 + width * channels[mode])
    data = b"".join(packer.compress(row) for _ in range(min(height, 8000))) + packer.flush()

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, 8, kinds[mode], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def animation():
    file = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def bomb(size):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)) + packer.flush()


PHOTO = jpeg("good")
SVG = b'<?xml version="1.0"?><!-- x --><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
SCANS = PHOTO[:-2] + b"\xff\xda\x00\x02" * 1000 + b"\xff\xd9"


def answer(status, headers, body=b""):
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def whole(body, **headers):
    return answer(200, {"Content-Length": len(body), "Content-Type": "image/jpeg",
                        **{name.replace("_", "-"): value for name, value in headers.items()}}, body)


WHOLE = {  # path: (answer, status, reason)
    "page.jpg": (whole(b"\n<!DOCTYPE html><html>Not found</html>"), "refused", "not a picture: an HTML page"),
    "drawing.jpg": (whole(SVG), "refused", "not a picture: an SVG drawing"),
    "paper.jpg": (whole(b"%PDF-1.7 ..."), "refused", "not a picture: a PDF document"),
    "noise.jpg": (whole(bytes(range(256))), "refused", "not a picture: unknown"),
    "empty.jpg": (whole(b""), "refused", "empty"),
    "404": (answer(404, {"Content-Length": 0}), "refused", "HTTP 404"),
    "403": (answer(403, {"Content-Length": 0}), "refused", "HTTP 403"),
    "204": (answer(204, {}), "refused", "HTTP 204"),
    "429": (answer(429, {"Content-Length": 0, "Retry-After": 1}), "failed", "HTTP 429"),
    "500": (answer(500, {"Content-Length": 0}), "failed", "HTTP 500"),
    "announced_more": (answer(200, {"Content-Length": 9999}, PHOTO), "failed", "shorter than announced"),
    "announced_less": (answer(200, {"Content-Length": 500}, PHOTO), "refused", "broken: .*"),
    "announced_huge": (answer(200, {"Content-Length": 10**12}, PHOTO), "refused", "more than 5 MB"),
    "cut.jpg": (whole(PHOTO[:-100]), "refused", "broken: .*"),
    "scans.jpg": (whole(SCANS), "refused", "too many scans"),
    "animation.gif": (whole(animation()), "refused", "3 frames"),
    "big.png": (whole(png(50_000, 50_000)), "refused", "too large: 50000 x 50000"),
    "large.png": (whole(png(5000, 5000, "RGBA")), "saved", ""),
    "bomb": (whole(bomb(1_000_000_000), Content_Encoding="gzip"), "refused", "more than 5 MB"),
    "no_gzip": (whole(PHOTO, Content_Encoding="gzip"), "refused", "broken gzip encoding"),
    "brotli": (whole(PHOTO, Content_Encoding="br"), "refused", "content encoding br"),
    "noai": (whole(PHOTO, X_Robots_Tag="noindex, noai"), "refused", "the site asks not to .*"),
    "loop": (answer(302, {"Location": "/loop", "Content-Length": 0}), "refused", "more than 5 redirects"),
    "to_own": (answer(302, {"Location": "http://127.0.0.1:PORT/good.jpg"}), "refused",
               r"not a public address: 127\.0\.0\.1"),
    "to_cloud": (answer(302, {"Location": "http://169.254.169.254/latest/meta-data/"}), "refused",
                 r"not a public address: 169\.254\.169\.254"),
    "to_odd": (answer(302, {"Location": "http://2130706433/"}), "refused", r"not a public address: 127\.0\.0\.1"),
    "to_v6": (answer(302, {"Location": "http://[::ffff:10.0.0.1]/"}), "refused", "not a public address: .*"),
    "to_name": (answer(302, {"Location": "http://PRIVATE_NAME/"}), "refused", "not a public address: .*"),
    "to_umlaut": (answer(302, {"Location": "/\u00f6.jpg", "Content-Length": 0}), "saved", ""),
    "to_nowhere": (answer(302, {"Location": "http://no-such-host.invalid/"}), "failed", "no such host: .*"),
    "to_file": (answer(302, {"Location": "file:///etc/passwd"}), "refused", "not an http or https address"),
    "no_http": (b"SSH-2.0-OpenSSH_9.2\r\n", "failed", "network error: .*|connection lost"),
    "hang_up": (b"", "failed", "connection lost"),
    "good.jpg": (whole(PHOTO), "saved", ""),
    "good.gz": (whole(gzip.compress(jpeg("zipped")), Content_Encoding="gzip"), "saved", ""),
    "to_good": (answer(302, {"Location": "//localhost:PORT/good.jpg?again", "Content-Length": 0}), "saved", ""),
    "%C3%B6.jpg": (whole(jpeg("umlaut")), "saved", ""),
    "..%2F..%2F..%2Fescape.jpg": (whole(jpeg("up")), "saved", ""),
    "name?a=/../../b.php%00.jpg": (whole(jpeg("odd")), "saved", ""),
}
SLOW = {  # path: (pieces sent one after another for ever, seconds between them, status, reason)
    "endless": (answer(200, {}, b"\xff\xd8\xff"), bytes(65536), 0, "refused", "more than 5 MB"),
    "drip": (answer(200, {}, b"\xff\xd8\xff"), b"x", 1, "failed", "longer than 4 s"),
    "drip_in_headers": (b"HTTP/1.1 200 OK\r\nX-A: ", b"x", 1, "failed", "longer than 4 s"),
    "drip_in_chunks": (answer(200, {"Transfer-Encoding": "chunked"}), b"1\r\nx\r\n", 1, "failed", "longer than 4 s"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 50, 0, "failed", "network error: .*|connection lost"),
    "silence": (b"HTTP/1.1 200 OK\r\n", b"", 1, "failed", "no byte in time"),
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
                body = WHOLE.get(path, WHOLE["good.jpg"])[0]
                body = body.replace(b"PORT", str(self.server.server_address[1]).encode())
                self.request.sendall(body.replace(b"PRIVATE_NAME", private_name().encode()))
        except OSError:
            pass  # the other side has had enough


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
        server.daemon_threads, server.block_on_close, server.stopping = True, False, threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://localhost:{server.server_address[1]}"
        server.stopping.set()
        server.shutdown()


@pytest.mark.slow
def test_every_hostile_answer_ends_within_its_limits(hostile, tmp_path):
    cases = {**{path: case[-2:] for path, case in WHOLE.items()}, **{path: case[-2:] for path, case in SLOW.items()}}
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    with CollectingServer() as server:
        taxon = {"id": 1, "name": "Rosa canina", "rank": "species", "is_active": True, "iconic_taxon_name": "Plantae"}
        server.world.taxa["Rosa canina"] = [taxon]
        addresses = {f"{hostile}/{path}": path for path in cases}
        for number, address in enumerate([*addresses, "ftp://localhost/a.jpg", "file:///etc/passwd"], 1):
            server.world.observations.append(observation(server, number, taxon))
            server.world.observations[-1]["photos"][0]["url"] = address
        started = time.monotonic()
        done, megabytes = run_measured(
            tmp_path, "dataset_preparation/parsing/parsing.py", "--source", "inaturalist", "--inaturalist_url",
            server.url.replace("127.0.0.1", "localhost") + "/inat", "--class_table", tmp_path / "classes.csv",
            "--collected_dir", tmp_path / "out", "--private_hosts", "('localhost',)", "--api_delay", "0",
            "--host_delay", "0", "--host_connections", "16", "--photo_attempts", "1", "--connect_seconds", "2",
            "--read_seconds", "2", "--photo_seconds", "4", "--photo_mb", "5")
        seconds = time.monotonic() - started
    assert seconds < 60
    assert megabytes < 300, done.stdout
    rows = {row["url"]: row for row in read_table(tmp_path / "out/found.csv")}
    for address, path in addresses.items():
        status, reason = cases[path]
        row = rows.pop(address)
        assert row["status"] == status and re.fullmatch(reason, row["reason"]), f"{path}: {row}"
    assert len(rows) == 2 and {row["reason"] for row in rows.values()} == {"not an http or https address"}
    names = {f"{sha256(jpeg(name))[:16]}.jpg" for name in ("good", "zipped", "umlaut", "up", "odd")}
    names.add(f"{sha256(png(5000, 5000, 'RGBA'))[:16]}.png")
    assert set(snapshot(tmp_path)) == {"classes.csv", "out/found.csv.lock", *(f"out/{table}.csv" for table in (
        "found", "searches", "ATTRIBUTION")), *(f"out/images/Rosa canina/{name}" for name in names)}


@pytest.mark.parametrize(("path", "error"), [("drip", Failed), ("drip_in_headers", Failed), ("endless", Refused)])
def test_slow_and_endless_answers_end_in_time(hostile, path, error):
    web, started = Web(LIMITS._replace(total_seconds=1.5), private_hosts=("localhost",)), time.monotonic()
    with pytest.raises(error):
        web.fetch(f"{hostile}/{path}")
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("path", ["to_own", "to_cloud", "to_odd", "to_v6", "to_name", "to_file", "loop"])
def test_redirects_lead_nowhere_private(hostile, path):
    with pytest.raises(Refused, match=WHOLE[path][2]):
        Web(LIMITS, private_hosts=("localhost",)).fetch(f"{hostile}/{path}")


def test_redirects_in_utf8_lead_where_they_say(hostile):
    assert Web(LIMITS, private_hosts=("localhost",)).fetch(f"{hostile}/to_umlaut") == jpeg("umlaut")


def test_a_private_host_is_not_even_connected_to():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0.5)
        with pytest.raises(Refused, match="not a public address"):
            Web(LIMITS).fetch(f"http://localhost:{listener.getsockname()[1]}/")
        with pytest.raises(TimeoutError):
            listener.accept()


def test_large_pictures_are_decoded_up_to_the_limit_only():
    assert check_photo(png(3000, 2000, "RGBA"), 7)[2:] == ("png", 3000, 2000)
    with pytest.raises(Refused, match="too large: 3000 x 2000"):
        check_photo(png(3000, 2000, "RGBA"), 5)
