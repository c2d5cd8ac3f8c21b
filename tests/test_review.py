"""The review: views, refused requests, and decisions that survive restarts and kills."""
import http.client
import io
import json
import os
import shutil
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from PIL import Image

from benchmarks.review import draw_rows
from dataset_preparation.cleaning import review_views as rw
from dataset_preparation.cleaning.decisions import fold
from tests.conftest import NAMES, draw, jpeg, run_script, snapshot, write_classes
from tests.preparing import clean
from tests.reviewing import (
    BEST,
    BROKEN,
    COPY,
    ORIGIN,
    PLAIN,
    SCRIPT,
    SMALL,
    STOLEN,
    asked,
    decisions,
    files,
    flags,
    reviewing,
    rows_of,
    script,
)
from utils import sha256, write_table


@pytest.fixture
def folder(cleaned_once, tmp_path):
    return shutil.copytree(cleaned_once, tmp_path / "folder")


# ---- what is shown ----

def test_every_view_of_the_review_shows_its_photographs(folder):
    with reviewing(folder) as page:
        assert requests.get(page.base + "/overview").status_code == 403
        assert requests.get(page.base + "/photo").status_code == 403
        assert requests.post(page.base + "/decide", data="[]").status_code == 403
        assert files(page.blocks("duplicates")) == [[BEST, COPY]]
        assert [set(block) for block in files(page.blocks("conflicts"))] == [{STOLEN, ORIGIN}]
        assert files(page.blocks("rejected")) == [[SMALL], [BROKEN]]  # what can be looked at first
        assert page.blocks("borderline") == page.blocks("no such view") == []
        suspicion = [float(block[0]["suspicion"]) for block in page.blocks()]
        assert suspicion == sorted(suspicion, reverse=True)
        views = page.views()
        assert {name: views["sheet", name]["total"] for name in ("", *NAMES)} == dict(
            zip(("", *NAMES), (13, 4, 5, 4), strict=True))
        assert files(page.blocks(name=NAMES[1], word="several names")) == [[STOLEN]]
        assert page.blocks(name=NAMES[1], word="several names")[0][0]["proposal"] == NAMES[2]
        assert views["sheet", NAMES[1]]["suspected"]["several names"] == 1
        assert page.get("sheet", view="sheet", page="x").status_code == 400


def test_a_borderline_pair_is_shown_once(folder):
    rows = rows_of(folder)
    one, other = rows[PLAIN], rows[f"{NAMES[1]}/003.jpg"]
    one.update(near=other["file"], near_alike="0.7")
    other.update(near=one["file"], near_alike="0.7")
    write_table(folder / "cleaned/cleaned.csv", one.keys(), rows.values())
    with reviewing(folder) as page:
        assert [set(block) for block in files(page.blocks("borderline"))] == [{one["file"],
                                                                               other["file"]}]
        assert page.decide(asked(one, "not_duplicate", other["sha256"])).ok
        assert page.views()["borderline", ""]["reviewed"] == 1
        assert len(decisions(folder)) == 1
        # Said already
        assert page.decide(asked(other, "not_duplicate", one["sha256"])).json()["changed"] == {}
        assert len(decisions(folder)) == 1


def test_only_classes_of_the_table_are_offered_and_proposed(folder):
    rows, strange = rows_of(folder), "Unknown plant"
    rows[PLAIN].update({"class": strange, "label_class": strange})
    for file in (STOLEN, ORIGIN):
        rows[file]["proposal"] = strange
    write_table(folder / "cleaned/cleaned.csv", rows[PLAIN].keys(), rows.values())
    with reviewing(folder) as page:
        classes = page.get("overview").json()["classes"]
        assert {one["name"]: one["offered"] for one in classes} == {**dict.fromkeys(NAMES, True),
                                                                    strange: False}
        assert page.views()["sheet", strange]["total"] == 1
        assert {row["proposal"] for block in page.blocks("conflicts") for row in block} == {""}
        assert page.decide(asked(rows[BEST], "move", strange)).status_code == 400
        assert page.decide(asked(rows[PLAIN], "move", NAMES[0])).ok


def test_photographs_are_served_while_a_new_table_is_read(folder):
    rows, table = list(rows_of(folder).values()), folder / "cleaned/cleaned.csv"
    filler = [dict.fromkeys(rows[0], "") | row for row in draw_rows(4000, NAMES)]
    write_table(table, rows[0].keys(), [*filler, *rows])
    with reviewing(folder) as page, ThreadPoolExecutor(1) as other:
        for moment in range(20):
            os.utime(table, (moment, moment))  # as if cleaning had written it again
            reading = other.submit(page.views)
            while not reading.done():
                assert page.get("photo", sha256=rows[0]["sha256"], **{"class": rows[0]["class"]}).ok


