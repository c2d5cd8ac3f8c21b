"""iNaturalist and GBIF: the photographs a search yields; how names and licences are read."""
import json
import time
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import pytest

from dataset_preparation.parsing.gbif import Gbif
from dataset_preparation.parsing.rest_api import ATTEMPTS, REPEATED
from dataset_preparation.parsing.scientific_names import bare_name
from dataset_preparation.parsing.source_settings import read_area
from dataset_preparation.parsing.sources import SearchFailed, UnknownName
from tests.collecting_runs import gbif, inaturalist, local_web, match, options, results_of, taxon
from tests.collecting_server import observation, occurrence
from tests.conftest import ROOT, shared
from utils import InputError, read_classes

# ---- iNaturalist ----

def test_inaturalist_gives_every_allowed_photograph_once_past_a_page(server):
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    server.world.observations = [
        observation(server, number, rose, ("cc-by", None, "cc-by-nd", "cc0", "cc0"))
        for number in range(1, 452)]
    results = results_of(inaturalist(server).search("Rosa canina"))
    by_url = {result["url"]: result for result in results}
    assert len(results) == 902 and set(by_url) == {
        f"{server.url}/photo/{number}-{index}/medium.jpg"
        for number in range(1, 452) for index in (0, 3)}
    assert by_url[f"{server.url}/photo/2-0/medium.jpg"] == {
        "url": f"{server.url}/photo/2-0/medium.jpg", "license": "cc-by",
        "page": "https://www.inaturalist.org/observations/2", "title": "Rosa canina",
        "author": "Anna Botanist", "width": 64, "height": 48, "observation": 2,
        "observer": "user2", "date": "2020-05-17", "latitude": 45.0, "longitude": 34.0,
        "obscured": ""}
    assert by_url[f"{server.url}/photo/1-0/medium.jpg"]["author"] == "user1"
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


def test_inaturalist_knows_a_name_in_all_its_spellings(server):
    known = {"Mentha x piperita": taxon(1, "Mentha × piperita", "hybrid"),
             "Pinus nigra subsp. pallasiana": taxon(2, "Pinus nigra pallasiana", "subspecies"),
             "Rosa canina L.": taxon(3, "Rosa canina"), "Rosa L.": taxon(4, "Rosa", "genus"),
             "Rubus fruticosus agg.": taxon(5, "Rubus fruticosus", "complex"),
             "Prunus domestica L. subsp. insititia (L.) Bonnier & Layens":
                 taxon(6, "Prunus domestica insititia", "subspecies"),
             "Rosa vetus subsp. alba L.": taxon(7, "Rosa nova", matched_term="Rosa vetus alba")}
    for is_bare in (False, True):  # found by the name as it is, or only without authors and ranks
        server.world.taxa = {bare_name(name) if is_bare else name: [one]
                             for name, one in known.items()}
        for name, one in known.items():
            source = inaturalist(server)
            assert source.find(name) == one["id"]
            assert source.note == ("synonym, searched as Rosa nova" if one["id"] == 7 else "")
    with pytest.raises(UnknownName):
        inaturalist(server).find("Rosa caninoides L.")
    plants = read_classes(ROOT / "data/crimean_plants.csv")
    names = [name for plant in plants for name in (plant.latin, *plant.also)]
    server.world.taxa = {bare_name(name): [taxon(number, bare_name(name))]
                         for number, name in enumerate(names, 1)}
    assert [inaturalist(server).find(name) for name in names] == list(range(1, len(names) + 1))


@pytest.mark.photos
def test_real_responses_of_inaturalist_are_read(server):
    captures = shared("knowledge") / "captures"
    page = json.loads((captures / "inat_v1_get_observations_page1.json").read_text("utf-8"))
    taxa = {"results": [page["results"][0]["taxon"]]}
    server.world.pages["/inat/taxa"] = (200, {}, json.dumps(taxa).encode())
    server.world.pages["/inat/observations"] = (200, {}, json.dumps(page).encode())
    results = results_of(inaturalist(server, kingdoms=("Insecta",)).search("Danaus plexippus"))
    assert results == [{
        "url": "https://static.inaturalist.org/photos/92152429/medium.jpg",
        "page": "https://www.inaturalist.org/observations/57754375", "title": "Danaus plexippus",
        "license": "cc-by-nc", "author": "samroom", "width": 1188, "height": 1188,
        "observation": 57754375, "observer": "samroom", "date": "2020-08-27",
        "latitude": 50.0949055, "longitude": -104.71929167, "obscured": ""}]
    record = json.loads((captures / "inat_v1_get_observation_2.json").read_text("utf-8"))
    record = record.get("results", [record])[0]
    results = list(inaturalist(server, size="large", per_observation=0).read(record, Counter()))
    assert [(result["author"], result["license"]) for result in results] == [
        ("Ken-ichi Ueda", "cc-by")]
    assert "/136458117/large.jpg" in results[0]["url"]


