"""Photographs told apart by their contents: what a run was trained on, and whether it changed."""
from pathlib import Path
from typing import NamedTuple

from dataset_preparation.known_files import KnownFiles
from utils import sha256, warn


class Fingerprint(NamedTuple):
    """What identifies the rows of a label table, in any order."""

    now: str  # "2:" and 16 hex digits of paths, labels, groups and contents
    earlier: str  # 16 hex digits of all but the contents, as earlier versions stored it


def contents_of(table, folder):
    """Return the SHA-256 of the photographs of a label table, which lie in `folder`.

    Files are read only if labelling or --check has not noted what they contain.
    """
    known = KnownFiles(folder)
    return [known.sha256(Path(path).relative_to(folder).as_posix()) for path in table["path"]]


def table_fingerprint(table, folder):
    """Return the `Fingerprint` of a label table; its column `content` is of `contents_of`."""
    rows = [(Path(path).relative_to(folder).as_posix(), label, group, content)
            for path, label, group, content
            in table[["path", "label", "group", "content"]].to_numpy()]
    now, earlier = (sha256(repr(sorted(part)).encode())[:16]
                    for part in (rows, [row[:3] for row in rows]))
    return Fingerprint(f"2:{now}", earlier)


def recognize(settings, photographs, where):
    """Return settings as stored, with the present fingerprint if they have the earlier one.

    `photographs` is the present `Fingerprint`. Contents cannot be compared then, and a warning
    says so.
    """
    if settings.get("photographs") != photographs.earlier:
        return settings
    warn(f"{where} is of an earlier version, which recognised photographs by their paths and "
         "labels only; if a file has been replaced since, start another one")
    return {**settings, "photographs": photographs.now}
