"""Collecting from iNaturalist and GBIF: what is searched, fetched, written down and remembered."""
import csv
import json
import threading
import time
from itertools import islice

import pytest

from dataset_preparation.parsing.gbif import Gbif, normalise_license
from dataset_preparation.parsing.inaturalist import INaturalist
from dataset_preparation.parsing.parsing import choose_classes
from dataset_preparation.parsing.parsing_utils import Downloads, Tables, UnknownName, now
from dataset_preparation.parsing.rest_api import read_area
from dataset_preparation.parsing.safe_download import Limits, Web, is_public, retry_after
from tests.collecting_server import CollectingServer, jpeg, observation, occurrence
from tests.conftest import run_script, shared, snapshot, write_classes
from utils import InputError, PlantClass, read_table, sha256

SCRIPT = "dataset_preparation/parsing/parsing.py"
LICENSES = ("cc0", "cc-by", "cc-by-nc")


@pytest.fixture
def server():
    with CollectingServer() as running:
        yield running


def taxon(number, name, rank="species", **more):
    """Return a taxon as `GET /v1/taxa` gives it."""
    return {"id": number, "name": name, "rank": rank, "is_active": True, "matched_term": name,
            "iconic_taxon_name": "Plantae", "current_synonymous_taxon_ids": None, **more}


def local_web(connections=4, **limits):
    values = {"connect_seconds": 5, "read_seconds": 5, "total_seconds": 20, "max_bytes": 1_000_000, **limits}
    return Web(Limits(**values), private_hosts=("127.0.0.1",), connections=connections)


def inaturalist(server, **changes):
    options = {"area": None, "place": 0, "licenses": LICENSES, "kingdoms": ("Plantae", "Fungi"), "size": "medium",
               "per_observation": 2, "delay": 0, **changes}
    return INaturalist(local_web(), f"{server.url}/inat", **options)


def gbif(server, **changes):
    options = {"area": None, "licenses": LICENSES, "kingdoms": ("Plantae", "Fungi"), "herbarium": False,
               "per_observation": 2, "delay": 0, **changes}
    return Gbif(local_web(), f"{server.url}/gbif", **options)


def arguments(server, folder, *more):
    """Return the arguments of a run against the server, without delays."""
    return ["--class_table", folder / "classes.csv", "--collected_dir", folder / "collected",
            "--inaturalist_url", f"{server.url}/inat", "--gbif_url", f"{server.url}/gbif", "--private_hosts",
            "('127.0.0.1',)", "--api_delay", 0, "--host_delay", 0, "--host_connections", 4, "--threads", 4, *more]


# ---- sources ----

def test_inaturalist_gives_every_allowed_photograph_once_past_a_page(server):
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    server.world.observations = [observation(server, number, rose, ("cc-by", None, "cc-by-nd", "cc0", "cc0"))
                                 for number in range(1, 452)]
    results = list(inaturalist(server).search("Rosa canina"))
    assert [one["url"] for one in results] == [
        f"{server.url}/photo/{number}-{place}/medium.jpg?1598551272" for number in range(1, 452) for place in (0, 3)]
    assert results[2] == {"url": f"{server.url}/photo/2-0/medium.jpg?1598551272", "license": "cc-by", "width": 64,
                          "page": "https://www.inaturalist.org/observations/2", "title": "Rosa canina",
                          "author": "Anna Botanist", "height": 48}
    assert results[0]["author"] == "user1"
    assert len(server.asked("/inat/observations")) == 3
    assert len(list(islice(inaturalist(server).search("Rosa canina"), 7))) == 7


def test_inaturalist_asks_inside_an_area_only(server):
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    server.world.observations = [observation(server, 1, rose, place=(34.0, 45.0)),
                                 observation(server, 2, rose, place=(2.0, 48.0))]
    source = inaturalist(server, area=read_area("crimea"))
    assert [one["page"][-1] for one in source.search("Rosa canina")] == ["1"]
    assert source.terms["swlat"] == 44.3


