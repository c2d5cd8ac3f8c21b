"""Clean the collected photographs: reject what is not one, find copies, write the rest 256 px on the shorter side.

    python dataset_preparation/cleaning/cleaning.py
    cleaned 13,723 of 15,210 photographs: 812 rejected, 655 copies, 20 under several names

Reads `<COLLECTED_DIR>/images/<Latin>/*` and changes nothing there. Writes `<CLEANED_DIR>/images/<Latin>/*.jpg` and
`<CLEANED_DIR>/cleaned.csv`, one row per file read: its fate and the reason. Killed, the same command goes on; what an
earlier run wrote and this one does not want is moved to `<CLEANED_DIR>/set_aside`.
"""
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts run from any folder
import config
from dataset_preparation.cleaning.cleaning_utils import (
    CRASHED,
    HASHES,
    group_photographs,
    inspect,
    map_files,
    view_distance,
)
from utils import (
    InputError,
    Journal,
    class_of_folder,
    process_count,
    progress,
    read_classes,
    run,
    set_aside,
    sha256,
    warn,
    write_table,
)

COLUMNS = ("file", "class", "sha256", "width", "height", "status", "reason", "group", "keeper", "distance")


def main(argv=None):
    config.override(argv, description=__doc__)
    rule = {name.lower(): value for name, value in config.settings("cleaning").items() if name != "PROCESSES"}
    check_rule(rule)
    classes = read_classes(config.CLASS_TABLE)
    images, base = config.COLLECTED_DIR / "images", config.CLEANED_DIR
    listed = list_photographs(images, classes, config.LIMIT_CLASSES or len(classes))
    print(f"cleaning {len(listed):,} files of {len(set(listed.values()))} classes in {images}")

    journal = Journal(base / "cleaned.csv.journal", {"rule": rule, "images": str(images)})
    if not journal.entries:
        shutil.rmtree(base / "work", ignore_errors=True)  # copies of a run that has no journal any more
    results = inspect_new(images, base, listed, journal, rule, process_count(config.PROCESSES))
    rows = judge([{"file": file, "class": name, **results[file]} for file, name in listed.items()],
                 rule["hash_distance"], rule["hash_distance_strict"])
    publish(rows, base)
    write_table(base / "cleaned.csv", COLUMNS, rows)
    journal.finish()
    shutil.rmtree(base / "work", ignore_errors=True)
    report(rows, base)


def check_rule(rule):
    """Raise InputError for a setting of the cleaning group that cannot be followed."""
    if rule["hash"] not in HASHES:
        raise InputError(f"unknown hash {rule['hash']!r}; --hash takes {', '.join(HASHES)}")
    if not 1 <= rule["output_side"] <= rule["min_side"]:
        raise InputError(f"--output_side {rule['output_side']} is not between 1 and --min_side {rule['min_side']}; "
                         "photographs are never enlarged")


def list_photographs(images, classes, limit):
    """Return {file relative to `images`: class} in sorted order, of a folder with one folder per class."""
    if not images.is_dir():
        raise InputError(f"{images} does not exist; collect photographs first, or name the folder that holds "
                         "images/<Latin>/ with --collected_dir")
    listed = {}
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        known = class_of_folder(folder.name, classes)
        if known is None:
            warn(f"{folder} is not named after a class of the table; cleaned under its own name")
        elif known.label >= limit:
            continue
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".tmp", ".part"))]
        listed |= {path.relative_to(images).as_posix(): known.latin if known else folder.name for path in files}
    if not listed:
        raise InputError(f"{images} holds no photographs; it must hold one folder of them per class")
    return dict(sorted(listed.items()))


def inspect_new(images, base, listed, journal, rule, processes):
    """Return {file: result of `inspect`}, taken from the journal where it knows the file as it is now."""
    results, jobs, stamps = {}, [], {}
    known = {entry["file"]: entry for entry in journal.entries}
    for file, name in listed.items():
        info = (images / file).stat()
        stamps[file] = [info.st_size, info.st_mtime_ns]
        work, entry = work_path(base, file), known.get(file)
        if entry and entry["stamp"] == stamps[file] and (
                entry["result"]["reason"] or work.exists() or cleaned_path(base, name, entry["result"]).exists()):
            results[file] = entry["result"]
        else:
            jobs.append((images / file, work, rule))
    for (path, _, _), result in progress(map_files(inspect, jobs, processes, CRASHED), len(jobs), "cleaning"):
        file = path.relative_to(images).as_posix()
        results[file] = result
        journal.append({"file": file, "stamp": stamps[file], "result": result})
    return results


def work_path(base, file):
    """Return where the cleaned copy of a collected file waits until its fate is known."""
    return base / "work" / f"{sha256(file.encode())[:16]}.jpg"


def cleaned_path(base, name, row):
    """Return where a kept photograph of a class lies."""
    return base / "images" / name / f"{row['sha256'][:16]}.jpg"


def judge(rows, distance, strict):
    """Give every row its `status`: kept, copy (of `keeper`), review (alike but of several classes) or rejected."""
    good = [row for row in rows if not row["reason"]]
    members = defaultdict(list)
    for row, best in zip(good, group_photographs(good, distance, strict), strict=True):
        members[best].append(row)
    for best, group in members.items():
        keeper, names = good[best], sorted({row["class"] for row in group})
        for row in group:
            row.update(group=min(one["sha256"] for one in group)[:16], keeper=keeper["file"], status="kept")
            if len(names) > 1:
                row.update(status="review", reason=f"the same picture under {', '.join(names)}")
            elif row is not keeper:
                row.update(status="copy", reason="copy of the keeper")
            if row is not keeper:
                row["distance"] = view_distance(row["hashes"], keeper["hashes"])
    for row in rows:
        row.setdefault("status", "rejected")
    return rows


def publish(rows, base):
    """Move the kept photographs to their class folders and what lies there besides to `set_aside`."""
    wanted = {cleaned_path(base, row["class"], row): work_path(base, row["file"])
              for row in rows if row["status"] == "kept"}
    stale = [path for path in sorted((base / "images").rglob("*")) if path.is_file() and path not in wanted]
    for path in stale:
        if path.suffix != ".tmp":
            set_aside(path, base)
    if stale:
        print(f"moved {len(stale):,} files that are no longer wanted to {base / 'set_aside'}")
    for path, work in wanted.items():
        if work.exists():  # otherwise moved before the run was interrupted
            path.parent.mkdir(parents=True, exist_ok=True)
            work.replace(path)


def report(rows, base):
    """Print what became of the photographs of every class, the reasons of rejection, and the line that sums it up."""
    by_class = defaultdict(Counter)
    for row in rows:
        by_class[row["class"]][row["status"]] += 1
    width = max(map(len, by_class))
    for name, count in sorted(by_class.items()):
        print(f"{name:{width}}  kept {count['kept']:4}  copies {count['copy']:4}  "
              f"rejected {count['rejected']:4}  review {count['review']:4}")
    reasons = Counter(row["reason"].split(":")[0] for row in rows if row["status"] == "rejected")
    for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:12]:
        print(f"  {count:5,} x {reason}")
    status = Counter(row["status"] for row in rows)
    print(f"table: {base / 'cleaned.csv'}")
    print(f"cleaned {status['kept']:,} of {len(rows):,} photographs: {status['rejected']:,} rejected, "
          f"{status['copy']:,} copies, {status['review']:,} under several names")


if __name__ == "__main__":
    run(main)
