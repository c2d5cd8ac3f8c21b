"""Groups: photographs that may show the same picture, plant or occasion stay on one side.

Splitting is generous where removal is strict: a group too many costs a few test photographs, a
group too few makes test results too good. Every link between two photographs names its evidence.
"""
import re
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from pathlib import PurePosixPath

from dataset_preparation.cleaning.duplicate_pairs import KINDS, NEAR

PAGE, SUBFOLDER, NUMBERED = "page", "subfolder", "numbered series"
CAMERA, AUTHOR = "camera and time", "author and time"
OBSERVATION, DAY, OBSERVER = "observation", "observer and day", "observer"
EVIDENCE = (*KINDS, PAGE, OBSERVATION, SUBFOLDER, CAMERA, AUTHOR, DAY, OBSERVER, NUMBERED)
# Share of the numbers between first and last that are there. The 60 photographs of 80 of each class
# of the Oxford flowers, numbered as collected, fill 0.75; six frames of every ten numbers 0.65.
NUMBERED_THROUGH = 0.7
# Phones write the time into the name: IMG_20240501_101512.jpg, PXL_20240501_101512123.jpg.
TIME_IN_NAME = re.compile(r"(?<!\d)((?:19|20)\d{6})[-_ ]?(\d{6})(?:\d{3})?(?!\d)")


def group_photographs(rows, links):
    """Return (group name of every row, {group: its evidence, joined by "; "}).

    `links` holds (evidence, i, j) of row indices. A group is named by the first 16 digits of its
    smallest SHA-256.
    """
    groups = join_groups([row["sha256"][:16] for row in rows], [pair for _, *pair in links])
    found = defaultdict(set)
    for evidence, i, _ in links:
        found[groups[i]].add(evidence)
    return groups, {group: "; ".join(sorted(kinds, key=EVIDENCE.index))
                    for group, kinds in found.items()}


def join_groups(names, pairs):
    """Return for every item the smallest name connected with it by (i, j) pairs (union-find)."""
    parent = list(range(len(names)))

    def root(item):
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item
    for one, other in pairs:
        first, second = sorted((root(one), root(other)), key=lambda item: names[item])
        parent[second] = first
    return [names[root(item)] for item in range(len(names))]


def link_photographs(rows, pages, files, minutes):
    """Return the links (evidence, i, j) that the tables of the earlier steps give.

    `rows` have `sha256`, `group` (of cleaning), `label`, `file`, `camera`, `taken` and `author`;
    `pages` maps a SHA-256 to the source pages of that photograph; `files` holds (label, file) of
    all collected files, rejected ones too. Except for pages and near-duplicates, only photographs
    of one class are linked: what else was taken on the same walk gives no label away.
    """
    numbered, folders = number_runs(files), defaultdict(set)
    for label, file in files:
        folders[label].add(PurePosixPath(file).parent)
    first, links = {}, []
    for i, row in enumerate(rows):
        folder = PurePosixPath(row["file"]).parent
        keys = [(NEAR, row["group"])]
        keys += [(PAGE, page) for page in sorted(pages.get(row["sha256"], ()))]
        # Where all photographs of a class are in one folder, that folder says nothing.
        if len(folder.parts) > 1 and len(folders[row["label"]]) > 1:
            keys.append((SUBFOLDER, row["label"], folder))
        if (row["label"], row["file"]) in numbered:
            keys.append((NUMBERED, row["label"], numbered[row["label"], row["file"]]))
        links += [(key[0], first.setdefault(key, i), i) for key in keys]
    links = [link for link in links if link[1] != link[2]]
    return links + link_by_time(rows, minutes) + link_by_observation(rows)


def link_by_time(rows, minutes):
    """Return links between photographs of a class by one camera, or author, `minutes` apart.

    A series goes on as long as the next photograph follows within `minutes`; 0 links nothing.
    """
    series = defaultdict(list)
    for i, row in enumerate(rows):
        taken = capture_time(row)
        if taken and minutes:
            series[CAMERA, row["label"], row["camera"]].append((taken, i))
            if row["author"]:
                series[AUTHOR, row["label"], row["author"]].append((taken, i))
    return [(key[0], i, j) for key, some in series.items()
            for (before, i), (after, j) in pairwise(sorted(some))
            if (after - before).total_seconds() <= 60 * minutes]


