"""SIGTERM, as `kill`, service managers and a shutdown send it, ends a run in order, like Ctrl-C."""
import signal
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
