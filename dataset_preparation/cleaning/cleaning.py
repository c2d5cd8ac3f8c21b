"""Clean the collected photographs: reject what is not one, find copies, write the rest 256 px on the shorter side.

    python dataset_preparation/cleaning/cleaning.py
    cleaned 13,723 of 15,210 photographs: 812 rejected, 655 copies, 20 under several names

Reads `<COLLECTED_DIR>/images/<Latin>/*` and changes nothing there. Writes `<CLEANED_DIR>/images/<Latin>/*.jpg`, the
same of what is not kept to `others/` (so that review can show it and bring it back), and `<CLEANED_DIR>/cleaned.csv`,
one row per file read: its fate, the reason, and scores. Follows `<CLEANED_DIR>/decisions.csv`, made by review.py, and
takes the scores of `<CLEANED_DIR>/label_scores.csv` where find_label_errors.py has judged the labels. Killed, the same
command goes on; run again, it reads only files that are new or changed (`inspected.jsonl` knows the others). What an
earlier run wrote and this one does not want is moved to `<CLEANED_DIR>/set_aside`.
"""
import json
import shutil
import sys
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config
from dataset_preparation.cleaning.cleaning_utils import CRASHED, PASSING, inspect, map_files, map_files_on_cluster
from dataset_preparation.cleaning.decisions import fold, read_decisions
from dataset_preparation.cleaning.near_duplicates import HASHES
from dataset_preparation.cleaning.verdicts import COLUMNS, judge
from dataset_preparation.progress_journal import Journal
from utils import (
    FileLock,
    InputError,
    class_of_folder,
    copy_file,
    process_count,
    progress,
    read_classes,
    read_table,
    require_apart,
    run,
    set_aside,
    sha256,
    warn,
    write_table,
    write_text,
)

FOLDERS = ("images", "others")  # of cleaned photographs: those kept, and those that are not
JUDGING = ("duplicate_rule", "hash_distance", "check_distance", "borderline_distance")  # settings that need no second look


def main(argv=None):
    config.override(argv, description=__doc__)
    rule = {name.lower(): value for name, value in config.settings("cleaning").items()
            if name not in ("PROCESSES", "DASK_SCHEDULER")}
    check_rule(rule)
    if rule["duplicate_rule"] == "published":
        rule["hash"] = "average_hash"
    classes = read_classes(config.CLASS_TABLE)
    images, base = config.COLLECTED_DIR / "images", config.CLEANED_DIR
    require_apart(images, *(base / name for name in (*FOLDERS, "work", "set_aside")))
    listed = list_photographs(images, classes, config.LIMIT_CLASSES or len(classes))
    print(f"cleaning {len(listed):,} files of {len(set(listed.values()))} classes in {images}")

    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / "cleaned.csv.lock", f"cleans into {base}"):
        verdicts = fold(read_decisions(base / "decisions.csv"))
        label_scores = read_label_scores(base / "label_scores.csv")
        header = {"rule": {name: value for name, value in rule.items() if name not in JUDGING}, "images": str(images)}
        earlier = Journal(base / "inspected.jsonl", header)
        journal = Journal(base / "cleaned.csv.journal", header)
        if not journal.entries:
            shutil.rmtree(base / "work", ignore_errors=True)  # copies of a run that has no journal any more
        mapped = (partial(map_files_on_cluster, scheduler=config.DASK_SCHEDULER) if config.DASK_SCHEDULER
                  else partial(map_files, processes=process_count(config.PROCESSES)))
        entries = inspect_new(images, base, listed, earlier.entries, journal, rule, mapped)
        rows = [{"file": file, "class": name, **entries[file]["result"]} for file, name in listed.items()]
        judge(rows, rule, verdicts, label_scores)
        check_moves(rows, classes)
        publish(rows, base)
        write_table(base / "cleaned.csv", COLUMNS, rows)
        write_text(base / "inspected.jsonl", "".join(json.dumps(entry) + "\n" for entry in (header, *entries.values())))
        journal.finish()
        shutil.rmtree(base / "work", ignore_errors=True)
        report(rows, base)


def check_rule(rule):
    """Raise InputError for a setting of the cleaning group that cannot be followed."""
    if rule["duplicate_rule"] not in ("checked", "published"):
        raise InputError(f"unknown rule {rule['duplicate_rule']!r}; --duplicate_rule takes checked or published")
    if rule["hash"] not in HASHES:
        raise InputError(f"unknown hash {rule['hash']!r}; --hash takes {', '.join(HASHES)}")
    if rule["output_side"] > rule["min_side"]:
        raise InputError(f"--output_side {rule['output_side']} is above --min_side {rule['min_side']}; photographs are "
                         "never enlarged")
    if rule["borderline_distance"] < rule["check_distance"]:
        raise InputError(f"--borderline_distance {rule['borderline_distance']} is below --check_distance "
                         f"{rule['check_distance']}; what is borderline starts where copies end")


def check_moves(rows, classes):
    """Warn where decisions name a photograph's class in a way that is none of the table."""
    strange = sorted({row["label_class"] for row in rows if row["label_class"] != row["class"]}
                     - {one.latin for one in classes})
    if strange:
        warn(f"decisions.csv moves photographs to {', '.join(strange)}, which the class table does not hold")


def read_label_scores(path):
    """Return {(SHA-256, class in effect): scores and proposal} of a table from the training side, if it is there."""
    columns = ("sha256", "class", "label_score", "proposal", "outlier_score")
    return {(row["sha256"], row["class"]): {name: row[name] for name in columns[2:]}
            for row in (read_table(path, columns) if path.is_file() else ())}


