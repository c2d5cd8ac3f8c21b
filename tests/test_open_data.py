"""iNaturalist's open data: the four published tables instead of questions to the API."""
import gzip
import subprocess
import sys
from collections import Counter

import pytest

from dataset_preparation.parsing.sampling import season_of
from tests.collecting_runs import SCRIPT, arguments
from tests.conftest import ROOT, run_script, write_classes
from tests.test_sampling import scatter
from utils import read_table

pytest.importorskip("duckdb")
COLUMNS = {
    "taxa": ("taxon_id", "ancestry", "rank_level", "rank", "name", "active"),
    "observations": ("observation_uuid", "observer_id", "latitude", "longitude",
                     "positional_accuracy", "taxon_id", "quality_grade", "observed_on",
                     "anomaly_score"),
    "photos": ("photo_uuid", "photo_id", "observation_uuid", "observer_id", "extension", "license",
               "width", "height", "position"),
    "observers": ("observer_id", "login", "name")}
TAXA = [("1", "", "70", "kingdom", "Plantae", "true"),
        ("2", "", "70", "kingdom", "Animalia", "true"),
        ("10", "1", "20", "genus", "Rosa", "true"),
        ("11", "1/10", "10", "species", "Rosa canina", "true"),
        ("12", "1/10/11", "5", "subspecies", "Rosa canina vulgaris", "true"),
        ("13", "1/10", "10", "species", "Rosa vetus", "false"),
        ("14", "2", "10", "species", "Rosa altera", "true"),
        ("15", "1/10", "10", "species", "Rosa arvensis", "true")]


def write_tables(folder, count=3000, taxa=TAXA):
    """Write the tables of `count` observations of Rosa canina, half of them by one person."""
    rows = {"taxa": taxa, "observations": [], "photos": [], "observers": []}
    users = {}
    for number in range(count):
        user, day, (longitude, latitude) = scatter(number, count)
        identity = users.setdefault(user, str(len(users)))
        uuid = f"o-{number}"
        rows["observations"].append((uuid, identity, latitude, longitude, "10",
                                     "12" if number % 5 == 0 else "11",
                                     "casual" if number % 50 == 0 else "research", day, ""))
        rows["photos"] += [
            (f"p{number}-{index}", 10 * number + index, uuid, identity, "jpg",
             ("CC-BY", "CC-BY-NC-ND")[number % 10 == 3], "2048", "1536", index)
            for index in range(2)]
    rows["observations"].append(("other", "0", "45", "34", "", "15", "research", "2020-01-01", ""))
    rows["photos"].append(("q", "999999", "other", "0", "jpeg", "CC0", "2048", "700", "0"))
    rows["observers"] = [(identity, user, 'A "stray quote' if user == "keen" else "")
                         for user, identity in users.items()]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in rows.items():
        with gzip.open(folder / f"{name}.csv.gz", "wt", encoding="utf-8", newline="") as file:
            file.write("\t".join(COLUMNS[name]) + "\n")
            file.writelines("\t".join(map(str, line)) + "\n" for line in lines)


def command(server, folder, *more):
    return arguments(server, folder, "--source", "open_data", "--open_data_url", server.url,
                     *more)


def test_open_data_is_sampled_without_a_request_to_the_api(server, tmp_path):
    write_classes(tmp_path / "classes.csv", ["Rosa canina", "Rosa vetus", "Rosa altera",
                                             "Rosa arvensis", "Rosa ignota"])
    write_tables(tmp_path / "tables")
    done = run_script(SCRIPT, *command(server, tmp_path, "--open_data", tmp_path / "tables"))
    rows = read_table(tmp_path / "collected/found.csv")
    roses = [row for row in rows if row["class"] == "Rosa canina"]
    assert len(roses) == 200 == len({row["observation"] for row in roses})
    assert Counter(row["observer"] for row in roses).most_common(1)[0][1] <= 3
    assert len({row["date"][:4] for row in roses}) >= 11
    assert min(Counter(season_of(row) for row in roses).values()) >= 30
    assert {row["license"] for row in roses} == {"cc-by"}
    assert any(int(row["observation"][2:]) % 5 == 0 for row in roses)  # of the subspecies
    assert not any(int(row["observation"][2:]) % 50 == 0 for row in roses)  # casual
    other, = (row for row in rows if row["class"] == "Rosa arvensis")
    assert other["url"] == f"{server.url}/photos/999999/large.jpeg"  # "medium" is too low
    assert other["page"] == "https://www.inaturalist.org/observations/other"
    assert {path.split("/")[1] for _, path in server.log} == {"photos"}  # nothing but photographs
    for name, words in (("Rosa vetus", "no longer uses"), ("Rosa altera", "do not have"),
                        ("Rosa ignota", "do not have")):
        assert f"{name}: " in done.stderr and words in done.stderr
    searches = read_table(tmp_path / "collected/searches.csv")
    assert any('"licence not wanted: cc-by-nc-nd": 600' in row["passed_over"] for row in searches)


