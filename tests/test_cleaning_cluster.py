"""Cleaning on a cluster: a real Dask scheduler with two workers."""
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from dataset_preparation.cleaning import inspection
from tests.conftest import make_collected, snapshot
from tests.preparing import clean, without_times
from utils import InputError


@pytest.fixture
def folder(tmp_path):
    make_collected(tmp_path / "collected", count=4)
    clean(tmp_path)
    return tmp_path


@pytest.fixture
def cluster(tmp_path):
    """The address of a real scheduler with two workers, started in a folder of their own."""
    distributed = pytest.importorskip("distributed")
    (tmp_path / "cluster").mkdir()
    address = tmp_path / "cluster/scheduler.json"
    commands = (["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
                ["worker", "--nworkers", "2", "--nthreads", "1", "--no-dashboard"])
    with open(tmp_path / "cluster/log", "w") as log:
        running = [subprocess.Popen([sys.executable, "-m", "dask", *command, "--scheduler-file",
                                     address], stdout=log,
                                    stderr=log, cwd=tmp_path / "cluster") for command in commands]
        try:
            while not address.exists():
                assert running[0].poll() is None, (tmp_path / "cluster/log").read_text()
                time.sleep(0.1)
            with distributed.Client(scheduler_file=str(address)) as client:
                client.wait_for_workers(2, timeout=30)
            yield json.loads(address.read_text())["address"]
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(20)


@pytest.mark.slow
def test_a_cluster_gives_the_same_table(folder, cluster):
    clean(folder)
    wanted = without_times(snapshot(folder / "cleaned"))
    shutil.rmtree(folder / "cleaned")
    clean(folder, "--dask_scheduler", cluster)
    assert without_times(snapshot(folder / "cleaned")) == wanted
    assert len(wanted["inspected.jsonl"].splitlines()) == 1 + 12


@pytest.mark.slow
def test_a_job_that_kills_its_workers_loses_only_that_job(cluster):
    def bad_at_three(number):  # sent whole, not by its name
        return os._exit(1) if number == 3 else 2 * number
    jobs = [(number,) for number in range(8)]
    results = dict(inspection.map_files_on_cluster(bad_at_three, jobs, cluster, "gone"))
    assert results == {(number,): "gone" if number == 3 else 2 * number for number in range(8)}


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_named(folder):
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        shutil.rmtree(folder / "cleaned")
        clean(folder, "--dask_scheduler", "tcp://127.0.0.1:9")
