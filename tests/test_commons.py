"""Wikimedia Commons: files of a category and below it, licences, authors, addresses, etiquette."""
import pytest

from dataset_preparation.parsing.commons import Commons as Source
from dataset_preparation.parsing.rest_api import REPEATED
from dataset_preparation.parsing.sources import SearchFailed, UnknownName
from tests.collecting_commons import Commons, file_page
from tests.collecting_runs import SCRIPT, arguments, local_web, options, results_of
from tests.collecting_server import CollectingServer
from tests.conftest import run_script, write_classes
from utils import read_table

ALLOWED = ("cc0", "pd", "cc-by", "cc-by-sa")


@pytest.fixture
def server():
    with CollectingServer() as running:
        running.commons = Commons(running)
        yield running


def source(server, kind="category", **changes):
    return Source(local_web(), f"{server.url}/w", options(licenses=ALLOWED, **changes), kind)


def test_a_category_is_collected_with_author_licence_and_thumbnail(server, tmp_path):
    write_classes(tmp_path / "classes.csv", ["Rosa canina", "Rosa ignota"])
    server.commons.categories = {
        "Category:Rosa canina": [
            *(file_page(server, number) for number in range(60)),
            {"pageid": 900, "ns": 14, "title": "Category:Rosa canina (flowers)"},
            {"pageid": 901, "ns": 14, "title": "Category:Rosa canina in Crimea"}],
        "Category:Rosa canina (flowers)": [file_page(server, 70), file_page(server, 1),
            {"pageid": 902, "ns": 14, "title": "Category:Deeper"}],
        "Category:Rosa canina in Crimea": [file_page(server, 80, "cc0")]}
    done = run_script(SCRIPT, *arguments(
        server, tmp_path, "--source", "commons", "--commons_url", f"{server.url}/w",
        "--contact", "me@x.example"))
    rows = read_table(tmp_path / "collected/found.csv")
    assert len(rows) == 62 and {row["status"] for row in rows} == {"saved"}
    row = next(row for row in rows if "Rosa_7.jpg" in row["url"])
    assert row["url"].endswith("/thumb/a/ab/Rosa_7.jpg/500px-Rosa_7.jpg")
    assert row["fallbacks"].endswith("/commons/a/ab/Rosa_7.jpg")
    assert (row["license"], row["author"], row["date"]) == (
        "cc-by-sa-4.0", "U7 & Co", "2007-08-11")
    assert row["page"] == "https://commons.wikimedia.org/wiki/File:Rosa_7.jpg"
    assert (row["latitude"], row["longitude"], row["title"]) == ("44.5", "34.1", "Rosa 7")
    assert "has no category of this name" in done.stderr
    assert "62 cc-by-sa" not in (tmp_path / "collected/CITATIONS.md").read_text("utf-8")
    assert "Wikimedia Commons" in (tmp_path / "collected/CITATIONS.md").read_text("utf-8")
    assert all("me@x.example" in agent for agent in server.commons.agents)
    assert all(params["maxlag"] == "5" for params in server.commons.params)
    assert len(server.requested("/w/api.php")) == 1 + 1 + 4  # names, and pages of files


def test_other_licences_and_drawings_are_passed_over_and_counted(server):
    server.commons.categories["Category:Rosa canina"] = [
        file_page(server, 1), file_page(server, 2, "gfdl"), file_page(server, 3, "none"),
        file_page(server, 4, mime="image/svg+xml"), file_page(server, 5, NonFree="true"),
        file_page(server, 6, LicenseShortName="CC BY-NC 2.0"), {"ns": 6, "title": "File:X.jpg"},
        {"ns": 6, "title": "File:Y.jpg", "imageinfo": [None]}]
    pages = list(source(server).search("Rosa canina"))
    assert [result["title"] for page in pages for result in page.results] == ["Rosa 1"]
    passed_over = pages[0].passed_over
    assert passed_over["no licence"] == 2 and passed_over["licence not understood"] == 1
    assert passed_over["not a photograph: image/svg+xml"] == 1
    assert passed_over["licence not wanted: cc-by-nc-sa"] == 1  # the strictest of what is stated


