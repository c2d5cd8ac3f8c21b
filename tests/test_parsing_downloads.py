"""Downloads of photographs: each address once, retries, limits per host, the tables."""
import csv
import threading
import time

import pytest

from dataset_preparation.parsing.collected_tables import Tables, now
from tests.collecting_runs import download, found_row, start_downloads
from tests.collecting_server import jpeg
from tests.conftest import snapshot
from utils import read_table, sha256


def test_addresses_and_photographs_shared_by_rows_are_downloaded_once(server, tmp_path):
    one, other, gone = server.photo("one"), server.photo("other"), f"{server.url}/gone.jpg"
    copy = one + "?copy"  # the same bytes
    tables = download(tmp_path, [
        found_row(one), found_row(copy), found_row(one, "Typha"), found_row(other),
        found_row(gone, fallbacks=f"{other} {copy}"), found_row(gone, "Typha", other)])
    rows = tables.found
    assert {row["status"] for row in rows.values()} == {"saved"}
    assert rows["Rosa canina", one]["file"] == rows["Rosa canina", copy]["file"]
    assert rows["Typha", gone]["reason"] == f"from fallback {other}"
    assert sorted(server.requested("/")) == [
        "/gone.jpg", "/photo/one.jpg", "/photo/one.jpg?copy", "/photo/other.jpg"]
    files = [f"{sha256(jpeg(f'/photo/{name}.jpg'))[:16]}.jpg" for name in ("one", "other")]
    assert set(snapshot(tmp_path / "images")) == {
        f"{plant}/{file}" for plant in ("Rosa canina", "Typha") for file in files}


def test_failures_are_retried_and_refusals_are_not(server, tmp_path):
    server.world.pages = {"/busy": (503, {"Retry-After": "2"}, b""), "/no": (404, {}, b"")}
    rows = [found_row(f"{server.url}/busy"), found_row(f"{server.url}/no")]
    tables = download(tmp_path, rows)
    assert [(row["status"], row["reason"]) for row in tables.found.values()] == [
        ("failed", "HTTP 503"), ("refused", "HTTP 404")]
    times = [moment for moment, path in server.log if path == "/busy"]
    assert len(times) == 2 and times[1] - times[0] >= 1.99  # as Retry-After asks
    server.world.pages = {"/busy": (200, {}, jpeg("late"))}
    tables = Tables(tmp_path)
    downloads = start_downloads(tables)
    downloads.add(list(tables.found.values()))
    downloads.wait(lambda: None)
    downloads.stop()
    assert [row["status"] for row in tables.found.values()] == ["saved", "refused"]
    tables.save()
    assert len(server.requested("/no")) == 2  # it may have passed: once more, by the next run
    download(tmp_path, [], earlier=True)
    assert len(server.requested("/no")) == 2


def test_a_host_that_asks_for_a_long_wait_is_left_for_another_run(server, tmp_path):
    server.world.pages = {f"/p{number}": (429, {"Retry-After": "86400"}, b"")
                          for number in range(20)}
    rows = [found_row(f"{server.url}/p{number}") for number in range(20)]
    tables = download(tmp_path, rows, connections=1, delay=0.1)
    assert {(row["status"], row["reason"]) for row in tables.found.values()} == {
        ("failed", "HTTP 429, its host asks to wait 1,440 minutes")}
    assert len(server.requested("/p")) == 1


def test_a_host_has_few_connections_and_a_delay(server, tmp_path):
    busy, most, lock = [], [], threading.Lock()
    handler = server.server.RequestHandlerClass
    respond = handler.do_GET

    def slow(self):
        with lock:
            busy.append(self)
            most.append(len(busy))
        time.sleep(0.05)
        with lock:
            busy.remove(self)
        respond(self)
    handler.do_GET = slow
    rows = [found_row(server.photo(f"p{number}")) for number in range(12)]
    download(tmp_path / "a", rows, connections=3)
    assert max(most) == 3
    server.log.clear()
    download(tmp_path / "b", rows[:6], connections=3, delay=0.2)
    times = sorted(moment for moment, _ in server.log)
    assert times[-1] - times[0] >= 0.9


def test_a_host_that_has_sent_its_hourly_bytes_is_left_alone(server, tmp_path):
    size = len(jpeg("/photo/p0.jpg"))
    limits = {"threads": 1, "connections": 1, "attempts": 1, "budgets": ((60, 2.5 * size),)}
    tables = Tables(tmp_path)
    downloads = start_downloads(tables, **limits)
    downloads.add(tables.add([found_row(server.photo(f"p{number}")) for number in range(9)]))
    time.sleep(1.5)
    assert len(server.requested("/photo")) == 3
    downloads.stop()
    tables.save()
    again = start_downloads(Tables(tmp_path), **limits)  # counts what the first run has saved
    again.add(list(again.tables.found.values()))
    time.sleep(0.5)
    assert len(server.requested("/photo")) == 3
    again.stop()


def test_a_full_disk_ends_the_run_with_its_reason(server, tmp_path):
    (tmp_path / "images").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="images"):
        download(tmp_path, [found_row(server.photo("one"))])
    assert read_table(tmp_path / "found.csv")[0]["url"] == server.photo("one")
    downloads = start_downloads(Tables(tmp_path))
    downloads.add([found_row(server.photo("one"))])
    with pytest.raises(OSError, match="images"):  # raised by the next search that finds something
        for _ in range(200):
            time.sleep(0.05)
            downloads.add([])


# ---- the tables ----

def test_a_torn_journal_line_loses_only_itself(server, tmp_path):
    row = found_row(server.photo("one"))
    tables = Tables(tmp_path)
    search = {column: row[column] for column in ("class", "source", "query", "kind")}
    tables.add([row], {**search, "answer": "all", "results": "1", "time": now()})
    with open(tmp_path / "found.csv.journal", "a", encoding="utf-8") as file:
        file.write('{"changes": {"class": "Rosa')
    again = Tables(tmp_path)
    assert again.found == tables.found and again.searches == tables.searches
    again.save()
    with open(tmp_path / "found.csv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file))[:3] == ["class", "source", "query"]


def test_a_table_removed_after_a_kill_starts_empty(server, tmp_path):
    tables = download(tmp_path, [found_row(server.photo("one"))])
    tables = Tables(tmp_path)
    tables.change(found_row(server.photo("one")), status="failed")
    tables.process_lock.release()  # as a kill does
    (tmp_path / "found.csv").unlink()
    assert Tables(tmp_path).found == {}
