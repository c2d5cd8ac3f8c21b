"""download_files.py against a real HTTP server: whole ways, broken connections, false answers, evil archives, kills."""
import fcntl
import gzip
import hashlib
import io
import multiprocessing
import os
import pty
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from file_server import FileServer
from PIL import Image

import download_files
from download_files import fetch, find_datasets, obtain, unpack
from utils import InputError

SCRIPT = Path(download_files.__file__)
MODEL = bytes(range(256)) * 500  # any bytes: the checkpoint is not opened here


def photograph(number):
    """Return the bytes of a small JPEG, another one for every number."""
    file = io.BytesIO()
    Image.new("RGB", (48, 48), (number % 256, number // 256, 90)).save(file, "JPEG")
    return file.getvalue()


def published(photographs=6):
    """Return {path: bytes} of a dataset as published: pictures and tables of `path,label`, one test per two train."""
    files = {}
    for side, count in (("train", photographs * 2 // 3), ("test", photographs // 3)):
        names = [f"{side}/Adonis vernalis/adonis_vernalis_{side}_{n}.jpg" for n in range(count)]
        files.update({name: photograph(n) for n, name in enumerate(names)})
        files[f"{side}_labels.csv"] = "".join(["path,label\n", *(f"{name},2\n" for name in names)]).encode()
    return files


def pack(files, prefix=""):
    """Return a zip archive of {path: bytes}."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(prefix + name), data, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def tree(folder):
    """Return {relative path: bytes} of all files below a folder, None for an empty folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*")) if path.is_file() or not any(path.iterdir())}


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
        assert f"dataset.before-{number}" in out
    left = tree(tmp_path)
    assert {name: left[name] for name in wanted(second)} == wanted(second)
    assert {f"data/dataset.before-1/{name}" for name in published()} <= set(left)
    assert left["checkpoints/downloaded/plants_model.pth.tar.before-2"] == MODEL


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


# ---- connections that break ----

def bulk(size=400_000):
    """Return a zip archive of about so many bytes."""
    return pack({"noise.bin": hashlib.shake_256(b"plants").digest(size)})


@pytest.mark.parametrize("validators", [("ETag",), ("Last-Modified",)])
def test_goes_on_where_it_broke(server, tmp_path, validators, capsys):
    server.validators = validators
    server.files["/b.zip"] = bulk()
    server.faults["/b.zip"] = [{"break_after": 150_001}]
    digest = fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == bulk() and digest == hashlib.sha256(bulk()).hexdigest()
    assert [entry[2] for entry in server.log] == [200, 206]
    assert sum(entry[3] for entry in server.log) < len(bulk()) + download_files.CHUNK, "much was sent twice"
    assert "attempt 2 of 5" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["other file", "shorter file", "no validator", "weak validator", "range ignored",
                                    "wrong part"])
def test_starts_over_where_going_on_is_not_safe(server, tmp_path, change):
    server.files["/b.zip"] = old = bulk()
    server.validators = {"no validator": (), "weak validator": ("weak",)}.get(change, server.validators)
    server.faults["/b.zip"] = [{"break_after": 150_000}]
    with pytest.raises(InputError, match="same command"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    begun = (tmp_path / "b.zip.part").read_bytes()
    assert old.startswith(begun) and len(begun) > 150_000 - download_files.CHUNK
    if change == "other file":
        server.files["/b.zip"] = pack({"other.bin": os.urandom(400_000)})
    elif change == "shorter file":
        server.files["/b.zip"] = pack({"other.bin": os.urandom(1000)})
    elif change == "range ignored":
        server.faults["/b.zip"] = [{"whole": True}]
    elif change == "wrong part":
        server.faults["/b.zip"] = [{"shift": 10}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    assert (tmp_path / "b.zip").read_bytes() == server.files["/b.zip"]
    assert (server.log[1][1] is None) == change.endswith("validator")


def test_goes_on_where_the_size_was_never_told(server, tmp_path):
    server.files["/b.zip"] = bulk()
    server.faults["/b.zip"] = [{"chunked": True, "break_after": 150_000}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    assert [entry[2] for entry in server.log] == [200, 206]
    assert (tmp_path / "b.zip").read_bytes() == bulk()


def test_a_body_compressed_against_our_wish(server, tmp_path):
    server.faults["/b.zip"] = [{"status": 200, "body": gzip.compress(bulk()), "headers": {"Content-Encoding": "gzip"}}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=1)
    assert (tmp_path / "b.zip").read_bytes() == bulk()


def test_a_range_beyond_the_end_starts_over(server, tmp_path):
    size = 10 * download_files.CHUNK
    server.files["/b.zip"] = bulk().ljust(size, b"x")[:size]
    server.faults["/b.zip"] = [{"declare": size + 5}]
    fetch(server.url("/b.zip"), tmp_path / "b.zip", attempts=2)
    assert [entry[2] for entry in server.log] == [200, 416, 200]
    assert (tmp_path / "b.zip").read_bytes() == server.files["/b.zip"]


def test_another_address_starts_over(server, tmp_path):
    server.files.update({"/a.zip": pack({"a": os.urandom(300_000)}), "/b.zip": bulk()})
    server.faults["/a.zip"] = [{"break_after": 150_000}]
    with pytest.raises(InputError):
        fetch(server.url("/a.zip"), tmp_path / "b.zip", attempts=1)
    for path in ("/b.zip", "/a.zip"):  # the second time over a finished download of the first
        fetch(server.url(path), tmp_path / "b.zip", attempts=1)
        assert (tmp_path / "b.zip").read_bytes() == server.files[path]


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429, "headers": {"Retry-After": "2"}},
                                   {"stall_after": 100_000}, {"stall_after": 0}, {"break_after": 0}], ids=str)
def test_what_may_pass_is_tried_again(server, tmp_path, fault, capsys):
    server.files["/b.zip"] = bulk()
    server.faults["/b.zip"] = [fault]
    began = time.monotonic()
    fetch(server.url("/b.zip"), tmp_path / "b.zip", timeout=0.3)
    assert (tmp_path / "b.zip").read_bytes() == bulk()
    assert 0.9 < time.monotonic() - began < 4
    told = capsys.readouterr().err
    assert "attempt 2 of 5 in " + ("2 s" if fault.get("status") == 429 else "1 s") in told
    assert "nothing came for 0.3 s" in told if "stall_after" in fault else "Pool" not in told


def test_gives_up_with_the_reason(server, tmp_path):
    server.faults["/dataset.zip"] = [{"status": 502}] * 2
    _, err = script(server, tmp_path, "--download_attempts", "2", status=1)
    assert "502" in err and "2 of 2 attempts" in err
    server.faults["/dataset.zip"] = [{"status": 429, "headers": {"Retry-After": "86400"}}]
    _, err = script(server, tmp_path, status=1)
    assert "Retry-After: 86400" in err and len(server.log) == 3


def test_nobody_listens(server, tmp_path):
    url = server.url("/dataset.zip")
    server.__exit__()
    with pytest.raises(InputError, match="refused.*1 of 1 attempts"):
        fetch(url, tmp_path / "b.zip", attempts=1)


# ---- answers that are not the file ----

@pytest.mark.parametrize("fault, told", [
    ({"status": 404}, "answered 404"),
    ({"status": 403}, "answered 403"),
    ({"status": 200, "body": b"\n<!DOCTYPE html><title>Sign in</title>"}, "web page"),
    ({"status": 200, "body": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}, "Git LFS"),
    ({"status": 200, "body": b""}, "sent nothing"),
    ({"status": 206, "body": b"PK\x03\x04"}, "answered 206"),
    ({"status": 302, "headers": {"Location": "file:///etc/passwd"}}, "file:///etc/passwd"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_the_file_is_said_at_once(server, tmp_path, fault, told):
    server.faults["/dataset.zip"] = [fault]
    with pytest.raises(InputError) as error:
        fetch(server.url("/dataset.zip"), tmp_path / "d.zip")
    for words in (told, server.url("/dataset.zip"), "config.py", str(tmp_path / "d.zip")):
        assert words in str(error.value)
    assert len(server.log) == 1 and tree(tmp_path) == {}


@pytest.mark.parametrize("url", ["", "dataset.zip", "ftp://127.0.0.1/x.zip", "file:///etc/passwd", "http://", "http://[",
                                 "https://127.0.0.1:99999/x.zip"])
def test_addresses_that_are_none(tmp_path, url):
    with pytest.raises(InputError, match="config.py"):
        fetch(url, tmp_path / "d.zip")
    assert tree(tmp_path) == {}


# ---- checksums ----

def test_a_wrong_sum_unpacks_nothing(server, tmp_path):
    digest = hashlib.sha256(server.files["/dataset.zip"]).hexdigest()
    for number in (1, 2):
        _, err = script(server, tmp_path, "--dataset_sha256", "0" * 64, status=1)
        assert digest in err and "0" * 64 in err and f"dataset.zip.wrong-sha256-{number}" in err
    aside = tmp_path / "data/dataset.zip.wrong-sha256-1"
    assert {path.name for path in aside.parent.iterdir()} == {aside.name, aside.name.replace("-1", "-2")}
    assert aside.read_bytes() == server.files["/dataset.zip"]
    aside.rename(tmp_path / "data/dataset.zip")
    out, _ = script(server, tmp_path, "--dataset_sha256", digest.upper())
    assert f"SHA-256 {digest} as expected" in out
    assert (tmp_path / "data/dataset.zip").exists(), "what the user put there was removed"
    assert [entry[0] for entry in server.log] == ["/dataset.zip", "/dataset.zip", "/model.zip"]


def test_a_sum_that_is_none_stops_before_the_download(server, tmp_path):
    with pytest.raises(InputError, match="64 hex digits"):
        fetch(server.url("/dataset.zip"), tmp_path / "d.zip", "abc")
    assert server.log == []


# ---- archives ----

def with_member(name, data=b"x", **attributes):
    """Return a dataset's archive with one more member, its attributes as given."""
    archive, member = io.BytesIO(pack(published())), zipfile.ZipInfo("placeholder")
    for key, value in {"filename": name, **attributes}.items():
        setattr(member, key, value)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(member, data)
    return archive.getvalue()


def patched(name, **fields):
    """Return a dataset's archive with fields of one member's central directory entry replaced (APPNOTE.TXT, 4.3.12)."""
    archive = bytearray(pack(published()))
    entry = archive.rindex(name.encode()) - 46
    places = {"flags": ("<H", 8), "crc": ("<L", 16), "size": ("<L", 24)}
    for field, value in fields.items():
        struct.pack_into(places[field][0], archive, entry + places[field][1], value)
    return bytes(archive)


def refuse(archive_bytes, tmp_path, error, match, max_bytes=1e9):
    """Check that an archive is not unpacked, and that it is all there is afterwards."""
    archive = tmp_path / "in/d.zip"
    archive.parent.mkdir()
    archive.write_bytes(archive_bytes)
    with pytest.raises(error, match=match):
        unpack(archive, tmp_path / "in/new", max_bytes)
    return [name for name in tree(tmp_path) if name != "in/d.zip"]


@pytest.mark.parametrize("name", ["../evil", "train/../../evil", "train/.. /evil", "/tmp/evil", "//evil", "C:/evil",
                                  "C:evil", "..\\evil", "train/a.jpg:evil", "", ".", "..", "train//evil"])
def test_members_that_lead_out_are_refused(tmp_path, name):
    assert refuse(with_member(name), tmp_path, InputError, "refused.*leads out") == []


@pytest.mark.parametrize("archive, match", [
    (with_member("evil", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16), "link"),
    (with_member("evil", external_attr=(stat.S_IFCHR | 0o666) << 16), "device"),
    (with_member("evil", compress_type=zipfile.ZIP_BZIP2), "deflate"),
    (patched("train_labels.csv", flags=1), "encrypted"),
    (with_member("Train_Labels.CSV"), "twice"),
    (with_member("train_labels.csv/"), "twice"),
    (pack({"caf\u00e9.jpg": b"1", "cafe\u0301.jpg": b"2"}), "twice"),
], ids=["symlink", "device", "bzip2", "encrypted", "other case", "file and folder", "other normal form"])
def test_members_that_hide_something_are_refused(tmp_path, archive, match):
    assert refuse(archive, tmp_path, InputError, f"refused.*{match}") == []


def test_the_limit_on_what_is_unpacked(tmp_path):
    bomb = pack({"zeros": bytes(10_000_000), "more": bytes(10_000_000)})
    assert len(bomb) < 50_000
    assert refuse(bomb, tmp_path, InputError, "MAX_UNPACKED_GB", max_bytes=19_999_999) == []
    unpack(tmp_path / "in/d.zip", tmp_path / "new", 20_000_000)
    assert (tmp_path / "new/zeros").stat().st_size == 10_000_000


@pytest.mark.parametrize("fields", [{"size": 3}, {"size": 5000}, {"crc": 7}], ids=["too small", "too large", "crc"])
def test_headers_that_lie_are_damage_and_no_way_round_the_limit(tmp_path, fields):
    files = published()
    stated = sum(map(len, files.values())) - len(files["train_labels.csv"]) + fields.get("size", 500)
    refuse(patched("train_labels.csv", **fields), tmp_path, zipfile.BadZipFile, "train_labels.csv", max_bytes=stated)
    assert (tmp_path / "in/new/train_labels.csv").stat().st_size <= fields.get("size", 500)


def test_random_damage_is_noticed(tmp_path):
    good, rng, outcomes = pack(published(3)), random.Random(0), Counter()
    for number in range(300):
        data = bytearray(good)
        if number % 3:
            for _ in range(rng.choice((1, 3, 30))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        else:
            del data[rng.randrange(len(data)):]
        (tmp_path / "d.zip").write_bytes(data)
        try:
            unpack(tmp_path / "d.zip", tmp_path / f"new{number}", 1e9)
        except (InputError, zipfile.BadZipFile) as error:
            outcomes[type(error)] += 1
        else:
            outcomes["unpacked"] += 1
            assert set(tree(tmp_path / f"new{number}").values()) <= set(published(3).values())
    assert outcomes[zipfile.BadZipFile] > 200 and outcomes["unpacked"] < 30


def obtain_dataset(server, folder):
    """Do what the script does for the dataset."""
    obtain("DATASET", server.url("/dataset.zip"), "", folder / "dataset", find_datasets, timeout=5, attempts=1,
           max_bytes=1e9, replace=False)


def test_a_damaged_archive_is_set_aside_and_downloaded_again(server, tmp_path):
    damaged = bytearray(server.files["/dataset.zip"])
    damaged[200] ^= 1
    server.files["/dataset.zip"], good = bytes(damaged), server.files["/dataset.zip"]
    with pytest.raises(InputError, match="damaged.*dataset.zip.damaged-1"):
        obtain_dataset(server, tmp_path)
    assert tree(tmp_path) == {"dataset.zip.damaged-1": damaged}
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


# ---- disks and kills ----

def test_a_disk_that_is_too_small_by_what_the_server_says(server, tmp_path):
    server.files["/b.zip"] = bulk()
    server.faults["/b.zip"] = [{"declare": 10 ** 16}]
    with pytest.raises(InputError, match="10,000,000,000,000,000 more bytes.*make room"):
        fetch(server.url("/b.zip"), tmp_path / "b.zip")
    fetch(server.url("/b.zip"), tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == bulk()


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
            assert {name: left.pop(f"data/dataset.before-1/{name}") for name in mine} == mine
            left = {name: data for name, data in left.items() if ".before-" not in name}
        assert left == {}, f"left behind after a kill before change {event}"
    assert event > 15
