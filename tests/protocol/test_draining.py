"""A server that is told to stop: what it waits for over HTTP, and what not."""

import socket
import ssl
import threading
import time
from contextlib import contextmanager

import pytest

from tailorbird.domain.dtype import DType
from tailorbird.service.guard.options import Guarding
from tailorbird.service.guard.tls import TlsFiles
from tailorbird.service.web.listener import DRAIN_SECONDS
from tests.protocol.certificates import Authority
from tests.protocol.doors import locked_server
from tests.protocol.engines import echo_model

BODY = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}'
HEAD = b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n"
WORDS = b'{"error":"the server is shutting down"}'


def request(model=b"alpha", *, body=BODY):
    return HEAD % (model, len(BODY)) + body


CHUNKED = b"POST /v2/models/alpha/infer HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{ \r\n"


@contextmanager
def drained(guarding=None):
    """A server, and a function that tells it to stop; at the end it has."""
    models = [echo_model("alpha", DType.FP32), echo_model("slow", DType.FP32, delay=1.0)]
    server = locked_server(guarding, models, grpc=False)
    running = server.__enter__()
    ending = threading.Thread(target=server.__exit__, args=(None, None, None))

    def stop():
        ending.start()
        time.sleep(0.3)

    try:
        yield running, stop
    finally:
        if ending.ident is None:
            ending.start()
        ending.join()


def everything(line):
    found = b""
    while piece := line.recv(1 << 16):
        found += piece
    return found


@pytest.mark.parametrize("sent", [request(body=b""), request(body=BODY[:9]), CHUNKED, request() + request(body=b"")])
def test_a_request_that_is_not_whole_is_not_waited_for(sent):
    with drained() as (server, stop), socket.create_connection((server.host, server.port), 20) as line:
        line.sendall(sent)
        time.sleep(0.3)
        began = time.monotonic()
        stop()
        said = everything(line)
    assert time.monotonic() - began < DRAIN_SECONDS / 3
    assert said.endswith(WORDS)
    assert REFUSED in said
    assert said.count(b"HTTP/1.1 200") == sent.count(BODY)


def test_one_that_arrives_in_time_is_answered():
    with drained() as (server, stop), socket.create_connection((server.host, server.port), 20) as line:
        line.sendall(request(body=BODY[:9]))
        time.sleep(0.3)
        stop()
        line.sendall(BODY[9:])
        assert everything(line).startswith(b"HTTP/1.1 200")


def test_what_runs_is_answered_and_what_is_half_there_behind_it_is_not():
    with drained() as (server, stop), socket.create_connection((server.host, server.port), 20) as line:
        line.sendall(request(b"slow") + request(body=BODY[:9]))
        time.sleep(0.3)
        began = time.monotonic()
        stop()
        said = everything(line)
    assert time.monotonic() - began < DRAIN_SECONDS / 3
    assert said.count(b"HTTP/1.1 200") == 1


def test_a_client_that_rests_under_tls_is_not_waited_for(tmp_path):
    """It reads nothing while it rests: neither the goodbye, nor does it say its own."""
    authority = Authority(tmp_path)
    with drained(Guarding(tls=TlsFiles(*authority.server()))) as (server, stop):
        context = ssl.create_default_context(cafile=authority.file)
        with (
            socket.create_connection((server.host, server.port), 20) as bare,
            context.wrap_socket(bare, server_hostname="localhost") as line,
        ):
            line.sendall(request())
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 200")
            began = time.monotonic()
            stop()
            while _answers(server):
                time.sleep(0.05)
    assert time.monotonic() - began < DRAIN_SECONDS / 3


def _answers(server):
    try:
        socket.create_connection((server.host, server.port), 1).close()
    except OSError:
        return False
    return True
