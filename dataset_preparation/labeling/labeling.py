"""Split the cleaned photographs into train and test and write their label tables.

    python dataset_preparation/labeling/labeling.py
    labelled 13,723 photographs of 50 classes: 12,223 train, 1,500 test, 0 leaking pairs (exact
    duplicates, near-duplicates, borderline pairs, groups by page)

Reads `<CLEANED_DIR>` and, if they exist, `<COLLECTED_DIR>/found.csv` and the journal of an
unfinished run (address, source page, author, licence). Writes
`<DATASET_DIR>/train/<Latin>/<slug>_train_<n>.jpg`, the same for test, `train_labels.csv`,
`test_labels.csv` and `split_report.txt`. Photographs that may show the same picture, plant or
occasion stay on one side (groups.py); `joined_by` says why. A photograph that was labelled before
keeps its side and its name, also when its file was replaced, and no number is used twice: rows that
leave the tables, because the photograph waits for review or its class is not used, are kept in
`former_labels.csv`. Published photographs that are no longer wanted are moved to
`<DATASET_DIR>/set_aside`.

    python dataset_preparation/labeling/labeling.py --check data/dataset
    checked 13,723 photographs of 50 classes: 12,223 train, 1,500 test, 0 leaking pairs

checks a dataset that is already split, such as the published one: see leak_check.py.
"""
import shutil
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config
from dataset_preparation.cleaning.decisions import read_verdicts
from dataset_preparation.cleaning.duplicate_pairs import KINDS, PAIRS_TABLE, read_pairs
from dataset_preparation.cleaning.former_photographs import TABLE as FORMER_PHOTOGRAPHS
from dataset_preparation.feedback import LICENSE, feedback_table, read_feedback
from dataset_preparation.known_files import KnownFiles
from dataset_preparation.labeling import earlier_split, groups, inputs, split
from dataset_preparation.labeling.leak_check import check_dataset
from dataset_preparation.parsing.collected_tables import JOURNAL, credited, unfinished_run
from dataset_preparation.progress_journal import Journal
from utils import (
    FileLock,
    InputError,
    copy_file,
    process_count,
    progress,
    read_classes,
    require_apart,
    run,
    set_aside,
    sha256,
    warn,
    write_table,
    write_text,
)

COLUMNS = ("path", "label", "latin", "group", "sha256", "url", "license", "author",
           "joined_by",  # evidence that joined the group
           "doubtful")  # whether find_label_errors.py doubts the label: yes, no, "" = not scored


def main(argv=None):
    s, given = config.parse(argv, __file__, __doc__)
    s.licenses_given = "LICENSES" in given
    classes = read_classes(s.class_table, s.limit_classes)
    folder = Path(s.check or s.dataset_dir)
    lock = FileLock(folder / "labels.lock", f"labels in {folder}")
    if s.repair and not s.check:
        raise InputError("--repair needs --check with the folder of a dataset")
    if s.check:
        if not (folder / "train_labels.csv").is_file():
            raise InputError(f"{folder / 'train_labels.csv'} does not exist; --check takes the "
                             "folder of a dataset")
        with lock:
            check_dataset(folder, classes, s.max_megapixels, process_count(s.processes), s.repair)
        return
    require_apart(s.cleaned_dir / "images",
                  *(folder / name for name in (*split.SIDES, "set_aside")))
    inputs.require_cleaned(s.cleaned_dir)  # before the folder is made
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with lock:
        try:
            label_photographs(s, classes)
        except InputError:  # a folder with nothing but a lock would look like a dataset
            if made and list(folder.iterdir()) == [lock.path]:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def label_photographs(s, classes):
    """Plan the split, publish the photographs, check for data leakage, and write the tables."""
    folder = s.dataset_dir
    tables = (*(s.cleaned_dir / name
                for name in ("cleaned.csv", PAIRS_TABLE, "decisions.csv", FORMER_PHOTOGRAPHS)),
              s.collected_dir / "found.csv", s.collected_dir / JOURNAL,
              feedback_table(s.collected_dir))
    if unfinished := unfinished_run(s.collected_dir):
        warn(unfinished)
    journal = Journal(folder / "labels.journal", {
        "inputs": [sha256(path.read_bytes()) for path in tables if path.is_file()],
        "classes": [[plant.latin, *plant.also] for plant in classes],
        "test_per_class": s.test_per_class, "seed": s.split_seed,
        "series_minutes": s.series_minutes, "small_classes": s.small_classes,
        "licenses": [s.licenses, s.licenses_given]})
    sources = KnownFiles(s.cleaned_dir)
    if not journal.entries:
        journal.append(build_plan(s, classes, sources))
    earlier_split.warn_of_ignored_settings(folder, s)
    rows = (plan := journal.entries[0])["rows"]

    published = copy_to_published_names(rows, sources, folder)
    leaks, lines = split.report_leaks(rows, [published.sha256(row["path"]) for row in rows],
                                      read_pairs(s.cleaned_dir, rows))
    published.write(row["path"] for row in rows)
    checked = checked_kinds(plan["evidence"])
    lines = report_lines(rows, classes, s.test_per_class, plan, [*lines, split.doubtful_line(rows)],
                         checked)
    write_text(folder / "split_report.txt", "\n".join(lines) + "\n")
    print("\n".join(lines))
    if leaks:
        raise InputError(f"data leakage: {leaks} pairs of photographs across train and test, "
                         f"listed in {folder / 'split_report.txt'}; no label table was written")
    write_label_tables(folder, rows, plan["former"])
    clear_folders(rows, classes, folder)
    journal.finish()
    train, test = (sum(row["side"] == side for row in rows) for side in split.SIDES)
    print(f"labelled {len(rows):,} photographs of {len(classes)} classes: {train:,} train, "
          f"{test:,} test, {leaks} leaking pairs ({checked})")


