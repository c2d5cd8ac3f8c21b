"""A cleaned folder, a running review, and what a browser can ask it."""
import json
import subprocess
import sys
import threading
from contextlib import contextmanager

import requests

import config
from dataset_preparation.cleaning import review as rv
from dataset_preparation.cleaning.decisions import read_decisions
from tests.conftest import NAMES, ROOT, draw, jpeg, make_collected
from tests.preparing import clean
from utils import read_table, write_table

SCRIPT = "dataset_preparation/cleaning/review.py"
COPY, BEST, SMALL, BROKEN = (f"{NAMES[0]}/{name}.jpg"
                             for name in ("000", "better", "small", "broken"))
STOLEN, ORIGIN, PLAIN = f"{NAMES[1]}/stolen.jpg", f"{NAMES[2]}/001.jpg", f"{NAMES[1]}/002.jpg"


def make_cleaned(folder):
    """Clean three classes of 4, a near-duplicate, a label conflict, one too small, one broken."""
    images = make_collected(folder / "collected", count=4) / "images"
    (images / BEST).write_bytes(jpeg(draw(0, (600, 560))))
    (images / STOLEN).write_bytes(jpeg(draw(2001), quality=70))
    (images / SMALL).write_bytes(jpeg(draw(77, (200, 180))))
    (images / BROKEN).write_bytes(jpeg(draw(78))[:900])
    rows = clean(folder)
    # As find_label_errors.py, which is sure of one of the two names.
    write_table(folder / "cleaned/label_scores.csv", (
        "sha256", "class", "label_score", "proposal", "proposal_probability", "outlier_score"), [
        {"sha256": rows[file]["sha256"], "class": rows[file]["class"], "label_score": score,
         "proposal": NAMES[2], "proposal_probability": "0.9400"}
        for file, score in ((STOLEN, "0.0310"), (ORIGIN, "0.9400"))])
    clean(folder)
    return folder


def flags(folder):
    return [str(one) for one in ("--cleaned_dir", folder / "cleaned", "--collected_dir",
                                 folder / "collected",
                                 "--class_table", folder / "classes.csv", "--no-open_browser",
                                 "--review_port", "0")]


class Page:
    """What a browser that opened the address can ask."""

    def __init__(self, server, session):
        self.base = f"http://127.0.0.1:{server.server_port}"
        self.session, self.server = session, server
        assert session.get(server.url).ok

    def get(self, path, **query):
        return self.session.get(f"{self.base}/{path}", params=query)

    def blocks(self, view="sheet", **query):
        return self.get("sheet", view=view, **query).json()["blocks"]

    def views(self):
        return {(one["view"], one["name"]): one for one in self.get("overview").json()["views"]}

    def decide(self, *decisions):
        return self.session.post(f"{self.base}/decide", data=json.dumps(list(decisions)))

    def undo(self):
        return self.session.post(f"{self.base}/undo", data="[]").json()["changed"]


@contextmanager
def reviewing(folder):
    """Yield a `Page` of a review that answers, as after a start of the script."""
    s, _ = config.parse(flags(folder), rv.__file__, "")
    with rv.build_server(rv.build_review(s),
                         s.review_port) as server, requests.Session() as session:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield Page(server, session)
        server.shutdown()


def rows_of(folder):
    return {row["file"]: row for row in read_table(folder / "cleaned/cleaned.csv")}


def asked(row, action, value=""):
    return {"key": f"{row['sha256']}/{row['class']}", "action": action, "value": value}


def files(blocks):
    return [[row["file"] for row in block] for block in blocks]


def decisions(folder):
    return read_decisions(folder / "cleaned/decisions.csv")


@contextmanager
def script(folder, *more):
    """Run review.py itself; yield (process, its address)."""
    command = [sys.executable, str(ROOT / SCRIPT),
               *flags(folder), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, next(line.split()[1]
                                for line in process.stdout if line.startswith("open "))
        finally:
            process.kill()
