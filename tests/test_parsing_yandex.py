"""Yandex Images: pages in all markups known, and a real browser on a local server that speaks them."""
import json
import os
import shutil
import signal
import socket
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from dataset_preparation.parsing.parsing_utils import SearchFailed, SourceStopped
from dataset_preparation.parsing.safe_download import clean_address
from dataset_preparation.parsing.yandex_images_parser import YandexImages, open_browser, size_filter
from dataset_preparation.parsing.yandex_pages import ChangedMarkup, Page, is_cached, read_page, result
from tests.collecting_server import BANNER, CollectingServer, World, captcha_page, jpeg, search_page
from tests.conftest import run_script, shared, snapshot, write_classes
from utils import read_table, sha256

SCRIPT = "dataset_preparation/parsing/parsing.py"
NAMES = ("Rosa canina", "Typha latifolia", "Amanita muscaria", "Adonis vernalis", "Allium nathaliae")


@pytest.fixture
def server():
    with CollectingServer() as running:
        yield running


def page(server, **params):
    return Page(search_page(server, params, answered=True))


# ---- pages, without a browser ----

@pytest.mark.parametrize("markup", ["state", "tiles", "legacy"])
def test_results_are_read_from_every_markup(server, markup):
    server.world.markup = markup
    results = read_page(page(server, text="Rosa canina"))
    assert [one["url"] for one in results] == [server.photo(f"rosa_canina-{number}") for number in range(30)]
    thumb = "https://avatars.mds.yandex.net/i?id=rosa_canina-3-images-thumbs&n=13"
    assert results[3]["fallbacks"].split()[-1] == thumb
    if markup == "tiles":
        assert results[3]["title"] == "rosa_canina-3" and results[3]["page"] == ""
    else:
        assert results[3]["page"] == "https://plants.example/rosa_canina-3" and results[3]["width"] == 64
        assert results[3]["title"] == 'rosa_canina-3 photo "in flower" {"a": false}}'
        assert results[3]["fallbacks"].split()[0] == server.photo("rosa_canina-3") + "?copy"
        assert len([one for one in results[3]["fallbacks"].split() if is_cached(one)]) == 2


@pytest.mark.parametrize("markup", ["state", "tiles"])
def test_similar_results_are_read_from_the_overview(server, markup):
    server.world.markup = markup
    results = read_page(page(server, rpt="imageview", url=server.photo("rose")))
    assert [one["url"] for one in results] == [server.photo(f"rose~{number}") for number in range(10)]


def test_empty_changed_and_captcha_pages_are_told_apart(server):
    server.world.unknown = {"Nulla"}
    for markup in ("state", "tiles", "legacy"):
        server.world.markup = markup
        assert read_page(page(server, text="Nulla")) == []
    server.world.markup = "state"
    server.world.by_image = 0
    assert read_page(page(server, rpt="imageview", url=server.photo("rose"))) == []
    server.world.markup = "broken"
    with pytest.raises(ChangedMarkup):
        read_page(page(server, text="Rosa canina"))
    for text in ("", "<html><body>Bad gateway</body></html>", '<div data-state="{&quot;initialState&quot;: null}">',
                 # entries of a new form are no empty list
                 '<div data-state="{&quot;initialState&quot;: {&quot;serpList&quot;: {&quot;items&quot;: '
                 '{&quot;entities&quot;: {&quot;a&quot;: {&quot;href&quot;: &quot;x&quot;}}}}}}">'):
        with pytest.raises(ChangedMarkup):
            read_page(Page(text))
    assert Page(captcha_page(World(), {"retpath": "/images/search"}).decode()).captcha
    assert not page(server, text="smartcaptcha /checkcaptcha").captcha
    assert Page(BANNER).consent