@pytest.mark.parametrize("odd", [
    {"user": None}, {"user": ["x"]}, {"id": None}, {"uri": 7}, {"taxon": 5}, {"observed_on": 5},
    {"geojson": {"coordinates": ["a", None]}}, {"geojson": 7}, {"obscured": None}])
def test_what_a_record_of_inaturalist_lacks_costs_no_photograph_and_is_left_empty(server, odd):
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    records = [observation(server, number, rose) for number in (1, 2, 3)]
    records[1] |= odd
    page = {"total_results": 3, "results": records}
    server.world.pages["/inat/observations"] = (200, {}, json.dumps(page).encode())
    results = results_of(inaturalist(server).search("Rosa canina"))
    assert len(results) == 3
    assert not any(value is None or value == "a" for result in results
                   for value in result.values())


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
    by_url = {result["url"]: result for result in results}
    assert len(results) == 450 and set(by_url) == {
        server.photo(f"gbif{number}") for number in range(900) if number % 6 in (0, 1, 5)}
    assert [by_url[server.photo(f"gbif{number}")]["license"] for number in (0, 1, 5)] == [
        "cc-by-nc-4.0", "cc-by-4.0", "cc0"]
    first = by_url[server.photo("gbif0")]
    assert first["author"] == "B. Collector"
    assert first["page"] == "https://www.inaturalist.org/photos/0"
    assert len(server.requested("/gbif/occurrence/search")) == 3
    geometry = gbif(server, area=(32.4, 44.3, 36.7, 46.3)).filters["geometry"]
    assert geometry == "POLYGON((32.4 44.3,36.7 44.3,36.7 46.3,32.4 46.3,32.4 44.3))"


def test_gbif_reads_names_at_their_rank_in_their_kingdom(server):
    server.world.matches = {
        ("Amanita muscaria", "Fungi"): match(21, "Amanita muscaria", kingdom="Fungi"),
        ("Amanita muscaria", "Plantae"): match(6, "Plantae", "KINGDOM", "HIGHERRANK"),
        ("Typha", "Plantae"): match(22, "Typha", "GENUS"),
        ("Typha Tourn. ex L.", "Plantae"): match(27, "Typha", "GENUS"),
        ("Pinus nigra subsp. pallasiana", "Plantae"): match(
            28, "Pinus nigra pallasiana", "SUBSPECIES"),
        ("Rosa vetus", "Plantae"): match(23, "Rosa vetus", accepted=(24, "Rosa nova")),
        ("Rosa canyna", "Plantae"): match(25, "Rosa canina", kind="VARIANT"),
        ("Rosa ignota", "Plantae"): match(26, "Rosa", "GENUS", "HIGHERRANK")}
    server.world.occurrences = [occurrence(server, key, key, "CC0")
                                for key in (21, 22, 24, 25, 26, 27, 28, 6)]
    source = gbif(server)
    for name, number, noted in (("Amanita muscaria", 21, ""), ("Typha", 22, ""),
                                ("Typha Tourn. ex L.", 27, ""),
                                ("Pinus nigra subsp. pallasiana", 28, ""),
                                ("Rosa canyna", 25, "Rosa canina"),
                                ("Rosa vetus", 24, "Rosa nova")):
        source.note = ""
        results = results_of(source.search(name))
        assert [result["url"] for result in results] == [server.photo(f"gbif{number}")]
        assert noted in source.note
        assert bool(noted) == bool(source.note)
    ranks = {parse_qs(path)["scientificName"][0]: parse_qs(path).get("taxonRank")
             for path in (urlsplit(path).query for path in server.requested("/gbif/species"))}
    assert ranks["Pinus nigra subsp. pallasiana"] is None and ranks["Rosa canyna"] == ["SPECIES"]
    with pytest.raises(UnknownName, match="genus Rosa"):
        results_of(source.search("Rosa ignota"))


