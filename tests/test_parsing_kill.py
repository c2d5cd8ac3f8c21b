"""SIGKILL at seeded moments of collecting, and Ctrl-C: the same command ends where an undisturbed run does."""
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

from tests.collecting_server import CollectingServer, jpeg
from tests.conftest import ROOT, run_script, snapshot
from tests.killing import pick_moments, run_killed, run_killed_when
from tests.test_parsing import SCRIPT, arguments, flora, match, occurrence
from tests.test_parsing_yandex import arguments as yandex_arguments
from utils import read_table, sha256

NAMES = ("Rosa canina", "Typha latifolia", "Amanita muscaria")


@pytest.fixture
def server(tmp_path):
    """A server whose plants share photographs and whose photographs are not all there."""
    with CollectingServer() as running:
        flora(running, tmp_path, NAMES, count=14)
        for place, one in enumerate(running.world.observations):
            if place % 7 == 3:
                one["photos"][0]["url"] = f"{running.url}/gone{place}.jpg"
            if place % 14 == 5:
                one["photos"][0]["url"] = running.photo("shared")
            if place % 14 == 6:
                one["photos"][0]["url"] = running.photo("shared") + "?the_same"
        for number, name in enumerate(NAMES):
            running.world.matches[name, "Plantae"] = match(number, name)
            running.world.occurrences += [occurrence(running, 10 * number + i, number, "CC0") for i in range(5)]
        yield running


def state(folder):
    """Return what must not depend on interruptions: the photographs, and the tables without their times."""
    tables = {name: [{key: value for key, value in row.items() if key != "time"} for row in read_table(folder / name)]
              for name in ("found.csv", "searches.csv", "ATTRIBUTION.csv")}
    others = {name: data for name, data in snapshot(folder).items() if not name.endswith(".csv")}
    return tables, others


def saved_addresses(folder, addresses):
    """Return those of the addresses whose photograph is saved, two addresses of one photograph left aside."""
    there = {path.name for path in (folder / "images").glob("*/*.jpg")}
    return {path for path in addresses
            if "shared" not in path and f"{sha256(jpeg(path.split('?')[0]))[:16]}.jpg" in there}


def answered(folder):
    """Return the names whose search at iNaturalist is answered, by the tables and the journal of an unfinished run."""
    entries = []
    if (folder / "found.csv.journal").exists():
        for line in (folder / "found.csv.journal").read_text("utf-8").splitlines(keepends=True)[1:]:
            entries += [json.loads(line).get("search")] if line.endswith("\n") else []
    if (folder / "searches.csv").exists():
        entries += read_table(folder / "searches.csv")
    return {entry["class"] for entry in entries if entry and entry["source"] == "inaturalist"}


def check_continued(server, out, command, wanted, before):
    """Run the command again and check what it fetches, what it asks, and where it ends."""
    there, known = saved_addresses(out, set(server.asked("/photo"))), answered(out)
    server.log.clear()
    run_script(SCRIPT, *command)
    assert not there & set(server.asked("/photo")), before
    assert not {name for name in known if server.asked(f"/inat/taxa?q={name.replace(' ', '+')}")}, before
    assert len(server.asked("/photo")) == len(set(server.asked("/photo"))), before
    assert state(out) == wanted, before


@pytest.mark.slow
def test_collecting_killed_anywhere(server, tmp_path):
    command = arguments(server, tmp_path, "--source", "inaturalist,gbif")
    collected = tmp_path / "collected"
    count = int(run_killed(0, SCRIPT, *command).split("=")[1])
    wanted, befores = state(collected), []
    assert len(wanted[0]["found.csv"]) == 3 * (14 - 2 + 2 + 5)
    shutil.rmtree(collected)
    for moment in pick_moments(count, 20, seed=4):
        server.log.clear()
        befores.append(run_killed(moment, SCRIPT, *command))
        check_continued(server, collected, command, wanted, befores[-1])
        shutil.rmtree(collected)
    for moment in range(count - 6, count):  # the tables, one after the other
        befores.append(run_killed(moment, SCRIPT, *command))
        check_continued(server, collected, command, wanted, befores[-1])
        shutil.rmtree(collected)
    said = " ".join(befores)
    for phase in ("os.rename", "images", "/found.csv.tmp", "/searches.csv.tmp", "os.remove"):
        assert phase in said


