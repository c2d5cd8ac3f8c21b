"""Licences end to end: refused before the first question, held on every run, credited, cited."""
import pytest

from dataset_preparation.parsing.addresses import identity
from dataset_preparation.parsing.collected_tables import Tables, read_found
from dataset_preparation.parsing.license_filter import SET_ASIDE
from tests.collecting_runs import SCRIPT, arguments, flora, found_row, match, taxon
from tests.collecting_server import jpeg, observation, occurrence
from tests.conftest import run_script, write_classes
from utils import read_table


@pytest.fixture
def gbif_run(server, tmp_path):
    """Return a function that collects two photographs of cc0 and two of cc-by-nc from GBIF."""
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    server.world.occurrences = [
        occurrence(server, number, 11, ("CC0", "CC BY-NC 4.0")[number % 2], datasetKey=key)
        for number, key in enumerate(("d1", "d2", "d1", "d2"))]

    def collect(*more):
        return run_script(SCRIPT, *arguments(server, tmp_path, "--source", "gbif", *more))
    return collect


def photographs(folder):
    return sorted(path.name for path in (folder / "images").rglob("*.jpg"))


def test_the_allow_list_holds_for_what_was_collected_before_and_nothing_is_lost(
        gbif_run, server, tmp_path):
    folder = tmp_path / "collected"
    assert "collected 4 photographs" in gbif_run().stdout
    before, requests = photographs(folder), len(server.requested("/photo"))
    done = gbif_run("--licenses", "('cc0',)")
    assert "collected 2 photographs" in done.stdout
    assert "2 set aside: licence (2 cc-by-nc-4.0)" in done.stdout
    assert len(photographs(folder)) == len(read_table(folder / "ATTRIBUTION.csv")) == 2
    rows = read_table(folder / "found.csv")
    assert [row["status"] for row in rows if "nc" in row["license"]] == [SET_ASIDE] * 2
    assert "collected 4 photographs" in gbif_run().stdout
    assert photographs(folder) == before
    assert len(server.requested("/photo")) == requests  # nothing was downloaded again


def test_the_strictest_licence_of_one_picture_counts(server, tmp_path):
    """The same bytes at two addresses, as cc0 and as cc-by-nc."""
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    server.world.occurrences = [occurrence(server, number, 11, text)
                                for number, text in enumerate(("CC0", "CC BY-NC"))]
    for record in server.world.occurrences:
        path = f"/same/{record['key']}.jpg"
        record["media"][0]["identifier"] = server.url + path
        server.world.pages[path] = (200, {}, jpeg("same"))
    command = arguments(server, tmp_path, "--source", "gbif")
    run_script(SCRIPT, *command)
    assert [row["license"] for row in read_table(tmp_path / "collected/ATTRIBUTION.csv")] == [
        "cc-by-nc"]
    done = run_script(SCRIPT, *command, "--licenses", "('cc0',)")
    assert "collected 0 photographs" in done.stdout and "1 set aside: licence" in done.stdout


@pytest.mark.parametrize(("flags", "named"), [
    (("--licenses", "('cc0',)", "--source", "yandex"), "licenses"),
    (("--area", "crimea", "--source", "yandex"), "area"),
    (("--commons_search", "text", "--source", "gbif"), "commons_search"),
    (("--similar_to", 5, "--source", "inaturalist"), "similar_to"),
    (("--phenology", "flowers", "--source", "yandex"), "phenology"),
    (("--image_search_site", "x.example", "--source", "gbif"), "image_search_site")])
def test_a_setting_that_no_source_follows_ends_the_run_before_the_first_question(
        server, tmp_path, flags, named):
    flora(server, tmp_path)
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--yandex_url", f"{server.url}/images",
                                         *flags), status=1)
    assert f"--{named}" in done.stderr
    assert not server.log and not (tmp_path / "collected").exists()


def test_a_setting_that_one_of_the_sources_ignores_is_named(server, tmp_path):
    flora(server, tmp_path)
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist,commons",
                                         "--commons_url", f"{server.url}/w", "--area", "crimea"),
                      status=1)  # the server has no Commons
    assert "--area crimea: commons cannot follow it" in done.stderr


def test_datasets_and_licences_are_cited(gbif_run, tmp_path):
    gbif_run()
    folder = tmp_path / "collected"
    assert read_table(folder / "gbif_datasets.csv") == [
        {"datasetKey": "d1", "count": "2"}, {"datasetKey": "d2", "count": "2"}]
    text = (folder / "CITATIONS.md").read_text("utf-8")
    for part in ("derived-dataset", "gbif.org/dataset/d1>: 2", "2 cc0", "2 cc-by-nc-4.0"):
        assert part in text


