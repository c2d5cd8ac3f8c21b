"""Photographs of iNaturalist's open data: four published tables, no requests to its API.

The tables observations, observers, photos and taxa are gzipped text separated by tabs, without
quotes (https://github.com/inaturalist/inaturalist-open-data/tree/main/Metadata). DuckDB reads each
of them once, for all names together, within MEMORY.
"""
import re
from pathlib import Path

from dataset_preparation.parsing.addresses import clean_address, fitting_size
from dataset_preparation.parsing.archives import download_archive
from dataset_preparation.parsing.connections import build_network_access
from dataset_preparation.parsing.safe_download import Limits, trusting_web
from dataset_preparation.parsing.sampling import Spread
from dataset_preparation.parsing.scientific_names import name_key, taxon_ranks
from dataset_preparation.parsing.source_settings import PHOTO_MB, build_options
from dataset_preparation.parsing.sources import ResultPage, Source, UnknownName
from utils import InputError, read_classes

TABLES = ("taxa", "observations", "photos", "observers")
MEMORY, THREADS = "600MB", 2  # of DuckDB, which also uses a temporary folder
SURPLUS = 5  # observations to choose from, for each photograph wanted
STEP = 100  # results per page

# Names with the first word of a wanted one, to be compared by `name_key`.
LIKE = """SELECT DISTINCT name FROM {taxa}
          WHERE list_has_any(string_split(strip_accents(lower(name)), ' '), $genera)"""
# The steps, in order; {name} is a table, $name a value. A name includes all taxa below it.
QUERIES = (
    """CREATE TABLE kingdom AS SELECT taxon_id FROM {taxa}
       WHERE rank = 'kingdom' AND list_contains($kingdoms, name)""",
    """CREATE TABLE root AS SELECT wanted, taxon_id, active FROM {taxa}
         JOIN spelling USING (name)
         JOIN wanted ON wanted.key = spelling.key AND list_contains(ranks, rank)
       WHERE NOT EXISTS (FROM kingdom) OR EXISTS (
         FROM kingdom WHERE list_contains(string_split(ancestry, '/'), kingdom.taxon_id))""",
    """CREATE TABLE taxon AS SELECT DISTINCT wanted, below.taxon_id
       FROM (SELECT taxon_id, unnest(list_append(string_split(coalesce(ancestry, ''), '/'),
                                                 taxon_id)) AS above FROM {taxa}) AS below
       JOIN root ON above = root.taxon_id WHERE root.active = 'true'""",
    """CREATE TABLE observation AS
       SELECT wanted, observation_uuid, observer_id, latitude, longitude, observed_on
       FROM {observations} JOIN taxon USING (taxon_id) WHERE quality_grade = 'research'
         AND (NOT $in_area OR (TRY_CAST(longitude AS DOUBLE) BETWEEN $west AND $east
                               AND TRY_CAST(latitude AS DOUBLE) BETWEEN $south AND $north))""",
    """CREATE TABLE photo AS
       SELECT observation_uuid, photo_id, extension, lower(license) AS license, width, height,
         TRY_CAST(position AS INTEGER) AS position, list_contains($licenses, lower(license)) AS ok
       FROM {photos} SEMI JOIN observation USING (observation_uuid)""",
    """CREATE TABLE sampled AS SELECT * EXCLUDE nth FROM (
         SELECT *, row_number() OVER (PARTITION BY wanted, observer_id ORDER BY tie) AS nth
         FROM (SELECT *, md5($seed || ':' || observation_uuid) AS tie FROM observation
               SEMI JOIN (FROM photo WHERE ok) USING (observation_uuid)))
       QUALIFY row_number() OVER (PARTITION BY wanted ORDER BY nth, tie) <= $most""",
    """CREATE TABLE person AS SELECT observer_id, login, name FROM {observers}
       SEMI JOIN sampled USING (observer_id)""")
RESULTS = """
    SELECT observation_uuid, photo_id, extension, license, width, height, observed_on,
           latitude, longitude, coalesce(login, observer_id, ''), coalesce(name, login, '')
    FROM sampled JOIN (FROM photo WHERE ok) USING (observation_uuid)
    LEFT JOIN person USING (observer_id) WHERE wanted = $wanted
    QUALIFY row_number() OVER (PARTITION BY observation_uuid ORDER BY position, photo_id) <= $each
    ORDER BY observation_uuid, position, photo_id"""
PASSED_OVER = """
    SELECT 'licence not wanted: ' || coalesce(license, 'none'), count(*)
    FROM photo JOIN observation USING (observation_uuid) WHERE NOT coalesce(ok, false)
      AND wanted = $wanted GROUP BY ALL"""


def build_source(web, s):
    """Return the source of the settings; raise InputError without DuckDB or tables."""
    try:
        import duckdb
    except ModuleNotFoundError:
        raise InputError("the source open_data needs DuckDB; run pip install duckdb") from None
    if not s.open_data:
        raise InputError("the source open_data needs --open_data: a folder, or an address, with "
                         f"{', '.join(f'{name}.csv.gz' for name in TABLES)}; see "
                         "https://github.com/inaturalist/inaturalist-open-data")
    folder = Path(s.open_data)
    if re.match(r"(?i)https?://", s.open_data):
        folder = Path(s.collected_dir) / "open_data"
        tables = trusting_web(Limits(s.connect_seconds, s.read_seconds), build_network_access(s))
        for name in TABLES:
            download_archive(tables, f"{s.open_data.rstrip('/')}/{name}.csv.gz",
                             folder / f"{name}.csv.gz", attempts=s.photo_attempts)
    names = [name for plant in read_classes(s.class_table, s.limit_classes)
             for name in (plant.latin, *plant.also)]
    return OpenData(duckdb, find_tables(folder), names, s.open_data_url, build_options(s),
                    s.name_results)