def test_inaturalist_follows_renamed_taxa_and_refuses_other_ones(server):
    new = taxon(7, "Rosa nova")
    server.world.taxa = {
        "Rosa vetus": [taxon(5, "Rosa vetus", is_active=False, current_synonymous_taxon_ids=[7])],
        "Rosa duplex": [taxon(6, "Rosa duplex", is_active=False, current_synonymous_taxon_ids=[7, 8])],
        "Rosa synonyma": [taxon(7, "Rosa nova", matched_term="Rosa synonyma")],
        "Typha": [taxon(9, "Typha", "genus", iconic_taxon_name="Insecta")],
        "Rosa can": [taxon(1, "Rosa canina", matched_term="Rosa canina")]}
    server.world.observations = [observation(server, 1, new)]
    source = inaturalist(server)
    assert len(list(source.search("Rosa vetus"))) == 1 and "renamed" in source.note
    assert len(list(source.search("Rosa synonyma"))) == 1 and "Rosa nova" in source.note
    for name, reason in (("Rosa duplex", "given up"), ("Typha", "does not know"), ("Rosa can", "offers Rosa canina"),
                         ("Nulla", "does not know")):
        with pytest.raises(UnknownName, match=reason):
            list(source.search(name))


def match(key, name, rank="SPECIES", kind="EXACT", kingdom="Plantae", **more):
    """Return a match as `GET /v1/species/match` gives it."""
    return {"usageKey": key, "canonicalName": name, "rank": rank, "status": "ACCEPTED", "confidence": 97,
            "matchType": kind, "kingdom": kingdom, "synonym": False, rank.lower(): name, **more}


def test_gbif_gives_photographs_of_allowed_licences_and_no_herbarium_sheets(server):
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    texts = ["http://creativecommons.org/licenses/by-nc/4.0/", "CC BY 4.0", None, "All rights reserved",
             "http://creativecommons.org/licenses/by-nd/4.0/", "http://creativecommons.org/publicdomain/zero/1.0/"]
    server.world.occurrences = [occurrence(server, number, 11, texts[number % 6]) for number in range(900)]
    server.world.occurrences.append(occurrence(server, 900, 11, "CC0", basis="PRESERVED_SPECIMEN"))
    results = list(gbif(server).search("Rosa canina"))
    assert [one["url"] for one in results] == [server.photo(f"gbif{n}") for n in range(900) if n % 6 in (0, 1, 5)]
    assert [one["license"] for one in results[:3]] == ["cc-by-nc-4.0", "cc-by-4.0", "cc0"]
    assert results[0]["author"] == "B. Collector" and results[0]["page"] == "https://www.inaturalist.org/photos/0"
    assert len(server.asked("/gbif/occurrence/search")) == 3
    assert len(list(gbif(server, herbarium=True).search("Rosa canina"))) == 451
    geometry = gbif(server, area=(32.4, 44.3, 36.7, 46.3)).filters["geometry"]
    assert geometry == "POLYGON((32.4 44.3,36.7 44.3,36.7 46.3,32.4 46.3,32.4 44.3))"


def test_gbif_reads_names_at_their_rank_in_their_kingdom(server):
    server.world.matches = {
        ("Amanita muscaria", "Fungi"): match(21, "Amanita muscaria", kingdom="Fungi"),
        ("Amanita muscaria", "Plantae"): match(6, "Plantae", "KINGDOM", "HIGHERRANK"),
        ("Typha", "Plantae"): match(22, "Typha", "GENUS"),
        ("Rosa vetus", "Plantae"): match(23, "Rosa vetus", acceptedUsageKey=24, synonym=True, species="Rosa nova"),
        ("Rosa canyna", "Plantae"): match(25, "Rosa canina", kind="FUZZY"),
        ("Rosa ignota", "Plantae"): match(26, "Rosa", "GENUS", "HIGHERRANK")}
    server.world.occurrences = [occurrence(server, key, key, "CC0") for key in (21, 22, 24, 25, 26, 6)]
    source = gbif(server)
    for name, number, note in (("Amanita muscaria", 21, ""), ("Typha", 22, ""), ("Rosa canyna", 25, "Rosa canina"),
                               ("Rosa vetus", 24, "synonym, searched as Rosa nova")):
        source.note = ""
        assert [one["url"] for one in source.search(name)] == [server.photo(f"gbif{number}")]
        assert note in source.note and bool(note) == bool(source.note)
    with pytest.raises(UnknownName, match="only the genus Rosa"):
        list(source.search("Rosa ignota"))


