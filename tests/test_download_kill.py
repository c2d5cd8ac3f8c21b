"""download_files.py killed at any moment: the same command finishes, and loses nothing."""
import hashlib
import itertools
import multiprocessing
import os
import signal
import sys
import time

import pytest

import download_files
from tests.download_inputs import pack, published, tree
from tests.download_runs import finished_tree, flags, publish, run_download, start_download
from tests.file_server import FileServer

WRITING = os.O_WRONLY | os.O_RDWR


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with FileServer() as running:
        publish(running)
        yield running


def kill_when(process, condition):
    """Send SIGKILL to a running script once the condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "the moment never came"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_download_is_resumed(server, tmp_path):
    files = {**published(), "noise.bin": hashlib.shake_256(b"n").digest(600_000)}
    server.files["/dataset.zip"] = pack(files)
    server.faults["/dataset.zip"] = [{"pace": 5000} for _ in range(3)]
    part = tmp_path / "data/dataset.zip.part"
    for size in (1, 150_000, 300_000):
        kill_when(start_download(server, tmp_path),
                  lambda size=size: part.exists() and part.stat().st_size >= size)
    run_download(server, tmp_path)
    assert tree(tmp_path) == finished_tree(files)
    assert [entry[2] for entry in server.log] == [200, 206, 206, 206, 200]


def test_a_second_process_waits_for_the_first(server, tmp_path):
    files = {**published(), "noise.bin": hashlib.shake_256(b"n").digest(300_000)}
    server.files["/dataset.zip"] = pack(files)
    server.faults["/dataset.zip"] = [{"pace": 300}]
    first = start_download(server, tmp_path)
    part = tmp_path / "data/dataset.zip.part"
    while not part.exists():
        time.sleep(0.01)
    out, _ = run_download(server, tmp_path)
    assert "waiting for another process that downloads" in out
    assert first.wait(60) == 0
    assert tree(tmp_path) == finished_tree(files)
    assert [entry[0] for entry in server.log].count("/dataset.zip") == 1


def test_a_killed_unpacking_is_completed(server, tmp_path):
    files = published(1500)
    server.files["/dataset.zip"] = pack(files)
    table = tmp_path / "data/dataset.unpacking/train_labels.csv"
    kill_when(start_download(server, tmp_path), table.exists)
    assert not (tmp_path / "data/dataset").exists()
    run_download(server, tmp_path)
    assert tree(tmp_path) == finished_tree(files)
    assert [entry[0] for entry in server.log] == ["/dataset.zip", "/model.zip"], "downloaded twice"


def main_killed_at(number, argv):
    """Run the script here and send SIGKILL before its `number`-th change to the file system."""
    count = itertools.count(1)

    def hook(event, arguments):
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        changing = writing or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if changing and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    download_files.main(argv)


def run_until(context, number, arguments):
    """Run the script in a process of a context until that change; return its exit code."""
    process = context.Process(target=main_killed_at, args=(number, arguments))
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("replace", [False, True])
def test_killed_before_any_file_change_the_same_command_completes(server, tmp_path, replace,
                                                              monkeypatch):
    # preloading finds nothing without it, and each start is slow
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    own = {"train_labels.csv": b"path,label\n", "test_labels.csv": b"path,label\n",
           "mine": b"precious"} if replace else {}
    new = published(3)
    server.files["/dataset.zip"] = pack(new, "dataset/")
    finished = {f"data/dataset/{name}": data for name, data in new.items()}
    number, killed = 0, True
    while killed:
        number += 1
        folder = tmp_path / str(number)
        arguments = flags(server, folder, "--checkpoint_url", "",
                          *["--replace_downloaded"] * replace)
        for name, data in own.items():
            path = folder / "data/dataset" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        killed = run_until(context, number, arguments) == -signal.SIGKILL
        assert run_until(context, 0, arguments) == 0
        left = tree(folder)
        assert {name: left.pop(name) for name in finished} == finished
        if replace:
            assert {name: left.pop(f"data/set_aside/dataset/{name}") for name in own} == own
            left = {name: data for name, data in left.items() if "/set_aside/" not in name}
        assert left == {}, f"left behind after a kill before change {number}"
    assert number > 15
