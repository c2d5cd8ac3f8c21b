"""Clean the collected photographs: reject bad files, find near-duplicates, resize the rest.

    python dataset_preparation/cleaning/cleaning.py
    cleaned 13,723 of 15,210 photographs: 812 rejected, 655 duplicates, 20 under several names

Reads `<COLLECTED_DIR>/images/<Latin>/*` and changes nothing there. Writes the photographs it keeps
to `<CLEANED_DIR>/images/<Latin>/*.jpg`, 256 pixels on the shorter side, and the others to
`others/`, so that the review can show and restore them. `<CLEANED_DIR>/cleaned.csv` has one row per
collected file: status, reason and scores. Applies `<CLEANED_DIR>/decisions.csv` of review.py, and
copies the scores of `<CLEANED_DIR>/label_scores.csv` of find_label_errors.py.

If it is stopped or killed, run the same command again to resume. A later run reads only files that
are new or changed: `inspected.jsonl` stores the findings about each collected file,
`known_files.csv` the SHA-256 of each cleaned one. `former_photographs.csv` lists photographs whose
file was replaced, rewritten or removed, and what replaced them. Cleaned files that are no longer
wanted are moved to `<CLEANED_DIR>/set_aside`.
"""
import json
import re
import shutil
import sys
from collections import Counter, defaultdict
from difflib import get_close_matches
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config
from dataset_preparation.cleaning import cleaned_files, decisions
from dataset_preparation.cleaning.cleaned_table import COLUMNS, read_label_scores
from dataset_preparation.cleaning.duplicate_pairs import Search, find_pairs, write_pairs
from dataset_preparation.cleaning.feature_store import FeatureStore
from dataset_preparation.cleaning.former_photographs import read_former, write_former
from dataset_preparation.cleaning.inspection import (
    CRASHED,
    TRANSIENT_PREFIXES,
    inspect,
    map_files,
    map_files_on_cluster,
)
from dataset_preparation.cleaning.recognition import (
    entry_key,
    recognise,
    unrecognised,
    update_former,
)
from dataset_preparation.cleaning.statuses import assign_statuses
from dataset_preparation.known_files import KnownFiles
from dataset_preparation.parsing.collected_tables import unfinished_run
from dataset_preparation.progress_journal import Journal, read_journal
from names import all_names, class_of_folder, look
from utils import (
    FileLock,
    InputError,
    process_count,
    progress,
    read_classes,
    require_apart,
    run,
    warn,
    write_table,
    write_text,
)

INSPECTION_SETTINGS = ("min_side", "output_side", "jpeg_quality", "max_file_mb", "max_megapixels",
                       "decode_seconds", "accepted_modes", "converted_modes")
# Version of `inspect`; files inspected by another version are inspected again. Version 2 finds
# damaged JPEGs, converts colour profiles, and reads camera and time; version 3 adds local features;
# version 4 leaves out comments.
INSPECTION_VERSION = 4
NOT_UNICODE = re.compile("[\ud800-\udfff]")  # how Python represents other bytes in file names
ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz")
# Changes of these settings need no photograph to be read again.
GROUPING_SETTINGS = ("hash_distance", "check_distance", "borderline_distance")


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    rule = build_rule(s)
    classes = read_classes(s.class_table)
    images, base = s.collected_dir / "images", s.cleaned_dir
    require_apart(images, *(base / name for name in (*cleaned_files.FOLDERS, "work", "set_aside")))
    listed = list_photographs(images, classes, s.limit_classes or len(classes))
    print(f"cleaning {len(listed):,} files of {len(set(listed.values()))} classes in {images}")
    if unfinished := unfinished_run(s.collected_dir):
        warn(unfinished)
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / "cleaned.csv.lock", f"cleans into {base}"):
        label_scores = read_label_scores(base / "label_scores.csv")
        header = {"rule": {name: rule[name] for name in INSPECTION_SETTINGS}, "images": str(images),
                  "inspection": INSPECTION_VERSION}
        journal = Journal(base / "cleaned.csv.journal", header)
        if not journal.entries:
            shutil.rmtree(base / "work", ignore_errors=True)  # of a run whose journal is gone
        known_files = KnownFiles(base)
        store = FeatureStore(base)
        earlier = Journal(base / "inspected.jsonl", header).entries + journal.entries
        entries, new = find_inspected(images, listed, earlier, known_files, store)
        entries |= inspect_files(images, base, new, rule, journal, store, build_map(s))
        entries = {file: entries[file] for file in listed}

        rows = [{"file": file, "class": listed[file], **entry["result"]}
                for file, entry in entries.items()]
        compare = {"rule": rule, "store": store, "map_function": build_map(s)}
        gone = recognise_replaced(base, rows, classes, partial(Search, **compare))
        verdicts = decisions.read_verdicts(base / "decisions.csv", classes)
        unused = classes[s.limit_classes:] if s.limit_classes else ()
        decisions.warn_of_unmatched(verdicts, rows, {plant.latin for plant in unused})
        compared, pairs = assign_statuses(rows, verdicts, label_scores,
                                          partial(find_pairs, **compare))
        decisions.warn_of_bulk_keeps(rows)
        number_classes(rows, classes)
        cleaned_files.move_into_place(rows, known_files)
        write_pairs(base, pairs, [row["sha256"] for row in compared])
        write_table(base / "cleaned.csv", COLUMNS, rows)
        lines = [json.dumps(line) + "\n" for line in (header, *(
            {**entry, "class": listed[file]} for file, entry in entries.items()))]
        write_text(base / "inspected.jsonl", "".join(lines))
        journal.finish()
        store.keep_only(row["sha256"] for row in (*rows, *gone))
        shutil.rmtree(base / "work", ignore_errors=True)
        print_report(rows, base)


