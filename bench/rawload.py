"""A closed loop that costs little: the same request over N kept connections, from a process of its own.

On two cores the load generator takes from the server what it burns itself. So it is a small C program
(``rawload.c``), compiled on first use where a compiler is found (about 6 µs a request), and otherwise an
:class:`asyncio.Protocol` under uvloop (about 20 µs). Every answer's status and length are checked, nothing else.

``python -m bench.rawload HOST PORT CONNECTIONS SECONDS < request`` is the fallback's process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Rates:
    """What one run gave."""

    requests: int
    seconds: float
    p50: float
    """Seconds, as ``p99``."""
    p99: float
    cpu: float
    """Seconds of CPU that the generator took, user and system."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def run(host: str, port: int, request: bytes, connections: int, seconds: float, *, compiled: bool = True) -> Rates:
    """Send ``request`` over and over, each connection one at a time, and wait for its answer before the next.

    Args:
        host: of the server.
        port: of the server.
        request: head and body, as they go over the wire; see :func:`post`.
        connections: how many, kept alive.
        seconds: how long new requests are begun.
        compiled: use the C program where a compiler is there.

    Raises:
        RuntimeError: an answer is not 200, has no Content-Length or is longer than it says; a connection ends.
    """
    program = _program() if compiled else None
    command = [program] if program else [sys.executable, "-m", "bench.rawload"]
    before = os.times()
    done = subprocess.run(
        [*command, host, str(port), str(connections), str(seconds)], input=request, capture_output=True, cwd=ROOT,
        timeout=seconds + 60, check=False,
    )  # fmt: skip
    after = os.times()
    if done.returncode:
        raise RuntimeError(done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}")
    line, _, taken = done.stdout.partition(b"\n")
    answers, elapsed = line.split()
    p50, p99 = np.quantile(np.frombuffer(taken, np.uint32), (0.5, 0.99)) / 1e9
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Rates(int(answers), float(elapsed), float(p50), float(p99), cpu)


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A POST request's bytes, kept alive."""
    lines = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


@cache
def _program() -> str | None:
    """The C program, compiled once for each process; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    folder = tempfile.TemporaryDirectory(prefix="rawload-")
    _kept.append(folder)
    program = str(Path(folder.name) / "rawload")
    built = subprocess.run([compiler, "-O2", "-o", program, str(SOURCE)], capture_output=True, check=False)
    return program if built.returncode == 0 else None


_kept: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the interpreter ends."""


@dataclass
class _Loop:
    """The fallback's run: what all its connections share."""

    request: bytes
    end: float
    over: asyncio.Future[None]
    running: int
    last: float = 0.0
    taken: array[int] = field(default_factory=lambda: array("I"))

    def answered(self, began: float) -> bool:
        """Note an answer; whether to send the next request."""
        self.last = time.perf_counter()
        self.taken.append(min(int((self.last - began) * 1e9), 2**32 - 1))
        if self.last < self.end:
            return True
        self.running -= 1
        if not self.running and not self.over.done():
            self.over.set_result(None)
        return False

    def failed(self, why: str) -> None:
        """End the run."""
        if not self.over.done():
            self.over.set_exception(RuntimeError(why))


class _Peer(asyncio.Protocol):
    """One connection of the fallback."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._head = b""
        self._missing = -1

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._loop.failed("the connection ended")

    def begin(self) -> None:
        self._head, self._missing = b"", -1
        self._began = time.perf_counter()
        self._transport.write(self._loop.request)

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._missing = self._announced(head)
        self._missing -= len(data)
        if self._missing < 0:
            self._loop.failed("more came than was announced")
        elif not self._missing and self._loop.answered(self._began):
            self.begin()

    def _announced(self, head: bytes) -> int:
        found = head.lower().partition(b"\r\ncontent-length:")[2]
        if not head.startswith(b"HTTP/1.1 200") or not found:
            self._loop.failed(f"not answered as expected: {head[:200]!r}")
        return int(found.partition(b"\r\n")[0] or 0)


async def _drive(host: str, port: int, request: bytes, connections: int, seconds: float) -> tuple[_Loop, float]:
    loop = asyncio.get_running_loop()
    shared = _Loop(request, 0.0, loop.create_future(), connections)
    peers = [(await loop.create_connection(lambda: _Peer(shared), host, port))[1] for _ in range(connections)]
    started = time.perf_counter()
    shared.end = started + seconds
    for peer in peers:
        peer.begin()
    await shared.over
    return shared, shared.last - started


def _main() -> None:
    import uvloop

    host, port, connections, seconds = sys.argv[1:5]
    request = sys.stdin.buffer.read()
    shared, elapsed = uvloop.run(_drive(host, int(port), request, int(connections), float(seconds)))
    sys.stdout.buffer.write(f"{len(shared.taken)} {elapsed:.9f}\n".encode() + shared.taken.tobytes())


if __name__ == "__main__":
    _main()