def test_gbif_names_its_taxonomy_in_both_versions_of_its_interface(server):
    """A name of after 2023, in the form of an answer of 2025: short keys, the kingdom in a list."""
    answer = match("Q2M4", "Rosa nova")
    server.world.pages["/api/v2/species/match"] = (200, {}, json.dumps(answer).encode())
    page = {"results": [occurrence(server, 1, "Q2M4", "CC0")], "endOfRecords": True, "count": 1}
    server.world.pages["/api/v1/occurrence/search"] = (200, {}, json.dumps(page).encode())
    source = Gbif(local_web(), f"{server.url}/api/v1", options())
    assert len(results_of(source.search("Rosa nova"))) == 1
    asked = server.requested("/api")
    assert len(asked) == 3 and all("checklistKey=7ddf754f-d" in path for path in asked)
    assert "scientificName=Rosa+nova" in asked[0] and "taxonKey=Q2M4" in asked[2]
    assert source.terms["checklistKey"].startswith("7ddf754f")


def test_an_answer_of_gbif_that_is_no_match_is_shown(server):
    server.world.pages["/gbif/species/match"] = (200, {}, b'{"message": "use v3"}')
    with pytest.raises(SearchFailed, match="use v3"):
        results_of(gbif(server).search("Rosa vetus"))


def test_cultivated_plants_and_annotations_follow_the_settings(server):
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    server.world.occurrences = [
        occurrence(server, 1, 11, "CC0", reproductiveCondition="flowering"),
        occurrence(server, 2, 11, "CC0", reproductiveCondition="no evidence of flowering"),
        occurrence(server, 3, 11, "CC0", degreeOfEstablishment="cultivated"),
        occurrence(server, 4, 11, "CC0", basis="LIVING_SPECIMEN")]
    for changes, numbers in (({}, {1, 2}), ({"cultivated": "too"}, {1, 2, 3, 4}),
                             ({"cultivated": "only"}, {3, 4}), ({"phenology": "flowers"}, {1}),
                             ({"phenology": "none"}, {2})):
        results = results_of(gbif(server, **changes).search("Rosa canina"))
        assert {result["observation"] for result in results} == numbers, changes
    server.world.taxa["Rosa canina"] = [taxon(1, "Rosa canina")]
    source = inaturalist(server, phenology="flowers")
    assert (source.filters["term_id"], source.filters["term_value_id"]) == (12, 13)
    assert inaturalist(server, cultivated="only").filters["captive"] == "true"
    assert inaturalist(server).filters == {"quality_grade": "research", "captive": "false"}


# ---- every REST API ----

def test_areas_are_names_or_four_numbers_in_range():
    assert read_area("") is None
    assert read_area("Crimea")[0] == 32.4
    assert read_area("1,2,3,4") == (1, 2, 3, 4)
    for text in ("atlantis", "1,2,3", "3,2,1,4", "1,2,3,95"):
        with pytest.raises(InputError, match="AREA"):
            read_area(text)


def test_an_api_that_gives_one_page_for_every_question_is_asked_a_few_times(server):
    """It ignores the position: `offset` of GBIF, `id_above` and `id_below` of iNaturalist."""
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    records = [occurrence(server, number, 11, "CC0") for number in range(300)]
    for count in (900, 50_000):
        page = {"results": records, "endOfRecords": False, "count": count}
        server.world.pages["/gbif/occurrence/search"] = (200, {}, json.dumps(page).encode())
        pages = list(gbif(server).search("Rosa canina"))
        assert sum(len(page.results) for page in pages) == 300
        assert sum(page.passed_over.get(REPEATED, 0) for page in pages) > 0
    assert len(server.requested("/gbif/occurrence/search")) < 40
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    page = {"total_results": 50_000, "results": [
        observation(server, number, rose) for number in range(1, 201)]}
    server.world.pages["/inat/observations"] = (200, {}, json.dumps(page).encode())
    assert len(results_of(inaturalist(server).search("Rosa canina"))) == 200
    assert len(server.requested("/inat/observations")) < 40


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
