"""The progress of an unfinished step on the disk, for the run that goes on after a kill."""
import json
import os
from pathlib import Path

from utils import InputError, write_text


class Journal:
    """The progress of an unfinished step: JSON lines, appended as work is done, read back after a kill.

    The first line is the header: what the step works on. A journal with another header is started anew with the first
    entry. A last line torn by a kill is dropped; another broken one raises InputError. `entries` are the lines so far.
    """

    def __init__(self, path, header):
        self.path, self.entries, self.file = Path(path), [], None
        self.header = json.loads(json.dumps(header))
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = [self._read(line, number) for number, line in enumerate(lines, 1) if line.endswith(b"\n")]
        self.known = bool(whole) and whole[0] == self.header
        if self.known:
            self.entries = whole[1:]
            os.truncate(self.path, sum(len(line) for line in lines if line.endswith(b"\n")))

    def _read(self, line, number):
        try:
            return json.loads(line)
        except ValueError:
            raise InputError(f"{self.path}, line {number} is damaged; delete that line to go on without it, or the "
                             "whole file to have its work done again") from None

    def append(self, entry):
        """Add one entry, readable after a kill of this process."""
        if self.file is None:
            if not self.known:
                write_text(self.path, json.dumps(self.header) + "\n")
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 open until finish()
        self.entries.append(entry)
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()

    def finish(self):
        """Remove the journal: the table it led to is written."""
        if self.file is not None:
            self.file.close()
        self.path.unlink(missing_ok=True)
