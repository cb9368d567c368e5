"""Bytes as they arrive on a connection: the real protocol class of the server, with a transport that is no socket."""

import asyncio
import contextlib
import random
import re
import zlib
from functools import cache
from typing import Any

import httptools
import uvicorn
from uvicorn.server import ServerState

from tailorbird.service.web import listener
from tests.fuzz import asgi, documents
from tests.fuzz import seeds as valid
from tests.fuzz.mutate import PIECES, Mutator
from tests.fuzz.world import LIMITS, SECONDS, Finding, journal, world


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, protocol: Any, loop: Any) -> None:
        super().__init__({"peername": ("192.0.2.1", 1), "sockname": ("192.0.2.2", 2)})
        self.sent = bytearray()
        self.paused = False
        self._closing = False
        self._protocol = protocol
        self._loop = loop

    def write(self, data: Any) -> None:
        if not self._closing:
            self.sent += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused

    def get_write_buffer_size(self) -> int:
        return 0

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return 0, 1 << 16

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False


class Counted:
    """Counts whole requests, independently of the server's own reading."""

    def __init__(self, data: bytes) -> None:
        self.requests = 0
        self.methods: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        self.methods.append(self._parser.get_method())  # some are answered by their heads

    def on_message_complete(self) -> None:
        self.requests += 1


class Answers:
    """Reads responses; those without a body are known by the requests' methods."""

    _HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")

    def __init__(self, data: bytes, methods: list[bytes]) -> None:
        self.found: list[tuple[int, bytes]] = []
        place = 0
        while place < len(data):
            head = self._HEAD.match(data, place)
            if head is None:
                raise Finding(f"no response: {data[place : place + 200]!r}")
            place = head.end()
            if head[1] == b"100":
                continue
            size = re.search(rb"(?:^|\n)content-length: (\d+)\r", head[2])
            bodyless = len(self.found) < len(methods) and methods[len(self.found)] == b"HEAD"
            length = 0 if bodyless else int(size[1]) if size else 0
            self.found.append((int(head[1]), data[place : place + length]))
            place += length
        if place > len(data):
            raise Finding("a response is cut short")


@cache
def _config() -> uvicorn.Config:
    config = listener._config(world().app, LIMITS)
    config.load()
    return config


def one(case: bytes) -> None:
    """The bytes, in pieces: as many answers as whole requests, unless the server hangs up; and however they are cut."""
    with journal() as said:
        found = world().do(_connection(_pieces(case), case))
        again = world().do(_connection([case], case))
    if "Traceback" in said.getvalue():
        raise Finding(said.getvalue())
    for first, second in zip(found, again, strict=False):  # where the server hangs up, one may have had more
        if b"Invalid HTTP request" in first[1] + second[1]:  # known before or after the head was answered
            break
        if first[0] != second[0] or (first[1] != second[1] and not _varies(first[1])):
            raise Finding(f"cut one way {first}, whole {second}")


def _varies(body: bytes) -> bool:
    """It has times or counts in it."""
    return any(
        word in body for word in (b"inference_stats", b"<!doctype", b"<!DOCTYPE", b"rollouts", b"last_inference")
    )


async def _connection(pieces: list[bytes], case: bytes) -> list[tuple[int, bytes]]:
    loop, config = asyncio.get_running_loop(), _config()
    protocol = config.http_protocol_class(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    wire = Wire(protocol, loop)
    protocol.connection_made(wire)
    for piece in pieces:
        while wire.paused and not wire.is_closing():
            await asyncio.sleep(0)
        if wire.is_closing():
            break
        protocol.data_received(piece)
        await asyncio.sleep(0)
    try:
        return await _settled(case, wire)
    finally:
        if not wire.is_closing():
            protocol.eof_received()
        wire.close()
        await asyncio.sleep(0)


async def _settled(case: bytes, wire: Wire) -> list[tuple[int, bytes]]:
    """Until every whole request has its answer, or the server has hung up."""
    whole = Counted(case)
    until = asyncio.get_running_loop().time() + SECONDS / 2
    while True:
        answers = Answers(bytes(wire.sent), whole.methods).found
        if wire.is_closing() or len(answers) >= whole.requests:
            break
        if asyncio.get_running_loop().time() > until:
            raise Finding(f"{whole.requests} requests, {len(answers)} answers, and the connection is open")
        await asyncio.sleep(0.001)
    for status, body in answers:
        asgi.check(status, body if body.startswith(b"{") else b"", "")
    return answers


def _pieces(case: bytes) -> list[bytes]:
    """Cut where the bytes themselves say, so that a case is always cut alike."""
    chance = random.Random(zlib.crc32(case))
    if chance.random() < 0.4:
        return [case]
    cuts = sorted(chance.randrange(len(case) + 1) for _ in range(chance.choice((1, 2, 5))))
    return [part for start, end in zip([0, *cuts], [*cuts, len(case)], strict=True) if (part := case[start:end])]


def seeds() -> tuple[bytes, ...]:
    """Every document as HTTP, some chunked, some in a row."""
    found = [documents.parsed(one) for one in valid.requests()]
    single = [one.wire() for one in found]
    return (*single, *(one.wire(chunked=True) for one in found[-12:]), b"".join(single[:6]), single[-3] * 3)


def mutate(case: bytes, mutator: Mutator) -> bytes:
    """Either another document, well framed, or a connection's bytes changed."""
    what = mutator.chance.random()
    if what < 0.5:
        document = documents.parsed(documents.mutated(mutator.chance.choice(valid.requests()), mutator))
        return document.wire(chunked=mutator.often(0.2)) + (case if mutator.often(0.3) else b"")
    if what < 0.6:
        place = mutator.chance.randrange(len(case) + 1)
        return case[:place] + mutator.chance.choice(PIECES) + case[place:]
    return mutator.any_bytes(case)
