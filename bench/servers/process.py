"""A server in a process of its own for as long as a block lasts, and the CPU time that it takes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tailorbird.demo.server import answers
from tailorbird.domain.errors import TailorbirdError

START_SECONDS = 90.0
STOP_SECONDS = 15.0
_HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    name: str
    pid: int
    port: int
    started: float = 0.0
    """Seconds from its start to its first sign of being ready."""

    @property
    def url(self) -> str:
        """Its address, over HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """User and system time of the server's process and all that descend from it, so far."""
        return sum(_times(one)[1] for one in family(self.pid))

    def pause(self) -> None:
        """Stop it and all that descend from it, so that it takes no time from others."""
        self._tell(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._tell(signal.SIGCONT)

    def _tell(self, number: int) -> None:
        for one in family(self.pid):
            _signal(one, number)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    ready: str = "/",
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server until the block ends; yields once a GET of ``ready`` is answered with 200.

    Args:
        name: for messages.
        command: program and arguments.
        port: of 127.0.0.1, where it will listen.
        log: a file for what it says.
        ready: the path that tells.
        env: variables beside those of this process.

    Raises:
        TailorbirdError: it ended, or was not ready in time; carries what it said last.
    """
    started = time.perf_counter()
    with log.open("wb") as said:
        # A session of its own: Ctrl-C reaches this process only, and the whole family can be ended.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                   env={**os.environ, **(env or {})}, start_new_session=True)  # fmt: skip
    try:
        await_ready(process, f"http://127.0.0.1:{port}{ready}", log, time.monotonic() + START_SECONDS)
        yield Server(name, process.pid, port, time.perf_counter() - started)
    finally:
        _stop(process)


def await_ready(process: subprocess.Popen[bytes], url: str, log: Path, deadline: float) -> None:
    """Wait for a 200; raises as :func:`running`."""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _failed(f"the server ended with {process.returncode} before it was ready", log)
        if answers(url):
            return
        time.sleep(0.02)
    raise _failed("the server was not ready in time", log)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and its descendants, as they are now. None where it is gone."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    parents = {number: _times(number)[0] for number in numbers}
    found = [pid] if pid in parents else []
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _times(pid: int) -> tuple[int, float]:
    """A process's parent, and its seconds of CPU with those of its children that it has waited for."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0, 0.0
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything; proc(5)
    return int(fields[1]), sum(map(int, fields[11:15])) / _HERTZ


def _failed(what: str, log: Path) -> TailorbirdError:
    said = log.read_text("utf-8", "replace").strip().splitlines()
    return TailorbirdError(what, got=" / ".join(said[-3:]) or "no message")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it, and whatever it leaves behind."""
    relatives = family(process.pid)
    _signal(process.pid, signal.SIGTERM)
    for one in relatives:
        _signal(one, signal.SIGCONT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for one in relatives:
            _signal(one, signal.SIGKILL)
        process.wait()


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):  # it is gone
        os.kill(pid, number)
