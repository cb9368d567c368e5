"""Faults that several tests make: a disk with little room, and a process that kills itself before a step."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

KILL_BEFORE = """
import os, signal, sys

def kill_before(step):
    def count(event, arguments):
        nonlocal step
        if event == "open" or event.partition(".")[0] in ("os", "shutil", "fcntl"):
            step -= 1
            if step == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
"""
"""Audit events mark the steps: each open, rename, mkdir, remove, lock and copy. For programs that tests run."""


@contextlib.contextmanager
def small_tmpfs(folder: Path, size: str) -> Iterator[None]:
    """A file system of ``size`` on ``folder``; skips the test where none can be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tailorbird-test", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
