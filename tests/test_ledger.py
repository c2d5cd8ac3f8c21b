"""found.csv and its journal: what the next run retries, what other steps read meanwhile."""

import pytest

from dataset_preparation.parsing.collected_tables import FOUND, SEARCHES, Tables, read_found
from tests.collecting_runs import download, found_row, start_downloads
from tests.collecting_server import jpeg
from tests.conftest import snapshot
from utils import InputError, read_table, write_table


def picture(width, height):
    """Return an answer with a photograph of this size."""
    return 200, {}, jpeg(f"{width} x {height}", width, height)


# ---- addresses that may work later ----

def test_a_smaller_copy_is_replaced_when_the_original_answers(server, tmp_path):
    big, small = f"{server.url}/big.jpg", f"{server.url}/small.jpg"
    server.world.pages = {"/big.jpg": (503, {}, b""), "/small.jpg": picture(320, 240)}
    row = found_row(big, fallbacks=small)
    found = download(tmp_path, [row], attempts=1).found["Rosa canina", big]
    assert (found["status"], found["width"], found["ask_again"]) == ("saved", "320", big)
    copy = found["file"]
    found = download(tmp_path, [], earlier=True, attempts=1).found["Rosa canina", big]
    assert (found["width"], found["ask_again"], found["file"]) == ("320", big, copy)
    server.world.pages["/big.jpg"] = picture(1600, 1200)
    found = download(tmp_path, [], earlier=True).found["Rosa canina", big]
    assert (found["width"], found["reason"], found["ask_again"]) == ("1600", "", "")
    assert set(snapshot(tmp_path / "images")) == {found["file"].removeprefix("images/")}
    assert (tmp_path / "set_aside" / copy).is_file()  # moved, not deleted
    server.log.clear()
    download(tmp_path, [], earlier=True)
    assert not server.log


def test_a_smaller_copy_after_a_refusal_is_final(server, tmp_path):
    big, small = f"{server.url}/big.jpg", f"{server.url}/small.jpg"
    server.world.pages = {"/big.jpg": (200, {}, b"<html>"), "/small.jpg": picture(320, 240)}
    found = download(tmp_path, [found_row(big, fallbacks=small)]).found["Rosa canina", big]
    assert (found["status"], found["ask_again"]) == ("saved", "")
    download(tmp_path, [], earlier=True)
    assert server.requested("/big") == ["/big.jpg"]


def test_an_original_that_is_no_larger_replaces_nothing(server, tmp_path):
    big, small = f"{server.url}/big.jpg", f"{server.url}/small.jpg"
    server.world.pages = {"/big.jpg": (503, {}, b""), "/small.jpg": picture(320, 240)}
    found = download(tmp_path, [found_row(big, fallbacks=small)], attempts=1).found
    before = dict(found["Rosa canina", big])
    server.world.pages["/big.jpg"] = picture(160, 120)
    found = download(tmp_path, [], earlier=True).found["Rosa canina", big]
    assert {**found, "time": ""} == {**before, "time": "", "ask_again": ""}


@pytest.mark.parametrize(("status", "requests"), [
    (403, 2), (404, 2), (406, 2), (410, 1), (451, 1), (500, 3), (507, 3), (509, 3), (520, 3),
    (526, 3), (599, 3)])
def test_a_status_that_may_pass_is_asked_again_by_the_next_run(server, tmp_path, status, requests):
    server.world.pages = {"/p.jpg": (status, {}, b"")}
    download(tmp_path, [found_row(f"{server.url}/p.jpg")], attempts=1)
    for _ in range(2):
        found = download(tmp_path, [], earlier=True, attempts=1).found
    assert len(server.requested("/p.jpg")) == requests
    assert next(iter(found.values()))["status"] == ("failed" if status >= 500 else "refused")
    server.world.pages = {"/p.jpg": picture(64, 48)}
    found = download(tmp_path, [], earlier=True).found
    assert next(iter(found.values()))["status"] == ("saved" if status >= 500 else "refused")
    found = download(tmp_path, [], earlier=True, try_again=("refused",)).found
    assert next(iter(found.values()))["status"] == "saved"


