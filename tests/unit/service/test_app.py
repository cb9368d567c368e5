"""The server put together: start, drain, and the ways it cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import NotReady, TailorbirdError, UsageError
from tailorbird.service import app
from tailorbird.service.options import ServerOptions
from tailorbird.service.web.listener import base_url, bind
from tailorbird.serving.hub import FailedModel, Hub
from tailorbird.serving.rollout.control import ControlOptions, Mode
from tailorbird.serving.rollout.controller import Controller
from tests.processes import eventually
from tests.project import tree
from tests.protocol.engines import echo_model, session_of
from tests.unit.serving.rollout.places import Held, ScriptedPlace

ECHO = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [7]}]}

SERVE = """
import sys, threading, time
from pathlib import Path
from tailorbird.domain.dtype import DType
from tailorbird.service import app
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import FailedModel, Hub
from tailorbird.serving.rollout.controller import Controller
from tests.protocol.engines import echo_model

slow = echo_model("slow", DType.FP32, delay=0.7)

def watch():
    while slow.instance.outstanding < 2:
        time.sleep(0.01)
    print("two accepted", file=sys.stderr, flush=True)

threading.Thread(target=watch, daemon=True).start()
app.load = lambda *_, **__: Controller(Hub([slow], [FailedModel("late", 2, "altered")]))
app.serve(Path("anywhere"), ServerOptions(port=0, grpc_port=0))
sys.stderr.write("ended well\\n")
"""


@pytest.fixture
def child():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree.ROOT / "src"), str(tree.ROOT)])}
    with subprocess.Popen([sys.executable, "-c", SERVE], stderr=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(child, number):
    failed = json.loads(child.stderr.readline())
    assert (failed["event"], failed["model"], failed["version"], failed["reason"]) == (
        *("model failed to load", "late", 2, "altered"),
    )
    line = child.stderr.readline()
    assert line.startswith("serving slow/1 on http://127.0.0.1:")
    url = line.split()[-1]
    answers = []

    def work():
        answers.append(httpx.post(f"{url}/v2/models/slow/infer", json=ECHO, timeout=10))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert child.stderr.readline() == "two accepted\n"  # one runs, one waits
    child.send_signal(number)
    for thread in threads:
        thread.join()
    assert child.wait(10) == 0
    assert [(answer.status_code, answer.json()["outputs"][0]["data"]) for answer in answers] == [(200, [7.0])] * 2
    assert child.stderr.read() == "ended well\n"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/v2")


def test_a_server_in_a_thread_closes_what_it_was_given():
    hub = Hub([echo_model("echo", DType.FP32)], [FailedModel("late", 1, "")])
    with app.running_server(hub) as url:
        assert httpx.post(f"{url}/v2/models/echo/infer", json=ECHO).status_code == 200
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
    assert session_of(hub.get("echo")).closed
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/v2")


def test_a_load_does_not_hold_up_the_drain(monkeypatch):
    """What it began it refuses as soon as it drains; what it accepted it answers."""
    place, held, ends = ScriptedPlace(b=1), Held(), []
    place.scripts["b", 1] = held
    slow = echo_model("slow", DType.FP32, delay=1.5)
    controller = Controller(Hub([slow]), place, ControlOptions(mode=Mode.EXPLICIT))
    monkeypatch.setattr(app, "load", lambda *_, **__: controller)

    def load():
        with pytest.raises(NotReady, match=r"^the server is being put away$"):
            controller.load("b")
        ends.append("refused")

    def infer(url):
        assert httpx.post(f"{url}/v2/models/slow/infer", json=ECHO, timeout=20).status_code == 200
        ends.append("answered")

    with app.running_server("anywhere") as url:
        threads = [threading.Thread(target=load), threading.Thread(target=infer, args=[url])]
        threads[0].start()
        assert held.entered.wait(20)
        threads[1].start()
        eventually(lambda: slow.instance.outstanding)
    for thread in threads:
        thread.join(20)
    assert (ends, held.over.is_set()) == (["refused", "answered"], False)
    held.let_go.set()


def test_the_server_ends_when_the_body_of_with_fails():
    before = set(threading.enumerate())  # another suite's server may run for the whole session
    with pytest.raises(ZeroDivisionError), app.running_server(Hub()):
        raise ZeroDivisionError
    assert not set(threading.enumerate()) - before


def test_a_server_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(app.Listener, "serve_until_told", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError), app.running_server(Hub()):
        pass
    monkeypatch.setattr(app.Listener, "serve_until_told", lambda self: None)
    with pytest.raises(TailorbirdError, match=r"^the server ended before it started$"), app.running_server(Hub()):
        pass


def test_a_taken_port():
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(TailorbirdError) as caught:
            app.serve(tree.ROOT, ServerOptions(port=port))
    assert caught.value.message == (
        f"cannot listen on 127.0.0.1:{port}: got Address already in use\n"
        "Hint: another process listens there: choose another --port, or 0 for any free one"
    )


@pytest.mark.parametrize("host", ["999.1.1.1", "no host.invalid", "a" * 300])
def test_no_address(host):
    with pytest.raises(UsageError) as caught:
        bind(host, 0)
    assert caught.value.message.startswith(f"cannot listen on {host}:0: got ")
    assert caught.value.message.endswith(", expected a host name or an address")


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_port(port):
    with pytest.raises(
        UsageError, match=rf"^cannot listen on 127.0.0.1:{port}: got no such port, expected 0 to 65535$"
    ):
        bind("127.0.0.1", port)


def test_an_address_of_another_machine():
    with pytest.raises(TailorbirdError, match=r"Hint: choose an address of this machine with --host$"):
        bind("192.0.2.1", 0)


def test_the_url_has_the_real_port():
    with bind("127.0.0.1", 0) as bound:
        assert base_url(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_the_url_of_ipv6():
    try:
        bound = bind("::1", 0)
    except TailorbirdError as error:
        pytest.skip(f"this machine has no IPv6: {error.what}")
    with bound:
        assert base_url(bound) == f"http://[::1]:{bound.getsockname()[1]}"


def test_nothing_to_serve_releases_the_port(tmp_path):
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(UsageError, match=r"^nothing to serve at "):
        app.serve(tmp_path / "none", ServerOptions(port=port))
    bind("127.0.0.1", port).close()