@pytest.mark.parametrize("sizes", [[], [1] * 7, [1] * 250, [2] * 130, [150, 1, 1], [60, 60, 60],
                                   [3] * 33 + [2]])
def test_pages_hold_every_block_once(sizes):
    blocks = [[{"sha256": f"{i}.{j}", "class": "Rosa"} for j in range(size)]
              for i, size in enumerate(sizes)]
    _, first, count = rw.page_of(blocks, 0, lambda block: False)
    pages = [rw.page_of(blocks, number, lambda block: False)[1] for number in range(count)]
    assert [block for page in pages for block in page] == blocks
    assert all(len(page) == 1 or sum(map(len, page)) <= rw.PER_PAGE for page in pages)
    assert rw.page_of(blocks, count + 5, lambda block: False)[0] == count - 1
    for number, page in enumerate(pages):
        seen = {rw.key_of(block[0]) for before in pages[:number] for block in before}
        assert not page or rw.page_of(
            blocks, -1, lambda block, seen=seen: rw.key_of(block[0]) in seen)[0] == number


def test_only_photographs_of_the_table_are_served(folder):
    rows, images = rows_of(folder), folder / "collected/images"
    (images / NAMES[0] / "later.jpg").write_bytes(jpeg(draw(99)))
    (folder / "secret.jpg").write_bytes(jpeg(draw(98)))
    link = f"{NAMES[2]}/link.jpg"
    (images / link).symlink_to(folder / "secret.jpg")
    added = [{**rows[PLAIN], "file": file, "sha256": sha256(file.encode())} for file in (
        "../../secret.jpg", str(folder / "secret.jpg"), link)]
    away = {**rows[PLAIN], "label_class": "../../..",
            "sha256": (folder / "secret.jpg").stem + "0" * 58}
    write_table(folder / "cleaned/cleaned.csv", rows[PLAIN].keys(), [*rows.values(), *added, away])
    with reviewing(folder) as page:
        for file in (PLAIN, COPY, STOLEN, SMALL):
            row = rows[file]
            small, large = (page.get("photo", sha256=row["sha256"], **{"class": row["class"]},
                                     **more)
                            for more in ({}, {"large": 1}))
            assert small.headers["Content-Type"] == large.headers["Content-Type"] == "image/jpeg"
            assert "max-age" in small.headers["Cache-Control"]
            assert Image.open(io.BytesIO(large.content)).size == (int(row["width"]),
                                                                  int(row["height"]))
            assert min(Image.open(io.BytesIO(small.content)).size) == 256
        shown = rows[PLAIN]["sha256"]
        refused = [{}, {"sha256": shown}, {"sha256": shown, "class": NAMES[0]},
                   {"sha256": rows[BROKEN]["sha256"], "class": NAMES[0]},
                   {"sha256": sha256((images / NAMES[0] / "later.jpg").read_bytes()),
                    "class": NAMES[0]},
                   {"sha256": "../../../secret", "class": NAMES[1]},
                   *({"sha256": row["sha256"], "class": row["class"]} for row in added)]
        for query in refused:
            for more in ({}, {"large": 1}):
                assert page.get("photo", **query, **more).status_code == 404, query
        connection = http.client.HTTPConnection("127.0.0.1", page.server.server_port)
        for path in ("/../cleaned.csv", "/cleaned.csv", "/%2e%2e/secret.jpg",
                     "/photo/../../secret.jpg", "//etc"):
            connection.request("GET", path,
                               headers={"Cookie": f"{page.server.cookie}={page.server.token}"})
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (404, b"there is no such page")


# ---- decisions ----

HOSTILE = ["", "{}", "null", "[1]", "[[]]", '[{"key": "x"}]', '[{"key": 1, "action": "keep"}]',
           "[" * 100_000, "\udcff",
           '[{"key": "KEY", "action": "burn"}]', '[{"key": "KEY", "action": "keep", "value": "x"}]',
           '[{"key": "KEY", "action": "move", "value": "Rosa\\nnova"}]',
           '[{"key": "KEY", "action": "move"}]',
           '[{"key": "KEY", "action": "undo", "value": "2026"}]',
           '[{"key": "/", "action": "keep"}]',
           '[{"key": "KEY", "action": "not_duplicate", "value": "ab"}]',
           '[{"key": "KEY", "action": "not_duplicate"}]',
           '[{"key": "KEY/x", "action": "keep"}]',
           '[{"key": "KEY", "action": "keep", "time": "1"}]',
           '[{"key": "KEY", "action": ["keep"]}]',
           '[{"key": "KEY", "action": "keep"}, {"key": "KEY", "action": "burn"}]']