@pytest.mark.parametrize(("text", "code"), [
    ("http://creativecommons.org/licenses/by-nc/4.0/legalcode", "cc-by-nc-4.0"), ("CC_BY_4_0", "cc-by"),
    ("https://creativecommons.org/licenses/by-sa/3.0/deed.de", "cc-by-sa-3.0"), ("cc-by-nc-nd", "cc-by-nc-nd"),
    ("Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)", "cc-by-nc-4.0"), ("CC0_1_0", "cc0"),
    ("Creative Commons Attribution Share Alike", "cc-by-sa"), ("© all rights reserved", ""), (None, ""),
    ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"), ("Public Domain", "pd"), ("CC", ""),
    ("CC BY; all rights reserved", ""),
    ("http://creativecommons.org/publicdomain/mark/1.0/", "pd"), ("see http://example.org/by-nc", "")])
def test_licences_are_read_from_what_publishers_write(text, code):
    assert normalise_license(text) == code


def test_areas_and_parts_of_the_list():
    assert read_area("") is None and read_area("Crimea")[0] == 32.4 and read_area("1,2,3,4") == (1, 2, 3, 4)
    for text in ("atlantis", "1,2,3", "3,2,1,4", "1,2,3,95"):
        with pytest.raises(InputError, match="AREA"):
            read_area(text)
    names = "Rosa", "Typha", "Adiantum capillus-v"
    classes = [PlantClass(label, name, "", "", ()) for label, name in enumerate(names)]
    assert choose_classes(classes, "") == classes
    assert [one.label for one in choose_classes(classes, "2, rosa")] == [0, 2]
    assert [one.label for one in choose_classes(classes, "1-2")] == [1, 2]
    assert [one.label for one in choose_classes(classes, "adiantum capillus-v")] == [2]
    for text in ("Rosaa", "7", "Rosa,,Typha"):
        with pytest.raises(InputError, match="CLASSES"):
            choose_classes(classes, text)


@pytest.mark.photos
def test_real_answers_of_inaturalist_are_read(server):
    page = json.loads((shared("knowledge") / "captures/inat_v1_get_observations_page1.json").read_text("utf-8"))
    butterfly = page["results"][0]["taxon"]
    server.world.pages["/inat/taxa"] = (200, {}, json.dumps({"results": [butterfly]}).encode())
    server.world.pages["/inat/observations"] = (200, {}, json.dumps(page).encode())
    results = list(inaturalist(server, kingdoms=("Insecta",)).search("Danaus plexippus"))
    assert results == [{"url": "https://static.inaturalist.org/photos/92152429/medium.jpg?1598551272", "width": 1188,
                        "page": "https://www.inaturalist.org/observations/57754375", "title": "Danaus plexippus",
                        "license": "cc-by-nc", "author": "samroom", "height": 1188}]
    record = json.loads((shared("knowledge") / "captures/inat_v1_get_observation_2.json").read_text("utf-8"))
    record = record.get("results", [record])[0]
    results = list(inaturalist(server, size="large", per_observation=0)._photos(record))
    assert [(one["author"], one["license"]) for one in results] == [("Ken-ichi Ueda", "cc-by")]
    assert "/136458117/large.jpg" in results[0]["url"]


# ---- the script ----

