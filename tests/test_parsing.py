"""parsing.py: what is searched, downloaded, written to the tables, and not repeated."""
import pytest

from dataset_preparation.parsing.collected_tables import Tables
from dataset_preparation.parsing.parsing import choose_classes
from tests.collecting_runs import SCRIPT, arguments, flora, found_row, match
from tests.collecting_server import jpeg, observation, occurrence
from tests.conftest import run_script, snapshot, write_classes
from utils import InputError, PlantClass, read_table, sha256


def test_classes_chooses_names_and_label_ranges():
    names = "Rosa", "Typha", "Adiantum capillus-v"
    classes = [PlantClass(label, name, "", "", ()) for label, name in enumerate(names)]
    assert choose_classes(classes, "") == classes
    for text, labels in (("2, rosa", [0, 2]), ("1-2", [1, 2]), ("adiantum capillus-v", [2])):
        assert [plant.label for plant in choose_classes(classes, text)] == labels
    for text in ("Rosaa", "7", "Rosa,,Typha", "²", "0-²", 5000 * "9"):
        with pytest.raises(InputError, match="CLASSES"):
            choose_classes(classes, text)


def test_a_run_collects_what_the_server_has_and_a_second_requests_nothing(server, tmp_path):
    flora(server, tmp_path)
    server.world.matches["Rosa canina", "Plantae"] = match(11, "Rosa canina")
    server.world.occurrences = [occurrence(server, number, 11, "CC BY 4.0") for number in range(4)]
    command = arguments(server, tmp_path, "--source", "inaturalist,gbif", "--name_results", 5)
    done = run_script(SCRIPT, *command)
    collected = tmp_path / "collected"
    assert done.stdout.splitlines()[-1] == (
        f"collected 19 photographs of 3 classes: {collected / 'found.csv'}")
    rows = read_table(collected / "found.csv")
    assert [(row["class"], row["source"]) for row in rows] == sorted(
        [("Rosa canina", "gbif")] * 4
        + [(name, "inaturalist") for name in server.world.taxa for _ in range(5)])
    photographs = snapshot(collected / "images")
    for row in rows:
        data = photographs[row["file"].removeprefix("images/")]
        assert row["status"] == "saved" and row["sha256"] == sha256(data) and row["width"] == "64"
        assert row["file"] == f"images/{row['class']}/{row['sha256'][:16]}.jpg"
        assert data == jpeg(row["url"].removeprefix(server.url).split("?")[0])
    assert len(photographs) == 19
    credits = read_table(collected / "ATTRIBUTION.csv")
    assert [row["file"] for row in credits] == sorted(row["file"] for row in rows)
    assert all(row["author"] and row["license"] and row["page"] and row["title"]
               for row in credits)
    searches = {(row["class"], row["source"]): (row["answer"].split(":")[0], row["results"])
                for row in read_table(collected / "searches.csv")}
    assert searches["Rosa canina", "gbif"] == ("all", "4")
    assert searches["Typha latifolia", "gbif"] == ("unknown", "0")
    assert searches["Typha latifolia", "inaturalist"] == ("enough", "5")

    before, requests = snapshot(collected), len(server.log)
    run_script(SCRIPT, *command)
    assert snapshot(collected) == before and len(server.log) == requests
    assert not list(collected.glob("*.journal"))