def test_an_invalid_decision_is_refused_with_its_whole_request(folder, capsys):
    rows = rows_of(folder)
    row, unread = rows[PLAIN], {**dict.fromkeys(rows[PLAIN], ""), "file": "huge.jpg", "class": "x",
                                "label_class": "x"}
    write_table(folder / "cleaned/cleaned.csv", row.keys(), [*rows.values(), unread])
    with reviewing(folder) as page:
        for body in HOSTILE:
            data = body.replace("KEY",
                                f"{row['sha256']}/{row['class']}").encode(errors="surrogateescape")
            reply = page.session.post(page.base + "/decide", data=data)
            assert (reply.status_code, bool(reply.text)) == (400, True), body[:80]
        assert page.session.post(page.base + "/decide", data=b" " * 1_000_001).status_code == 413
        assert not (folder / "cleaned/decisions.csv").exists()
        assert page.decide(asked(row, "keep")).json()["decisions"] == 1
    assert capsys.readouterr().err == ""


def test_decisions_are_only_appended_and_outlive_restart_and_cleaning(folder):
    rows, path = rows_of(folder), folder / "cleaned/decisions.csv"
    collected, written = snapshot(folder / "collected"), b""
    with reviewing(folder) as page:
        for row, action, value in ((rows[SMALL], "keep", ""), (rows[PLAIN], "keep", ""),
                                   (rows[PLAIN], "reject", ""),
                                   (rows[STOLEN], "move", NAMES[2]), (rows[BROKEN], "reject", ""),
                                   (rows[COPY], "not_duplicate", rows[BEST]["sha256"])):
            changed = page.decide(asked(row, action, value)).json()["changed"]
            assert asked(row, "")["key"] in changed
            assert path.read_bytes().startswith(written)
            assert len(path.read_bytes()) > len(written)
            written = path.read_bytes()
        assert page.decide(asked(rows[PLAIN], "reject")).json()["changed"] == {}  # nothing new
        assert path.read_bytes() == written
        shown = {view: page.blocks(view) for view in ("sheet", "duplicates", "conflicts",
                                                      "rejected")}
        counts = {view: one["reviewed"] for view, one in page.views().items()}
    assert {key: counts[key] for key in counts if key[0] == "sheet" or not key[1]} == {
        ("sheet", ""): 3, ("sheet", NAMES[0]): 1, ("sheet", NAMES[1]): 2,
                      ("sheet", NAMES[2]): 0,
                      ("duplicates", ""): 1, ("conflicts", ""): 1, ("rejected", ""): 2,
                      ("borderline", ""): 0}
    with reviewing(folder) as page:
        assert {view: page.blocks(view) for view in shown} == shown
        assert {view: one["reviewed"] for view, one in page.views().items()} == counts
        after = clean(folder)  # while the page is open
        assert {file: (after[file]["label_class"], after[file]["status"]) for file in (
            SMALL, PLAIN, STOLEN, ORIGIN, COPY, BEST, BROKEN)} == {
            SMALL: (NAMES[0], "kept"), PLAIN: (NAMES[1], "rejected"),
            STOLEN: (NAMES[2], "duplicate"),
            ORIGIN: (NAMES[2], "kept"), COPY: (NAMES[0], "kept"), BEST: (NAMES[0], "kept"),
            BROKEN: (NAMES[0], "rejected")}
        page.get("overview")  # as the page asks after every verdict
        assert {file for [file] in files(page.blocks("rejected"))} == {PLAIN, BROKEN}
        assert files(page.blocks("conflicts")) == []
        assert page.blocks("rejected")[0][0]["verdict"]["choice"] == "reject"
        # Now below others/
        assert page.get("photo", sha256=rows[PLAIN]["sha256"], **{"class": NAMES[1]}).ok
    assert path.read_bytes() == written
    assert snapshot(folder / "collected") == collected


