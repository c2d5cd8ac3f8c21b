"""What becomes of every photograph: groups, the best copy, label conflicts, decisions by hand, the order of review."""
from collections import Counter, defaultdict

from dataset_preparation.cleaning.near_duplicates import differences, from_texts, link_copies, link_published
from dataset_preparation.cleaning.quality_scores import suspect

COLUMNS = ("file", "class", "label_class", "sha256", "width", "height", "status", "reason", "group", "keeper",
           "distance", "near", "near_bits", "proposal", "sharpness", "brightness", "aspect", "emptiness", "paper",
           "label_score", "outlier_score", "suspicion", "suspected")


def judge(rows, rule, verdicts, label_scores):
    """Fill in the columns of cleaned.csv, in place.

    `rows` come from `inspect` with `file` and `class`, sorted by file. `rule` holds the settings of the cleaning group,
    `verdicts` the decisions in force, `label_scores` {(SHA-256, label_class): row of label_scores.csv}. `status` is one
    of kept, copy (of `keeper`), review (one picture under several names) and rejected.
    """
    for row in rows:
        key = row["sha256"], row["class"]
        row["label_class"] = verdicts.moves.get(key, row["class"])
        choice = verdicts.choices.get(key)
        row["choice"] = choice["action"] if choice and (row["fingerprint"] or choice["action"] == "reject") else ""
        row.update(row["scores"], status="rejected" if row["reason"] else "kept")
        if row["fingerprint"]:
            row["aspect"] = round(max(row["width"], row["height"]) / min(row["width"], row["height"]), 2)
        if row["choice"] == "keep":
            row.update(status="kept", reason="")
        elif row["choice"] == "reject":
            row.update(status="rejected", reason=f"by hand: {choice['reason']}".rstrip(": "))
        row.update(label_scores.get((row["sha256"], row["label_class"]), {}))

    compared = [row for row in rows if row["fingerprint"] and (row["status"] == "kept" or row["choice"] == "reject")]
    prints = from_texts(row["fingerprint"] for row in compared)
    groups, borderline = link(compared, prints, rule, verdicts.apart)
    members = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    for group in members.values():
        judge_group([compared[i] for i in group])
    name_keepers(compared, prints, members.values())
    name_borderline(compared, groups, borderline, verdicts.apart)
    for row in rows:
        row["suspicion"], row["suspected"] = (0.0, "") if row["choice"] else suspect(row)


def link(rows, prints, rule, apart):
    """Return (group of each row, borderline pairs) by the rule chosen."""
    contents = [row["sha256"] for row in rows]
    if rule["duplicate_rule"] == "published":
        return link_published(prints, contents, [row["label_class"] for row in rows]), []
    return link_copies(prints, contents, rule, apart)


def quality(row):
    """Return a sort key that puts the best copy first: chosen by hand, most pixels, most bytes, first file name."""
    return row["choice"] != "keep", -row["width"] * row["height"], -row["bytes"], row["file"]


def judge_group(group):
    """Give the rows of one group their status: the best of each class, its copies, several names, rejected by hand."""
    by_class = defaultdict(list)
    for row in sorted(group, key=quality):
        by_class[row["label_class"]].append(row)
    for same in by_class.values():
        if same[0]["choice"] == "reject":
            for row in same[1:]:
                if not row["choice"]:
                    row.update(status="rejected", reason=f"by hand: as its better copy {same[0]['file']}")
    left = [row for row in group if row["status"] == "kept"]
    names, kept = Counter(row["label_class"] for row in left), set()
    for row in sorted(left, key=quality):
        place = row["sha256"], row["label_class"]  # equal files have one cleaned photograph
        if place not in kept and (row["choice"] == "keep" or (len(names) == 1 and not kept)):
            kept.add(place)
        elif len(names) > 1:
            row.update(status="review", reason=f"the same picture under {', '.join(sorted(names))}")
            row["proposal"] = row.get("proposal") or propose(left, names)
        else:
            row.update(status="copy", reason="copy of the keeper")


def propose(rows, names):
    """Return the class proposed for pictures under several `names` (a Counter): chosen by hand, else named most
    often, else that of the copy with most pixels, most bytes; "" where these prefer none."""
    def evidence(row):
        return row["choice"] != "keep", -names[row["label_class"]], *quality(row)[:-1]  # a file's name is none
    best = min(map(evidence, rows))
    preferred = {row["label_class"] for row in rows if evidence(row) == best}
    return preferred.pop() if len(preferred) == 1 else ""


def name_keepers(rows, prints, groups):
    """Fill in `group`, `keeper` and, for others than it, `distance` in bits of 64; `groups` hold indices of rows."""
    for group in groups:
        best = min(group, key=lambda i: (rows[i]["status"] == "rejected", quality(rows[i])))
        name = min(rows[i]["sha256"] for i in group)[:16]
        for i in group:
            rows[i].update(group=name, keeper=rows[best]["file"])
            if i != best:
                rows[i]["distance"] = int(differences(prints, [best], [i])[0][0])


def name_borderline(rows, groups, borderline, apart):
    """Fill in `near` and `near_bits` (of 256) of kept rows: the closest photograph that may be the same."""
    kept, parted = {}, set()
    for i, row in enumerate(rows):
        if row["status"] == "kept":
            kept.setdefault(groups[i], row)
    places = defaultdict(set)
    for i, row in enumerate(rows):
        places[row["sha256"]].add(groups[i])
    for one, other in map(sorted, apart):
        parted |= {frozenset((a, b)) for a in places[one] for b in places[other]}
    for check, _, i, j in borderline:  # closest first
        one, other = groups[i], groups[j]
        if one != other and one in kept and other in kept and frozenset((one, other)) not in parted:
            for row, partner in ((kept[one], kept[other]), (kept[other], kept[one])):
                if "near" not in row:
                    row.update(near=partner["file"], near_bits=check)
