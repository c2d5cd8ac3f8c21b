"""Recognise photographs whose files were replaced or rewritten since an earlier run."""
from collections import defaultdict

import numpy as np

from dataset_preparation.cleaning.duplicate_pairs import NEAR
from dataset_preparation.cleaning.former_photographs import latest_forms
from dataset_preparation.cleaning.near_duplicates import from_hex, hash_distances, match_views
from names import present_name

BLOCK = 512, 4096  # hashes compared at a time
MOST = 8  # candidates whose pixels are compared, per former photograph


def update_former(former, rows, history, renamed):
    """Return `former` of `read_former`, with what has gone and without what has come back.

    `rows` have `file`, `class`, `sha256`; `history` are the entries of the last finished run.
    """
    former, present = dict(former), {(row["class"], row["sha256"]) for row in rows}
    for entry in history:
        key, looks = entry_key(entry, renamed), entry["result"]["fingerprint"]
        if looks:
            former.setdefault(key, {"class": key[0], "sha256": key[1], "file": entry["file"],
                                    "now": "", "fingerprint": looks})
    return {key: row for key, row in former.items() if key not in present}


def entry_key(entry, renamed):
    """Return (class, SHA-256) of an entry of inspected.jsonl."""
    name = entry.get("class") or entry["file"].partition("/")[0]  # earlier versions lack the class
    return present_name(name, renamed), entry["result"]["sha256"]


def unrecognised(former, rows):
    """Return the rows of `former` of which nothing in `rows` is a later form."""
    present, latest = {(row["class"], row["sha256"]) for row in rows}, latest_forms(former)
    return [row for key, row in former.items()
            if (key[0], latest.get(key, key[1])) not in present]


def recognise(former, rows, known, apart, search):
    """Fill in `now` of former photographs with a near-duplicate in `rows`; return how many.

    Only photographs of one class are compared. Each gets another one if there are enough: first
    that of the same file name, then new ones before those in `known` ((class, SHA-256) of the last
    run), then the most similar. `apart` are frozensets of two SHA-256 that a person told apart;
    `search` maps (contents, fingerprints) to the `Search` of duplicate_pairs.py.
    """
    unread = {row["file"] for row in rows if not row["sha256"]}  # such as for a missing permission
    here = [row for row in rows if row["fingerprint"]]
    gone = [row for row in unrecognised(former, rows) if row["file"] not in unread]
    ranked = []
    for pair in near_pairs(here, gone, search):
        row, new = gone[pair.second - len(here)], here[pair.first]
        ranked.append((new["file"] != row["file"], (new["class"], new["sha256"]) in known,
                       pair.check, pair.bits, new["file"], row["sha256"], new["sha256"], row))
    inside, done = defaultdict(set), set()  # what a photograph has replaced
    for only_free in (True, False):
        for *_, old, new, row in sorted(ranked, key=lambda one: one[:-1]):
            photograph = row["class"], new
            same = inside[photograph] | {new}
            told_apart = any(frozenset((old, other)) in apart for other in same)
            if (row["class"], old) in done or told_apart or (only_free and len(same) > 1):
                continue
            inside[photograph].add(old)
            done.add((row["class"], old))
            row["now"] = new
    return len(done)


def near_pairs(here, gone, search):
    """Return the `Pair`s (i, len(here) + j) of near-duplicates of one class."""
    if not here or not gone:
        return []
    fingerprints = from_hex(row["fingerprint"] for row in (*here, *gone))
    comparison = search([row["sha256"] for row in (*here, *gone)], fingerprints)
    rule, count = comparison.rule, len(here)
    views = np.ascontiguousarray(fingerprints[:, :, 0].T)
    found = np.unique(match_views(views[:, :count], views[:, count:], rule["hash_distance"],
                                  BLOCK), axis=1)
    checks = hash_distances(fingerprints, found[0], found[1] + count)[1]
    candidates = defaultdict(list)
    for i, j, check in zip(*found.tolist(), checks.tolist(), strict=True):
        if (here[i]["class"] == gone[j]["class"] and check <= rule["borderline_distance"]
                and gone[j]["sha256"] in comparison.store.described):
            candidates[j].append((here[i]["file"] != gone[j]["file"], check, i))
    pairs = [(i, count + j) for j, some in candidates.items() for *_, i in sorted(some)[:MOST]]
    return [pair for pair in comparison.compare(pairs, True) if pair.kind == NEAR]