@pytest.mark.slow
def test_searching_killed_anywhere_and_again_and_again(server, tmp_path):
    command = arguments(server, tmp_path, "--source", "inaturalist,gbif")
    collected = tmp_path / "collected"
    run_script(SCRIPT, *command)
    wanted = state(collected)
    shutil.rmtree(collected)
    for asked in range(1, 12):  # 6 questions to iNaturalist and 6 to GBIF
        server.log.clear()
        killed = run_killed_when(lambda asked=asked: len(server.asked("/inat") + server.asked("/gbif")) >= asked,
                                 SCRIPT, *command)
        if asked % 3 == 0 or not killed:  # the others are killed again by the next round
            check_continued(server, collected, command, wanted, f"after {asked} questions")
            shutil.rmtree(collected)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_writes_the_tables_at_once_and_the_next_run_goes_on(server, tmp_path):
    command = arguments(server, tmp_path, "--source", "inaturalist", "--photo_attempts", 1)
    handler = server.server.RequestHandlerClass
    answer, started = handler.do_GET, time.monotonic()

    def slow(self):
        if len(server.asked("/photo")) > 10 and self.path.startswith("/photo"):
            while time.monotonic() < started + 20 and not server.world.failing:
                time.sleep(0.1)
        answer(self)
    handler.do_GET = slow
    process = subprocess.Popen([sys.executable, ROOT / SCRIPT, *map(str, command)], stderr=subprocess.PIPE, text=True)
    while len(server.asked("/photo")) < 11:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    assert process.wait() == 130 and time.monotonic() - asked < 5
    assert "the same command goes on" in process.stderr.read()
    out = tmp_path / "collected"
    rows = read_table(out / "found.csv")
    assert {row["status"] for row in rows} >= {"saved", "new"} and not list(out.rglob("*.tmp"))
    assert not (out / "found.csv.journal").exists()
    server.world.failing, there = 1, saved_addresses(out, set(server.asked("/photo")))
    server.log.clear()
    run_script(SCRIPT, *command)
    assert {row["status"] for row in read_table(out / "found.csv")} == {"saved", "refused"}
    assert there and not there & set(server.asked("/photo"))


@pytest.mark.browser
@pytest.mark.slow
def test_collecting_through_a_browser_killed_anywhere(tmp_path):
    with CollectingServer() as server:
        command = yandex_arguments(server, tmp_path, "--limit_classes", 2, "--name_results", 30, "--similar_to", 2,
                                   "--similar_results", 10)
        collected = tmp_path / "collected"
        run_script(SCRIPT, *command)
        wanted = state(collected)
        shutil.rmtree(collected)
        for asked in (1, 2, 4, 5, 6):
            server.log.clear()
            browsers = chromedrivers()
            assert run_killed_when(lambda asked=asked: len(server.asked("/images/search")) >= asked, SCRIPT, *command)
            for process in chromedrivers() - browsers:  # nobody is left to close them
                end_family(process)
            there = saved_addresses(collected, set(server.asked("/photo")))
            searches = server.asked("/images/search")
            server.log.clear()
            run_script(SCRIPT, *command)
            assert not there & set(server.asked("/photo"))
            assert not set(searches[:-2]) & set(server.asked("/images/search"))  # the last may have had no time
            assert state(collected) == wanted
            shutil.rmtree(collected)


def chromedrivers():
    """Return the process numbers of the running drivers."""
    return {int(path.parent.name) for path in Path("/proc").glob("[0-9]*/comm")
            if path.read_text("utf-8").strip() == "chromedriver"}


def end_family(process):
    """Kill a process and its children."""
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        for child in thread.read_text("utf-8").split():
            end_family(int(child))
    with contextlib.suppress(ProcessLookupError):  # ended with its child
        os.kill(process, signal.SIGKILL)
