"""Labelling by what collecting knows: observations, observers and licences."""
import pytest

from dataset_preparation.labeling.groups import link_observers
from dataset_preparation.labeling.inputs import read_origins
from tests.conftest import NAMES, make_collected
from tests.preparing import clean, label
from utils import read_table, sha256, write_table


@pytest.fixture
def folder(tmp_path):
    make_collected(tmp_path / "collected", NAMES, count=18)
    clean(tmp_path)
    return tmp_path


def write_found(folder, describe):
    """Write found.csv; `describe(class, number)` gives the other columns of a photograph."""
    rows = []
    for latin in NAMES:
        paths = sorted((folder / "collected/images" / latin).iterdir())
        for number, path in enumerate(paths):
            rows.append({
                "class": latin, "source": "inaturalist", "query": "q", "kind": "name",
                "rank": str(number + 1), "url": f"https://x.example/{latin}/{number}",
                "status": "saved", "license": "cc-by", "sha256": sha256(path.read_bytes()),
                "file": f"images/{latin}/{path.name}", **describe(latin, number)})
    columns = sorted({name for row in rows for name in row} | {"author", "page"})
    write_table(folder / "collected/found.csv", columns, rows)
    return {row["sha256"]: row for row in rows}


def sides_of(labels, found, *columns):
    """Return {values of the columns: sides its photographs are on}."""
    sides = {}
    for path, row in labels.items():
        key = tuple(found[row["sha256"]][name] for name in columns)
        sides.setdefault(key, set()).add(path.split("/")[0])
    return sides


@pytest.mark.parametrize(("describe", "columns", "evidence"), [
    (lambda latin, number: {"observation": str(number // 3)}, ("class", "observation"),
     "observation"),
    (lambda latin, number: {"observer": "one", "date": f"2024-05-{10 + number // 3}"},
     ("class", "date"), "observer and day")])
def test_photographs_of_one_observation_or_day_are_never_split(folder, describe, columns, evidence):
    found = write_found(folder, lambda latin, number: {
        **describe(latin, number), "source": f"source {NAMES.index(latin)}"})
    sides = sides_of(label(folder, "--test_per_class", "6"), found, *columns)
    assert len(sides) == 18 and all(len(some) == 1 for some in sides.values())
    report = (folder / "dataset/split_report.txt").read_text("utf-8")
    assert f"  {evidence}: 18 groups, 54 photographs" in report


def test_a_publisher_is_no_observer_whose_day_is_one_group(folder):
    write_found(folder, lambda latin, number: {"rights_holder": "Museum", "date": "2024-05-10"})
    labels = label(folder, "--test_per_class", "6")
    assert sum(path.startswith("test/") for path in labels) == 18
    assert {row["joined_by"] for row in labels.values()} == {""}
    assert {row["author"] for row in labels.values()} == {"Museum"}


def test_a_photograph_turned_after_collecting_keeps_its_origin(tmp_path):
    found = [{"file": "images/Rosa prima/a.jpg", "sha256": "a" * 64, "license": "cc-by",
              "author": "Anna", "page": "https://x.example/", "url": "https://x.example/a.jpg",
              "source": "inaturalist", "observation": "7"}]
    write_table(tmp_path / "found.csv", tuple(found[0]), found)
    rows = [{"file": "Rosa prima/a.jpg", "sha256": "b" * 64}]
    origins, pages = read_origins(tmp_path, [(0, "Rosa prima/a.jpg")], rows)
    assert origins["b" * 64]["license"] == "cc-by" and pages["b" * 64] == {"https://x.example/"}
    assert origins["b" * 64]["observations"] == [("inaturalist", "7")]


def test_an_observer_stays_on_one_side_where_that_leaves_a_test_set(folder, capsys):
    """The third class is by two people: it is split by day, and the report says so."""
    found = write_found(folder, lambda latin, number: {
        "observer": f"user{number // 2}" if latin != NAMES[2] else f"keen{number // 9}",
        "date": f"2024-05-{10 + number}"})
    labels = label(folder, "--test_per_class", "6")
    sides = sides_of(labels, found, "class", "observer")
    split = {observer for (_, observer), some in sides.items() if len(some) == 2}
    assert split and split <= {"keen0", "keen1"}
    assert sum(path.startswith("test/") for path in labels) == 18
    assert (f"observers: 11; with photographs of a class in both train and test: {len(split)}"
            in (folder / "dataset/split_report.txt").read_text("utf-8"))


def test_observers_move_nothing_that_was_labelled_before(folder):
    found = write_found(folder, lambda latin, number: {})
    before = label(folder, "--test_per_class", "6")
    found = write_found(folder, lambda latin, number: {"observer": f"user{number // 2}"})
    assert {path: row["sha256"] for path, row in label(
        folder, "--test_per_class", "6").items()} == {
            path: row["sha256"] for path, row in before.items()}
    rows = [{"sha256": sha, "label": 0, "observer": "one", "kept": True, "group": sha}
            for sha in sorted(found)[:12]]
    assert link_observers(rows, [], {rows[0]["sha256"]: "train", rows[1]["sha256"]: "test"},
                          3, 0) == []


@pytest.mark.parametrize(("flags", "left", "warned"), [
    ((), 15, "9 cc-by-nd"), (("--licenses", "('cc0',)"), 3, "9 cc-by-4.0"),
    (("--licenses", "('cc0', 'cc-by', 'cc-by-nd')"), 9, "27 not known")])
def test_the_allow_list_holds_in_labelling(folder, capsys, flags, left, warned):
    """Three photographs of each class are cc0, cc-by or cc-by-nd, nine from a web search."""
    kinds = ({"license": "cc0"}, {"license": "cc-by-4.0"}, {"license": "cc-by-nd"})
    write_found(folder, lambda latin, number: kinds[number % 3] if number < 9 else {
        "license": "", "source": "yandex"})
    assert len(label(folder, "--test_per_class", "1", *flags)) == left * len(NAMES)
    assert warned in capsys.readouterr().err
    assert "left out by licence" in (folder / "dataset/split_report.txt").read_text("utf-8")


def test_a_licence_that_is_left_out_later_leaves_the_tables_and_comes_back(folder):
    write_found(folder, lambda latin, number: {"license": ("cc0", "cc-by-nc")[number % 2]})
    before = label(folder, "--test_per_class", "3")
    fewer = label(folder, "--test_per_class", "3", "--licenses", "('cc0',)")
    assert {row["license"] for row in fewer.values()} == {"cc0"}
    assert len(read_table(folder / "dataset/former_labels.csv")) == len(before) - len(fewer) > 0
    assert label(folder, "--test_per_class", "3") == before
