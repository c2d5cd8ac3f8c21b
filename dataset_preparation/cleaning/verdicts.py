"""What becomes of every photograph: near-duplicates, label conflicts, decisions, suspicion."""
from collections import Counter, defaultdict

from dataset_preparation.cleaning.near_duplicates import (
    from_hex,
    group_as_published,
    group_near_duplicates,
    hash_distances,
)
from dataset_preparation.cleaning.quality_scores import suspect


def assign_statuses(rows, rule, verdicts, label_scores):
    """Fill in the columns of cleaned.csv, in place.

    `rows` are results of `inspect` with `file` and `class`, sorted by file. `rule` holds the
    settings of cleaning, `verdicts` the decisions in force, `label_scores` {(SHA-256,
    label_class): row of label_scores.csv}.
    """
    for row in rows:
        apply_decisions(row, verdicts)
        row.update(label_scores.get((row["sha256"], row["label_class"]), {}))
    compared = [row for row in rows
                if row["fingerprint"] and (row["status"] == "kept" or row["choice"] == "reject")]
    fingerprints = from_hex(row["fingerprint"] for row in compared)
    groups, borderline = find_groups(compared, fingerprints, rule, verdicts.apart)
    join_groups(groups, [row["sha256"] for row in compared], verdicts)
    members = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    for group in members.values():
        resolve_group([compared[i] for i in group])
    fill_in_keepers(compared, fingerprints, members.values())
    fill_in_borderline(compared, groups, borderline, verdicts.apart)
    for row in rows:
        row["suspicion"], row["suspected"] = (0.0, "") if row["choice"] else suspect(row)


def apply_decisions(row, verdicts):
    """Fill in the class in effect, the decision by hand, scores, and the status these lead to."""
    key = row["sha256"], row["class"]
    row["label_class"] = verdicts.moves.get(key, row["class"])
    choice = verdicts.choices.get(key)
    possible = choice and (row["fingerprint"] or choice["action"] == "reject")
    row["choice"] = choice["action"] if possible else ""
    row.update(row["scores"], status="rejected" if row["reason"] else "kept")
    if row["fingerprint"]:
        sides = row["width"], row["height"]
        row["aspect"] = round(max(sides) / min(sides), 2)
    if row["choice"] == "keep":
        row.update(status="kept", reason="")
    elif row["choice"] == "reject":
        row.update(status="rejected", reason=f"by hand: {choice['reason']}".rstrip(": "))


def find_groups(rows, fingerprints, rule, apart):
    """Return (group of each row, borderline pairs) by the rule chosen."""
    contents = [row["sha256"] for row in rows]
    if rule["duplicate_rule"] == "published":
        classes = [row["label_class"] for row in rows]
        return group_as_published(fingerprints, contents, classes), []
    return group_near_duplicates(fingerprints, contents, rule, apart)


def join_groups(groups, contents, verdicts):
    """Join, in place, the groups of photographs that a person found to be one picture.

    Groups that hold photographs a person found to be different are not joined.
    """
    where, members = defaultdict(set), defaultdict(set)
    for i, content in enumerate(contents):
        where[content].add(i)
        members[groups[i]].add(i)
    for pair in sorted(map(sorted, verdicts.together)):
        found = sorted({groups[i] for content in pair for i in where[content]})
        for one, other in ((found[0], other) for other in found[1:]):
            inside = {contents[i] for i in members[one] | members[other]}
            if any(apart <= inside for apart in verdicts.apart):
                continue
            for i in members[other]:
                groups[i] = one
            members[one] |= members.pop(other)


def best_first(row):
    """Return a sort key that puts the best near-duplicate first.

    That is the one chosen by hand, else with most pixels, most bytes, the first file name.
    """
    return row["choice"] != "keep", -row["width"] * row["height"], -row["bytes"], row["file"]


def resolve_group(group):
    """Give the near-duplicates of one group their status.

    The best one is kept, unless they bear several names: then all wait for review. Where the best
    of a class was rejected by hand, its near-duplicates of that class follow it.
    """
    by_class = defaultdict(list)
    for row in sorted(group, key=best_first):
        by_class[row["label_class"]].append(row)
    for best, *others in by_class.values():
        if best["choice"] == "reject":
            for row in others:
                if not row["choice"]:
                    row.update(status="rejected",
                               reason=f"by hand: as its better duplicate {best['file']}")
    left = [row for row in group if row["status"] == "kept"]
    names, kept = Counter(row["label_class"] for row in left), set()
    for row in sorted(left, key=best_first):
        photograph = row["sha256"], row["label_class"]  # equal files have one cleaned photograph
        wanted = row["choice"] == "keep" or (len(names) == 1 and not kept)
        if wanted and photograph not in kept:
            kept.add(photograph)
        elif len(names) > 1:
            row.update(status="review",
                       reason=f"the same picture under several names: {', '.join(sorted(names))}")
            row["proposal"] = row.get("proposal") or propose_class(left, names)
        else:
            row.update(status="duplicate", reason="duplicate of the keeper")


def propose_class(rows, names):
    """Return the class proposed for near-duplicates under several names, "" if none is preferred.

    `names` counts the rows of each class. Preferred is the class chosen by hand, else the most
    frequent, else that of the photograph with most pixels, most bytes.
    """
    def evidence(row):
        *quality, _ = best_first(row)  # a file's name is no evidence
        return row["choice"] != "keep", -names[row["label_class"]], *quality
    strongest = min(map(evidence, rows))
    preferred = {row["label_class"] for row in rows if evidence(row) == strongest}
    return preferred.pop() if len(preferred) == 1 else ""


def fill_in_keepers(rows, fingerprints, groups):
    """Fill in `group`, `keeper` and, except for the keeper, `distance`; `groups` hold indices."""
    for group in groups:
        best = min(group, key=lambda i: (rows[i]["status"] == "rejected", best_first(rows[i])))
        name = min(rows[i]["sha256"] for i in group)[:16]
        for i in group:
            rows[i].update(group=name, keeper=rows[best]["file"])
            if i != best:
                rows[i]["distance"] = int(hash_distances(fingerprints, [best], [i])[0][0])


def fill_in_borderline(rows, groups, borderline, apart):
    """Fill in `near` and `near_bits` of kept rows: the closest photograph that may be the same.

    `borderline` holds (bits of 256, bits of 64, i, j), closest first. Pairs of `apart`, which a
    person found to be different, are left out.
    """
    kept, groups_of = {}, defaultdict(set)
    for row, group in zip(rows, groups, strict=True):
        groups_of[row["sha256"]].add(group)
        if row["status"] == "kept":
            kept.setdefault(group, row)
    different = {frozenset((a, b)) for one, other in map(sorted, apart)
                 for a in groups_of[one] for b in groups_of[other]}
    for check, _, i, j in borderline:
        pair = groups[i], groups[j]
        if len(set(pair)) == 2 and kept.keys() >= set(pair) and frozenset(pair) not in different:
            for group, partner in (pair, pair[::-1]):
                if "near" not in kept[group]:
                    kept[group].update(near=kept[partner]["file"], near_bits=check)
