"""The cache of decoded photographs: the pixels of the files, also after damage, kills and on a full disk."""
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import config
from dataset import build_eval_loader, build_train_loader
from tests.conftest import ROOT, draw, jpeg
from training.image_cache import build_cache, make_header, read_frame
from utils import FileLock, InputError

# Upright and lying, larger and smaller than a frame, so large that it is decoded at half scale.
SIZES = [(300, 256), (256, 300), (900, 700), (64, 48), (256, 256)]
BUILD = f"""import sys
sys.path.insert(0, {str(ROOT)!r})
import pandas, config
from training.image_cache import build_cache
assert build_cache(pandas.DataFrame({{"path": sys.argv[2:]}}), config.namespace(cache_dir=config.Path(sys.argv[1])))
"""


def write_photos(folder, sizes):
    """Write one photograph of each size and return their table."""
    folder.mkdir()
    for seed, size in enumerate(sizes):
        (folder / f"{seed:03}.jpg").write_bytes(jpeg(draw(seed, size)))
    paths = sorted(map(str, folder.iterdir()))
    return pd.DataFrame({"path": paths, "label": [seed % 2 for seed in range(len(paths))]})


@pytest.fixture
def table(tmp_path):
    return write_photos(tmp_path / "photos", SIZES)


@pytest.fixture
def s(tmp_path):
    return config.namespace(image_size=224, batch_size=2, num_workers=0, cache_dir=tmp_path / "cache")


def holds(cache, table, s):
    """Return whether a cache holds what the files hold."""
    return all(np.array_equal(cache[path], read_frame(path, s.image_size, s.max_megapixels)) for path in table["path"])


def files(s):
    return sorted(path.name for path in s.cache_dir.iterdir() if path.name != "lock")


def test_batches_are_the_same_from_cache_and_files(table, s, capsys):
    s.trivial_augment, s.color_jitter, s.erasing = True, 0.3, 0.5
    cache = build_cache(table, s)
    assert holds(cache, table, s)
    assert [cache[path].shape[:2] for path in table["path"]] == [(256, 300), (300, 256), (256, 329), (48, 64),
                                                                 (256, 256)]
    for build in (build_train_loader, build_eval_loader):
        for one, other in zip(build(table, s, cache), build(table, s), strict=True):
            assert all(map(torch.equal, one, other))
    assert "decoded 5 photographs" in capsys.readouterr().out
    before = (s.cache_dir / files(s)[0]).stat().st_mtime_ns
    again = build_cache(table, s)
    assert holds(pickle.loads(pickle.dumps(again)), table, s), "as worker processes get it that are started afresh"
    assert "decoded" not in capsys.readouterr().out
    assert (s.cache_dir / files(s)[0]).stat().st_mtime_ns == before


@pytest.mark.parametrize("change", ["another photograph", "another size", "another list"])
def test_what_decides_the_pixels_decides_the_cache(table, s, change):
    build_cache(table, s)
    if change == "another photograph":
        Path(table["path"][0]).write_bytes(jpeg(draw(99, SIZES[0])))
    elif change == "another size":
        s.image_size = 256
    else:
        table = table[1:].reset_index(drop=True)
    assert holds(build_cache(table, s), table, s)
    assert len(files(s)) == 2


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-1], lambda whole: whole + b"x", lambda whole: whole[:60], lambda whole: whole[:20],
    lambda whole: b"", lambda whole: bytes(len(whole)), lambda whole: whole[:48] + bytes(8) + whole[56:],
    lambda whole: make_header("ab" * 32, len(SIZES)) + whole[48:], lambda whole: b"frames\x00\x00" + whole[8:]],
    ids=["short", "long", "in the sizes", "in the header", "empty", "zeros", "no size", "foreign", "other layout"])
def test_a_damaged_or_foreign_cache_is_told_and_made_anew(table, s, capsys, damage):
    build_cache(table, s)
    file = s.cache_dir / files(s)[0]
    file.write_bytes(damage(file.read_bytes()))
    assert holds(build_cache(table, s), table, s)
    told = capsys.readouterr().err
    assert f"warning: {file} cannot be used" in told
    assert "decoded again" in told
    assert len(files(s)) == 1


def test_a_cache_cut_short_while_in_use_stops_the_run_before_it_is_read(table, s):
    cache = build_cache(table, s)
    batches = iter(build_train_loader(table, s, cache))
    next(batches)
    file = s.cache_dir / files(s)[0]
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="5,000 bytes where .* the same command decodes the photographs again"):
        next(batches)
    assert holds(build_cache(table, s), table, s)


def test_an_unreadable_photograph_is_named_and_nothing_is_left(table, s):
    Path(table["path"][3]).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"003\.jpg: not a picture; put the photograph back"):
        build_cache(table, s)
    assert files(s) == []


def test_killed_while_building(table, s, tmp_path):
    """Before each change to the file system: the lock, the temporary file, its new name."""
    (tmp_path / "build.py").write_text(BUILD)
    for number, said in enumerate(("lock", ".frames.tmp", "os.rename"), 1):
        done = subprocess.run([sys.executable, ROOT / "tests/killer.py", str(number), tmp_path / "build.py",
                               s.cache_dir, *table["path"]], capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert said in done.stderr
        assert not list(s.cache_dir.glob("*.frames"))
    assert len(files(s)) == 1
    assert holds(build_cache(table, s), table, s)
    assert [Path(name).suffix for name in files(s)] == [".frames"]


def test_of_two_processes_one_builds_and_both_use_it(table, s, tmp_path):
    (tmp_path / "build.py").write_text(BUILD)
    s.cache_dir.mkdir()
    with FileLock(s.cache_dir / "lock"):
        both = [subprocess.Popen([sys.executable, tmp_path / "build.py", s.cache_dir, *table["path"]],
                                 stdout=subprocess.PIPE, text=True) for _ in range(2)]
        waiting = [one.stdout.readline() for one in both]
    outputs = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert all("waiting for another process" in line for line in waiting)
    assert sorted("decoded 5 photographs" in output for output in outputs) == [False, True]


@pytest.mark.parametrize("kilobytes, said", [(300, "No space left on device"), (2500, "GB needed")])
def test_a_full_disk_is_told_and_training_goes_on_without(tmp_path, s, capsys, kilobytes, said):
    """The disk is full at once, or will be, as the first photographs show."""
    s.cache_dir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", s.cache_dir]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        assert build_cache(write_photos(tmp_path / "photos", [(60, 40)] * 400), s) is None
        assert files(s) == []
    finally:
        subprocess.run(["umount", s.cache_dir], check=True)
    told = capsys.readouterr().err
    assert said in told
    assert "--cache_dir" in told


def test_no_cache_where_none_can_be_or_is_wanted(table, s, capsys):
    s.cache_dir = Path(table["path"][0]) / "cache"  # below a file
    assert build_cache(table, s) is None
    assert "decoded anew in every epoch" in capsys.readouterr().err
    s.cache = False
    assert build_cache(table, s) is None
    assert capsys.readouterr().err == ""
