"""Decisions by hand: `<CLEANED_DIR>/decisions.csv`, written by review.py, applied by cleaning.py.

One line per decision, only ever appended: `time,sha256,class,action,value,reason`. A photograph is
identified by the SHA-256 of the collected file and by `class`, the class it was collected for, so
that decisions survive renamed files, new photographs and every re-run. They follow a photograph
whose file was replaced or rewritten, see former_photographs.py. Actions:

- `keep`: keep it despite a filter, a near-duplicate or a label conflict.
- `reject`: reject it. If it is the best of a group, its near-duplicates of the same class are
  rejected with it, unless kept by hand.
- `move`, value: a Latin name, its new `label_class`. It cancels an earlier `reject`; all other
  rules still apply.
- `not_duplicate`, value: SHA-256 of another. The two never share a group and are not shown as a
  borderline pair.
- `duplicate`, value: SHA-256 of another. The two are one picture and share a group, regardless of
  their hashes. The latest `duplicate` or `not_duplicate` of a pair counts.
- `undo`, value: time of a key press, whose decisions (or undo) are ignored.

The latest `keep` or `reject` counts, and the latest `move`. All decisions of one key press have the
same time, which no others have. One key press that keeps several photographs settles no label
conflict.
"""
import csv
import io
import os
import threading
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from dataset_preparation.cleaning.former_photographs import by_content, read_latest
from names import all_names, list_some, look, present_name
from utils import InputError, warn

COLUMNS = ("time", "sha256", "class", "action", "value", "reason")
ACTIONS = ("keep", "reject", "move", "not_duplicate", "duplicate", "undo")
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_LOCK = threading.Lock()


class Verdicts(NamedTuple):
    """The decisions in force.

    `choices` maps (sha256, class) to the row of a keep or reject, `moves` (sha256, class) to a
    Latin name; `apart` and `together` are sets of frozensets of two SHA-256.
    """

    choices: dict
    moves: dict
    apart: set
    together: set = frozenset()


def read_decisions(path):
    """Return the decisions as dictionaries, in the order they were made; [] without a file.

    `pressed` is the number of decisions made by the same key press. A line cut off by a crash is
    skipped with a warning: the page never showed it as saved. Raises InputError if an action is
    unknown or the first line has other columns.
    """
    path, rows = Path(path), []
    if not path.exists():
        return rows
    # Each line is parsed separately, so that a line cut off does not spoil the next.
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        parsed = (next(csv.reader([line]), []) for line in file)
        for number, cells in enumerate(parsed, 1):
            row = dict(zip(COLUMNS, cells, strict=False))
            if number == 1:
                if tuple(cells) != COLUMNS:
                    raise InputError(f"{path}: its first line must be {','.join(COLUMNS)}; correct "
                                     "it, or move the file away to start without decisions")
            elif len(cells) != len(COLUMNS):
                warn(f"{path}, line {number}: left out, not {len(COLUMNS)} cells")
            elif row["action"] not in ACTIONS:
                raise InputError(f"{path}, line {number}: unknown action {row['action']!r}; "
                                 f"known are {', '.join(ACTIONS)}")
            else:
                rows.append(row)
    return count_pressed(rows)


def count_pressed(rows):
    """Return the decisions with `pressed`, the number of decisions of the same key press."""
    counts = Counter(row["time"] for row in rows)
    return [{**row, "pressed": counts[row["time"]]} for row in rows]


def append_decisions(path, made):
    """Append the decisions of one key press, each (sha256, class, action, value, reason).

    Returns them as dictionaries, with a unique time, once they are on the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK, open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 4096))
        tail = file.read().decode("utf-8", errors="replace")
        time = time_after(tail)
        rows = [(time, *cells, " ".join(reason.split())) for *cells, reason in made]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows if end else [COLUMNS, *rows])
        cut_off = tail and not tail.endswith("\n")
        file.write((("\n" if cut_off else "") + text.getvalue()).encode())
        file.flush()
        os.fsync(file.fileno())
    return count_pressed([dict(zip(COLUMNS, row, strict=True)) for row in rows])


def time_after(tail):
    """Return the time now (UTC) as text, or a microsecond after the last line if that is later."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    for line in reversed(tail.splitlines()):
        with suppress(ValueError):  # the header, or a line cut off
            last = datetime.strptime(line.split(",")[0], TIME)
            now = max(now, last + timedelta(microseconds=1))
            break
    return now.strftime(TIME)


def in_force(rows):
    """Yield the decisions that are not undone, the latest first."""
    undone = set()
    for row in reversed(rows):
        if row["time"] in undone:
            continue
        if row["action"] == "undo":
            undone.add(row["value"])
        else:
            yield row


