"""How many pages of Yandex Images does a run request? Counted on a local server.

    python benchmarks/search_plan.py
    figure search_pages_per_name 27 pages target <= 27 met
    figure search_hours_of_50_names 2.812 hours target <= 2.9 met

The script searches for --names names in Chromium; all other settings are those of config.py: 200
results per name, 40 similar ones for each of the first 20, `type=photo`. The server is that of the
tests, with 30 results on a page and 40 on an overview. Nothing is downloaded, because the host of
the photographs refuses connections. Hours are those of 50 names at the mean PAGE_DELAY between two
pages, without the loading itself.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import state
from tests.collecting_runs import NAMES, SCRIPT
from tests.collecting_server import CollectingServer
from tests.conftest import write_classes


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=int, default=2, help=f"at most {len(NAMES)} [2]")
    names = NAMES[:parser.parse_args(argv).names]
    with CollectingServer() as server, tempfile.TemporaryDirectory() as folder:
        server.world.by_name, server.world.by_image = 300, 100
        command = [
            "--class_table", write_classes(Path(folder, "classes.csv"), names),
            "--collected_dir", Path(folder, "collected"), "--source", "yandex",
            "--yandex_url", f"{server.url}/images/search", "--browser", "chromium",
            "--browser_arguments", "('--no-sandbox', '--disable-dev-shm-usage')",
            "--page_delay", "(0.0, 0.0)", "--host_delay", 0, "--host_connections", 32]
        # not 127.0.0.1 among PRIVATE_HOSTS: every photograph is refused before it is asked for
        subprocess.run([sys.executable, config.ROOT / SCRIPT, *map(str, command)], check=True,
                       stdout=subprocess.DEVNULL)
        pages = len(server.requested("/images/search")) / len(names)
    hours = 50 * pages * sum(config.namespace().page_delay) / 2 / 3600
    return state([("search_pages_per_name", pages, "pages", "<=", 27),
                  ("search_hours_of_50_names", hours, "hours", "<=", 2.9)])


if __name__ == "__main__":
    sys.exit(main())
