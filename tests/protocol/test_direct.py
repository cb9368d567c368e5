"""Small requests go the direct way, and nobody can tell: the same answers, limits, order and ends as by ASGI."""

import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.service.app import running_server
from tailorbird.service.limits import Limits
from tailorbird.service.options import ServerOptions
from tailorbird.service.web.heads import REMEMBERED_BYTES, WHOLE_BYTES
from tailorbird.serving.hub import Hub
from tests.protocol.engines import echo_model
from tests.protocol.test_sockets import Wire

LIMITS = Limits(read_seconds=0.5, idle_seconds=1.0, body_bytes=1 << 20)
PATH = "/v2/models/echo/infer"


@pytest.fixture(scope="module")
def server():
    models = [echo_model("echo", DType.FP32), echo_model("slow", DType.FP32, delay=0.4)]
    with running_server(Hub(models), ServerOptions(port=0, grpc_port=0, limits=LIMITS)) as url:
        yield url


@pytest.fixture
def connect(server):
    place = urlsplit(server)

    @contextmanager
    def connected():
        with socket.create_connection((place.hostname, place.port), timeout=10) as opened:
            yield Wire(opened)

    return connected


def body_of(*values):
    data = ",".join(map(str, values))
    return f'{{"inputs":[{{"name":"x","shape":[{len(values)}],"datatype":"FP32","data":[{data}]}}]}}'.encode()


def asking(body, *lines, path=PATH, length=None):
    """A request whose head is the same for all bodies of one length."""
    head = [f"POST {path} HTTP/1.1", "Host: t", *lines, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def values_of(reply):
    status, _, body = reply
    assert status == 200, body
    return json.loads(body)["outputs"][0]["data"]


def test_a_head_seen_before_has_its_own_body_each_time(connect):
    with connect() as wire:
        for number in range(10, 40):
            assert values_of(wire.send(asking(body_of(number, number + 1))).reply()) == [number, number + 1]


def test_equal_heads_of_many_connections(connect):
    def client(number):
        with connect() as wire:
            return all(
                values_of(wire.send(asking(body_of(number, turn))).reply()) == [number, turn] for turn in range(10, 60)
            )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(client, range(10, 18)))


@pytest.mark.parametrize("known", [False, True])
def test_a_request_cut_anywhere(connect, known):
    request = asking(body_of(1.5, 2.5), f"X-Cut: {known}")
    for cut in range(1, len(request), 7):
        with connect() as wire:
            if known:
                assert values_of(wire.send(request).reply()) == [1.5, 2.5]
            wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.send(request[:cut])
            time.sleep(0.005)
            assert values_of(wire.send(request[cut:]).reply()) == [1.5, 2.5]
            assert values_of(wire.send(request).reply()) == [1.5, 2.5]


def test_pipelined_requests_of_all_kinds_are_answered_in_order(connect):
    random = np.random.default_rng(7)
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n"
    chunked = b"POST %b HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    with connect() as wire:
        for _ in range(20):
            sent, expected = b"", []
            for number in random.integers(10, 99, 8):
                kind = random.integers(0, 4)
                body = body_of(number)
                expected.append(None if kind == 0 else [number])
                sent += (live, chunked % (PATH.encode(), len(body), body), asking(body), asking(body, "X-A: b"))[kind]
            for cut in (0, 1):
                half = len(sent) // 2
                wire.send(sent[:half] if cut == 0 else sent[half:])
            for values in expected:
                reply = wire.reply()
                assert json.loads(reply[2]) == {"live": True} if values is None else values_of(reply) == values


def test_requests_behind_one_that_takes_long_wait_their_turn(connect):
    with connect() as wire:
        slow = asking(body_of(1), path="/v2/models/slow/infer")
        wire.send(asking(body_of(5))).reply()
        wire.send(slow + asking(body_of(2)))
        time.sleep(0.05)
        wire.send(asking(body_of(3)) + asking(body_of(4)))
        assert [values_of(wire.reply()) for _ in range(4)] == [[1], [2], [3], [4]]


