"""Zip archives: download with resume and SHA-256, unpack without trusting their content.

The bytes of an unfinished download are in `<archive>.part`; their address and validator are in
`<archive>.json`, which stays next to a finished one to mark that it was not saved by hand.
"""
import contextlib
import itertools
import json
import os
import re
import shutil
import stat
import tempfile
import time
import unicodedata
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from dataset_preparation.parsing.safe_download import Failed, Patience, Refused, retry
from names import whole_number
from utils import (
    FileLock,
    InputError,
    describe_error,
    file_sha256,
    progress,
    set_aside,
    sha256,
    warn,
    write_text,
)

SIGNATURES = {"zip": (b"PK\x03\x04", b"PK\x05\x06"), "gz": (b"\x1f\x8b",)}
# (encoding, normal form) that names may be stored in, "" = as they are; zipfile assumes cp437
READINGS = (("cp437", ""), ("utf-8", ""), ("cp866", ""), ("cp1251", ""), ("utf-8", "NFC"),
            ("utf-8", "NFD"))
MARKED_UTF8 = 0x800  # flag of a member
REMEDY = "correct the address in config.py (group downloads), or save the archive by hand as"


# ---- download ----

def download_archive(web, url, path, sha256="", attempts=5):
    """Download an archive to `path`, unless it exists, and return its SHA-256 as hex digits.

    It is a zip archive, or a gzipped file if `path` ends in .gz. An interrupted download is
    resumed. Raises InputError if the address has no archive, after `attempts` failures, and if the
    SHA-256 is not the expected one.
    """
    if downloaded_from(path) not in (None, url):
        path.unlink(missing_ok=True)  # a finished download of another address, not yet unpacked
    if path.exists():
        print(f"{path} is already there", flush=True)
    else:
        print(f"downloading {url}", flush=True)
        complete_part(web, url, path, attempts)
        part = beside(path, ".part")
        write_state(path, {**read_state(path), "finished": size_and_time(part)})
        os.replace(part, path)
    actual = file_sha256(path)
    if sha256.lower() not in ("", actual):
        raise InputError(
            f"{path} has the SHA-256 {actual}, expected {sha256.lower()}; nothing was unpacked and "
            f"the file is kept as {reject(path)}. If it is the right one, move it back and put its "
            "SHA-256 into config.py; otherwise run the same command again")
    return actual


