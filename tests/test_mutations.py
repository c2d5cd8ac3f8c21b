"""The tests notice every mutation of `mutations.py`, whose docstring says how to add one."""
import ast
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT, SHARED, copy_repository
from tests.mutations import MUTATIONS

SECONDS = 240  # for the tests of a row, on a busy machine
EVERY_TEST = sorted({test for row in MUTATIONS for test in row.tests})


@pytest.mark.parametrize("row", MUTATIONS, ids=lambda row: row.name)
def test_every_mutation_fits_the_code(row):
    assert (ROOT / row.file).read_text("utf-8").count(row.original) == 1
    assert "\n" not in row.original
    assert row.mutated != row.original
    assert row.tests and isinstance(row.tests, tuple)
    for file, name in (test.split("[")[0].split("::") for test in row.tests):
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, file


def test_mutations_have_unique_names():
    assert len({row.name for row in MUTATIONS}) == len(MUTATIONS)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Return a copy of the repository with ../shared beside it."""
    folder = copy_repository(tmp_path_factory.mktemp("mutations") / "repository")
    if SHARED.is_dir():
        (folder.parent / "shared").symlink_to(SHARED, target_is_directory=True)
    return folder


def run_tests(folder, tests, seconds=SECONDS):
    """Run tests of any mark in a folder; return their exit status and output.

    Nothing compiled is kept: a mutated file may have the size and the time of the original.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", "",
               "-p", "no:cacheprovider"]
    try:
        done = subprocess.run([*command, *tests], cwd=folder, env=environment, check=False,
                              capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return SimpleNamespace(status=None, output=f"no result within {seconds} s")
    return SimpleNamespace(status=done.returncode, output=done.stdout + done.stderr)


@pytest.mark.mutation
def test_the_named_tests_pass_on_the_original(copy):
    done = run_tests(copy, EVERY_TEST, SECONDS * len(MUTATIONS))
    assert done.status == 0, done.output


@pytest.mark.mutation
@pytest.mark.parametrize("row", MUTATIONS, ids=lambda row: row.name)
def test_every_mutation_makes_a_named_test_fail(row, copy):
    path, text = copy / row.file, (ROOT / row.file).read_text("utf-8")
    path.write_text(text.replace(row.original, row.mutated), "utf-8")
    try:
        done = run_tests(copy, row.tests)
    finally:
        path.write_text(text, "utf-8")
    # Status 1 means that tests ran and failed; a file that no longer imports ends with another.
    assert done.status == 1, done.output
    assert re.search(r"\b\d+ failed", done.output), done.output
