"""Connections, many and bad: floods are refused, silence costs little, and others are served meanwhile."""

import contextlib
import errno
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.service.app import running_server
from tailorbird.service.capacity import RESERVED, within_reach
from tailorbird.service.limits import Limits
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tests.protocol.engines import echo_model
from tests.stress import models
from tests.stress.memory import pss
from tests.stress.server import Server, serving

BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
REQUEST = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("connections")
    models.repository(folder, 1, ("quick",))
    return folder / "repository"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    """One for all that must not harm it."""
    with serving(repository) as running:
        assert alive(running.http)
        yield running
        assert alive(running.http)


@contextlib.contextmanager
def connections(place: str, count: int) -> Iterator[list[socket.socket]]:
    """So many open ones."""
    host, _, port = place.rpartition(":")
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(socket.create_connection((host, int(port)), timeout=20)) for _ in range(count)]


def everything(opened: socket.socket) -> bytes:
    """All that comes until the server closes, or resets."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := opened.recv(1 << 16):
            found += piece
    return found


def answers(opened: socket.socket) -> bool:
    """Whether a request on it is answered."""
    opened.sendall(REQUEST)
    return opened.recv(1 << 16).startswith(b"HTTP/1.1 200")


def alive(place: str) -> bool:
    return httpx.get(f"http://{place}/v2/health/live", timeout=20).status_code == 200


# --- HTTP ---


def test_more_connections_than_the_limit_are_told_to_come_back() -> None:
    limits = Limits(connections=5)
    with running_server(
        Hub([echo_model("echo", DType.FP32)]), ServerOptions(port=0, grpc_port=0, limits=limits)
    ) as url:
        place = url.removeprefix("http://")
        with connections(place, 5) as first:
            assert all(map(answers, first))
            with connections(place, 30) as more:
                for one in more:
                    head, _, body = everything(one).partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n")
                    assert body == b'{"error":"the server has too many connections: expected at most 5"}'
            assert all(map(answers, first)), "those that were there are served"
            first[0].close()
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with connections(place, 1) as (again,), contextlib.suppress(ConnectionError):
                    if answers(again):
                        break
                time.sleep(0.02)
            else:
                pytest.fail("the place of one that left stays taken")


def test_the_limit_leaves_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"soft": 1024, "hard": 4096}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (given["soft"], given["hard"]))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: given.update(soft=both[0]))
    asked = ServerOptions(limits=Limits(connections=6000, grpc_connections=2000))
    guest = within_reach(asked, own_process=False).limits
    assert given["soft"] == 1024, "another program's process is left as it is"
    assert (guest.connections, guest.grpc_connections) == (576, 192)
    assert guest.connections + guest.grpc_connections == 1024 - RESERVED
    own = within_reach(asked, own_process=True).limits
    assert given["soft"] == 4096
    assert (own.connections, own.grpc_connections) == (2880, 960)
    few = ServerOptions(limits=Limits(connections=100, grpc_connections=100))
    assert within_reach(few, own_process=True) is few


def test_a_flood_beyond_the_systems_own_limit(repository: Path) -> None:
    """With 200 descriptors: some are let in, the rest hear so, an instance that dies is started again meanwhile."""
    with serving(repository, descriptors=200) as server:
        with connections(server.http, 120) as crowd:
            time.sleep(0.3)
            refused = sum(is_refused(one) for one in crowd)
            assert 0 < refused < 120
            (pid,) = server.children()
            os.kill(pid, 9)
            wait_for(lambda: any(event["pid"] != pid for event in server.events("instance ready")))
        wait_for(lambda: alive_or_none(server.http))
        assert not server.events("request failed")


def test_no_descriptor_left_does_not_spin(repository: Path) -> None:
    """Its own limit is beyond what it has, so that accepting fails: it goes on when there are descriptors again."""
    with serving(repository) as server:
        before = descriptors(server)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (before + 20, before + 20))
        with connections(server.http, 60):
            began = cpu(server)
            time.sleep(2)
            assert cpu(server) - began < 0.5, "seconds of the processor in two seconds"
            assert server.process.poll() is None
        wait_for(lambda: alive_or_none(server.http))


def test_idle_connections_cost_little_and_hold_nobody_up(server: Server) -> None:
    check_idle(server, 1000)


@pytest.mark.heavy
def test_ten_thousand_idle_connections(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 11_000:
        pytest.skip(f"only {hard} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 11_000), hard))
    check_idle(server, 10_000)


def check_idle(server: Server, count: int) -> None:
    """So many connections that say nothing, and one request after another beside them."""
    before = pss(server.pid)
    with connections(server.http, count) as idle:
        wait_for(lambda: descriptors(server) > count)
        each = (pss(server.pid) - before) / count
        assert each < 16, f"{each:.1f} kB each"
        with httpx.Client(base_url=f"http://{server.http}", timeout=20) as client:
            asked = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "INT64", "data": [1, 2, 3, 4]}]}
            for _ in range(50):
                found = client.post("/v2/models/quick/infer", json=asked).json()
                assert found["outputs"][0]["data"] == [4, 7, 10, 13]
        idle[count // 2].sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\n\r\n")
        assert idle[count // 2].recv(1 << 12).startswith(b"HTTP/1.1 200"), "an idle one is as good as any"
    wait_for(lambda: descriptors(server) < count // 2)


# --- gRPC ---

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, HEADERS, RESET = 4, 6, 1, 3


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    """An HTTP/2 frame (RFC 9113, 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def infers(place: str) -> bool:
    """Whether an ordinary client gets an answer."""
    tritonclient = pytest.importorskip("tritonclient.grpc")
    with tritonclient.InferenceServerClient(place) as client:
        asked = tritonclient.InferInput("x", [1, 4], "INT64")
        asked.set_data_from_numpy(np.array([[1, 2, 3, 4]], np.int64))
        return client.infer("quick", [asked], client_timeout=20).as_numpy("y").tolist() == [[4, 7, 10, 13]]


FLOODS = {
    "pings": frame(PING, bytes(8)) * 1000,
    "settings": frame(SETTINGS) * 1000,
    "resets": b"".join(frame(HEADERS, b"", 4, 2 * n + 1) + frame(RESET, bytes(4), 0, 2 * n + 1) for n in range(500)),
    "open streams": b"".join(frame(HEADERS, b"\x83\x86\x44\x01/", 4, 2 * n + 1) for n in range(3000)),
    "garbage": os.urandom(20_000),
}


@pytest.mark.parametrize("flood", list(FLOODS))
def test_a_flood_of_frames_holds_up_nobody(server: Server, flood: str) -> None:
    assert infers(server.grpc)
    before = pss(server.pid)
    with connections(server.grpc, 3) as bad:
        for one in bad:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                one.settimeout(1)
                one.sendall(PREFACE + frame(SETTINGS))
                for _ in range(20):
                    one.sendall(FLOODS[flood])
        assert infers(server.grpc)
        assert pss(server.pid) - before < 64 << 10, "kB"


def test_grpc_connections_that_say_nothing(repository: Path) -> None:
    with serving(repository, "--max-connections", "20") as server:
        before = descriptors(server)
        with connections(server.grpc, 60):
            time.sleep(0.5)
            assert descriptors(server) < before + 30, "beyond the limit they are hung up"
            assert alive(server.http)
        wait_for(lambda: infers_or_not(server.grpc))


# --- helpers ---


def is_refused(opened: socket.socket) -> bool:
    opened.setblocking(False)
    try:
        return opened.recv(1 << 12).startswith((b"HTTP/1.1 503", b""))
    except BlockingIOError:
        return False
    except OSError as error:
        return error.errno == errno.ECONNRESET
    finally:
        opened.setblocking(True)


def wait_for(done: Callable[[], object], seconds: float = 20.0) -> None:
    """Until it is true."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.05)


def descriptors(server: Server) -> int:
    """How many the server has open."""
    return sum(1 for _ in Path(f"/proc/{server.pid}/fd").iterdir())


def alive_or_none(place: str) -> bool:
    try:
        return alive(place)
    except httpx.HTTPError:
        return False


def infers_or_not(place: str) -> bool:
    try:
        return infers(place)
    except Exception:
        return False


def cpu(server: Server) -> float:
    """Seconds of the processor that the server itself has used."""
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)