def complete_part(web, url, path, attempts):
    """Complete `path`.part; raise InputError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        retry(lambda: resume(web, url, path), attempts,
              notify=lambda message: warn(f"{path.name}: {message}"),
              patience=Patience(web.network.patience))
    except Refused as error:
        raise InputError(f"{url}: {error}; {REMEDY} {path}") from None
    except Failed as error:
        raise InputError(f"{url}: {error}. What has arrived is kept; run the same command again "
                         "to resume") from None
    except OSError as error:  # network errors have become Refused or Failed: this is the disk
        raise InputError(f"cannot write {beside(path, '.part')}, from which the same command would "
                         f"resume: {describe_error(error)}") from None


def resume(web, url, path):
    """Make one attempt to complete `path`.part; raises Failed if another attempt may succeed.

    Requests the missing bytes on the condition (If-Range) that the file has not changed
    (https://www.rfc-editor.org/rfc/rfc9110#section-13.1.5). If it has, or if the server sends the
    whole file, the download starts over.
    """
    part, state = beside(path, ".part"), read_state(path)
    resumable = part.exists() and state.get("url") == url and state["validator"]
    done = part.stat().st_size if resumable else 0
    if done and done == state["size"]:
        return
    headers, statuses = {}, (200,)
    if done:
        headers = {"Range": f"bytes={done}-", "If-Range": state["validator"]}
        statuses = (200, 206, 416)
    with web.open(url, headers, statuses) as response:
        chunks = web.chunks(response)
        if response.status_code == 200:
            first = next(chunks, b"")
            require_archive(first, path)
            part.write_bytes(b"")  # before the new state, which does not describe the old bytes
            write_state(path, {"url": url, **validator_and_size(response.headers)})
            return write_chunks(itertools.chain([first], chunks), path, 0)
        follows = rf"bytes {done}-\d+/({state['size'] or '[0-9]+'}|\*)"
        if response.status_code == 206 and re.fullmatch(
                follows, response.headers.get("Content-Range", "")):
            return write_chunks(chunks, path, done)
    part.write_bytes(b"")
    return resume(web, url, path)


def write_chunks(chunks, path, done):
    """Append chunks to the `done` bytes in `path`.part; raise Failed if the result is too short."""
    part, size = beside(path, ".part"), read_state(path)["size"]
    free = shutil.disk_usage(part.parent).free
    if size - done > free:
        raise InputError(f"{part} needs {size - done:,} more bytes, its disk has {free:,} left; "
                         "free some space and run the same command again")
    with open(part, "ab") as file:
        for chunk in show_progress(chunks, path.name, done, size):
            file.write(chunk)
    if size and part.stat().st_size != size:
        raise Failed(f"{part.stat().st_size:,} of {size:,} bytes arrived")


def validator_and_size(headers):
    """Return {"validator", "size"} of a file, for a later Range request; "" and 0 if unknown.

    A weak ETag (W/"...") is no validator, as it does not promise the same bytes. For a compressed
    body both are unknown: its sizes and ranges differ.
    """
    if headers.get("Content-Encoding", "identity") != "identity":
        return {"validator": "", "size": 0}
    etag, size = headers.get("ETag", ""), headers.get("Content-Length", "")
    return {"validator": etag if etag.startswith('"') else headers.get("Last-Modified", ""),
            "size": whole_number(size) or 0}


def require_archive(head, path):
    """Raise Refused, naming the actual content, unless `head` is the start of such an archive."""
    kind = "gz" if Path(path).suffix == ".gz" else "zip"
    if head.startswith(SIGNATURES[kind]):
        return
    found = f"bytes that begin with {head[:20]!r}" if head else "an empty file"
    if re.match(rb"\s*<(!doctype html|html|head|\?xml)", head, re.IGNORECASE):
        found = "a web page (an error, a login or a check for robots)"
    elif head.startswith(b"version https://git-lfs"):
        found = "a Git LFS pointer (a few lines of text in place of the file)"
    raise Refused(f"the server sent {found}, not a {kind} archive")


def show_progress(chunks, name, done, size):
    """Yield the chunks with a bar on a terminal, or else a line every 30 s; size 0 is unknown."""
    last_line, of_size = time.monotonic(), f" of {size / 1e6:,.1f}" if size else ""
    print(f"{name}: {done / 1e6:,.1f}{of_size} MB", flush=True)
    with tqdm(desc=name, initial=done, total=size or None, unit="B", unit_scale=True, leave=False,
              disable=None) as bar:  # None: no bar unless standard error is a terminal
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            bar.update(len(chunk))
            if bar.disable and time.monotonic() - last_line > 30:
                last_line = time.monotonic()
                print(f"{name}: {done / 1e6:,.1f}{of_size} MB", flush=True)


# ---- state of a download ----

def lock_of(path, doing):
    """Return the `FileLock` of one user's processes that write `path`; it leaves no file beside."""
    name = sha256(os.fsencode(path.resolve()))[:16]
    user = getattr(os, "getuid", int)()
    return FileLock(Path(tempfile.gettempdir()) / f"crimean_plants_{user}_{name}.lock", doing)


def beside(path, ending):
    """Return the path with an ending added to its name."""
    return path.with_name(path.name + ending)


def read_state(path):
    """Return {url, validator, size, finished} of the download of `path`, {} if there is none."""
    try:
        return json.loads(beside(path, ".json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def write_state(path, state):
    """Write the state of the download of `path`."""
    write_text(beside(path, ".json"), json.dumps(state))


def downloaded_from(path):
    """Return the address of a finished download, None for an unfinished one or a user's file."""
    state = read_state(path)
    if beside(path, ".part").exists():
        return None
    if path.exists() and size_and_time(path) != state.get("finished"):
        return None  # saved by hand over a download
    return state.get("url")


def size_and_time(path):
    """Return [bytes, nanoseconds of the last change] of a file."""
    return [path.stat().st_size, path.stat().st_mtime_ns]


def reject(archive):
    """Set an archive aside as if the user had saved it; return its new path."""
    beside(archive, ".json").unlink(missing_ok=True)
    return set_aside(archive, archive.parent)


def forget(archive):
    """Delete a downloaded archive; keep one that the user saved by hand."""
    if downloaded_from(archive):
        archive.unlink(missing_ok=True)
        beside(archive, ".json").unlink()


# ---- unpack ----

def unpack(archive, folder, max_bytes, missing=lambda folder: []):
    """Unpack a zip archive into the folder `folder`; return the result of `missing(folder)`.

    Names stored without their encoding are decoded so that the fewest are missing. Raises
    InputError as `require_harmless` does, before anything is written, and zipfile.BadZipFile if the
    archive is damaged.
    """
    lists = []
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            for names in possible_names(members):
                require_harmless(members, names, archive, max_bytes)
                if lists:  # the reading before
                    shutil.rmtree(folder)
                folder.mkdir(parents=True)
                for member, name in progress(zip(members, names, strict=True), len(members),
                                             f"unpacking {archive.name}"):
                    unpack_member(packed, member, folder / name, name.endswith("/"))
                lists.append(missing(folder))
                if not lists[-1]:
                    break
    except (zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise zipfile.BadZipFile(str(error)) from None
    return min(lists, key=len)


def possible_names(members):
    """Return the possible lists of members' names with `/`, first that of the standard.

    Without the UTF-8 flag, names are in the code page of the machine that packed them (APPNOTE.TXT,
    appendix D), or UTF-8 of a program that does not set it; macOS separates accents (NFD).
    """
    lists = []
    for encoding, form in READINGS:
        with contextlib.suppress(UnicodeDecodeError):
            names = [unicodedata.normalize(form, name) if form else name for name in (
                member.orig_filename if member.flag_bits & MARKED_UTF8 else
                member.orig_filename.encode("cp437").decode(encoding) for member in members)]
            names = [name.replace("\\", "/") for name in names]  # as some programs of Windows pack
            if names not in lists:
                lists.append(names)
    return lists


def unpack_member(packed, member, target, is_folder):
    """Write one member; zipfile checks its CRC, this function its size."""
    if is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(member) as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file)
        if file.tell() != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename} has {file.tell():,} bytes instead of "
                                     f"{member.file_size:,}")


def require_harmless(members, names, archive, max_bytes):
    """Raise InputError for members that are dangerous, cannot be unpacked, or are too large."""
    keys, total = set(), sum(member.file_size for member in members)
    if total > max_bytes:
        raise InputError(f"{archive} unpacks to {total / 1e9:,.1f} GB, more than the allowed "
                         f"{max_bytes / 1e9:g} GB; if you trust it, raise MAX_UNPACKED_GB")
    for member, name in zip(members, names, strict=True):
        kind = stat.S_IFMT(member.external_attr >> 16)
        # names are compared as by the file systems of macOS and Windows
        key = unicodedata.normalize("NFC", name.rstrip("/")).casefold()
        parts = name.removesuffix("/").split("/")
        faults = {
            "leads out of the folder": re.search(r"[:\0]", name) or not all(
                part.strip(". ") for part in parts),
            "is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
            "is encrypted": member.flag_bits & 0x41,
            "is not packed by deflate": member.compress_type not in (
                zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
            "is listed twice": key in keys,
            "starts before the beginning of the archive": member.header_offset < 0,
        }
        if found := [fault for fault, present in faults.items() if present]:
            raise InputError(f"{archive} is refused, nothing was unpacked: {name!r} {found[0]}")
        keys.add(key)
