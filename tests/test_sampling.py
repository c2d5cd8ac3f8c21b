"""Sampling: photographs spread over observers, places, years and seasons, from few questions."""
from collections import Counter
from datetime import date, timedelta

from dataset_preparation.parsing.sampling import Spread, choose_gap, cut_gap, map_cell_of, season_of
from tests.collecting_runs import SCRIPT, arguments, gbif, inaturalist, match, results_of, taxon
from tests.collecting_server import observation, occurrence
from tests.conftest import run_script, write_classes
from utils import read_table, sha256


def scatter(number, count):
    """Return what a record of the simulated sites has: observer, date and place."""
    draws = sha256(str(number).encode())
    keen = number < count // 2  # one person posted the older half, in one garden, in few weeks
    day = date(2014, 4, 20) + timedelta(number % 20) if keen else (
        date(2015, 1, 1) + timedelta(int(draws[:6], 16) % 4000))
    place = (34.1, 44.9) if keen else (32.5 + int(draws[6:10], 16) % 400 / 100,
                                       44.4 + int(draws[10:14], 16) % 180 / 100)
    return "keen" if keen else f"user{number % 699}", day.isoformat(), place


def simulate(server, count=3000):
    """Let iNaturalist have observations by 700 people, half of them by one."""
    rose = taxon(1, "Rosa canina")
    server.world.taxa["Rosa canina"] = [rose]
    for number in range(count):
        user, day, place = scatter(number, count)
        server.world.observations.append(observation(
            server, number + 1, rose, ("cc-by", "cc0"), place, observed_on=day,
            user={"id": number, "login": user, "name": None}))


def simulate_gbif(server, count=9000):
    """Let GBIF have occurrences by 700 people, half of them by one."""
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    for number in range(count):
        user, day, (longitude, latitude) = scatter(number, count)
        server.world.occurrences.append(occurrence(
            server, number + 1, 11, "CC BY 4.0", recordedBy=user, eventDate=f"{day}T10:00:00",
            decimalLatitude=latitude, decimalLongitude=longitude))


def most_by_one(rows):
    return Counter(row["observer"] for row in rows).most_common(1)[0][1]


def test_two_hundred_of_inaturalist_are_spread_by_ten_more_questions(server, tmp_path):
    simulate(server)
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    command = arguments(server, tmp_path, "--source", "inaturalist", "--name_results", 200)
    done = run_script(SCRIPT, *command)
    rows = read_table(tmp_path / "collected/found.csv")
    assert len(rows) == 200 and most_by_one(rows) <= 3
    assert len({row["observer"] for row in rows}) >= 150
    assert len({row["observation"] for row in rows}) == 200
    assert len({row["date"][:4] for row in rows}) >= 11
    assert min(Counter(season_of(row) for row in rows).values()) >= 30
    assert len({map_cell_of(row) for row in rows}) >= 100
    assert len(server.requested("/inat/observations")) <= 11
    lines = done.stdout.splitlines()
    spread = lines[next(i for i, line in enumerate(lines) if " observers " in line) + 1]
    assert int(spread.split()[2]) >= 150
    run_script(SCRIPT, *command)
    assert len(server.requested("/inat/observations")) <= 11  # nothing is asked again


def test_the_sample_is_a_function_of_the_seed(server):
    simulate(server)
    urls = [[result["url"] for result in results_of(
        inaturalist(server, seed=seed).search("Rosa canina"), 200)] for seed in (0, 0, 1)]
    assert urls[0] == urls[1]
    assert len(set(urls[0]) & set(urls[2])) < 150


def test_every_photograph_comes_in_the_end_and_no_second_one_before(server):
    simulate(server, 1300)
    results = results_of(inaturalist(server, spread_pages=4).search("Rosa canina"))
    assert len({result["url"] for result in results}) == len(results) == 2 * 1300
    assert len({result["observation"] for result in results[:1300]}) == 1300
    assert len(server.requested("/inat/observations")) <= 14  # 7 full pages, and the gaps' rests


def test_a_search_resumes_without_requesting_a_page_twice(server, tmp_path):
    simulate(server)
    whole = results_of(inaturalist(server, folder=tmp_path / "whole").search("Rosa canina"), 400)
    server.log.clear()
    state, results = None, []
    while len(results) < 400:  # a new process after each page
        pages = inaturalist(server, folder=tmp_path / "parts").search("Rosa canina", state)
        page = next(pages)
        pages.close()
        results, state = results + page.results, page.state
    assert results == whole
    asked = server.requested("/inat")
    assert len(asked) == len(set(asked)) <= 12


def test_without_spreading_what_is_listed_first_is_taken(server):
    simulate(server)
    results = results_of(inaturalist(server, spread_pages=0).search("Rosa canina"), 200)
    assert {result["observer"] for result in results} == {"keen"}
    assert len(server.requested("/inat/observations")) == 1


def test_a_server_that_knows_no_seasons_and_no_order_is_read_from_the_start(server):
    simulate(server, 1300)
    inner = server.server.RequestHandlerClass.do_GET

    def simple(handler):
        handler.path = handler.path.replace("order=desc", "order=asc")
        for name in ("month=", "id_below="):
            handler.path = handler.path.replace(name, f"unknown_{name}")
        inner(handler)
    server.server.RequestHandlerClass.do_GET = simple
    results = results_of(inaturalist(server, spread_pages=4).search("Rosa canina"))
    assert len({result["url"] for result in results}) == len(results) == 2600


def test_gbif_is_spread_as_well(server):
    simulate_gbif(server)
    results = results_of(gbif(server).search("Rosa canina"), 200)
    assert most_by_one(results) <= 3
    assert len({result["date"][:4] for result in results}) >= 11
    assert len(server.requested("/gbif/occurrence/search")) <= 11
    del server.world.occurrences[2000:]
    every = results_of(gbif(server, spread_pages=4).search("Rosa canina"))
    assert len({result["url"] for result in every}) == len(every) == 2000


def test_the_observer_place_and_season_taken_least_come_next():
    def photo(number, observer, day="2020-05-01", place=45.0, observation=None):
        return {"url": str(number), "observation": observation or number, "observer": observer,
                "date": day, "latitude": place, "longitude": 34.0}
    pool = [photo(1, "a"), photo(2, "a"), photo(3, "a", "2021-08-01", 46.0),
            photo(4, "b", observation=9), photo(5, "b", observation=9)]
    urls = [result["url"] for result in Spread(0).take(list(pool), 5)]
    assert {*urls[:2]} <= {"1", "2", "3", "4"} and len({*urls[:2]} & {"4"}) == 1
    assert urls[-1] == "5"  # the second photograph of an observation
    earlier = Spread(0, pool[:1])
    assert earlier.take(list(pool[1:4]), 3)[0]["url"] == "4"
    assert earlier.take(pool[1:3], 1)[0]["url"] == "3"  # another place, year and season


def test_gaps_are_cut_by_what_a_page_covers():
    gaps = [["", 0, 100]]
    cut_gap(gaps, 0, (40, 60))
    assert gaps == [["", 0, 40], ["", 60, 100]]
    cut_gap(gaps, 1, (60, None))
    cut_gap(gaps, 0, (0, 40))
    assert gaps == []
    gaps = [["a", 0, 10], ["b", 0, 1000], ["b", 2000, None]]
    assert choose_gap(gaps, Counter(b=1), 0)[0] == 0
    assert choose_gap(gaps, Counter(a=1), 0) == (2, 2000)
    index, at = choose_gap(gaps[:2], Counter(a=1), 0, grain=300)
    assert index == 1 and at % 300 == 0 and 0 <= at < 1000
