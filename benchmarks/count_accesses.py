"""Run a script and count what it does with photographs: read, decode, fingerprint, hash.

    python benchmarks/count_accesses.py LOG script.py arguments ...

Appends a line `what<TAB>path` to LOG for each: `read` (a photograph opened for reading, with its
path), `decode`, `fingerprint`, `sha256`. Worker processes are counted as well. Nothing of this
repository is imported, so that the script of another checkout can be counted.
"""
import hashlib
import multiprocessing
import os
import runpy
import sys

WRITING = os.O_WRONLY | os.O_RDWR
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp")
LEAST_BYTES = 1000  # shorter input of SHA-256 is a name or a seed


def main():
    log, script = sys.argv[1:3]
    sys.argv = sys.argv[2:]
    # As `python script.py` sets it.
    sys.path[0] = os.path.dirname(os.path.abspath(script))  # noqa: PTH100, PTH120
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(what, path=""):
        os.write(file, f"{what}\t{path}\n".encode())

    count_reads(note)
    count_calls(note)
    multiprocessing.set_start_method("fork")  # the workers inherit what counts
    runpy.run_path(script, run_name="__main__")


def count_reads(note):
    def hook(event, arguments):
        if event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            path = os.fspath(arguments[0])
            if path.lower().endswith(PHOTOGRAPHS) and not arguments[2] & WRITING:
                note("read", path)
    sys.addaudithook(hook)


def count_calls(note):
    """Wrap the functions of libraries that decode, fingerprint and hash."""
    import scipy.fft
    from PIL import ImageFile
    load, dctn, sha256 = ImageFile.ImageFile.load, scipy.fft.dctn, hashlib.sha256

    def counted_load(image):
        if image.tile:  # else it is decoded already
            note("decode")
        return load(image)

    def counted_dctn(*arguments, **options):
        note("fingerprint")
        return dctn(*arguments, **options)

    def counted_sha256(data=b"", **options):
        if len(data) >= LEAST_BYTES:
            note("sha256")
        return sha256(data, **options)
    ImageFile.ImageFile.load, scipy.fft.dctn = counted_load, counted_dctn
    hashlib.sha256 = counted_sha256


if __name__ == "__main__":
    main()