def fold(rows):
    """Return the `Verdicts` in force after decisions, in the order they were made."""
    choices, moves, pairs = {}, {}, {"not_duplicate": set(), "duplicate": set()}
    for row in reversed(list(in_force(rows))):
        key = row["sha256"], row["class"]
        if row["action"] in pairs:
            pair = frozenset((row["sha256"], row["value"]))
            for found in pairs.values():
                found.discard(pair)
            if len(pair) == 2:
                pairs[row["action"]].add(pair)
        elif row["action"] == "move":
            moves[key] = row["value"]
            if choices.get(key, row)["action"] == "reject":
                del choices[key]
        elif row["action"] in ("keep", "reject"):
            choices[key] = row
    return Verdicts(choices, moves, pairs["not_duplicate"], pairs["duplicate"])


def former_names(classes, common=False):
    """Return {look of a former name: Latin name}, of names in `also` that are unambiguous.

    With `common`, Russian and English names count, too.
    """
    names, found = {look(plant.latin) for plant in classes} | {""}, {}
    for plant in classes:
        others = all_names(plant) if common else plant.also
        for name in set(map(look, others)) - names:
            found.setdefault(name, set()).add(plant.latin)
    return {name: latin.pop() for name, latin in found.items() if len(latin) == 1}


def read_current(path, classes):
    """Return the decisions of a file about the present photographs and names of classes."""
    renamed = former_names(classes)
    latest = read_latest(Path(path).parent, renamed)  # (class, SHA-256) -> SHA-256 now
    of_content, rows = by_content(latest), read_decisions(path)
    for row in rows:
        row["class"] = present_name(row["class"], renamed)
        row["sha256"] = latest.get((row["class"], row["sha256"]), row["sha256"])
        if row["action"] == "move":
            row["value"] = present_name(row["value"], renamed)
        else:  # another photograph, or the time of a key press
            row["value"] = of_content.get(row["value"], row["value"])
    return rows


def read_verdicts(path, classes):
    """Return the `Verdicts` of a file about the present photographs and names of classes."""
    return fold(read_current(path, classes))


def warn_of_unmatched(verdicts, rows, left_out):
    """Warn of decisions in force that match no photograph of `rows`, each with `sha256`, `class`.

    Classes in `left_out` are not used in this run. If there are any, pairs are not reported, as a
    decision about a pair names the class of only one photograph.
    """
    photographs = {(row["sha256"], row["class"]) for row in rows}
    made = {**{key: f"move to {value}" for key, value in verdicts.moves.items()},
            **{key: row["action"] for key, row in verdicts.choices.items()}}
    lost = sorted((latin, sha, action) for (sha, latin), action in made.items()
                  if (sha, latin) not in photographs and latin not in left_out)
    named = [f"{latin}: {action} {sha[:16]}" for latin, sha, action in lost]
    contents = {sha for sha, _ in photographs}
    for action, pairs in (("not_duplicate", verdicts.apart), ("duplicate", verdicts.together)):
        named += [f"{action} {' '.join(sha[:16] for sha in sorted(pair))}"
                  for pair in sorted(pairs, key=sorted) if not (left_out or pair <= contents)]
    if named:
        warn(f"{len(named)} decisions of decisions.csv match no photograph ({list_some(named)}); "
             "they are kept. If a class was renamed, add its old name to the column 'also' of the "
             "class table")


def warn_of_bulk_keeps(rows):
    """Warn of pictures under several names that were kept by one key press with others."""
    files = [row["file"] for row in rows if row["status"] == "review" and row["choice"] == "keep"]
    if files:
        warn(f"{len(files)} photographs of pictures under several names were kept by one key press "
             f"together with others; decide each of them separately: {list_some(files)}")


def kept_one_by_one(verdicts, rows):
    """Return whether a person kept each photograph of `rows` by a separate key press."""
    choices = [verdicts.choices.get((row["sha256"], row["class"]), {}) for row in rows]
    return all(row.get("action") == "keep" and row.get("pressed", 1) == 1 for row in choices)


class DecisionLog:
    """The decisions so far, in order (`rows`) and by SHA-256 (`about`).

    Former names of classes are replaced by those in `classes`, former photographs by what replaced
    them.
    """

    def __init__(self, path, classes):
        self.path, self.rows, self.about = path, [], defaultdict(list)
        self.shas_of = defaultdict(set)  # time of a key press -> SHA-256 it is about
        self._note(read_current(path, classes))

    def _note(self, rows):
        """Add decisions that are on the disk; return the SHA-256 that they are about."""
        touched = set()
        for row in rows:
            shas = {row["sha256"]}
            if row["action"] == "undo":
                shas = self.shas_of[row["value"]]
            elif row["action"] in ("not_duplicate", "duplicate"):
                shas.add(row["value"])
            self.rows.append(row)
            self.shas_of[row["time"]] |= shas
            for sha in shas:
                self.about[sha].append(row)
            touched |= shas
        return touched

    def add(self, made):
        """Write the decisions of one key press; return the SHA-256 that they are about."""
        return self._note(append_decisions(self.path, made)) if made else set()

    def last_key_press(self, wanted):
        """Return the decisions of the last key press, not undone, whose time is `wanted`."""
        presses = groupby(in_force(self.rows), key=lambda row: row["time"])
        return next((list(rows) for time, rows in presses if wanted(time)), [])
