"""Run steps in a process of their own: time limit, memory limit; a crash becomes an error value.

A :class:`Worker` is one child process that runs named functions one after another, so that an engine
opened by one call is still open for the next. Arguments and results are msgspec structs as JSON over
pipes; arrays travel as ``.npz`` files. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from tailorbird.domain.closing import Closing
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import StepCrashed, StepError, StepOutOfMemory, StepTimedOut, error_from_dict

R = TypeVar("R")

_TICK = 0.02
"""Seconds between two looks at the child's memory and clock."""

_GRACE = 2.0
"""Seconds that a child which closed its pipe has to end."""


class Call(msgspec.Struct, frozen=True):
    """One request to the child: ``module:function`` and its argument as JSON."""

    function: str
    argument: msgspec.Raw


class Reply(msgspec.Struct, frozen=True):
    """What came back: the result as JSON, or an error as plain data."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] | None = None


class Worker(Closing):
    """A child process that runs functions of this package.

    The child ends with the thread that started it: make the first call from one that outlives the last.

    Args:
        limits: wall-clock seconds for each call, and resident bytes at any moment.
        log: file that receives what the child and its vendor libraries print; None throws it away.
        search_path: directories put before ``sys.path`` in the child, for a user's own modules.
        scratch: an existing directory for the child's temporary files, which vendor libraries leave behind.
    """

    def __init__(
        self,
        limits: Limits,
        log: Path | None = None,
        search_path: tuple[str, ...] = (),
        scratch: Path | None = None,
    ) -> None:
        self._limits = limits
        self._environment = {**os.environ, **({"TMPDIR": str(scratch)} if scratch else {})}
        self._log = log
        self._search_path = search_path
        self._child: subprocess.Popen[bytes] | None = None
        self._replies: IO[bytes] | None = None
        self._peak = 0

    @property
    def peak_bytes(self) -> int:
        """Most resident memory seen of the child, in bytes."""
        return self._peak

    def call(self, function: str, argument: msgspec.Struct, result: type[R]) -> R:
        """Run ``module:function`` on ``argument`` in the child and wait for its result.

        Raises:
            StepTimedOut, StepOutOfMemory, StepCrashed: the child was killed or died; a later call
                starts a fresh one.
            TailorbirdError: whatever the function raised, rebuilt here.
        """
        child = self._started()
        line = msgspec.json.encode(Call(function, msgspec.Raw(msgspec.json.encode(argument))))
        with contextlib.suppress(BrokenPipeError):
            assert child.stdin is not None
            child.stdin.write(line + b"\n")
            child.stdin.flush()
        reply = msgspec.json.decode(self._await(child, function), type=Reply)
        if reply.error is not None:
            raise error_from_dict(reply.error)
        try:
            return msgspec.json.decode(reply.result, type=result)
        except msgspec.ValidationError as error:  # for example a NaN, which JSON turns into null
            raise StepError(f"{_step(function)} gave an unusable result", got=error) from error

    def close(self) -> None:
        """End the child and everything it started; a second call does nothing."""
        if self._child is not None:
            _kill(self._child)
            self._child = None
        if self._replies is not None:
            self._replies.close()
            self._replies = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            read_end, write_end = os.pipe()
            self._replies = os.fdopen(read_end, "rb")
            try:
                with _log_file(self._log) as log:
                    self._child = _spawn(write_end, log, self._search_path, self._environment)
            finally:
                os.close(write_end)
        return self._child

    def _await(self, child: subprocess.Popen[bytes], function: str) -> bytes:
        """The child's next reply line; kills it when it goes over a limit."""
        assert self._replies is not None
        deadline = time.monotonic() + self._limits.seconds
        received = bytearray()
        while not received.endswith(b"\n"):
            ended = child.poll() is not None
            if select.select([self._replies], [], [], _TICK)[0]:
                piece = os.read(self._replies.fileno(), 1 << 16)
                ended = not piece
                received += piece
            if ended:  # a process that the step left behind may keep the pipe open
                raise self._died(child, function)
            self._enforce(child, deadline, function)
        return bytes(received)

    def _enforce(self, child: subprocess.Popen[bytes], deadline: float, function: str) -> None:
        resident = _resident_bytes(child.pid)
        self._peak = max(self._peak, resident)
        if resident > self._limits.memory_bytes:
            self.close()
            raise StepOutOfMemory(f"{_step(function)} used too much memory and was stopped", got=_mib(resident),
                                  expected=f"at most {_mib(self._limits.memory_bytes)}",
                                  hint="raise it with --memory-limit, or build smaller shapes")  # fmt: skip
        if time.monotonic() > deadline:
            self.close()
            raise StepTimedOut(f"{_step(function)} took too long and was stopped",
                               expected=f"at most {self._limits.seconds:g} s",
                               hint="raise the time limit with --time-limit")  # fmt: skip

    def _died(self, child: subprocess.Popen[bytes], function: str) -> StepCrashed:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closed the pipe and lives on
            child.wait(timeout=_GRACE)
        self.close()
        code = child.returncode
        cause = _signal_name(-code) if code < 0 else f"exit status {code}"
        said = _last_words(self._log)
        return StepCrashed(f"{_step(function)} crashed", got=cause + (f"; it said: {said}" if said else ""))


def _spawn(
    write_end: int, log: IO[bytes] | int, search_path: tuple[str, ...], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    # -u: a crash must not take the last words with it. -P: a user's ./onnx.py must not replace onnx.
    command = [
        sys.executable,
        "-u",
        "-P",
        "-m",
        "tailorbird.backends.isolated",
        str(write_end),
        str(os.getpid()),
        *search_path,
    ]
    # A session of its own: Ctrl-C reaches the parent alone, which then ends the child in order.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=(write_end,),
                            env=environment, start_new_session=True)  # fmt: skip


@contextlib.contextmanager
def _log_file(path: Path | None) -> Iterator[IO[bytes] | int]:
    if path is None:
        yield subprocess.DEVNULL
    else:
        with path.open("ab") as file:
            yield file


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
    child.wait()


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_words(log: Path | None, limit: int = 300) -> str:
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(-min(limit, log.stat().st_size), os.SEEK_END)
        return " ".join(file.read(limit).decode("utf-8", "replace").split())


def _step(function: str) -> str:
    return f"step '{function.rpartition(':')[2]}'"


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
