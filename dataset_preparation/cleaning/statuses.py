"""The status of every photograph, from near-duplicates, label conflicts and decisions."""
from collections import defaultdict

from dataset_preparation.cleaning.cleaned_table import SCORES
from dataset_preparation.cleaning.duplicate_pairs import BORDERLINE, NEAR
from dataset_preparation.cleaning.near_duplicates import from_hex, hash_distances
from dataset_preparation.cleaning.quality_scores import suspect

NOT_JUDGED = dict.fromkeys(SCORES, "")
SURE = 0.5  # least probability of a name proposed for a picture under several names


def assign_statuses(rows, verdicts, label_scores, search):
    """Fill in the columns of cleaned.csv, in place; return (rows compared, pairs among them).

    `rows` are results of `inspect` with `file` and `class`, sorted by file, `label_scores`
    {(SHA-256, label_class): row of label_scores.csv}; `search` maps (contents, fingerprints) to the
    `Pair`s of duplicate_pairs.py.
    """
    for row in rows:
        apply_decisions(row, verdicts)
    compared = sorted((row for row in rows if row["fingerprint"]
                       and (row["status"] == "kept" or row["choice"] == "reject")), key=best_first)
    contents = [row["sha256"] for row in compared]
    fingerprints = from_hex(row["fingerprint"] for row in compared)
    pairs = [pair for pair in search(contents, fingerprints)
             if frozenset((contents[pair.first], contents[pair.second])) not in verdicts.apart]
    keepers = find_keepers(contents, pairs, verdicts.apart)
    pictures = join_pictures(compared, keepers, pairs, verdicts)
    for picture in pictures:
        resolve_group([compared[i] for i in picture])
    fill_in_keepers(compared, fingerprints, pictures)
    fill_in_borderline(compared, pictures, pairs)
    join_label_scores(rows, label_scores)
    return compared, pairs


def apply_decisions(row, verdicts):
    """Fill in `label_class`, the decision by hand, scores, and the resulting status."""
    key = row["sha256"], row["class"]
    row["label_class"] = verdicts.moves.get(key, row["class"])
    note_choice(row, verdicts, row["fingerprint"])
    row.update(row["scores"], status="rejected" if row["reason"] else "kept")
    if row["fingerprint"]:
        sides = row["width"], row["height"]
        row["aspect"] = round(max(sides) / min(sides), 2)
    if row["choice"] == "keep":
        row.update(status="kept", reason="")
    elif row["choice"] == "reject":
        why = verdicts.choices[key]["reason"]
        row.update(status="rejected", reason=f"by hand: {why}".rstrip(": "))


def note_choice(row, verdicts, decoded):
    """Fill in `choice` (keep, reject or "") and `bulk` (whether its key press chose several).

    A file that could not be decoded cannot be kept.
    """
    choice = verdicts.choices.get((row["sha256"], row["class"]), {"action": ""})
    possible = decoded or choice["action"] == "reject"
    row["choice"] = choice["action"] if possible else ""
    row["bulk"] = bool(row["choice"]) and choice.get("pressed", 1) > 1


def find_keepers(contents, pairs, apart):
    """Return the keeper of every photograph, by index; the best photograph comes first.

    The keeper of a photograph is the best one of which it is a near-duplicate *itself*, not through
    others: several frames of a slow pan are kept. `apart` are frozensets of two SHA-256 that never
    share a keeper.
    """
    near, barred = defaultdict(set), defaultdict(set)
    for pair in pairs:
        for removed, keeper in pair.removable():
            near[removed].add(keeper)
    for one, other in map(sorted, apart):
        barred[one].add(other)
        barred[other].add(one)
    keepers, inside, first = {}, defaultdict(set), {}
    for i, content in enumerate(contents):
        near[i] |= near[first.setdefault(content, i)]  # of equal files only the first was compared
        keepers[i] = next((k for k in sorted(near[i]) if k < i and keepers[k] == k
                           and not barred[content] & inside[k]), i)
        inside[keepers[i]].add(content)
    return [keepers[i] for i in range(len(contents))]


def join_pictures(rows, keepers, pairs, verdicts):
    """Return lists of row indices, each a keeper and its near-duplicates; some lists are joined.

    Lists are joined if they show one picture under several names, so that both wait for review, or
    if a person marked them as one picture, unless a person marked two of their photographs as
    different.
    """
    pictures = {}
    for i, keeper in enumerate(keepers):
        pictures.setdefault(keeper, []).append(i)
    links = [(pair.first, pair.second) for pair in pairs if pair.kind == NEAR and
             rows[pair.first]["label_class"] != rows[pair.second]["label_class"]]
    where = defaultdict(list)
    for i, row in enumerate(rows):
        where[row["sha256"]].append(i)
    for pair in sorted(map(sorted, verdicts.together)):
        found = [i for content in pair for i in where[content]]
        links += [(found[0], other) for other in found[1:]]
    picture_of = {i: picture for picture in pictures.values() for i in picture}
    for i, j in links:
        one, other = picture_of[i], picture_of[j]
        inside = {rows[k]["sha256"] for k in (*one, *other)}
        if one is not other and not any(apart <= inside for apart in verdicts.apart):
            one += other
            picture_of.update((k, one) for k in other)
    return sorted({id(picture): sorted(picture) for picture in picture_of.values()}.values())