def test_a_larger_run_searches_more_and_downloads_what_is_missing(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Typha latifolia"))
    command = arguments(server, tmp_path, "--source", "inaturalist")
    run_script(SCRIPT, *command, "--name_results", 3, "--classes", "Typha latifolia")
    rows = read_table(tmp_path / "collected/found.csv")
    assert [row["class"] for row in rows] == ["Typha latifolia"] * 3
    lost = tmp_path / "collected" / rows[1]["file"]
    lost.unlink()
    before = len(server.requested("/photo"))
    run_script(SCRIPT, *command, "--name_results", 6, "--classes", 0)
    assert len(server.requested("/photo")) == before + 6  # the other class is left alone
    run_script(SCRIPT, *command, "--name_results", 6)
    assert lost.exists() and len(server.requested("/photo")) == before + 6 + 3 + 1
    assert len(read_table(tmp_path / "collected/found.csv")) == 12


def test_synonyms_are_searched_when_a_name_has_too_few_results(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Rosa altera", "Typha latifolia"), count=4)
    (tmp_path / "classes.csv").write_text(
        "label,latin,russian,english,also\n0,Rosa canina,,,Rosa nulla;Rosa altera\n"
        "1,Typha latifolia,,,Rosa altera\n", "utf-8")
    command = arguments(server, tmp_path, "--source", "inaturalist")
    run_script(SCRIPT, *command, "--synonym_below", 5, "--classes", "Rosa canina")
    rows = read_table(tmp_path / "collected/found.csv")
    assert [row["kind"] for row in rows] == ["name"] * 4 + ["synonym"] * 4
    assert {row["class"] for row in rows} == {"Rosa canina"}
    # enough results for the first, as many as wanted for the second
    for more in (("--synonym_below", 4), ("--synonym_below", 9, "--name_results", 3)):
        run_script(SCRIPT, *command, "--classes", 1, *more)
        rows = read_table(tmp_path / "collected/found.csv")
        assert [row["kind"] for row in rows[8:]] == ["name"] * 4


def test_other_sizes_and_more_photographs_of_a_plant_are_searched_anew(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina",))
    rose = server.world.taxa["Rosa canina"][0]
    server.world.observations[0] = observation(server, 1000, rose, ["cc0"] * 3)
    command = arguments(server, tmp_path, "--source", "inaturalist")
    for more, count in (((), 7), (("--photos_per_observation", 0), 8),
                        (("--photo_size", "large"), 15)):
        run_script(SCRIPT, *command, *more)
        assert len(read_table(tmp_path / "collected/found.csv")) == count


def test_limits_of_photographs_do_not_hold_for_searches(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina",))
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist",
                                         "--photo_mb", 0.0005))
    assert "collected 0 photographs" in done.stdout
    rows = read_table(tmp_path / "collected/found.csv")
    assert [row["reason"] for row in rows] == ["more than 0.0005 MB"] * 6


def test_a_failed_search_is_named_and_repeated_by_the_next_run(server, tmp_path):
    flora(server, tmp_path, ("Rosa canina", "Typha latifolia"))
    server.world.pages["/inat/observations"] = (400, {}, b"no")
    command = arguments(server, tmp_path, "--source", "inaturalist")
    done = run_script(SCRIPT, *command, status=1)
    assert "HTTP 400" in done.stderr and "searches that failed: 2" in done.stderr
    for body, reason in ((b"<html>", "no JSON but '<html>'"), (b'{"items": []}', "no list of")):
        server.world.pages["/inat/observations"] = (200, {}, body)
        assert reason in run_script(SCRIPT, *command, status=1).stderr
    server.world.pages.clear()
    assert "collected 12 photographs" in run_script(SCRIPT, *command).stdout


def test_unknown_names_between_failures_do_not_stop_the_source(server, tmp_path):
    flora(server, tmp_path)
    write_classes(tmp_path / "classes.csv", [
        "Rosa canina", "Nulla", "Typha latifolia", "Nullula", "Amanita muscaria"])
    server.world.pages["/inat/observations"] = (400, {}, b"no")
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert "searches that failed: 3" in done.stderr and "stopped" not in done.stderr


def test_six_failures_in_a_row_stop_the_source(server, tmp_path):
    flora(server, tmp_path, (*(f"Rosa {letter}" for letter in "abcdef"), "Typha latifolia"))
    server.world.pages["/inat/observations"] = (400, {}, b"no")
    done = run_script(SCRIPT, *arguments(server, tmp_path, "--source", "inaturalist"), status=1)
    assert "inaturalist stopped at Rosa f" in done.stderr
    assert not server.requested("/inat/taxa?q=Typha")


@pytest.mark.parametrize(("flags", "status", "message"), [
    (("--source", "flickr"), 2, "flickr"), (("--area", "atlantis"), 2, "atlantis"),
    (("--area", "3,2,1,4"), 1, "AREA is '3,2,1,4'"),
    (("--classes", "Rosa,9"), 1, "CLASSES has 'Rosa'"), (("--photo_size", "huge"), 2, "huge"),
    (("--licenses", "('CC-BY',)"), 2, "CC-BY"),
    (("--browser", "lynx", "--source", "inaturalist,yandex"), 2, "lynx")])
def test_wrong_settings_end_the_run_before_the_first_request(server, tmp_path, flags, status,
                                                             message):
    flora(server, tmp_path)
    command = arguments(server, tmp_path, "--source", "inaturalist", *flags)
    assert message in run_script(SCRIPT, *command, status=status).stderr
    assert not server.log and not (tmp_path / "collected").exists()


def test_two_processes_do_not_collect_into_one_folder(server, tmp_path):
    flora(server, tmp_path)
    tables = Tables(tmp_path / "collected")
    tables.add([found_row(server.photo("one"))])
    command = arguments(server, tmp_path, "--source", "inaturalist")
    done = run_script(SCRIPT, *command, status=1)
    assert str(tmp_path / "collected") in done.stderr and not server.log
    tables.save()
    assert len(read_table(tmp_path / "collected/found.csv")) == 1
    run_script(SCRIPT, *command)
    assert len(read_table(tmp_path / "collected/found.csv")) > 1
