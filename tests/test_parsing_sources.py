"""iNaturalist and GBIF: which photographs a search yields, and how names and licences are read."""
import json
import time

import pytest

from dataset_preparation.parsing.gbif import normalise_license
from dataset_preparation.parsing.rest_api import ATTEMPTS, read_area
from dataset_preparation.parsing.sources import SearchFailed, UnknownName
from tests.collecting_runs import gbif, inaturalist, match, results_of, taxon
from tests.collecting_server import CollectingServer, observation, occurrence
from tests.conftest import shared
from utils import InputError


@pytest.fixture
def server():
    with CollectingServer() as running:
        yield running


# ---- iNaturalist ----

def test_inaturalist_gives_every_allowed_photograph_once_past_a_page(server):
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    server.world.observations = [
        observation(server, number, rose, ("cc-by", None, "cc-by-nd", "cc0", "cc0"))
        for number in range(1, 452)]
    results = results_of(inaturalist(server).search("Rosa canina"))
    assert [result["url"] for result in results] == [
        f"{server.url}/photo/{number}-{index}/medium.jpg?1598551272"
        for number in range(1, 452) for index in (0, 3)]
    assert results[2] == {
        "url": f"{server.url}/photo/2-0/medium.jpg?1598551272", "license": "cc-by",
        "page": "https://www.inaturalist.org/observations/2", "title": "Rosa canina",
        "author": "Anna Botanist", "width": 64, "height": 48}
    assert results[0]["author"] == "user1"
    assert len(server.requested("/inat/observations")) == 3
    assert len(results_of(inaturalist(server).search("Rosa canina"), 7)) == 7


def test_inaturalist_searches_inside_an_area_only(server):
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    server.world.observations = [observation(server, 1, rose, place=(34.0, 45.0)),
                                 observation(server, 2, rose, place=(2.0, 48.0))]
    source = inaturalist(server, area=read_area("crimea"))
    assert [result["page"][-1] for result in results_of(source.search("Rosa canina"))] == ["1"]
    assert source.terms["swlat"] == 44.3


def test_inaturalist_follows_renamed_taxa_and_refuses_other_ones(server):
    new = taxon(7, "Rosa nova")

    def inactive(number, name, accepted):
        return taxon(number, name, is_active=False, current_synonymous_taxon_ids=accepted)
    server.world.taxa = {
        "Rosa vetus": [inactive(5, "Rosa vetus", [7])],
        "Rosa duplex": [inactive(6, "Rosa duplex", [7, 8])],
        "Rosa synonyma": [taxon(7, "Rosa nova", matched_term="Rosa synonyma")],
        "Typha": [taxon(9, "Typha", "genus", iconic_taxon_name="Insecta")],
        "Rosa can": [taxon(1, "Rosa canina", matched_term="Rosa canina")]}
    server.world.observations = [observation(server, 1, new)]
    source = inaturalist(server)
    for name, noted in (("Rosa vetus", "taxon 7"), ("Rosa synonyma", "Rosa nova")):
        assert len(results_of(source.search(name))) == 1
        assert noted in source.note
    for name, reason in (("Rosa duplex", r"\[7, 8\]"), ("Typha", "iNaturalist"),
                         ("Rosa can", "Rosa canina"), ("Nulla", "iNaturalist")):
        with pytest.raises(UnknownName, match=reason):
            results_of(source.search(name))


@pytest.mark.photos
def test_real_responses_of_inaturalist_are_read(server):
    captures = shared("knowledge") / "captures"
    page = json.loads((captures / "inat_v1_get_observations_page1.json").read_text("utf-8"))
    taxa = {"results": [page["results"][0]["taxon"]]}
    server.world.pages["/inat/taxa"] = (200, {}, json.dumps(taxa).encode())
    server.world.pages["/inat/observations"] = (200, {}, json.dumps(page).encode())
    results = results_of(inaturalist(server, kingdoms=("Insecta",)).search("Danaus plexippus"))
    assert results == [{
        "url": "https://static.inaturalist.org/photos/92152429/medium.jpg?1598551272",
        "page": "https://www.inaturalist.org/observations/57754375", "title": "Danaus plexippus",
        "license": "cc-by-nc", "author": "samroom", "width": 1188, "height": 1188}]
    record = json.loads((captures / "inat_v1_get_observation_2.json").read_text("utf-8"))
    record = record.get("results", [record])[0]
    results = list(inaturalist(server, size="large", per_observation=0)._photos(record, {}))
    assert [(result["author"], result["license"]) for result in results] == [
        ("Ken-ichi Ueda", "cc-by")]
    assert "/136458117/large.jpg" in results[0]["url"]


# ---- GBIF ----