@pytest.mark.parametrize("response", [
    (200, {}, b""), (200, {}, picture(64, 48)[2][:-300]), (202, {}, b""), (304, {}, b""),
    (302, {"Location": "/p.jpg"}, b""), (200, {"Content-Encoding": "gzip"}, picture(64, 48)[2])])
def test_what_a_host_in_trouble_sends_is_asked_again_by_the_next_run(server, tmp_path, response):
    server.world.pages = {"/p.jpg": response}
    found = download(tmp_path, [found_row(f"{server.url}/p.jpg")]).found
    assert next(iter(found.values()))["status"] == "refused"
    server.world.pages = {"/p.jpg": picture(64, 48)}
    found = download(tmp_path, [], earlier=True).found
    assert next(iter(found.values()))["status"] == "saved"


def test_an_empty_file_is_no_photograph_and_fetched_again(server, tmp_path):
    row = next(iter(download(tmp_path, [found_row(server.photo("one"))]).found.values()))
    (tmp_path / row["file"]).write_bytes(b"")  # by a power cut
    download(tmp_path, [], earlier=True)
    assert (tmp_path / row["file"]).read_bytes() == jpeg("/photo/one.jpg")


def test_a_refusal_of_a_killed_run_does_not_count_twice(server, tmp_path):
    server.world.pages = {"/p.jpg": (404, {}, b"")}
    tables = Tables(tmp_path)
    address = f"{server.url}/p.jpg"
    tables.add([found_row(address)])
    tables.change(found_row(address), status="refused", reason="HTTP 404", ask_again=address)
    tables.process_lock.release()  # as a kill does
    found = download(tmp_path, [], earlier=True).found["Rosa canina", address]
    assert found["ask_again"] == address


def test_a_kill_between_table_and_journal_does_not_count_a_refusal_twice(server, tmp_path):
    server.world.pages = {"/p.jpg": (404, {}, b"")}
    address = f"{server.url}/p.jpg"
    tables = Tables(tmp_path)
    tables.add([found_row(address)])
    tables.change(found_row(address), status="refused", reason="HTTP 404", ask_again=address)
    write_table(tmp_path / "found.csv", FOUND, tables.found.values())
    tables.process_lock.release()
    found = download(tmp_path, [], earlier=True).found["Rosa canina", address]
    assert found["ask_again"] == address


def test_thumbnails_are_asked_again_on_demand(server, tmp_path):
    big, small = f"{server.url}/big.jpg", f"{server.url}/small.jpg"
    server.world.pages = {"/big.jpg": (410, {}, b""), "/small.jpg": picture(320, 240)}
    download(tmp_path, [found_row(big, fallbacks=small)])
    server.world.pages["/big.jpg"] = picture(640, 480)
    found = download(tmp_path, [], earlier=True).found["Rosa canina", big]
    assert found["width"] == "320"
    found = download(tmp_path, [], earlier=True, try_again=("thumbnails",)).found
    assert found["Rosa canina", big]["width"] == "640"


def test_hosts_that_want_to_see_the_page_or_pictures_only_are_satisfied(server, tmp_path):
    seen, handler = [], server.server.RequestHandlerClass
    respond = handler.do_GET

    def picky(self):
        seen.append((self.headers.get("Referer"), self.headers.get("Accept", "")))
        respond(self)
    handler.do_GET = picky
    page = f"{server.url}/the page".replace(" ", "%20")
    rows = [{**found_row(server.photo(str(number))), "page": where} for number, where in
            enumerate((page, "", "ftp://x/", "https://secure.example/private"))]
    download(tmp_path, rows)
    assert sorted(referer or "" for referer, _ in seen) == ["", "", "", page]
    assert all("image/" in accept for _, accept in seen)


