"""The licences of collected photographs: filtered on every run, credited and cited.

Photographs whose licence is not wanted are moved to `<COLLECTED_DIR>/set_aside/licence/` and marked
in found.csv, never deleted; they are moved back when it is wanted again. Photographs of sources
without licences are left alone.
"""
import os
from collections import Counter, defaultdict

from dataset_preparation.licenses import is_allowed, read_license, strictest
from dataset_preparation.parsing.source_settings import FOLLOWED_BY
from utils import write_table, write_text

SET_ASIDE = "set aside"  # status of a row whose licence is not wanted
SET_ASIDE_FOLDER = "set_aside/licence"
GBIF_TABLE = "gbif_datasets.csv"
# https://www.gbif.org/citation-guidelines, https://www.gbif.org/derived-dataset/about
HOW_GBIF = f"""Register `{GBIF_TABLE}` (dataset key, number of occurrences) as a derived dataset at
<https://www.gbif.org/derived-dataset/register>, and cite the DOI that it gets:

> GBIF.org ({{date}}) Derived dataset. GBIF. https://doi.org/10.15468/dd.XXXXXX
"""
CITED = {  # name -> (heading, how to cite)
    "inaturalist": ("iNaturalist", "> iNaturalist contributors. iNaturalist observations. "
                    "https://www.inaturalist.org, accessed {date}.\n"),
    "open_data": ("iNaturalist open data", "> iNaturalist Licensed Observation Images. "
                  "https://registry.opendata.aws/inaturalist-open-data, accessed {date}.\n"),
    "commons": ("Wikimedia Commons", "> Wikimedia Commons contributors. "
                "https://commons.wikimedia.org, accessed {date}.\n"),
    "gbif": ("GBIF", HOW_GBIF)}
NO_LICENSE = "none stated"


def licenses_of(rows):
    """Return {SHA-256: its licence} of found rows, the strictest of several."""
    stated = defaultdict(set)
    for row in rows:
        if row["sha256"] and states_license(row):
            stated[row["sha256"]].add(read_license(row["license"]))
    return {content: strictest(codes) for content, codes in stated.items()}


def states_license(row):
    """Return whether a found row has a licence, or is of a source that states licences."""
    return row.get("source") in FOLLOWED_BY["licenses"] or bool(read_license(row["license"]))


def filter_by_license(tables, allowed):
    """Set aside rows and photographs whose licence is not in `allowed`; restore the others.

    Returns {licence: photographs set aside}; with None as `allowed`, nothing changes.
    """
    if allowed is None:
        return Counter()
    of_content, aside = licenses_of(tables.found.values()), {}
    for row in list(tables.found.values()):
        code = of_content.get(row["sha256"])
        if code is None:
            code = read_license(row["license"]) if states_license(row) else None
        wanted = code is None or is_allowed(code, allowed)
        if wanted and row["status"] == SET_ASIDE:
            _move(tables.folder, f"{SET_ASIDE_FOLDER}/{row['file']}", row["file"])
            tables.change(row, status="saved" if row["file"] else "new")
        elif not wanted and row["status"] in ("saved", "new", "failed", SET_ASIDE):
            if row["status"] != SET_ASIDE:
                tables.change(row, status=SET_ASIDE)
            _move(tables.folder, row["file"], f"{SET_ASIDE_FOLDER}/{row['file']}")
            aside[row["file"] or row["url"]] = code or "not understood"
    return Counter(aside.values())


def set_aside_lines(counts):
    """Return the line about the photographs that are set aside, {licence: photographs}."""
    if not counts:
        return []
    kinds = ", ".join(f"{count:,} {code}" for code, count in counts.most_common())
    return [f"{counts.total():,} set aside: licence ({kinds}), in {SET_ASIDE_FOLDER}/"]


def _move(folder, source, target):
    """Move a photograph within a folder, if it is not already moved."""
    source, target = folder / source, folder / target
    if source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def write_citations(folder, rows):
    """Write CITATIONS.md and the table for GBIF for rows with a photograph; return their names."""
    of_source = defaultdict(list)
    for row in rows:
        of_source[row["source"]].append(row)
    occurrences = {(row["dataset"], row["observation"] or row["url"])
                   for row in of_source["gbif"] if row.get("dataset")}
    datasets = Counter(dataset for dataset, _ in occurrences)
    if datasets or (folder / GBIF_TABLE).exists():
        write_table(folder / GBIF_TABLE, ("datasetKey", "count"),
                    [{"datasetKey": key, "count": datasets[key]} for key in sorted(datasets)])
    lines = ["# Citations", "", "ATTRIBUTION.csv names the author, the licence and the page of "
             "every photograph; most licences ask for all three.", ""]
    for source in sorted(filter(of_source.get, of_source)):
        some = of_source[source]
        heading, how = CITED.get(source, (source, ""))
        date = max(row["time"] for row in some)[:10]
        counts = Counter(row["license"] or NO_LICENSE for row in some)
        lines += [f"## {heading}", "", f"{len(some):,} photographs: "
                  + ", ".join(f"{count:,} {code}" for code, count in sorted(counts.items())) + ".",
                  "", *([how.format(date=date)] if how else [])]
        if source == "gbif":
            lines += [f"- <https://www.gbif.org/dataset/{key}>: {datasets[key]:,}"
                      for key in sorted(datasets)] + [""]
    write_text(folder / "CITATIONS.md", "\n".join(lines).rstrip() + "\n")
    return [name for name in ("CITATIONS.md", GBIF_TABLE) if (folder / name).exists()]
