"""A function in a child process: results, reports and errors; either process may end first."""
import os
import signal
import sys
import time

import pytest

from training.child_process import EndedEarly, call_in_child


def work(kind, report):
    """Report twice, then do what `kind` says."""
    report(1, os.getpid())
    report(2, os.getpid())
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "fail":
        raise KeyError("a fact")
    return kind, os.getpid()


def call(kind):
    reports = []
    try:
        result = call_in_child(work, kind, lambda *content: reports.append(content))
    except Exception as error:
        result = error
    assert [step for step, _ in reports] == [1, 2]
    return result, reports[0][1]


def test_results_and_errors_come_from_another_process():
    (kind, process), reported = call("return")
    assert kind == "return" and process == reported != os.getpid()
    error, process = call("fail")
    assert isinstance(error, KeyError) and error.args == ("a fact",)
    assert process != os.getpid()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_killed_process_is_an_error_and_an_error_of_the_caller_ends_it():
    error, _ = call("die")
    assert isinstance(error, EndedEarly) and f"status {-signal.SIGKILL}" in str(error)
    processes = []

    def stop(step, process):
        processes.append(process)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        call_in_child(work, "return", stop)
    for _ in range(500):
        try:
            os.kill(processes[0], 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        raise AssertionError("it still runs")
