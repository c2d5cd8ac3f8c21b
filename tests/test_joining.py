"""--join: what several machines have collected becomes one folder, and nothing is lost."""
import pytest

from dataset_preparation.parsing.collected_tables import FOUND, Tables, now
from tests.collecting_runs import SCRIPT, arguments, download, flora, found_row
from tests.collecting_server import jpeg
from tests.conftest import run_script, snapshot
from utils import read_table, write_table


def state(folder):
    """Return files and rows without their times."""
    rows = [{**row, "time": ""} for name in ("found.csv", "searches.csv")
            for row in read_table(folder / name)]
    return {name: data for name, data in snapshot(folder).items() if "images/" in name}, rows


def join(folder, other, status=0):
    """Join a folder as a user does."""
    (folder.parent / "classes.csv").write_text(
        "label,latin,russian,english,also\n0,Rosa canina,,,\n1,Typha latifolia,,,\n", "utf-8")
    return run_script(SCRIPT, "--class_table", folder.parent / "classes.csv", "--collected_dir",
                      folder, "--source", "inaturalist", "--join", other, status=status)


def test_two_machines_join_to_what_one_would_have_collected(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Typha latifolia"))
    command = arguments(server, tmp_path, "--source", "inaturalist")
    run_script(SCRIPT, *command)
    wanted = state(tmp_path / "collected")
    for number in (0, 1):
        run_script(SCRIPT, *command, "--classes", number, "--collected_dir",
                   tmp_path / f"m{number}")
    before = snapshot(tmp_path / "m1")
    done = join(tmp_path / "m0", tmp_path / "m1")
    assert all(fact in done.stdout.splitlines()[-1] for fact in (
        "6 photographs", "6 rows", "1 searches", "0 conflicts"))
    assert state(tmp_path / "m0") == wanted and snapshot(tmp_path / "m1") == before
    credits = read_table(tmp_path / "m0/ATTRIBUTION.csv")
    assert len(credits) == 12
    joined = snapshot(tmp_path / "m0")
    assert "nothing new, 0 conflicts" in join(tmp_path / "m0", tmp_path / "m1").stdout
    assert snapshot(tmp_path / "m0") == joined  # joining twice changes nothing
    server.log.clear()
    run_script(SCRIPT, *command, "--collected_dir", tmp_path / "m0")
    assert not server.log


def test_joining_keeps_the_better_row_and_lists_conflicts(server, tmp_path):
    big, small, both, late = (f"{server.url}/{name}.jpg" for name in
                              ("big", "small", "both", "late"))
    pages = server.world.pages
    pages |= {"/big.jpg": (503, {}, b""), "/small.jpg": (200, {}, jpeg("small", 320, 240)),
              "/both.jpg": (200, {}, jpeg("ours")), "/late.jpg": (404, {}, b"")}
    rows = [found_row(big, fallbacks=small), found_row(both), found_row(late)]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    download(ours, rows, attempts=1)
    pages |= {"/big.jpg": (200, {}, jpeg("big", 640, 480)), "/late.jpg": (200, {}, jpeg("late")),
              "/both.jpg": (200, {}, jpeg("theirs"))}
    download(theirs, rows)
    by_hand = theirs / "images/Rosa canina/from my camera.jpg"
    by_hand.write_bytes(jpeg("mine"))
    (theirs / "images/Rosa canina/broken.jpg").write_bytes(b"theirs")
    (ours / "images/Rosa canina/broken.jpg").write_bytes(b"ours")
    kept = {row["url"]: row for row in read_table(ours / "found.csv")}
    done = join(ours, theirs)
    found = {row["url"]: row for row in read_table(ours / "found.csv")}
    assert (found[big]["width"], found[big]["ask_again"]) == ("640", "")
    assert (ours / "set_aside" / kept[big]["file"]).is_file()  # the smaller copy
    assert found[late]["status"] == "saved" and (ours / found[late]["file"]).is_file()
    assert found[both] == kept[both]  # not overwritten ...
    conflicts = read_table(ours / "join_conflicts.csv")
    assert {row["url"] or row["here"] for row in conflicts} == {
        both, "images/Rosa canina/broken.jpg"}  # ... but named
    assert "2 conflicts" in done.stdout and both in done.stderr
    assert (ours / "images/Rosa canina" / by_hand.name).read_bytes() == jpeg("mine")
    assert (ours / "images/Rosa canina/broken.jpg").read_bytes() == b"ours"


def test_a_folder_of_a_killed_run_is_joined_with_its_journal(server, tmp_path):
    theirs = Tables(tmp_path / "theirs")
    download(tmp_path / "ours", [found_row(server.photo("one"))])
    row = found_row(server.photo("two"))
    search = {column: row[column] for column in ("class", "source", "query", "kind")}
    theirs.add([row], {**search, "answer": "open", "results": "1", "pages": "1", "time": now(),
                       "progress": '{"state": 1, "taken": 1}'})
    theirs.process_lock.release()  # as a kill does
    assert "has not finished" in join(tmp_path / "ours", tmp_path / "theirs").stderr
    assert [row["status"] for row in read_table(tmp_path / "ours/found.csv")] == ["saved", "new"]
    assert [row["answer"] for row in read_table(tmp_path / "ours/searches.csv")] == ["open"]
    assert (tmp_path / "theirs/found.csv.journal").exists()


@pytest.mark.parametrize("file", ["../../escaped.jpg", "/etc/passwd", "images/../../x/y.jpg",
                                  "images\\..\\..\\x.jpg", "found.csv"])
def test_a_row_that_names_a_file_elsewhere_brings_no_file(server, tmp_path, file):
    download(tmp_path / "ours", [found_row(server.photo("one"))])
    row = {**found_row(server.photo("two")), "status": "saved", "file": file, "sha256": "5" * 64}
    (tmp_path / "theirs").mkdir()
    write_table(tmp_path / "theirs/found.csv", FOUND, [row])
    before = set(snapshot(tmp_path))
    join(tmp_path / "ours", tmp_path / "theirs")
    assert set(snapshot(tmp_path)) - before == {
        f"{name}" for name in ("ours/CITATIONS.md", "classes.csv") if name not in before
        and (tmp_path / name).exists()}
    assert [row["status"] for row in read_table(tmp_path / "ours/found.csv")] == ["saved", "new"]


def test_folders_that_cannot_be_joined_are_named(server, tmp_path):
    download(tmp_path / "ours", [found_row(server.photo("one"))])
    (tmp_path / "empty").mkdir()
    for other, reason in ((tmp_path / "empty", "neither found.csv nor images/"),
                          (tmp_path / "none", "none"), (tmp_path / "ours", "overlap")):
        assert reason in join(tmp_path / "ours", other, status=1).stderr
