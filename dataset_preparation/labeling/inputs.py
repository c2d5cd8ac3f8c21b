"""Read the results of the earlier steps: cleaned photographs, and the origin of collected ones."""
from collections import Counter, defaultdict

from dataset_preparation.cleaning.cleaned_table import cleaned_path
from dataset_preparation.cleaning.decisions import former_names
from dataset_preparation.cleaning.duplicate_pairs import PAIRS_TABLE
from dataset_preparation.cleaning.former_photographs import by_content, read_latest
from dataset_preparation.licenses import is_allowed, read_license
from dataset_preparation.parsing.collected_tables import read_found
from dataset_preparation.parsing.license_filter import licenses_of
from names import class_of_folder, list_some
from utils import InputError, read_table, require_file, warn

CLEANING = "dataset_preparation/cleaning/cleaning.py"
CLEANED = ("file", "class", "label_class", "sha256", "width", "height", "status", "group", "camera",
           "taken")
ORIGIN = ("url", "license", "author")


def require_cleaned(cleaned):
    """Raise InputError unless cleaning has finished in a folder."""
    if (cleaned / "cleaned.csv.journal").exists():
        raise InputError(f"{cleaned}: cleaning was interrupted; run {CLEANING} again")
    for table in (cleaned / "cleaned.csv", cleaned / PAIRS_TABLE):
        require_file(table, f"run {CLEANING} first")


def read_forms(cleaned, classes):
    """Return ({SHA-256 in cleaned.csv: group}, {former SHA-256 of a photograph: the one now})."""
    present = {row["sha256"]: row["group"]
               for row in read_table(cleaned / "cleaned.csv", ("sha256", "group"))}
    return present, by_content(read_latest(cleaned, former_names(classes)))


def read_cleaned(cleaned, classes):
    """Return (kept photographs and duplicates, those under several names, all files).

    Those under several names wait until a person decides. `copied`: whether the cleaned photograph
    `source` exists; `kept`: whether it is to be published; `doubtful`: whether the label is, see
    `judge`. All files are (label, file) of every status. Warns of what is left out.
    """
    table = read_table(cleaned / "cleaned.csv", (*CLEANED, "label_score", "suspected"))
    plants = {name: class_of_folder(name, classes)
              for name in {row["label_class"] for row in table}}
    rows, waiting, gone, files = [], [], [], []
    for row in table:
        plant = plants[row["label_class"]]
        if plant is None:
            continue
        files.append((plant.label, row["file"]))
        if row["status"] == "rejected":
            continue
        source = cleaned_path(row)
        copied = (cleaned / source).is_file()
        kept = row["status"] == "kept" and copied
        if row["status"] == "kept" and not kept:
            gone.append(source)
        (waiting if row["status"] == "review" else rows).append({
            **{name: row[name] for name in CLEANED}, "label": plant.label, "latin": plant.latin,
            "source": source, "copied": copied, "kept": kept, "doubtful": judge(row)})
    if unknown := sorted(name for name, plant in plants.items() if plant is None):
        warn(f"left out {len(unknown)} classes that are not in use: {list_some(unknown)}")
    if gone:
        warn(f"{len(gone)} photographs that cleaning kept are missing and are left out "
             f"({cleaned / gone[0]}); run cleaning again to restore them")
    return rows, waiting, files


def judge(row):
    """Return whether the label of a row of cleaned.csv is doubtful: yes, no, or "" if not scored.

    A label that a person has confirmed is not doubtful.
    """
    if not row["label_score"]:
        return ""
    return "yes" if "label" in row["suspected"].split(", ") else "no"


