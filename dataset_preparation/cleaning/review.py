"""Review by hand: a page on this machine to keep, reject and move photographs, one key each.

    python dataset_preparation/cleaning/review.py
    open http://127.0.0.1:8765/?token=...
    Ctrl-C stops the page

Shows the photographs of `<CLEANED_DIR>/cleaned.csv`: contact sheets per class, most suspicious
first; near-duplicates side by side; pictures under several names, with a proposal if
find_label_errors.py is sure; borderline pairs; and rejected photographs, to restore them. A
decision is on the disk, in `<CLEANED_DIR>/decisions.csv`, before the page shows it as saved.
Nothing else is changed: run cleaning.py again to apply the decisions.
"""
import json
import re
import sys
import threading
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config  # first: it reports a missing package in one sentence

# isort: split
from PIL import Image

from dataset_preparation.cleaning.cleaned_table import cleaned_name
from dataset_preparation.cleaning.decisions import ACTIONS, DecisionLog, fold, former_names
from dataset_preparation.cleaning.review_views import arrange, is_reviewed, key_of, page_of
from images import BadImage, encode, open_image, to_rgb
from names import present_name
from settings.command_line import next_command
from utils import InputError, read_classes, read_table, run, warn
from web.page_server import PageServer, Reply, json_reply, page, serve, text_reply

COLUMNS = ("file", "class", "label_class", "sha256", "width", "height", "status", "reason", "group",
           "keeper", "distance", "near", "near_alike", "label_score", "proposal",
           "proposal_probability", "suspicion", "suspected")
SMALL = 256  # pixels of the shorter side of a photograph on a sheet
LARGE = 1400  # pixels of the longer side of an enlarged photograph
KEEP_SECONDS = 86_400  # to cache a photograph, whose address identifies its content


def main(argv=None):
    s, given = config.parse(argv, __file__, __doc__)
    review = build_review(s)
    print(f"{len(review.rows):,} photographs, {len(review.ledger.rows):,} decisions in "
          f"{review.ledger.path}")
    serve(build_server(review, s.review_port), s.open_browser)
    command = next_command("dataset_preparation/cleaning/cleaning.py", given)
    count = len(review.ledger.rows)
    print(f"{count:,} decisions" + (f"; run {command} to apply them" if count
                                    else ", nothing to apply"))


def build_review(s):
    """Return the `Review` of the photographs that the settings name."""
    return Review(s.cleaned_dir, s.collected_dir / "images", read_classes(s.class_table),
                  s.max_megapixels)


def build_server(review, port):
    """Return a server of the page, for this machine only."""
    routes = {("GET", "/"): page(Path(__file__).with_suffix(".html")),
              ("GET", "/overview"): review.overview, ("GET", "/sheet"): review.sheet,
              ("GET", "/photo"): review.photo, ("POST", "/decide"): review.decide,
              ("POST", "/undo"): review.undo}
    return PageServer(routes, port=port, flag="--review_port")


# ---- requests of the page ----