def link_by_observation(rows):
    """Return links between photographs of one observation, and of a class, observer and day."""
    def key_of(row):
        is_known = row.get("observer") and len(row.get("date", "")) == len("2026-05-17")
        return is_known and (DAY, row["label"], row["observer"], row["date"])
    links, first = link_first(rows, key_of), {}
    for i, row in enumerate(rows):
        links += [(OBSERVATION, first.setdefault(tuple(name), i), i)
                  for name in row.get("observations", ())]
    return [link for link in links if link[1] != link[2]]


def link_first(rows, key_of):
    """Return links (evidence, first, i) between rows of one key (evidence, ...), if they have one.
    """
    first, links = {}, []
    for i, row in enumerate(rows):
        if key := key_of(row):
            links.append((key[0], first.setdefault(key, i), i))
    return [link for link in links if link[1] != link[2]]


def capture_time(row):
    """Return when a photograph was taken, by its EXIF or its file name, or None."""
    match = TIME_IN_NAME.search(PurePosixPath(row["file"]).stem)
    for text, pattern in ((row["taken"], "%Y-%m-%dT%H:%M:%S"),
                          ("".join(match.groups()) if match else "", "%Y%m%d%H%M%S")):
        try:
            return datetime.strptime(text, pattern)
        except ValueError:
            continue
    return None


def number_runs(files):
    """Return {(label, file): name of its run} of files numbered one after the other in a folder.

    Not series but the numbering of a collection are a run of half of a class or more, and numbers
    of half of a class or more that nearly fill their range.
    """
    numbers, count = defaultdict(list), defaultdict(int)
    for label, file in files:
        count[label] += 1
        path = PurePosixPath(file)
        match = re.fullmatch(r"(|.*\D)(\d{1,9})(\D?)", path.stem)  # IMG_0012, "leaf (3)"
        if match:
            key = label, path.parent, match[1], match[3]
            numbers[key].append((int(match[2]), file))
    runs = {}
    for (label, folder, prefix, _), some in numbers.items():
        some.sort()
        filled = len(some) / (some[-1][0] - some[0][0] + 1)
        if filled > NUMBERED_THROUGH and len(some) >= count[label] / 2:
            continue
        starts = [i for i, (number, _) in enumerate(some)
                  if i == 0 or number > some[i - 1][0] + 1]
        for start, end in zip(starts, [*starts[1:], len(some)], strict=True):
            run = [file for _, file in some[start:end]]
            if 1 < len(run) < count[label] / 2:
                runs |= {(label, file): (folder, prefix, some[start]) for file in run}
    return runs


def known_evidence(rows, pages, files):
    """Return {evidence: number of photographs it could be looked for in}, for the report."""
    numbered = number_runs(files)
    return {PAGE: sum(bool(pages.get(row["sha256"])) for row in rows),
            SUBFOLDER: sum(len(PurePosixPath(row["file"]).parent.parts) > 1 for row in rows),
            CAMERA: sum(capture_time(row) is not None for row in rows),
            OBSERVATION: sum(bool(row.get("observations")) for row in rows),
            DAY: sum(bool(row.get("observer") and row.get("date")) for row in rows),
            AUTHOR: sum(bool(capture_time(row) and row["author"]) for row in rows),
            NUMBERED: sum((row["label"], row["file"]) in numbered for row in rows)}


def evidence_lines(rows):
    """Return the lines of the report that count groups of several photographs by evidence."""
    members = defaultdict(list)
    for row in rows:
        members[row["group"]].append(row)
    several = [group for group in members.values() if len(group) > 1]
    lines = [f"groups of several photographs: {len(several)}, with "
             f"{sum(map(len, several))} photographs; joined by (one group by several, perhaps)"]
    for kind in EVIDENCE:
        joined = [group for group in several if kind in group[0].get("joined_by", "").split("; ")]
        if joined:
            lines.append(f"  {kind}: {len(joined)} groups, {sum(map(len, joined))} photographs")
    return lines
