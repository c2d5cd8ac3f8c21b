"""The split by group, the published file names, and the check that nothing leaks from train to test."""
import re
from collections import Counter, defaultdict
from pathlib import Path

from dataset_preparation.cleaning.cleaning_utils import map_files
from dataset_preparation.cleaning.near_duplicates import fingerprint, from_texts, near_pairs, to_text
from images import open_image, to_rgb
from utils import InputError, pick_groups, progress, sha256, slug

# Two published photographs are near copies within these bits of both hashes, whatever rule cleaning used, and may be
# copies within the last: the defaults of cleaning, which says why.
NEAR_BITS, SAME_BITS, BORDERLINE_BITS = 12, 48, 88

SIDES = ("train", "test")


# ---- groups and split ----

def link(rows, pages, near):
    """Return the group name of every row: photographs joined by cleaning, by a source page or by being near copies.

    `rows` have `sha256` and `group`, `pages` maps a SHA-256 to the source pages of that photograph, `near` holds
    index pairs. A group is named by the first 16 digits of the smallest SHA-256 in it.
    """
    first, pairs = {}, list(near)
    for i, row in enumerate(rows):
        for key in [("group", row["group"]), *(("page", page) for page in sorted(pages.get(row["sha256"], ())))]:
            pairs.append((first.setdefault(key, i), i))
    return join_groups([row["sha256"][:16] for row in rows], pairs)


def join_groups(names, pairs):
    """Return for every item the smallest name of those it is connected with through (i, j) pairs (union-find)."""
    parent = list(range(len(names)))

    def root(item):
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item
    for one, other in pairs:
        first, second = sorted((root(one), root(other)), key=lambda item: names[item])
        parent[second] = first
    return [names[root(item)] for item in range(len(names))]