def flora(server, folder, names=("Rosa canina", "Typha latifolia", "Amanita muscaria"), count=6):
    """Let the server know some plants and write their class table."""
    for number, name in enumerate(names, 1):
        server.world.taxa[name] = [taxon(number, name)]
        server.world.observations += [observation(server, 1000 * number + i, server.world.taxa[name][0])
                                      for i in range(count)]
    folder.mkdir(exist_ok=True)
    write_classes(folder / "classes.csv", names)


def test_a_run_collects_what_the_server_holds_and_a_second_asks_nothing(server, tmp_path):
    flora(server, tmp_path)
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    server.world.occurrences = [occurrence(server, number, 11, "CC BY 4.0") for number in range(4)]
    command = arguments(server, tmp_path, "--source", "inaturalist,gbif", "--name_results", 5)
    done = run_script(SCRIPT, *command)
    collected = tmp_path / "collected"
    assert done.stdout.splitlines()[-1] == f"collected 19 photographs of 3 classes: {collected / 'found.csv'}"
    rows = read_table(collected / "found.csv")
    assert [(row["class"], row["source"]) for row in rows] == sorted(
        [("Rosa canina", "gbif")] * 4 + [(name, "inaturalist") for name in server.world.taxa for _ in range(5)])
    photographs = snapshot(collected / "images")
    for row in rows:
        data = photographs[row["file"].removeprefix("images/")]
        assert row["status"] == "saved" and row["sha256"] == sha256(data) and row["width"] == "64"
        assert row["file"] == f"images/{row['class']}/{row['sha256'][:16]}.jpg"
        assert data == jpeg(row["url"].removeprefix(server.url).split("?")[0])
    assert len(photographs) == 19
    credits = read_table(collected / "ATTRIBUTION.csv")
    assert [row["file"] for row in credits] == sorted(row["file"] for row in rows)
    assert all(row["author"] and row["license"] and row["page"] and row["title"] for row in credits)
    searches = {(row["class"], row["source"]): (row["answer"].split(":")[0], row["results"])
                for row in read_table(collected / "searches.csv")}
    assert searches["Rosa canina", "gbif"] == ("all", "4") and searches["Typha latifolia", "gbif"] == ("unknown", "0")
    assert searches["Typha latifolia", "inaturalist"] == ("enough", "5")

    before, asked = snapshot(collected), len(server.log)
    run_script(SCRIPT, *command)
    assert snapshot(collected) == before and len(server.log) == asked
    assert not list(collected.glob("*.journal"))


def test_more_is_asked_for_when_more_is_wanted_and_what_is_missing_is_fetched(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Typha latifolia"))
    command = arguments(server, tmp_path, "--source", "inaturalist")
    run_script(SCRIPT, *command, "--name_results", 3, "--classes", "Typha latifolia")
    rows = read_table(tmp_path / "collected/found.csv")
    assert [row["class"] for row in rows] == ["Typha latifolia"] * 3
    lost = tmp_path / "collected" / rows[1]["file"]
    lost.unlink()
    asked = len(server.asked("/photo"))
    run_script(SCRIPT, *command, "--name_results", 6, "--classes", 0)
    assert len(server.asked("/photo")) == asked + 6  # the other class is left alone
    run_script(SCRIPT, *command, "--name_results", 6)
    assert lost.exists() and len(server.asked("/photo")) == asked + 6 + 3 + 1
    assert len(read_table(tmp_path / "collected/found.csv")) == 12


def test_synonyms_are_searched_when_a_name_yields_too_little(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Rosa altera", "Typha latifolia"), count=4)
    (tmp_path / "classes.csv").write_text("label,latin,russian,english,also\n0,Rosa canina,,,Rosa nulla;Rosa altera\n"
                                          "1,Typha latifolia,,,Rosa altera\n", "utf-8")
    run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist", "--synonym_below", 5,
                                  "--classes", "Rosa canina"))
    rows = read_table(tmp_path / "collected/found.csv")
    assert [row["kind"] for row in rows] == ["name"] * 4 + ["synonym"] * 4
    assert {row["class"] for row in rows} == {"Rosa canina"}
    for more in (("--synonym_below", 4), ("--synonym_below", 9, "--name_results", 3)):  # then more than are wanted
        run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist", "--classes", 1, *more))
        assert [row["kind"] for row in read_table(tmp_path / "collected/found.csv")[8:]] == ["name"] * 4


