"""Standard streams without another end: closed streams, and pipes that nobody reads."""
import errno
import os
import sys
from contextlib import contextmanager

UNREAD = "the program that read the output ended before this one; run the same command again"


@contextmanager
def standard_streams():
    """Replace closed standard streams by os.devnull while a script runs.

    A broken output pipe (`... | head`) is an error while the script prints, not at its very end.
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
        sys.stdout.flush()  # else Python fails at its exit, with its own message and status
    except BrokenPipeError:
        discard_output()


def discard_output():
    """Discard everything that is printed from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
