"""One process of an instance, seen from the server: started, watched, ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from enum import Enum, auto

from tailorbird.domain.closing import Closing
from tailorbird.domain.errors import BackendError, TailorbirdError
from tailorbird.domain.files import reason
from tailorbird.serving.processes.memory import Segment

MODULE = "tailorbird.serving.processes.child"
"""What the process runs."""

_WORDS_BYTES = 4096
_LAST_LOOK_BYTES = 1 << 20


class Wake(Enum):
    """Why waiting for a process ended."""

    MESSAGE = auto()
    ENDED = auto()
    LATE = auto()


class Child(Closing):
    """A process, the line to it and the two segments that it shares with the server.

    It dies with the thread that makes it: that one must outlive it.

    Args:
        name: of the instance, for errors.
        segment_bytes: what either segment may grow to.

    Raises:
        BackendError: the system gives no process, descriptor or memory.
    """

    def __init__(self, name: str, segment_bytes: int) -> None:
        self._verdict: TailorbirdError | None = None
        self._words = bytearray()
        with contextlib.ExitStack() as made:
            try:
                self._make(made, segment_bytes)
            except OSError as error:
                raise BackendError(f"cannot start a process for {name}", got=reason(error)) from error
            self._made = made.pop_all()
        self._name = name

    def _make(self, made: contextlib.ExitStack, segment_bytes: int) -> None:
        self.inputs = made.enter_context(Segment.create(segment_bytes))
        self.outputs = made.enter_context(Segment.create(segment_bytes))
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.enter_context(self.control)
        with theirs:
            self._process = _spawned(theirs.fileno(), self.inputs.descriptor, self.outputs.descriptor)
        assert self._process.stdout is not None
        self._printed = made.enter_context(self._process.stdout)
        made.callback(self._process.wait)
        made.callback(self._process.kill)
        self._pidfd = os.pidfd_open(self._process.pid)
        made.callback(os.close, self._pidfd)
        os.set_blocking(self._printed.fileno(), False)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def wait(self, seconds: float | None = None, *, message: bool = False) -> Wake:
        """Wait until it ends, and keep the last of what it prints meanwhile.

        Args:
            seconds: at most; None for as long as it takes.
            message: also return when there is a message on the line.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        for number in (self._pidfd, self._printed.fileno(), *([self.control.fileno()] if message else [])):
            poll.register(number, select.POLLIN)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            woken = [number for number, _ in poll.poll(left)]
            if self._printed.fileno() in woken and not self._listen():
                poll.unregister(self._printed.fileno())
            if message and self.control.fileno() in woken:
                return Wake.MESSAGE
            if self._pidfd in woken:
                return Wake.ENDED
            if not woken:
                return Wake.LATE

    def condemn(self, error: TailorbirdError) -> None:
        """Kill it, and let ``error`` be the reason unless it had ended already; from any thread."""
        if self._process.poll() is None:
            self._verdict = self._verdict or error
            self._process.kill()

    def dismiss(self) -> None:
        """Tell it that nothing more will come: it ends once it has answered what it was sent; from any thread."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End it at once; from any thread."""
        self._process.kill()

    def cause(self) -> TailorbirdError:
        """Why it ended, once it has."""
        code = self._process.wait()
        if self._verdict is not None:
            return self._verdict
        return BackendError(f"{self._name} crashed", got=signal_name(-code) if code < 0 else f"exit status {code}")

    def words(self, limit: int = 600) -> str:
        """The last of what it printed, for a log. Call it once the process has ended."""
        self._listen(_LAST_LOOK_BYTES)
        return " ".join(self._words.decode("utf-8", "replace").split())[-limit:]

    def close(self) -> None:
        """Kill it if it lives, and give back what it held here; a second call does nothing."""
        self._made.close()

    def _listen(self, most: int = 1 << 16) -> bool:
        """Read what is printed; False once nobody can print any more."""
        try:
            piece = os.read(self._printed.fileno(), most)
        except BlockingIOError:
            return True
        self._words += piece
        del self._words[:-_WORDS_BYTES]
        return bool(piece)


def _spawned(line: int, inputs: int, outputs: int) -> subprocess.Popen[bytes]:
    # -u: a crash must not take the last words with it. -P: a user's ./onnx.py must not replace onnx.
    command = [sys.executable, "-u", "-P", "-m", MODULE, *map(str, (line, inputs, outputs, os.getpid()))]
    # A session of its own: Ctrl-C reaches the server alone, which then ends the process in order.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(line, inputs, outputs),
        start_new_session=True,
    )


def signal_name(number: int) -> str:
    """``SIGSEGV``, or ``signal 64`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
