"""A function in a process of its own, whose end is not the caller's.

On Linux the system ends a process that takes too much memory with SIGKILL and without a word.
"""
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import wait

from tqdm import tqdm

from utils import InputError

# "fork" would copy locks and thread pools in whatever state; a fork server has torch, and no more.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PATIENCE = 30  # seconds that a process gets to end
CONTEXT = multiprocessing.get_context(METHOD)


class EndedEarly(InputError):
    """The process ended without a result."""


def call_apart(function, argument, report):
    """Return function(argument, report), called in a new process, `report` in this one.

    What either raises is raised here, and the process then ends. Raises EndedEarly where it ended
    by itself.
    """
    CONTEXT.set_forkserver_preload(["__main__", function.__module__])
    connection, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=answer, args=(theirs, function, argument))
    process.start()
    theirs.close()
    try:
        while True:
            kind, content = connection.recv()
            if kind == "result":
                return content
            if kind == "error":
                raise content
            report(*content)
            with suppress(BrokenPipeError):  # receiving says so, too
                connection.send("go on")
    except (EOFError, ConnectionResetError):
        process.join()
        raise EndedEarly(f"its process was ended from outside (status {process.exitcode}), as the "
                         "system does where memory is used up") from None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join(PATIENCE)
        process.kill()  # if it still runs
        process.join()
        connection.close()


def answer(connection, function, argument):
    """Call the function in this process, send its reports, and then its result or its error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who ends this process
    signal.signal(signal.SIGTERM, tidy_up)
    tqdm.set_lock(threading.RLock())  # its own is shared by processes, and missed after a kill
    threading.Thread(target=end_with_caller, daemon=True).start()

    def report(*content):
        connection.send(("report", content))
        connection.recv()
    try:
        message = "result", function(argument, report)
    except Exception as error:
        message = "error", error
    connection.send(message)


def tidy_up(*_):
    """End this process as if it had come to its end."""
    raise SystemExit(1)


def end_with_caller():
    """End this process at once when the one that started it ends, even if that was killed."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
