"""Benchmarks, which no other test runs, can be imported and call functions that exist."""
import ast
import importlib
import inspect

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("benchmarks/*.py")))
def test_benchmarks_import_and_call_functions_with_their_present_parameters(name):
    module = importlib.import_module(f"benchmarks.{name}")
    for call in ast.walk(ast.parse(inspect.getsource(module))):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            continue
        called = getattr(module, call.func.id, None)
        unpacked = (any(isinstance(one, ast.Starred) for one in call.args)
                    or any(one.arg is None for one in call.keywords))
        if unpacked or not inspect.isfunction(called):
            continue
        try:
            inspect.signature(called).bind(*call.args, **{one.arg: one for one in call.keywords})
        except TypeError as error:
            pytest.fail(f"line {call.lineno}: {call.func.id}: {error}")
