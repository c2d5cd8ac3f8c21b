"""Yandex Images through a real browser, on a local server that speaks every markup known."""
import os
import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dataset_preparation.parsing.browser import BrowserChoice
from dataset_preparation.parsing.sources import NothingYet, SearchFailed, SourceStopped
from dataset_preparation.parsing.yandex_images_parser import YandexImages
from dataset_preparation.parsing.yandex_window import Pace, Window
from tests.collecting_runs import NAMES, SCRIPT, results_of, yandex_arguments
from tests.collecting_server import jpeg
from tests.conftest import run_script, snapshot
from utils import read_table, sha256

pytestmark = pytest.mark.browser
NO_SANDBOX = ("--no-sandbox", "--disable-dev-shm-usage")  # works in containers, too


@pytest.fixture(scope="module")
def chromium():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromedriver are not installed")
    return BrowserChoice("chromium", NO_SANDBOX)


@pytest.fixture
def yandex(server, chromium, tmp_path):
    """A function that makes the source for the local server and closes its browser in the end."""
    made = []

    def make(page_seconds=5, captcha_seconds=0, filters=None, urls=(), browser=chromium,
             similar=40):
        pace = Pace((0, 0), page_seconds, captcha_seconds)
        window = Window(browser, urls or (f"{server.url}/images/search",), pace)
        made.append(YandexImages(window, filters or {}, tmp_path, similar))
        return made[-1]
    yield make
    for source in made:
        source.close()


def search(source, count, name="Rosa canina"):
    """Return the addresses of the first results of a name."""
    return [result["url"] for result in results_of(source.search(name), count)]


# ---- the script ----

def held_by(server, similar_to=3, similar=10):
    """Return {class: photographs} that the server holds for every name."""
    held = {}
    for name in NAMES:
        named = [f"{name.lower().replace(' ', '_')}-{number}" for number in range(30)]
        held[name] = named + [f"{parent}~{number}" for parent in named[:similar_to]
                              for number in range(similar)]
    return held


@pytest.mark.parametrize("markup", ["state", "tiles"])
def test_a_browser_collects_exactly_what_the_server_holds(server, tmp_path, chromium, markup):
    server.world.markup = markup
    command = yandex_arguments(server, tmp_path, "--name_results", 30, "--similar_to", 3,
                               "--similar_results", 10)
    done = run_script(SCRIPT, *command)
    assert done.stdout.splitlines()[-1].startswith("collected 300 photographs of 5 classes")
    held = [(plant, photo) for plant, photos in held_by(server).items() for photo in photos]
    rows = read_table(tmp_path / "collected/found.csv")
    assert sorted((row["class"], row["url"]) for row in rows) == sorted(
        (plant, server.photo(photo)) for plant, photo in held)
    assert {row["status"] for row in rows} == {"saved"}
    assert {row["source"] for row in rows} == {"yandex"}
    similar = [row for row in rows if row["kind"] == "similar"]
    assert len(similar) == 150
    for row in similar:
        assert row["parent"] == server.photo(urlsplit(row["url"]).path[7:].split("~")[0])
    files = {}
    for plant, photo in held:
        data = jpeg(f"/photo/{photo}.jpg")
        files[f"{plant}/{sha256(data)[:16]}.jpg"] = data
    assert snapshot(tmp_path / "collected/images") == files
    assert sorted(server.requested("/photo")) == sorted(f"/photo/{photo}.jpg" for _, photo in held)
    searches = server.requested("/images/search")
    assert len(searches) == len(set(searches)) == 5 * (1 + 3)
    run_script(SCRIPT, *command)
    assert server.requested("/images/search") == searches
    assert len(server.requested("/photo")) == 300


