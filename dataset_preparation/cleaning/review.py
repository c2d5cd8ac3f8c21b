"""The final cleaning by hand: a page on this machine to keep, reject and move photographs, one key a verdict.

    python dataset_preparation/cleaning/review.py
    open http://127.0.0.1:8765/?token=...
    Ctrl-C stops the page

Shows the photographs of `<CLEANED_DIR>/cleaned.csv`: contact sheets per class, most suspicious first; copies side by
side; pictures under several names, with a proposal where one is preferred; pairs that may be copies; the rejected, to
bring back. A verdict is on the disk, in `<CLEANED_DIR>/decisions.csv`, before the page shows it. Nothing else is
changed: cleaning.py, run again, follows the decisions.
"""
import json
import re
import sys
import threading
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config
from dataset_preparation.cleaning.decisions import TIME, append_decisions, fold, in_force, read_decisions
from images import BadImage, encode, open_image, to_rgb
from utils import InputError, read_classes, read_table, run
from web.page_server import PageServer, Reply, json_reply, page, serve, text_reply

COLUMNS = ("file", "class", "label_class", "sha256", "width", "height", "status", "reason", "group", "keeper",
           "distance", "near", "near_bits", "proposal", "suspicion", "suspected")
PER_PAGE = 100
SMALL, LARGE = 256, 1400  # pixels: shorter side of a photograph on a sheet, longer side of one that is looked at
KEEP_SECONDS = 86_400  # a browser may keep a photograph that long: its address names its content


def main(argv=None):
    config.override(argv, description=__doc__)
    review = build_review()
    ledger = review.ledger
    print(f"{len(review.rows):,} photographs, {len(ledger.rows):,} decisions in {ledger.path}")
    serve(build_server(review), config.OPEN_BROWSER)
    print(f"{len(ledger.rows):,} decisions; run dataset_preparation/cleaning/cleaning.py to have them followed")


def build_review():
    """Return the `Review` of the photographs that the settings name."""
    return Review(config.CLEANED_DIR, config.COLLECTED_DIR / "images", read_classes(config.CLASS_TABLE),
                  config.MAX_MEGAPIXELS)


def build_server(review):
    """Return a server of the page, for this machine only."""
    routes = {("GET", "/"): page(Path(__file__).with_suffix(".html")), ("GET", "/overview"): review.overview,
              ("GET", "/sheet"): review.sheet, ("GET", "/photo"): review.photo, ("POST", "/decide"): review.decide,
              ("POST", "/undo"): review.undo}
    return PageServer(routes, port=config.REVIEW_PORT, flag="--review_port")


# ---- the table ----

def arrange(rows):
    """Return {(view, class): [block]}, the most suspicious first; a block is a list of rows judged side by side.

    Views: `sheet` (one row a block; class "" holds all), `duplicates`, `conflicts`, `borderline` and `rejected`, the
    last four under class "".
    """
    views, groups, by_file = defaultdict(list), defaultdict(list), {row["file"]: row for row in rows}
    for row in sorted(rows, key=lambda row: (-float(row["suspicion"] or 0), row["file"])):
        if row["status"] in ("kept", "review"):
            views["sheet", ""].append([row])
            views["sheet", row["label_class"]].append([row])
        elif row["status"] == "rejected":
            views["rejected", ""].append([row])
        if row["group"]:
            groups[row["group"]].append(row)
    views["rejected", ""].sort(key=lambda block: (not block[0]["width"], block[0]["reason"].split(":")[0],
                                                  block[0]["file"]))  # what can be looked at first
    for group in groups.values():
        group.sort(key=lambda row: (row["file"] != row["keeper"], row["file"]))
        statuses = {row["status"] for row in group}
        if "review" in statuses or "copy" in statuses:
            views["conflicts" if "review" in statuses else "duplicates", ""].append(group)
    views["duplicates", ""].sort(key=lambda group: (-max(int(row["distance"] or 0) for row in group), group[0]["file"]))
    pairs = {frozenset((row["file"], row["near"])): [row, by_file[row["near"]]] for row in rows
             if row["near"] in by_file}
    views["borderline", ""] = sorted(pairs.values(), key=lambda pair: (float(pair[0]["near_bits"]), pair[0]["file"]))
    return views


def page_of(blocks, number, seen):
    """Return (number of the page, blocks of it, number of pages) of about PER_PAGE photographs each.

    Page -1 is the first with a block of which no row is `seen`.
    """
    starts, count = [0], 0
    for i, block in enumerate(blocks):
        if count and count + len(block) > PER_PAGE:
            starts.append(i)
            count = 0
        count += len(block)
    if number < 0:
        first = next((i for i, block in enumerate(blocks) if not is_seen(block, seen)), 0)
        number = sum(start <= first for start in starts) - 1
    number = min(number, len(starts) - 1)
    return number, blocks[starts[number]:[*starts, len(blocks)][number + 1]], len(starts)