def test_originals_are_taken_on_request_or_if_the_thumbnail_is_too_small(server):
    server.commons.categories["Category:Rosa canina"] = [
        file_page(server, 1, size=(4000, 1500)), file_page(server, 2, size=(450, 400))]
    urls = [result["url"] for result in results_of(source(server).search("Rosa canina"))]
    assert all("/thumb/" not in url for url in urls) and len(urls) == 2
    server.commons.categories["Category:Rosa canina"] = [file_page(server, 3)]
    result, = results_of(source(server, size="original").search("Rosa canina"))
    assert "/thumb/" not in result["url"] and "/thumb/" in result["fallbacks"]


def test_only_a_category_search_needs_a_category(server):
    server.commons.texts['"Rosa canina" filetype:bitmap'] = [
        file_page(server, number) for number in range(120)]
    assert len(results_of(source(server, "text").search("Rosa canina"))) == 120
    with pytest.raises(UnknownName, match="no category"):
        results_of(source(server).search("Rosa canina"))


@pytest.mark.parametrize(("name", "category"), [
    ("Mentha x piperita", "Mentha × piperita"), ("Mentha × piperita L.", "Mentha x piperita"),
    ("Pinus nigra subsp. pallasiana (Lamb.) Holmboe", "Pinus nigra subsp. pallasiana"),
    ("Pinus nigra pallasiana", "Pinus nigra subsp. pallasiana"), ("Rosa canina L.", "Rosa canina")])
def test_a_category_is_found_by_all_spellings_of_a_name(server, name, category):
    server.commons.categories[f"Category:{category}"] = [file_page(server, 1)]
    asked = source(server)
    assert len(results_of(asked.search(name))) == 1 and category in asked.note
    assert len(server.requested("/w/api.php")) == 2
    server.commons.texts['"Rosa canina" filetype:bitmap'] = [file_page(server, 2)]
    assert len(results_of(source(server, "text").search("Rosa canina L."))) == 1


def test_a_lagging_site_is_retried_and_its_error_is_shown(server, monkeypatch):
    monkeypatch.setattr("dataset_preparation.parsing.commons.MAX_LAG", 1)
    server.commons.categories["Category:Rosa canina"] = [file_page(server, 1)]
    server.commons.busy = 2
    assert len(results_of(source(server).search("Rosa canina"))) == 1
    server.commons.respond = lambda params: {"error": {"code": "invalid", "info": "Bad title"}}
    with pytest.raises(SearchFailed, match="Bad title"):
        results_of(source(server).search("Rosa canina"))


@pytest.mark.parametrize(("count", "own", "constant"), [(20, True, False), (20, False, True),
                                                       (60, True, True)])
def test_a_list_without_end_is_read_once_and_the_next_name_is_asked(
        server, tmp_path, count, own, constant):
    """A category that lists itself as its subcategory; an answer that always continues."""
    files = [file_page(server, number) for number in range(count)]
    itself = {"pageid": 900, "ns": 14, "title": "Category:Rosa canina"}
    server.commons.categories = {"Category:Rosa canina": files + [itself] * own,
                                 "Category:Typha latifolia": [file_page(server, 100)]}
    inner = server.commons.respond

    def respond(params):
        answer = inner(params)
        if constant and params.get("gcmtitle") == "Category:Rosa canina":
            answer["continue"] = {"gcmcontinue": "0", "continue": "gcmcontinue||"}
        assert len(server.commons.params) < 30  # or it would never end
        return answer
    server.commons.respond = respond
    write_classes(tmp_path / "classes.csv", ["Rosa canina", "Typha latifolia"])
    run_script(SCRIPT, *arguments(server, tmp_path, "--source", "commons", "--commons_url",
                                  f"{server.url}/w", "--contact", "me@x.example"))
    searches = {row["class"]: row for row in read_table(tmp_path / "collected/searches.csv")}
    assert searches["Rosa canina"]["answer"] == searches["Typha latifolia"]["answer"] == "all"
    assert searches["Rosa canina"]["results"] == str(count if not constant else min(count, 50))
    assert (f'"{REPEATED}": 1' in searches["Rosa canina"]["passed_over"]) == constant
