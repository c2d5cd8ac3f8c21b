"""Collecting killed at any moment, or by Ctrl-C: the same command ends where one run does."""
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.collecting_runs import NAMES, SCRIPT, arguments, flora, match, yandex_arguments
from tests.collecting_server import CollectingServer, jpeg, occurrence
from tests.conftest import ROOT, run_script, snapshot
from tests.killing import changes_of, pick_moments, run_killed, run_killed_when
from utils import read_table, sha256

PLANTS = NAMES[:3]


@pytest.fixture
def server(tmp_path):
    """A server whose plants share photographs and whose photographs are not all there."""
    with CollectingServer() as running:
        flora(running, tmp_path, PLANTS, count=14)
        for index, record in enumerate(running.world.observations):
            photo = record["photos"][0]
            if index % 7 == 3:
                photo["url"] = f"{running.url}/gone{index}.jpg"
            if index % 14 == 5:
                photo["url"] = running.photo("shared")
            if index % 14 == 6:
                photo["url"] = running.photo("shared") + "?the_same"
        for number, name in enumerate(PLANTS):
            running.world.matches[name, "Plantae"] = match(number, name)
            running.world.occurrences += [
                occurrence(running, 10 * number + i, number, "CC0") for i in range(5)]
        yield running


def state(folder):
    """Return what must not depend on interruptions: files, and tables without their times."""
    tables = {name: [{key: value for key, value in row.items() if key != "time"}
                     for row in read_table(folder / name)]
              for name in ("found.csv", "searches.csv", "ATTRIBUTION.csv")}
    files = {name: data for name, data in snapshot(folder).items() if not name.endswith(".csv")}
    return tables, files


def saved_addresses(folder, addresses):
    """Return those of the addresses whose photograph is saved, except the shared photograph's."""
    files = {path.name for path in (folder / "images").glob("*/*.jpg")}
    return {path for path in addresses if "shared" not in path
            and f"{sha256(jpeg(path.split('?')[0]))[:16]}.jpg" in files}


def finished_searches(folder):
    """Return the names whose search on iNaturalist is in the tables or in the journal."""
    searches, journal = [], folder / "found.csv.journal"
    if journal.exists():
        lines = journal.read_text("utf-8").splitlines(keepends=True)[1:]
        searches += [json.loads(line).get("search") for line in lines if line.endswith("\n")]
    if (folder / "searches.csv").exists():
        searches += read_table(folder / "searches.csv")
    return {search["class"] for search in searches
            if search and search["source"] == "inaturalist" and search["answer"] != "open"}


def check_resumed(server, folder, command, wanted, moment):
    """Run the command again; check what it downloads, what it searches, and where it ends."""
    saved = saved_addresses(folder, set(server.requested("/photo")))
    finished = finished_searches(folder)
    server.log.clear()
    run_script(SCRIPT, *command)
    photos = server.requested("/photo")
    assert not saved & set(photos), moment
    assert len(photos) == len(set(photos)), moment
    for name in finished:
        assert not server.requested(f"/inat/taxa?q={name.replace(' ', '+')}"), moment
    assert state(folder) == wanted, moment


@pytest.mark.slow
def test_collecting_killed_anywhere(server, tmp_path):
    command = arguments(server, tmp_path, "--source", "inaturalist,gbif")
    collected = tmp_path / "collected"
    changes, wanted = changes_of(0, SCRIPT, *command), state(collected)
    phases = "os.rename", "images", "/found.csv.tmp", "/searches.csv.tmp", "os.remove"
    assert len(wanted[0]["found.csv"]) == 3 * (14 - 2 + 2 + 5)
    shutil.rmtree(collected)
    # Moments anywhere, then the writing of the tables, one change after the other
    for number in [*pick_moments(changes, 12, 4, phases), *range(len(changes) - 14, len(changes))]:
        server.log.clear()
        before = run_killed(number, SCRIPT, *command)
        check_resumed(server, collected, command, wanted, before)
        shutil.rmtree(collected)