def test_a_row_removed_by_hand_does_not_come_back(server, tmp_path):
    download(tmp_path, [found_row(server.photo("one"))])
    rows = read_table(tmp_path / "found.csv")
    (tmp_path / rows[0]["file"]).unlink()
    write_table(tmp_path / "found.csv", FOUND, [{**rows[0], "status": "removed"}])
    server.log.clear()
    download(tmp_path, [], earlier=True)
    assert not server.log
    server.world.pages["/copy.jpg"] = (200, {}, jpeg("/photo/one.jpg"))
    found = download(tmp_path, [found_row(f"{server.url}/copy.jpg")]).found
    assert {row["status"] for row in found.values()} == {"removed"}
    assert not (tmp_path / rows[0]["file"]).exists()


def test_a_photograph_changed_by_hand_is_downloaded_for_another_class(server, tmp_path):
    one = server.photo("one")
    file = download(tmp_path, [found_row(one)]).found["Rosa canina", one]["file"]
    (tmp_path / file).write_bytes(b"rotated")
    found = download(tmp_path, [found_row(one, "Typha")], earlier=True).found
    assert (tmp_path / found["Typha", one]["file"]).read_bytes() == jpeg("/photo/one.jpg")
    assert (tmp_path / file).read_bytes() == b"rotated"


def test_a_photograph_removed_from_one_class_is_saved_in_another(server, tmp_path):
    one, copy = server.photo("one"), f"{server.url}/copy.jpg"
    server.world.pages["/copy.jpg"] = 200, {}, jpeg("/photo/one.jpg")
    download(tmp_path, [found_row(one)])
    row, = read_table(tmp_path / "found.csv")
    (tmp_path / row["file"]).unlink()
    write_table(tmp_path / "found.csv", FOUND, [{**row, "status": "removed"}])
    tables = Tables(tmp_path)
    downloads = start_downloads(tables)
    for plant in ("Rosa canina", "Typha"):  # found by two searches, one after the other
        downloads.add(tables.add([found_row(copy, plant)]))
        downloads.wait(lambda: None)
    downloads.stop()
    tables.save()
    assert tables.found["Rosa canina", copy]["status"] == "removed"
    assert (tmp_path / tables.found["Typha", copy]["file"]).is_file()


def test_a_small_copy_removed_by_hand_does_not_come_back_as_the_original(server, tmp_path):
    """The photograph is the same, though its bytes are others."""
    big, small = f"{server.url}/big.jpg", f"{server.url}/small.jpg"
    server.world.pages = {"/big.jpg": (503, {}, b""), "/small.jpg": picture(320, 240)}
    download(tmp_path, [found_row(big, fallbacks=small)], attempts=1)
    row, = read_table(tmp_path / "found.csv")
    assert row["ask_again"] == big
    (tmp_path / row["file"]).unlink()
    write_table(tmp_path / "found.csv", FOUND, [{**row, "status": "removed"}])
    server.world.pages["/big.jpg"] = picture(640, 480)
    found = download(tmp_path, [], earlier=True).found
    assert [row["status"] for row in found.values()] == ["removed"]
    assert not list((tmp_path / "images").rglob("*.jpg"))


# ---- tables of earlier versions, and edited ones ----

FORMER = ("class", "source", "query", "kind", "rank", "parent", "url", "fallbacks", "page", "title",
          "author", "license", "width", "height", "status", "reason", "sha256", "file", "time")


def test_a_table_of_the_last_version_resumes(server, tmp_path):
    big, small, gone = (f"{server.url}/{name}.jpg" for name in ("big", "small", "gone"))
    server.world.pages = {"/big.jpg": (503, {}, b""), "/small.jpg": picture(320, 240),
                          "/gone.jpg": (404, {}, b"")}
    tables = download(tmp_path, [found_row(big, fallbacks=small), found_row(gone)], attempts=1)
    write_table(tmp_path / "found.csv", FORMER, tables.found.values())
    server.world.pages = {"/big.jpg": picture(640, 480), "/gone.jpg": picture(64, 48)}
    found = download(tmp_path, [], earlier=True, try_again=("refused", "thumbnails")).found
    assert [found["Rosa canina", address]["status"] for address in (big, gone)] == ["saved"] * 2
    assert found["Rosa canina", big]["width"] == "640"
    assert set(read_table(tmp_path / "found.csv")[0]) == set(FOUND)


