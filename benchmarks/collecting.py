"""How fast is downloading 1,000 photographs of 100 kB from 16 hosts, beside img2dataset?

    python benchmarks/collecting.py
    figure collecting_over_one_by_one 11.76 times target >= 10 met
    figure collecting_over_img2dataset 2.244 times target >= 1 met

The hosts are 16 ports of this machine that answer after 50 ms. Ours is the script itself with 32
threads, including its checks, its tables and its start. "One by one" is `requests.get` in a loop.
img2dataset (https://github.com/rom1504/img2dataset) has 32 threads in one process and neither
resizes nor re-encodes; the time of `img2dataset --help` is subtracted from its time. It runs in an
environment of its own, which the first run makes. The three run in turn, --rounds times; times are
medians.
"""
import argparse
import asyncio
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import make_environment, measure, state
from dataset_preparation.parsing.collected_tables import FOUND, Tables, now, query_of
from dataset_preparation.parsing.inaturalist import build_source

ROOT = config.ROOT
PARSING = ROOT / "dataset_preparation/parsing/parsing.py"
LATENCY = 0.05  # seconds before a response
THREADS = 32
ONE_BY_ONE = """
import sys, requests
from pathlib import Path
for number, url in enumerate(Path(sys.argv[1]).read_text().split()):
    Path(sys.argv[2], f"{number}.jpg").write_bytes(requests.get(url, timeout=10).content)
"""


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000, help="number of photographs [1000]")
    parser.add_argument("--hosts", type=int, default=16, help="number of ports [16]")
    parser.add_argument("--rounds", type=int, default=3, help="times everything is run [3]")
    parser.add_argument("--environment", type=Path, help="of img2dataset",
                        default=ROOT / "data/benchmarks/img2dataset")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.serve:
        asyncio.run(serve(flags.hosts))
        return 0
    programs = make_environment(flags.environment, "img2dataset==1.47.0", "setuptools<81")
    peer = programs / "img2dataset"
    server = subprocess.Popen([sys.executable, __file__, "--serve", "--hosts", str(flags.hosts)],
                              stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            ports = server.stdout.readline().split()
            urls = [f"http://127.0.0.1:{ports[number % len(ports)]}/{number}.jpg"
                    for number in range(flags.photos)]
            runs = [run_all(Path(folder) / str(number), urls, peer)
                    for number in range(flags.rounds)]
        finally:
            server.terminate()
    return report(runs)


# ---- the hosts ----

async def serve(hosts):
    """Serve different photographs of 100 kB on this number of ports, and print the ports."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    image = Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    photo = file.getvalue() + bytes(100_000 - file.tell())

    async def respond(reader, writer):
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(LATENCY)
                # after the end of the picture: the same pixels, another SHA-256
                body = photo[:-20] + request.split(b" ")[1].rjust(20)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
                             b"Content-Length: %d\r\n\r\n" % len(body))
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
    servers = [await asyncio.start_server(respond, "127.0.0.1", 0) for _ in range(hosts)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


# ---- the runs ----

def run_all(folder, urls, peer):
    """Return {name: {"seconds", "cpu" seconds, "mb"}} of every downloader."""
    folder.mkdir()
    (folder / "urls.txt").write_text("\n".join(urls) + "\n")
    (folder / "loop").mkdir()
    prepare_tables(folder, urls)
    hidden = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
    commands = {
        "ours": [sys.executable, PARSING, "--source", "inaturalist",
                 "--class_table", folder / "classes.csv", "--collected_dir", folder / "ours",
                 "--private_hosts", "('127.0.0.1',)", "--host_delay", 0, "--host_connections", 2,
                 "--threads", THREADS],
        "one by one": [sys.executable, "-c", ONE_BY_ONE, folder / "urls.txt", folder / "loop"],
        "img2dataset": [peer, "--url_list", folder / "urls.txt", "--output_folder", folder / "peer",
                        "--resize_mode", "no", "--skip_reencode", "True", "--processes_count", 1,
                        "--thread_count", THREADS, "--output_format", "files",
                        "--number_sample_per_shard", len(urls), "--enable_wandb", "False"],
        "img2dataset --help": [peer, "--help"]}
    measured = {name: measure(*command, environment=hidden) for name, command in commands.items()}
    for name, output in (("ours", "ours/images"), ("one by one", "loop"), ("img2dataset", "peer")):
        count = len(list((folder / output).rglob("*.jpg")))
        assert count == len(urls), f"{name} has {count} of {len(urls)} photographs"
    shutil.rmtree(folder)
    return measured


def prepare_tables(folder, urls):
    """Write the tables of a search that found these addresses, none of them tried."""
    (folder / "classes.csv").write_text("label,latin,russian,english,also\n0,Rosa canina,,,\n")
    query = query_of(build_source(None, config.namespace()), "Rosa canina")
    common = {**dict.fromkeys(FOUND, ""), "class": "Rosa canina", "source": "inaturalist",
              "kind": "name", "query": query, "license": "cc-by", "time": now()}
    rows = [{**common, "url": url, "rank": str(rank), "status": "new"}
            for rank, url in enumerate(urls, 1)]
    tables = Tables(folder / "ours")
    tables.add(rows, {**common, "answer": "all", "results": str(len(urls))})
    tables.save()


def report(runs):
    """Print the medians and the figures; return 1 if a target is missed."""
    median = {name: {unit: statistics.median(run[name][unit] for run in runs) for unit in units}
              for name, units in runs[0].items()}
    print(f"{'':20} {'seconds':>8} {'CPU seconds':>12} {'MB':>6}   fastest and slowest")
    for name, used in median.items():
        times = sorted(run[name]["seconds"] for run in runs)
        print(f"{name:20} {used['seconds']:8.2f} {used['cpu']:12.2f} {used['mb']:6.0f}   "
              f"{times[0]:.2f} {times[-1]:.2f}")
    ours, loop, peer, start = (median[name]["seconds"] for name in (
        "ours", "one by one", "img2dataset", "img2dataset --help"))
    return state([("collecting_over_one_by_one", loop / ours, "times", ">=", 10),
                  ("collecting_over_img2dataset", (peer - start) / ours, "times", ">=", 1),
                  ("collecting_memory", median["ours"]["mb"], "MB", "<=", 300)])


if __name__ == "__main__":
    sys.exit(main())
