"""Archives that lead out of their folder, hide something, lie, burst or are damaged."""
import io
import random
import stat
import struct
import zipfile
from collections import Counter

import pytest

from dataset_preparation.parsing.archives import unpack
from tests.download_inputs import pack, published, tree
from utils import InputError


def with_member(name, data=b"x", **attributes):
    """Return a dataset's archive with one more member, its attributes as given."""
    archive, member = io.BytesIO(pack(published())), zipfile.ZipInfo("placeholder")
    for key, value in {"filename": name, **attributes}.items():
        setattr(member, key, value)
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(member, data)
    return archive.getvalue()


def patched(name, **fields):
    """Return a dataset's archive in which one member's entry of the central directory is changed.

    Its format: APPNOTE.TXT, 4.3.12.
    """
    archive = bytearray(pack(published()))
    entry = archive.rindex(name.encode()) - 46
    places = {"flags": ("<H", 8), "crc": ("<L", 16), "size": ("<L", 24)}
    for field, value in fields.items():
        struct.pack_into(places[field][0], archive, entry + places[field][1], value)
    return bytes(archive)


def refuse(archive_bytes, tmp_path, error, match, max_bytes=1e9):
    """Check that an archive is not unpacked, and why, and return the names of what was written."""
    archive = tmp_path / "in/d.zip"
    archive.parent.mkdir()
    archive.write_bytes(archive_bytes)
    with pytest.raises(error, match=match):
        unpack(archive, tmp_path / "in/new", max_bytes)
    return [name for name in tree(tmp_path) if name != "in/d.zip"]


@pytest.mark.parametrize("name", [
    "../evil", "train/../../evil", "train/.. /evil", "/tmp/evil", "//evil", "C:/evil", "C:evil",
    "..\\evil", "train/a.jpg:evil", "", ".", "..", "train//evil"])
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
], ids=["symlink", "device", "bzip2", "encrypted", "other case", "file and folder",
        "other normal form"])
def test_members_that_hide_something_are_refused(tmp_path, archive, match):
    assert refuse(archive, tmp_path, InputError, f"refused.*{match}") == []


def test_an_archive_above_the_unpacked_limit_is_refused(tmp_path):
    bomb = pack({"zeros": bytes(10_000_000), "more": bytes(10_000_000)})
    assert len(bomb) < 50_000
    assert refuse(bomb, tmp_path, InputError, "MAX_UNPACKED_GB", max_bytes=19_999_999) == []
    unpack(tmp_path / "in/d.zip", tmp_path / "new", 20_000_000)
    assert (tmp_path / "new/zeros").stat().st_size == 10_000_000


@pytest.mark.parametrize("fields", [{"size": 3}, {"size": 5000}, {"crc": 7}],
                         ids=["too small", "too large", "crc"])
def test_false_headers_are_damage_and_cannot_evade_the_limit(tmp_path, fields):
    files = published()
    others = sum(len(data) for name, data in files.items() if name != "train_labels.csv")
    refuse(patched("train_labels.csv", **fields), tmp_path, zipfile.BadZipFile, "train_labels.csv",
           max_bytes=others + fields.get("size", 500))
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
