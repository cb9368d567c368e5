"""Servers of the serving benchmark: real processes, started, measured, ended."""

import os
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from bench.servers import process, venvs
from bench.servers.process import Server, family, free_port, running
from bench.servers.rivals import RIVALS, Spec, oip_json
from bench.servers.venvs import Environment
from bench.serving_parts.plan import Contestant, Sheet, turn
from tailorbird.demo.server import answers
from tailorbird.domain.errors import TailorbirdError

SPINNING = """
import http.server, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile True: time.sleep(60)"])
end = time.process_time() + 0.3
while time.process_time() < end: pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_server_runs_until_the_block_ends_with_all_its_children(tmp_path: Path) -> None:
    port = free_port()
    with running("spinning", [sys.executable, "-c", SPINNING, str(port)], port, tmp_path / "log") as server:
        assert urllib.request.urlopen(server.url).status == 200
        assert server.started > 0.3
        assert server.cpu_seconds() >= 0.3
        relatives = family(server.pid)
        assert len(relatives) == 2
    assert not answers(f"http://127.0.0.1:{port}/")
    deadline = time.monotonic() + 10
    while any(map(_runs, relatives)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_runs, relatives))


def _runs(pid: int) -> bool:
    """Whether a process is there and no mere entry that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_restless_server_takes_no_time_while_it_is_paused(tmp_path: Path) -> None:
    restless = SPINNING.replace("time.sleep(60)", "pass")  # its child never rests
    port = free_port()
    with running("restless", [sys.executable, "-c", restless, str(port)], port, tmp_path / "log") as server:
        one, sheet = Contestant("restless", server, (), restless=True), Sheet()
        with turn(one, sheet):
            before = server.cpu_seconds()
            deadline = time.monotonic() + 10
            while server.cpu_seconds() < before + 0.1 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert server.cpu_seconds() >= before + 0.1
        time.sleep(0.1)  # until signals have arrived
        paused = server.cpu_seconds()
        time.sleep(0.5)
        assert server.cpu_seconds() == paused
        assert not sheet.entries()


def test_a_server_that_ends_at_once_is_said_with_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    with (
        pytest.raises(TailorbirdError, match=r"ended with 1 before it was ready: got no such model"),
        running("broken", command, free_port(), tmp_path / "log"),
    ):
        pass


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_SECONDS", 0.3)
    with (
        pytest.raises(TailorbirdError, match="was not ready in time"),
        running("mute", [sys.executable, "-c", "import time; time.sleep(60)"], free_port(), tmp_path / "log"),
    ):
        pass


def test_a_process_that_is_gone_has_no_family() -> None:
    assert family(2**22 + 1) == []
    assert os.getpid() in family(os.getpid())
    assert Server("gone", 2**22 + 1, 1).cpu_seconds() == 0.0


def test_another_set_of_versions_is_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_BENCH", str(tmp_path))
    one, other = Environment("x", ("x==1.0", "y==2.0")), Environment("x", ("x==1.1", "y==2.0"))
    assert one.folder == tmp_path / "venvs" / "x-1.0-2.0"
    assert one.folder != other.folder
    assert (one.version, one.made) == ("1.0", False)


def test_an_environment_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_BENCH", str(tmp_path))
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(venvs, "_install", lambda _, packages: asked.append(packages))
    one = Environment("x", ("x==1.0",))
    one.make()
    one.make()
    assert one.python.exists()
    assert len(asked) == 1
    assert {name.partition("==")[0] for name in asked[0]} == {"x", *venvs.RUNTIMES}


def test_what_cannot_be_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILORBIRD_BENCH", str(tmp_path))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    one = Environment("x", ("tailorbird-no-such-package==9",), runtimes=False)
    with pytest.raises(TailorbirdError, match="cannot install tailorbird-no-such-package==9"):
        one.make()
    assert not one.made


def test_every_rival_is_asked_in_whole_requests() -> None:
    import numpy as np

    row = np.arange(16, dtype=np.float32)
    for rival in RIVALS:
        for request in (rival.tensor(row), rival.numbers(row)):
            head, _, body = request.partition(b"\r\n\r\n")
            assert head.startswith(b"POST /")
            assert f"Content-Length: {len(body)}".encode() in head
    assert b'"shape": [1, 16]' in oip_json(row)


def test_a_spec_is_for_one_instance_that_joins_nothing_unless_it_says_so() -> None:
    assert (Spec("double").batch, Spec("double").workers) == (1, 1)