def test_originals_come_before_copies_and_copies_before_thumbnails():
    cached = "https://avatars.mds.yandex.net/i?id=1_l&n=13"
    originals = [(cached, 4000, 3000), ("http://a.example/s.jpg", 300, 200), (None, 0, 0),
                 ("HTTP://a.example/ö b.jpg#x", 900, 800), ("data:image/gif;base64,R0", 9, 9)]
    one = result(originals, ["//avatars.mds.yandex.net/i?id=1&n=13", None], None, "A &amp; <b>B</b>")
    assert one == {"url": "http://a.example/%C3%B6%20b.jpg", "width": 900, "height": 800, "page": "", "title": "A & B",
                   "fallbacks": f"http://a.example/s.jpg {cached} https://avatars.mds.yandex.net/i?id=1&n=13"}
    assert result([("data:x", 1, 1)], [""], "", "") is None
    assert not is_cached("https://notyandex.example/a.jpg") and is_cached("https://im0-tub-ru.yandex.net/i?id=2")


def test_sizes_are_words_or_exact():
    assert size_filter("large") == {"isize": "large"} and size_filter("") == {"isize": ""}
    assert size_filter("1920x1080") == {"isize": "eq", "iw": "1920", "ih": "1080"}


@pytest.mark.photos
def test_real_captures_are_told_apart():
    folder = shared("knowledge") / "captures"
    captcha = Page((folder / "openserp_yandex_captcha.html").read_text("utf-8"))
    assert captcha.captcha
    nothing = Page((folder / "openserp_yandex_websearch_no_results.html").read_text("utf-8"))
    assert nothing.empty and not nothing.captcha and read_page(nothing) == []
    texts = json.loads((folder / "serpapi_yandex_text.json").read_text("utf-8"))["images_results"]
    assert sum(is_cached(one["original"]) for one in texts) == 28
    links = [one["link"] for one in json.loads((folder / "serpapi_yandex_reverse.json").read_text("utf-8"))[
        "similar_images"]]
    state = json.dumps({"initialState": {"cbirSimilar": {"thumbs": [{"linkUrl": link} for link in links]}}})
    similar = Page("")
    similar.states = [json.loads(state)["initialState"]]
    assert [one["url"] for one in read_page(similar)] == [
        clean_address(parse_qs(urlsplit(link).query)["img_url"][0]) for link in links]


# ---- a real browser ----

@pytest.fixture(scope="module")
def chromium():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromedriver are not installed")
    return lambda: open_browser("chromium", ("--no-sandbox", "--disable-dev-shm-usage"), True, "")


@pytest.fixture
def yandex(server, chromium, tmp_path):
    """A function that makes the source for the local server; its browsers are closed at the end."""
    made = []

    def make(**changes):
        options = {"open_browser": chromium, "url": f"{server.url}/images/search", "filters": {}, "delay": (0, 0),
                   "page_seconds": 5, "captcha_seconds": 0, "folder": tmp_path, **changes}
        made.append(YandexImages(**options))
        return made[-1]
    yield make
    for source in made:
        source.close()


def arguments(server, folder, *more):
    return ["--class_table", write_classes(folder / "classes.csv", NAMES), "--collected_dir", folder / "collected",
            "--yandex_url", f"{server.url}/images/search", "--browser", "chromium", "--browser_arguments",
            "('--no-sandbox', '--disable-dev-shm-usage')", "--page_delay", "(0.0, 0.0)", "--page_seconds", 10,
            "--private_hosts", "('127.0.0.1',)", "--host_delay", 0, "--host_connections", 8, *more]


def expected(server, similar_to=3, similar=10):
    """Return {class: addresses} of what the server holds for every name."""
    held = {}
    for name in NAMES:
        named = [f"{name.lower().replace(' ', '_')}-{number}" for number in range(30)]
        held[name] = named + [f"{parent}~{number}" for parent in named[:similar_to] for number in range(similar)]
    return held


