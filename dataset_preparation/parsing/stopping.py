"""End a run in order, as by Ctrl-C, after SIGTERM (`kill`, shutdown) and SIGHUP (closed terminal).
"""
import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager
from multiprocessing.connection import wait

STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(KeyboardInterrupt):
    """The process was asked to end by the signal of this number."""

    def __init__(self, number):
        super().__init__(number)
        self.exit_status = 128 + number


@contextmanager
def stopped_by_signal():
    """Raise `Terminated` once in the body when the process gets one of these signals.

    A signal that is ignored, such as SIGHUP under `nohup`, stays ignored.
    """
    before = {number: signal.getsignal(number) for number in STOPPING}
    wanted = [number for number in STOPPING if before[number] != signal.SIG_IGN]

    def stop(number, _):
        for other in wanted:
            signal.signal(other, signal.SIG_IGN)  # the tables are being written
        raise Terminated(number)
    for number in wanted:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, before[number])


@contextmanager
def deferred_stop():
    """Defer Ctrl-C and SIGTERM until the body has ended.

    Otherwise a browser that is just being opened or closed would be left behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = []
    before = {number: signal.signal(number, lambda number, _: caught.append(number))
              for number in (signal.SIGINT, *STOPPING)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if caught:
            signal.raise_signal(caught[0])


def exit_with_parent():
    """End this worker process as soon as its parent ends, even if that is killed, and by Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a forked process has the parent's handlers
        signal.signal(number, signal.SIG_DFL)

    def watch():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