def test_a_publisher_is_credited_but_is_no_author(server, tmp_path):
    """Where GBIF has no creator: a rights holder that differs, else whom the licence demands."""
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    server.world.occurrences = [occurrence(server, number, 11, text) for number, text in enumerate(
        ("CC BY 4.0", "CC BY 4.0", "CC0", "CC BY 4.0"))]
    for record, facts in zip(server.world.occurrences, (
            {}, {"rightsHolder": "Museum"}, {}, {"rightsHolder": "A. Person"}), strict=True):
        media, = record["media"]
        del media["creator"], media["rightsHolder"]
        media |= {"publisher": "Museum", **facts,
                  "references": f"https://m.example/{record['key']}"}
        record["datasetKey"] = "d1"
    run_script(SCRIPT, *arguments(server, tmp_path, "--source", "gbif"))
    folder = tmp_path / "collected"
    rows = {row["page"][-1]: row for row in read_table(folder / "found.csv")}
    assert [(rows[i]["author"], rows[i]["rights_holder"]) for i in "0123"] == [
        ("", "Museum"), ("", "Museum"), ("", ""), ("A. Person", "")]
    credits = {row["page"][-1]: row["author"] for row in read_table(folder / "ATTRIBUTION.csv")}
    assert credits == {"0": "Museum", "1": "Museum", "2": "", "3": "A. Person"}


def test_what_was_passed_over_is_counted_by_reason(server, tmp_path):
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    texts = [None] * 5 + ["CC BY-ND"] * 4 + ["CC BY?"] * 3
    server.world.occurrences = [occurrence(server, number, 11, text)
                                for number, text in enumerate(texts)]
    server.world.occurrences.append(occurrence(server, 90, 11, "CC0",
                                               degreeOfEstablishment="cultivated"))
    run_script(SCRIPT, *arguments(server, tmp_path, "--source", "gbif"))
    row, = read_table(tmp_path / "collected/searches.csv")
    assert row["answer"] == "empty"
    for reason in ('"no licence": 5', '"licence not wanted: cc-by-nd": 4',
                   '"licence not understood": 3', '"cultivated": 1'):
        assert reason in row["passed_over"]


@pytest.mark.parametrize(("order", "reference"), [
    ("inaturalist,gbif", "observations/1"), ("gbif,inaturalist", "observations/1"),
    ("gbif,inaturalist", "photos/901")])
def test_one_photograph_of_two_sources_is_one_row(server, tmp_path, order, reference):
    """GBIF passes on what iNaturalist has: the same photograph, page, observation, size."""
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    server.world.taxa["Rosa canina"] = [taxon(1, "Rosa canina")]
    one = observation(server, 1, taxon(1, "Rosa canina"))
    one["photos"][0]["url"] = f"{server.url}/photos/901/square.jpg?1598551272"
    server.world.observations = [one]
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    two = occurrence(server, 501, 11, "CC BY-NC",
                     references=f"https://www.inaturalist.org/{reference}")
    two["media"][0].update(identifier=f"{server.url}/photos/901/original.jpg",
                           references="https://www.inaturalist.org/photos/901")
    server.world.occurrences = [two]
    server.world.pages["/photos/901/medium.jpg"] = (200, {}, jpeg("901"))
    run_script(SCRIPT, *arguments(server, tmp_path, "--source", order))
    row, = read_table(tmp_path / "collected/found.csv")
    assert (row["observation"], row["page"]) == ("1", "https://www.inaturalist.org/observations/1")
    assert server.requested("/photos/901") == ["/photos/901/medium.jpg"]


def test_what_a_second_source_knows_of_a_photograph_is_not_lost(tmp_path):
    """An image search, which states nothing, may find a photograph of iNaturalist first."""
    address = "https://static.inaturalist.org/photos/901"
    facts = {"author": "Anna", "license": "cc-by", "observer": "anna", "date": "2020-05-17",
             "latitude": "45.0", "longitude": "34.0", "observation": "7",
             "page": "https://www.inaturalist.org/observations/7"}
    tables = Tables(tmp_path)
    tables.add([{**found_row(f"{address}/large.jpg"), "page": "https://blog.example/"}])
    tables.add([{**found_row(f"{address}/medium.jpg"), "source": "inaturalist", **facts}])
    row, = tables.found.values()
    assert facts.items() <= row.items()
    tables.add([{**found_row(f"{address}/original.jpg"), "source": "gbif", **facts,
                 "license": "cc-by-nc", "author": "another"}])  # changed since
    assert (row["license"], row["author"]) == ("cc-by-nc", "Anna")
    tables.save()
    assert [one["license"] for one in read_found(tmp_path, ())] == ["cc-by-nc"]


def test_numbers_of_photographs_are_read_from_the_sites_addresses():
    same = [f"https://{host}/photos/92152429/{rest}" for host, rest in (
        ("static.inaturalist.org", "medium.jpg?1598551272"),
        ("inaturalist-open-data.s3.amazonaws.com", "original.jpeg"),
        ("inaturalist-open-data.s3.us-east-1.amazonaws.com", "large.jpg"))]
    assert {identity(address) for address in same} == {"inaturalist:92152429"}
    commons = "https://upload.wikimedia.org/wikipedia/commons/"
    assert identity(f"{commons}a/ab/Rosa.jpg") == "commons:Rosa.jpg"
    assert identity(f"{commons}thumb/a/ab/Rosa.jpg/500px-Rosa.jpg") == "commons:Rosa.jpg"
    assert identity("https://x.example/photos/1/a.jpg") == "https://x.example/photos/1/a.jpg"
