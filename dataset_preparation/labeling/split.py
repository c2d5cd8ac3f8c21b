"""The split by group, published file names, and the check for data leakage."""
import re
from collections import Counter, defaultdict
from itertools import combinations, product
from pathlib import Path

from dataset_preparation.cleaning.decisions import kept_one_by_one
from dataset_preparation.cleaning.duplicate_pairs import KINDS, NEAR, OVERLAP, PAIRS_TABLE
from names import list_some, slug
from utils import InputError, pick_groups, warn

SIDES = ("train", "test")


# ---- the split ----

def assign_sides(rows, before, per_class, seed):
    """Return ({group: "train" or "test"}, [groups that moved to train]).

    `rows` have `group`, `sha256`, `label` and `kept`. `before` maps the SHA-256 of photographs
    labelled earlier to their side. A group keeps its side; one with photographs on both sides goes
    to train as a whole. New groups fill each class's test quota, at most `per_class` and at most a
    third of the class, in hash order. At least half of the groups, and at least two, are left for
    training and validation. A new group of several classes goes to train, since its photographs
    would count in the quotas of all of them.
    """
    sides, moved, sizes, labels = {}, [], defaultdict(Counter), defaultdict(set)
    past = defaultdict(set)
    for row in rows:
        if row["sha256"] in before:
            past[row["group"]].add(before[row["sha256"]])
        if row["kept"]:
            sizes[row["label"]][row["group"]] += 1
            labels[row["group"]].add(row["label"])
    for group, earlier in past.items():
        sides[group] = "test" if earlier == {"test"} else "train"
        if len(earlier) == 2:
            moved.append(group)
    for label in sorted(sizes):
        quota = min(per_class, sum(sizes[label].values()) // 3)
        test = [size for group, size in sizes[label].items() if sides.get(group) == "test"]
        taken = sum(test)
        # Train, validation and test need at least three groups.
        most = len(sizes[label]) // 2 if len(sizes[label]) > 2 else 0
        new = [group for group in sizes[label] if group not in sides]
        eligible = {group: sizes[label][group] for group in new if len(labels[group]) == 1}
        picked = pick_groups(eligible, max(0, quota - taken), seed, max(0, most - len(test)))
        if not (picked or test) and most and eligible:
            # Every group exceeds the quota: take the smallest, unless it is most of the class.
            smallest = min(eligible.values())
            if 2 * smallest <= sum(sizes[label].values()):
                picked = pick_groups(eligible, smallest, seed, 1)
        sides.update({group: "test" if group in picked else "train" for group in new})
    return sides, sorted(moved)


HINTS = {  # evidence that joined a class into too few groups -> what to do if it is wrong
    "subfolder": "Photographs in a subfolder count as those of one plant or occasion: move those "
                 "of others up into the folder of the class and clean again. ",
    "numbered series": "Consecutively numbered files count as one series: if their numbers mean "
                       "nothing, number the files of each class from 1 and clean again. "}


def require_enough_groups(rows, sides, classes, source, small_classes):
    """Raise InputError if a class has too few groups for training, validation and test.

    With `small_classes` "train" this is a warning: the class gets no test photographs and, with a
    single group, no validation photographs.
    """
    groups = defaultdict(lambda: defaultdict(Counter))
    for row in rows:
        if row["kept"]:
            groups[row["label"]][sides[row["group"]]][row["group"]] += 1
    missing = [plant.latin for plant in classes if plant.label not in groups]
    if missing:
        raise InputError(f"{len(missing)} of {len(classes)} classes have no photographs in {source}"
                         f" ({list_some(missing)}): collect and clean them, use the first classes "
                         "only (--limit_classes), or name another class table (--class_table)")
    joined = {row["group"]: row.get("joined_by", "") for row in rows}
    small, trained = [], []
    for plant in classes:
        train, test = (groups[plant.label][side] for side in SIDES)
        if len(train) < 2 or not test:
            largest, size = (train + test).most_common(1)[0]
            text = (f"{plant.latin} ({len(train)} train, {len(test)} test; the largest group has "
                    f"{size} of {sum((train + test).values())} photographs"
                    f"{', joined by ' + joined[largest] if joined[largest] else ''})")
            (trained if small_classes == "train" and train else small).append(text)
    if small:
        hint = "".join(text for evidence, text in HINTS.items()
                       if any(f"joined by {evidence}" in one for one in small))
        if any(kind in text for text in small for kind in KINDS):
            hint += (f"{source / PAIRS_TABLE} lists the pairs that cleaning linked; to separate "
                     "different plants before one background, see docs/labelling.md. ")
        raise InputError("too few photographs for training, validation and test, as groups are "
                         f"never split: {', '.join(small)}. {hint}Collect more, or leave the class "
                         "out of the class table; --small_classes train labels such a class "
                         "without test photographs, and training validates without it if it is "
                         "one group")
    if trained:
        warn(f"too few groups for training, validation and test: {', '.join(trained)}")


# ---- published names ----

def published_number(name, latin, side):
    """Return n of a file named `<slug>_<side>_<n>.jpg`, or None for any other file."""
    match = re.fullmatch(rf"{re.escape(slug(latin))}_{side}_(\d+)\.jpg", name)
    return int(match[1]) if match else None


def table_order(row):
    """Return the sort key of label tables: label, number in the file name, path."""
    number = published_number(Path(row["path"]).name, row["latin"], row["side"])
    return row["label"], number or 0, row["path"]  # None for rows that --repair moved to train


def name_photographs(rows, earlier, folder):
    """Fill in every row's `path` below `folder`: the earlier one, or an unused number.

    `rows` have `latin`, `side` and `sha256`; `earlier` maps (side, latin, sha256) to a row of a
    label table.
    """
    used = defaultdict(int)
    for side, latin in sorted({(row["side"], row["latin"]) for row in rows}):
        names = [Path(row["path"]).name for key, row in earlier.items() if key[:2] == (side, latin)]
        names += [path.name for base in (folder, folder / "set_aside")
                  for path in (base / side / latin).glob("*")]
        numbers = [published_number(name, latin, side) or 0 for name in names]
        used[side, latin] = max(numbers, default=0)
    for row in sorted(rows, key=lambda row: row["sha256"]):
        key = row["side"], row["latin"]
        row["path"] = earlier.get((*key, row["sha256"]), {}).get("path")
        if row["path"] is None:
            used[key] += 1
            side, latin = key
            row["path"] = f"{side}/{latin}/{slug(latin)}_{side}_{used[key]}.jpg"


# ---- data leakage ----

def find_leaks(rows, contents, pairs):
    """Return {kind: [(train path, test path)]} of photographs that belong together but are split.

    `rows` have `path`, `side`, `group` and `sha256`; `contents` are the SHA-256 of the published
    files, `pairs` (kind, i, j) of row indices. A pair is listed once, under the first kind that
    applies.
    """
    def across(pairs):
        return {(i, j) for i, j in map(sorted, pairs) if rows[i]["side"] != rows[j]["side"]}
    same = defaultdict(list)
    for i, row in enumerate(rows):
        same["exact duplicates", row["sha256"]].append(i)
        same["exact duplicates", contents[i]].append(i)
        same["groups split", row["group"]].append(i)
    split_pairs = {"exact duplicates": set(),
                   **{kind: across(pair for of_kind, *pair in pairs if of_kind == kind)
                      for kind in KINDS}, "groups split": set()}
    for (kind, _), members in same.items():  # all pairs of one large group would be millions
        sides = [[i for i in members if rows[i]["side"] == side] for side in SIDES]
        split_pairs[kind] |= {tuple(sorted(pair)) for pair in product(*sides)}
    listed, found = set(), {}
    for kind, some in split_pairs.items():
        paths = [(rows[i]["path"], rows[j]["path"]) for i, j in some - listed]
        found[kind] = sorted(tuple(sorted(pair, reverse=True)) for pair in paths)
        listed |= some
    return found


# ---- report ----

def refuse_conflicts(rows, links, verdicts):
    """Raise InputError if a picture is kept under several names, unless a person decided so.

    A person decides by keeping both one by one, or by marking them as two pictures, in the
    `Verdicts`. `rows` have `sha256`, `class` (collected for), `label`, `file`, `kept` and the
    `group` of cleaning; `links` are (evidence, i, j).
    """
    members = defaultdict(list)
    for i, row in enumerate(rows):
        if row["kept"] and row["group"]:
            members[row["group"]].append(i)
    pairs = {(i, j) for kind, i, j in links if kind == NEAR}
    pairs |= {pair for group in members.values() if len({rows[i]["label"] for i in group}) > 1
              for pair in combinations(group, 2)}
    pairs = [(rows[i], rows[j]) for i, j in pairs if rows[i]["label"] != rows[j]["label"]
             and rows[i]["kept"] and rows[j]["kept"]]
    open_pairs = sorted({
        tuple(sorted((one["file"], other["file"]))) for one, other in pairs
        if frozenset((one["sha256"], other["sha256"])) not in verdicts.apart
        and not kept_one_by_one(verdicts, (one, other))})
    for one, other in open_pairs:
        print(f"one picture under two names: {one} ~ {other}")
    if open_pairs:
        raise InputError(f"{len(open_pairs)} pairs of photographs are one picture under two names "
                         f"(above), such as {' and '.join(open_pairs[0])}; in review.py reject or "
                         "move one of each, or keep both one by one, and clean again")


def report_leaks(rows, contents, pairs):
    """Return (number of leaking pairs, lines of the report, including label conflicts)."""
    found = find_leaks(rows, contents, pairs)
    group_of = {row["path"]: row["group"] for row in rows}
    lines = []
    for kind, some in found.items():  # borderline pairs, too: they may be one picture
        lines.append(f"{kind} across train and test: {len(some)}")
        for train, test in some:
            split_group = f": group {group_of[test]} is split" if kind == "groups split" else ""
            lines.append(f"  {train} ~ {test}{split_group}")
    for kind in (NEAR, OVERLAP):
        conflicts = sorted(tuple(sorted((rows[i]["path"], rows[j]["path"]))) for of_kind, i, j in
                           pairs if of_kind == kind and rows[i]["label"] != rows[j]["label"])
        lines += [f"label conflicts, {kind} under several names: {len(conflicts)}",
                  *(f"  {one} ~ {other}" for one, other in conflicts)]
    return sum(map(len, found.values())), lines


def doubtful_line(rows):
    """Return the line of the report about labels that find_label_errors.py doubts."""
    judged = [row for row in rows if row.get("doubtful")]
    if not judged:
        return "doubtful labels: not judged, as find_label_errors.py was not run before"
    counts = Counter(row["side"] for row in judged if row["doubtful"] == "yes")
    return (f"doubtful labels by label_scores.csv, not decided in review: {counts['train']} in "
            f"train, {counts['test']} in test; judged {len(judged)} of {len(rows)} photographs")


def count_lines(rows, classes, per_class=0):
    """Return the lines of the report that count photographs and groups per class."""
    counts, groups = Counter(), defaultdict(set)
    for row in rows:
        counts[row["label"], row["side"]] += 1
        groups[row["label"]].add(row["group"])
    width = max(len(plant.latin) for plant in classes)
    lines = [f"{plant.label:3} {plant.latin:{width}}  train {counts[plant.label, 'train']:5}  "
             f"test {counts[plant.label, 'test']:4}  groups {len(groups[plant.label]):5}"
             for plant in classes]
    short = [plant.latin for plant in classes if counts[plant.label, "test"] < per_class]
    if short:
        lines.append(f"fewer than {per_class} test photographs (at most a third of a class, and "
                     f"photographs labelled before keep their side): {', '.join(short)}")
    return lines
