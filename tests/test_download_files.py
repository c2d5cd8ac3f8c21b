"""download_files.py as a user runs it: what arrives, what stays, wrong archives, full disks."""
import fcntl
import hashlib
import io
import os
import pty
import resource
import shlex
import shutil
import struct
import subprocess
import termios
import unicodedata
import zipfile

import pytest

import config
from dataset_preparation.parsing.safe_download import Limits, trusting_web
from download_files import build_published, obtain
from tests.download_inputs import pack, published, tree
from tests.download_runs import MODEL, finished_tree, publish, run_download, start_download
from tests.file_server import FileServer
from utils import InputError


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with FileServer() as running:
        publish(running)
        yield running


# ---- what arrives, what stays ----

@pytest.mark.parametrize("prefix", ["", "dataset/", "crimean plants/data/dataset/"])
def test_dataset_and_checkpoint_are_downloaded_and_unpacked(server, tmp_path, prefix):
    files = published()
    server.files["/dataset.zip"] = pack(files, prefix)
    server.files["/model.zip"] = pack(
        {"plants_model.pth.tar": MODEL, "__MACOSX/._plants_model.pth.tar": b"x"}, prefix)
    out, err = run_download(server, tmp_path)
    assert tree(tmp_path) == finished_tree(files)
    assert err == ""
    lines = out.splitlines()
    assert hashlib.sha256(server.files["/dataset.zip"]).hexdigest() in out
    assert "DATASET_SHA256" in out
    assert lines[-3].endswith("4 photographs in train, 2 in test")
    evaluate, train = (shlex.split(line.removeprefix("next: ")) for line in lines[-2:])
    assert (evaluate[1], train[1]) == (f"{config.ROOT}/evaluate.py", f"{config.ROOT}/train.py")
    assert (tmp_path / evaluate[evaluate.index("--checkpoint") + 1]).is_file()


def test_existing_files_are_kept_and_not_downloaded_again(server, tmp_path):
    for name in ("data/dataset/train_labels.csv", "data/dataset/test_labels.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("path,label\nmine.jpg,0\n")
    before = tree(tmp_path)
    out, _ = run_download(server, tmp_path)
    assert "--replace_downloaded" in out and "1 photographs in train" in out
    assert [entry[0] for entry in server.log] == ["/model.zip"]
    out, _ = run_download(server, tmp_path)
    assert len(server.log) == 1
    assert tree(tmp_path) == {**before, "checkpoints/downloaded/plants_model.pth.tar": MODEL}


def test_replacing_moves_aside_when_the_new_one_is_ready(server, tmp_path):
    first = finished_tree(published())
    run_download(server, tmp_path)
    server.faults["/dataset.zip"] = [{"status": 404}]
    run_download(server, tmp_path, "--replace_downloaded", status=1)
    assert tree(tmp_path) == first
    second = published(9)
    server.files["/dataset.zip"] = pack(second)
    for number in (1, 2):
        out, _ = run_download(server, tmp_path, "--replace_downloaded")
        assert f"data/set_aside/dataset{'_1' * (number == 2)}" in out
    left = tree(tmp_path)
    assert {name: left[name] for name in finished_tree(second)} == finished_tree(second)
    assert {f"data/set_aside/dataset/{name}" for name in published()} <= set(left)
    assert left["checkpoints/downloaded/set_aside/plants_model.pth_1.tar"] == MODEL


def test_an_archive_put_there_by_hand_is_used_and_kept(server, tmp_path):
    files, archive = published(9), tmp_path / "data/dataset.zip"
    archive.parent.mkdir()
    archive.write_bytes(pack(files))
    out, _ = run_download(server, tmp_path, "--checkpoint_url", "")
    assert server.log == []
    assert tree(tmp_path) == {"data/dataset.zip": pack(files),
                              **{f"data/dataset/{name}": data for name, data in files.items()}}
    assert "CHECKPOINT_URL is empty" in out and "evaluate.py" not in out


def test_a_terminal_shows_a_progress_bar_in_bytes(server, tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    process = start_download(server, tmp_path, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # Linux's sign that the other end is closed
            break
    assert process.wait() == 0
    assert b"dataset.zip" in shown and b"B/s" in shown


def test_an_archive_with_a_wrong_sha256_is_not_unpacked(server, tmp_path):
    digest = hashlib.sha256(server.files["/dataset.zip"]).hexdigest()
    for name in ("dataset.zip", "dataset_1.zip"):
        _, err = run_download(server, tmp_path, "--dataset_sha256", "0" * 64, status=1)
        assert digest in err and "0" * 64 in err and f"data/set_aside/{name}" in err
    aside = tmp_path / "data/set_aside/dataset.zip"
    assert set(tree(tmp_path)) == {"data/set_aside/dataset.zip", "data/set_aside/dataset_1.zip"}
    assert aside.read_bytes() == server.files["/dataset.zip"]
    aside.rename(tmp_path / "data/dataset.zip")
    out, _ = run_download(server, tmp_path, "--dataset_sha256", digest.upper())
    assert f"SHA-256 {digest} as expected" in out
    assert (tmp_path / "data/dataset.zip").exists(), "what the user put there was removed"
    assert [entry[0] for entry in server.log] == ["/dataset.zip", "/dataset.zip", "/model.zip"]


def test_an_invalid_sha256_stops_the_script_before_the_download(server, tmp_path):
    _, err = run_download(server, tmp_path, "--dataset_sha256", "abc", status=2)
    assert "dataset_sha256" in err
    assert server.log == []


def obtain_dataset(server, folder, path="/dataset.zip"):
    """Do what the script does for the dataset."""
    dataset, _ = build_published(config.namespace(
        dataset_url=server.url(path), dataset_sha256="", dataset_dir=folder / "dataset"))
    obtain(dataset, trusting_web(Limits(5, 5)), attempts=1, max_bytes=1e9, replace=False)


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
    ({f"{folder}/{side}_labels.csv": b"" for folder in "ab" for side in ("train", "test")}, 2)])
def test_an_archive_without_one_dataset_is_refused_until_it_is_replaced(
        server, tmp_path, files, count):
    server.files["/dataset.zip"] = pack(files)
    with pytest.raises(InputError, match=f"contains {count} datasets.*DATASET_URL"):
        obtain_dataset(server, tmp_path)
    assert set(tree(tmp_path)) == {"dataset.zip", "dataset.zip.json"}
    # the right one, saved by hand in its place
    (tmp_path / "dataset.zip").write_bytes(pack(published()))
    for path in ("/dataset.zip", "/another.zip"):
        obtain_dataset(server, tmp_path, path)
        assert tree(tmp_path / "dataset") == published() and (tmp_path / "dataset.zip").exists()
        shutil.rmtree(tmp_path / "dataset")


CYRILLIC = {name.replace("Adonis vernalis", "Роза майская"):
            data.replace(b"Adonis vernalis", "Роза майская".encode())
            for name, data in published().items()}


def stored_as(encoding, slash="/"):
    """Return the archive of a dataset whose names are stored in an encoding without its mark."""
    class Unmarked(zipfile.ZipInfo):
        def _encodeFilenameFlags(self):
            return self.filename.encode("cp437"), 0
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in CYRILLIC.items():
            name = unicodedata.normalize("NFD", name) if encoding == "utf-8 of macOS" else name
            stored = name.replace("/", slash).encode(encoding.split()[0])
            packed.writestr(Unmarked(stored.decode("cp437")), data)
    return archive.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "cp866", "cp1251", "utf-8 of macOS"])
