"""Collecting unattended: troubled servers, names in turns, odd records, plan and report."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

import config
from dataset_preparation.parsing.collected_tables import Tables
from dataset_preparation.parsing.collecting_report import Progress, photo_time
from dataset_preparation.parsing.searches import Searches, Wanted
from dataset_preparation.parsing.sources import ResultPage, SearchFailed, Source
from tests.collecting_runs import SCRIPT, arguments, flora, start_downloads
from tests.collecting_server import occurrence
from tests.conftest import ROOT, run_script, write_classes
from tests.preparing import clean, label
from utils import read_classes, read_table

JSON = {"Content-Type": "application/json"}


def intercept(server, respond):
    """Let `respond(handler)` send a response first; where it returns False, the server does."""
    ordinary = server.server.RequestHandlerClass.do_GET

    def do_get(self):
        if respond(self):
            server.log.append((time.time(), self.path))
        else:
            ordinary(self)
    server.server.RequestHandlerClass.do_GET = do_get


def asked(server, name):
    """Return how often the source was asked for a name."""
    return len(server.requested(f"/inat/taxa?q={name.replace(' ', '+')}&"))


def broken_names(server, *names):
    """Let every request for names that begin so end in a page of HTML."""
    def respond(handler):
        if any(f"taxa?q={name}" in handler.path for name in names):
            handler.send(200, {}, b"<html>maintenance</html>")
            return True
        return False
    intercept(server, respond)


# ---- a whole run ----

class Troubled:
    """A server that answers badly: see `respond`."""

    def __init__(self, names, is_page, refuse):
        self.names, self.is_page, self.refuse = names, is_page, refuse
        self.pages, self.troubled, self.photos = Counter(), Counter(), Counter()
        self.in_session, self.busy_since = 0, None

    def respond(self, handler):
        """Send what stands between a request and its answer; return False where nothing does."""
        if handler.path.startswith("/photo/"):
            self.photos[handler.path] += 1
            if len(self.photos) % 200 == 0 and self.photos[handler.path] == 1:
                handler.send(503, {}, b"later")
                return True
        if not self.is_page(handler.path):
            return False
        answered = self.pages.total()
        name = next((name for name in self.names[2::3]
                     if f"={name.replace(' ', '+')}&" in handler.path), None)
        if self.in_session >= 7:
            self.refuse(handler)
        elif name and self.troubled[name] < 2:  # every third name
            self.troubled[name] += 1
            handler.send(200, {}, b"<html>maintenance</html>")
        elif self.busy_since and time.monotonic() - self.busy_since < 2:
            handler.send(429, {}, b"too many")
        elif answered % 11 == 10 and not self.troubled[handler.path]:
            self.troubled[handler.path] = 1
            handler.send(503, {}, b"later")
        else:
            self.pages[handler.path] += 1
            self.in_session += 1
            self.busy_since = time.monotonic() if answered == 3 else self.busy_since
            return False
        return True


TROUBLED = {  # source: how its pages begin, what more than 7 of them are answered with, its flags
    "inaturalist": ("/inat/", lambda handler: handler.send(
        429, {"Retry-After": "86400"}, b"enough for today"), ("--spread_pages", 0)),
    "yandex": ("/images/", lambda handler: handler.send(
        302, {"Location": "/showcaptcha?retpath=/"}, b""),
        ("--similar_to", 1, "--page_seconds", 2, "--browser_arguments",
         "('--no-sandbox', '--disable-dev-shm-usage')", "--browser", "chromium",
         "--page_delay", "(0.0, 0.0)"))}


@pytest.mark.slow
@pytest.mark.parametrize("source", TROUBLED)
def test_four_runs_collect_everything_from_an_unreliable_server(server, tmp_path, source):
    if source == "yandex" and not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromedriver are not installed")
    names, (start, refuse, flags) = [f"Rosa {letter}" for letter in "abcdef"], TROUBLED[source]
    flora(server, tmp_path, names, count=230)
    server.world.by_name = 70
    wanted, similar = (210, 0) if source == "inaturalist" else (60, 10)
    troubled = Troubled(names, lambda path: path.startswith(start), refuse)
    intercept(server, troubled.respond)
    command = arguments(server, tmp_path, "--source", source, "--name_results", wanted,
                        "--busy_seconds", 1, "--yandex_url", f"{server.url}/images/search", *flags)
    errors, runs = "", 0
    while runs < 6:
        runs, troubled.in_session = runs + 1, 0
        command_line = [sys.executable, ROOT / SCRIPT, *map(str, command)]
        done = subprocess.run(command_line, capture_output=True, text=True, check=False)
        errors += done.stderr
        if done.returncode == 0:
            break
    assert done.returncode == 0 and 1 < runs <= 4, errors
    assert re.search("HTTP 429.*; next attempt at", errors)
    assert max(troubled.pages.values()) == 1  # no page that was answered is asked twice
    assert max(troubled.photos.values()) <= 2 and troubled.troubled.total() > 4
    rows = read_table(tmp_path / "collected/found.csv")
    assert Counter(row["class"] for row in rows) == dict.fromkeys(names, wanted + similar)
    assert {(row["status"], row["reason"]) for row in rows} == {("saved", "")}  # originals only
    for name in names:
        ranks = sorted(int(row["rank"]) for row in rows
                       if row["class"] == name and row["kind"] == "name")
        assert ranks == list(range(1, wanted + 1))
    assert "next: python dataset_preparation/cleaning/cleaning.py" in done.stdout


# ---- names take turns ----

def test_names_that_cannot_be_answered_do_not_block_later_ones(server, tmp_path):
    flora(server, tmp_path, ("Bad a", "Bad b", "Bad c", "Alpha one"))
    broken_names(server, "Bad")
    command = arguments(server, tmp_path, "--source", "inaturalist")
    done = run_script(SCRIPT, *command, status=1)
    assert "searches that failed: 3" in done.stderr and "never asked: 0" in done.stderr
    rows = read_table(tmp_path / "collected/found.csv")
    assert Counter(row["class"] for row in rows) == {"Alpha one": 6}
    failed = [row for row in read_table(tmp_path / "collected/searches.csv")
              if row["answer"].startswith("failed: ")]
    assert len(failed) == 3 and all(row["time"] and "maintenance" in row["answer"]
                                    for row in failed)


def test_names_that_failed_in_an_earlier_run_come_last_and_do_not_stop_the_source(server, tmp_path):
    names = [f"{kind} {letter}" for letter in "abcdefg" for kind in ("Bad", "Alpha")]
    flora(server, tmp_path, names)
    broken_names(server, "Bad")
    command = arguments(server, tmp_path, "--source", "inaturalist")
    run_script(SCRIPT, *command, status=1)
    write_classes(tmp_path / "classes.csv", [*names, "Alpha last"])
    server.world.taxa["Alpha last"] = server.world.taxa["Alpha a"]
    server.log.clear()
    done = run_script(SCRIPT, *command, status=1)
    assert asked(server, "Alpha last") == 1 and "stopped" not in done.stderr
    order = server.requested("/inat/taxa")
    assert "Alpha+last" in order[0], order
    assert [asked(server, f"Bad {letter}") for letter in "abcdefg"] == [1] * 7


def test_a_failed_name_is_asked_again_once_the_others_were(server, tmp_path):
    flora(server, tmp_path)
    troubled = []

    def respond(handler):
        if "q=Rosa+canina" in handler.path and not troubled:
            troubled.append(handler.path)
            handler.send(400, {}, b"no")
            return True
        return False
    intercept(server, respond)
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"))
    order = [re.search(r"q=(\w+)", path)[1] for path in server.requested("/inat/taxa")]
    assert order == ["Rosa", "Typha", "Amanita", "Rosa"]
    assert "collected 18 photographs of 3 classes" in done.stdout


def test_a_dead_site_is_abandoned_after_six_names(server, tmp_path):
    flora(server, tmp_path, [f"Rosa {letter}" for letter in "abcdefghijk"])
    server.world.pages["/inat/taxa"] = (400, {}, b"no")
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert len(server.requested("/inat")) == 6
    assert "searches that failed: 6, not finished: 0, names never asked: 5" in done.stderr


def test_a_host_that_asks_to_wait_a_day_gets_no_further_search(server, tmp_path):
    flora(server, tmp_path)
    server.world.pages["/inat/taxa"] = (429, {"Retry-After": "86400"}, b"")
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert len(server.requested("/inat")) == 1 and "names never asked: 3" in done.stderr


def test_a_paged_search_resumes_after_its_last_answered_page(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina",), count=1000)
    answered = Counter()

    def respond(handler):
        if "/inat/observations" not in handler.path:
            return False
        if sum(answered.values()) % 3 == 2 and not answered["refused"]:
            answered["refused"] = 1
            handler.send(400, {}, b"no more at present")
            return True
        answered["refused"] = 0
        answered[handler.path] += 1
        return False
    intercept(server, respond)
    command = arguments(server, tmp_path, "--source", "inaturalist", "--name_results", 900,
                        "--spread_pages", 0, "--photo_attempts", 1)
    server.world.pages["/none"] = (404, {}, b"")
    for record in server.world.observations:
        record["photos"][0]["url"] = f"{server.url}/none?{record['id']}"
    for _ in range(3):
        subprocess.run([sys.executable, ROOT / SCRIPT, *map(str, command)], check=False,
                       capture_output=True)
    assert max(answered.values()) == 1
    rows = read_table(tmp_path / "collected/found.csv")
    assert sorted(int(row["rank"]) for row in rows) == list(range(1, 901))
    search = read_table(tmp_path / "collected/searches.csv")[0]
    assert (search["answer"], search["results"], search["pages"]) == ("enough", "900", "5")


class Lookalikes(Source):
    """A source of five photographs, to the first four of which it finds no similar ones."""

    def __init__(self):
        self.asked = []

    def search(self, name, state=None, earlier=()):
        yield ResultPage([{"url": f"https://x.example/{number}.jpg"} for number in range(5)])

    def similar(self, row, state=None, earlier=()):
        self.asked.append(row["rank"])
        if int(row["rank"]) < 5:
            raise SearchFailed("cannot load the photograph")
        yield ResultPage([{"url": "https://x.example/similar.jpg"}])


def test_unanswered_downloads_do_not_delay_the_later_ones(tmp_path):
    source, wanted = Lookalikes(), Wanted(5, 0, 5, 40)
    plants = read_classes(write_classes(tmp_path / "classes.csv", ["Rosa canina"]))
    for order in ("123", "45123"):
        tables = Tables(tmp_path)
        downloads = start_downloads(tables, threads=0)
        progress = Progress(1, downloads)
        Searches("yandex", source, wanted, tables, downloads, progress).run(plants)
        progress.close()
        tables.save()
        assert "".join(source.asked[:len(order)]) == order
        source.asked.clear()


def test_empty_and_unknown_names_are_asked_again_on_demand(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina",))
    known = server.world.taxa.pop("Rosa canina")
    command = arguments(server, tmp_path, "--source", "inaturalist")
    run_script(SCRIPT, *command)
    server.world.taxa["Rosa canina"] = known
    assert "collected 0 photographs" in run_script(SCRIPT, *command).stdout
    done = run_script(SCRIPT, *command, "--try_again", "unknown")
    assert "collected 6 photographs" in done.stdout


# ---- odd records ----

def odd_observation(server, number, change):
    """Return a copy of the record of a number, changed."""
    record = json.loads(json.dumps(server.world.observations[number]))
    change(record)
    return record


ODD = {"user null": (lambda record: record.update(user=None), 7),
       "photos null": (lambda record: record.update(photos=None), 6),
       "no user": (lambda record: record.pop("user"), 7),
       "no photos": (lambda record: record.pop("photos"), 6),
       "no license": (lambda record: record["photos"][0].pop("license_code"), 6),
       "photo null": (lambda record: record.update(photos=[None]), 6),
       "photos a text": (lambda record: record.update(photos="none"), 6),
       "url a list": (lambda record: record["photos"][0].update(url=[]), 6),
       "taxon a number": (lambda record: record.update(taxon=4), 7),
       "size a text": (lambda record: record["photos"][0].update(original_dimensions="big"), 7),
       "id null": (lambda record: record.update(id=None), 7)}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_record_of_inaturalist_loses_no_other_one(server, tmp_path, kind):
    flora(server, tmp_path, ("Rosa canina",), count=7)
    change, count = ODD[kind]
    page = [odd_observation(server, number, change if number == 3 else lambda record: None)
            for number in range(7)]
    server.world.pages["/inat/observations"] = (
        200, JSON, json.dumps({"results": page}).encode())
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"))
    assert f"collected {count} photographs" in done.stdout
    if count == 6:
        assert re.search("1 passed over by inaturalist: .*(unexpected form|no licence)",
                         done.stdout)


ODD_MEDIA = {"media null": ({"media": None}, 6), "no key": ({"key": None}, 7),
             "license a list": ({"license": ["cc0"]}, 6), "not an object": (None, 6),
             "creator a number": ({"creator": 4}, 7)}


@pytest.mark.parametrize("kind", ODD_MEDIA)
def test_an_odd_record_of_gbif_loses_no_other_one(server, tmp_path, kind):
    from tests.collecting_runs import match
    flora(server, tmp_path, ("Rosa canina",))
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    records = [occurrence(server, number, 11, "CC0") for number in range(7)]
    changes, count = ODD_MEDIA[kind]
    if changes is None:
        records[3] = ["not", "an", "object"]
    else:
        target = records[3] if set(changes) & {"media", "key"} else records[3]["media"][0]
        target.update(changes)
    server.world.pages["/gbif/occurrence/search"] = (
        200, JSON, json.dumps({"results": records, "endOfRecords": True}).encode())
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "gbif"))
    assert f"collected {count} photographs" in done.stdout


@pytest.mark.parametrize("body", [{"message": "use v2"}, {"error": "use v2"}, ["use v2"]])
def test_the_error_message_of_a_server_is_quoted(server, tmp_path, body):
    flora(server, tmp_path, ("Rosa canina",))
    server.world.pages["/inat/taxa"] = (200, JSON, json.dumps(body).encode())
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert "use v2" in done.stderr and "Error(" not in done.stderr


# ---- the plan, the account, an interrupted run ----

def test_the_plan_is_printed_before_the_first_request_and_the_report_last(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Typha latifolia", "Bad name"))
    del server.world.taxa["Bad name"]
    server.world.pages["/photo/1002-0/medium.jpg"] = (503, {}, b"")
    server.world.pages["/photo/1003-0/medium.jpg"] = (200, {}, b"<html>")
    for record in server.world.observations[:2]:
        record["photos"][0]["license_code"] = "cc-by-nd"
    plan = []
    intercept(server, lambda handler: plan.append(output.read_text()) if not plan else False)
    output = tmp_path / "output.txt"
    command = arguments(server, tmp_path, "--source", "inaturalist", "--photo_attempts", 1,
                        "--name_results", 5)
    with open(output, "w") as file:
        subprocess.run([sys.executable, ROOT / SCRIPT, *map(str, command)], stdout=file,
                       check=True)
    assert "3 names" in plan[0] and "pages" in plan[0] and "per second" in plan[0]
    assert "photographs: at most 15, 0 of them waiting" in plan[0]
    assert "about 2 s (assuming 0.15 MB and 0.5 s each, 4 at once from one host" in plan[0]
    assert re.search(r"in all about \d+ s: ", plan[0])
    text = output.read_text()
    assert re.search(r"Rosa canina +5 +4 +2 +2 +0 +1 +1 +0", text)
    assert re.search("Bad name .*does not know it", text)
    host = server.url.removeprefix("http://")
    for fact in ("7 originals, 0 from smaller copies", "failed: HTTP 503", "refused: not a picture",
                 f"failed downloads from {host}", "names never asked: 0", "next: python"):
        assert fact in text


@pytest.mark.parametrize(("changes", "seconds"), [  # of 40,000 photographs of 0.5 MB
    ({}, 5 * 3600), ({"host_gb_per_hour": 40}, 10_000), ({"host_gb_per_day": 10}, 95_400),
    ({"host_gb_per_hour": 40, "host_delay": 1}, 40_000)])
def test_the_plan_counts_hours_of_downloads_by_the_tightest_limit(changes, seconds):
    s, source = config.namespace(**changes), Source()
    assert photo_time(40_000, source, s)[0] == pytest.approx(seconds)
    source.one_host = False
    assert photo_time(40_000, source, s)[0] == 40_000 * 0.5 / 32


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [
    signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_interrupted_run_is_cleaned_and_labelled_like_an_undisturbed_one(
        server, tmp_path, number, capfd):
    flora(server, tmp_path, ("Rosa canina", "Typha latifolia"), count=30)
    for record in server.world.observations:  # two photographs of each
        photo = record["photos"][0]
        record["photos"].append({**photo, "url": photo["url"].replace("-0/", "-1/")})
    command = arguments(server, tmp_path, "--source", "inaturalist", "--name_results", 60)
    run_script(SCRIPT, *command)
    whole = labelled(tmp_path)
    (tmp_path / "collected").rename(tmp_path / "whole")
    server.log.clear()
    process = subprocess.Popen([sys.executable, ROOT / SCRIPT, *map(str, command), "--host_delay",
                                "0.02"], stdout=subprocess.PIPE, text=True)
    while len(server.requested("/photo")) < 70:
        time.sleep(0.01)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}.get(number, -number)
    capfd.readouterr()
    part = labelled(tmp_path)
    printed_by_steps = capfd.readouterr().err
    as_of_whole = labelled(tmp_path, found=tmp_path / "whole/found.csv")
    journal = (tmp_path / "collected/found.csv.journal").exists()
    assert journal == (number == signal.SIGKILL)
    assert ("has not finished" in printed_by_steps) == journal
    assert journal or ("collected " in printed and "next: python" in printed)
    assert 40 < len(part) < 120
    assert part == as_of_whole
    for content, (_, *rest) in part.items():
        assert tuple(rest) == whole[content][1:] and rest[0] and rest[1]  # licence, author, address
    assert len({group for group, *_ in part.values()}) < len(part) / 1.5  # by observation, at least
    run_script(SCRIPT, *command)
    assert labelled(tmp_path) == whole


def labelled(folder, found=None):
    """Clean and label a collected folder; return {SHA-256: (group, licence, author, address)}.

    With `found`, that table says where the photographs are from.
    """
    for name in ("cleaned", "dataset"):
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name}_{time.monotonic_ns()}")
    clean(folder, "--min_side", "32", "--output_side", "32")
    more = []
    if found:
        (folder / "other").mkdir()
        shutil.copyfile(found, folder / "other/found.csv")
        more = ["--collected_dir", str(folder / "other")]
    rows = label(folder, *more)
    return {row["sha256"]: (row["group"], row["license"], row["author"], row["url"])
            for row in rows.values()}


def test_a_host_that_is_paused_is_reported_with_the_end_of_the_pause(
        server, tmp_path, monkeypatch, capsys):
    from dataset_preparation.parsing import collecting_report
    from dataset_preparation.parsing.collected_tables import Tables
    from tests.collecting_runs import found_row, start_downloads
    monkeypatch.setattr(collecting_report, "EVERY", 0.5)
    tables = Tables(tmp_path)
    downloads = start_downloads(tables, threads=1, connections=1, budgets=((60, 1000.0),))
    progress = collecting_report.Progress(1, downloads)
    downloads.add(tables.add([found_row(server.photo(str(i))) for i in range(9)]))
    until = time.monotonic() + 3
    while time.monotonic() < until:
        time.sleep(0.1)
        progress.tick()
    downloads.stop()
    progress.close()
    host = server.url.removeprefix("http://")
    assert re.search(rf"{host} rests until \d\d:\d\d:\d\d \(1e-06 GB per hour used up\), "
                     r"\d wait for it", capsys.readouterr().out)