@pytest.mark.browser
@pytest.mark.parametrize("markup", ["state", "tiles", "legacy"])
def test_a_browser_collects_exactly_what_the_server_holds(server, tmp_path, chromium, markup):
    server.world.markup = markup
    command = arguments(server, tmp_path, "--name_results", 30, "--similar_to", 3, "--similar_results", 10)
    done = run_script(SCRIPT, *command)
    assert done.stdout.splitlines()[-1].startswith("collected 300 photographs of 5 classes")
    held = expected(server)
    rows = read_table(tmp_path / "collected/found.csv")
    assert sorted((row["class"], row["url"]) for row in rows) == sorted(
        (name, server.photo(one)) for name in NAMES for one in held[name])
    assert {row["status"] for row in rows} == {"saved"} and {row["source"] for row in rows} == {"yandex"}
    assert sum(row["kind"] == "similar" for row in rows) == 150
    assert all(row["parent"] == server.photo(urlsplit(row["url"]).path[7:].split("~")[0])
               for row in rows if row["kind"] == "similar")
    assert snapshot(tmp_path / "collected/images") == {
        f"{name}/{sha256(data)[:16]}.jpg": data for name in NAMES for one in held[name]
        for data in [jpeg(f"/photo/{one}.jpg")]}
    assert sorted(server.asked("/photo")) == sorted(f"/photo/{one}.jpg" for name in NAMES for one in held[name])
    searches = server.asked("/images/search")
    assert len(searches) == len(set(searches)) == 5 * (1 + 3)
    run_script(SCRIPT, *command)
    assert server.asked("/images/search") == searches and len(server.asked("/photo")) == 300


@pytest.mark.browser
@pytest.mark.parametrize("markup", ["state", "tiles", "legacy"])
@pytest.mark.parametrize("turns_pages", [True, False])
def test_all_pages_are_read_by_number_or_by_scrolling(server, yandex, markup, turns_pages):
    server.world.markup, server.world.turns_pages, server.world.by_name = markup, turns_pages, 100
    everything = [server.photo(f"rosa_canina-{number}") for number in range(100)]
    source = yandex(page_seconds=3)
    assert [one["url"] for one in islice(source.search("Rosa canina"), 70)] == everything[:70]
    assert [one["url"] for one in source.search("Rosa canina")] == everything


@pytest.mark.browser
def test_similar_results_beyond_the_overview_and_with_filters_come_from_the_grid(server, yandex):
    server.world.by_image = 100
    row = {"url": server.photo("rose"), "fallbacks": ""}
    everything = [server.photo(f"rose~{number}") for number in range(100)]
    assert [one["url"] for one in islice(yandex().similar(row), 40)] == everything[:40]
    assert [one["url"] for one in islice(yandex().similar(row), 90)] == everything[:90]
    filtered = yandex(filters={"isize": "large", "iorient": ""})
    assert [one["url"] for one in islice(filtered.similar(row), 50)] == everything[:50]
    assert "cbir_page=similar&isize=large&p=1" in server.asked("/images")[-1]
    assert filtered.terms == {"isize": "large"}
    server.world.by_image = 0
    assert list(islice(yandex(page_seconds=2).similar(row), 40)) == []


@pytest.mark.browser
def test_a_captcha_stops_the_source_politely_and_the_next_run_goes_on(server, tmp_path, chromium):
    server.world.captcha_after = 7
    command = arguments(server, tmp_path, "--name_results", 30, "--similar_to", 3, "--similar_results", 10)
    done = run_script(SCRIPT, *command, status=1)
    assert "yandex stopped at Typha latifolia: captcha" in done.stderr
    assert len(server.asked("/showcaptcha")) == 1 and not server.asked("/checkcaptcha")
    rows = read_table(tmp_path / "collected/found.csv")
    assert {row["status"] for row in rows} == {"saved"} and len(rows) == 60 + 50
    server.world.captcha_after = None
    run_script(SCRIPT, *command)
    assert len(read_table(tmp_path / "collected/found.csv")) == 300
    assert len(server.asked("/photo")) == 300


@pytest.mark.browser
def test_a_captcha_solved_in_the_window_lets_the_search_go_on(server, yandex, capsys):
    server.world.captcha_after, server.world.captcha_solves = 0, True
    assert len(list(islice(yandex(captcha_seconds=20).search("Rosa canina"), 30))) == 30
    assert "captcha: please solve it" in capsys.readouterr().out and len(server.asked("/checkcaptcha")) == 1
    server.world.captcha_after, server.world.captcha_solves, server.world.answers = 0, False, 0
    with pytest.raises(SourceStopped, match="captcha: not solved within 2 s"):
        list(islice(yandex(captcha_seconds=2).search("Rosa canina"), 30))