def test_names_stored_without_their_encoding_are_read_as_the_tables_have_them(
        server, tmp_path, encoding):
    server.files["/dataset.zip"] = stored_as(encoding, "\\" if encoding == "cp866" else "/")
    obtain_dataset(server, tmp_path)
    assert tree(tmp_path / "dataset") == CYRILLIC


def test_an_archive_whose_tables_name_no_photograph_is_kept_and_refused(server, tmp_path):
    server.files["/dataset.zip"] = pack({
        name: data for name, data in published().items() if "vernalis_train_1" not in name})
    with pytest.raises(InputError, match="lacks 1 photographs .*first train/Adonis vernalis/"
                                         "adonis_vernalis_train_1.jpg; it is kept"):
        obtain_dataset(server, tmp_path)
    assert set(tree(tmp_path)) == {"dataset.zip", "dataset.zip.json"}


@pytest.mark.parametrize("path", ["../private/photo.jpg", "/etc/hostname", "..\\private\\a.jpg",
                                  "train/../../a.jpg"])
def test_a_dataset_that_lists_a_file_outside_it_is_not_used(path, server, tmp_path):
    files = published()
    files["train_labels.csv"] += f"{path},0\n".encode()
    server.files["/dataset.zip"] = pack(files)
    with pytest.raises(InputError, match="lies outside it; it is not used"):
        obtain_dataset(server, tmp_path)
    assert set(tree(tmp_path)) == {"dataset.zip", "dataset.zip.json"}


# ---- disks ----

def test_only_a_full_disk_gets_the_advice_to_make_room(server, tmp_path):
    files = published()
    files["train/" + "x" * 300] = b""
    server.files["/dataset.zip"] = pack(files)
    with pytest.raises(InputError, match="File name too long") as raised:
        obtain_dataset(server, tmp_path)
    assert "free" not in str(raised.value) and "same command" in str(raised.value)


def test_a_download_that_fills_the_disk_is_reported_and_resumed(server, tmp_path):
    """A limit on file size (EFBIG) stands for a full disk (ENOSPC): both take the same branch."""
    files = {**published(), "noise.bin": hashlib.shake_256(b"n").digest(300_000)}
    server.files["/dataset.zip"] = pack(files)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    _, err = run_download(server, tmp_path, status=1, preexec_fn=limit)
    assert "dataset.zip.part" in err and "same command" in err
    assert len((tmp_path / "data/dataset.zip.part").read_bytes()) == 100_000
    run_download(server, tmp_path)
    assert [entry[1] for entry in server.log[:2]] == [None, "bytes=100000-"]
    assert tree(tmp_path) == finished_tree(files)


def test_unpacking_that_fills_the_disk_is_reported_and_resumed(server, tmp_path):
    files = {**published(), "zeros.bin": bytes(3_000_000)}
    server.files["/dataset.zip"] = pack(files)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    _, err = run_download(server, tmp_path, status=1, preexec_fn=limit)
    assert "cannot unpack" in err and "dataset.zip" in err and "same command" in err
    assert set(tree(tmp_path)) == {"data/dataset.zip", "data/dataset.zip.json"}
    run_download(server, tmp_path)
    assert tree(tmp_path) == finished_tree(files) and len(server.log) == 2
