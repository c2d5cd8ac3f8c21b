"""What a person decided about photographs: `<CLEANED_DIR>/decisions.csv`, written by review, followed by cleaning.

One line per decision, only ever appended: `time,sha256,class,action,value,reason`. A photograph is named by the SHA-256
of its collected bytes and by `class`, the class it was collected for (column `class` of cleaned.csv), so that decisions
survive renamed files, new photographs and every re-run.

- `keep`: kept, although a filter, a copy or a label conflict speaks against it.
- `reject`: rejected; the best of a group takes its copies of the same class with it, unless one is kept by hand.
- `move`, value: a Latin name. That becomes its `label_class`; lifts an earlier `reject`; all other rules then apply.
- `not_duplicate`, value: SHA-256 of another. The two never share a group and are not shown as a pair.
- `undo`, value: time of a decision. As if that decision (another undo, too) had never been made.

The latest of `keep` and `reject` counts, and the latest `move`. In cleaned.csv `class` stays the class collected for;
`label_class` is the class in effect: kept photographs lie in `images/<label_class>/<16 hex>.jpg`, all others that can
be shown in `others/<label_class>/<16 hex>.jpg`. `near` is the file of the closest borderline partner, `near_bits` how
far it is; `proposal` the class proposed in a label conflict, if any; `suspicion` in [0, 1] the order to look at
photographs (1 first), `suspected` what of, as words joined by ", ".
"""
import csv
import io
import os
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from utils import InputError, warn

COLUMNS = ("time", "sha256", "class", "action", "value", "reason")
ACTIONS = ("keep", "reject", "move", "not_duplicate", "undo")
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_LOCK = threading.Lock()


class Verdicts(NamedTuple):
    """The decisions in force: `choices` {(sha256, class): row of keep or reject}, `moves` {(sha256, class): Latin
    name}, `apart` {frozenset of two SHA-256}."""

    choices: dict
    moves: dict
    apart: set


def read_decisions(path):
    """Return the decisions in the order they were made, as dictionaries; none where there is no file.

    A line torn by a crash was never confirmed to the person; it is left out with a warning. Raises InputError naming
    the line where the action is unknown or the first line is not that of this table.
    """
    path, rows = Path(path), []
    if not path.exists():
        return rows
    # each line by itself, and undecodable bytes too: a torn line must not take those after it along
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        for number, cells in enumerate((next(csv.reader([line]), []) for line in file), 1):
            row = dict(zip(COLUMNS, cells, strict=False))
            if number == 1:
                if tuple(cells) != COLUMNS:
                    raise InputError(f"{path}: its first line must be {','.join(COLUMNS)}")
            elif len(cells) != len(COLUMNS):
                warn(f"{path}, line {number}: left out, not {len(COLUMNS)} cells")
            elif row["action"] not in ACTIONS:
                raise InputError(f"{path}, line {number}: unknown action {row['action']!r}; there are "
                                 f"{', '.join(ACTIONS)}")
            else:
                rows.append(row)
    return rows


def append_decisions(path, made):
    """Append decisions (sha256, class, action, value, reason) made at once; return them as dictionaries.

    They are on the disk when this returns. No two get the same time, so `undo` is exact. Those made at once follow each
    other by one microsecond, others by more.
    """
    unknown = [one[2] for one in made if one[2] not in ACTIONS]
    if unknown:  # it would make the whole file unreadable
        raise ValueError(f"unknown action {unknown[0]!r}")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK, open(path, "a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 4096))
        tail = file.read().decode("utf-8", errors="replace")
        now = time_after(tail)
        rows = [((now + timedelta(microseconds=i)).strftime(TIME), *cells, " ".join(reason.split()))
                for i, (*cells, reason) in enumerate(made)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows if end else [COLUMNS, *rows])
        file.write(("\n" * bool(tail and not tail.endswith("\n")) + text.getvalue()).encode())
        file.flush()
        os.fsync(file.fileno())
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def time_after(tail):
    """Return the time now (UTC), or 2 microseconds after the last line's time where the clock is not past it."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    for line in reversed(tail.splitlines()):
        try:
            last = datetime.strptime(line.split(",")[0], TIME)
        except ValueError:
            continue  # the header, or a torn line
        return max(now, last + timedelta(microseconds=2))
    return now


def in_force(rows):
    """Yield the decisions that no undo takes back, the latest first."""
    undone = set()
    for row in reversed(rows):
        if row["time"] in undone:
            continue
        if row["action"] == "undo":
            undone.add(row["value"])
        else:
            yield row


def fold(rows):
    """Return the `Verdicts` that decisions in the order they were made amount to."""
    choices, moves, apart = {}, {}, set()
    for row in reversed(list(in_force(rows))):
        key = row["sha256"], row["class"]
        if row["action"] == "not_duplicate" and row["value"] != row["sha256"]:
            apart.add(frozenset((row["sha256"], row["value"])))
        elif row["action"] == "move":
            moves[key] = row["value"]
            if choices.get(key, row)["action"] == "reject":
                del choices[key]
        elif row["action"] in ("keep", "reject"):
            choices[key] = row
    return Verdicts(choices, moves, apart)
