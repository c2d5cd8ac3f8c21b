"""Nothing phones home: the system's own trace of look-ups, connections and files shows none."""
import ast
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import requests

from settings.privacy import SWITCHES
from tests.collecting_runs import SCRIPT, yandex_arguments
from tests.collecting_server import CollectingServer
from tests.conftest import ROOT, run_script, snapshot
from tests.test_layout import ARROWS, FILES, imported, module_of

REPORTING = {"onnxruntime", "selenium", "timm", "huggingface_hub"}
LOCAL = re.compile(r"127\.|0\.0\.0\.0$|::1$|::$|::ffff:127\.")
PROBE = "2001:4860:4860::8888", 443  # Chromium asks the system for a route to it and sends nothing
LIFE = 15  # seconds; ONNX Runtime asks for its server's name within a few


def traced(log):
    """Return the command that writes a process's use of the network, its children's too."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    return ("strace", "-f", "--seccomp-bpf", "-qq", "-s", "300", "-e",
            "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(log))


def contacts(log):
    """Return {(address, port): count} beyond this machine; a name asked for is port 53."""
    found = Counter()
    for line in log.read_text("utf-8", errors="replace").splitlines():
        for port, v4, v6 in re.findall(
                r"sin6?_port=htons\((\d+)\), (?:sin6_flowinfo=\S+ )?"
                r"(?:sin_addr=inet_addr\(\"([^\"]+)|inet_pton\(AF_INET6, \"([^\"]+))", line):
            address = v4 or v6
            if port == "53" or not LOCAL.match(address):
                found[address, int(port)] += 1
    return dict(found)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, which libraries find first; the switches are those of the scripts."""
    for name in (*SWITCHES, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def network(trained, tmp_path):
    """A copy of the trained network's folder to write to."""
    return shutil.copytree(trained, tmp_path / "run")


def export(network, *more):
    flags = ("--checkpoint", network / "plants_model.pth.tar", "--class_table",
             network / "classes.csv", "--check_photos", network / "photos")
    run_script("export.py", *flags, **dict(*more))
    return network / "plants_model.onnx"


def test_files_that_use_a_reporting_library_set_its_switch_off():
    def reached(module):
        todo, seen = [module], set()
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                todo += ARROWS.get(name, ())
        return seen
    outside = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("docs/*.py")]
    users = 0
    for path in [*FILES, *outside]:
        names = imported(path)
        if REPORTING & {name.split(".")[0] for name in names}:
            known = reached(module_of(path)) | {one for name in names for one in reached(name)}
            assert "settings.privacy" in known, path
            users += 1
    assert users >= 5
    for path in [*FILES, *outside]:  # in one place only
        strings = {node.value for node in ast.walk(ast.parse(path.read_text("utf-8")))
                   if isinstance(node, ast.Constant)}
        assert path.stem == "privacy" or not strings & set(SWITCHES), path


def test_importing_onnx_runtime_after_ours_writes_no_identifier(home, tmp_path):
    if not importlib.util.find_spec("onnxruntime"):  # an import here would write the files
        pytest.skip("onnxruntime is not installed")
    code = "import utils, time, onnxruntime; time.sleep(0.5)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert snapshot(home) == {}


@pytest.mark.slow
def test_predicting_exporting_and_the_page_contact_nobody(home, network, tmp_path):
    file = export(network, {"before": traced(tmp_path / "export")}.items())
    run_script("predict.py", "--onnx", file, network / "photos/a.jpg",
               before=traced(tmp_path / "predict"))
    log = tmp_path / "app"
    process = subprocess.Popen(
        [*traced(log), sys.executable, "-u", str(ROOT / "app.py"), "--onnx", str(file),
         "--no-open_browser"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        start_new_session=True)
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        with requests.Session() as session:
            session.get(url)
            started = time.monotonic()
            while time.monotonic() - started < LIFE:
                reply = session.post(url.split("?")[0] + "predict",
                                     data=(network / "photos/a.jpg").read_bytes())
                assert reply.ok
                time.sleep(1)
    finally:
        os.killpg(process.pid, signal.SIGINT)  # strace itself does not pass it on
        process.communicate(timeout=30)
    assert {way: contacts(tmp_path / way) for way in ("export", "predict", "app")} == {
        "export": {}, "predict": {}, "app": {}}
    assert snapshot(home) == {}


@pytest.mark.browser
def test_collecting_contacts_the_server_it_is_given_alone(home, tmp_path):
    with CollectingServer() as server:
        flags = yandex_arguments(server, tmp_path, "--name_results", 30, "--similar_to", 0)
        run_script(SCRIPT, *flags, before=traced(tmp_path / "log"))
    assert set(contacts(tmp_path / "log")) <= {PROBE}
    assert not [path for path in snapshot(home) if re.search("(?i)device|telemetry|stats", path)]


def test_a_name_asked_for_is_seen(tmp_path):
    """This tests the measurement itself: it sees a look-up and a connection to another host."""
    code = ("import socket, contextlib\n"
            "with contextlib.suppress(OSError): socket.getaddrinfo('phone-home.invalid', 80)\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9))\n"
            "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))")
    subprocess.run([*traced(tmp_path / "log"), sys.executable, "-c", code], check=True,
                   env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1"})
    found = contacts(tmp_path / "log")
    assert ("192.0.2.1", 9) in found and any(port == 53 for _, port in found)
    assert all(port in (9, 53) for _, port in found) and ("127.0.0.1", 9) not in found