def best_first(row):
    """Return a sort key: chosen by hand, then most pixels, most bytes, first file name."""
    return row["choice"] != "keep", -row["width"] * row["height"], -row["bytes"], row["file"]


def resolve_group(group):
    """Set the status of the near-duplicates of one group.

    The best one is kept, unless they have several names: then all wait for review, except those
    that a person kept one by one. If the best of a class was rejected by hand, its near-duplicates
    of that class are, too.
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
    names, kept = {row["label_class"] for row in left}, set()
    for row in sorted(left, key=best_first):
        photograph = row["sha256"], row["label_class"]  # equal files have one cleaned photograph
        by_hand = row["choice"] == "keep" and not (row["bulk"] and len(names) > 1)
        wanted = by_hand or (len(names) == 1 and not kept)
        if wanted and photograph not in kept:
            kept.add(photograph)
        elif len(names) > 1:
            row.update(status="review",
                       reason=f"the same picture under several names: {', '.join(sorted(names))}")
        else:
            row.update(status="duplicate", reason="duplicate of the keeper")


def fill_in_keepers(rows, fingerprints, groups):
    """Fill in `group`, `keeper` and, except for the keeper, `distance`; `groups` are indices."""
    for group in groups:
        best = min(group, key=lambda i: (rows[i]["status"] == "rejected", best_first(rows[i])))
        name = min(rows[i]["sha256"] for i in group)[:16]
        for i in group:
            rows[i].update(group=name, keeper=rows[best]["file"])
            if i != best:
                rows[i]["distance"] = int(hash_distances(fingerprints, [best], [i])[0][0])


def fill_in_borderline(rows, pictures, pairs):
    """Fill in `near` and `near_alike` of kept rows: the closest photograph that may be the same.

    Of two classes, it is also one that shows the same in part: one of the names may be wrong.
    `pictures` are lists of row indices, `pairs` the `Pair`s found.
    """
    picture_of = {i: number for number, picture in enumerate(pictures) for i in picture}
    kept = {}
    for i, row in enumerate(rows):
        if row["status"] == "kept":
            kept.setdefault(picture_of[i], row)
    for pair in sorted(pairs, key=lambda pair: (-pair.match.alike, pair)):
        ends = picture_of[pair.first], picture_of[pair.second]
        if len(set(ends)) == 1 or not kept.keys() >= set(ends):
            continue
        names = {kept[picture]["label_class"] for picture in ends}
        if pair.kind in (NEAR, BORDERLINE) or len(names) == 2:
            for picture, partner in (ends, ends[::-1]):
                if "near" not in kept[picture]:
                    kept[picture].update(near=kept[partner]["file"], near_alike=pair.match.alike)


def join_label_scores(rows, label_scores):
    """Fill in scores of find_label_errors.py, and the proposals and suspicions that follow.

    `rows` are those of cleaned.csv, with `choice` and `bulk`; `label_scores` {(SHA-256,
    label_class): columns}.
    """
    pictures = defaultdict(list)
    for row in rows:
        row.update(label_scores.get((row["sha256"], row["label_class"]), NOT_JUDGED))
        if row["status"] in ("kept", "review"):
            pictures[row.get("group")].append(row)
    for picture in pictures.values():
        waiting = [row for row in picture if row["status"] == "review"]
        proposal = propose_class(picture) if waiting else {}
        for row in waiting:
            row.update(proposal)
    for row in rows:
        decided = row["choice"] and row["status"] != "review"
        row["suspicion"], row["suspected"] = (0.0, "") if decided else suspect(row)


def propose_class(picture):
    """Return the columns `proposal` and `proposal_probability` of a picture under several names.

    The proposal is the class that a person chose by keeping one of its files, or else the one that
    find_label_errors.py predicts with at least SURE. The sizes of the files are no evidence: the
    larger one is often an enlarged copy.
    """
    names = {row["label_class"] for row in picture}
    chosen = {row["label_class"] for row in picture if row["choice"] == "keep" and not row["bulk"]}
    judged = {(row["proposal"], row["proposal_probability"]) for row in picture
              if row.get("label_score")}
    proposal, probability = judged.pop() if len(judged) == 1 else ("", "")
    if len(chosen) == 1:
        proposal, probability = chosen.pop(), ""
    elif proposal not in names or float(probability or 0) < SURE:
        proposal, probability = "", ""
    return {"proposal": proposal, "proposal_probability": probability}
