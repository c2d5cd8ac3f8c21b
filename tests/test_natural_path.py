"""A step does not read again what an earlier one recorded, unless the photograph changed."""
import shutil
from collections import Counter

import pytest

from benchmarks.natural_path import count_accesses
from tests.conftest import NAMES, ROOT, make_collected
from tests.preparing import CLEANING, LABELING, clean, flags, label
from utils import InputError


@pytest.fixture
def folder(tmp_path):
    """A folder with 12 photographs of each of three classes, cleaned."""
    make_collected(tmp_path / "collected", count=12)
    clean(tmp_path)
    return tmp_path


def test_a_second_run_reads_tables_only(folder):
    label(folder)
    accesses = count_accesses(folder / "accesses", ROOT / LABELING, *flags(LABELING, folder))
    assert [what for what, _ in accesses] == ["sha256"]  # of cleaned.csv


def test_from_collecting_to_labelling_each_photograph_is_decoded_once(folder):
    shutil.rmtree(folder / "cleaned")
    accesses = [one for script in (CLEANING, LABELING) for one in count_accesses(
        folder / "accesses", ROOT / script, *flags(script, folder))]
    counts = Counter(what for what, _ in accesses)
    assert counts["decode"] == counts["fingerprint"] == 36
    collected = Counter(path for what, path in accesses if "/collected/" in path)
    assert set(collected.values()) == {1}
    cleaned = Counter(path for what, path in accesses if "/cleaned/" in path)
    assert set(cleaned.values()) == {1}  # copied to its published name


def test_without_the_table_of_known_files_labelling_hashes_and_decodes_nothing(folder):
    wanted = label(folder)
    shutil.rmtree(folder / "dataset")
    (folder / "cleaned/known_files.csv").unlink()
    accesses = count_accesses(folder / "accesses", ROOT / LABELING, *flags(LABELING, folder))
    assert {what for what, _ in accesses} == {"read", "sha256"}
    assert label(folder) == wanted


@pytest.mark.parametrize("side", ["cleaned", "published"])
def test_a_photograph_replaced_by_another_of_its_size_is_noticed(folder, side):
    """The new picture shows the same as one on the other side, which the leak check must find."""
    rows = label(folder)
    of_class = [path for path in rows if NAMES[0] in path]
    train, test = (next(path for path in of_class if path.startswith(one))
                   for one in ("train", "test"))
    shown = (folder / "dataset" / test).read_bytes()
    victim = folder / "dataset" / train
    if side == "cleaned":
        victim = folder / f"cleaned/images/{NAMES[0]}/{rows[train]['sha256'][:16]}.jpg"
    good = victim.read_bytes()
    size = max(len(good), len(shown))
    victim.write_bytes(shown.ljust(size, b" "))
    known = folder / ("cleaned" if side == "cleaned" else "dataset") / "known_files.csv"
    known.write_text(known.read_text().replace(f",{len(good)},", f",{size},"))
    if side == "cleaned":
        with pytest.raises(InputError, match="changed since cleaning"):
            label(folder)
        clean(folder)
        assert victim.read_bytes() == good
        assert label(folder) == rows
    else:
        assert label(folder) == rows
        assert victim.read_bytes() == good
