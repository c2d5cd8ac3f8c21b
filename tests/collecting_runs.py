"""What the tests of collecting share: plants a server knows, sources, downloads, arguments."""
import tempfile

from dataset_preparation.parsing.collected_tables import FOUND, Tables, now
from dataset_preparation.parsing.gbif import Gbif
from dataset_preparation.parsing.host_schedule import HostLimits
from dataset_preparation.parsing.inaturalist import INaturalist
from dataset_preparation.parsing.photo_downloads import Downloads
from dataset_preparation.parsing.safe_download import Limits, guarded_web
from dataset_preparation.parsing.source_settings import Options
from tests.collecting_server import observation
from tests.conftest import write_classes

SCRIPT = "dataset_preparation/parsing/parsing.py"
OPTIONS = Options(area=None, licenses=("cc0", "cc-by", "cc-by-nc"), kingdoms=("Plantae", "Fungi"),
                  per_observation=2, delay=0)
PAGES = tempfile.TemporaryDirectory()  # removed when the tests end
NAMES = ("Rosa canina", "Typha latifolia", "Amanita muscaria", "Adonis vernalis",
         "Allium nathaliae")
LOCAL_LIMITS = Limits(connect_seconds=5, read_seconds=5, total_seconds=20, max_bytes=1_000_000)


# ---- sources ----

def results_of(pages, count=None):
    """Return the results of the pages of a search, up to `count`; no page is taken beyond those."""
    results = []
    for page in pages:
        results += page.results
        if page.state is None or count and len(results) >= count:
            break
    return results[:count]


def local_web(limits=LOCAL_LIMITS, connections=4):
    """Return a `Web` that may ask 127.0.0.1."""
    return guarded_web(limits, private_hosts=("127.0.0.1",), connections=connections)


def options(**changes):
    """Return the options of a source that keeps its pages where no other one looks."""
    return OPTIONS._replace(**{"folder": tempfile.mkdtemp(dir=PAGES.name), **changes})


def inaturalist(server, **changes):
    """Return iNaturalist as a server plays it."""
    return INaturalist(local_web(), f"{server.url}/inat", options(**changes))


def gbif(server, **changes):
    """Return GBIF as a server plays it."""
    return Gbif(local_web(), f"{server.url}/gbif", options(**changes))


def taxon(number, name, rank="species", **more):
    """Return a taxon as `GET /v1/taxa` gives it."""
    return {"id": number, "name": name, "rank": rank, "is_active": True, "matched_term": name,
            "iconic_taxon_name": "Plantae", "current_synonymous_taxon_ids": None, **more}


def match(key, name, rank="SPECIES", kind="EXACT", kingdom="Plantae", accepted=None):
    """Return a match as `GET /v2/species/match` gives it; `accepted` is (key, name)."""
    usage = {"key": str(key), "name": f"{name} L.", "canonicalName": name, "rank": rank,
             "status": "SYNONYM" if accepted else "ACCEPTED"}
    synonym = {"acceptedUsage": {"key": str(accepted[0]), "name": f"{accepted[1]} L.",
                                 "canonicalName": accepted[1], "rank": rank}} if accepted else {}
    return {"usage": usage, **synonym, "synonym": bool(accepted),
            "classification": [{"key": "P", "name": kingdom, "rank": "KINGDOM"},
                               {"key": str(key), "name": name, "rank": rank}],
            "diagnostics": {"matchType": kind, "confidence": 97}}


def flora(server, folder, names=NAMES[:3], count=6):
    """Let the server know some plants and write their class table."""
    for number, name in enumerate(names, 1):
        server.world.taxa[name] = [taxon(number, name)]
        server.world.observations += [
            observation(server, 1000 * number + i, server.world.taxa[name][0])
            for i in range(count)]
    folder.mkdir(exist_ok=True)
    write_classes(folder / "classes.csv", names)


# ---- the script ----

def arguments(server, folder, *more):
    """Return the arguments of a run against the server, without delays."""
    return ["--class_table", folder / "classes.csv", "--collected_dir", folder / "collected",
            "--inaturalist_url", f"{server.url}/inat", "--gbif_url", f"{server.url}/gbif",
            "--private_hosts", "('127.0.0.1',)", "--api_delay", 0, "--host_delay", 0,
            "--host_connections", 4, "--threads", 4, "--patience_minutes", 0.1, *more]


def yandex_arguments(server, folder, *more):
    """Return the arguments of a run of Chromium against the server, without delays."""
    return ["--class_table", write_classes(folder / "classes.csv", NAMES),
            "--collected_dir", folder / "collected", "--yandex_url", f"{server.url}/images/search",
            "--browser", "chromium", "--browser_arguments",
            "('--no-sandbox', '--disable-dev-shm-usage')", "--page_delay", "(0.0, 0.0)",
            "--page_seconds", 10, "--private_hosts", "('127.0.0.1',)", "--host_delay", 0,
            "--host_connections", 8, *more]


# ---- downloads ----

def found_row(url, plant="Rosa canina", fallbacks=""):
    """Return a found row that has not been tried."""
    return {**dict.fromkeys(FOUND, ""), "class": plant, "source": "yandex", "query": "q",
            "kind": "name", "rank": "1", "url": url, "fallbacks": fallbacks, "status": "new",
            "time": now()}


def start_downloads(tables, threads=8, try_again=(), **limits):
    """Return running `Downloads` into tables, with `HostLimits` of 4 connections and 2 attempts."""
    values = {"connections": 4, "delay": 0.0, "attempts": 2, **limits}
    return Downloads(local_web(), tables, HostLimits(**values), 40, threads, try_again)


def download(folder, rows, earlier=False, **limits):
    """Download the photographs of rows, and of those found earlier; return the tables, saved."""
    tables = Tables(folder)
    downloads = start_downloads(tables, **limits)
    try:
        downloads.add(list(tables.found.values()) if earlier else [])
        downloads.add(tables.add(rows))
        downloads.wait(lambda: None)
    finally:
        downloads.stop()
        tables.save()
    return tables
