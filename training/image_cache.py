"""Photographs decoded once into a memory-mapped file that all epochs, runs and workers read."""
import errno
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np

from images import View, cache_side, open_image, resize_for_cache
from utils import FileLock, InputError, atomic_path, process_count, progress, sha256, warn

MAGIC = b"frames\x00\x01"  # increase its last byte when the layout or `read_resized` changes
CHUNK = 256  # photographs decoded at once


def view_of(s):
    """Return the `View` of settings completed by `model.complete`."""
    return View(s.image_size, s.crop, s.interpolation)


def read_resized(path, view, max_megapixels):
    """Return a photograph resized for the cache, uint8 (H, W, 3)."""
    with naming(path):
        image, _ = open_image(path, max_megapixels, 2 * view.image_size, scaled=False)
        return np.array(resize_for_cache(image, view))


@contextmanager
def naming(path):
    """Raise InputError with the path and a remedy where a photograph cannot be read."""
    try:
        yield
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {error}; put the photograph back, or delete its row from the "
                         "label table") from None


class ImageCache:
    """Maps the path of a photograph to its resized image, uint8 (H, W, 3), in a cache file.

    Layout of the file: MAGIC, 32 bytes of the key, the number N of photographs as int64, heights
    and widths as int32 (N, 2), then the pixels of all images. Raises InputError for another file.
    """

    def __init__(self, file, key, paths):
        self.file, self.index = file, {path: i for i, path in enumerate(paths)}
        header, count = make_header(key, len(paths)), len(paths)
        with open(file, "rb") as stream:
            if stream.read(len(header)) != header:
                raise InputError("it was made from different photographs or by another version")
            sizes = stream.read(8 * count)
        self.sizes = np.frombuffer(sizes.ljust(8 * count, b"\0"), dtype="<i4").reshape(count, 2)
        if (self.sizes < 1).any():
            raise InputError("its table of image sizes is damaged")
        ends = np.cumsum(3 * self.sizes.prod(1, dtype=np.int64))
        self.pixels_start = len(header) + 8 * count  # bytes before the pixels
        self.starts = np.concatenate([[0], ends])  # of each image, in bytes after pixels_start
        self.file_size, self.pixels = self.pixels_start + int(ends[-1]), None
        self.check()

    def check(self):
        """Raise InputError if the file is gone or has another size.

        Reading the map of a truncated file would kill the process with SIGBUS.
        """
        try:
            size = self.file.stat().st_size
        except FileNotFoundError:
            size = 0
        if size != self.file_size:
            raise InputError(f"{self.file} has {size:,} bytes instead of {self.file_size:,}; run "
                             "the same command again to decode the photographs again and resume")

    def __getstate__(self):
        return {**vars(self), "pixels": None}  # a worker process opens its own map

    def __getitem__(self, path):
        self.check()
        if self.pixels is None:  # mode "c", copy-on-write: torch warns of read-only arrays
            self.pixels = np.asarray(np.memmap(self.file, mode="c", offset=self.pixels_start))
        i = self.index[path]
        return self.pixels[self.starts[i]:self.starts[i + 1]].reshape(*self.sizes[i], 3)


def make_header(key, count):
    """Return the first bytes of a cache file."""
    return MAGIC + bytes.fromhex(key) + count.to_bytes(8, "little")


def build_cache(table, s):
    """Return the `ImageCache` of a label table's photographs; build it if there is none.

    Returns None without CACHE and, with a warning, if it cannot be written: training then gives
    the same result, more slowly.
    """
    if not s.cache:
        return None
    paths = table["path"].tolist()
    files = [(path, stat.st_size, stat.st_mtime_ns)
             for path, stat in zip(paths, map(os.stat, paths), strict=True)]
    view = view_of(s)
    key = sha256(repr((cache_side(view), view.interpolation, 2 * view.image_size, "unscaled",
                       files)).encode())
    file = s.cache_dir / f"{key[:16]}.frames"
    try:
        return ImageCache(file, key, paths)
    except FileNotFoundError:
        pass
    except (InputError, OSError) as error:
        warn(f"{file} cannot be used ({error}); decoding the photographs again")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / "lock", f"decodes photographs into {file.parent}"):
            with suppress(InputError, OSError):
                return ImageCache(file, key, paths)  # another process built it while we waited
            write_cache(file, key, paths, s)
            return ImageCache(file, key, paths)
    except OSError as error:
        warn(f"no cache of decoded photographs ({error}); they are decoded again in every epoch; "
             "name a folder on a disk with room with --cache_dir, or pass --no-cache")
        return None


def write_cache(file, key, paths, s):
    """Decode the photographs into a cache file, atomically. Raises OSError on a full disk."""
    for unfinished in file.parent.glob("*.frames.tmp"):  # left by a killed process
        unfinished.unlink()
    others = sum(other.stat().st_size for other in file.parent.glob("*.frames") if other != file)
    if others > 1e9:  # less is not worth a word
        print(f"{file.parent} also has {others / 1e9:.1f} GB of decoded photographs of other "
              "datasets or sizes; delete what you no longer need")
    started, sizes, unreadable = time.perf_counter(), [], []
    with atomic_path(file) as temporary, open(temporary, "wb") as stream:
        stream.write(make_header(key, len(paths)) + bytes(8 * len(paths)))
        for image in progress(read_all_resized(paths, s), len(paths), "decoding"):
            if isinstance(image, InputError):
                unreadable.append(str(image))
                continue
            sizes.append(image.shape[:2])
            if len(sizes) == CHUNK:
                require_room(file.parent, stream.tell() / CHUNK * (len(paths) - CHUNK))
            stream.write(image.data)
        if unreadable:
            raise InputError("\n".join(unreadable))
        stream.seek(len(make_header(key, 0)))
        stream.write(np.array(sizes, dtype="<i4").tobytes())
        stream.flush()
        os.fsync(stream.fileno())
    print(f"decoded {len(paths):,} photographs into {file} ({file.stat().st_size / 1e6:,.0f} MB) "
          f"in {time.perf_counter() - started:.1f} s")


def read_all_resized(paths, s):
    """Yield the resized images of the photographs in order, decoded by one thread per core.

    Of a photograph that cannot be read it yields the InputError, so that all of them are named.
    """
    def read(path):
        try:
            return read_resized(path, view_of(s), s.max_megapixels)
        except InputError as error:
            return error
    with ThreadPoolExecutor(process_count(0)) as pool:
        for start in range(0, len(paths), CHUNK):
            yield from pool.map(read, paths[start:start + CHUNK])


def require_room(folder, needed):
    """Raise OSError unless the bytes needed, plus 5 %, are free."""
    free = shutil.disk_usage(folder).free
    if free < 1.05 * needed:
        raise OSError(errno.ENOSPC, f"about {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB "
                      "free", str(folder))
