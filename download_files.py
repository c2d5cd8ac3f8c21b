"""Download the published photographs and model into data/dataset/ and checkpoints/downloaded/.

    python download_files.py                          # about 274 MB; after a break the same command goes on
    python download_files.py --checkpoint_url ""      # the photographs alone
    python download_files.py --replace_downloaded     # once more; what is there is moved aside, never deleted

An archive fetched some other way is used, and kept, if it lies where the script would put it: data/dataset.zip or
checkpoints/downloaded/plants_model.pth.tar.zip. The last lines count the photographs and say what to run next:

    next: python evaluate.py tests the downloaded model, python train.py trains a new one
"""
import itertools
import json
import os
import re
import shutil
import stat
import time
import unicodedata
import zipfile
import zlib

import requests
from tqdm import tqdm

import config
from utils import InputError, file_sha256, progress, read_table, run, set_aside, warn, write_text

CHUNK = 1 << 14  # bytes; a broken connection loses fewer than that
LONGEST_WAIT = 120  # seconds between two attempts; a server that asks for more is left alone
REMEDY = "correct the address in config.py (group downloads), or save the archive by hand as"
TRANSIENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class Broken(Exception):
    """An attempt that failed for a reason that may pass; `wait` is what the server asked for, in seconds."""

    def __init__(self, reason, wait=0):
        super().__init__(reason)
        self.wait = wait


# ---- download ----