def test_a_captcha_stops_the_source_and_the_next_run_resumes(server, tmp_path, chromium):
    server.world.captcha_after = 7
    command = yandex_arguments(server, tmp_path, "--name_results", 30, "--similar_to", 3,
                               "--similar_results", 10)
    done = run_script(SCRIPT, *command, status=1)
    assert "yandex stopped at Typha latifolia: captcha" in done.stderr
    assert len(server.requested("/showcaptcha")) == 1 and not server.requested("/checkcaptcha")
    rows = read_table(tmp_path / "collected/found.csv")
    assert {row["status"] for row in rows} == {"saved"} and len(rows) == 60 + 50
    server.world.captcha_after = None
    run_script(SCRIPT, *command)
    assert len(read_table(tmp_path / "collected/found.csv")) == 300
    assert len(server.requested("/photo")) == 300


def test_a_fallback_is_downloaded_where_the_original_is_gone(server, tmp_path, chromium):
    server.world.originals = False
    run_script(SCRIPT, *yandex_arguments(server, tmp_path, "--classes", "Rosa canina",
                                         "--similar_to", 0))
    rows = read_table(tmp_path / "collected/found.csv")
    assert len(rows) == 30 and {row["status"] for row in rows} == {"saved"}
    for row in rows:
        copy = server.photo(f"rosa_canina-{int(row['rank']) - 1}") + "?copy"
        assert row["reason"] == f"from fallback {copy}"


# ---- pages ----

@pytest.mark.parametrize("markup", ["state", "tiles"])
@pytest.mark.parametrize("turns_pages", [True, False])
def test_all_pages_are_read_by_number_or_by_scrolling(server, yandex, markup, turns_pages):
    server.world.markup, server.world.by_name = markup, 100
    server.world.turns_pages = turns_pages
    everything = [server.photo(f"rosa_canina-{number}") for number in range(100)]
    source = yandex(page_seconds=3)
    assert search(source, 70) == everything[:70]
    assert search(source, None) == everything


def similar(source, server, count, name="rose", fallbacks=""):
    """Return the addresses of photographs similar to one."""
    row = {"url": server.photo(name), "fallbacks": fallbacks}
    return [result["url"] for result in results_of(source.similar(row), count)]


def test_similar_results_beyond_the_overview_and_with_filters_come_from_pages(server, yandex):
    server.world.by_image = 100
    everything = [server.photo(f"rose~{number}") for number in range(100)]
    assert similar(yandex(), server, 40) == everything[:40]
    assert similar(yandex(similar=90), server, 90) == everything[:90]
    filters = {"isize": "large", "iorient": ""}
    assert similar(yandex(filters=filters), server, 50) == everything[:50]
    assert "cbir_page=similar&isize=large&p=1" in server.requested("/images")[-1]
    assert yandex(filters=filters).terms == {"isize": "large"}
    server.world.by_image = 0
    assert similar(yandex(page_seconds=2), server, 40) == []


@pytest.mark.parametrize("held", [40, 38, 100])
def test_a_similar_search_takes_one_load_with_the_default_filter(server, yandex, held):
    server.world.by_image = held
    assert len(similar(yandex(filters={"type": "photo"}), server, 40)) == min(held, 40)
    assert len(server.requested("/images")) == 1


@pytest.mark.parametrize(("says_last", "loads"), [(True, 2), (False, 3)])
def test_the_end_of_the_results_is_no_changed_page(server, tmp_path, chromium, says_last, loads):
    server.world.by_name, server.world.says_last = 60, says_last
    done = run_script(SCRIPT, *yandex_arguments(server, tmp_path, "--classes", NAMES[0],
                                                "--similar_to", 0))
    assert "collected 60 photographs" in done.stdout.splitlines()[-1] and not done.stderr
    assert len(server.requested("/images")) == loads  # HTTP 404 after the last page
    search, = read_table(tmp_path / "collected/searches.csv")
    assert search["answer"] == "all"
    assert not (tmp_path / "collected/changed_markup").exists()