def key_of(row):
    """Return what a decision names a photograph by: its content and the class it was collected for."""
    return row["sha256"], row["class"]


def is_seen(block, seen):
    """Return whether a decision has been made in a block."""
    return any(key_of(row) in seen for row in block)


# ---- the decisions ----

class Ledger:
    """The decisions so far, by the photographs they are about, and the last ones not undone."""

    def __init__(self, path):
        self.path, self.rows, self.about, self.photographs = path, [], defaultdict(list), {}
        self.take(read_decisions(path))

    def take(self, rows):
        """Add decisions that are on the disk; return the SHA-256 of the photographs they are about."""
        touched = set()
        for row in rows:
            about = (self.photographs.get(row["value"], set()) if row["action"] == "undo" else
                     {row["sha256"], row["value"]} if row["action"] == "not_duplicate" else {row["sha256"]})
            self.photographs[row["time"]] = about
            self.rows.append(row)
            for sha in about:
                self.about[sha].append(row)
            touched |= about
        return touched

    def add(self, made):
        """Write decisions (sha256, class, action, value, reason) made at once, then take them."""
        return self.take(append_decisions(self.path, made)) if made else set()

    def last(self):
        """Return the decisions made at once that undo is about, the latest first; none where all are undone."""
        batch = []
        for row in in_force(self.rows):
            if batch and datetime.strptime(batch[-1]["time"], TIME) - datetime.strptime(
                    row["time"], TIME) != timedelta(microseconds=1):
                break
            batch.append(row)
        return batch


# ---- what the page asks ----

