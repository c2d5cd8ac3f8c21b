"""What the tests of downloading download: archives of the published shape."""
import hashlib
import io
import zipfile

from PIL import Image


def photograph(number):
    """Return the bytes of a small JPEG, another one for every number."""
    file = io.BytesIO()
    Image.new("RGB", (48, 48), (number % 256, number // 256, 90)).save(file, "JPEG")
    return file.getvalue()


def published(photographs=6):
    """Return {path: bytes} of a dataset as published: photographs and tables of `path,label`.

    A third of the photographs are test photographs.
    """
    files = {}
    for side, count in (("train", photographs * 2 // 3), ("test", photographs // 3)):
        names = [f"{side}/Adonis vernalis/adonis_vernalis_{side}_{n}.jpg" for n in range(count)]
        files.update({name: photograph(n) for n, name in enumerate(names)})
        lines = ["path,label\n", *(f"{name},2\n" for name in names)]
        files[f"{side}_labels.csv"] = "".join(lines).encode()
    return files


def pack(files, prefix=""):
    """Return a zip archive of {path: bytes}."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(prefix + name), data, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def tree(folder):
    """Return {relative path: bytes} of all files below a folder, None for an empty folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*")) if path.is_file() or not any(path.iterdir())}


def bulk(size=400_000, seed=b"plants"):
    """Return a zip archive of about so many bytes, other ones for another seed."""
    return pack({"noise.bin": hashlib.shake_256(seed).digest(size)})
