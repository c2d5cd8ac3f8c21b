"""Groups: photographs that may show the same picture, plant or occasion stay on one side.

Splitting is generous while removal is strict: an unnecessary group costs a few test photographs, a
missing group makes test results too good. Every link between two photographs names its evidence.
"""
import os
import re
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dataset_preparation.cleaning.duplicate_pairs import KINDS, NEAR
from utils import pick_groups

PAGE, SUBFOLDER, NUMBERED = "page", "subfolder", "numbered series"
CAMERA, AUTHOR = "camera and time", "author and time"
OBSERVATION, DAY, OBSERVER = "observation", "observer and day", "observer"
EVIDENCE = (*KINDS, PAGE, OBSERVATION, SUBFOLDER, CAMERA, AUTHOR, DAY, OBSERVER, NUMBERED)
# Share of the numbers between first and last that exist in a folder whose numbers count the folder.
# The 60 photographs of 80 per class of the Oxford flowers, numbered as collected, fill 0.75; six
# frames of every ten numbers 0.65. Of 12 of the 17 classes they fill 0.56 from 1 on.
NUMBERED_THROUGH, NUMBERED_TOGETHER = 0.7, 0.5
# Phones, messengers and screenshots write the time into the name: IMG_20240501_101512.jpg,
# PXL_20240501_101512123.jpg, photo_2024-05-01_10-15-12.jpg, "2024-05-01 10:15:12.jpg",
# "01-05-2024 10-15-12.jpg", "WhatsApp Image 2024-05-01 at 3.15.12 PM.jpeg"; some in milliseconds
# of the epoch: mmexport1714558512345.jpg.
TIME_IN_NAME = re.compile(
    r"(?<!\d)(?:(?P<year>(?:19|20)\d\d)[-_.:]?(?P<month>\d\d)[-_.:]?(?P<day>\d\d)"
    r"|(?P<day2>\d\d)([-_.])(?P<month2>\d\d)\5(?P<year2>(?:19|20)\d\d))(?:[-_ T,]+(?:at )?|)"
    r"(?P<hour>\d\d|(?<!\d)\d(?=[-_.:h]))[-_.:h]?(?P<minute>\d\d)[-_.:m]?(?P<second>\d\d)"
    r"(?:\d{3})?(?!\d)(?:\s?(?P<half>[AaPp])\.?[Mm]\b)?")
EPOCH_IN_NAME = re.compile(r"(?<!\d)(1[0-9]{9})\d{3}(?!\d)")
# A day as tables have it, also one that a spreadsheet has rewritten.
DAY_IN_DATE = re.compile(r"(?<!\d)(?:\d{4}(\D)\d\d?\1\d\d?|\d\d?(\D)\d\d?\2\d{4})(?!\d)")
# iNaturalist's page of an observation, also on its national sites.
INATURALIST = re.compile(r"(?:\w+\.)?inaturalist\.[a-z.]+/observations/(\d+)(?![\w-])")


def group_photographs(rows, links):
    """Return (group name of every row, {group: its evidence, joined by "; "}).

    `links` are (evidence, i, j) of row indices. A group is named after the first 16 digits of its
    smallest SHA-256.
    """
    groups = join_groups([row["sha256"][:16] for row in rows], [pair for _, *pair in links])
    found = defaultdict(set)
    for evidence, i, _ in links:
        found[groups[i]].add(evidence)
    return groups, {group: "; ".join(sorted(kinds, key=EVIDENCE.index))
                    for group, kinds in found.items()}


def join_groups(names, pairs):
    """Return for every item the smallest name in its group; (i, j) pairs connect the items."""
    one, other = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), (len(names), len(names)))
    groups, smallest = connected_components(graph, directed=False)[1].tolist(), {}
    for name, group in zip(names, groups, strict=True):
        smallest[group] = min(name, smallest.get(group, name))
    return [smallest[group] for group in groups]


