"""Join a folder collected by another machine: rows, searches and photographs; overwrite nothing.

If both folders have a row of the same address, the better one counts: a saved photograph rather
than none, an original rather than a smaller copy. If they saved different photographs, ours stays,
and `<COLLECTED_DIR>/join_conflicts.csv` lists the conflict. Joining twice changes nothing.
"""
from collections import Counter

from dataset_preparation.parsing.collected_tables import (
    FROM_FALLBACK,
    Ledger,
    area,
    is_inside,
    photograph_of,
    unfinished_run,
)
from dataset_preparation.parsing.license_filter import SET_ASIDE, SET_ASIDE_FOLDER
from dataset_preparation.parsing.searches import LAST, answer_of
from utils import InputError, copy_file, file_sha256, require_apart, set_aside, warn, write_table

CONFLICTS = "join_conflicts.csv"
LISTED = 10  # conflicts printed, at most
RANKS = {"": 0, "failed": 1, "open": 2, "enough": 3, **dict.fromkeys(LAST, 4)}  # of answers


def join_folder(tables, folder):
    """Join another collected folder into open `Tables`; return a summary in one line."""
    require_apart(tables.folder, folder)
    if not any((folder / name).exists() for name in ("found.csv", "found.csv.journal", "images")):
        raise InputError(f"{folder} contains neither found.csv nor images/, so parsing.py has not "
                         "collected it; name the COLLECTED_DIR of the other machine")
    if unfinished := unfinished_run(folder):
        warn(f"{folder}: {unfinished}")
    other, counts, conflicts = Ledger(folder), Counter(), []
    for row in sorted(other.found.values(), key=lambda row: (row["class"], row["url"])):
        join_row(tables, other, row, counts, conflicts)
    for key in sorted(other.searches):
        search = other.searches[key]
        if progress_of(search) > progress_of(tables.searches.get(key, {})):
            tables.add([], search)
            counts["searches"] += 1
    join_other_files(tables, other, counts, conflicts)
    report_conflicts(tables.folder, conflicts)
    done = ", ".join(f"{count:,} {kind}" for kind, count in counts.items()) or "nothing new"
    return f"joined {folder}: {done}, {len(conflicts):,} conflicts"


def progress_of(search):
    """Return the progress of a search as a sort key."""
    return RANKS.get(answer_of(search), 0), int(search.get("results") or 0)


def join_row(tables, other, row, counts, conflicts):
    """Join one found row and its photograph."""
    path, ours = photograph_at(other, row), tables.found.get((row["class"], row["url"]))
    tables.complete(row)
    if ours is None and photograph_of(row) in tables.photographs:
        counts["photographs found under another address here"] += 1
        return
    row = {**row, "status": "saved" if path else "new" if row["status"] in ("saved", SET_ASIDE)
           else row["status"]}
    if not path:
        row.update(file="", sha256="")
    if ours is None:
        if place(tables, row, path, counts, conflicts):
            tables.add([row])
            counts["rows"] += 1
        return
    mine = photograph_at(tables, ours)
    if not path or mine and ours["sha256"] == row["sha256"]:
        return
    is_larger = area(row["width"], row["height"]) > area(ours["width"], ours["height"])
    if mine and not (ours["reason"].startswith(FROM_FALLBACK) and is_larger):
        conflicts.append(conflict(row, "another photograph of this address", ours["file"]))
        return
    if ours["status"] != "removed" and place(tables, row, path, counts, conflicts):
        if mine and not tables.is_shared(ours):
            set_aside(mine, tables.folder)
            counts["smaller copies replaced"] += 1
        tables.change(ours, **{name: value for name, value in row.items()
                               if name not in ("class", "url", "time")})
        counts["rows completed"] += 1


def photograph_at(ledger, row):
    """Return the path of a row's photograph, even if set aside for its licence, or None."""
    if row["status"] not in ("saved", SET_ASIDE) or not is_inside(row["file"]):
        return None
    paths = (ledger.folder / row["file"], ledger.folder / SET_ASIDE_FOLDER / row["file"])
    return next((path for path in paths if path.is_file()), None)


def place(tables, row, path, counts, conflicts):
    """Copy a photograph to the path in its row; return False, with a conflict, if that fails."""
    if path is None:
        return True
    target, content = tables.folder / row["file"], file_sha256(path)
    if content != row["sha256"]:
        conflicts.append(conflict(row, "the file differs from its SHA-256 in found.csv"))
        return False
    if not target.exists():
        copy_file(path, target)
        counts["photographs"] += 1
    elif file_sha256(target) != content:
        conflicts.append(conflict(row, "another file of this name", row["file"]))
        return False
    return True


def conflict(row, reason, here=""):
    """Return a row of the table of conflicts; `here` is the file that stays."""
    return {**row, "there": row["file"], "here": here, "reason": reason}


def join_other_files(tables, other, counts, conflicts):
    """Copy files without a row: photographs added by hand, pages of unfinished searches."""
    known = {row["file"] for row in other.found.values()}
    for path in sorted((other.folder / "images").rglob("*")):
        file = path.relative_to(other.folder).as_posix()
        if path.is_file() and file not in known and path.suffix not in (".tmp", ".part"):
            target = tables.folder / file
            if not target.exists():
                copy_file(path, target)
                counts["photographs without a row"] += 1
            elif file_sha256(target) != file_sha256(path):
                conflicts.append(conflict({"file": file}, "another file of this name", file))
    for path in sorted((other.folder / "pages").glob("*.jsonl")):
        if not (target := tables.folder / "pages" / path.name).exists():
            copy_file(path, target)


def report_conflicts(folder, conflicts):
    """Write the table of conflicts and print the first ones."""
    if not conflicts:
        (folder / CONFLICTS).unlink(missing_ok=True)
        return
    write_table(folder / CONFLICTS, ("class", "url", "here", "there", "reason"), conflicts)
    for row in conflicts[:LISTED]:
        warn(f"not joined: {row.get('url') or row['there']}: {row['reason']}")
    if len(conflicts) > LISTED:
        warn(f"and {len(conflicts) - LISTED:,} further ones, listed in {folder / CONFLICTS}")
