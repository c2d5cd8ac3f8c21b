"""The search of two machines that share a real PostgreSQL server; one is killed."""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import optuna
import pytest

from tests.searching import (
    make_input,
    require_one_retry,
    require_resumed,
    start,
    wait_for_checkpoint,
)

pytestmark = pytest.mark.postgres


@pytest.fixture
def server():
    """The address of a PostgreSQL server of our own."""
    programs = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")),
                Path(shutil.which("initdb") or "/").parent]
    programs = next((path for path in reversed(programs) if (path / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL's initdb is not here; apt-get install postgresql")
    # PostgreSQL refuses to run as root
    as_owner = ("runuser", "-u", "postgres", "--") if os.getuid() == 0 else ()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if as_owner:
            shutil.chown(folder, "postgres")

        def command(program, *arguments):
            subprocess.run([*as_owner, programs / program, "-D", f"{folder}/data", *arguments],
                           check=True, cwd="/", stdout=subprocess.DEVNULL)
        command("initdb", "--auth=trust", "--username=search", "--no-sync")
        command("pg_ctl", "start", "--wait", "-l", f"{folder}/log",
                "-o", f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off")
        try:
            yield f"postgresql+psycopg://search@127.0.0.1:{port}/postgres"
        finally:
            command("pg_ctl", "stop", "--wait", "-m", "immediate")


def test_a_trial_of_a_killed_machine_is_resumed_by_another(server, tmp_path):
    make_input(tmp_path)
    killed, other = [start(  # they share checkpoints and database, and start in the same moment
        tmp_path, "--search_storage", server, "--search_heartbeat", 5, "--num_epochs", 30,
        "--search_trials", 5, "--search_pruner", "none",  # it could end the trial too early
        "--runs_dir", tmp_path / machine) for machine in ("one", "two")]
    name = wait_for_checkpoint(killed, tmp_path)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    printed = require_resumed(other, name)
    assert printed.splitlines()[-1].startswith("best val loss ")
    require_one_retry(optuna.load_study(study_name="tiny", storage=server).trials, name, 5)
