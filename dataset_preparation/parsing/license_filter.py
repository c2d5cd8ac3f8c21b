"""Keeps photographs whose licence is not wanted out of all further steps, and brings them back.

They are moved to `<COLLECTED_DIR>/set_aside/licence/` and marked in found.csv, never deleted.
Photographs of sources that state no licences are left alone.
"""
import os
from collections import Counter, defaultdict

from dataset_preparation.licenses import is_allowed, read_license, strictest
from dataset_preparation.parsing.source_settings import FOLLOWED_BY

SET_ASIDE = "set aside"  # status of a row whose licence is not wanted
FOLDER = "set_aside/licence"


def licenses_of(rows):
    """Return {SHA-256: its licence} of found rows; the strictest where they state several."""
    stated = defaultdict(set)
    for row in rows:
        if row["sha256"] and states_license(row):
            stated[row["sha256"]].add(read_license(row["license"]))
    return {content: strictest(codes) for content, codes in stated.items()}


def states_license(row):
    """Return whether a found row is of a source that states licences, or has one to be read."""
    return row.get("source") in FOLLOWED_BY["licenses"] or bool(read_license(row["license"]))


def filter_by_license(tables, allowed):
    """Set rows and photographs aside whose licence is not in `allowed`, and bring others back.

    Returns {licence: photographs that are set aside}; where `allowed` is None, all stays.
    """
    of_content, aside = licenses_of(tables.found.values()), {}
    for row in list(tables.found.values()) if allowed is not None else ():
        code = of_content.get(row["sha256"])
        if code is None:
            code = read_license(row["license"]) if states_license(row) else None
        wanted = code is None or is_allowed(code, allowed)
        if wanted and row["status"] == SET_ASIDE:
            _move(tables.folder, f"{FOLDER}/{row['file']}", row["file"])
            tables.change(row, status="saved" if row["file"] else "new")
        elif not wanted and row["status"] in ("saved", "new", "failed", SET_ASIDE):
            if row["status"] != SET_ASIDE:
                tables.change(row, status=SET_ASIDE)
            _move(tables.folder, row["file"], f"{FOLDER}/{row['file']}")
            aside[row["file"] or row["url"]] = code or "not understood"
    return Counter(aside.values())


def set_aside_lines(counts):
    """Return the line that says how many photographs are set aside, of {licence: photographs}."""
    if not counts:
        return []
    kinds = ", ".join(f"{count:,} {code}" for code, count in counts.most_common())
    return [f"{counts.total():,} set aside: licence ({kinds}), in {FOLDER}/"]


def _move(folder, source, target):
    """Move a photograph within a folder, unless it is there already."""
    source, target = folder / source, folder / target
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)