def test_a_page_that_is_still_being_filled_is_waited_for(server, yandex):
    server.world.markup = "filling"
    assert len(search(yandex(page_seconds=10), 30)) == 30
    server.world.fills = False
    with pytest.raises(NothingYet, match="still being filled after 1 s"):
        search(yandex(page_seconds=1), 30)
    assert len(server.requested("/images")) == 2


# ---- front doors ----

def doors(server, *paths):
    return tuple(f"{server.url}{path}/images/search" for path in paths)


def test_the_next_front_door_is_used_where_one_shows_no_similar_photographs(
        server, yandex, capsys):
    server.world.no_similar = {"/images/search", "/b/images/search"}
    source = yandex(urls=doors(server, "", "/b", "/ru"))
    for name in ("rose", "oak"):
        assert similar(source, server, 40, name)[0] == server.photo(f"{name}~0")
    warning, = capsys.readouterr().err.splitlines()
    assert "shows no similar" in warning and "/ru/images/search" in warning
    asked = [path.partition("?")[0] for path in server.requested("/") if "rpt=" in path]
    assert [path.removesuffix("/images/search") for path in asked] == ["", "/b", "/ru", "/ru"]


def test_no_similar_photographs_anywhere_are_remarked_on_once(server, yandex, capsys):
    server.world.by_image = 0
    source = yandex(urls=doors(server, "", "/ru"))
    for number in range(5):
        assert similar(source, server, 40, f"rose{number}") == []
    warning, = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: 3 photographs in a row") and "--yandex_url" in warning
    assert len(server.requested("/ru")) == 3  # then the first one alone
    server.world.expired = True
    with pytest.raises(SearchFailed, match="could not load the photograph"):
        similar(source, server, 40)
    copy = "https://avatars.mds.yandex.net/i?id=1"
    server.world.by_image = 3
    assert len(similar(source, server, 40, "rose", copy)) == 3


def test_a_front_door_that_leads_elsewhere_or_nowhere_is_left_for_the_next(
        server, yandex, capsys):
    server.world.leads = {"/images/search": f"{server.url}/photo/home.jpg"}
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}/images/search"
        source = yandex(urls=(nowhere, *doors(server, "", "/ru")))
        assert len(search(source, 30)) == 30
    printed = capsys.readouterr().err
    assert "ERR_CONNECTION_REFUSED" in printed and "without the search" in printed
    assert len(search(source, 30, "Typha latifolia")) == 30
    assert len(server.requested("/ru")) == 2 and len(server.requested("/images")) == 1
    alone = yandex(urls=doors(server, ""))
    with pytest.raises(SearchFailed, match="network error: .* leads to .*home.jpg"):
        search(alone, 30)


# ---- what may stand between ----

def test_a_captcha_solved_in_the_window_lets_the_search_continue(server, yandex, capsys):
    server.world.captcha_after, server.world.captcha_solves = 0, True
    assert len(search(yandex(captcha_seconds=60), 30)) == 30
    assert "captcha" in capsys.readouterr().out
    assert len(server.requested("/checkcaptcha")) == 1
    server.world.captcha_after, server.world.captcha_solves = 0, False
    server.world.responses = 0
    with pytest.raises(SourceStopped, match="captcha: .* 2 s"):
        search(yandex(captcha_seconds=2), 30)


def test_a_consent_banner_is_closed_once(server, yandex, capsys):
    server.world.consent, server.world.by_name, server.world.turns_pages = True, 70, False
    source = yandex(page_seconds=20)
    assert len(search(source, 70)) == 70  # the "more" button is under the banner
    assert source.window.driver.get_cookie("consent")["value"] == "1"
    assert capsys.readouterr().out.count("consent") == 1


