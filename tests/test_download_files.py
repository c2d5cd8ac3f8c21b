"""download_files.py as a user runs it: whole ways, what stays, wrong archives, full disks, kills."""
import fcntl
import hashlib
import multiprocessing
import os
import pty
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from download_inputs import pack, published, tree
from file_server import FileServer

import config
import download_files
from download_files import find_datasets, obtain
from utils import InputError

SCRIPT = Path(download_files.__file__)
MODEL = bytes(range(256)) * 500  # any bytes: the checkpoint is not opened here


def wanted(files):
    """Return the tree that a finished run leaves."""
    return {"checkpoints/downloaded/plants_model.pth.tar": MODEL,
            **{f"data/dataset/{name}": data for name, data in files.items()}}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with FileServer() as running:
        running.files["/model.zip"] = pack({"plants_model.pth.tar": MODEL})
        running.files["/dataset.zip"] = pack(published(), "dataset/")
        yield running


def flags(server, folder, *more):
    """Return the flags that point the script at the server and at a folder."""
    return ["--dataset_url", server.url("/dataset.zip"), "--checkpoint_url", server.url("/model.zip"),
            "--dataset_dir", str(folder / "data/dataset"), "--checkpoints_dir", str(folder / "checkpoints"), *more]


def start(server, folder, *more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options):
    """Start the script as a user would."""
    return subprocess.Popen([sys.executable, SCRIPT, *flags(server, folder, *more)], text=True, cwd=folder,
                            stdout=stdout, stderr=stderr, **options)


def script(server, folder, *more, status=0, **options):
    """Run the script to its end, check its exit status and return (standard output, standard error)."""
    process = start(server, folder, *more, **options)
    out, err = process.communicate(timeout=30)
    assert process.returncode == status, out + err
    assert "Traceback" not in err and "\x1b" not in out + err
    return out, err


# ---- the whole way ----

@pytest.mark.parametrize("prefix", ["", "dataset/", "crimean plants/data/dataset/"])
def test_fetches_dataset_and_checkpoint(server, tmp_path, prefix):
    files = published()
    server.files["/dataset.zip"] = pack(files, prefix)
    server.files["/model.zip"] = pack({"plants_model.pth.tar": MODEL, "__MACOSX/._plants_model.pth.tar": b"x"}, prefix)
    out, err = script(server, tmp_path)
    assert tree(tmp_path) == wanted(files)
    assert err == ""
    lines = out.splitlines()
    assert hashlib.sha256(server.files["/dataset.zip"]).hexdigest() in out and "DATASET_SHA256" in out
    assert lines[-3].endswith("4 photographs in train, 2 in test")
    assert "python evaluate.py --checkpoint" in lines[-2] and "python train.py" in lines[-1]