def find_tables(folder):
    """Return {table: path} of the tables in a folder, .csv.gz or unpacked; raises InputError."""
    paths = {}
    for name in TABLES:
        found = [path for path in (folder / f"{name}.csv.gz", folder / f"{name}.csv")
                 if path.is_file()]
        if not found:
            raise InputError(f"{folder} has no {name}.csv.gz; unpack "
                             "inaturalist-open-data-latest.tar.gz there, or correct --open_data")
        paths[name] = found[0]
    return paths


class OpenData(Source):
    """Yields photographs with their provenance, see `sources.Source`."""

    limits = "none: tables on this machine"

    def __init__(self, duckdb, paths, names, url, options, results):
        self.duckdb, self.paths, self.names, self.url = duckdb, paths, names, url.rstrip("/")
        self.options, self.results, self.database = options, results, None
        self.terms = {"license": ",".join(options.licenses), "each": options.per_observation,
                      "kingdom": ",".join(options.kingdoms), "size": options.size,
                      "area": options.area or "", "seed": options.seed}
        self.usual_mb = PHOTO_MB[options.size]

    def page_count(self, kind, count):
        """Return the number of pages of `count` results."""
        return -(-count // STEP)

    def search(self, name, state=None, earlier=()):
        """Yield the results of a name, in pages; `state` only means that there may be more."""
        database = self._open()
        known = database.execute("SELECT active FROM root WHERE wanted = ?",
                                 [name.lower()]).fetchall()
        if ("true",) not in known:
            raise UnknownName("iNaturalist no longer uses the name" if known
                              else "iNaturalist's tables do not have it")
        had = {row["url"] for row in earlier}
        pool = [result for result in self._results(name) if result["url"] not in had]
        passed_over = dict(database.execute(PASSED_OVER, {"wanted": name.lower()}).fetchall())
        spread = Spread(self.options.seed, earlier)
        while True:
            results = spread.take(pool, STEP)
            yield ResultPage(results, "more" if pool else None, {} if state else passed_over)
            if not pool:
                return
            state = "more"

    def _results(self, name):
        """Yield the results of a name to choose from."""
        each = self.options.per_observation or 1_000_000
        rows = self.database.execute(RESULTS, {"wanted": name.lower(), "each": each}).fetchall()
        for (observation, photo, extension, code, width, height, date, latitude, longitude,
             observer, author) in rows:
            sides = [int(side) if str(side).isdecimal() else "" for side in (width, height)]
            size = fitting_size(self.options.size, *sides)
            yield {"url": clean_address(f"{self.url}/photos/{photo}/{size}.{extension}"),
                   "page": f"https://www.inaturalist.org/observations/{observation}",
                   "title": name, "author": author, "license": code, "width": sides[0],
                   "height": sides[1], "observation": observation, "observer": observer,
                   "date": date or "", "latitude": latitude or "", "longitude": longitude or ""}

    def _open(self):
        """Return the database with the rows of all names; read the tables at the first call."""
        if self.database is None:
            print(f"open_data: reading {', '.join(str(path) for path in self.paths.values())}",
                  flush=True)
            database = self.duckdb.connect(config={
                "memory_limit": MEMORY, "threads": THREADS, "preserve_insertion_order": "false",
                "autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
            try:
                self._read_tables(database)
            except self.duckdb.Error as error:
                database.close()
                first = str(error).partition("\n")[0][:300]
                raise InputError(f"cannot read the tables of {self.paths['taxa'].parent}: {first}; "
                                 "download or unpack them again") from None
            self.database = database
        return self.database

    def _read_tables(self, database):
        """Create the tables of QUERIES."""
        tables = {name: f"read_csv('{str(path).replace(chr(39), 2 * chr(39))}', delim='\\t', "
                        "quote='', escape='', header=true, all_varchar=true)"
                  for name, path in self.paths.items()}
        keys = {name.lower(): name_key(name) for name in self.names}
        database.execute("CREATE TABLE wanted (wanted TEXT PRIMARY KEY, key TEXT, ranks TEXT[])")
        database.executemany("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", [
            (name.lower(), keys[name.lower()], taxon_ranks(name)) for name in self.names])
        database.execute("CREATE TABLE spelling (name TEXT, key TEXT)")
        genera = sorted({word for key in keys.values() for word in key.split()[:1]})
        like = database.execute(LIKE.format(**tables), {"genera": genera}).fetchall()
        if known := [(name, name_key(name)) for name, in like if name_key(name) in keys.values()]:
            database.executemany("INSERT INTO spelling VALUES (?, ?)", known)
        west, south, east, north = self.options.area or (0.0, 0.0, 0.0, 0.0)
        values = {"kingdoms": list(self.options.kingdoms), "in_area": bool(self.options.area),
                  "west": west, "south": south, "east": east, "north": north,
                  "licenses": list(self.options.licenses), "seed": str(self.options.seed),
                  "most": max(1000, SURPLUS * self.results)}
        for query in QUERIES:
            used = {name: value for name, value in values.items() if f"${name}" in query}
            database.execute(query.format(**tables), used)

    def close(self):
        """Close the database."""
        if self.database is not None:
            self.database.close()
            self.database = None
