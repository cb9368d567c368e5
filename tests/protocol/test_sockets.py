"""What no well-behaved client sends, and many clients at once, on real sockets."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

ECHO = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
POST = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: t\r\n"


class Wire:
    """A socket and what was read of it."""

    def __init__(self, connected):
        self.socket = connected
        self.rest = b""

    def send(self, data):
        self.socket.sendall(data)
        return self

    def reply(self):
        """Status, headers and body of the next response."""
        head, _, self.rest = self._until(lambda data: b"\r\n\r\n" in data).partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = int(headers["content-length"])
        self._until(lambda data: len(data) >= size)
        body, self.rest = self.rest[:size], self.rest[size:]
        return int(status.split()[1]), headers, body

    def ended(self):
        """Whether the server closed the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def _until(self, enough):
        while not enough(self.rest):
            piece = self.socket.recv(1 << 16)
            assert piece, f"closed after {self.rest!r}"
            self.rest += piece
        return self.rest


@pytest.fixture
def connect(server):
    place = urlsplit(server)

    @contextmanager
    def connected():
        with socket.create_connection((place.hostname, place.port), timeout=10) as opened:
            yield Wire(opened)

    yield connected
    assert httpx.get(f"{server}/v2/health/live").json() == {"live": True}  # whatever it was, the server lives


def sized(body, length=None):
    return POST + b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body


def test_a_body_cut_short(connect):
    with connect() as wire:
        wire.send(sized(ECHO, len(ECHO) + 10))
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.ended()


def test_a_client_that_hangs_up_in_the_middle(connect):
    for cut in (1, 20, len(POST), len(POST) + 30):
        with connect() as wire:
            wire.send(sized(ECHO, 500)[:cut])


def test_a_body_longer_than_announced_does_not_spoil_the_answer(connect):
    with connect() as wire:
        wire.send(sized(ECHO) + sized(ECHO + b"garbage", len(ECHO)))
        assert wire.reply()[0] == 200
        assert wire.reply()[0] == 200
        assert wire.ended()


def test_garbage_after_an_answer_is_refused(connect):
    with connect() as wire:
        assert wire.send(sized(ECHO)).reply()[0] == 200
        wire.send(b"garbage\r\n\r\n")
        status, headers, body = wire.reply()
        assert (status, headers["connection"]) == (400, "close")
        assert json.loads(body) == {"error": "Invalid HTTP request received"}
        assert wire.ended()


@pytest.mark.parametrize("length", [b"-1", b"abc", b"1, 2", b"9" * 30, b"0x10", b""])
def test_wrong_content_lengths(connect, length):
    with connect() as wire:
        status, _, body = wire.send(POST + b"Content-Length: " + length + b"\r\n\r\n" + ECHO).reply()
        assert (status, list(json.loads(body))) == (400, ["error"])


def test_two_framings_are_refused(connect):
    with connect() as wire:
        framing = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert wire.send(POST + framing + b"0\r\n\r\n").reply()[0] == 400


def test_an_announced_large_body_is_refused_unread(connect):
    with connect() as wire:
        status, headers, body = wire.send(sized(b"", 1 << 40)).reply()
        assert (status, headers["connection"]) == (413, "close")
        assert json.loads(body)["error"].startswith(
            "the request's body is too large: got 1099511627776 bytes, expected"
        )
        assert wire.ended()


def test_chunks_are_read(connect):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (ECHO[:7], ECHO[7:]))
    with connect() as wire:
        status, _, body = wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n").reply()
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [1, 2])


def test_chunks_over_the_limit(connect):
    with connect() as wire:
        wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        try:
            for _ in range(40):
                wire.send(chunk)
            status = wire.reply()[0]
        except ConnectionError:  # it closed while we were still sending
            return
        assert status == 413


@pytest.mark.parametrize("chunk", [b"zz\r\nab\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"])
def test_broken_chunks(connect, chunk):
    with connect() as wire:
        assert wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk).reply()[0] == 400


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the start of TLS
        b"GET\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /v2\xff HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET http:///// HTTP/1.1\r\nHost: t\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nna me: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nname: \x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_garbage(connect, head):
    with connect() as wire:
        status, _, body = wire.send(head).reply()
        assert (status, json.loads(body)) == (400, {"error": "Invalid HTTP request received"})
        assert wire.ended()


def test_a_head_without_end(connect):
    with connect() as wire:
        wire.send(b"GET /v2 HTTP/1.1\r\nname: ")
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(2000):
                wire.send(b"a" * 8192)


def test_too_many_headers(connect):
    with connect() as wire:
        assert wire.send(b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n").reply()[0] == 400


def test_upgrades_are_ignored(connect):
    with connect() as wire:
        upgrade = b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert wire.send(upgrade).reply()[0] == 200


def test_pipelined_requests_are_answered_in_order(connect):
    bodies = [ECHO.replace(b"[1,2]}]}", b"[%d,2]}]}" % index) for index in range(20)]
    with connect() as wire:
        wire.send(b"".join(map(sized, bodies)))
        answers = [json.loads(wire.reply()[2])["outputs"][0]["data"][0] for _ in bodies]
    assert answers == list(range(20))


def test_one_byte_at_a_time(connect):
    with connect() as wire:
        for byte in sized(ECHO):
            wire.send(bytes([byte]))
        assert wire.reply()[0] == 200


def test_a_refusal_leaves_the_connection_usable(connect):
    with connect() as wire:
        assert wire.send(sized(b"{}")).reply()[0] == 400
        assert wire.send(sized(ECHO)).reply()[0] == 200
        wire.send(b"POST /v2/models/none/infer HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(ECHO) + ECHO)
        assert wire.reply()[0] == 404
        assert wire.send(sized(ECHO)).reply()[0] == 200


def test_head_has_no_body(server):
    reply = httpx.head(f"{server}/v2/health/ready")
    assert (reply.status_code, reply.content) == (200, b"")


@pytest.mark.parametrize("version", [1, 2])
def test_each_client_gets_its_own_rows(server, version):
    """16 threads, distinct rows, real engines: an answer with another's rows would show at once."""
    start = threading.Barrier(16)

    def work(seed):
        generator = np.random.default_rng(seed)
        with httpx.Client(base_url=server, timeout=30) as client:
            start.wait()
            for _ in range(20):
                rows = int(generator.integers(1, 9))
                x = generator.standard_normal((rows, 4)).astype(np.float32)
                k = generator.integers(-1000, 1000, (rows, 1))
                body = {
                    "id": f"{seed}",
                    "inputs": [
                        {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": x.tolist()},
                        {"name": "k", "shape": [rows, 1], "datatype": "INT64", "data": k.tolist()},
                    ],
                }
                answer = client.post(f"/v2/models/tiny/versions/{version}/infer", json=body).json()
                assert answer["id"] == f"{seed}"
                y, n = (np.array(output["data"]) for output in answer["outputs"])
                np.testing.assert_array_equal(y.astype(np.float32), (2 * x + k.astype(np.float32)).ravel())
                np.testing.assert_array_equal(n, k.ravel() + 1)

    with ThreadPoolExecutor(16) as pool:
        for outcome in [pool.submit(work, seed) for seed in range(16)]:
            outcome.result(60)
