"""Report a missing Python package, or Ctrl-C, in one sentence while a script still imports.

Importing this file is enough; it must come before the imports of third-party packages.
"""
import sys

MISSING = ("error: the Python package {!r} is not installed; activate the virtual environment that "
           "has it, or run pip install -r requirements.txt")
STOPPED = "Stopped. Run the same command again to resume."


def explain_exception(kind, error, trace):
    """Print a missing package or Ctrl-C as a sentence, any other exception as Python does."""
    if isinstance(error, ModuleNotFoundError):
        print(MISSING.format(error.name), file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print(STOPPED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = explain_exception
