"""The journal of an unfinished step, from which the next run resumes after a kill."""
import json
import os
from pathlib import Path

from utils import InputError, write_text


class Journal:
    """JSON lines, appended as work is done and read back by the next run.

    The first line is the header, which describes the input of the step. A journal with another
    header is replaced when the first entry is added. `entries` are the lines below the header.
    """

    def __init__(self, path, header):
        self.path, self.entries, self.file = Path(path), [], None
        self.header = json.loads(json.dumps(header))
        values, size = read_journal(self.path)
        self.resumed = bool(values) and values[0] == self.header
        if self.resumed:
            self.entries = values[1:]
            os.truncate(self.path, size)

    def append(self, entry):
        """Add one entry, which survives a kill of this process."""
        if self.file is None:
            if not self.resumed:
                write_text(self.path, json.dumps(self.header) + "\n")
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 open until finish()
        self.entries.append(entry)
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()

    def close(self):
        """Close the file and leave it for the next run."""
        if self.file is not None:
            self.file.close()

    def finish(self):
        """Delete the journal; call this when the final tables are written."""
        self.close()
        self.path.unlink(missing_ok=True)


def read_journal(path):
    """Return (values of the complete lines of a journal, their bytes); ([], 0) if there is none.

    It may be read while its step is running. A last line without a line break is being written, or
    was cut off by a kill, and is ignored; any other damaged line raises InputError.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return [], 0
    data, values = data[:data.rfind(b"\n") + 1], []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            values.append(json.loads(line))
        except ValueError:
            raise InputError(f"{path}, line {number} is damaged; delete that line to resume "
                             "without it, or the file to repeat all of its work") from None
    return values, len(data)