def link_photographs(rows, pages, files, minutes):
    """Return the links (evidence, i, j) from the tables of the earlier steps.

    `rows` have `sha256`, `group` (of cleaning), `label`, `file`, `camera`, `taken` and `author`,
    and may have `observer`, `date` and `observations`; `pages` maps a SHA-256 to the source pages
    of that photograph; `files` are (label, file) of all collected files, even rejected ones.
    """
    return link_equal(find_keys(rows, pages, files)) + link_by_time(rows, minutes)


def find_keys(rows, pages, files):
    """Return the list of keys (evidence, ...) of every row; rows that share a key are linked.

    Except for near-duplicates, pages and observations, only photographs of one class are linked:
    other plants of the same walk leak no label.
    """
    numbered, depths, found = number_runs(files), common_depths(files), []
    for row in rows:
        label, folder = row["label"], PurePosixPath(row["file"]).parent.parts
        keys = [(NEAR, row["group"])]
        keys += [(PAGE, same_page(page)) for page in sorted(pages.get(row["sha256"], ()))]
        keys += [(OBSERVATION, *name) for name in row.get("observations", ())]
        # One source calls a person by login, another by name.
        if day := DAY_IN_DATE.match(row.get("date", "")):
            keys += [(DAY, label, person, day[0]) for person in sorted(
                {row.get("observer", ""), row["author"]} - {""})]
        # What is below a subfolder is of the same plant.
        if len(folder) > depths[label]:
            keys.append((SUBFOLDER, label, folder[0], folder[depths[label]]))
        if (label, row["file"]) in numbered:
            keys.append((NUMBERED, label, numbered[label, row["file"]]))
        found.append(keys)
    return found


def common_depths(files):
    """Return {label: number of folders, that of the class included, in which all its files are}.

    Where all photographs of a class are in one subfolder, that folder says nothing.
    """
    folders = defaultdict(set)
    for label, file in files:
        folders[label].add(PurePosixPath(file).parent.parts[1:])
    return defaultdict(lambda: 1, {label: 1 + len(os.path.commonprefix(sorted(some)))
                                   for label, some in folders.items()})


def same_page(page):
    """Return what the addresses of one page have in common."""
    if match := INATURALIST.search(page):
        return f"inaturalist.org/observations/{match[1]}"
    return re.sub(r"^https?://(www\.)?|/$", "", page)


def link_equal(keys):
    """Return links (evidence, first, i) between rows that share a key of `keys`, a list per row."""
    first, links = {}, []
    for i, some in enumerate(keys):
        links += [(key[0], first.setdefault(key, i), i) for key in some]
    return [link for link in links if link[1] != link[2]]