@pytest.mark.slow
def test_searching_killed_anywhere_and_again_and_again(server, tmp_path):
    command = arguments(server, tmp_path, "--source", "inaturalist,gbif")
    collected = tmp_path / "collected"
    run_script(SCRIPT, *command)
    wanted = state(collected)
    shutil.rmtree(collected)

    def requests():
        return len(server.requested("/inat") + server.requested("/gbif"))
    for number in range(1, 12):  # of 6 requests to iNaturalist and 6 to GBIF
        server.log.clear()
        killed = run_killed_when(lambda number=number: requests() >= number, SCRIPT, *command)
        if not killed:  # a further run would ask again for what was not found
            assert state(collected) == wanted, f"after {number} requests"
        elif number % 3 == 0:  # the others are killed again by the next round
            check_resumed(server, collected, command, wanted, f"after {number} requests")
        else:
            continue
        shutil.rmtree(collected)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_writes_the_tables_at_once_and_the_next_run_resumes(server, tmp_path):
    command = arguments(server, tmp_path, "--source", "inaturalist", "--photo_attempts", 1)
    handler = server.server.RequestHandlerClass
    respond, started = handler.do_GET, time.monotonic()

    def slow(self):
        if len(server.requested("/photo")) > 10 and self.path.startswith("/photo"):
            while time.monotonic() < started + 60 and not server.world.failing:
                time.sleep(0.1)
        respond(self)
    handler.do_GET = slow
    process = subprocess.Popen([sys.executable, ROOT / SCRIPT, *map(str, command)],
                               stderr=subprocess.PIPE, text=True)
    while len(server.requested("/photo")) < 11:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    assert process.wait() == 130
    assert time.monotonic() - interrupted < 20  # the server would need up to 60 s
    assert "same command" in process.stderr.read()
    collected = tmp_path / "collected"
    rows = read_table(collected / "found.csv")
    assert {row["status"] for row in rows} >= {"saved", "new"}
    assert not list(collected.rglob("*.tmp")) and not (collected / "found.csv.journal").exists()
    server.world.failing = 1
    saved = saved_addresses(collected, set(server.requested("/photo")))
    server.log.clear()
    run_script(SCRIPT, *command)
    rows = read_table(collected / "found.csv")
    assert {row["status"] for row in rows} == {"saved", "refused"}
    assert saved and not saved & set(server.requested("/photo"))


@pytest.mark.browser
@pytest.mark.slow
def test_collecting_through_a_browser_killed_anywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_OF_COLLECTING", str(tmp_path))  # by which its browsers are found
    with CollectingServer() as server:
        command = yandex_arguments(server, tmp_path, "--limit_classes", 2, "--name_results", 30,
                                   "--similar_to", 2, "--similar_results", 10)
        collected = tmp_path / "collected"
        run_script(SCRIPT, *command)
        wanted = state(collected)
        shutil.rmtree(collected)
        for number in (1, 2, 4, 5, 6):
            server.log.clear()
            assert run_killed_when(
                lambda number=number: len(server.requested("/images/search")) >= number,
                SCRIPT, *command)
            for process in chromedrivers(tmp_path):  # whose parent can no longer close them
                end_family(process)
            saved = saved_addresses(collected, set(server.requested("/photo")))
            searches = server.requested("/images/search")
            server.log.clear()
            run_script(SCRIPT, *command)
            assert not saved & set(server.requested("/photo"))
            # the last ones may have been killed before they were written
            assert not set(searches[:-2]) & set(server.requested("/images/search"))
            assert state(collected) == wanted
            shutil.rmtree(collected)


def chromedrivers(folder):
    """Return the process numbers of the drivers that a test in this folder has started."""
    marker, found = f"TEST_OF_COLLECTING={folder}\0".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended, or another user's
            name = (path / "comm").read_text("utf-8").strip()
            if name == "chromedriver" and marker in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


def end_family(process):
    """Kill a process and its children."""
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        for child in thread.read_text("utf-8").split():
            end_family(int(child))
    with contextlib.suppress(ProcessLookupError):  # ended with its child
        os.kill(process, signal.SIGKILL)
