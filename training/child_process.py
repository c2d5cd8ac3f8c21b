"""Call a function in a child process, so that the caller survives if the process is killed.

Linux kills a process that takes too much memory with SIGKILL, without a message.
"""
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import wait

from tqdm import tqdm

from utils import InputError

# "fork" would copy locks and thread pools in any state; a fork server has only imported torch.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PATIENCE = 30  # seconds that the child gets to end by itself
CONTEXT = multiprocessing.get_context(METHOD)


class EndedEarly(InputError):
    """The child process ended without a result."""


def call_in_child(function, argument, report):
    """Return function(argument, report), called in a child process; `report` runs in this one.

    Exceptions of both are raised here and end the child. Raises EndedEarly if the child is killed.
    """
    CONTEXT.set_forkserver_preload(["__main__", function.__module__])
    connection, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=run_child, args=(theirs, function, argument))
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
            with suppress(BrokenPipeError):  # the next recv raises EOFError
                connection.send("go on")
    except (EOFError, ConnectionResetError):
        process.join()
        raise EndedEarly(f"its process was killed (status {process.exitcode}), as the system does "
                         "when memory runs out") from None
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join(PATIENCE)
        process.kill()  # if it still runs
        process.join()
        connection.close()


def run_child(connection, function, argument):
    """Call the function; send its reports, then its result or its error, to the caller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller handles Ctrl-C and ends this process
    signal.signal(signal.SIGTERM, end_cleanly)
    tqdm.set_lock(threading.RLock())  # its default lock is shared: a killed child would keep it
    threading.Thread(target=end_with_caller, daemon=True).start()

    def report(*content):
        connection.send(("report", content))
        connection.recv()
    try:
        message = "result", function(argument, report)
    except Exception as error:
        message = "error", error
    connection.send(message)


def end_cleanly(*_):
    """End this process after its `finally` blocks."""
    raise SystemExit(1)


def end_with_caller():
    """End this process as soon as the caller's ends, even if that is killed."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
