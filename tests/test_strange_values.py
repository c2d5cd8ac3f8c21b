"""Values from a site that no table could hold, or no later run read, lose no photograph."""
import json

import pytest

from dataset_preparation.parsing.addresses import clean_address
from dataset_preparation.parsing.collected_tables import read_found
from tests.collecting_runs import SCRIPT, arguments, inaturalist, results_of, taxon
from tests.collecting_server import CollectingServer, observation
from tests.conftest import run_script, write_classes
from utils import read_table, write_table

PLANT = taxon(1, "Rosa canina")


@pytest.fixture
def server(tmp_path):
    with CollectingServer() as running:
        write_classes(tmp_path / "classes.csv", ["Rosa canina"])
        running.world.taxa["Rosa canina"] = [PLANT]
        yield running


def test_strange_values_of_a_record_cost_neither_it_nor_any_later_run(server, tmp_path):
    records = [observation(server, number, PLANT) for number in range(1, 9)]
    sizes = iter([(2048.5, "100 px"), (-1, True), (float("inf"), 10**40), ("²", [1])])
    for record in records[:4]:  # not there, so that their announced sizes stay
        record["photos"][0]["url"] = f"{server.url}/gone/{record['id']}/square.jpg"
        record["photos"][0]["original_dimensions"] = dict(
            zip(("width", "height"), next(sizes), strict=True))
    records[4]["taxon"] = {**PLANT, "name": "half an emoji \ud83d"}
    records[5]["user"] = {"login": "x" * 200_000, "name": "\ud83d\0"}
    records[6]["uri"] = "https://x.example/" + "y" * 200_000
    records[7]["photos"][0]["url"] = "data:image/png;base64," + "A" * 200_000
    server.world.observations = records
    command = arguments(server, tmp_path, "--source", "inaturalist")
    for _ in range(2):
        assert "collected 3 photographs" in run_script(SCRIPT, *command).stdout
    rows = read_found(tmp_path / "collected", ())
    assert [row["status"] for row in rows].count("refused") == 4
    assert '"no usable address": 1' in read_table(tmp_path / "collected/searches.csv")[0][
        "passed_over"]


@pytest.mark.parametrize("number", [[1, 2], {"a": 1}, "abc", None, 2.5])
def test_an_observation_without_a_number_costs_no_other(server, number):
    records = [observation(server, one, PLANT) for one in (1, 2, 3)]
    records[1]["id"] = number
    body = json.dumps({"total_results": 3, "results": records}).encode()
    server.world.pages["/inat/observations"] = (200, {}, body)
    assert len(results_of(inaturalist(server).search("Rosa canina"))) == 3


def test_a_response_nested_too_deeply_is_a_failed_search(server, tmp_path):
    body = b'{"results":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    server.world.pages["/inat/observations"] = (200, {}, body)
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert "searches that failed: 1" in done.stderr and "Traceback" not in done.stderr


def test_a_long_cell_can_be_read(tmp_path):
    write_table(tmp_path / "t.csv", ("a",), [{"a": "x" * 200_000}])
    assert len(read_table(tmp_path / "t.csv")[0]["a"]) == 200_000
    assert clean_address("http://x.example/" + "y" * 9000) == ""
