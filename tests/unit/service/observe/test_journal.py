"""The log: lines on stderr, which never hold anybody up."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tailorbird.service.observe import journal
from tailorbird.service.observe.journal import Journal


def test_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    journal.record("it rains", model="tiny", seconds=1.5, nothing=None)
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {"event": "it rains", "model": "tiny", "seconds": 1.5, "nothing": None}


@pytest.mark.parametrize("what", [None, "closed"])
def test_without_stderr_nothing_fails(monkeypatch: pytest.MonkeyPatch, what: str | None) -> None:
    with Path(os.devnull).open("w") as file:
        monkeypatch.setattr(sys, "stderr", file if what else None)
    journal.record("nobody hears it")


def unread(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let stderr be a pipe; returns its other end."""
    theirs, ours = os.pipe()
    monkeypatch.setattr(sys, "stderr", os.fdopen(ours, "w"))
    return theirs


def read(theirs: int) -> list[dict[str, object]]:
    """All that is in the pipe."""
    os.set_blocking(theirs, False)
    found = b""
    try:
        while piece := os.read(theirs, 1 << 16):
            found += piece
    except BlockingIOError:
        pass
    return [json.loads(line) for line in found.splitlines()]


def test_a_pipe_that_nobody_reads_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit waits in order, and what is too much is said to be missing."""
    theirs, lines = unread(monkeypatch), Journal(most=100)

    def write() -> None:
        for number in range(2000):
            lines.add(json.dumps({"number": number, "words": "x" * 90}).encode() + b"\n")

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(20)
    assert not writer.is_alive(), "it waits for a reader"
    before = [one["number"] for one in read(theirs)]
    lines.flush()
    after = read(theirs)
    assert before == list(range(len(before)))
    dropped = 2000 - 100 - len(before)
    assert after[0] == {"event": "log lines were dropped", "lines": dropped}
    assert [one["number"] for one in after[1:]] == list(range(1900, 2000))
    os.close(theirs)
    lines.add(b"{}\n")  # and nobody is there any more
    sys.stderr.close()


def test_a_line_longer_than_a_pipe_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, lines = unread(monkeypatch), Journal()
    words = "trace " * 50_000
    lines.add(json.dumps({"words": words}).encode() + b"\n")
    lines.add(b'{"next": 1}\n')
    found = b""
    while not found.endswith(b'{"next": 1}\n'):
        found += os.read(theirs, 1 << 16)
        lines.flush()
    assert json.loads(found.splitlines()[0]) == {"words": words}
    os.close(theirs)
    sys.stderr.close()


PROGRAM = """
import sys
from tailorbird.service.observe import journal
for number in range(200):
    journal.record("line", number=number)
"""


def test_what_waits_is_written_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True, check=True)
    assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(200))


def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", PROGRAM], stderr=full, check=False)
    assert done.returncode == 0