def list_photographs(images, classes, limit):
    """Return {file relative to `images`: class} in sorted order, of a folder with one folder per class."""
    if not images.is_dir():
        raise InputError(f"{images} does not exist; collect photographs first, or name the folder that holds "
                         "images/<Latin>/ with --collected_dir")
    listed = {}
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        known = class_of_folder(folder.name, classes)
        if known and known.label >= limit:
            continue
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".tmp", ".part"))]
        odd = [path for path in files if not is_text(path.as_posix())]
        if odd:
            raise InputError(f"{ascii(str(odd[0]))} has a name that no table can hold; rename it")
        if files and known is None:
            warn(f"{folder} is not named after a class of the table; cleaned under its own name")
        listed |= {path.relative_to(images).as_posix(): known.latin if known else folder.name for path in files}
    if not listed:
        raise InputError(f"{images} holds no photographs; it must hold one folder of them per class")
    return dict(sorted(listed.items()))


def is_text(name):
    """Return whether a file name can be written as UTF-8; names from archives of other systems may not."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def inspect_new(images, base, listed, earlier, journal, rule, mapped):
    """Return {file: entry with `file`, `stamp` and `result` of `inspect`} for all listed files.

    Taken from `earlier` entries or the journal where they know the file as it is now and its cleaned copy is there; the
    other files, and those that failed in a way that may pass, are inspected by `mapped`.
    """
    entries, jobs, stamps = {}, [], {}
    known = {entry["file"]: entry for entry in (*earlier, *journal.entries)}
    sizes = defaultdict(set)
    for path in cleaned_files(base):
        sizes[path.stem].add(path.stat().st_size)
    for file in listed:
        info = (images / file).stat()
        stamps[file] = [info.st_size, info.st_mtime_ns]
        work, entry = work_path(base, file), known.get(file)
        if entry and entry["stamp"] == stamps[file] and not entry["result"]["reason"].startswith(PASSING) and (
                not entry["result"]["fingerprint"] or work.exists()
                or entry["result"]["written"] in sizes[entry["result"]["sha256"][:16]]):
            entries[file] = entry
        else:
            jobs.append((images / file, work, rule))
    for (path, _, _), result in progress(mapped(inspect, jobs, crashed=CRASHED), len(jobs), "cleaning"):
        file = path.relative_to(images).as_posix()
        entries[file] = {"file": file, "stamp": stamps[file], "result": result}
        journal.append(entries[file])
    return {file: entries[file] for file in listed}


def work_path(base, file):
    """Return where the cleaned copy of a collected file waits until its fate is known."""
    return base / "work" / f"{sha256(file.encode())[:16]}.jpg"


def cleaned_files(base):
    """Return the sorted paths of all files below images/ and others/."""
    return [path for folder in FOLDERS for path in sorted((base / folder).rglob("*")) if path.is_file()]


def publish(rows, base):
    """Move every cleaned photograph to images/ or others/ of its class, what lies there besides to `set_aside`."""
    wanted = {}
    for row in sorted(rows, key=lambda row: row["status"] == "kept"):  # of equal files the one kept decides
        if row["fingerprint"]:
            name = f"{row['label_class']}/{row['sha256'][:16]}.jpg"
            wanted.pop(base / "others" / name, None)
            wanted[base / ("images" if row["status"] == "kept" else "others") / name] = work_path(base, row["file"])
    spare = defaultdict(list)
    for path in cleaned_files(base):
        if path not in wanted:
            spare[path.name].append(path)
    for path, work in wanted.items():
        new = work.read_bytes() if work.exists() else None
        if path.exists():
            if new in (None, path.read_bytes()):
                continue
            set_aside(path, base)
        path.parent.mkdir(parents=True, exist_ok=True)
        fitting = next((one for one in spare[path.name] if new in (None, one.read_bytes())), None)
        if fitting:  # its class or its fate has changed
            spare[path.name].remove(fitting)
            fitting.replace(path)
        elif new:
            work.replace(path)
        else:  # kept in another class, too
            copy_file(next(one for one in wanted if one.name == path.name and one.exists()), path)
    stale = sorted(path for paths in spare.values() for path in paths)
    for path in stale:
        if path.suffix == ".tmp":
            path.unlink()  # the half-written copy of a killed run
        else:
            set_aside(path, base)
    remove_empty_folders(base)
    if stale:
        print(f"moved {len(stale):,} files that are no longer wanted to {base / 'set_aside'}")


def remove_empty_folders(base):
    """Remove the folders below images/ and others/ that hold nothing, as of a class renamed or moved away whole."""
    for top in FOLDERS:
        for path in sorted((base / top).rglob("*"), reverse=True):  # inner ones first
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def report(rows, base):
    """Print what became of the photographs of every class, the reasons of rejection, and the line that sums it up."""
    by_class = defaultdict(Counter)
    for row in rows:
        by_class[row["label_class"]][row["status"]] += 1
    width = max(map(len, by_class))
    for name, count in sorted(by_class.items()):
        print(f"{name:{width}}  kept {count['kept']:4}  copies {count['copy']:4}  "
              f"rejected {count['rejected']:4}  review {count['review']:4}")
    reasons = Counter(row["reason"].split(":")[0] for row in rows if row["status"] == "rejected")
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:12]:
        print(f"  {count:5,} x {reason}")
    words = Counter(word for row in rows if row["status"] in ("kept", "review")
                    for word in row["suspected"].split(", "))
    suspected = ", ".join(f"{count:,} {word}" for word, count in sorted(words.items()) if word)
    print(f"to look at, nothing of it removed: {suspected or 'nothing'}")
    status = Counter(row["status"] for row in rows)
    print(f"table: {base / 'cleaned.csv'}")
    print(f"cleaned {status['kept']:,} of {len(rows):,} photographs: {status['rejected']:,} rejected, "
          f"{status['copy']:,} copies, {status['review']:,} under several names")


if __name__ == "__main__":
    run(main)
