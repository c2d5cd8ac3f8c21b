"""Real photographs that are one photograph, found by another method than ours and judged by eye."""
import random
import shutil

import pytest
from PIL import Image

from benchmarks.planted_copies import EDITS, save
from tests.conftest import shared, write_classes
from tests.preparing import clean, label, write_large
from utils import read_table

pytestmark = pytest.mark.photos


@pytest.fixture
def flowers(tmp_path):
    """All photographs of the listed pairs, and eight others of each kind; cleaned."""
    photos = shared("photos/flowers")
    pairs = [[f"{row[f'class_{one}']}/{row[f'file_{one}']}" for one in "ab"]
             for row in read_table(shared("photos/flowers_same_photograph.csv"))]
    listed = {file for pair in pairs for file in pair}
    names = sorted(path.name for path in photos.iterdir())
    others = [path.relative_to(photos).as_posix() for name in names
              for path in sorted((photos / name).iterdir())[::7][:8]]
    for file in {*listed, *others}:
        target = tmp_path / "collected/images" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos / file, target)
    write_classes(tmp_path / "classes.csv", names)
    return tmp_path, pairs, clean(tmp_path)


def test_no_pair_of_one_photograph_crosses_and_none_is_removed_for_another(flowers):
    folder, pairs, rows = flowers
    sha = {file: row["sha256"] for file, row in rows.items()}
    linked = {frozenset((row["first"], row["second"]))
              for row in read_table(folder / "cleaned/pairs.csv")}
    same = {frozenset((sha[a], sha[b])) for a, b in pairs}
    assert same <= linked | {one for one in same if len(one) == 1}
    # Two photographs of one plant, seen moments apart, may be linked; no more than that.
    assert len(linked - same) <= 6
    for file, row in rows.items():
        if row["status"] == "duplicate":
            assert frozenset((sha[file], sha[row["keeper"]])) in same
    for seed in range(3):
        side = {row["sha256"]: path.split("/")[0] for path, row in label(
            folder, "--split_seed", str(seed), "--dataset_dir", str(folder / "dataset")).items()}
        assert not [pair for pair in pairs if len({side.get(sha[file]) for file in pair} - {None})
                    > 1]
        shutil.rmtree(folder / "dataset")


def test_of_a_slow_pan_every_view_stays_visible(tmp_path):
    """Each frame is near the next; the first and the last show different photographs."""
    photos = shared("photos/flowers")
    files = ("Convallaria majalis/image_0162.jpg", "Narcissus pseudonarcissus/image_0005.jpg",
             "Helianthus annuus/image_0722.jpg", "Iris germanica/image_0404.jpg")
    views = [Image.open(photos / file) for file in files]
    views = [view.resize((round(view.width * 500 / view.height), 500)) for view in views]
    wall = Image.new("RGB", (sum(view.width for view in views), 500))
    starts = [sum(view.width for view in views[:i]) for i in range(len(views))]
    images = tmp_path / "collected/images/Rosa prima"
    images.mkdir(parents=True)
    for view, start in zip(views, starts, strict=True):
        wall.paste(view, (start, 0))
    for left in range(0, wall.width - 666, 20):
        wall.crop((left, 0, left + 666, 500)).save(images / f"{left:04}.jpg", quality=88)
    rows = clean(tmp_path)
    kept = [int(row["file"][-8:-4]) for row in rows.values() if row["status"] == "kept"]
    assert len(rows) / 5 < len(kept) < len(rows)
    for row in rows.values():
        keeper, own = (int(file[-8:-4]) for file in (row["keeper"], row["file"]))
        assert abs(keeper - own) <= 0.1 * 666 + 5
    for view, start in zip(views, starts, strict=True):
        shown = [min(left + 666, start + view.width) - max(left, start) for left in kept]
        assert max(shown) >= 0.8 * min(666, view.width)
    # All of them belong together in the split.
    links = [(row["first"], row["second"]) for row in read_table(tmp_path / "cleaned/pairs.csv")]
    reached, shas = set(), {row["sha256"] for row in rows.values()}
    waiting = [min(shas)]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += [other for pair in links if one in pair for other in pair]
    assert reached == shas


@pytest.mark.parametrize("kind", EDITS)
def test_edited_copies_share_a_group_with_their_original(kind, tmp_path):
    photos = shared("photos/flowers")
    files = sorted((photos / "Iris germanica").iterdir())[::9]
    images = tmp_path / "collected/images/Iris germanica"
    images.mkdir(parents=True)
    for i, path in enumerate(files):
        large = write_large(path, images)
        if i < 3:
            other = Image.open(files[-1 - i]).convert("RGB").resize(large.size)
            save(EDITS[kind][i](large, other, random.Random(i)), images / f"copy{i}_{path.name}",
                 kind, i)
    write_classes(tmp_path / "classes.csv", ["Iris germanica"])
    rows = clean(tmp_path)
    sha = {file.split("/")[1]: row["sha256"] for file, row in rows.items()}
    linked = {frozenset((row["first"], row["second"])): row["kind"]
              for row in read_table(tmp_path / "cleaned/pairs.csv")}
    for i, path in enumerate(files[:3]):
        assert frozenset((sha[path.name], sha[f"copy{i}_{path.name}"])) in linked, i
