"""How much time and memory does sampling iNaturalist's open data take, on generated tables?

    python benchmarks/open_data.py
    figure open_data_seconds 5.104 s target <= 60 met
    figure open_data_memory 0.198 GB target <= 1 met

The tables have a million observations with 1.5 million photographs by 60,000 people, a hundredth of
whom made half of the observations. They cover 2,000 species, 50 of them those of the class table.
In a process of its own, the source reads the tables and yields 200 photographs of every class.
"""
import argparse
import sys
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import ROOT, measure, state
from dataset_preparation.parsing.open_data import TABLES, build_source
from dataset_preparation.parsing.sampling import observer_of, year_of
from utils import read_classes

SPECIES, PEOPLE = 2_000, 60_000
GENERATED = {
    "taxa": """SELECT '1' AS taxon_id, '' AS ancestry, '70' AS rank_level, 'kingdom' AS rank,
                 'Plantae' AS name, 'true' AS active
               UNION ALL SELECT (10 + i)::TEXT, '1', '10', 'species', coalesce(latin,
                 'Planta n' || i), 'true' FROM range({species}) t(i) LEFT JOIN latins ON n = i""",
    "observations": """SELECT 'uuid-' || i AS observation_uuid, CASE WHEN i % 2 = 0
                 THEN hash(i) % ({people} // 100) ELSE hash(i + 7) % {people} END AS observer_id,
                 30 + (hash(i + 1) % 30000) / 1000 AS latitude,
                 (hash(i + 2) % 60000) / 1000 AS longitude, 10 AS positional_accuracy,
                 10 + hash(i + 3) % {species} AS taxon_id,
                 CASE WHEN i % 5 = 0 THEN 'needs_id' ELSE 'research' END AS quality_grade,
                 DATE '2012-01-01' + (hash(i + 4) % 5000)::INTEGER AS observed_on,
                 0.5 AS anomaly_score FROM range({count}) t(i)""",
    "photos": """SELECT 'photo-' || i AS photo_uuid, i AS photo_id, 'uuid-' || (i * 2 // 3)
                 AS observation_uuid, 0 AS observer_id, 'jpg' AS extension,
                 ['CC-BY-NC', 'CC-BY', 'CC0', 'CC-BY-NC-ND'][1 + (hash(i) % 4)::INTEGER] AS license,
                 2048 AS width, 1536 AS height, i % 3 AS position
               FROM range(3 * {count} // 2) t(i)""",
    "observers": """SELECT i AS observer_id, 'user' || i AS login, 'A "name of ' || i AS name
               FROM range({people}) t(i)"""}


def generate(folder, millions):
    """Write the tables, unless they are there."""
    database = duckdb.connect()
    database.execute("CREATE TABLE latins (n INTEGER, latin TEXT)")
    names = [plant.latin for plant in read_classes(config.CLASS_TABLE) if " " in plant.latin]
    database.executemany("INSERT INTO latins VALUES (?, ?)", list(enumerate(names)))
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        path = folder / f"{name}.csv.gz"
        if not path.exists():
            query = GENERATED[name].format(species=SPECIES, people=PEOPLE,
                                           count=1_000_000 * millions)
            database.execute(f"COPY ({query}) TO '{path}' (DELIMITER '\t', QUOTE '', HEADER, "
                             "COMPRESSION gzip)")


def sample(folder):
    """Print how many photographs, observers and years the source yields for the class table."""
    s = config.namespace(open_data=str(folder), source="open_data")
    source, rows = build_source(None, s), []
    for plant in read_classes(s.class_table):
        if " " in plant.latin:
            taken = []
            for page in source.search(plant.latin):
                taken += page.results
                if len(taken) >= s.name_results:
                    break
            rows += taken[:s.name_results]
    print(f"{len(rows):,} photographs by {len({observer_of(row) for row in rows}):,} people in "
          f"{len({year_of(row) for row in rows})} years")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "data/benchmarks/open_data")
    parser.add_argument("--millions", type=int, default=1, help="observations [1 million]")
    parser.add_argument("--sample", action="store_true", help="only sample, in this process")
    flags = parser.parse_args(argv)
    if flags.sample:
        sample(flags.work)
        return 0
    generate(flags.work, flags.millions)
    used = measure(sys.executable, Path(__file__), "--work", flags.work, "--sample")
    print(f"{used['cpu']:.1f} s of processor time")
    return state([("open_data_seconds", used["seconds"], "s", "<=", 60),
                  ("open_data_memory", used["mb"] / 1000, "GB", "<=", 1)])


if __name__ == "__main__":
    sys.exit(main())