def test_a_column_that_the_user_has_added_stays(server, tmp_path):
    download(tmp_path, [found_row(server.photo("one"))])
    row, = read_table(tmp_path / "found.csv")
    write_table(tmp_path / "found.csv", ("note", *FOUND), [{**row, "note": "sharp"}])
    download(tmp_path, [found_row(server.photo("two"))], earlier=True)
    notes = {row["url"]: row["note"] for row in read_table(tmp_path / "found.csv")}
    assert notes == {server.photo("one"): "sharp", server.photo("two"): ""}


@pytest.mark.parametrize(("column", "value"), [
    ("time", "29.11.2026 04:00"), ("kind", "mine"), ("rank", "first"), ("status", "good"),
    ("width", "wide")])
def test_a_cell_that_cannot_be_read_is_named(tmp_path, column, value):
    rows = [found_row("https://x.example/1.jpg"),
            {**found_row("https://x.example/2.jpg"), column: value}]
    write_table(tmp_path / "found.csv", FOUND, rows)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=rf"found.csv, line 3: {column} '{value}'"):
        Tables(tmp_path)
    after = snapshot(tmp_path)
    assert {**after, "found.csv.lock": b""} == {**before, "found.csv.lock": b""}


@pytest.mark.parametrize(("column", "value"), [
    ("results", "many"), ("pages", "x"), ("failures", "-1"), ("progress", "[]"),
    ("progress", '{"page": 1}'), ("passed_over", '{"no licence": "two"}')])
def test_a_cell_of_the_searches_that_cannot_be_read_is_named(tmp_path, column, value):
    row = {**dict.fromkeys(SEARCHES, ""), "kind": "name", "results": "0", column: value}
    write_table(tmp_path / "searches.csv", SEARCHES, [row])
    with pytest.raises(InputError, match=f"searches.csv, line 2: {column} "):
        Tables(tmp_path)


def test_a_saved_row_without_a_time_or_with_a_file_elsewhere_is_no_obstacle(server, tmp_path):
    download(tmp_path, [found_row(server.photo("a")), found_row(server.photo("b"))])
    rows = read_table(tmp_path / "found.csv")
    rows[0]["time"], rows[1]["file"] = "", "../../elsewhere.jpg"
    write_table(tmp_path / "found.csv", FOUND, rows)
    tables = download(tmp_path, [], earlier=True)
    assert all(tables.photo_path(row) for row in tables.found.values())


def test_what_a_spreadsheet_changes_without_loss_is_read(tmp_path):
    row = {**found_row("https://x.example/1.jpg"), "rank": "1.0", "width": "640.0"}
    write_table(tmp_path / "found.csv", FOUND, [row])
    found = next(iter(Tables(tmp_path).found.values()))
    assert (found["rank"], found["width"]) == ("1", "640")


# ---- read by every step ----

def test_table_and_journal_are_read_together_while_a_run_goes_on(server, tmp_path):
    tables = download(tmp_path, [found_row(server.photo("one"))])
    assert read_found(tmp_path, ("url",)) == read_table(tmp_path / "found.csv")
    tables = Tables(tmp_path)  # a run that goes on
    tables.add([found_row(server.photo("two"))])
    tables.change(found_row(server.photo("two")), status="saved", sha256="5" * 64)
    journal = (tmp_path / "found.csv.journal").read_bytes()
    with open(tmp_path / "found.csv.journal", "ab") as file:
        file.write(b'{"changes": {"class": "Ro')  # just being written
    rows = read_found(tmp_path, ("url",))
    assert [row["sha256"] for row in rows][1] == "5" * 64 and len(rows) == 2
    assert (tmp_path / "found.csv.journal").read_bytes()[:-25] == journal  # nothing is cut off


def test_a_journal_of_another_version_is_named(tmp_path):
    (tmp_path / "found.csv.journal").write_text('{"table": "found.csv", "version": 9}\n{}\n')
    for read in (Tables, lambda folder: read_found(folder, ("url",))):
        with pytest.raises(InputError, match="found.csv.journal was written by another version"):
            read(tmp_path)
