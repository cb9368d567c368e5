"""The real server, ``tailorbird serve``, in a process of its own for as long as a block lasts."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tailorbird.domain.errors import TailorbirdError

START_SECONDS = 60.0
STOP_SECONDS = 10.0
_ADDRESS = re.compile(r" on (http://\S+)")


@contextmanager
def served(repository: Path, log: Path, seconds: float = START_SECONDS) -> Iterator[str]:
    """Serve a repository on a free port; yields the base URL once every model is ready.

    Args:
        repository: what to serve.
        log: a file for what the server says.
        seconds: how long it may take to be ready.

    Raises:
        TailorbirdError: it ended, or was not ready in time; carries what it said last.
    """
    command = [sys.executable, "-P", "-m", "tailorbird", "serve", str(repository), "--port", "0"]
    with log.open("wb") as said:
        # A session of its own, so that Ctrl-C reaches this process only, and this process ends the server.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    try:
        yield _ready(process, log, time.monotonic() + seconds)
    finally:
        _stop(process)


def _ready(process: subprocess.Popen[bytes], log: Path, deadline: float) -> str:
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise _failed(f"the server ended with {process.returncode} before it was ready", log)
        found = _ADDRESS.search(log.read_text("utf-8", "replace"))
        if found and answers(f"{found[1]}/v2/health/ready"):
            return found[1]
        time.sleep(0.05)
    raise _failed("the server was not ready in time", log)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200, within two seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine needs no proxy
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _failed(what: str, log: Path) -> TailorbirdError:
    said = log.read_text("utf-8", "replace").strip().splitlines()
    return TailorbirdError(what, got=" / ".join(said[-3:]) or "no message")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also when a second Ctrl-C ends the waiting
        process.kill()
        process.wait()
