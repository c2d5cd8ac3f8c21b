"""Standard streams that nobody holds the other end of: closed ones, and a pipe that is not read."""
import errno
import os
import sys
from contextlib import contextmanager

UNREAD = "the program that read the output ended before this one; run the same command again"


@contextmanager
def standard_streams():
    """Give a script its standard streams; a closed one is empty, or nothing reads it.

    That the output is no longer read, as with `... | head`, is an error inside, and none after it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 open until the end
    if hasattr(sys.stdout, "reconfigure"):  # as stderr: a letter that cannot be shown ends no run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except BrokenPipeError as error:
        discard_output()
        raise BrokenPipeError(errno.EPIPE, UNREAD) from error
    try:
        sys.stdout.flush()  # else Python complains at its end, with a status of its own
    except BrokenPipeError:
        discard_output()


def discard_output():
    """Send what else is printed nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
