"""A step in a process of its own: every way it can end becomes a value here, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends.isolate import Worker
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import (
    InputError,
    RepositoryError,
    StepCrashed,
    StepError,
    StepOutOfMemory,
    StepTimedOut,
)
from tests.unit.backends.isolate_steps import Back, Given

HERE = str(Path(__file__).parent)
GIB = 1 << 30


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "steps.log"


@pytest.fixture
def worker(log: Path) -> Iterator[Worker]:
    with Worker(Limits(seconds=30, memory_bytes=GIB), log, (HERE,)) as one:
        yield one


def call(worker: Worker, step: str, number: int = 0, text: str = "", result: Any = Back) -> Any:
    return worker.call(f"isolate_steps:{step}", Given(number, text), result)


def still_works(worker: Worker) -> None:
    assert call(worker, "echo", 7, "ok") == Back(7, "ok")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone_within(seconds: float, pid: int) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_alive(pid):
        time.sleep(0.02)
    return not is_alive(pid)


def open_files() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir())


def test_a_result_comes_back(worker: Worker) -> None:
    assert call(worker, "echo", -3, "naïve\n\0") == Back(-3, "naïve\n\0")


def test_calls_share_one_process_in_a_group_of_its_own(worker: Worker) -> None:
    first, second = call(worker, "pid"), call(worker, "pid")
    assert first == second
    assert first.text == str(first.number) != str(os.getpgid(0))
    assert worker.peak_bytes > 0


def test_a_segmentation_fault_is_a_crash_with_its_last_words(worker: Worker) -> None:
    with pytest.raises(StepCrashed) as crashed:
        call(worker, "segfault")
    assert crashed.value.message == "step 'segfault' crashed: got SIGSEGV; it said: about to touch address 0"
    still_works(worker)


def test_a_kill_is_a_crash(worker: Worker) -> None:
    with pytest.raises(StepCrashed) as crashed:
        call(worker, "kill_itself")
    assert crashed.value.message == "step 'kill_itself' crashed: got SIGKILL"
    still_works(worker)


@pytest.mark.parametrize("status", [0, 3])
def test_an_exit_without_a_result_is_a_crash(worker: Worker, status: int) -> None:
    with pytest.raises(StepCrashed) as crashed:
        call(worker, "leave", status)
    assert crashed.value.message == f"step 'leave' crashed: got exit status {status}"
    still_works(worker)


def test_a_process_left_behind_hides_no_crash(worker: Worker) -> None:
    start = time.monotonic()
    with pytest.raises(StepCrashed, match=r"got exit status 5$"):
        call(worker, "leave_a_process_behind", 5)
    assert time.monotonic() - start < 20
    still_works(worker)


def test_a_step_that_closes_the_pipe_and_lives_on_is_ended(worker: Worker) -> None:
    with pytest.raises(StepCrashed, match=r"got SIGKILL$"):
        call(worker, "close_everything_and_hang")
    still_works(worker)


def test_an_exception_is_a_step_error_and_its_traceback_is_in_the_log(worker: Worker, log: Path) -> None:
    with pytest.raises(StepError) as failed:
        call(worker, "fail", text="no such layer")
    assert type(failed.value) is StepError
    assert failed.value.message == "the step failed: got ValueError: no such layer"
    assert "in fail\n" in log.read_text()
    still_works(worker)


def test_a_failed_allocation_is_a_step_error(worker: Worker) -> None:
    with pytest.raises(StepError, match=r"^the step ran out of memory$"):
        call(worker, "fail_of_memory")


@pytest.mark.parametrize("path", ["isolate_steps:nothing", "no_such_module:f"])
def test_an_unknown_step_is_a_step_error(worker: Worker, path: str) -> None:
    with pytest.raises(StepError, match=r"^the step failed: got (AttributeError|ModuleNotFoundError)"):
        worker.call(path, Given(), Back)


def test_error_classes_survive_the_border(worker: Worker) -> None:
    with pytest.raises(InputError) as refused:
        call(worker, "refuse", 3)
    assert refused.value.message == "input 'x' is odd: got 3, expected even\nHint: add one"
    with pytest.raises(RepositoryError) as unknown:
        call(worker, "find_no_model")
    assert unknown.value.message == "unknown model 'bret'\nHint: did you mean 'bert'?"


def test_a_hanging_step_is_stopped(log: Path) -> None:
    with Worker(Limits(seconds=1.5), log, (HERE,)) as worker:
        child = call(worker, "pid").number
        with pytest.raises(StepTimedOut) as stopped:
            call(worker, "hang")
        assert stopped.value.message == (
            "step 'hang' took too long and was stopped: expected at most 1.5 s\n"
            "Hint: raise the time limit with --time-limit"
        )
        assert not is_alive(child)


def test_too_much_memory_is_stopped(log: Path) -> None:
    with Worker(Limits(seconds=60, memory_bytes=256 << 20), log, (HERE,)) as worker:
        with pytest.raises(StepOutOfMemory) as stopped:
            call(worker, "allocate", 400)
        assert stopped.value.expected == "at most 256 MiB"
        assert stopped.value.what == "step 'allocate' used too much memory and was stopped"
        assert stopped.value.hint == "raise it with --memory-limit, or build smaller shapes"
        assert 256 << 20 < worker.peak_bytes < GIB
        still_works(worker)


def test_a_flood_of_prints_blocks_nothing(worker: Worker, log: Path) -> None:
    assert call(worker, "flood", 1000) == Back(1000, "done")
    assert log.stat().st_size == 2 * 1000 * 100 * 18


def test_prints_without_a_log_are_thrown_away() -> None:
    with Worker(Limits(seconds=30), search_path=(HERE,)) as worker:
        assert call(worker, "flood", 100).text == "done"


def test_large_arguments_and_results_pass(worker: Worker) -> None:
    size = 20 << 20
    assert len(call(worker, "large", size).text) == size
    assert call(worker, "echo", text="x" * size).text == "x" * size


def test_nobody_answers_a_step_that_asks(worker: Worker) -> None:
    with pytest.raises(StepError, match="EOFError"):
        call(worker, "ask")
    still_works(worker)


def test_the_working_directory_is_not_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('wrong numpy')")
    monkeypatch.chdir(tmp_path)
    with Worker(Limits(seconds=30), search_path=(HERE,)) as worker:
        path = call(worker, "where").text.split("\n")
    assert path[0] == HERE
    assert not {"", str(tmp_path)} & set(path)


def test_close_ends_the_child_and_what_it_started(log: Path) -> None:
    worker = Worker(Limits(seconds=30), log, (HERE,))
    child, grandchild = call(worker, "pid").number, call(worker, "start_a_process").number
    assert is_alive(child)
    assert is_alive(grandchild)
    worker.close()
    worker.close()
    assert gone_within(5, child)
    assert gone_within(5, grandchild)


def test_closing_leaves_no_file_open(log: Path) -> None:
    open_before = len(open_files())
    for _ in range(3):
        with Worker(Limits(seconds=30), log, (HERE,)) as worker:
            still_works(worker)
    assert len(open_files()) == open_before


def test_a_result_of_another_shape_is_an_error_here(worker: Worker) -> None:
    with pytest.raises(StepError) as failed:
        call(worker, "echo", result=int)
    assert failed.value.message == "step 'echo' gave an unusable result: got Expected `int`, got `object`"


PARENT = f"""
import sys
from tailorbird.backends.isolate import Worker
from tailorbird.domain.config import Limits
sys.path.insert(0, {HERE!r})
from isolate_steps import Back, Given
with Worker(Limits(seconds=60), search_path=({HERE!r},)) as worker:
    print(worker.call("isolate_steps:pid", Given(), Back).number, flush=True)
    worker.call("isolate_steps:hang", Given(), Back)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_the_child_ends_with_its_parent(number: signal.Signals) -> None:
    command = [sys.executable, "-c", textwrap.dedent(PARENT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_alive(child)
        parent.send_signal(number)
        assert parent.wait(10) == -number
    assert gone_within(5, child)
