"""The cache of decoded photographs: exact pixels, also after damage, kills and on a full disk."""
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
from model import complete
from tests.conftest import ROOT, draw, jpeg
from tests.killing import small_disk
from training.image_cache import build_cache, make_header, read_resized, view_of
from utils import FileLock, InputError

# Landscape and portrait, larger and smaller than the resized side; 900 x 700 is decoded at half.
SIZES = [(300, 256), (256, 300), (900, 700), (64, 48), (256, 256)]
SHAPES = [(256, 300), (300, 256), (256, 329), (48, 64), (256, 256)]  # (H, W) when resized
BUILD = f"""import sys
sys.path.insert(0, {str(ROOT)!r})
import pandas, config
from model import complete
from training.image_cache import build_cache
s = complete(config.namespace(cache_dir=config.Path(sys.argv[1])))
assert build_cache(pandas.DataFrame({{"path": sys.argv[2:]}}), s)
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
    return complete(config.namespace(batch_size=2, num_workers=0, cache_dir=tmp_path / "cache"))


def matches_files(cache, table, s):
    """Return whether the images of a cache equal those read from the files."""
    return all(np.array_equal(cache[path], read_resized(path, view_of(s), s.max_megapixels))
               for path in table["path"])


def files(s):
    return sorted(path.name for path in s.cache_dir.iterdir() if path.name != "lock")


def test_batches_are_the_same_from_cache_and_files(table, s):
    s.trivial_augment, s.color_jitter, s.erasing = True, 0.3, 0.5
    cache = build_cache(table, s)
    assert matches_files(cache, table, s)
    assert [cache[path].shape[:2] for path in table["path"]] == SHAPES
    for build in (build_train_loader, build_eval_loader):
        for batch, other in zip(build(table, s, cache), build(table, s), strict=True):
            assert all(map(torch.equal, batch, other))


def test_a_cache_is_built_once(table, s, capsys):
    build_cache(table, s)
    assert "decoded 5 photographs" in capsys.readouterr().out
    built = (s.cache_dir / files(s)[0]).stat().st_mtime_ns
    again = build_cache(table, s)
    assert capsys.readouterr().out == ""
    assert (s.cache_dir / files(s)[0]).stat().st_mtime_ns == built
    assert matches_files(pickle.loads(pickle.dumps(again)), table, s), "as spawned workers get it"


@pytest.mark.parametrize("change", ["another photograph", "another size", "another list"])
def test_the_cache_key_covers_all_that_changes_the_pixels(table, s, change, capsys):
    build_cache(table, s)
    if change == "another photograph":
        Path(table["path"][0]).write_bytes(jpeg(draw(99, SIZES[0])))
    elif change == "another size":
        s.image_size = 256
    else:
        table = table[1:].reset_index(drop=True)
    assert matches_files(build_cache(table, s), table, s)
    assert len(files(s)) == 2 and "0.0 GB of decoded" not in capsys.readouterr().out


def test_the_layout_of_the_file(table, s):
    """Change the last byte of MAGIC together with this test, or old caches are misread."""
    build_cache(table, s)
    data = (s.cache_dir / files(s)[0]).read_bytes()
    assert data[:8] == b"frames\0\1"
    assert data[8:16].hex() == files(s)[0].removesuffix(".frames")
    assert data[40:48] == (5).to_bytes(8, "little")
    assert np.frombuffer(data[48:88], "<i4").reshape(5, 2).tolist() == [list(x) for x in SHAPES]
    first = read_resized(table["path"][0], view_of(s), s.max_megapixels)
    assert data[88:88 + first.size] == first.tobytes()
    assert len(data) == 88 + 3 * sum(height * width for height, width in SHAPES)


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1], lambda data: data + b"x", lambda data: data[:60],
    lambda data: data[:20], lambda data: b"", lambda data: bytes(len(data)),
    lambda data: data[:48] + bytes(8) + data[56:],
    lambda data: make_header("ab" * 32, len(SIZES)) + data[48:],
    lambda data: b"frames\x00\x00" + data[8:]],
    ids=["short", "long", "in the sizes", "in the header", "empty", "zeros", "no size", "foreign",
         "other layout"])
def test_a_damaged_or_foreign_cache_is_reported_and_rebuilt(table, s, capsys, damage):
    build_cache(table, s)
    file = s.cache_dir / files(s)[0]
    file.write_bytes(damage(file.read_bytes()))
    assert matches_files(build_cache(table, s), table, s)
    assert f"warning: {file}" in capsys.readouterr().err
    assert len(files(s)) == 1


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(file.read_bytes()[:5000]),
                                    lambda file: file.unlink()], ids=["5,000 bytes", " 0 bytes"])
def test_a_cache_damaged_while_in_use_stops_the_run_before_it_is_read(table, s, damage, request):
    cache = build_cache(table, s)
    batches = iter(build_train_loader(table, s, cache))
    next(batches)
    damage(s.cache_dir / files(s)[0])
    with pytest.raises(InputError, match=request.node.callspec.id):
        next(batches)
    assert matches_files(build_cache(table, s), table, s)


def test_an_unreadable_photograph_is_named_and_nothing_is_left(table, s):
    Path(table["path"][3]).write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"003\.jpg: not a picture"):
        build_cache(table, s)
    assert files(s) == []


def test_a_cache_killed_while_being_built_is_built_again(table, s, tmp_path):
    """Before each change to the file system: the lock, the temporary file, its new name."""
    (tmp_path / "build.py").write_text(BUILD)
    for number, event in enumerate(("lock", ".frames.tmp", "os.rename"), 1):
        command = [sys.executable, ROOT / "tests/killer.py", str(number), tmp_path / "build.py"]
        done = subprocess.run([*command, s.cache_dir, *table["path"]], capture_output=True,
                              text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert event in done.stderr
        assert not list(s.cache_dir.glob("*.frames"))
    assert len(files(s)) == 1
    assert matches_files(build_cache(table, s), table, s)
    assert [Path(name).suffix for name in files(s)] == [".frames"]


def test_of_two_processes_one_builds_and_both_use_it(table, s, tmp_path):
    (tmp_path / "build.py").write_text(BUILD)
    s.cache_dir.mkdir()
    command = [sys.executable, tmp_path / "build.py", s.cache_dir, *table["path"]]
    with FileLock(s.cache_dir / "lock"):
        both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        waiting = [process.stdout.readline() for process in both]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("waiting for another process" in line for line in waiting)
    assert sorted("decoded 5 photographs" in output for output in outputs) == [False, True]


@pytest.mark.parametrize("size, reason", [("300k", "No space left on device"),
                                          ("2500k", "GB needed")])
def test_a_full_disk_is_reported_and_training_continues_without(tmp_path, s, capsys, size, reason):
    """Either at once, or as the size of the first photographs predicts."""
    with small_disk(s.cache_dir, size):
        assert build_cache(write_photos(tmp_path / "photos", [(60, 40)] * 400), s) is None
        assert files(s) == []
    warning = capsys.readouterr().err
    assert reason in warning
    assert "--cache_dir" in warning


def test_no_cache_is_built_if_it_is_off_or_cannot_be_written(table, s, capsys):
    s.cache_dir = Path(table["path"][0]) / "cache"  # below a file
    assert build_cache(table, s) is None
    assert "--cache_dir" in capsys.readouterr().err
    s.cache = False
    assert build_cache(table, s) is None
    assert capsys.readouterr().err == ""
