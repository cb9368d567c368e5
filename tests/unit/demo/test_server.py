import os
import time
from pathlib import Path

import pytest

from tailorbird.demo import server
from tailorbird.demo.server import served
from tailorbird.domain.errors import TailorbirdError

STUB = """
import http.server, os, signal, sys
open({pid!r}, "w").write(str(os.getpid()))
{before}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response({status})
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("serving stub/1 on http://127.0.0.1:%d" % server.server_port, file=sys.stderr, flush=True)
server.serve_forever()
"""


class Stub:
    """A stand-in for the server's program, and whether its process lives."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch
        self.log = folder / "server.log"

    def says(self, status: int = 200, before: str = "") -> None:
        code = STUB.format(pid=str(self._folder / "pid"), status=status, before=before)
        (self._folder / "tailorbird.py").write_text(code)
        start = server.subprocess.Popen
        swapped = [os.fspath(self._folder / "tailorbird.py")]
        self._monkeypatch.setattr(
            server.subprocess, "Popen", lambda command, **rest: start([command[0], *swapped], **rest)
        )

    @property
    def lives(self) -> bool:
        try:
            os.kill(int((self._folder / "pid").read_text()), 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(tmp_path, monkeypatch)


def test_the_url_comes_when_the_server_is_ready_and_it_is_stopped_at_the_end(stub: Stub, tmp_path: Path) -> None:
    stub.says()
    with served(tmp_path, stub.log) as url:
        assert url.startswith("http://127.0.0.1:")
        assert stub.lives
    assert not stub.lives


def test_it_is_stopped_after_a_failure_and_an_interrupt(stub: Stub, tmp_path: Path) -> None:
    stub.says()
    with pytest.raises(KeyboardInterrupt), served(tmp_path, stub.log):
        raise KeyboardInterrupt
    assert not stub.lives


def test_one_that_does_not_listen_to_the_signal_is_killed(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 0.3)
    stub.says(before="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    with served(tmp_path, stub.log):
        assert stub.lives
    assert not stub.lives


def test_one_that_ends_is_noticed_at_once_with_what_it_said(stub: Stub, tmp_path: Path) -> None:
    stub.says(before="sys.exit('error: no such repository')")
    start = time.monotonic()
    with pytest.raises(TailorbirdError) as caught, served(tmp_path, stub.log):
        pass
    assert caught.value.message == "the server ended with 1 before it was ready: got error: no such repository"
    assert time.monotonic() - start < 20


def test_one_that_is_never_ready_is_given_up_and_stopped(stub: Stub, tmp_path: Path) -> None:
    stub.says(status=503)
    late = pytest.raises(TailorbirdError, match="the server was not ready in time: got serving stub/1")
    with late, served(tmp_path, stub.log, seconds=3):
        pass
    assert not stub.lives
