"""The real ``tailorbird serve`` in a process of its own, as the traffic and the chaos see it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil


class Server:
    """A running server.

    Args:
        process: it.
        grpc: ``host:port`` of gRPC.
    """

    def __init__(self, process: "subprocess.Popen[str]", grpc: str) -> None:
        self.process = process
        self.grpc = grpc
        self.http = ""
        self.log: list[str] = []
        self.deaf = threading.Event()
        """While it is set, nobody reads the log."""
        self._serving = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The server's own."""
        return self.process.pid

    def wait_ready(self, seconds: float = 60.0) -> None:
        """Until it takes requests."""
        assert self._serving.wait(seconds), f"it did not start: {self.log[-60:]}"
        assert self.http, f"it ended with {self.process.wait(5)}: {self.log[-60:]}"

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its journal about one event."""
        found = []
        for line in tuple(self.log):
            with contextlib.suppress(ValueError):
                if (fact := json.loads(line)).get("event") == name:
                    found.append(fact)
        return found

    def children(self) -> list[int]:
        """Processes of its instances."""
        with contextlib.suppress(psutil.Error):
            return [one.pid for one in psutil.Process(self.pid).children()]
        return []

    def stop(self, seconds: float = 45.0) -> int:
        """SIGTERM, and its exit status once it has drained."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        self._reader.join(5)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())
            del self.log[:-20_000]
            while self.deaf.is_set():
                time.sleep(0.01)
            if found := re.match(r"serving .* on http://(\S+)", line):
                self.http = found[1]
                self._serving.set()
        self._serving.set()


@contextlib.contextmanager
def serving(
    source: Path | str, *flags: str, descriptors: int | None = None, file_blocks: int | None = None, **environment: str
) -> Iterator[Server]:
    """Start it, wait until it serves, and end it in the end.

    Args:
        source: what it serves.
        flags: of the command.
        descriptors: how many the system lets it have; as many as this process by default.
        file_blocks: of 512 bytes, which a file may have; beyond them the disk is full to it.
        environment: of the process, beside this one's.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tailorbird",
        "serve",
        str(source),
        "--port",
        "0",
        "--grpc-port",
        str(port),
        *flags,
    ]
    if descriptors is not None:
        command = ["/bin/sh", "-c", 'ulimit -n "$1"; shift; exec "$@"', "sh", str(descriptors), *command]
    if file_blocks is not None:
        command = ["/bin/sh", "-c", 'ulimit -f "$1"; shift; exec "$@"', "sh", str(file_blocks), *command]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    server = Server(process, f"127.0.0.1:{port}")
    try:
        server.wait_ready()
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        if process.stderr is not None:
            process.stderr.close()


def alive(pids: list[int]) -> list[int]:
    """Those of them that still run."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    """Whether all of them end within so many seconds."""
    until = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pids)