def report_lines(rows, classes, per_class, plan, checks, checked):
    """Return the lines of split_report.txt; `checks` are those of the check for data leakage."""
    members = defaultdict(list)
    for row in rows:
        members[row["group"]].append(row["path"])
    looked_for = ", ".join(f"{count} have {kind}" for kind, count in plan["evidence"].items())
    return [*split.count_lines(rows, classes, per_class),
            "groups moved to train because a new photograph joined both sides: "
            f"{len(plan['moved'])}",
            *(f"  {group}: {', '.join(members[group])}" for group in plan["moved"]),
            *groups.evidence_lines(rows), *groups.observer_lines(rows), *plan["sources"], *checks,
            f"checked: {checked}; of {len(rows)} photographs {looked_for}",
            f"label conflicts, left out until the review decides: {plan['waiting']}",
            f"photographs that left the tables, their side kept in {earlier_split.FORMER}: "
            f"{len(plan['former'])}"]


def checked_kinds(evidence):
    """Return how photographs were compared and grouped, as text."""
    kinds = [kind for kind, count in evidence.items() if count]
    by_group = f", groups by {', '.join(kinds)}" if kinds else ""
    return f"exact duplicates, {', '.join(KINDS)}{by_group}"


def write_label_tables(folder, rows, former):
    """Write the label tables, and the table of rows that left them."""
    if former or (folder / earlier_split.FORMER).is_file():
        # Written first, so that every row is always in one of the tables.
        write_table(folder / earlier_split.FORMER, ("side", *COLUMNS), former)
    for side in split.SIDES:
        of_side = [row for row in rows if row["side"] == side]
        write_table(folder / f"{side}_labels.csv", COLUMNS, of_side)


# ---- the plan: sides and names of all photographs ----

