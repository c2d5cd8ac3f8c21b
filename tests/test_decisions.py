"""Decisions by hand: what the file holds, and what they amount to."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset_preparation.cleaning import decisions as de
from utils import InputError


def decide(path, sha256, name, action, reason=""):
    """Append one decision and return it."""
    return de.append_decisions(path, [(sha256, name, action, "", reason)])[0]


def test_decisions_come_back_in_order_with_times_of_their_own(tmp_path):
    path = tmp_path / "new/decisions.csv"
    assert de.read_decisions(path) == []
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: decide(path, f"{i:064x}", "Rosa, prima", "reject",
                                              'two\nlines and a "quote"'),
                             range(100)))
    rows = de.read_decisions(path)
    assert sorted(rows, key=lambda row: row["sha256"]) == made
    times = [row["time"] for row in rows]
    assert times == sorted(set(times))
    assert rows[0]["reason"] == 'two lines and a "quote"'


def test_decision_times_increase_when_the_clock_is_set_back(tmp_path):
    path = tmp_path / "decisions.csv"
    path.write_text(",".join(de.COLUMNS) + "\n2999-01-01T00:00:00.000000Z,a,Rosa,keep,,\n")
    assert decide(path, "b", "Rosa", "keep")["time"] == "2999-01-01T00:00:00.000001Z"


def test_the_decisions_of_one_key_press_and_no_others_have_the_same_time(tmp_path):
    path = tmp_path / "decisions.csv"
    made = [*de.append_decisions(path, [(c, "Rosa", "reject", "", "") for c in "abc"]),
            decide(path, "d", "Rosa", "keep")]
    assert de.read_decisions(path) == made
    assert [row["pressed"] for row in made] == [3, 3, 3, 1]
    times = [row["time"] for row in made]
    assert len(set(times[:3])) == 1 and times[2] < times[3]


@pytest.mark.parametrize("torn", [b"Ro", b'"Rosa, ', "Роза".encode()[:-1]])
def test_a_torn_line_is_left_out_and_the_next_decision_is_whole(tmp_path, capsys, torn):
    path = tmp_path / "decisions.csv"
    first = decide(path, "a" * 64, "Rosa", "keep")
    with open(path, "ab") as file:
        file.write(b"2026-01-01T00:00:00.000000Z,bbbb," + torn)
    second = decide(path, "c" * 64, "Rosa", "reject")
    assert de.read_decisions(path) == [first, second]
    assert "line 3" in capsys.readouterr().err


@pytest.mark.parametrize("text, said", [
    ("time,sha256\n", "first line"), (",".join(de.COLUMNS) + "\n1,a,Rosa,burn,,\n",
                                      "line 2: unknown action 'burn'")])
def test_a_file_that_is_no_table_of_decisions_is_named(tmp_path, text, said):
    (tmp_path / "decisions.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        de.read_decisions(tmp_path / "decisions.csv")


def made(*steps):
    """Return decisions made at times "0", "1", ... from (sha256, action, value)."""
    return [dict(zip(de.COLUMNS, (str(i), sha, "Rosa", action, value, ""), strict=True))
            for i, (sha, action, value) in enumerate(steps)]


@pytest.mark.parametrize("steps, choice, move, apart", [
    ([("a", "keep", ""), ("a", "reject", "")], "reject", None, 0),
    ([("a", "keep", ""), ("a", "reject", ""), ("x", "undo", "1")], "keep", None, 0),
    ([("a", "keep", ""), ("a", "reject", ""), ("x", "undo", "1"), ("x", "undo", "2")], "reject",
     None, 0),
    ([("a", "reject", ""), ("a", "move", "Typha")], None, "Typha", 0),
    ([("a", "keep", ""), ("a", "move", "Typha"), ("a", "move", "Iris")], "keep", "Iris", 0),
    ([("a", "move", "Typha"), ("a", "reject", "")], "reject", "Typha", 0),
    ([("a", "not_duplicate", "b"), ("b", "not_duplicate", "a"), ("a", "not_duplicate", "c")], None,
     None, 2),
    ([("a", "not_duplicate", "b"), ("x", "undo", "0")], None, None, 0),
    ([("a", "not_duplicate", "b"), ("b", "duplicate", "a")], None, None, 0),
    ([("a", "duplicate", "b"), ("b", "not_duplicate", "a")], None, None, 1),
])
def test_the_latest_decisions_that_are_not_undone_are_in_force(steps, choice, move, apart):
    verdicts = de.fold(made(*steps))
    assert verdicts.choices.get(("a", "Rosa"), {"action": None})["action"] == choice
    assert verdicts.moves.get(("a", "Rosa")) == move
    assert len(verdicts.apart) == apart