def link_by_time(rows, minutes):
    """Return links between photographs of a class by one camera, or author, `minutes` apart.

    A series continues as long as the next photograph follows within `minutes`; 0 links nothing.
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


def capture_time(row):
    """Return the capture time of a photograph, from its EXIF or its file name, or None."""
    stem = PurePosixPath(row["file"]).stem
    match, epoch = TIME_IN_NAME.search(stem), EPOCH_IN_NAME.search(stem)
    with suppress(ValueError):
        return datetime.strptime(row["taken"], "%Y-%m-%dT%H:%M:%S")
    with suppress(ValueError):
        if match:
            return time_of_name(match)
    return datetime(1970, 1, 1) + timedelta(seconds=int(epoch[1])) if epoch else None


def time_of_name(match):
    """Return the time of a match of TIME_IN_NAME; raises ValueError if no such time exists.

    The day is before the month in 01-05-2024, unless that is no date.
    """
    year, month, day = (match[name] or match[f"{name}2"] for name in ("year", "month", "day"))
    if match["year2"] and int(month) > 12:
        month, day = day, month
    hour, half = int(match["hour"]), (match["half"] or "").lower()
    if half and hour <= 12:
        hour = hour % 12 + 12 * (half == "p")
    return datetime(*map(int, (year, month, day, hour, match["minute"], match["second"])))


def number_runs(files):
    """Return {(label, file): name of its run} of consecutively numbered files in a folder.

    Names of a run are the same but for their last number: IMG_0012, "leaf (3)", DSC_0012_small.
    Those of one number, such as a photograph and what a program notes beside it, count once. A
    series may be as long as its class; only numbers that `count_collection` are not a series.
    """
    numbers, stems = defaultdict(lambda: defaultdict(list)), defaultdict(set)
    for label, file in files:
        path = PurePosixPath(file)
        stem = path.stem.casefold()
        stems[label].add((path.parent, stem))
        if match := re.fullmatch(r"(|.*\D)(\d{1,9})(\D*)", stem):
            numbers[label, path.parent, match[1], match[3]][int(match[2])].append(file)
    counting, runs = count_collection(numbers, stems), {}
    for key, files_of in numbers.items():
        if key in counting:
            continue
        some = sorted(files_of)
        starts = [i for i, number in enumerate(some) if i == 0 or number > some[i - 1] + 1]
        for start, end in zip(starts, [*starts[1:], len(some)], strict=True):
            if end - start > 1:
                runs |= {(key[0], file): (*key[1:], some[start])
                         for number in some[start:end] for file in files_of[number]}
    return runs


def count_collection(numbers, stems):
    """Return the keys of `numbers` whose numbers only count a folder, or a collection.

    Such numbers are of at least half of a class ({label: its `stems`}), nearly fill their range
    and begin near 1; or another class begins there and each has numbers of its own. `numbers` maps
    (label, folder, text before, text after) to numbers.
    """
    filled = [key for key, some in numbers.items() if len(some) >= len(stems[key[0]]) / 2
              and len(some) > NUMBERED_THROUGH * (max(some) - min(some) + 1)]
    together = defaultdict(list)
    for key in filled:
        together[key[2:]].extend(numbers[key])
    from_one = {key for key in filled if len(numbers[key]) > NUMBERED_THROUGH * max(numbers[key])}
    whole = {key[2:] for key in from_one if len(set(together[key[2:]])) == len(together[key[2:]])
             > NUMBERED_TOGETHER * max(together[key[2:]])}
    return from_one | {key for key in filled if key[2:] in whole}


def known_evidence(rows, pages, files):
    """Return {evidence: number of photographs that have such data}, for the report."""
    counts = Counter(kind for keys in find_keys(rows, pages, files)
                     for kind in {key[0] for key in keys})
    for row in rows:
        if capture_time(row):
            counts[CAMERA] += 1
            counts[AUTHOR] += bool(row["author"])
    return {kind: counts[kind] for kind in EVIDENCE if kind not in (*KINDS, OBSERVER)}


def evidence_lines(rows):
    """Return the lines of the report that count groups of several photographs by evidence."""
    members = defaultdict(list)
    for row in rows:
        members[row["group"]].append(row)
    several = [group for group in members.values() if len(group) > 1]
    lines = [f"groups of several photographs: {len(several)}, with "
             f"{sum(map(len, several))} photographs; joined by (a group may count under several)"]
    for kind in EVIDENCE:
        joined = [group for group in several if kind in group[0].get("joined_by", "").split("; ")]
        if joined:
            lines.append(f"  {kind}: {len(joined)} groups, {sum(map(len, joined))} photographs")
    return lines


# ---- observers ----

def link_observers(rows, links, before, per_class, seed):
    """Return the links that keep each observer's photographs of a class on one side.

    Only in classes that can still fill their test quota, and only if no photograph labelled
    `before` ({SHA-256: side}) would have to move. `rows` and `links` are those of
    `group_photographs`.
    """
    wanted = link_equal([[(OBSERVER, row["label"], row["observer"])] if row.get("observer") else []
                         for row in rows])
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
