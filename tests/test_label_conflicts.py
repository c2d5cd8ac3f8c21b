"""One picture under two names is never labelled, unless a person kept both one by one."""
import pytest

from dataset_preparation.cleaning.decisions import append_decisions, read_decisions
from tests.conftest import NAMES, draw, jpeg, make_collected
from tests.preparing import clean, label
from tests.reviewing import asked, reviewing
from utils import InputError, read_table

PAIR = f"{NAMES[0]}/001.jpg", f"{NAMES[1]}/copy.jpg"
OTHERS = f"{NAMES[0]}/002.jpg", f"{NAMES[1]}/002.jpg"


@pytest.fixture
def folder(tmp_path):
    """Twelve photographs per class; one of the first class stands, encoded again, in the second."""
    make_collected(tmp_path / "collected", count=12)
    (tmp_path / "collected/images" / PAIR[1]).write_bytes(jpeg(draw(1), quality=70))
    clean(tmp_path)
    return tmp_path


def decide(folder, *files, action="keep", value=""):
    """Make a decision about photographs by one key press."""
    rows = {row["file"]: row for row in read_table(folder / "cleaned/cleaned.csv")}
    append_decisions(folder / "cleaned/decisions.csv", [
        (rows[file]["sha256"], rows[file]["class"], action, value, "") for file in files])


def labelled_pair(folder):
    """Label; return how many of the pair stand in the tables."""
    shas = {row["sha256"] for row in read_table(folder / "cleaned/cleaned.csv")
            if row["file"] in PAIR}
    return sum(row["sha256"] in shas for row in label(folder).values())


def test_a_part_of_a_picture_under_another_name_is_shown_and_counted(tmp_path):
    make_collected(tmp_path / "collected", count=9)
    whole = draw(77, size=(900, 860), detail=40)
    for latin, picture in ((NAMES[0], whole), (NAMES[1], whole.crop((180, 170, 720, 690)))):
        (tmp_path / "collected/images" / latin / "part.jpg").write_bytes(jpeg(picture))
    rows = clean(tmp_path)
    one, other = (f"{latin}/part.jpg" for latin in NAMES[:2])
    assert (rows[one]["near"], rows[other]["near"]) == (other, one)
    label(tmp_path)
    report = (tmp_path / "dataset/split_report.txt").read_text()
    assert "label conflicts, overlapping pictures under several names: 1\n" in report


def test_keeping_whole_sheets_decides_no_conflict(folder, capsys):
    for file, other in zip(PAIR, OTHERS, strict=True):  # one key press per sheet
        decide(folder, other, file)
    rows = clean(folder)
    assert {rows[file]["status"] for file in PAIR} == {"review"}
    assert {rows[file]["status"] for file in OTHERS} == {"kept"}
    assert float(rows[PAIR[0]]["suspicion"]) == 1
    text = capsys.readouterr().err
    assert "2 photographs of pictures under several names were kept by one key press" in text
    assert PAIR[1] in text
    assert labelled_pair(folder) == 0
    with reviewing(folder) as page:
        assert page.views()["conflicts", ""]["reviewed"] == 0
        for file in PAIR:  # each by itself
            assert page.decide(asked(rows[file], "keep")).json()["changed"]
        assert page.views()["conflicts", ""]["reviewed"] == 1
    rows = clean(folder)
    assert {rows[file]["status"] for file in PAIR} == {"kept"}
    assert labelled_pair(folder) == 2


@pytest.mark.parametrize("equal", [False, True])
def test_labelling_stops_where_the_decisions_are_no_longer_in_force(folder, capsys, equal):
    """Kept one by one, cleaned, then undone without cleaning again: also of equal files."""
    if equal:
        (folder / "collected/images" / PAIR[1]).write_bytes(
            (folder / "collected/images" / PAIR[0]).read_bytes())
        clean(folder)
    for file in PAIR:
        decide(folder, file)
    rows = clean(folder)
    assert {rows[file]["status"] for file in PAIR} == {"kept"}
    last = read_decisions(folder / "cleaned/decisions.csv")[-1]
    append_decisions(folder / "cleaned/decisions.csv", [
        (last["sha256"], last["class"], "undo", last["time"], "")])
    capsys.readouterr()
    with pytest.raises(InputError, match="1 pairs of photographs are one picture under two names"):
        label(folder)
    assert f"{PAIR[0]} ~ {PAIR[1]}" in capsys.readouterr().out
    assert not (folder / "dataset/train_labels.csv").exists()
    decide(folder, PAIR[1], OTHERS[1])  # in bulk is not one by one
    with pytest.raises(InputError, match="two names"):
        label(folder)
    decide(folder, PAIR[1])
    assert labelled_pair(folder) == 2


def test_two_pictures_by_decision_are_no_conflict(folder):
    rows = clean(folder)
    decide(folder, PAIR[0], action="not_duplicate", value=rows[PAIR[1]]["sha256"])
    clean(folder)
    assert labelled_pair(folder) == 2

