"""How do time and memory of the near-duplicate search grow, from 5,000 to 50,000 photographs?

    python benchmarks/cleaning_scale.py --photos DIR
    figure search_50000_memory 1082 MB target <= 1000 missed

The photographs are synthetic: each has features drawn at random from those of 300 photographs in
DIR, with a tenth of their bits flipped, and random hashes. Every twentieth repeats another one with
fewer bits flipped, and has to be found. In addition, the script cleans --alike versions of one
photograph, which are all near-duplicates of each other. Each search runs in a process of its own,
whose CPU seconds include starting Python; memory is that of the largest process.
"""
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import ROOT, measure, parse, state
from dataset_preparation.cleaning.local_features import describe_image
from utils import progress, write_table

SIZES = 5_000, 20_000, 50_000
SEARCH = """import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
from dataset_preparation.cleaning.feature_search import PER_PHOTOGRAPH, find_candidates
from dataset_preparation.cleaning.near_duplicates import NUM_VIEWS, WORDS, pairs_with_leaders
kind, count = sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
copies = count // 20

def flipped(words, share):
    noise = rng.random((*words.shape, 64)) < share
    return words ^ np.packbits(noise, axis=-1).view(np.uint64)[..., 0]

if kind == "hashes":
    looks = rng.integers(0, 2**64, (count, NUM_VIEWS, WORDS), dtype=np.uint64)
    looks[-copies:, 0] = flipped(looks[:copies, 0], 0.05)
    rule = {"hash_distance": 12, "check_distance": 48, "borderline_distance": 88}
    pairs = pairs_with_leaders(looks, rule)[:2].T
if kind == "features":
    pool = np.load(sys.argv[4])
    bits = np.zeros((count, PER_PHOTOGRAPH, 4), np.uint64)
    angles = rng.random((count, PER_PHOTOGRAPH), np.float32) * 360
    for i in range(count - copies):
        bits[i] = flipped(pool[rng.integers(0, len(pool), PER_PHOTOGRAPH)], 0.1)
    for i in range(copies):
        bits[count - copies + i] = flipped(bits[i], 0.03)
    angles[-copies:] = angles[:copies]
    owner = np.arange(count, dtype=np.int32).repeat(PER_PHOTOGRAPH)
    pairs = find_candidates(owner, bits.reshape(-1, 4), angles.ravel())
if kind in ("hashes", "features"):
    found = set(map(tuple, pairs.tolist()))
    assert sum((i, count - copies + i) in found for i in range(copies)) >= 0.98 * copies
    print(len(pairs), "candidates", file=sys.stderr)
"""


def main(argv=None):
    flags = parse(__doc__, argv, alike=4_000)
    flags.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=flags.work) as folder:
        pool = Path(folder) / "bits.npy"
        paths = sorted(flags.photos.glob("*/*.*"))[::max(1, len(list(
            flags.photos.glob("*/*.*"))) // 300)]
        np.save(pool, np.concatenate([describe_image(Image.open(path)).bits for path in paths]))
        used = {(kind, size): measure(sys.executable, "-c", SEARCH, ROOT, kind, size, pool)
                for kind in ("nothing", "hashes", "features") for size in SIZES}
        for (kind, size), one in used.items():
            print(f"{kind:10} {size:7,}  cpu {one['cpu']:7.1f} s  {one['mb']:5.0f} MB", flush=True)
        alike = clean_alike(Path(folder), paths[0], flags.alike)
    print(f"{flags.alike:,} near-duplicates of each other cleaned: cpu {alike['cpu']:.0f} s, "
          f"{alike['mb']:.0f} MB")
    largest = max(used[kind, SIZES[-1]]["mb"] for kind in ("hashes", "features"))
    return state([
        ("search_50000_hashes", used["hashes", SIZES[-1]]["cpu"], "CPU seconds", "<=", 30),
        ("search_50000_memory", largest, "MB", "<=", 1000),
        ("mutual_near_duplicates_memory", alike["mb"], "MB", "<=", 300)])


def clean_alike(folder, path, count):
    """Return what cleaning `count` versions of one photograph used."""
    images = folder / "collected/images/Aaa"
    images.mkdir(parents=True)
    with Image.open(path) as image:
        image = image.convert("RGB")
    rng = np.random.default_rng(0)
    for i in progress(range(count), count, "writing"):
        cut = rng.integers(0, 6, 4)
        version = image.crop((*cut[:2], *(np.array(image.size) - cut[2:])))
        version.save(images / f"{i:05}.jpg", quality=int(rng.integers(70, 95)))
    write_table(folder / "classes.csv", ("label", "latin", "russian", "english", "also"),
                [{"label": 0, "latin": "Aaa"}])
    return measure(sys.executable, ROOT / "dataset_preparation/cleaning/cleaning.py",
                   "--collected_dir", folder / "collected", "--cleaned_dir", folder / "cleaned",
                   "--class_table", folder / "classes.csv", "--min_side", 256, "--processes", 1)


if __name__ == "__main__":
    sys.exit(main())