def test_existing_files_stay(server, tmp_path):
    for name in ("data/dataset/train_labels.csv", "data/dataset/test_labels.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("path,label\nmine.jpg,0\n")
    before = tree(tmp_path)
    out, _ = script(server, tmp_path)
    assert "--replace_downloaded" in out and "1 photographs in train" in out
    assert [entry[0] for entry in server.log] == ["/model.zip"]
    out, _ = script(server, tmp_path)
    assert len(server.log) == 1
    assert tree(tmp_path) == {**before, "checkpoints/downloaded/plants_model.pth.tar": MODEL}


def test_replacing_moves_aside_when_the_new_one_is_ready(server, tmp_path):
    first = wanted(published())
    script(server, tmp_path)
    server.faults["/dataset.zip"] = [{"status": 404}]
    script(server, tmp_path, "--replace_downloaded", status=1)
    assert tree(tmp_path) == first
    second = published(9)
    server.files["/dataset.zip"] = pack(second)
    for number in (1, 2):
        out, _ = script(server, tmp_path, "--replace_downloaded")
        assert f"data/set_aside/dataset{'_1' * (number == 2)}" in out
    left = tree(tmp_path)
    assert {name: left[name] for name in wanted(second)} == wanted(second)
    assert {f"data/set_aside/dataset/{name}" for name in published()} <= set(left)
    assert left["checkpoints/downloaded/set_aside/plants_model.pth_1.tar"] == MODEL


def test_an_archive_put_there_by_hand_is_used_and_kept(server, tmp_path):
    files, archive = published(9), tmp_path / "data/dataset.zip"
    archive.parent.mkdir()
    archive.write_bytes(pack(files))
    out, _ = script(server, tmp_path, "--checkpoint_url", "")
    assert server.log == []
    assert tree(tmp_path) == {"data/dataset.zip": pack(files), **{f"data/dataset/{n}": d for n, d in files.items()}}
    assert "CHECKPOINT_URL is empty" in out and "evaluate.py" not in out


def test_a_bar_in_bytes_on_a_terminal(server, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    process = start(server, tmp_path, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # Linux's sign that the other end is closed
            break
    assert process.wait() == 0
    assert b"dataset.zip" in shown and b"B/s" in shown


def test_a_wrong_sum_unpacks_nothing(server, tmp_path):
    digest = hashlib.sha256(server.files["/dataset.zip"]).hexdigest()
    for name in ("dataset.zip", "dataset_1.zip"):
        _, err = script(server, tmp_path, "--dataset_sha256", "0" * 64, status=1)
        assert digest in err and "0" * 64 in err and f"data/set_aside/{name}" in err
    aside = tmp_path / "data/set_aside/dataset.zip"
    assert set(tree(tmp_path)) == {"data/set_aside/dataset.zip", "data/set_aside/dataset_1.zip"}
    assert aside.read_bytes() == server.files["/dataset.zip"]
    aside.rename(tmp_path / "data/dataset.zip")
    out, _ = script(server, tmp_path, "--dataset_sha256", digest.upper())
    assert f"SHA-256 {digest} as expected" in out
    assert (tmp_path / "data/dataset.zip").exists(), "what the user put there was removed"
    assert [entry[0] for entry in server.log] == ["/dataset.zip", "/dataset.zip", "/model.zip"]


def obtain_dataset(server, folder, path="/dataset.zip"):
    """Do what the script does for the dataset."""
    s = config.namespace(download_timeout=5.0, download_attempts=1)
    obtain("DATASET", server.url(path), "", folder / "dataset", find_datasets, s)


def test_a_damaged_archive_is_set_aside_and_downloaded_again(server, tmp_path):
    damaged = bytearray(server.files["/dataset.zip"])
    damaged[200] ^= 1
    server.files["/dataset.zip"], good = bytes(damaged), server.files["/dataset.zip"]
    with pytest.raises(InputError, match="damaged.*set_aside/dataset.zip"):
        obtain_dataset(server, tmp_path)
    assert tree(tmp_path) == {"set_aside/dataset.zip": damaged}
    server.files["/dataset.zip"] = good
    obtain_dataset(server, tmp_path)
    assert tree(tmp_path / "dataset") == published()


@pytest.mark.parametrize("files, count", [
    ({"train_labels.csv": b"path,label\n"}, 0),
    ({"a/train_labels.csv": b"", "a/test_labels.csv": b"", "b/train_labels.csv": b"", "b/test_labels.csv": b""}, 2)])
def test_an_archive_of_something_else(server, tmp_path, files, count):
    server.files["/dataset.zip"] = pack(files)
    with pytest.raises(InputError, match=f"holds {count} datasets.*DATASET_URL"):
        obtain_dataset(server, tmp_path)
    assert set(tree(tmp_path)) == {"dataset.zip", "dataset.zip.json"}
    (tmp_path / "dataset.zip").write_bytes(pack(published()))  # the right one, saved by hand in its place
    for path in ("/dataset.zip", "/another.zip"):
        obtain_dataset(server, tmp_path, path)
        assert tree(tmp_path / "dataset") == published() and (tmp_path / "dataset.zip").exists()
        shutil.rmtree(tmp_path / "dataset")


# ---- disks and kills ----

def test_a_disk_that_fills_up(server, tmp_path):
    """The limit on the size of files (EFBIG) takes the way that a full disk (ENOSPC) takes."""
    server.files["/dataset.zip"] = pack({**published(), "noise.bin": hashlib.shake_256(b"n").digest(300_000)})

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, err = script(server, tmp_path, status=1, preexec_fn=limit)
    assert "dataset.zip.part" in err and "make room" in err
    assert len((tmp_path / "data/dataset.zip.part").read_bytes()) == 100_000
    script(server, tmp_path)
    assert [entry[1] for entry in server.log[:2]] == [None, "bytes=100000-"]
    assert {**wanted(published()), "data/dataset/noise.bin": hashlib.shake_256(b"n").digest(300_000)} == tree(tmp_path)


def test_a_disk_that_fills_up_while_unpacking(server, tmp_path):
    files = {**published(), "zeros.bin": bytes(3_000_000)}
    server.files["/dataset.zip"] = pack(files)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    _, err = script(server, tmp_path, status=1, preexec_fn=limit)
    assert "cannot unpack" in err and "dataset.zip" in err and "make room" in err
    assert set(tree(tmp_path)) == {"data/dataset.zip", "data/dataset.zip.json"}
    script(server, tmp_path)
    assert tree(tmp_path) == wanted(files) and len(server.log) == 2


def kill_when(process, condition):
    """Send SIGKILL to a running script once the condition holds."""
    deadline = time.monotonic() + 15
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "the moment never came"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_while_downloading_goes_on(server, tmp_path):
    files = {**published(), "noise.bin": hashlib.shake_256(b"n").digest(600_000)}
    server.files["/dataset.zip"] = pack(files)
    server.faults["/dataset.zip"] = [{"pace": 5000} for _ in range(3)]
    part = tmp_path / "data/dataset.zip.part"
    for size in (1, 150_000, 300_000):
        kill_when(start(server, tmp_path), lambda: part.exists() and part.stat().st_size >= size)  # noqa: B023
    script(server, tmp_path)
    assert tree(tmp_path) == wanted(files)
    assert [entry[2] for entry in server.log] == [200, 206, 206, 206, 200]


def test_killed_while_unpacking_finishes(server, tmp_path):
    files = published(1500)
    server.files["/dataset.zip"] = pack(files)
    kill_when(start(server, tmp_path), lambda: (tmp_path / "data/dataset.unpacking/train_labels.csv").exists())
    assert not (tmp_path / "data/dataset").exists()
    script(server, tmp_path)
    assert tree(tmp_path) == wanted(files)
    assert [entry[0] for entry in server.log] == ["/dataset.zip", "/model.zip"], "downloaded twice"


def main_killed_at(event, argv):
    """Run the script's main() in this process and send it SIGKILL just before its n-th change to the file system."""
    changes = 0

    def hook(name, arguments):
        nonlocal changes
        writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            changes += 1
            if changes == event:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    download_files.main(argv)


@pytest.mark.parametrize("replace", [False, True])
def test_killed_before_any_change_to_the_file_system_finishes(server, tmp_path, replace, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # or preloading finds nothing and each start is slow
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    mine = {"train_labels.csv": b"path,label\n", "test_labels.csv": b"path,label\n", "mine": b"precious"}
    new = published(3)
    server.files["/dataset.zip"] = pack(new, "dataset/")

    def run_until(event, folder):
        arguments = flags(server, folder, "--checkpoint_url", "", *["--replace_downloaded"] * replace)
        process = context.Process(target=main_killed_at, args=(event, arguments))
        process.start()
        process.join(20)
        return process.exitcode
    finished = {f"data/dataset/{name}": data for name, data in new.items()}
    event, killed = 0, True
    while killed:
        event += 1
        folder = tmp_path / str(event)
        for name, data in mine.items() if replace else ():
            path = folder / "data/dataset" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        killed = run_until(event, folder) == -signal.SIGKILL
        assert run_until(0, folder) == 0
        left = tree(folder)
        assert {name: left.pop(name) for name in finished} == finished
        if replace:
            assert {name: left.pop(f"data/set_aside/dataset/{name}") for name in mine} == mine
            left = {name: data for name, data in left.items() if "/set_aside/" not in name}
        assert left == {}, f"left behind after a kill before change {event}"
    assert event > 15