class Review:
    """Answers the page; `overview`, `sheet`, `photo`, `decide` and `undo` are routes."""

    def __init__(self, cleaned, images, classes, max_megapixels):
        self.cleaned, self.images, self.classes = cleaned, images, classes
        self.max_megapixels = max_megapixels
        self.latin = [plant.latin for plant in classes]
        self.lock, self.decoding = threading.RLock(), threading.Semaphore(2)
        self.renamed = former_names(classes)
        self.tab_of = {}  # time of a key press since the start -> browser tab that made it
        self.load()

    def load(self):
        """Read the table; called again when cleaning has written a new one."""
        table = self.cleaned / "cleaned.csv"
        if table.with_name("cleaned.csv.journal").exists():
            warn("cleaning is running or was interrupted: the page shows the earlier table, and "
                 "the new one once cleaning.py has ended")
        if not table.is_file():
            raise InputError(f"{table} does not exist; run "
                             "dataset_preparation/cleaning/cleaning.py first")
        self.modified = table.stat().st_mtime_ns
        # read again, too, as photographs may have been replaced
        self.ledger = DecisionLog(self.cleaned / "decisions.csv", self.classes)
        self.rows = read_table(table, COLUMNS)
        for row in self.rows:
            if row["proposal"] not in self.latin:  # labelling would skip such a photograph
                row["proposal"] = ""
        self.by_sha = defaultdict(list)
        for row in self.rows:
            if row["sha256"]:  # unreadable files have none, so decisions cannot refer to them
                self.by_sha[row["sha256"]].append(row)
        self.views, self.states = arrange(self.rows), {}  # key of a photograph -> its verdict
        self.blocks_of = defaultdict(list)  # key of a photograph -> [(view, number of the block)]
        for view, blocks in self.views.items():
            for i, block in enumerate(blocks):
                for row in block:
                    self.blocks_of[key_of(row)].append((view, i))
        self.reviewed = {view: set() for view in self.views}  # numbers of blocks with a decision
        self.suspected = {view: Counter(word for [row] in blocks
                                        for word in row["suspected"].split(", ") if word)
                          for view, blocks in self.views.items() if view[0] == "sheet"}
        others = sorted({row["label_class"] for row in self.rows} - set(self.latin))
        self.names = [*self.latin, *others]
        for sha in self.ledger.about:
            self.update_verdicts(sha)

    def update_verdicts(self, sha):
        """Update and return {key: verdict} of the photographs with this content."""
        verdicts, states = fold(self.ledger.about[sha]), {}
        for row in self.by_sha.get(sha, ()):
            key, named = key_of(row), (sha, self.current_name(row["class"]))
            choice = verdicts.choices.get(named, {})
            state = {"choice": choice.get("action", ""), "bulk": choice.get("pressed", 1) > 1,
                     "move": verdicts.moves.get(named, ""),
                     "apart": sorted(other for pair in verdicts.apart for other in pair - {sha}),
                     "together": sorted(other for pair in verdicts.together
                                        for other in pair - {sha})}
            self.states.pop(key, None)
            if any(state.values()):
                self.states[key] = state
            for view, i in self.blocks_of[key]:
                done = is_reviewed(view[0], self.views[view][i], self.states)
                (self.reviewed[view].add if done else self.reviewed[view].discard)(i)
            states["/".join(key)] = state
        return states

    def current_name(self, name):
        """Return the current name of a class, also for a former name."""
        return present_name(name, self.renamed)

    def overview(self, request):
        """Return the classes and, per view, the numbers of blocks, reviewed ones and suspicions."""
        with self.lock:
            if self.modified != (self.cleaned / "cleaned.csv").stat().st_mtime_ns:
                self.load()
            also = {plant.latin: [plant.russian, plant.english, *plant.also]
                    for plant in self.classes}
            classes = [{"name": name, "also": also.get(name, []), "offered": name in also}
                       for name in self.names]
            views = [{"view": view, "name": name, "total": len(blocks),
                      "reviewed": len(self.reviewed[view, name]),
                      "suspected": self.suspected.get((view, name), {})}
                     for (view, name), blocks in self.views.items()]
            return json_reply({"classes": classes, "views": views,
                               "decisions": len(self.ledger.rows)})

    def sheet(self, request):
        """Return one page of a view; the query has `view`, `name` (class), `page` and `word`."""
        view, name, word = (request.query.get(key, "") for key in ("view", "name", "word"))
        number = request.query.get("page", "0")
        if not re.fullmatch(r"-?\d{1,9}", number):
            raise InputError(f"{number!r} is not a number")
        with self.lock:
            blocks = [block for block in self.views.get((view, name), ())
                      if not word or word in block[0]["suspected"].split(", ")]
            number, blocks, pages = page_of(
                blocks, int(number), lambda block: is_reviewed(view, block, self.states))
            shown = [[self.describe(row) for row in block] for block in blocks]
            return json_reply({"page": number, "pages": pages, "blocks": shown})

    def describe(self, row):
        """Return a row and the decisions about it, for the page."""
        key, sha = "/".join(key_of(row)), row["sha256"]
        verdict = self.update_verdicts(sha).get(key) if sha in self.ledger.about else None
        return {**{name: row[name] for name in COLUMNS}, "key": key,
                "shown": bool(row["width"]), "verdict": verdict}

    def photo(self, request):
        """Reply with a cleaned photograph; with `large`, or if there is none, the collected one."""
        with self.lock:
            rows = [row for row in self.by_sha.get(request.query.get("sha256", ""), ())
                    if row["class"] == request.query.get("class") and row["width"]]  # was decoded
        if not rows:
            return text_reply(404, "the table has no such photograph")
        row, large = rows[0], "large" in request.query
        for folder in () if large else ("images", "others"):
            path = self.cleaned / folder / cleaned_name(row)
            if path.is_file() and path.resolve().is_relative_to(self.cleaned.resolve()):
                return Reply(path.read_bytes(), "image/jpeg", keep_seconds=KEEP_SECONDS)
        path = self.images / row["file"]
        if not path.resolve().is_relative_to(self.images.resolve()):
            return text_reply(404, "not in the folder of collected photographs")
        try:
            with self.decoding:
                return Reply(shrink(path, large, self.max_megapixels), "image/jpeg",
                             keep_seconds=KEEP_SECONDS)
        except (BadImage, OSError) as error:
            return text_reply(404, str(error))

    def decide(self, request):
        """Write the decisions of one key press and return the changes.

        The body is a JSON list of {key, action, value}; the query may name the browser `tab`. Some
        decisions may be refused, because the table or the classes have changed: they are listed
        with the reason, and the others are written. If all are refused, the status is 400.
        """
        checked, refused = [], []
        with self.lock:
            for requested in read_requested(request.body):
                try:
                    checked.append(self.check(requested))
                except InputError as error:
                    refused.append({"key": requested["key"], "why": str(error)})
            if refused and not checked:
                raise InputError(refused[0]["why"])
            if touched := self.ledger.add([one for one in checked if one]):
                self.tab_of[self.ledger.rows[-1]["time"]] = request.query.get("tab", "")
            return self.changed(touched, refused)

    def check(self, requested):
        """Return (sha256, class, action, value, reason), or None if that changes nothing."""
        sha, _, name = requested["key"].partition("/")
        state = self.update_verdicts(sha).get(requested["key"])
        if state is None:
            raise InputError("the table has no such photograph; load the page again")
        action, value = requested["action"], requested.get("value", "")
        known = {"keep": [""], "reject": [""], "move": self.latin, "not_duplicate": self.by_sha,
                 "duplicate": self.by_sha}
        if value not in known.get(action, ()):
            raise InputError(f"{action!r} with the value {value!r} is not a decision")
        if action in ("not_duplicate", "duplicate"):
            same = value == sha or value in state[
                "apart" if action == "not_duplicate" else "together"]
        elif action == "move":
            same = state["move"] == value and state["choice"] != "reject"
        else:
            same = state["choice"] == action and not state["bulk"]  # see `kept_one_by_one`
        return None if same else (sha, self.current_name(name), action, value, "")

    def undo(self, request):
        """Undo the last key press that is not undone, and return the changes.

        The query may name the `tab` that asks and the `others` that are open: a tab undoes its own
        key presses first, then those of no open tab.
        """
        tab, others = request.query.get("tab"), request.query.get("others", "").split(",")
        with self.lock:
            last = tab and self.ledger.last_key_press(lambda time: self.tab_of.get(time) == tab)
            last = last or self.ledger.last_key_press(
                lambda time: not self.tab_of.get(time) or self.tab_of[time] not in others)
            return self.changed(self.ledger.add([
                (row["sha256"], row["class"], "undo", row["time"], "") for row in last]))

    def changed(self, shas, refused=()):
        """Reply with the verdicts on the photographs with these contents, and the refusals."""
        states = {}
        for sha in sorted(shas):
            states.update(self.update_verdicts(sha))
        return json_reply({"changed": states, "decisions": len(self.ledger.rows),
                           "refused": list(refused)})


def read_requested(body):
    """Return the list of decisions in the body of a request; raise InputError if it is not one."""
    try:
        requested = json.loads(body)
    except (ValueError, RecursionError):
        requested = None
    if not isinstance(requested, list) or not all(
            isinstance(one, dict) and {"key", "action"} <= set(one) <= {"key", "action", "value"}
            and all(isinstance(text, str) for text in one.values())
            and one["action"] in ACTIONS for one in requested):
        raise InputError("not a list of decisions")
    return requested


def shrink(path, large, max_megapixels):
    """Return a photograph as JPEG bytes, at most LARGE or about SMALL (shorter side) pixels."""
    image = to_rgb(open_image(path, max_megapixels, draft_side=LARGE if large else SMALL)[0])
    # A panorama is shown at most four times as long as wide.
    side = LARGE if large else round(SMALL * min(4.0, max(image.size) / min(image.size)))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return encode(image, quality=90)


if __name__ == "__main__":
    run(main)
