"""Run a script and kill it with SIGKILL just before its N-th change to the file system.

    python tests/killer.py N script.py arguments ...

Counts every file that the script's own process opens for writing, renames, removes or truncates,
and prints the change it was killed before. With N = 0 the script runs to its end, and every change
is printed.
"""
import itertools
import os
import runpy
import signal
import sys

WRITING = os.O_WRONLY | os.O_RDWR
EVENTS = {"os.rename", "os.remove", "os.truncate", "os.rmdir", "shutil.copyfile"}


def main():
    wanted, script = int(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    # As `python script.py` sets it.
    sys.path[0] = os.path.dirname(os.path.abspath(script))  # noqa: PTH100, PTH120
    process, numbers = os.getpid(), itertools.count(1)

    def kill_before(event, arguments):
        if not is_change(event, arguments) or os.getpid() != process:
            return
        number = next(numbers)
        if wanted in (0, number):
            paths = " -> ".join(str(path) for path in arguments[:2] if is_path(path))
            os.write(2, f"killer: before {event} {paths}\n".encode())
        if number == wanted:
            os.kill(process, signal.SIGKILL)

    sys.addaudithook(kill_before)
    runpy.run_path(script, run_name="__main__")


def is_path(value):
    """Return whether an argument of an audit event is a path, not a mode or file descriptor."""
    return isinstance(value, (str, os.PathLike))


def is_change(event, arguments):
    """Return whether an audit event announces a change of a file, compiled code aside."""
    writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if not (writing or event in EVENTS) or not is_path(arguments[0]):
        return False
    path = str(arguments[0])
    return not (path.endswith(".pyc") or "__pycache__" in path or "/dev/" in path)


if __name__ == "__main__":
    main()
