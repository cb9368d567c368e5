"""Our own server, the real ``tailorbird serve``, in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.servers.process import Server, free_port, running

ISOLATIONS = ("thread", "process")


@contextmanager
def served(source: Path, isolation: str, folder: Path, *flags: str) -> Iterator[Server]:
    """It serves a bundle or a repository until the block ends; yields when every model is ready.

    Args:
        source: what to serve.
        isolation: one of :data:`ISOLATIONS`.
        folder: an existing one, for its log.
        flags: further ones of ``tailorbird serve``.

    Raises:
        TailorbirdError: it ended, or was not ready in time.
    """
    port, name = free_port(), f"tailorbird {isolation}"
    command = [sys.executable, "-P", "-m", "tailorbird", "serve", str(source), "--port", str(port), "--grpc-port", "0",
               "--isolation", isolation, *flags]  # fmt: skip
    with running(name, command, port, folder / "log", ready="/v2/health/ready") as server:
        yield server
