"""The views of the review page: their blocks, their pages, and when a block is reviewed."""
from collections import defaultdict

PER_PAGE = 100


def arrange(rows):
    """Return {(view, class): [block]}, the most suspicious first.

    A block is a list of rows shown side by side. Views: `sheet`, `rejected` (one row per block),
    `duplicates`, `conflicts` and `borderline`. Class "" has all blocks of a view; each class has
    those with one of its photographs.
    """
    views, groups = defaultdict(list), defaultdict(list)
    for row in sorted(rows, key=lambda row: (-float(row["suspicion"] or 0), row["file"])):
        if row["status"] in ("kept", "review"):
            views["sheet", ""].append([row])
            views["sheet", row["label_class"]].append([row])
        elif row["status"] == "rejected":
            views["rejected", ""].append([row])
        if row["group"]:
            groups[row["group"]].append(row)
    views["rejected", ""].sort(key=lambda block: (  # those that can be shown come first
        not block[0]["width"], block[0]["reason"].split(":")[0], block[0]["file"]))
    for group in groups.values():
        group.sort(key=lambda row: (row["file"] != row["keeper"], row["file"]))
        statuses = {row["status"] for row in group}
        if "review" in statuses:
            views["conflicts", ""].append(group)
        elif "duplicate" in statuses:
            views["duplicates", ""].append(group)
    views["duplicates", ""].sort(key=lambda group: (  # the least alike come first
        -max(float(row["distance"] or 0) for row in group), group[0]["file"]))
    by_file = {row["file"]: row for row in rows}
    pairs = {frozenset((row["file"], row["near"])): [row, by_file[row["near"]]] for row in rows
             if row["near"] in by_file}
    views["borderline", ""] = sorted(
        pairs.values(), key=lambda pair: (-float(pair[0]["near_alike"]), pair[0]["file"]))
    for view in ("duplicates", "conflicts", "borderline", "rejected"):
        for block in views[view, ""]:
            for name in {row["label_class"] for row in block}:
                views[view, name].append(block)
    return views


def page_of(blocks, number, reviewed):
    """Return (number of the page, its blocks, number of pages), about PER_PAGE photographs a page.

    Page -1 is the first with a block for which `reviewed(block)` is false.
    """
    starts, count = [0], 0
    for i, block in enumerate(blocks):
        if count and count + len(block) > PER_PAGE:
            starts.append(i)
            count = 0
        count += len(block)
    if number < 0:
        first = next((i for i, block in enumerate(blocks) if not reviewed(block)), 0)
        number = sum(start <= first for start in starts) - 1
    number = min(number, len(starts) - 1)
    return number, blocks[starts[number]:[*starts, len(blocks)][number + 1]], len(starts)


def key_of(row):
    """Return what identifies a photograph in a decision: its SHA-256, the class collected for."""
    return row["sha256"], row["class"]


NO_VERDICT = {"choice": "", "bulk": False, "move": "", "apart": (), "together": ()}


def is_reviewed(view, block, states):
    """Return whether a person has decided about a block of a view.

    `states` maps photographs to their verdict, if they have one. A label conflict is decided when
    all photographs that are not rejected have one name, a borderline pair when it is marked as one
    picture or as two, or one is rejected; both also when their photographs were kept one by one.
    """
    if view not in ("conflicts", "borderline"):
        return any(key_of(row) in states for row in block)
    left = [(row, states.get(key_of(row), NO_VERDICT)) for row in block]
    left = [(row, state) for row, state in left if state["choice"] != "reject"]
    for i, (row, state) in enumerate(left):
        for other, beside in left[:i]:
            same_name = (state["move"] or row["label_class"]) == (
                beside["move"] or other["label_class"])
            both_kept = (state["choice"] == beside["choice"] == "keep"
                         and not (state["bulk"] or beside["bulk"]))
            together = view == "borderline" and other["sha256"] in state["together"]
            if not (other["sha256"] in state["apart"] or both_kept or together
                    or (view == "conflicts" and same_name)):
                return False
    return True