def test_open_data_knows_a_name_in_all_its_spellings(server, tmp_path):
    more = [("20", "1", "20", "genus", "Mentha", "true"),
            ("21", "1/20", "10", "hybrid", "Mentha × piperita", "true"),
            ("22", "1/10/11", "5", "subspecies", "Rosa canina alba", "true"),
            ("23", "1/10", "11", "complex", "Rosa gallica", "true")]
    write_tables(tmp_path / "tables", 5, TAXA + more)
    names = ["Mentha x piperita", "Rosa canina L. subsp. alba Foo", "Rosa gallica agg", "Rosa L"]
    write_classes(tmp_path / "classes.csv", [*names, "Rosa gallica", "Rosa ignota"])
    done = run_script(SCRIPT, *command(server, tmp_path, "--open_data", tmp_path / "tables"))
    answers = {row["class"]: row["answer"] for row in read_table(
        tmp_path / "collected/searches.csv")}
    assert [answers[name].split(":")[0] for name in names] == ["empty"] * 3 + ["all"]
    assert "Rosa gallica: iNaturalist's tables do not have it" in done.stderr
    assert answers["Rosa ignota"].startswith("unknown")


def test_a_larger_run_continues_where_the_first_ended(server, tmp_path):
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    write_tables(tmp_path / "tables", 400)
    run = command(server, tmp_path, "--open_data", tmp_path / "tables")
    run_script(SCRIPT, *run, "--name_results", 50)
    first = {row["url"] for row in read_table(tmp_path / "collected/found.csv")}
    run_script(SCRIPT, *run, "--name_results", 10_000)
    rows = read_table(tmp_path / "collected/found.csv")
    assert len(first) == 50 and first < {row["url"] for row in rows}
    assert len(rows) == 2 * sum(number % 50 != 0 and number % 10 != 3 for number in range(400))


def test_tables_at_an_address_are_downloaded_once(server, tmp_path):
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    write_tables(tmp_path / "tables", 100)
    for path in (tmp_path / "tables").iterdir():
        server.world.pages[f"/data/{path.name}"] = (200, {}, path.read_bytes())
    run = command(server, tmp_path, "--open_data", f"{server.url}/data", "--name_results", 5)
    for _ in range(2):
        run_script(SCRIPT, *run)
        assert len(server.requested("/data")) == 4
    assert len(read_table(tmp_path / "collected/found.csv")) == 5


def test_missing_packages_and_tables_are_reported_before_the_search(server, tmp_path):
    write_classes(tmp_path / "classes.csv", ["Rosa canina"])
    (tmp_path / "tables").mkdir()
    for more, words in ((("--open_data", tmp_path / "tables"), "taxa.csv.gz"),
                        ((), "--open_data")):
        done = run_script(SCRIPT, *command(server, tmp_path, *more), status=1)
        assert words in done.stderr and "Traceback" not in done.stderr
    write_tables(tmp_path / "tables", 5)
    (tmp_path / "tables/photos.csv.gz").write_bytes(gzip.compress(b"no\ttable\n1\t2\n"))
    done = run_script(SCRIPT, *command(server, tmp_path, "--open_data", tmp_path / "tables"),
                      status=1)
    assert "cannot read the tables" in done.stderr and "Traceback" not in done.stderr
    code = ("import sys; sys.modules['duckdb'] = None; sys.argv = ['parsing.py', '--source', "
            f"'open_data', '--collected_dir', {str(tmp_path / 'c')!r}]; import runpy; "
            f"runpy.run_path({str(ROOT / SCRIPT)!r}, run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip install duckdb" in done.stderr
