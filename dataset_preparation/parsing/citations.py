"""What must be cited and credited: CITATIONS.md, and GBIF's datasets ready for a DOI."""
from collections import Counter, defaultdict

from utils import write_table, write_text

GBIF_TABLE = "gbif_datasets.csv"
# https://www.gbif.org/citation-guidelines, https://www.gbif.org/derived-dataset/about
HOW_GBIF = f"""Register `{GBIF_TABLE}` (dataset key, number of occurrences) as a derived dataset at
<https://www.gbif.org/derived-dataset/register>, and cite the DOI that it gets:

> GBIF.org ({{date}}) Derived dataset. GBIF. https://doi.org/10.15468/dd.XXXXXX
"""
SOURCES = {  # name -> (heading, how to cite)
    "inaturalist": ("iNaturalist", "> iNaturalist contributors. iNaturalist observations. "
                    "https://www.inaturalist.org, accessed {date}.\n"),
    "open_data": ("iNaturalist open data", "> iNaturalist Licensed Observation Images. "
                  "https://registry.opendata.aws/inaturalist-open-data, accessed {date}.\n"),
    "commons": ("Wikimedia Commons", "> Wikimedia Commons contributors. "
                "https://commons.wikimedia.org, accessed {date}.\n"),
    "gbif": ("GBIF", HOW_GBIF)}
NO_LICENSE = "none stated"


def write_citations(folder, rows):
    """Write CITATIONS.md for the found rows that have a photograph, and the table for GBIF.

    Returns the names of the files written.
    """
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
        heading, how = SOURCES.get(source, (source, ""))
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