def build_plan(s, classes, sources):
    """Return the plan of the split, from the tables of the earlier steps.

    {"rows": [row of a label table, with `side` and `source`], "moved": [group that has photographs
    on both sides now], "former": [row of FORMER], "waiting": number of photographs left out until
    the review decides about their class, "evidence": {kind of group: photographs with such data},
    "sources": [line of the report about licences, feedback and lost photographs]}.
    """
    cleaned, waiting, files = inputs.read_cleaned(s.cleaned_dir, classes)
    present, latest = inputs.read_forms(s.cleaned_dir, classes)
    origins, pages = inputs.read_origins(s.collected_dir, files, cleaned, latest)
    feedback = {latest.get(row["sha256"], row["sha256"]): "train"
                for row in read_feedback(s.collected_dir)}
    origins = dict.fromkeys(feedback, {"license": LICENSE}) | origins
    verdicts = read_verdicts(s.cleaned_dir / "decisions.csv", classes)
    rows, lines = inputs.take_allowed(cleaned, origins, s.licenses, s.licenses_given, verdicts)
    finders = earlier_split.build_finders(s.dataset_dir, [*cleaned, *waiting], origins, latest,
                                          sources)
    labelled, before = earlier_split.find_again(
        earlier_split.read_labelled(s.dataset_dir, classes), present, finders)
    require_unchanged(sources, [row["source"] for row in rows if row["kept"]])
    links = link_rows(rows, (pages, files), feedback | before, verdicts, s)
    names, joined_by = groups.group_photographs(rows, links)
    for row, group in zip(rows, names, strict=True):
        row.update(group=group, joined_by=joined_by.get(group, ""))
    sides, moved = split.assign_sides(rows, feedback | before, s.test_per_class, s.split_seed)
    split.require_enough_groups(rows, sides, classes, s.cleaned_dir, s.small_classes)
    kept = [row for row in rows if row["kept"]]
    evidence = groups.known_evidence(kept, pages, files)
    rows = [row | {"side": sides[row["group"]], "author": credited(row)} for row in kept]
    split.name_photographs(rows, labelled, s.dataset_dir)
    rows.sort(key=split.table_order)
    listed = {row["sha256"] for row in rows}
    former = sorted((row for row in labelled.values() if row["sha256"] not in listed),
                    key=lambda row: row["path"])
    lines += [f"feedback, kept in train: {len(listed & set(feedback))}",
              earlier_split.warn_of_lost(labelled, rows, classes, present)]
    return {"rows": rows, "moved": moved, "former": former, "waiting": len(waiting),
            "evidence": evidence, "sources": lines}


def link_rows(rows, collected, before, verdicts, s):
    """Return the links (evidence, i, j) between rows, from the tables of the earlier steps.

    `collected` are (pages, files), see `link_photographs`; `before` maps a SHA-256 to its side.
    """
    # Numbered series depend on the other files of the class, so they must not move photographs.
    links = [link for link in groups.link_photographs(rows, *collected, s.series_minutes)
             if link[0] != groups.NUMBERED
             or len({before.get(rows[i]["sha256"]) for i in link[1:]} - {None}) < 2]
    links += read_pairs(s.cleaned_dir, rows)
    split.refuse_conflicts(rows, links, verdicts)
    return links + groups.link_observers(rows, links, before, s.test_per_class, s.split_seed)


def require_unchanged(sources, paths):
    """Raise InputError if a cleaned photograph was changed after cleaning compared it."""
    before = dict(sources.rows)
    changed = [path for path in paths
               if path in before and sources.sha256(path) != before[path]["sha256"]]
    if changed:
        raise InputError(f"{len(changed)} photographs in {sources.folder} were changed since "
                         f"cleaning, such as {changed[0]}; run "
                         "dataset_preparation/cleaning/cleaning.py again")


# ---- published photographs ----

def copy_to_published_names(rows, sources, folder):
    """Copy the photographs to their published names; return the folder's `KnownFiles`."""
    published = KnownFiles(folder)
    for row in progress(rows, len(rows), "copying"):
        path = folder / row["path"]
        if path.is_file():
            if published.sha256(row["path"]) == sources.sha256(row["source"]):
                continue
            set_aside(path, folder)
        copy_file(sources.folder / row["source"], path)
        published.note(row["path"], sources.sha256(row["source"]))
    return published


def clear_folders(rows, classes, folder):
    """Set aside published photographs that are in no table; leave other files alone, and warn."""
    wanted, foreign = {folder / row["path"] for row in rows}, []
    names = {name for plant in classes for name in (plant.latin, *plant.also)}
    for side in split.SIDES:
        for path in sorted((folder / side).rglob("*")):
            latin = path.parent.name
            if path in wanted or path.is_dir():
                continue
            if path.suffix == ".tmp":
                path.unlink()  # incomplete, of a killed run
            elif latin in names and split.published_number(path.name, latin, side) is not None:
                set_aside(path, folder)
            else:
                foreign.append(path)
    if foreign:
        warn(f"{len(foreign)} files in {folder} are in no label table and were left alone, such as "
             f"{foreign[0]}")


if __name__ == "__main__":
    run(main)