class Review:
    """Answers the page; `overview`, `sheet`, `photo`, `decide` and `undo` are routes."""

    def __init__(self, cleaned, images, classes, max_megapixels):
        self.cleaned, self.images, self.classes, self.max_megapixels = cleaned, images, classes, max_megapixels
        self.latin = [one.latin for one in classes]
        self.lock, self.decoding = threading.RLock(), threading.Semaphore(2)
        self.ledger = Ledger(cleaned / "decisions.csv")
        self.load()

    def load(self):
        """Read the table; `stamp` tells when it was written."""
        table = self.cleaned / "cleaned.csv"
        if not table.is_file():
            raise InputError(f"{table} does not exist; run dataset_preparation/cleaning/cleaning.py first")
        self.stamp = table.stat().st_mtime_ns
        self.rows = read_table(table, COLUMNS)
        for row in self.rows:
            if row["proposal"] not in self.latin:  # labelling would leave out what is moved there
                row["proposal"] = ""
        self.by_sha = defaultdict(list)
        for row in self.rows:
            if row["sha256"]:  # else it has never been read, and no decision could name it
                self.by_sha[row["sha256"]].append(row)
        self.views, self.seen, self.places = arrange(self.rows), set(), defaultdict(list)
        for view, blocks in self.views.items():
            for i, block in enumerate(blocks):
                for row in block:
                    self.places[key_of(row)].append((view, i))
        self.reviewed = {view: set() for view in self.views}  # numbers of the blocks with a decision
        self.suspected = {view: Counter(word for [row] in blocks for word in row["suspected"].split(", ") if word)
                          for view, blocks in self.views.items() if view[0] == "sheet"}
        self.names = list(dict.fromkeys([*self.latin, *sorted({row["label_class"] for row in self.rows})]))
        for sha in self.ledger.about:
            self.look_again(sha)

    def look_again(self, sha):
        """Return {key: verdict} of the photographs with this content, and note whether they have one."""
        verdicts, states = fold(self.ledger.about[sha]), {}
        for row in self.by_sha.get(sha, ()):
            key = key_of(row)
            state = {"choice": verdicts.choices.get(key, {"action": ""})["action"],
                     "move": verdicts.moves.get(key, ""),
                     "apart": sorted(other for pair in verdicts.apart for other in pair - {sha})}
            if any(state.values()) != (key in self.seen):
                self.seen ^= {key}
                for view, i in self.places[key]:
                    seen = is_seen(self.views[view][i], self.seen)
                    (self.reviewed[view].add if seen else self.reviewed[view].discard)(i)
            states["/".join(key)] = state
        return states

    def overview(self, request):
        """Return the classes and, per view, how many blocks there are, how many are reviewed, and what is suspected."""
        with self.lock:
            if self.stamp != (self.cleaned / "cleaned.csv").stat().st_mtime_ns:
                self.load()
            also = {one.latin: [one.russian, one.english, *one.also] for one in self.classes}
            views = [{"view": view, "name": name, "total": len(blocks), "reviewed": len(self.reviewed[view, name]),
                      "suspected": self.suspected.get((view, name), {})}
                     for (view, name), blocks in self.views.items()]
            return json_reply({"classes": [{"name": name, "also": also.get(name, []), "offered": name in also}
                                           for name in self.names],
                               "views": views, "decisions": len(self.ledger.rows)})

    def sheet(self, request):
        """Return one page of a view: query `view`, `name` (of the class), `page` and `word` (suspected)."""
        view, name, word = (request.query.get(part, "") for part in ("view", "name", "word"))
        number = request.query.get("page", "0")
        if not re.fullmatch(r"-?\d{1,9}", number):
            raise InputError(f"{number!r} is no number")
        with self.lock:
            blocks = [block for block in self.views.get((view, name), ())
                      if not word or word in block[0]["suspected"].split(", ")]
            number, blocks, pages = page_of(blocks, int(number), self.seen)
            return json_reply({"page": number, "pages": pages,
                               "blocks": [[self.describe(row) for row in block] for block in blocks]})

    def describe(self, row):
        """Return what the page shows of a row and of the verdicts on it."""
        key = "/".join(key_of(row))
        return {**{name: row[name] for name in COLUMNS}, "key": key, "shown": bool(row["width"]),
                "verdict": self.look_again(row["sha256"]).get(key) if row["sha256"] in self.ledger.about else None}

    def photo(self, request):
        """Return a photograph of the table, its cleaned copy or, asked for `large` or where there is none, itself."""
        with self.lock:
            rows = [row for row in self.by_sha.get(request.query.get("sha256", ""), ())
                    if row["class"] == request.query.get("class") and row["width"]]  # else it could not be decoded
        if not rows:
            return text_reply(404, "the table has no such photograph")
        row, large = rows[0], "large" in request.query
        for folder in () if large else ("images", "others"):
            path = self.cleaned / folder / row["label_class"] / f"{row['sha256'][:16]}.jpg"
            if path.is_file() and path.resolve().is_relative_to(self.cleaned.resolve()):
                return Reply(path.read_bytes(), "image/jpeg", keep_seconds=KEEP_SECONDS)
        path = self.images / row["file"]
        if not path.resolve().is_relative_to(self.images.resolve()):
            return text_reply(404, "not in the folder of collected photographs")
        try:
            with self.decoding:
                return Reply(shrink(path, large, self.max_megapixels), "image/jpeg", keep_seconds=KEEP_SECONDS)
        except (BadImage, OSError) as error:
            return text_reply(404, str(error))

    def decide(self, request):
        """Write the decisions of one key press: a JSON list of {key, action, value}; return what they change."""
        with self.lock:
            made = [one for asked in read_decisions_asked(request.body) if (one := self.check(asked))]
            return self.changed(self.ledger.add(made))

    def check(self, asked):
        """Return (sha256, class, action, value, reason) of a decision asked for, or None where it changes nothing."""
        sha, _, name = asked["key"].partition("/")
        state = self.look_again(sha).get(asked["key"])
        if state is None:
            raise InputError("the table has no such photograph; load the page again")
        action, value = asked["action"], asked.get("value", "")
        known = {"keep": [""], "reject": [""], "move": self.latin, "not_duplicate": self.by_sha}
        if value not in known.get(action, ()):
            raise InputError(f"{action!r} of {value!r} is no decision")
        same = (value in state["apart"] or value == sha if action == "not_duplicate" else
                state["move"] == value and state["choice"] != "reject" if action == "move" else
                state["choice"] == action)
        return None if same else (sha, name, action, value, "")

    def undo(self, request):
        """Undo the decisions of the last key press not undone; return what that changes."""
        with self.lock:
            return self.changed(self.ledger.add([(row["sha256"], row["class"], "undo", row["time"], "")
                                                 for row in self.ledger.last()]))

    def changed(self, shas):
        """Return the verdicts on the photographs with these contents."""
        states = {}
        for sha in sorted(shas):
            states.update(self.look_again(sha))
        return json_reply({"changed": states, "decisions": len(self.ledger.rows)})


def read_decisions_asked(body):
    """Return the list of dictionaries of text the page sent; raise InputError for anything else."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, list) or not all(
            isinstance(one, dict) and {"key", "action"} <= set(one) <= {"key", "action", "value"}
            and all(isinstance(text, str) for text in one.values()) for one in asked):
        raise InputError("not a list of decisions")
    return asked


def shrink(path, large, max_megapixels):
    """Return the bytes of a photograph as a JPEG of at most LARGE pixels or about SMALL pixels on the shorter side."""
    image = to_rgb(open_image(path, max_megapixels, draft_side=LARGE if large else SMALL)[0])
    side = LARGE if large else round(SMALL * min(4.0, max(image.size) / min(image.size)))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return encode(image, quality=90)


if __name__ == "__main__":
    run(main)
