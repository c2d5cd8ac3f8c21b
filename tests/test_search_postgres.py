"""The search of two machines through a real PostgreSQL server, one of them killed."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import ROOT
from tests.test_search import SCRIPT, flags, make_input
from training.checkpoints import LAST

pytestmark = pytest.mark.postgres


@pytest.fixture
def server():
    """The address of a PostgreSQL server of our own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) + [Path(shutil.which("initdb") or "/").parent]
    programs = next((path for path in reversed(programs) if (path / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL's initdb is not here; apt-get install postgresql")
    as_owner = ("runuser", "-u", "postgres", "--") if os.getuid() == 0 else ()  # it refuses to run as root
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if as_owner:
            shutil.chown(folder, "postgres")

        def command(program, *arguments):
            subprocess.run([*as_owner, programs / program, "-D", f"{folder}/data", *arguments], check=True, cwd="/",
                           stdout=subprocess.DEVNULL)
        command("initdb", "--auth=trust", "--username=search", "--no-sync")
        command("pg_ctl", "start", "--wait", "-l", f"{folder}/log",
                "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off")
        try:
            yield f"postgresql+psycopg://search@127.0.0.1:{port}/postgres"
        finally:
            command("pg_ctl", "stop", "--wait", "-m", "immediate")


def test_a_trial_of_a_killed_machine_is_done_by_another_from_its_checkpoint(server, tmp_path):
    make_input(tmp_path)
    processes = []
    for machine in ("one", "two"):  # they share the checkpoints and the database, and start in the same moment
        processes.append(subprocess.Popen(
            [sys.executable, ROOT / SCRIPT, *flags(
                tmp_path, "--search_storage", server, "--search_heartbeat", 5, "--num_epochs", 6, "--search_trials", 5,
                "--search_pruner", "none",  # which could end the trial before it goes on
                "--runs_dir", tmp_path / machine)], stdout=subprocess.PIPE, text=True))
    killed, other = processes
    for line in killed.stdout:
        if line.startswith("run trial_"):
            checkpoint = tmp_path / "checkpoints/tiny" / line.split()[1] / LAST
            while not checkpoint.exists():
                time.sleep(0.01)
            killed.send_signal(signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL
    printed = other.communicate()[0]
    assert other.returncode == 0
    assert "resuming after epoch" in printed
    assert printed.splitlines()[-1].startswith("best val loss ")

    trials = optuna.load_study(study_name="tiny", storage=server).trials
    stopped = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(stopped) == 1
    again = [trial for trial in trials if trial.system_attrs.get("failed_trial") == stopped[0].number]
    assert len(again) == 1
    assert again[0].state.is_finished()
    assert again[0].params == stopped[0].params
    assert len(trials) - len(stopped) == 5