# ---- settings and input ----

def build_rule(s):
    """Return {setting: value} of cleaning; raise InputError for settings that contradict."""
    if s.output_side > s.min_side:
        raise InputError(f"--output_side {s.output_side} is above --min_side {s.min_side}; "
                         "photographs are never enlarged")
    if s.borderline_distance < s.check_distance:
        raise InputError(f"--borderline_distance {s.borderline_distance} is below --check_distance "
                         f"{s.check_distance}; borderline pairs start where near-duplicates end")
    return {name: getattr(s, name) for name in (*INSPECTION_SETTINGS, *GROUPING_SETTINGS)}


def build_map(s):
    """Return the function that maps `inspect` over files: on processes here, or on a cluster."""
    if s.dask_scheduler:
        return partial(map_files_on_cluster, scheduler=s.dask_scheduler)
    return partial(map_files, processes=process_count(s.processes))


def list_photographs(images, classes, limit):
    """Return {file relative to `images`: Latin name} in sorted order, one folder per class.

    A folder may also have the Russian or English name of a class, or one listed in `also`, such as
    a former name. A folder that is not named after a class of the table is listed under its own
    name.
    """
    other_names = decisions.former_names(classes, common=True)
    if not images.is_dir():
        lost = [path for path in sorted(images.parent.glob("*")) if path.is_dir()
                and (class_of_folder(path.name, classes) or look(path.name) in other_names)]
        if lost:
            raise InputError(f"{lost[0]} is one level too high: move the folders of the classes "
                             f"into {images}")
        raise InputError(f"{images} does not exist; collect photographs first, or name the folder "
                         "that contains images/<Latin>/ with --collected_dir")
    listed = {}
    folders = sorted(path for path in images.iterdir() if path.is_dir())
    for folder in filter(is_shown, folders):
        known = class_of_folder(folder.name, classes)
        if known is None and look(folder.name) in other_names:
            known = class_of_folder(other_names[look(folder.name)], classes)
            print(f"{folder} is cleaned as {known.latin}: the class table has that name for it")
        if known and known.label >= limit:
            continue
        files = files_below(folder)
        warn_of_mistakes(folder, files, known, classes)
        name = known.latin if known else folder.name
        listed |= {path.relative_to(images).as_posix(): name for path in files}
    warn_of_left_out([path for path in images.iterdir() if path.is_file() and is_shown(path)],
                     "files in no folder of a class")
    warn_of_left_out([path for path in folders if not is_shown(path)], "hidden folders")
    if not listed:
        raise InputError(f"{images} contains no photographs; it must contain one folder per class")
    return dict(sorted(listed.items()))


def files_below(folder):
    """Return the files in a folder of a class and below it; warn of links that are not followed."""
    paths = list(folder.rglob("*"))
    files = [path for path in paths
             if path.is_file() and not path.name.endswith((".tmp", ".part"))]
    warn_of_left_out([path for path in paths if path.is_symlink() and not path.is_file()],
                     "links to a folder or to nothing, which are not followed,")
    undecodable = [path for path in files if NOT_UNICODE.search(path.as_posix())]
    if undecodable:
        raise InputError(f"{ascii(str(undecodable[0]))} has a name that is not valid UTF-8; "
                         "rename it")
    return files


def warn_of_left_out(paths, what):
    """Warn of paths that are not cleaned."""
    if paths:
        warn(f"{len(paths):,} {what} are left out, such as {min(paths)}; move the photographs "
             "into the folder of their class")


def is_shown(path):
    """Return whether a path is neither hidden nor written by the operating system."""
    return not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini")


def warn_of_mistakes(folder, files, known, classes):
    """Warn of a folder without a class of that name, and of archives, which are not read."""
    if files and known is None:
        of_name = {name: plant.latin for plant in classes for name in all_names(plant)}
        sharing = [plant.latin for plant in classes
                   if look(folder.name) in map(look, all_names(plant))]
        close = get_close_matches(folder.name, of_name, 1, 0.85)
        warn(f"{folder} " + (f"has a name of {len(sharing)} classes, {', '.join(sharing)}"
                             if sharing else "is not named after a class of the table")
             + "; cleaned under its own name, and labelling leaves it out; "
             + ("give it the Latin name of one" if sharing else
                "rename the folder, or list it in the class table")
             + "".join(f"; is it {of_name[name]}?" for name in close if not sharing))
    for path in files:
        if path.suffix.lower() in ARCHIVES:
            warn(f"{path} is an archive: unpack it into {folder} itself, as a subfolder counts as "
                 "one plant")