def split(rows, before, per_class, seed):
    """Return ({group: "train" or "test"}, [groups that moved to train]).

    `rows` have `group`, `sha256`, `label` and `kept`. `before` maps the SHA-256 of earlier labelled photographs to
    their side. Groups keep it; one that touches both sides goes wholly to train. New groups fill each class's test
    quota, at most `per_class` and at most a third of the class, in hash order. A group of several classes is never
    test.
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
        taken = sum(size for group, size in sizes[label].items() if sides.get(group) == "test")
        fresh = {group: size for group, size in sizes[label].items() if group not in sides and len(labels[group]) == 1}
        picked = pick_groups(fresh, max(0, quota - taken), seed)
        sides.update({group: "test" if group in picked else "train" for group in sizes[label] if group not in sides})
    return sides, sorted(moved)


def check_classes(rows, sides, classes, source):
    """Raise InputError where a class has no photographs or too few groups to be trained, validated and tested."""
    groups = defaultdict(lambda: defaultdict(set))
    for row in rows:
        if row["kept"]:
            groups[row["label"]][sides[row["group"]]].add(row["group"])
    missing = [one.latin for one in classes if one.label not in groups]
    if missing:
        raise InputError(f"{len(missing)} of {len(classes)} classes have no photographs in {source} ("
                         f"{', '.join(missing[:5])}{', ...' * (len(missing) > 5)}): collect and clean them, use the "
                         "first classes only (--limit_classes), or give a class table of your own (--class_table)")
    small = [f"{one.latin} ({len(groups[one.label]['train'])} train, {len(groups[one.label]['test'])} test)"
             for one in classes if len(groups[one.label]["train"]) < 2 or not groups[one.label]["test"]]
    if small:
        raise InputError("too few photographs that are not copies or of one page for training, validation and test, "
                         f"in groups: {', '.join(small)}; collect more, or leave the class out of the class table")


# ---- published names ----

def published_number(name, latin, side):
    """Return n of a file named `<slug>_<side>_<n>.jpg`, or None for any other file."""
    match = re.fullmatch(rf"{re.escape(slug(latin))}_{side}_(\d+)\.jpg", name)
    return int(match[1]) if match else None


def name_photographs(rows, earlier, folder):
    """Give every row its `path` below `folder`: the earlier one if its side is the same, else a number never used.

    `rows` have `latin`, `side` and `sha256`; `earlier` maps (side, latin, sha256) to a row of a label table.
    """
    used = defaultdict(int)
    for side, latin in sorted({(row["side"], row["latin"]) for row in rows}):
        names = [Path(row["path"]).name for key, row in earlier.items() if key[:2] == (side, latin)]
        names += [path.name for base in (folder, folder / "set_aside") for path in (base / side / latin).glob("*")]
        used[side, latin] = max((published_number(name, latin, side) or 0 for name in names), default=0)
    for row in sorted(rows, key=lambda row: row["sha256"]):
        key = row["side"], row["latin"]
        row["path"] = earlier.get((*key, row["sha256"]), {}).get("path")
        if row["path"] is None:
            used[key] += 1
            row["path"] = f"{row['side']}/{row['latin']}/{slug(row['latin'])}_{row['side']}_{used[key]}.jpg"


# ---- near copies and leaks ----

def hash_photograph(path, max_megapixels):
    """Return (SHA-256 of the file, fingerprint), or (reason, "") for a file that is not a whole picture."""
    try:
        data = Path(path).read_bytes()
        return sha256(data), to_text(fingerprint(to_rgb(open_image(data, max_megapixels)[0]), "phash"))
    except (InputError, OSError) as error:
        return str(error), ""


def hash_photographs(paths, max_megapixels, processes, known=()):
    """Return [(SHA-256 of the file, fingerprint)] of cleaned or published photographs.

    `known` maps a SHA-256 to its fingerprint and spares decoding that file. Raises InputError naming an unreadable one.
    """
    known, results, jobs = dict(known), {}, []
    for path in paths:
        content = sha256(path.read_bytes()) if known else ""
        if content in known:
            results[path] = content, known[content]
        else:
            jobs.append((path, max_megapixels))
    for (path, _), result in progress(map_files(hash_photograph, jobs, processes, ("crashes its decoder", "")),
                                      len(jobs), "comparing"):
        if not result[1]:
            raise InputError(f"{path}: {result[0]}; run cleaning again, or take its row out of the table")
        results[path] = result
    return [results[path] for path in paths]


def near_and_borderline(fingerprints):
    """Return two lists of index pairs: near copies, and pairs a little further apart that may be copies."""
    near, borderline = [], []
    for i, j, _, check in zip(*near_pairs(from_texts(fingerprints), NEAR_BITS), strict=True):
        if check <= BORDERLINE_BITS:
            (near if check <= SAME_BITS else borderline).append((int(i), int(j)))
    return near, borderline


def find_leaks(rows, contents, near, borderline):
    """Return {kind: [(train path, test path)]} of what stands on both sides: copies, groups, borderline pairs.

    `rows` have `path`, `side`, `group` and `sha256`; `contents` are the SHA-256 of the published files. A pair is named
    once, as the first of these that it is.
    """
    same = defaultdict(list)
    for i, row in enumerate(rows):
        for key in (("exact copies", row["sha256"]), ("exact copies", contents[i]), ("divided groups", row["group"])):
            same[key].append(i)
    pairs = {"exact copies": set(), "near copies": set(near), "divided groups": set(),
             "borderline pairs": set(borderline)}
    for (kind, _), members in same.items():
        pairs[kind] |= {(i, j) for i in members for j in members if i < j and rows[i]["side"] != rows[j]["side"]}
    named = set()
    for kind in pairs:
        pairs[kind] -= named
        named |= pairs[kind]
    return {kind: sorted(tuple(sorted((rows[i]["path"], rows[j]["path"]), reverse=True)) for i, j in found
                         if rows[i]["side"] != rows[j]["side"]) for kind, found in pairs.items()}


# ---- report ----

def report_leaks(rows, contents, near, borderline):
    """Return (number of leaks, lines of the report): what `find_leaks` finds, and copies under several labels."""
    found = find_leaks(rows, contents, near, borderline)
    lines = [line for kind, pairs in found.items() for line in (
        f"{kind} across train and test: {len(pairs)}", *(f"  {train} ~ {test}" for train, test in pairs))]
    conflicts = sorted(tuple(sorted((rows[i]["path"], rows[j]["path"]))) for i, j in near
                       if rows[i]["label"] != rows[j]["label"])
    lines += [f"label conflicts, copies under several names: {len(conflicts)}",
              *(f"  {one} ~ {other}" for one, other in conflicts)]
    return sum(len(pairs) for kind, pairs in found.items() if kind != "borderline pairs"), lines


def count_lines(rows, classes, per_class=0):
    """Return the lines of the report that count photographs and groups per class, short ones named."""
    counts, groups = defaultdict(int), defaultdict(set)
    for row in rows:
        counts[row["label"], row["side"]] += 1
        groups[row["label"]].add(row["group"])
    width = max(len(one.latin) for one in classes)
    lines = [f"{one.label:3} {one.latin:{width}}  train {counts[one.label, 'train']:5}  test "
             f"{counts[one.label, 'test']:4}  groups {len(groups[one.label]):5}" for one in classes]
    short = [one.latin for one in classes if counts[one.label, "test"] < per_class]
    if short:
        lines.append(f"fewer than {per_class} test photographs (at most a third of a class, and what was labelled "
                     f"before keeps its side): {', '.join(short)}")
    return lines
