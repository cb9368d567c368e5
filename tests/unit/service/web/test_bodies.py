"""What a server holds of bodies is what it counts, compressed or not."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable

import pytest

from tailorbird.domain.errors import Overloaded
from tailorbird.service.faults import BodyTooLarge, WireError
from tailorbird.service.limits import Limits
from tailorbird.service.web.bodies import Bodies, Message

GZIP = {b"content-encoding": b"gzip"}
MIB = 1 << 20


def arriving(*parts: bytes) -> Callable[[], Awaitable[Message]]:
    left = list(parts)

    async def receive() -> Message:
        part = left.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return receive


def test_a_body_in_pieces_is_held_once() -> None:
    bodies, parts = Bodies(Limits()), []
    assert asyncio.run(bodies.read({}, arriving(b"ab", b"", b"c"), parts)) == b"abc"
    assert (bodies.held, parts) == (3, [b"abc"])
    bodies.let_go(parts)
    assert bodies.held == 0


@pytest.mark.parametrize("encoding", [b"", b"identity", b" Identity"])
def test_what_is_not_compressed_is_as_it_came(encoding: bytes) -> None:
    bodies, parts = Bodies(Limits()), []
    assert asyncio.run(bodies.read({b"content-encoding": encoding}, arriving(b"ab"), parts)) == b"ab"
    assert bodies.held == 2


def test_a_compressed_body_counts_as_what_comes_out_of_it() -> None:
    data = bytes(3 * MIB + 5)
    sent = gzip.compress(data)
    bodies, first, second = Bodies(Limits(buffered_bytes=5 * MIB)), [], []
    assert asyncio.run(bodies.read(GZIP, arriving(sent[:100], sent[100:]), first)) == data
    assert bodies.held == len(data)
    with pytest.raises(Overloaded, match="the server holds too many bodies at once"):
        asyncio.run(bodies.read(GZIP, arriving(sent), second))
    bodies.let_go(second)
    assert bodies.held == len(data)
    bodies.let_go(first)
    assert bodies.held == 0


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (gzip.compress(bytes(2 * MIB + 1)), BodyTooLarge),
        (gzip.compress(bytes(2 * MIB))[:-1], WireError),
        (b"no gzip", WireError),
    ],
)
def test_nothing_is_held_of_a_body_that_is_refused(body: bytes, error: type[Exception]) -> None:
    bodies, parts = Bodies(Limits(body_bytes=2 * MIB)), []
    with pytest.raises(error):
        asyncio.run(bodies.read(GZIP, arriving(body), parts))
    bodies.let_go(parts)
    assert bodies.held == 0