def test_undo_takes_back_one_key_press_after_the_other(folder):
    rows = rows_of(folder)
    with reviewing(folder) as page:
        assert page.undo() == {}
        page.decide(asked(rows[PLAIN], "keep"))
        page.decide(*(asked(rows[file], "move", NAMES[0]) for file in (PLAIN, STOLEN, ORIGIN)))
        page.decide(asked(rows[PLAIN], "reject"))
        key = asked(rows[PLAIN], "")["key"]
        assert page.undo()[key] == {"choice": "keep", "bulk": False, "move": NAMES[0],
                                    "apart": [], "together": []}
    with reviewing(folder) as page:  # after a restart, too
        changed = page.undo()
        assert (len(changed), changed[key]["move"]) == (3, "")
        page.decide(asked(rows[SMALL], "keep"))
        assert set(page.undo()) == {asked(rows[SMALL], "")["key"]}
        assert not any(page.undo()[key].values())
        assert page.undo() == {}
        assert not any(one["reviewed"] for one in page.views().values())
    verdicts = fold(decisions(folder))
    assert (verdicts.choices, verdicts.moves, verdicts.apart) == ({}, {}, set())
    assert Counter(row["action"] for row in decisions(folder)) == {"keep": 2, "move": 3,
                                                                   "reject": 1, "undo": 6}


def test_a_refused_decision_drops_no_other(folder):
    rows = rows_of(folder)
    gone = {**rows[PLAIN], "sha256": "0" * 64}
    with reviewing(folder) as page:
        reply = page.decide(asked(rows[BEST], "keep"), asked(gone, "keep"),
                            asked(rows[PLAIN], "move", "Rosa nova"), asked(rows[SMALL], "keep"))
        assert reply.status_code == 200
        assert [one["key"] for one in reply.json()["refused"]] == [
            asked(row, "")["key"] for row in (gone, rows[PLAIN])]
        assert [row["sha256"] for row in decisions(folder)] == [rows[BEST]["sha256"],
                                                                rows[SMALL]["sha256"]]


def test_a_tab_undoes_its_own_key_presses(folder):
    rows = rows_of(folder)
    with reviewing(folder) as page:
        def keep(file, tab):
            return page.session.post(f"{page.base}/decide?tab={tab}",
                                     data=json.dumps([asked(rows[file], "keep")])).ok

        def undo(tab, others):
            changed = page.session.post(f"{page.base}/undo?tab={tab}&others={others}", data="[]")
            return list(changed.json()["changed"])
        assert keep(BEST, "a") and keep(PLAIN, "b") and keep(SMALL, "b") and keep(STOLEN, "c")
        assert undo("a", "b,c") == [asked(rows[BEST], "")["key"]]
        assert undo("a", "b,c") == []  # what open tabs did stays
        assert undo("a", "b") == [asked(rows[STOLEN], "")["key"]]  # tab c was closed
        assert undo("b", "a") == [asked(rows[SMALL], "")["key"]]
    with reviewing(folder) as page:  # after a restart, none is known to be of an open tab
        assert list(page.undo()) == [asked(rows[PLAIN], "")["key"]]


def test_decisions_of_many_clients_at_once_are_all_recorded(folder):
    rows = [row for row in rows_of(folder).values() if row["status"] == "kept"]
    with reviewing(folder) as page, ThreadPoolExecutor(8) as people:
        wanted = [(row, action) for action in ("reject", "keep") for row in rows]
        assert all(reply.ok for reply in people.map(lambda one: page.decide(asked(*one)), wanted))
        assert page.views()["sheet", ""]["reviewed"] == len(rows)
    made = decisions(folder)
    assert Counter((row["sha256"], row["action"])
                   for row in made) == Counter((row["sha256"], action)
                                              for row, action in wanted)
    assert len({row["time"] for row in made}) == len(made)


def test_a_verdict_answered_is_on_the_disk_even_if_killed_at_once(folder):
    rows = [row for row in rows_of(folder).values() if row["status"] == "kept"]
    for count, row in enumerate(rows[:2], 1):
        with script(folder) as (process, url), requests.Session() as session:
            assert session.get(url).ok
            base = url.split("/?")[0]
            assert session.get(base + "/overview").json()["decisions"] == count - 1
            assert session.post(base + "/decide", data=json.dumps([asked(row, "reject")])).ok
            process.send_signal(signal.SIGKILL)
        assert [one["sha256"] for one in decisions(folder)] == [one["sha256"]
                                                                for one in rows[:count]]


def test_without_cleaned_csv_the_review_names_the_script_to_run(tmp_path):
    write_classes(tmp_path / "classes.csv", NAMES)
    said = run_script(SCRIPT, *flags(tmp_path), status=1).stderr
    assert "cleaned.csv does not exist; run dataset_preparation/cleaning/cleaning.py first" in said
