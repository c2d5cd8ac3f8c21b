"""download_files.fetch against a real HTTP server: broken connections, false answers, wrong sums, small disks."""
import gzip
import hashlib
import time

import pytest
from download_inputs import bulk, tree
from file_server import FileServer

import download_files
from download_files import fetch
from utils import InputError


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with FileServer() as running:
        running.files["/b.zip"] = bulk()
        yield running


# ---- connections that break ----

@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",)])
def test_goes_on_where_it_broke(server, tmp_path, validators, capsys):
    server.validators = validators
    server.faults["/b.zip"] = [{"break_after": 150_001}]
    digest = fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == bulk() and digest == hashlib.sha256(bulk()).hexdigest()
    assert [entry[2] for entry in server.log] == [200, 206]
    assert sum(entry[3] for entry in server.log) < len(bulk()) + download_files.CHUNK, "much was sent twice"
    assert "attempt 2 of 5" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["other file", "shorter file", "no validator", "weak validator", "range ignored",
                                    "wrong part"])
def test_starts_over_where_going_on_is_not_safe(server, tmp_path, change):
    old = bulk()
    server.validators = {"no validator": (), "weak validator": ("weak",)}.get(change, server.validators)
    server.faults["/b.zip"] = [{"break_after": 150_000}]
    with pytest.raises(InputError, match="same command"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    begun = (tmp_path / "b.zip.part").read_bytes()
    assert old.startswith(begun) and len(begun) > 150_000 - download_files.CHUNK
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


def test_goes_on_where_the_size_was_never_told(server, tmp_path):
    server.faults["/b.zip"] = [{"chunked": True, "break_after": 150_000}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    assert [entry[2] for entry in server.log] == [200, 206]
    assert (tmp_path / "b.zip").read_bytes() == bulk()


def test_a_body_compressed_against_our_wish(server, tmp_path):
    server.faults["/b.zip"] = [{"status": 200, "body": gzip.compress(bulk()), "headers": {"Content-Encoding": "gzip"}}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    assert (tmp_path / "b.zip").read_bytes() == bulk()


def test_a_range_beyond_the_end_starts_over(server, tmp_path):
    size = 10 * download_files.CHUNK
    server.files["/b.zip"] = bulk().ljust(size, b"x")[:size]
    server.faults["/b.zip"] = [{"declare": size + 5}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    assert [entry[2] for entry in server.log] == [200, 416, 200]
    assert (tmp_path / "b.zip").read_bytes() == server.files["/b.zip"]


def test_another_address_starts_over(server, tmp_path):
    server.files["/a.zip"] = bulk(300_000, b"other")
    server.faults["/a.zip"] = [{"break_after": 150_000}]
    with pytest.raises(InputError):
        fetch(server.url("/a.zip"), tmp_path / "b.zip", attempts=1)
    for path in ("/b.zip", "/a.zip"):  # the second time over a finished download of the first
        fetch(server.url(path), tmp_path / "b.zip", attempts=1)
        assert (tmp_path / "b.zip").read_bytes() == server.files[path]


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429, "headers": {"Retry-After": "2"}},
                                   {"stall_after": 100_000}, {"stall_after": 0}, {"break_after": 0}], ids=str)
def test_what_may_pass_is_tried_again(server, tmp_path, fault, capsys):
    server.faults["/b.zip"] = [fault]
    began = time.monotonic()
    fetch(server.url("/b.zip"), tmp_path / "b.zip", timeout=0.3)
    assert (tmp_path / "b.zip").read_bytes() == bulk()
    assert 0.9 < time.monotonic() - began < 15
    told = capsys.readouterr().err
    assert "attempt 2 of 5 in " + ("2 s" if fault.get("status") == 429 else "1 s") in told
    assert "nothing came for 0.3 s" in told if "stall_after" in fault else "Pool" not in told


def test_gives_up_with_the_reason(server, tmp_path):
    server.faults["/b.zip"] = [{"status": 502}] * 2
    with pytest.raises(InputError, match="answered 502.*2 of 2 attempts"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    server.faults["/b.zip"] = [{"status": 429, "headers": {"Retry-After": "86400"}}]
    with pytest.raises(InputError, match="Retry-After: 86400.*1 of 5 attempts"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert len(server.log) == 3


def test_nobody_listens(server, tmp_path):
    url = server.url("/b.zip")
    server.__exit__()
    with pytest.raises(InputError, match="refused.*1 of 1 attempts"):
        fetch(url, tmp_path / "b.zip", attempts=1)


# ---- answers that are not the file ----

@pytest.mark.parametrize("fault, told", [
    ({"status": 404}, "answered 404"),
    ({"status": 403}, "answered 403"),
    ({"status": 200, "body": b"\n<!DOCTYPE html><title>Sign in</title>"}, "web page"),
    ({"status": 200, "body": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}, "Git LFS"),
    ({"status": 200, "body": b""}, "sent nothing"),
    ({"status": 206, "body": b"PK\x03\x04"}, "answered 206"),
    ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "file:///etc/passwd"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_the_file_is_said_at_once(server, tmp_path, fault, told):
    server.faults["/b.zip"] = [fault]
    with pytest.raises(InputError) as error:
        fetch(server.url("/b.zip"), tmp_path / "d.zip")
    for words in (told, server.url("/b.zip"), "config.py", str(tmp_path / "d.zip")):
        assert words in str(error.value)
    assert len(server.log) == 1 and tree(tmp_path) == {}


@pytest.mark.parametrize("url", ["", "dataset.zip", "ftp://127.0.0.1/x.zip", "file:///etc/passwd", "http://", "http://[",
                                 "https://127.0.0.1:99999/x.zip"])
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(InputError, match="config.py"):
        fetch(url, tmp_path / "d.zip")
    assert tree(tmp_path) == {}


def test_a_sum_that_is_none_stops_before_the_download(server, tmp_path):
    with pytest.raises(InputError, match="64 hex digits"):
        fetch(server.url("/b.zip"), tmp_path / "d.zip", "abc")
    assert server.log == []


def test_a_disk_that_is_too_small_by_what_the_server_says(server, tmp_path):
    server.faults["/b.zip"] = [{"declare": 10 ** 16}]
    with pytest.raises(InputError, match="10,000,000,000,000,000 more bytes.*make room"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip")
    fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == bulk()