@pytest.mark.browser
def test_a_consent_banner_is_answered_once(server, yandex, capsys):
    server.world.consent, server.world.by_name, server.world.turns_pages = True, 70, False
    source = yandex(page_seconds=20)
    assert len(list(islice(source.search("Rosa canina"), 70))) == 70  # the button "more" lay under the banner
    assert source.driver.get_cookie("consent")["value"] == "1"
    assert capsys.readouterr().out.count("consent: the banner of Yandex is answered") == 1


@pytest.mark.browser
def test_nothing_found_changed_markup_and_network_errors_have_names(server, yandex, tmp_path):
    server.world.unknown = {"Nulla"}
    source = yandex(page_seconds=3)
    assert list(source.search("Nulla")) == []
    server.world.markup = "broken"
    with pytest.raises(SearchFailed, match="changed markup: no results"):
        list(islice(source.search("Rosa canina"), 30))
    saved, = (tmp_path / "changed_markup").iterdir()
    assert "NewList" in saved.read_text("utf-8") and "text=Rosa" in saved.read_text("utf-8")
    server.world.markup, server.world.links = "state", False
    server.world.by_name, server.world.turns_pages = 70, False
    with pytest.raises(SearchFailed, match="changed markup: no results"):
        list(source.search("Rosa canina"))  # scrolled: the state is that of the first tiles
    server.world.links, server.world.turns_pages, server.world.failing = True, True, 1
    assert len(list(islice(source.search("Rosa canina"), 30))) == 30  # asked again
    server.world.failing = 9
    with pytest.raises(SearchFailed, match="network error: HTTP 503"):
        list(islice(source.search("Rosa canina"), 30))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for port, reason in ((closed.getsockname()[1], "ERR_CONNECTION_REFUSED"), (9, "the browser cannot show it")):
            nowhere = yandex(url=f"http://127.0.0.1:{port}/images/search", page_seconds=3)
            with pytest.raises(SearchFailed, match=f"network error: .*{reason}"):
                list(islice(nowhere.search("Rosa canina"), 30))


def end_browser(source):
    """Kill the browser of a source, but not its driver."""
    threads = Path(f"/proc/{source.driver.service.process.pid}/task").glob("*/children")
    children = [int(child) for thread in threads for child in thread.read_text("utf-8").split()]
    assert children
    for child in children:
        os.kill(child, signal.SIGKILL)


@pytest.mark.browser
def test_a_browser_that_dies_is_opened_again_and_one_that_does_not_start_is_said(server, yandex):
    source = yandex(page_seconds=5)
    assert len(list(islice(source.search("Rosa canina"), 30))) == 30
    end_browser(source)
    assert len(list(islice(source.search("Typha latifolia"), 30))) == 30

    server.world.by_name, server.world.turns_pages = 100, False
    results = source.search("Rosa canina")
    assert len(list(islice(results, 31))) == 31
    end_browser(source)
    with pytest.raises(SearchFailed, match="the browser failed while scrolling"):
        list(results)

    def none():
        return open_browser("chromium", ("--no-sandbox", "--user-data-dir=/proc/none"), True, "")
    with pytest.raises(SourceStopped, match="does not start: .*--browser .*chromium.*--grid_url"):
        list(islice(yandex(open_browser=none).search("Rosa canina"), 30))


@pytest.mark.browser
def test_a_fallback_is_taken_where_the_original_is_gone(server, tmp_path, chromium):
    server.world.originals = False
    run_script(SCRIPT, *arguments(server, tmp_path, "--classes", "Rosa canina", "--similar_to", 0))
    rows = read_table(tmp_path / "collected/found.csv")
    assert len(rows) == 30 and {row["status"] for row in rows} == {"saved"}
    assert all(row["reason"] == f"from fallback {server.url}/photo/rosa_canina-{int(row['rank']) - 1}.jpg?copy"
               for row in rows)
