"""SIGTERM ends collecting like Ctrl-C: tables are written, and no browser is left behind."""
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dataset_preparation.parsing.stopping import Terminated, deferred_stop, stopped_by_signal
from settings.startup_errors import STOPPED
from tests.collecting_runs import SCRIPT, arguments, flora, yandex_arguments
from tests.conftest import ROOT, run_script
from tests.proxy import Proxy
from utils import read_table

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")
MARKER = "TEST_OF_STOPPING"


@pytest.fixture
def stalling(server):
    """A function that lets responses to some paths wait; True once one does."""
    respond, waiting, stop = server.server.RequestHandlerClass.do_GET, [], threading.Event()

    def stall(start, after=0):
        def slow(self):
            if self.path.startswith(start) and len(server.requested(start)) >= after:
                waiting.append(self.path)
                stop.wait(60)
            respond(self)
        server.server.RequestHandlerClass.do_GET = slow
        return waiting
    yield stall
    stop.set()


def start(command, marker):
    """Start the script in a session of its own, as a service manager does."""
    return subprocess.Popen([sys.executable, ROOT / SCRIPT, *map(str, command)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
                            env={**os.environ, MARKER: marker})


def stop(process, number=signal.SIGTERM):
    """Send a signal; return (exit status, seconds it took, standard output, standard error)."""
    started = time.monotonic()
    process.send_signal(number)
    printed, errors = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - started, printed, errors


def left_behind(marker):
    """Return the command lines of processes that a run has left, 2 seconds after its end at most.
    """
    wanted, deadline = f"{MARKER}={marker}\0".encode(), time.monotonic() + 2
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if wanted in (path / "environ").read_bytes():
                    found.append((path / "cmdline").read_bytes().replace(b"\0", b" ")[:200])
            except OSError:  # it has ended, or is another user's
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def test_a_killed_drawing_of_the_quickstart_leaves_no_process(tmp_path):
    code = ("import sys; from pathlib import Path; from quickstart_flora.search_results import *; "
            "draw_flora(Path(sys.argv[1]), 1000, 0, 2)")
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT,
                               env={**os.environ, MARKER: str(tmp_path)})
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: len(children.read_text().split()) == 2, process)
    process.kill()
    process.wait()
    assert not left_behind(str(tmp_path))


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "status"), [
    (signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_writes_the_tables_and_the_next_run_resumes(
        server, stalling, tmp_path, number, status):
    flora(server, tmp_path)
    command, waiting = arguments(server, tmp_path, "--source", "inaturalist"), stalling("/photo", 8)
    process = start(command, str(tmp_path))
    wait_for(lambda: waiting, process)
    code, seconds, _, errors = stop(process, number)
    assert code == status and seconds < 5 and "same command" in errors
    assert "Traceback" not in errors
    collected = tmp_path / "collected"
    rows = read_table(collected / "found.csv")
    assert {row["status"] for row in rows} >= {"saved", "new"}
    assert not (collected / "found.csv.journal").exists()


@pytest.mark.parametrize("script", [SCRIPT, "dataset_preparation/cleaning/cleaning.py", "train.py"])
def test_ctrl_c_during_the_imports_is_one_sentence(tmp_path, script):
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run([sys.executable, ROOT / script], capture_output=True, text=True,
                          check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == -signal.SIGINT  # which a shell shows as 130
    assert done.stderr == f"{STOPPED}\n"


def test_a_second_signal_does_not_interrupt_and_a_body_is_finished_first():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with deferred_stop():
            signal.raise_signal(signal.SIGINT)
            done.append("the body")
        done.append("never")
    assert done == ["the body"]
    with pytest.raises(Terminated), stopped_by_signal():
        try:
            with deferred_stop():
                signal.raise_signal(signal.SIGTERM)
                done.append("the body")
        finally:
            signal.raise_signal(signal.SIGTERM)  # ignored from now on
    assert done == ["the body"] * 2


# ---- browsers ----

BROWSERS = {  # name: (programs it needs, its arguments)
    "chromium": (("chromium", "chromedriver"), "('--no-sandbox', '--disable-dev-shm-usage')"),
    "firefox": (("firefox", "geckodriver"), "()")}


@pytest.fixture(params=BROWSERS)
def command(request, server, tmp_path):
    """The arguments of a run with a browser."""
    programs, more = BROWSERS[request.param]
    if not all(map(shutil.which, programs)):
        pytest.skip(f"{' and '.join(programs)} are not installed")
    return yandex_arguments(server, tmp_path, "--name_results", 60, "--similar_to", 3,
                            "--browser", request.param, "--browser_arguments", more)


@pytest.mark.browser
def test_no_browser_is_left_in_the_middle_of_a_page(command, server, stalling, tmp_path):
    waiting = stalling("/images/search", 3)
    process = start(command, str(tmp_path))
    wait_for(lambda: waiting, process)
    code, seconds, _, errors = stop(process)
    assert code == 143 and seconds < 5, errors
    assert left_behind(str(tmp_path)) == []
    assert len(read_table(tmp_path / "collected/found.csv")) >= 30
    assert not (tmp_path / "collected/found.csv.journal").exists()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_browser_is_left_at_any_moment_of_its_start(command, stalling, tmp_path, number):
    stalling("/photo")  # so that no run ends by itself, however fast the machine
    for tenths in range(2, 40, 9):
        process = start(command, str(tmp_path))
        wait_for(lambda: (tmp_path / "collected/found.csv.lock").exists(), process)
        time.sleep(tenths / 10)
        code, _, _, errors = stop(process, number)
        assert code == (143 if number == signal.SIGTERM else 130), errors
        assert left_behind(str(tmp_path)) == [], tenths
        shutil.rmtree(tmp_path / "collected")


@pytest.mark.browser
def test_either_browser_collects_what_the_server_holds(command, server, tmp_path):
    done = run_script(SCRIPT, *command, "--limit_classes", 2, "--name_results", 30)
    assert "collected 120 photographs of 2 classes" in done.stdout.splitlines()[-1]


@pytest.mark.browser
@pytest.mark.parametrize("setting", ["environment", "proxy"])
def test_the_browser_goes_through_the_proxy(command, server, tmp_path, monkeypatch, setting):
    with Proxy(server.server.server_address) as proxy:
        more = ["--proxy", proxy.url]
        if setting == "environment":
            more = []
            for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # of the photographs
        run_script(SCRIPT, *command, *more, "--yandex_url", "http://yandex.invalid/images/search",
                   "--limit_classes", 1, "--name_results", 30, "--similar_to", 0)
    assert len(read_table(tmp_path / "collected/found.csv")) == 30
    assert any(address.startswith("http://yandex.invalid/") for _, address in proxy.asked)
    assert not [address for _, address in proxy.asked if "localhost" in address]  # the driver's