def read_origins(collected, files, rows, latest=None):
    """Return ({SHA-256: origin}, {SHA-256: source pages}) of collected files.

    Warns if none of the (label, file) in `files` is among them: another folder was cleaned. A
    photograph of `rows` that was changed since it was collected, turned for one, has the origin of
    its file, or of its former form (`latest` maps the former SHA-256 to the one now). An origin has
    `url`, `license` (the strictest of several), `author`, `observer`, `rights_holder`, `date`,
    `observations`, as (source, name), all empty if unknown, and `license_code`, None if no source
    states a licence.
    """
    images = collected / "images"
    if not any((images / file).is_file() for _, file in files):
        warn(f"none of the photographs that were cleaned are in {images}: licences, pages, "
             "observers and corrections are not known, so photographs of one plant may be split; "
             "name the folder that was cleaned with --collected_dir")
    found = [row for row in read_found(collected, ("sha256", *ORIGIN, "page")) if row["sha256"]]
    licenses, origins, pages = licenses_of(found), {}, defaultdict(set)
    for row in found:
        code = licenses.get(row["sha256"])
        as_stated = not code or code == read_license(row["license"])
        origin = origins.setdefault(row["sha256"], {
            **{name: row[name] for name in ORIGIN},
            "license": row["license"] if as_stated else code, "license_code": code,
            "rights_holder": row.get("rights_holder", ""),
            "observer": row.get("observer", ""), "date": row.get("date", ""), "observations": []})
        if row.get("observation"):
            origin["observations"].append((row.get("source", ""), row["observation"]))
        pages[row["sha256"]] |= {row["page"]} - {""}
    before = {row["file"]: row["sha256"] for row in found if row.get("file")}
    former = {now: content for content, now in (latest or {}).items() if content in origins}
    for row in rows:
        collected_as = before.get(f"images/{row['file']}", former.get(row["sha256"]))
        if row["sha256"] not in origins and collected_as:
            origins[row["sha256"]] = origins[collected_as]
            pages[row["sha256"]] = pages[collected_as]
    return origins, pages


def take_allowed(rows, origins, allowed, unknown_too, verdicts):
    """Return (rows of the photographs of `allowed` licences, lines of the report).

    They get the columns of their origin. With `unknown_too`, photographs without a known licence
    are left out, too. Of near-duplicates one of an allowed licence is published, see `exchange`,
    unless a person kept another (`Verdicts`).
    """
    def is_wanted(row):
        code = origins.get(row["sha256"], {}).get("license_code")
        return not unknown_too if code is None else is_allowed(code, allowed)

    def is_preferred(row):
        choice = verdicts.choices.get((row["sha256"], row["class"]), {})
        kept_by_hand = row["kept"] and choice.get("action") == "keep"
        known = origins.get(row["sha256"], {}).get("license_code") is not None
        return is_wanted(row) and (known or kept_by_hand)

    exchanged = exchange(rows, is_preferred)
    taken, counts = [], {True: Counter(), False: Counter()}
    for row in rows:
        origin, wanted = origins.get(row["sha256"], {}), is_wanted(row)
        counts[wanted][origin.get("license") or "not known"] += row["kept"]
        taken += [{**row, "author": "", **origin}] if wanted else []
    text = {wanted: ", ".join(f"{count} {code}" for code, count in some.most_common() if count)
            for wanted, some in counts.items()}
    if text[False]:
        warn("photographs left out, since their licence is not one of LICENSES: " + text[False])
    lines = [f"licences: {text[True]}", f"left out by licence: {text[False] or 'none'}",
             f"near-duplicates of an allowed licence published instead of the photograph that "
             f"cleaning kept: {exchanged}"]
    return taken, lines if origins else []


def exchange(rows, is_preferred):
    """Publish a preferred near-duplicate where no kept photograph is preferred; return how many.

    Changes `kept` of rows in place. Of several, the largest is published. All of a picture have
    the same size once cleaned, so only the licence makes a difference.
    """
    pictures, exchanged = defaultdict(list), 0
    for row in rows:
        if row["group"]:
            pictures[row["group"], row["label"]].append(row)
    for picture in pictures.values():
        kept = [row for row in picture if row["kept"]]
        others = [row for row in picture if row["copied"] and is_preferred(row)]
        if not kept or not others or any(map(is_preferred, kept)):
            continue
        # numbers as 400.0, as spreadsheets and pandas may write them
        best = min(others, key=lambda row: (
            -float(row["width"]) * float(row["height"]), row["file"]))
        for row in kept:
            row["kept"] = False
        best.update(kept=True, doubtful=kept[0]["doubtful"])
        exchanged += 1
    return exchanged