def test_no_results_changed_markup_and_network_errors_are_told_apart(server, yandex, tmp_path):
    world, source = server.world, yandex(page_seconds=3)
    world.unknown = {"Nulla"}
    assert search(source, None, "Nulla") == []
    world.markup = "broken"
    with pytest.raises(SearchFailed, match="changed markup"):
        search(source, 30)
    saved, = (tmp_path / "changed_markup").iterdir()
    assert "NewList" in saved.read_text("utf-8") and "text=Rosa" in saved.read_text("utf-8")
    world.markup, world.links = "state", False
    world.by_name, world.turns_pages = 70, False
    with pytest.raises(SearchFailed, match="changed markup"):
        search(source, None)  # by scrolling: the state is that of the first tiles
    world.links, world.turns_pages, world.failing = True, True, 1
    assert len(search(source, 30)) == 30  # loaded again
    world.failing = 9
    with pytest.raises(SearchFailed, match="network error: HTTP 503"):
        search(source, 30)


def test_an_address_that_the_browser_cannot_show_is_a_network_error(yandex):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for port, reason in ((closed.getsockname()[1], "ERR_CONNECTION_REFUSED"),
                             (9, "the browser cannot show")):
            nowhere = yandex(urls=(f"http://127.0.0.1:{port}/images/search",), page_seconds=3)
            with pytest.raises(SearchFailed, match=f"network error: .*{reason}"):
                search(nowhere, 30)


# ---- browsers that end ----

def end_browser(source):
    """Kill the browser of a source, but not its driver."""
    threads = Path(f"/proc/{source.window.driver.service.process.pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text("utf-8").split()]
    assert children
    for child in children:
        os.kill(child, signal.SIGKILL)


def test_a_browser_that_dies_is_opened_again(server, yandex):
    source = yandex()
    assert len(search(source, 30)) == 30
    end_browser(source)
    assert len(search(source, 30, "Typha latifolia")) == 30
    server.world.by_name, server.world.turns_pages = 100, False
    results = source.search("Rosa canina")
    assert len(results_of(results, 31)) == 31
    end_browser(source)
    with pytest.raises(SearchFailed, match="scrolling"):
        list(results)


def test_a_browser_that_does_not_start_stops_the_source(yandex):
    broken = BrowserChoice("chromium", ("--no-sandbox", "--user-data-dir=/proc/none"))
    with pytest.raises(SourceStopped, match="does not start: .*--browser .*chromium.*--grid_url"):
        search(yandex(browser=broken), 30)


def test_a_captcha_after_three_pages_costs_three_pages_once(server, tmp_path, chromium):
    server.world.by_name, asked = 120, []
    command = yandex_arguments(server, tmp_path, "--limit_classes", 2, "--name_results", 120,
                               "--similar_to", 0, "--photo_attempts", 1)
    for run in range(3):
        server.world.responses, server.world.captcha_after = 0, 3
        done = run_script(SCRIPT, *command, status=0 if run == 2 else 1)
        pages = server.requested("/images/search")
        asked += pages[:3]  # the next one was answered with the captcha
        server.log.clear()
    assert len(asked) == len(set(asked)) == 8, asked
    rows = read_table(tmp_path / "collected/found.csv")
    for name in NAMES[:2]:
        ranks = sorted(int(row["rank"]) for row in rows if row["class"] == name)
        assert ranks == list(range(1, 121))
    assert "searches that failed: 0, not finished: 0, names never asked: 0" in done.stdout


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="not root")
def test_each_cause_of_a_browser_that_does_not_start_has_its_remedy(yandex, monkeypatch, tmp_path):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    as_root, hidden = BrowserChoice("chromium"), BrowserChoice("chromium", NO_SANDBOX, False)
    grid = BrowserChoice("chromium", grid_url="http://127.0.0.1:9")
    for browser, remedy in ((as_root, "as root .*--no-sandbox"), (hidden, "--headless"),
                            (grid, "Selenium Grid at http://127.0.0.1:9")):
        with pytest.raises(SourceStopped, match=f"does not start: .*{remedy}") as raised:
            search(yandex(browser=browser), 30)
        assert "documentation" not in str(raised.value)
