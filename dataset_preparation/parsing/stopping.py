"""SIGTERM, as `kill`, service managers and a shutdown send it, ends a run in order, like Ctrl-C."""
import signal
import threading
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """The process was asked to end."""

    exit_status = 128 + signal.SIGTERM


@contextmanager
def stopped_by_signal():
    """Raise `Terminated` in the body when the process gets SIGTERM, once."""
    def stop(number, _):
        signal.signal(number, signal.SIG_IGN)  # the tables are being written
        raise Terminated
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def deferred_stop():
    """Let Ctrl-C and SIGTERM wait until the body has ended.

    A browser of which nobody has a handle yet, or that is just being closed, would be left behind.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught = []
    before = {number: signal.signal(number, lambda number, _: caught.append(number))
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if caught:
            signal.raise_signal(caught[0])
