"""Photographs decoded once: one memory-mapped file of uint8 frames that every epoch, run and worker reads from."""
import errno
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from images import cache_side, open_image, resize_for_cache
from utils import FileLock, InputError, atomic_path, process_count, progress, sha256, warn

MAGIC = b"frames\x00\x01"  # its last byte changes with the layout, or with how a photograph becomes a frame
CHUNK = 256  # photographs decoded before they are written


def read_frame(path, image_size, max_megapixels):
    """Return the frame of a photograph, uint8 (H, W, 3); raise InputError naming a file that is none."""
    try:
        return np.array(resize_for_cache(
            open_image(path, max_megapixels, draft_side=2 * image_size)[0], image_size))
    except (InputError, OSError) as error:
        raise InputError(f"{path}: {error}; put the photograph back, or take its row out of the label table") from None


class Frames:
    """Maps the path of a photograph to its frame, uint8 (H, W, 3), through the memory map of a cache file.

    The file is: MAGIC, the 32 bytes of the key, the number of photographs as int64, their heights and widths as int32
    (N, 2), then their pixels one after the other. Raises InputError where the file is not that.
    """

    def __init__(self, file, key, paths):
        self.file, self.places = file, {path: place for place, path in enumerate(paths)}
        header, count = make_header(key, len(paths)), len(paths)
        with open(file, "rb") as opened:
            if opened.read(len(header)) != header:
                raise InputError("it is of something else")
            table = opened.read(8 * count)
        self.sizes = np.frombuffer(table.ljust(8 * count, b"\0"), dtype="<i4").reshape(count, 2)
        if (self.sizes < 1).any():
            raise InputError("its table of sizes is damaged")
        ends = np.cumsum(3 * self.sizes.prod(1, dtype=np.int64))
        self.starts, self.start = np.concatenate([[0], ends]), len(header) + 8 * count  # in bytes
        self.bytes, self.map = self.start + int(ends[-1]), None
        self.check()

    def check(self):
        """Raise InputError where the file is gone or has another length: reading its map would end the process."""
        size = Path(self.file).stat().st_size if Path(self.file).exists() else 0
        if size != self.bytes:
            raise InputError(f"{self.file} has {size:,} bytes where {self.bytes:,} were expected; the same command "
                             "decodes the photographs again and goes on")

    def __getstate__(self):
        return {**vars(self), "map": None}  # other processes open their own map

    def pixels(self):
        """Return all pixels, uint8 (P, 3); the frame at place i begins at pixel starts[i] / 3."""
        if self.map is None:  # copy on write: torch wants arrays that may be written
            self.map = np.memmap(self.file, mode="c", offset=self.start, shape=(int(self.starts[-1]) // 3, 3))
        return self.map

    def __getitem__(self, path):
        place = self.places[path]
        start, end = self.starts[place:place + 2] // 3
        return self.pixels()[start:end].reshape(*self.sizes[place], 3)


def make_header(key, count):
    """Return the bytes a cache file begins with."""
    return MAGIC + bytes.fromhex(key) + count.to_bytes(8, "little")


def build_cache(table, s):
    """Return the `Frames` of a label table's photographs, decoded now unless that was done before.

    Returns None, with a warning, where they cannot be written: all goes on the same, only slower. Raises InputError
    naming an unreadable photograph.
    """
    if not s.cache:
        return None
    paths = table["path"].tolist()
    files = [(path, one.st_size, one.st_mtime_ns) for path, one in zip(paths, map(os.stat, paths), strict=True)]
    key = sha256(repr((cache_side(s.image_size), 2 * s.image_size, files)).encode())
    file = s.cache_dir / f"{key[:16]}.frames"
    try:
        return Frames(file, key, paths)
    except FileNotFoundError:
        pass
    except (InputError, OSError) as error:
        warn(f"{file} cannot be used ({error}); the photographs are decoded again")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / "lock", f"decodes photographs into {file.parent}"):
            with suppress(InputError, OSError):
                return Frames(file, key, paths)  # another process made it meanwhile
            write_frames(file, key, paths, s)
            return Frames(file, key, paths)
    except OSError as error:
        warn(f"no cache of decoded photographs ({error}); they are decoded anew in every epoch; name a folder with "
             "room with --cache_dir, or choose --no-cache")
        return None


def write_frames(file, key, paths, s):
    """Decode the photographs into a cache file, which is there whole or not at all. Raises OSError without room."""
    for left in file.parent.glob("*.frames.tmp"):  # of a process that was killed
        left.unlink()
    others = sum(other.stat().st_size for other in file.parent.glob("*.frames") if other != file)
    if others:
        print(f"{file.parent} holds {others / 1e9:.1f} GB of other datasets' frames; what is not needed may be deleted")
    began, sizes = time.perf_counter(), []
    with atomic_path(file) as temporary, open(temporary, "wb") as opened:
        opened.write(make_header(key, len(paths)) + bytes(8 * len(paths)))
        for one in progress(decode(paths, s), len(paths), "decoding"):
            sizes.append(one.shape[:2])
            if len(sizes) == CHUNK:
                require_room(file.parent, opened.tell() / CHUNK * (len(paths) - CHUNK))
            opened.write(one.data)
        opened.seek(len(make_header(key, 0)))
        opened.write(np.array(sizes, dtype="<i4").tobytes())
        opened.flush()
        os.fsync(opened.fileno())
    print(f"decoded {len(paths):,} photographs into {file} ({file.stat().st_size / 1e6:,.0f} MB) in "
          f"{time.perf_counter() - began:.1f} s")


def decode(paths, s):
    """Yield the frames of the photographs in order, a chunk at a time, decoded by one thread per core."""
    with ThreadPoolExecutor(process_count(0)) as pool:
        for start in range(0, len(paths), CHUNK):
            yield from pool.map(lambda path: read_frame(path, s.image_size, s.max_megapixels),
                                paths[start:start + CHUNK])


def require_room(folder, wanted):
    """Raise OSError where fewer bytes than wanted, and a twentieth more, are free."""
    free = shutil.disk_usage(folder).free
    if free < 1.05 * wanted:
        raise OSError(errno.ENOSPC, f"about {wanted / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free", str(folder))
