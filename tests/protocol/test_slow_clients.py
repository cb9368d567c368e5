"""Clients that take their time, on real sockets: others are served, and the slow ones are let go."""

import contextlib
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tailorbird.domain.dtype import DType
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.service.app import running_server
from tailorbird.service.limits import Limits
from tailorbird.service.options import ServerOptions
from tailorbird.serving.hub import Hub
from tests.protocol.engines import echo_model, fake_model

WIDE = Signature((TensorSpec("x", DType.FP32, ("N", 65536)),), (TensorSpec("y", DType.FP32, ("N", 65536)),))
LIMITS = Limits(read_seconds=0.5, idle_seconds=1.0)
BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
HEAD = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def server():
    models = [
        echo_model("echo", DType.FP32),
        echo_model("slow", DType.FP32, delay=1.2),
        fake_model("wide", signature=WIDE, function=lambda given: {"y": given["x"]}),
    ]
    with running_server(Hub(models), ServerOptions(port=0, grpc_port=0, limits=LIMITS)) as url:
        yield url


@pytest.fixture
def connect(server):
    place = urlsplit(server)

    @contextmanager
    def connected():
        with socket.create_connection((place.hostname, place.port), timeout=10) as opened:
            yield opened

    return connected


def everything(opened):
    """All that comes until the server closes."""
    found = b""
    while piece := opened.recv(1 << 16):
        found += piece
    return found


def check_timed_out(said):
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in head
    assert json.loads(body) == {"error": "the request did not arrive within 0.5 s"}


@pytest.mark.parametrize("sent", [b"P", HEAD[:40], HEAD % 500, HEAD % 500 + BODY])
def test_what_never_becomes_a_request_ends_with_408(connect, sent):
    with connect() as opened:
        opened.sendall(sent)
        began = time.monotonic()
        check_timed_out(everything(opened))
        assert 0.4 < time.monotonic() - began < 3


def test_a_head_that_drips_does_not_last_for_ever(connect):
    with connect() as opened:
        opened.sendall(HEAD[:40])
        began = time.monotonic()
        stop = threading.Event()

        def drip():
            while not stop.wait(0.1):
                try:
                    opened.sendall(b"A")
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            check_timed_out(everything(opened))
        finally:
            stop.set()
            dripping.join()
        assert time.monotonic() - began < 3


def test_a_body_that_makes_progress_may_take_longer(connect):
    with connect() as opened:
        opened.sendall(HEAD % len(BODY))
        for place in range(0, len(BODY), 8):
            time.sleep(0.15)
            opened.sendall(BODY[place : place + 8])
        assert opened.recv(1 << 16).startswith(b"HTTP/1.1 200")


def test_a_slow_answer_is_not_the_clients_fault(server):
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [7]}]}
    assert httpx.post(f"{server}/v2/models/slow/infer", json=body, timeout=10).status_code == 200


def test_the_second_request_of_a_connection_has_the_same_limits(connect):
    with connect() as opened:
        opened.sendall(HEAD % len(BODY) + BODY)
        assert opened.recv(1 << 16).startswith(b"HTTP/1.1 200")
        opened.sendall(HEAD[:40])
        check_timed_out(everything(opened))


def test_a_silent_connection_is_closed_without_a_word(connect):
    with connect() as opened:
        began = time.monotonic()
        said = everything(opened)
        assert 0.9 < time.monotonic() - began < 5
        assert not said or said.startswith(b"HTTP/1.1 408")
    with connect() as opened:
        opened.sendall(HEAD % len(BODY) + BODY)
        assert everything(opened).count(b"HTTP/1.1 200") == 1


def test_an_answer_that_nobody_reads_is_given_up(connect):
    """The rest of it would lie in the server's memory for as long as the client likes."""
    values = np.ones(4 << 20, np.float32)
    stated = {"name": "x", "shape": [64, values.size // 64], "datatype": "FP32"}
    asked = {"inputs": [{**stated, "parameters": {"binary_data_size": values.nbytes}}],
             "parameters": {"binary_data_output": True}}  # fmt: skip
    text = json.dumps(asked).encode()
    head = b"POST /v2/models/wide/infer HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n" % (len(text) + values.nbytes)
    with connect() as opened:
        opened.sendall(head + b"Inference-Header-Content-Length: %d\r\n\r\n" % len(text) + text + values.tobytes())
        time.sleep(2.5)
        read = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := opened.recv(1 << 20):
                read += len(piece)
        assert 0 < read < values.nbytes


def test_a_pipeline_is_bounded_and_answered_in_order(connect):
    with connect() as opened:
        count = 2000

        def send():
            for number in range(count):
                body = BODY.replace(b"[1]}", b"[%d]}" % number)
                opened.sendall(HEAD % len(body) + body)

        sending = threading.Thread(target=send)
        sending.start()
        said = b""
        while said.count(b"HTTP/1.1 200") < count or not said.endswith(b"}"):
            piece = opened.recv(1 << 16)
            assert piece, said[-500:]
            said += piece
        sending.join()
        assert [int(float(one)) for one in re.findall(rb'"data":\[([\d.]+)\]', said)] == list(range(count))


def test_what_is_wrong_behind_whole_requests_waits_for_their_answers(connect):
    """A refusal in front of them would pass for the answer to the first."""
    slow = HEAD.replace(b"echo", b"slow") % len(BODY) + BODY
    with connect() as opened:
        opened.sendall(slow + HEAD % len(BODY) + BODY + HEAD % 500 + BODY)  # the last one never comes
        said = everything(opened)
        assert said.count(b"HTTP/1.1 200") == 2
        assert said.count(b"HTTP/1.1") == 2 or said.rindex(b"HTTP/1.1 408") > said.rindex(b"HTTP/1.1 200")


def test_large_json_does_not_hold_up_others():
    """Nor is what it says changed by being read in a thread."""
    rows = np.arange(64 * 4000, dtype=np.float32).reshape(64, 4000)
    with running_server(Hub([echo_model("echo", DType.FP32), echo_model("wide", DType.FP32, ("N", 4000))])) as url:
        body = {"inputs": [{"name": "x", "shape": [64, 4000], "datatype": "FP32", "data": rows.ravel().tolist()}]}
        content = json.dumps(body).encode()
        with ThreadPoolExecutor(1) as pool:
            large = pool.submit(httpx.post, f"{url}/v2/models/wide/infer", content=content, timeout=30)
            while not large.done():
                assert httpx.post(f"{url}/v2/models/echo/infer", content=BODY).status_code == 200
            assert large.result().json()["outputs"][0]["data"] == rows.ravel().tolist()


def test_many_idle_connections_cost_nothing(server):
    place = urlsplit(server)
    idle = [socket.create_connection((place.hostname, place.port)) for _ in range(300)]
    assert httpx.post(f"{server}/v2/models/echo/infer", content=BODY).status_code == 200
    for one in idle:
        one.close()
