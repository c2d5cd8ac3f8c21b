"""The status of a photograph follows from near-duplicates, decisions and borderline pairs."""
import numpy as np
import pytest

from dataset_preparation.cleaning.decisions import Verdicts
from dataset_preparation.cleaning.duplicate_pairs import BORDERLINE, NEAR, Pair
from dataset_preparation.cleaning.local_features import Match
from dataset_preparation.cleaning.near_duplicates import (
    NUM_VIEWS,
    WORDS,
    pair_equal,
    pairs_with_leaders,
    to_hex,
)
from dataset_preparation.cleaning.statuses import assign_statuses

RULE = {"hash_distance": 12, "check_distance": 48, "borderline_distance": 88}
NOTHING_DECIDED = Verdicts({}, {}, set())


def make_row(file, picture, check=0, **values):
    """Return what `inspect` finds; of one `picture`, the second hash differs in `check` bits."""
    rng = np.random.default_rng(picture)
    fingerprint = rng.integers(0, 2**64, (NUM_VIEWS, WORDS), dtype=np.uint64)
    for bit in range(check):
        fingerprint[:, 1 + bit // 64] ^= np.uint64(1 << bit % 64)
    return {"file": file, "class": file.split("/")[0], "sha256": f"{file:0<64}", "bytes": 9000,
            "width": 600, "height": 400, "reason": "", "fingerprint": to_hex(fingerprint),
            "scores": {}, **values}


def search(contents, fingerprints):
    """Return the pairs that the hashes alone make: these rows have no pixels."""
    table = pairs_with_leaders(fingerprints, RULE).T.tolist()
    table += [(i, j, 0, 0) for i, j in pair_equal(contents)]
    return [Pair(i, j, NEAR if check <= RULE["check_distance"] else BORDERLINE, bits, check,
                 Match(99, 1, 1, 1, 1)) for i, j, bits, check in table]


def statuses(rows, verdicts=NOTHING_DECIDED):
    """Return {file: status} and leave the columns filled in."""
    assign_statuses(rows, verdicts, {}, search)
    return {row["file"]: row["status"] for row in rows}


def decide(rows, **actions):
    """Return `Verdicts` that keep, reject or move the rows of these files of class Rosa."""
    keys = {row["file"].split("/")[1]: (row["sha256"], row["class"]) for row in rows}
    choices = {keys[file]: {"action": action, "reason": ""} for file, action in actions.items()
               if action in ("keep", "reject")}
    moves = {keys[file]: action for file, action in actions.items()
             if action not in ("keep", "reject")}
    return Verdicts(choices, moves, set())


@pytest.mark.parametrize("better", [
    {"width": 900, "bytes": 5000}, {"bytes": 9001}, {"height": 401, "bytes": 1}])
def test_of_near_duplicates_the_one_with_most_pixels_then_bytes_is_kept(better):
    rows = [make_row("Rosa/a", 1), make_row("Rosa/b", 1, **better), make_row("Rosa/c", 1)]
    assert statuses(rows) == {"Rosa/a": "duplicate", "Rosa/b": "kept", "Rosa/c": "duplicate"}
    assert {row["keeper"] for row in rows} == {"Rosa/b"}


def test_equal_files_go_with_the_better_photograph_that_one_of_them_is_near():
    """Features find a pair with the first of equal files only."""
    rows = [make_row("Rosa/a", 1, bytes=9001), make_row("Rosa/b", 2), make_row("Rosa/c", 2)]
    rows[2]["sha256"] = rows[1]["sha256"]

    def by_features(contents, _):
        return [Pair(i, j, NEAR, 0, 0, Match(99, 1, 1, 1, 1))
                for i, j in ((0, 1), *pair_equal(contents))]
    assign_statuses(rows, NOTHING_DECIDED, {}, by_features)
    assert [row["status"] for row in rows] == ["kept", "duplicate", "duplicate"]
    assert {row["keeper"] for row in rows} == {"Rosa/a"}


@pytest.mark.parametrize("check, status, near", [
    (48, "duplicate", ""), (49, "kept", "Rosa/a"), (88, "kept", "Rosa/a"), (89, "kept", "")])
def test_a_borderline_pair_is_kept_and_named(check, status, near):
    rows = [make_row("Rosa/a", 1), make_row("Rosa/b", 1, check=check)]
    assert statuses(rows) == {"Rosa/a": "kept", "Rosa/b": status}
    assert rows[1].get("near", "") == near


def test_decisions_by_hand_win():
    rows = [make_row("Rosa/a", 1, width=900), make_row("Rosa/b", 1), make_row("Rosa/c", 2),
            make_row("Rosa/d", 3, reason="too small: 90 px"), make_row("Rosa/e", 4)]
    verdicts = decide(rows, b="keep", c="reject", d="keep", e="Typha")
    assert statuses(rows, verdicts) == {
        "Rosa/a": "duplicate", "Rosa/b": "kept", "Rosa/c": "rejected", "Rosa/d": "kept",
        "Rosa/e": "kept"}
    assert [row["label_class"] for row in rows] == ["Rosa", "Rosa", "Rosa", "Rosa", "Typha"]


def test_rejecting_the_best_rejects_its_near_duplicates():
    rows = [make_row("Rosa/a", 1, width=900), make_row("Rosa/b", 1), make_row("Rosa/c", 2)]
    assert statuses(rows, decide(rows, a="reject")) == {
        "Rosa/a": "rejected", "Rosa/b": "rejected", "Rosa/c": "kept"}


@pytest.mark.parametrize("judged, proposal", [
    ((), ""), ((("Rosa", "0.90"), ("Rosa", "0.90")), "Rosa"), ((("Rosa", "0.90"),), "Rosa"),
    ((("Rosa", "0.40"), ("Rosa", "0.40")), ""), ((("Rosa", "0.90"), ("Typha", "0.90")), ""),
    ((("Malva", "0.90"), ("Malva", "0.90")), ""), ((("", ""), ("", "")), ""),
    ((("Rosa", ""),), "")])  # as an earlier version wrote it
def test_near_duplicates_under_several_names_wait_with_a_proposal_by_content(judged, proposal):
    rows = [make_row("Rosa/a", 1), make_row("Typha/b", 1, width=900), make_row("Typha/c", 2),
            make_row("Typha/d", 1)]
    scores = {(row["sha256"], row["class"]): {"label_score": "0.5", "proposal": name,
                                              "proposal_probability": chance}
              for row, (name, chance) in zip(rows, judged, strict=False)}
    assign_statuses(rows, NOTHING_DECIDED, scores, search)
    assert [row["status"] for row in rows] == ["review", "review", "kept", "review"]
    assert {row["proposal"] for row in rows if row["status"] == "review"} == {proposal}


def test_a_name_kept_by_hand_is_proposed_for_the_other_files():
    rows = [make_row("Rosa/a", 1), make_row("Typha/b", 1, width=900)]
    assert statuses(rows, decide(rows, a="keep")) == {"Rosa/a": "kept", "Typha/b": "review"}
    assert rows[1]["proposal"] == "Rosa"


def test_pairs_found_to_be_different_are_neither_merged_nor_borderline():
    for check in (10, 60):
        rows = [make_row("Rosa/a", 1), make_row("Rosa/b", 1, check=check)]
        apart = {frozenset(row["sha256"] for row in rows)}
        assert set(statuses(rows, NOTHING_DECIDED._replace(apart=apart)).values()) == {"kept"}
        assert not any("near" in row for row in rows)


def test_photographs_found_to_be_different_share_no_keeper():
    """Both are near-duplicates of a better one: it replaces the better of the two only."""
    rows = [make_row("Rosa/a", 1, width=900), make_row("Rosa/b", 1, width=800),
            make_row("Rosa/c", 1), make_row("Rosa/d", 1)]
    apart = {frozenset(row["sha256"] for row in rows[1:3])}
    assert statuses(rows, NOTHING_DECIDED._replace(apart=apart)) == {
        "Rosa/a": "kept", "Rosa/b": "duplicate", "Rosa/c": "kept", "Rosa/d": "duplicate"}
    assert [row["keeper"] for row in rows] == ["Rosa/a", "Rosa/a", "Rosa/c", "Rosa/a"]


def test_one_picture_by_hand_shares_a_group_unless_it_joins_what_is_apart():
    def groups(apart=(), together=()):
        rows = [make_row("Rosa/0", 0), make_row("Rosa/1", 1), make_row("Rosa/2", 1, check=10)]
        pairs = [{frozenset(rows[i]["sha256"] for i in pair) for pair in decided}
                 for decided in (apart, together)]
        statuses(rows, Verdicts({}, {}, *pairs))
        return [row["group"] for row in rows]
    zero, one, two = groups()
    assert zero != one == two
    assert len(set(groups(together=[(0, 1)]))) == 1
    zero, one, two = groups(apart=[(0, 2)], together=[(0, 1)])
    assert zero != two


def test_a_chain_keeps_what_is_not_near_the_keeper_itself():
    """Each of five is 30 bits from the next: of a slow pan every second view is kept."""
    rows = [make_row(f"Rosa/{i}", 1, check=30 * i, width=900 - i) for i in range(5)]
    assert list(statuses(rows).values()) == ["kept", "duplicate", "kept", "duplicate", "kept"]
    assert [row["keeper"] for row in rows] == [f"Rosa/{i}" for i in (0, 0, 2, 2, 4)]