def test_gbif_gives_photographs_of_allowed_licences_and_no_herbarium_sheets(server):
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    texts = ["http://creativecommons.org/licenses/by-nc/4.0/", "CC BY 4.0", None,
             "All rights reserved", "http://creativecommons.org/licenses/by-nd/4.0/",
             "http://creativecommons.org/publicdomain/zero/1.0/"]
    server.world.occurrences = [occurrence(server, number, 11, texts[number % 6])
                                for number in range(900)]
    server.world.occurrences.append(
        occurrence(server, 900, 11, "CC0", basis="PRESERVED_SPECIMEN"))
    results = results_of(gbif(server).search("Rosa canina"))
    assert [result["url"] for result in results] == [
        server.photo(f"gbif{number}") for number in range(900) if number % 6 in (0, 1, 5)]
    assert [result["license"] for result in results[:3]] == ["cc-by-nc-4.0", "cc-by-4.0", "cc0"]
    assert results[0]["author"] == "B. Collector"
    assert results[0]["page"] == "https://www.inaturalist.org/photos/0"
    assert len(server.requested("/gbif/occurrence/search")) == 3
    assert len(results_of(gbif(server, herbarium=True).search("Rosa canina"))) == 451
    geometry = gbif(server, area=(32.4, 44.3, 36.7, 46.3)).filters["geometry"]
    assert geometry == "POLYGON((32.4 44.3,36.7 44.3,36.7 46.3,32.4 46.3,32.4 44.3))"


def test_gbif_reads_names_at_their_rank_in_their_kingdom(server):
    server.world.matches = {
        ("Amanita muscaria", "Fungi"): match(21, "Amanita muscaria", kingdom="Fungi"),
        ("Amanita muscaria", "Plantae"): match(6, "Plantae", "KINGDOM", "HIGHERRANK"),
        ("Typha", "Plantae"): match(22, "Typha", "GENUS"),
        ("Rosa vetus", "Plantae"): match(23, "Rosa vetus", acceptedUsageKey=24, synonym=True,
                                         species="Rosa nova"),
        ("Rosa canyna", "Plantae"): match(25, "Rosa canina", kind="FUZZY"),
        ("Rosa ignota", "Plantae"): match(26, "Rosa", "GENUS", "HIGHERRANK")}
    server.world.occurrences = [occurrence(server, key, key, "CC0")
                                for key in (21, 22, 24, 25, 26, 6)]
    source = gbif(server)
    for name, number, noted in (("Amanita muscaria", 21, ""), ("Typha", 22, ""),
                                ("Rosa canyna", 25, "Rosa canina"),
                                ("Rosa vetus", 24, "Rosa nova")):
        source.note = ""
        results = results_of(source.search(name))
        assert [result["url"] for result in results] == [server.photo(f"gbif{number}")]
        assert noted in source.note
        assert bool(noted) == bool(source.note)
    with pytest.raises(UnknownName, match="genus Rosa"):
        results_of(source.search("Rosa ignota"))


@pytest.mark.parametrize(("text", "code"), [
    ("http://creativecommons.org/licenses/by-nc/4.0/legalcode", "cc-by-nc-4.0"),
    ("https://creativecommons.org/licenses/by-sa/3.0/deed.de", "cc-by-sa-3.0"),
    ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
    ("http://creativecommons.org/publicdomain/mark/1.0/", "pd"),
    ("Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)", "cc-by-nc-4.0"),
    ("Creative Commons Attribution Share Alike", "cc-by-sa"),
    ("CC_BY_4_0", "cc-by"), ("cc-by-nc-nd", "cc-by-nc-nd"), ("CC0_1_0", "cc0"),
    ("Public Domain", "pd"), ("CC", ""), (None, ""), ("© all rights reserved", ""),
    ("CC BY; all rights reserved", ""), ("see http://example.org/by-nc", "")])
def test_licences_are_read_from_what_publishers_write(text, code):
    assert normalise_license(text) == code


# ---- every REST API ----

def test_areas():
    assert read_area("") is None
    assert read_area("Crimea")[0] == 32.4
    assert read_area("1,2,3,4") == (1, 2, 3, 4)
    for text in ("atlantis", "1,2,3", "3,2,1,4", "1,2,3,95"):
        with pytest.raises(InputError, match="AREA"):
            read_area(text)


def test_retry_after_counts_from_the_end_of_the_response(server):
    times, respond = [], server.server.RequestHandlerClass.do_GET

    def busy(self):
        times.append(time.monotonic())
        if len(times) == 1:
            time.sleep(1)
            self.send(429, {"Retry-After": "2"}, b"")
        else:
            respond(self)
    server.server.RequestHandlerClass.do_GET = busy
    server.world.taxa = {"Rosa canina": [taxon(1, "Rosa canina")]}
    assert results_of(inaturalist(server).search("Rosa canina")) == []
    assert times[1] - times[0] >= 2.9


def test_a_failing_rest_api_is_asked_a_few_times_a_refusing_one_once(server):
    server.world.pages["/inat/taxa"] = (503, {}, b"")
    with pytest.raises(SearchFailed, match="503"):
        results_of(inaturalist(server).search("Rosa canina"))
    assert len(server.requested("/inat/taxa")) == ATTEMPTS
    server.world.pages["/inat/taxa"] = (429, {"Retry-After": "86400"}, b"")
    with pytest.raises(SearchFailed, match="1,440 minutes"):
        results_of(inaturalist(server).search("Rosa canina"))
    server.world.pages["/inat/taxa"] = (404, {}, b"")
    with pytest.raises(SearchFailed, match="404"):
        results_of(inaturalist(server).search("Rosa canina"))
    assert len(server.requested("/inat/taxa")) == ATTEMPTS + 2
