"""What collecting knows of a photograph: where it is from, who took it, and under which licence."""
from collections import Counter, defaultdict

from dataset_preparation.labeling.groups import OBSERVER, group_photographs, link_first
from dataset_preparation.licenses import is_allowed, read_license
from dataset_preparation.parsing.license_filter import licenses_of
from dataset_preparation.parsing.parsing_utils import read_found
from utils import pick_groups, warn

COLUMNS = ("url", "license", "author")


def read_origins(collected):
    """Return ({SHA-256: origin}, {SHA-256: source pages}) of collected files.

    An origin has `url`, `license` (the strictest of several), `author`, `observer`, `date`,
    `observations`, as (source, name), each "" or empty where it is not known, and `license_code`,
    None where no source states a licence.
    """
    found = [row for row in read_found(collected, ("sha256", *COLUMNS, "page")) if row["sha256"]]
    licenses, origins, pages = licenses_of(found), {}, defaultdict(set)
    for row in found:
        code = licenses.get(row["sha256"])
        as_stated = not code or code == read_license(row["license"])
        origin = origins.setdefault(row["sha256"], {
            **{name: row[name] for name in COLUMNS},
            "license": row["license"] if as_stated else code, "license_code": code,
            "observer": row.get("observer", ""), "date": row.get("date", ""), "observations": []})
        if row.get("observation"):
            origin["observations"].append((row.get("source", ""), row["observation"]))
        pages[row["sha256"]] |= {row["page"]} - {""}
    return origins, pages


def take_allowed(rows, origins, allowed, unknown_too):
    """Return (rows of the photographs of `allowed` licences, lines of the report).

    They get the columns of their origin. With `unknown_too`, photographs whose licence is not
    known are left out as well.
    """
    taken, counts = [], {True: Counter(), False: Counter()}
    for row in rows:
        origin = origins.get(row["sha256"], {})
        code = origin.get("license_code")
        wanted = not unknown_too if code is None else is_allowed(code, allowed)
        counts[wanted][origin.get("license") or "not known"] += row["kept"]
        taken += [{**row, "author": "", **origin}] if wanted else []
    text = {wanted: ", ".join(f"{count} {code}" for code, count in some.most_common() if count)
            for wanted, some in counts.items()}
    if text[False]:
        warn("photographs left out, since their licence is not one of LICENSES: " + text[False])
    lines = [f"licences: {text[True]}", f"left out by licence: {text[False] or 'none'}"]
    return taken, lines if origins else []


# ---- observers ----

def link_observers(rows, links, before, per_class, seed):
    """Return the links that keep each observer's photographs of a class on one side.

    Only in classes that then still fill their test quota, and only where no photograph that was
    labelled `before` ({SHA-256: side}) would have to move. `rows` and `links` are those of
    `groups.group_photographs`.
    """
    wanted = link_first(rows, lambda row: row.get("observer") and (
        OBSERVER, row["label"], row["observer"]))
    groups, _ = group_photographs(rows, [*links, *wanted])
    sizes, sides = defaultdict(Counter), defaultdict(set)
    for row, group in zip(rows, groups, strict=True):
        sizes[row["label"]][group] += bool(row["kept"])
        sides[group] |= {before.get(row["sha256"])} - {None}
    fits = set()
    for label, counts in sizes.items():
        quota = min(per_class, counts.total() // 3)
        picked = pick_groups(counts, quota, seed, len(counts) // 2)
        if quota and sum(counts[group] for group in picked) == quota:
            fits.add(label)
    return [link for link in wanted
            if rows[link[1]]["label"] in fits and len(sides[groups[link[1]]]) < 2]


def observer_lines(rows):
    """Return the line of the report that counts observers and those on both sides of a class."""
    sides = defaultdict(set)
    for row in rows:
        if row.get("observer"):
            sides[row["label"], row["observer"]].add(row["side"])
    both = sum(len(some) == 2 for some in sides.values())
    return [f"observers: {len({observer for _, observer in sides})}; with photographs of a class "
            f"in both train and test: {both}"] if sides else []