def fetch(url, path, expected_sha256="", timeout=30.0, attempts=5):
    """Download a zip archive to `path`, unless it lies there, and return its SHA-256 as 64 hex digits.

    The bytes gather in `path`.part, their address and validator in `path`.json, and an interrupted download goes on
    from there. Raises InputError for an address without a zip, after so many failures, and where the sum differs.
    """
    if not re.match("https?://", url, re.IGNORECASE):
        raise InputError(f"{url!r} is not an http or https address; {REMEDY} {path}")
    if not re.fullmatch("([0-9a-fA-F]{64})?", expected_sha256):
        raise InputError(f"{expected_sha256!r} is not a SHA-256; give 64 hex digits, or nothing to leave it unchecked")
    if origin(path) not in (None, url):
        path.unlink(missing_ok=True)  # downloaded and not yet unpacked, but another address is wanted now
    if path.exists():
        print(f"{path} is there already", flush=True)
    else:
        print(f"downloading {url}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try_often(url, path, timeout, attempts)
        part = beside(path, ".part")
        write_text(beside(path, ".json"), json.dumps({**read_state(path), "finished": stamp(part)}))
        os.replace(part, path)
    digest = file_sha256(path)
    if expected_sha256.lower() not in ("", digest):
        raise InputError(f"{path} has the SHA-256 {digest} and not {expected_sha256.lower()} as expected; nothing is "
                         f"unpacked, the file is kept as {reject(path)}. If it is the right one, move it back and put "
                         "its sum into config.py, else run the same command again")
    return digest


def try_often(url, path, timeout, attempts):
    """Complete `path`.part in so many attempts with growing waits between them; raises InputError after the last."""
    for attempt in range(1, attempts + 1):
        try:
            return download(url, path, timeout)
        except Broken as broken:
            wait = max(broken.wait, min(2 ** (attempt - 1), LONGEST_WAIT))
            if attempt == attempts or wait > LONGEST_WAIT:
                raise InputError(f"{path.name}: {broken}; given up after {attempt} of {attempts} attempts. What has "
                                 "come is kept: the same command goes on from there") from None
            warn(f"{path.name}: {broken}; attempt {attempt + 1} of {attempts} in {wait} s")
            time.sleep(wait)


def download(url, path, timeout):
    """Make one attempt to complete `path`.part; raise Broken if another one may go further.

    Goes on by a Range request that If-Range ties to the file begun (https://www.rfc-editor.org/rfc/rfc9110, 13.1.5);
    where the server sends the whole file instead, or has another one, it starts over.
    """
    part, known = beside(path, ".part"), read_state(path)
    begun = part.exists() and known.get("url") == url and known["validator"]
    done = part.stat().st_size if begun else 0
    if done and done == known["size"]:
        return
    headers, next_part = {"Accept-Encoding": "identity"}, ""
    if done:
        headers.update({"Range": f"bytes={done}-", "If-Range": known["validator"]})
        next_part = rf"bytes {done}-\d+/({known['size'] or '[0-9]+'}|\*)"  # of the file begun, in Content-Range
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            fits = response.status_code != 206 or re.fullmatch(next_part, response.headers.get("Content-Range", ""))
            if done and (response.status_code == 416 or not fits):
                part.write_bytes(b"")
                return download(url, path, timeout)
            require_success(response, path, (200, 206) if done else (200,))
            save(response, url, path, done if response.status_code == 206 else 0)
    except TRANSIENT as error:
        raise Broken(reason(error, timeout)) from None
    except requests.RequestException as error:
        raise InputError(f"{url}: {error}; {REMEDY} {path}") from None
    except OSError as error:
        raise InputError(f"cannot write {part}: {error.strerror}; what has come is kept: make room and run the same "
                         "command again, or choose another folder (config.py, group folders)") from None


def require_success(response, path, accepted):
    """Raise Broken for an answer that may change (429, 5xx), InputError for any other that is not accepted."""
    answer = f"{response.url} answered {response.status_code} {response.reason}"
    if response.status_code >= 500 or response.status_code in (408, 425, 429):
        after = response.headers.get("Retry-After", "")
        raise Broken(f"{answer} (Retry-After: {after})" if after else answer, int(after) if after.isdecimal() else 0)
    if response.status_code not in accepted:
        raise InputError(f"{answer}; {REMEDY} {path}")


def save(response, url, path, done):
    """Append the body of an answer to `path`.part, of which `done` bytes are there (0: begin it anew)."""
    part, chunks = beside(path, ".part"), response.iter_content(CHUNK)
    if not done:
        first = next(chunks, b"")
        require_zip(first, url, path)
        chunks = itertools.chain([first], chunks)
        part.write_bytes(b"")  # before the new state is written, which does not speak of the old bytes
        write_text(beside(path, ".json"), json.dumps({"url": url, **validator_and_size(response.headers)}))
    size, free = read_state(path)["size"], shutil.disk_usage(part.parent).free
    if size - done > free:
        raise InputError(f"{part} will take {size - done:,} more bytes and its disk has {free:,}; make room and run "
                         "the same command again")
    with open(part, "ab") as file:
        for chunk in show_bytes(chunks, path.name, done, size):
            file.write(chunk)
    if size and part.stat().st_size != size:
        raise Broken(f"{part.stat().st_size:,} of {size:,} bytes came")


def validator_and_size(headers):
    """Return what ties a later Range request to this file ("" if nothing does) and its size in bytes (0 if not told).

    A weak ETag (W/"...") does not promise the same bytes, and a compressed body has sizes of its own.
    """
    if headers.get("Content-Encoding", "identity") != "identity":
        return {"validator": "", "size": 0}
    etag, size = headers.get("ETag", ""), headers.get("Content-Length", "")
    return {"validator": etag if etag.startswith('"') else headers.get("Last-Modified", ""),
            "size": int(size) if size.isdecimal() else 0}


def require_zip(head, url, path):
    """Raise InputError, saying what came instead, unless these first bytes are those of a zip archive."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return
    found = f"something that begins with {head[:20]!r}" if head else "nothing"
    if re.match(rb"\s*<(!doctype html|html|head|\?xml)", head, re.IGNORECASE):
        found = "a web page (an error, a login or a check for robots)"
    elif head.startswith(b"version https://git-lfs"):
        found = "a Git LFS pointer (a few lines of text in place of the file)"
    raise InputError(f"{url} sent {found}, not a zip archive; {REMEDY} {path}")


def show_bytes(chunks, name, done, size):
    """Yield the chunks, with a tqdm bar on a terminal and a plain line every 30 seconds elsewhere; size 0: unknown."""
    told, total = time.monotonic(), f" of {size / 1e6:,.1f}" if size else ""
    print(f"{name}: {done / 1e6:,.1f}{total} MB", flush=True)
    with tqdm(desc=name, initial=done, total=size or None, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            bar.update(len(chunk))
            if bar.disable and time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"{name}: {done / 1e6:,.1f}{total} MB", flush=True)


def reason(error, timeout):
    """Return in a few words why a connection failed; the messages of requests nest three errors deep."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"nothing came for {timeout:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    system = re.search(r"\[Errno -?\d+\] ([^()'\"]+)", str(error))
    return system[1] if system else str(error).rsplit(": ", 1)[-1].strip("()'\" ")


def beside(path, ending):
    """Return the path with an ending added to its name."""
    return path.with_name(path.name + ending)


def read_state(path):
    """Return {url, validator, size, finished} of the download of `path`, {} where there is none."""
    try:
        return json.loads(beside(path, ".json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def origin(path):
    """Return the address of which `path` is the whole download, None for an unfinished one or a file of the user's."""
    state = read_state(path)
    theirs = path.exists() and stamp(path) != state.get("finished")  # saved by hand over a download
    return None if theirs or beside(path, ".part").exists() else state.get("url")


def stamp(path):
    """Return [bytes, nanoseconds of the last change] of a file."""
    return [path.stat().st_size, path.stat().st_mtime_ns]


def reject(archive):
    """Set an archive aside, forget that it was downloaded, so that it is the user's, and return its new path."""
    beside(archive, ".json").unlink(missing_ok=True)
    return set_aside(archive, archive.parent)


# ---- unpack ----

def unpack(archive, folder, max_bytes):
    """Unpack a zip archive into the new folder `folder`, which the caller renames when all is well.

    Raises InputError, before anything is written, where a member could land outside of the folder, hide another one or
    not be read, and where they exceed `max_bytes` in total; zipfile.BadZipFile where the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            require_harmless(members, archive, max_bytes)
            folder.mkdir(parents=True)
            for member in progress(members, len(members), f"unpacking {archive.name}"):
                unpack_member(packed, member, folder / member.filename)
    except (zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:  # from bytes that are no zip's
        raise zipfile.BadZipFile(str(error)) from None


def unpack_member(packed, member, target):
    """Write one member, which zipfile cuts off at its stated size, and compare its size and CRC with what is stated."""
    (target if member.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
    if not member.is_dir():
        with packed.open(member) as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file)
            if file.tell() != member.file_size:
                raise zipfile.BadZipFile(f"{member.filename} has {file.tell():,} bytes instead of {member.file_size:,}")


def require_harmless(members, archive, max_bytes):
    """Raise InputError for a zip archive with a member that must not or cannot be unpacked, or with too much in it."""
    seen, total = set(), sum(member.file_size for member in members)
    if total > max_bytes:
        raise InputError(f"{archive} unpacks to {total / 1e9:,.1f} GB, more than the {max_bytes / 1e9:g} GB allowed; "
                         "if you trust it, raise MAX_UNPACKED_GB")
    for member in members:
        name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
        key = unicodedata.normalize("NFC", name.rstrip("/")).casefold()  # as macOS and Windows compare names
        parts = name.removesuffix("/").split("/")
        faults = {
            "leads out of the folder": re.search(r"[\\:\0]", name) or not all(part.strip(". ") for part in parts),
            "is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
            "is encrypted": member.flag_bits & 0x41,
            "is not packed by deflate": member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
            "is there twice": key in seen,
            "lies before the beginning of the archive": member.header_offset < 0,
        }
        if found := [fault for fault, present in faults.items() if present]:
            raise InputError(f"{archive} is refused and nothing of it unpacked: {name!r} {found[0]}")
        seen.add(key)


# ---- dataset and checkpoint ----

def find_datasets(folder):
    """Return the folders, at any depth, that hold both tables of labels."""
    return [table.parent for table in folder.rglob("train_labels.csv") if table.with_name("test_labels.csv").is_file()]


def find_checkpoints(folder):
    """Return the checkpoint files at any depth, without the doubles (._name) that macOS packs."""
    return [path for path in folder.rglob("[!.]*") if path.name.endswith((".pth.tar", ".pth", ".pt"))]


def obtain(name, url, expected_sha256, target, find, s):
    """Bring what `find` picks out of the archive at `url` to `target`, whose old content stays or is moved aside."""
    archive, work = beside(target, ".zip"), beside(target, ".unpacking")
    shutil.rmtree(work, ignore_errors=True)  # of a killed run
    if not url:
        print(f"{target} is not downloaded: {name}_URL is empty")
        return
    if target.exists() and not s.replace_downloaded:
        print(f"{target} exists and stays as it is; --replace_downloaded moves it aside and downloads again")
    else:
        digest = fetch(url, archive, expected_sha256, s.download_timeout, s.download_attempts)
        print(f"SHA-256 {digest} " + ("as expected" if expected_sha256 else f"not checked, {name}_SHA256 can pin it"))
        try:
            unpack(archive, work, s.max_unpacked_gb * 1e9)
            found = find(work)
            if len(found) != 1:
                raise InputError(f"{archive} holds {len(found)} {name.lower()}s where one was expected; it is kept, "
                                 f"check {name}_URL")
            if target.exists():
                print(f"{target} is kept as {set_aside(target, target.parent)}")
            os.replace(found[0], target)
        except zipfile.BadZipFile as error:
            raise InputError(f"{archive} is damaged ({error}); it is kept as {reject(archive)}, the same command "
                             "downloads it again") from None
        except OSError as error:
            raise InputError(f"cannot unpack {archive}: {error.strerror} ({error.filename or work}); it is kept: make "
                             "room and run the same command again") from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
    if origin(archive):  # not an archive put there by hand
        archive.unlink(missing_ok=True)
        beside(archive, ".json").unlink()


def main(argv=None):
    """Fetch and unpack both archives, count the photographs and say what to do next."""
    s, _ = config.parse(argv, __file__, __doc__)
    dataset, checkpoint = s.dataset_dir, s.checkpoints_dir / "downloaded/plants_model.pth.tar"
    obtain("DATASET", s.dataset_url, s.dataset_sha256, dataset, find_datasets, s)
    obtain("CHECKPOINT", s.checkpoint_url, s.checkpoint_sha256, checkpoint, find_checkpoints, s)
    if dataset.exists():
        train, test = (len(read_table(dataset / f"{side}_labels.csv", ("path", "label"))) for side in ("train", "test"))
        print(f"{dataset}: {train:,} photographs in train, {test:,} in test")
        if checkpoint.exists():
            print(f"next: python evaluate.py --checkpoint {checkpoint} tests the downloaded model,")
        print("next: python train.py trains a new one")


if __name__ == "__main__":
    run(main)
