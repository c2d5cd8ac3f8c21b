"""Run a script and kill it with SIGKILL at its N-th change to the file system.

    python tests/killer.py N script.py arguments ...

Counts, in the script's own process, every file opened for writing, renamed, removed or truncated, just before it
happens, and prints what the kill came before. N = 0 kills never and prints the number of changes at the end.
"""
import atexit
import os
import runpy
import signal
import sys

WRITING = os.O_WRONLY | os.O_RDWR
EVENTS = {"os.rename", "os.remove", "os.truncate", "os.rmdir", "shutil.copyfile"}


def main():
    wanted, script = int(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    sys.path[0] = os.path.dirname(os.path.abspath(script))  # noqa: PTH100, PTH120 as `python script.py` sets it
    count, own = 0, os.getpid()

    def hook(event, arguments):
        nonlocal count
        writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
        if not (writing or event in EVENTS) or os.getpid() != own or not isinstance(arguments[0], (str, os.PathLike)):
            return
        if str(arguments[0]).endswith(".pyc") or "__pycache__" in str(arguments[0]) or "/dev/" in str(arguments[0]):
            return
        count += 1
        if count == wanted:
            paths = [argument for argument in arguments[:2] if isinstance(argument, (str, os.PathLike))]
            os.write(2, f"killer: before {event} {' -> '.join(map(str, paths))}\n".encode())
            os.kill(own, signal.SIGKILL)
    if wanted == 0:
        atexit.register(lambda: os.getpid() == own and print(f"killer: events={count}", file=sys.stderr))
    sys.addaudithook(hook)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