def by_asgi(request):
    """The same request with its body in one chunk, which is not for the direct way."""
    head, _, body = request.partition(b"\r\n\r\n")
    head = re.sub(rb"\r\nContent-Length: \d+", b"", head)
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize(
    "request_",
    [
        asking(body_of(1, 2)),
        asking(b"{}"),
        asking(b"not JSON"),
        asking(body_of(1), path="/v2/models/nobody/infer"),
        asking(body_of(1), path="/v2/models/echo/versions/7/infer"),
        asking(body_of(1), path="/v2/nothing"),
        asking(body_of(1), path="/v2/models/echo"),
        asking(body_of(1), "Inference-Header-Content-Length: 9999"),
        asking(body_of(1), "Inference-Header-Content-Length: x"),
        asking(b'{"ready":true}', path="/v2/repository/index"),
        asking(body_of(1).replace(b"FP32", b"INT32")),
        asking(body_of(1).replace(b'"x"', b'"z"')),
    ],
)
def test_both_ways_say_the_same(connect, request_):
    with connect() as wire:
        found = [wire.send(sent).reply() for sent in (request_, request_, by_asgi(request_))]
    for _, headers, _ in found:
        headers.pop("date")
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    "lines",
    [
        ["Expect: 100-continue"],
        ["Connection: close"],
        ["Content-Encoding: br"],
    ],
)
def test_what_is_out_of_the_ordinary_is_remembered_by_nobody(connect, lines):
    for _ in range(2):
        with connect() as wire:
            wire.send(asking(body_of(1), *lines))
            if "100" in lines[0]:
                assert wire.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            status, headers, _ = wire.reply()
            assert status == (501 if "br" in lines[0] else 200)
            if "close" in lines[0]:
                assert headers["connection"] == "close"
                assert wire.ended()


def test_large_and_small_bodies_alternate(connect):
    large = list(range(10, 12)) + [0.5] * (WHOLE_BYTES // 4)
    with connect() as wire:
        for number in range(10, 20):
            assert values_of(wire.send(asking(body_of(number))).reply()) == [number]
            assert values_of(wire.send(asking(body_of(number, *large))).reply())[0] == number


def test_a_long_head_is_parsed_each_time(connect):
    with connect() as wire:
        for _ in range(3):
            assert values_of(wire.send(asking(body_of(1), "X-Long: " + "a" * REMEMBERED_BYTES)).reply()) == [1]


def test_a_known_head_whose_body_never_comes_ends_with_408(connect):
    request = asking(body_of(1, 2, 3))
    with connect() as wire:
        wire.send(request).reply()
        wire.send(request[:-5])
        began = time.monotonic()
        status, headers, body = wire.reply()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body) == {"error": "the request did not arrive within 0.5 s"}
        assert wire.ended()
        assert 0.4 < time.monotonic() - began < 3


def test_garbage_behind_a_known_request_waits_for_its_answer(connect):
    request = asking(body_of(6))
    with connect() as wire:
        wire.send(request).reply()
        wire.send(request + b"\x16\x03garbage\r\n\r\n")
        assert values_of(wire.reply()) == [6]
        assert wire.reply()[0] == 400
        assert wire.ended()


def test_a_connection_silent_after_its_answer_is_closed_without_a_word(connect):
    with connect() as wire:
        assert values_of(wire.send(asking(body_of(1))).reply()) == [1]
        began = time.monotonic()
        assert wire.ended()
        assert 0.9 < time.monotonic() - began < 4


def test_an_answer_on_its_way_is_given_before_the_server_ends():
    model = echo_model("slow", DType.FP32, delay=0.5)
    with running_server(Hub([model]), ServerOptions(port=0, grpc_port=0)) as url:
        place = urlsplit(url)
        opened = socket.create_connection((place.hostname, place.port), timeout=10)
        wire = Wire(opened).send(asking(body_of(4), path="/v2/models/slow/infer"))
        time.sleep(0.15)
    with opened:
        status, headers, body = wire.reply()
        assert (status, headers["connection"]) == (200, "close")
        assert json.loads(body)["outputs"][0]["data"] == [4]
        assert wire.ended()


def test_who_leaves_is_not_waited_for(server, connect):
    def hang_up():
        with connect() as wire:
            wire.send(asking(body_of(1), path="/v2/models/slow/infer"))
            time.sleep(0.05)

    leaving = [threading.Thread(target=hang_up) for _ in range(5)]
    for one in leaving:
        one.start()
    for one in leaving:
        one.join()
    with connect() as wire:
        began = time.monotonic()
        assert values_of(wire.send(asking(body_of(1), path="/v2/models/slow/infer")).reply()) == [1]
        assert time.monotonic() - began < 1.9  # five runs would take two seconds; at most one is in the engine
