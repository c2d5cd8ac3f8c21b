"""Kill a script with SIGKILL at a chosen moment, or let its disk fill up."""
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests.conftest import ROOT


def run_killed(number, script, *arguments):
    """Run a script, kill it before its `number`-th change of a file, and return which that was."""
    return changes_of(number, script, *arguments)[-1]


def changes_of(number, script, *arguments):
    """Run a script as `run_killed` does, with 0 to its end; return the changes printed by then."""
    done = subprocess.run([sys.executable, ROOT / "tests/killer.py", str(number), ROOT / script,
                           *map(str, arguments)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == (-signal.SIGKILL if number else 0), done.stderr
    return re.findall(r"killer: (before .*)", done.stderr)


def run_killed_when(reached, script, *arguments):
    """Run a script and kill it as soon as `reached()`; return whether it was still running."""
    process = subprocess.Popen([sys.executable, ROOT / script, *map(str, arguments)],
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while process.poll() is None and not reached():
        time.sleep(0.002)
    process.kill()
    return process.wait() == -signal.SIGKILL


def pick_moments(changes, count, seed, phases=()):
    """Return `count` seeded moments, the last change, and one change that names each phase."""
    generator, last = random.Random(seed), len(changes)
    named = [generator.choice([i for i, change in enumerate(changes, 1) if phase in change])
             for phase in phases]
    return sorted({*generator.sample(range(1, last), min(count, last - 1)), last, *named})


def lines(path):
    """Return the number of lines of a file, 0 where there is none."""
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@contextmanager
def small_disk(folder, size):
    """Yield an empty file system of so many bytes, such as "300k"; skip if none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def enlarge_disk(folder, size):
    """Give a file system made by `small_disk` another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