def test_other_sizes_and_more_photographs_of_a_plant_are_searched_anew(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina",))
    server.world.observations[0] = observation(server, 1000, server.world.taxa["Rosa canina"][0], ["cc0"] * 3)
    command = arguments(server, tmp_path, "--source", "inaturalist")
    for more, count in (((), 7), (("--photos_per_observation", 0), 8), (("--photo_size", "large"), 15)):
        run_script(SCRIPT, *command, *more)
        assert len(read_table(tmp_path / "collected/found.csv")) == count


def test_limits_on_photographs_are_none_on_answers(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina",))
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist", "--photo_mb", 0.0005))
    assert "collected 0 photographs" in done.stdout and "6 without a photograph: more than 0.0005 MB" in done.stdout


def test_a_source_that_does_not_answer_is_said_and_asked_again(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Typha latifolia"))
    server.world.pages["/inat/observations"] = (400, {}, b"no")
    command = arguments(server, tmp_path, "--source", "inaturalist")
    done = run_script(SCRIPT, *command, status=1)
    assert "HTTP 400" in done.stderr and "searches without an answer: 2" in done.stderr
    for answer, reason in ((b"<html>", "Expecting value"), (b'{"items": []}', "cannot read the answer")):
        server.world.pages["/inat/observations"] = (200, {}, answer)
        assert reason in run_script(SCRIPT, *command, status=1).stderr
    server.world.pages.clear()
    assert "collected 12 photographs" in run_script(SCRIPT, *command).stdout


def test_names_nobody_knows_are_answers_between_failures(server, tmp_path):
    flora(server, tmp_path)
    write_classes(tmp_path / "classes.csv", ["Rosa canina", "Nulla", "Typha latifolia", "Nullula", "Amanita muscaria"])
    server.world.pages["/inat/observations"] = (400, {}, b"no")
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert "searches without an answer: 3" in done.stderr and "stopped" not in done.stderr


@pytest.mark.parametrize(("flags", "message"), [
    (("--source", "flickr"), "SOURCE names 'flickr'"), (("--area", "atlantis"), "AREA is 'atlantis'"),
    (("--classes", "Rosa,9"), "CLASSES names 'Rosa'"), (("--photo_size", "huge"), "PHOTO_SIZE names 'huge'"),
    (("--licenses", "('CC-BY',)"), "LICENSES names 'CC-BY'"),
    (("--browser", "lynx", "--source", "inaturalist,yandex"), "BROWSER names 'lynx'")])
def test_settings_that_do_not_fit_are_said_before_anything_is_asked(server, tmp_path, flags, message):
    flora(server, tmp_path)
    command = arguments(server, tmp_path, "--source", "inaturalist", *flags)
    assert message in run_script(SCRIPT, *command, status=1).stderr
    assert not server.log and not (tmp_path / "collected").exists()


def test_an_answer_that_asks_to_wait_is_waited_for_from_its_end(server):
    taxa, times = [taxon(1, "Rosa canina")], []
    answer = server.server.RequestHandlerClass.do_GET

    def busy(self):
        times.append(time.monotonic())
        if len(times) == 1:
            time.sleep(1)
            self.send(429, {"Retry-After": "1"}, b"")
        else:
            answer(self)
    server.server.RequestHandlerClass.do_GET, server.world.taxa = busy, {"Rosa canina": taxa}
    assert list(inaturalist(server).search("Rosa canina")) == []
    assert times[1] - times[0] >= 1.9


# ---- downloads ----

def found_row(url, plant="Rosa canina", fallbacks=""):
    """Return a found row that has not been tried."""
    return {"class": plant, "source": "yandex", "query": "q", "kind": "name", "rank": "1", "parent": "", "url": url,
            "fallbacks": fallbacks, "page": "", "title": "", "author": "", "license": "", "width": "", "height": "",
            "status": "new", "reason": "", "sha256": "", "file": "", "time": now()}


def download(folder, rows, per_host=4, delay=0.0, attempts=2, budgets=(), threads=8, web=None):
    """Bring the photographs of rows and return the tables, saved."""
    tables = Tables(folder)
    downloads = Downloads(web or local_web(), tables, 40, threads, per_host, delay, attempts, budgets)
    try:
        downloads.add(tables.add(rows))
        downloads.wait(lambda: None)
    finally:
        downloads.stop()
        tables.save()
    return tables


def test_addresses_and_photographs_shared_by_rows_are_fetched_once(server, tmp_path):
    one, other, gone = server.photo("one"), server.photo("other"), f"{server.url}/gone.jpg"
    copy = one + "?copy"  # the same bytes
    tables = download(tmp_path, [found_row(one), found_row(copy), found_row(one, "Typha"), found_row(other),
                                 found_row(gone, fallbacks=f"{other} {copy}"), found_row(gone, "Typha", other)])
    rows = tables.found
    assert {row["status"] for row in rows.values()} == {"saved"}
    assert rows["Rosa canina", one]["file"] == rows["Rosa canina", copy]["file"]
    assert rows["Typha", gone]["reason"] == f"from fallback {other}"
    assert sorted(server.asked("/")) == ["/gone.jpg", "/photo/one.jpg", "/photo/one.jpg?copy", "/photo/other.jpg"]
    name_one, name_other = (f"{sha256(jpeg(f'/photo/{name}.jpg'))[:16]}.jpg" for name in ("one", "other"))
    assert set(snapshot(tmp_path / "images")) == {f"{plant}/{name}" for plant in ("Rosa canina", "Typha")
                                                  for name in (name_one, name_other)}


def test_failures_are_tried_again_refusals_are_not(server, tmp_path):
    server.world.pages = {"/busy": (503, {"Retry-After": "1"}, b""), "/no": (404, {}, b"")}
    rows = [found_row(f"{server.url}/busy"), found_row(f"{server.url}/no")]
    tables = download(tmp_path, rows)
    assert [(row["status"], row["reason"]) for row in tables.found.values()] == [
        ("failed", "HTTP 503"), ("refused", "HTTP 404")]
    times = [then for then, path in server.log if path == "/busy"]
    assert len(times) == 2 and times[1] - times[0] >= 0.99  # as Retry-After asks
    server.world.pages = {}
    server.world.pages["/busy"] = (200, {}, jpeg("late"))
    tables = Tables(tmp_path)
    downloads = Downloads(local_web(), tables, 40, 2, 2, 0.0, 2, ())
    downloads.add(list(tables.found.values()))
    downloads.wait(lambda: None)
    downloads.stop()
    assert [row["status"] for row in tables.found.values()] == ["saved", "refused"]
    assert len(server.asked("/no")) == 1


def test_a_host_that_asks_to_wait_for_long_is_left_for_another_run(server, tmp_path):
    server.world.pages = {f"/p{number}": (429, {"Retry-After": "86400"}, b"") for number in range(20)}
    tables = download(tmp_path, [found_row(f"{server.url}/p{number}") for number in range(20)], per_host=1, delay=0.1)
    assert {(row["status"], row["reason"]) for row in tables.found.values()} == {
        ("failed", "HTTP 429, its host asks to wait 1,440 minutes")}
    assert len(server.asked("/p")) == 1


def test_a_host_is_asked_as_often_as_allowed(server, tmp_path):
    busy, most, lock, handler = 0, 0, threading.Lock(), server.server.RequestHandlerClass
    answer = handler.do_GET

    def slow(self):
        nonlocal busy, most
        with lock:
            busy, most = busy + 1, max(most, busy + 1)
        time.sleep(0.05)
        with lock:
            busy -= 1
        answer(self)
    handler.do_GET = slow
    rows = [found_row(server.photo(f"p{number}")) for number in range(12)]
    started = time.monotonic()
    download(tmp_path / "a", rows, per_host=3)
    assert most == 3 and time.monotonic() - started < 2
    server.log.clear()
    download(tmp_path / "b", rows[:6], per_host=3, delay=0.2)
    times = sorted(then for then, _ in server.log)
    assert times[-1] - times[0] >= 0.9


def test_a_host_that_gave_its_hourly_bytes_is_left_alone(server, tmp_path):
    size = len(jpeg("/photo/p0.jpg"))
    tables = Tables(tmp_path)
    downloads = Downloads(local_web(), tables, 40, 1, 1, 0.0, 1, ((60, 2.5 * size),))
    downloads.add(tables.add([found_row(server.photo(f"p{number}")) for number in range(9)]))
    time.sleep(1.5)
    assert len(server.asked("/photo")) == 3
    downloads.stop()
    tables.save()
    again = Downloads(local_web(), Tables(tmp_path), 40, 1, 1, 0.0, 1, ((60, 2.5 * size),))  # remembered
    again.add(list(again.tables.found.values()))
    time.sleep(0.5)
    assert len(server.asked("/photo")) == 3
    again.stop()


def test_a_full_disk_ends_the_run_with_its_reason(server, tmp_path):
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(OSError, match="images"):
        download(tmp_path, [found_row(server.photo("one"))])
    assert read_table(tmp_path / "found.csv")[0]["url"] == server.photo("one")
    downloads = Downloads(local_web(), Tables(tmp_path), 40, 1, 1, 0.0, 1, ())
    downloads.add([found_row(server.photo("one"))])
    with pytest.raises(OSError, match="images"):  # at the next search that finds something, not after the last
        for _ in range(100):
            time.sleep(0.05)
            downloads.add([])


@pytest.mark.parametrize(("address", "public"), [
    ("8.8.8.8", True), ("127.0.0.1", False), ("10.1.2.3", False), ("169.254.169.254", False), ("100.64.0.1", False),
    ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
    ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("64:ff9b::808:808", True), ("2002:7f00:1::", False),
    ("2606:4700:4700::1111", True)])
def test_only_addresses_of_the_public_internet_are_public(address, public):
    assert is_public(address) == public


def test_retry_after_is_seconds_or_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert retry_after("7") == 7 and 95 < retry_after(date) <= 100
    assert retry_after("") == retry_after("soon") == retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_a_torn_journal_line_loses_only_itself(server, tmp_path):
    row = found_row(server.photo("one"))
    tables = Tables(tmp_path)
    tables.add([row], {**{column: row[column] for column in ("class", "source", "query", "kind")},
                       "answer": "all", "results": "1", "time": now()})
    with open(tmp_path / "found.csv.journal", "a", encoding="utf-8") as file:
        file.write('{"changes": {"class": "Rosa')
    again = Tables(tmp_path)
    assert again.found == tables.found and again.searches == tables.searches
    again.save()
    with open(tmp_path / "found.csv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file))[:3] == ["class", "source", "query"]


def test_a_table_taken_away_after_a_kill_starts_afresh(server, tmp_path):
    tables = download(tmp_path, [found_row(server.photo("one"))])
    tables = Tables(tmp_path)
    tables.change(found_row(server.photo("one")), status="failed")
    tables.alone.release()  # as a kill does
    (tmp_path / "found.csv").unlink()
    assert Tables(tmp_path).found == {}


def test_two_processes_do_not_collect_into_one_folder(server, tmp_path):
    flora(server, tmp_path)
    tables = Tables(tmp_path / "collected")
    tables.add([found_row(server.photo("one"))])
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert "another process collects into" in done.stderr
    tables.save()
    assert len(read_table(tmp_path / "collected/found.csv")) == 1
    run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"))
    assert len(read_table(tmp_path / "collected/found.csv")) > 1
