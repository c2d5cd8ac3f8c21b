"""Downloads of archives from a real HTTP server: broken connections, wrong files, small disks."""
import gzip
import hashlib
import time

import pytest

from dataset_preparation.parsing.archives import download_archive
from dataset_preparation.parsing.safe_download import CHUNK, Limits, trusting_web
from tests.download_inputs import bulk, tree
from tests.file_server import FileServer
from utils import InputError


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with FileServer() as running:
        running.files["/b.zip"] = bulk()
        yield running


def fetch(url, path, sha256="", timeout=30.0, attempts=5):
    """Download an archive as the script does."""
    return download_archive(trusting_web(Limits(timeout, timeout)), url, path, sha256, attempts)


def statuses(server):
    """Return the HTTP statuses the server has sent, in order."""
    return [entry[2] for entry in server.log]


# ---- connections that break ----

@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",)])
def test_a_broken_download_is_resumed(server, tmp_path, validators, capsys):
    server.validators = validators
    server.faults["/b.zip"] = [{"break_after": 150_001}]
    sha256 = fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == bulk()
    assert sha256 == hashlib.sha256(bulk()).hexdigest()
    assert statuses(server) == [200, 206]
    assert sum(entry[3] for entry in server.log) < len(bulk()) + CHUNK, "much was sent twice"
    assert "attempt 2 of 5" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["other file", "shorter file", "no validator",
                                    "weak validator", "range ignored", "wrong part"])
def test_a_download_starts_over_where_resuming_is_not_safe(server, tmp_path, change):
    old = bulk()
    server.validators = {"no validator": (), "weak validator": ("weak",)}.get(
        change, server.validators)
    server.faults["/b.zip"] = [{"break_after": 150_000}]
    with pytest.raises(InputError, match="same command"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    part = (tmp_path / "b.zip.part").read_bytes()
    assert old.startswith(part) and len(part) > 150_000 - CHUNK
    if change == "other file":
        server.files["/b.zip"] = bulk(400_000, b"other")
    elif change == "shorter file":
        server.files["/b.zip"] = bulk(1000, b"other")
    elif change == "range ignored":
        server.faults["/b.zip"] = [{"whole": True}]
    elif change == "wrong part":
        server.faults["/b.zip"] = [{"shift": 10}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    assert (tmp_path / "b.zip").read_bytes() == server.files["/b.zip"]
    assert (server.log[1][1] is None) == change.endswith("validator")


def test_a_download_of_unknown_size_is_resumed(server, tmp_path):
    server.faults["/b.zip"] = [{"chunked": True, "break_after": 150_000}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    assert statuses(server) == [200, 206]
    assert (tmp_path / "b.zip").read_bytes() == bulk()


def test_an_archive_sent_compressed_is_saved_decompressed(server, tmp_path):
    server.faults["/b.zip"] = [{"status": 200, "body": gzip.compress(bulk()),
                                "headers": {"Content-Encoding": "gzip"}}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    assert (tmp_path / "b.zip").read_bytes() == bulk()


def test_a_range_beyond_the_end_starts_over(server, tmp_path):
    size = 10 * CHUNK
    server.files["/b.zip"] = bulk().ljust(size, b"x")[:size]
    server.faults["/b.zip"] = [{"declare": size + 5}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    assert statuses(server) == [200, 416, 200]
    assert (tmp_path / "b.zip").read_bytes() == server.files["/b.zip"]


def test_another_address_starts_over(server, tmp_path):
    server.files["/a.zip"] = bulk(300_000, b"other")
    server.faults["/a.zip"] = [{"break_after": 150_000}]
    with pytest.raises(InputError):
        fetch(server.url("/a.zip"), tmp_path / "b.zip", attempts=1)
    for path in ("/b.zip", "/a.zip"):  # the second one over a finished download of the first
        fetch(server.url(path), tmp_path / "b.zip", attempts=1)
        assert (tmp_path / "b.zip").read_bytes() == server.files[path]


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"status": 429, "headers": {"Retry-After": "2"}}, {"stall_after": 100_000},
    {"stall_after": 0}, {"break_after": 0}], ids=str)
def test_transient_failures_are_retried(server, tmp_path, fault, capsys):
    server.faults["/b.zip"] = [fault]
    started = time.monotonic()
    fetch(server.url("/b.zip"), tmp_path / "b.zip", timeout=0.5)
    seconds, warning = time.monotonic() - started, capsys.readouterr().err
    assert (tmp_path / "b.zip").read_bytes() == bulk()
    assert seconds > (1.9 if fault.get("status") == 429 else 0.9)
    assert "attempt 2 of 5 in " + ("2 s" if fault.get("status") == 429 else "1 s") in warning
    assert "0.5 s" in warning if "stall_after" in fault else "Pool" not in warning


def test_the_last_failure_is_the_reason(server, tmp_path):
    server.faults["/b.zip"] = [{"status": 502}] * 2
    with pytest.raises(InputError, match="HTTP 502.*same command"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    assert statuses(server) == [502, 502]


def test_a_host_that_asks_for_a_long_wait_is_not_waited_for(server, tmp_path):
    server.faults["/b.zip"] = [{"status": 429, "headers": {"Retry-After": "86400"}}]
    with pytest.raises(InputError, match="HTTP 429.*1,440 minutes"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert statuses(server) == [429]


def test_a_refused_connection_is_reported(server, tmp_path):
    url = server.url("/b.zip")
    server.__exit__()
    with pytest.raises(InputError, match="refused"):
        fetch(url, tmp_path / "b.zip", attempts=1)


# ---- responses that are not the file ----

@pytest.mark.parametrize("fault, reason", [
    ({"status": 404}, "404"),
    ({"status": 403}, "403"),
    ({"status": 200, "body": b"\n<!DOCTYPE html><title>Sign in</title>"}, "web page"),
    ({"status": 200, "body": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"},
     "Git LFS"),
    ({"status": 200, "body": b""}, "empty"),
    ({"status": 206, "body": b"PK\x03\x04"}, "206"),
    ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "file:///etc/passwd"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_response_that_is_not_the_file_is_reported_and_not_retried(
        server, tmp_path, fault, reason):
    server.faults["/b.zip"] = [fault]
    with pytest.raises(InputError) as error:
        fetch(server.url("/b.zip"), tmp_path / "d.zip")
    for fact in (reason, server.url("/b.zip"), "config.py", str(tmp_path / "d.zip")):
        assert fact in str(error.value)
    assert len(server.log) == 1 and tree(tmp_path) == {}


@pytest.mark.parametrize("url", ["", "dataset.zip", "ftp://127.0.0.1/x.zip", "file:///etc/passwd",
                                 "http://", "http://[", "https://127.0.0.1:99999/x.zip"])
def test_invalid_addresses_are_refused_with_the_setting(tmp_path, url):
    with pytest.raises(InputError, match="config.py"):
        fetch(url, tmp_path / "d.zip")
    assert tree(tmp_path) == {}


def test_a_disk_too_small_for_the_announced_size_is_reported(server, tmp_path):
    server.faults["/b.zip"] = [{"declare": 10 ** 16}]
    with pytest.raises(InputError, match="10,000,000,000,000,000 more bytes"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip")
    fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == bulk()