def number_classes(rows, classes):
    """Fill in `label`, the integer of `label_class`; warn of moves to unknown classes."""
    labels = {plant.latin: plant.label for plant in classes}
    for row in rows:
        row["label"] = labels.get(row["label_class"], "")
    unknown = sorted({row["label_class"] for row in rows
                      if row["label_class"] != row["class"] and row["label"] == ""})
    if unknown:
        warn(f"decisions.csv moves photographs to {', '.join(unknown)}, not in the class table; "
             "add these classes there, or labelling leaves the photographs out")


# ---- inspecting new and changed files ----

def find_inspected(images, listed, earlier, known_files, store):
    """Return ({file: entry} of files that need no inspection, {file: stamp} of the others).

    An entry, of an earlier run or the journal, has `file`, `stamp` (size and modification time of
    the collected file) and `result` (of `inspect`).
    """
    by_file, cleaned = {entry["file"]: entry for entry in earlier}, defaultdict(list)
    for path in cleaned_files.list_cleaned(known_files.folder):
        cleaned[Path(path).stem].append(path)
    waiting = {path.name for path in (known_files.folder / "work").glob("*.jpg")}
    entries, new = {}, {}
    for file in listed:
        info = (images / file).stat()
        stamp, entry = [info.st_size, info.st_mtime_ns], by_file.get(file)
        if entry and entry["stamp"] == stamp and is_complete(
                entry, waiting, cleaned, known_files, store):
            entries[file] = entry
        else:
            new[file] = stamp
    return entries, new


def is_complete(entry, waiting, cleaned, known_files, store):
    """Return whether an unchanged collected file needs no second inspection.

    It needs one after a transient error, if its features are not in the store, or if its cleaned
    photograph is missing or changed. `waiting` are the names in work/, `cleaned` maps 16 digits to
    cleaned files of that name.
    """
    result = entry["result"]
    if result["reason"].startswith(TRANSIENT_PREFIXES):
        return False
    if not result["fingerprint"]:
        return True
    paths = cleaned[result["sha256"][:16]]
    return result["sha256"] in store.described and (
        cleaned_files.work_name(entry["file"]) in waiting or bool(paths) and all(
            known_files.sha256(path) == result["cleaned_sha256"] for path in paths))


def inspect_files(images, base, stamps, rule, journal, store, map_function):
    """Inspect files, each with its stamp; return {file: entry}, also written to the journal.

    The store is saved before the journal, whose entries promise that the features are there.
    """
    entries = {}
    jobs = [(images / file, base / "work" / cleaned_files.work_name(file), rule) for file in stamps]
    results = map_function(inspect, jobs, crashed=CRASHED)
    for (path, _, _), result in progress(results, len(jobs), "cleaning"):
        file = path.relative_to(images).as_posix()
        if features := result.pop("features", None):
            store.add(result["sha256"], features)
            store.save()
        entries[file] = {"file": file, "stamp": stamps[file], "result": result}
        journal.append(entries[file])
    return entries


# ---- replaced files ----

def recognise_replaced(base, rows, classes, search):
    """Write which former photographs were replaced by which of `rows`; return those not recognised.

    Former photographs are those of the last finished run, whatever its settings, and of the table.
    """
    renamed = decisions.former_names(classes)
    history = read_journal(base / "inspected.jsonl")[0][1:]
    former = update_former(read_former(base, renamed), rows, history, renamed)
    if unrecognised(former, rows):
        known = {entry_key(entry, renamed) for entry in history}
        apart = decisions.read_verdicts(base / "decisions.csv", classes).apart
        if count := recognise(former, rows, known, apart, search):
            print(f"{count:,} photographs were replaced or rewritten since they were cleaned: the "
                  "decisions about them and their sides stay in force")
    write_former(base, former)
    return unrecognised(former, rows)


# ---- report ----

def print_report(rows, base):
    """Print statuses per class, reasons of rejection, suspicions, and a summary."""
    by_class = defaultdict(Counter)
    for row in rows:
        by_class[row["label_class"]][row["status"]] += 1
    width = max(map(len, by_class))
    for name, count in sorted(by_class.items()):
        print(f"{name:{width}}  kept {count['kept']:4}  duplicates {count['duplicate']:4}  "
              f"rejected {count['rejected']:4}  review {count['review']:4}")
    reasons = Counter(row["reason"].split(":")[0] for row in rows if row["status"] == "rejected")
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:12]:
        print(f"  {count:5,} x {reason}")
    words = Counter(word for row in rows if row["status"] in ("kept", "review")
                    for word in row["suspected"].split(", "))
    suspected = ", ".join(f"{count:,} {word}" for word, count in sorted(words.items()) if word)
    print(f"suspicious, not removed, first in the review: {suspected or 'none'}")
    status = Counter(row["status"] for row in rows)
    print(f"table: {base / 'cleaned.csv'}")
    print(f"cleaned {status['kept']:,} of {len(rows):,} photographs: "
          f"{status['rejected']:,} rejected, {status['duplicate']:,} duplicates, "
          f"{status['review']:,} under several names")


if __name__ == "__main__":
    run(main)
