"""gRPC's handlers behind gRPC: bytes in, bytes or a status out, and never one that says "my fault"."""

import asyncio
import contextlib
from functools import cache
from typing import Any

import grpc

from tailorbird.service.rpc import schema
from tests.fuzz import seeds as valid
from tests.fuzz.mutate import Mutator
from tests.fuzz.world import Finding, journal, world

_OURS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}


class Aborted(Exception):
    """The call has ended with a status."""


class Context:
    """A call as its handler sees it.

    Args:
        messages: what a stream still brings.
    """

    def __init__(self, messages: list[bytes] | None = None) -> None:
        self.code: Any = None
        self.words = ""
        self.written: list[bytes] = []
        self._messages = messages or []

    def time_remaining(self) -> float | None:
        return None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1"

    def auth_context(self) -> dict[str, Any]:
        return {}

    def set_trailing_metadata(self, _: Any) -> None:
        pass

    async def send_initial_metadata(self, _: Any) -> None:
        pass

    async def abort(self, code: Any, words: str = "", _: Any = ()) -> None:
        self.code, self.words = code, words
        raise Aborted

    async def read(self) -> Any:
        await asyncio.sleep(0)
        return self._messages.pop(0) if self._messages else grpc.aio.EOF

    async def write(self, message: bytes) -> None:
        self.written.append(message)


@cache
def handlers() -> list[tuple[str, Any]]:
    """Every unary operation by name, inference first."""
    found = [(name, one) for service in world().servicer.handlers().values() for name, one in service.items()]
    unary = [(name, one.unary_unary) for name, one in found if one.unary_unary is not None]
    return sorted(unary, key=lambda one: (one[0] != "ModelInfer", one[0]))


def one(case: bytes) -> None:
    """A byte that names an operation, and its message."""
    name, handler = handlers()[case[0] % len(handlers())] if case else handlers()[0]
    context = Context()
    with journal() as said:
        answer = world().do(_called(handler, case[1:], context))
    if context.code in _OURS:
        raise Finding(f"{name} ended with {context.code.name}: {context.words}\n{said.getvalue()}")
    if (answer is None) != (context.code is not None):
        raise Finding(f"{name} gave {answer!r} and {context.code}")


async def _called(handler: Any, message: bytes, context: Context) -> bytes | None:
    try:
        answer: bytes = await handler(message, context)
    except Aborted:
        return None
    return answer


def stream(case: bytes) -> None:
    """Messages, each behind two bytes with its length: as many answers, in their order."""
    messages = list(_split(case))[:64]
    context = Context(list(messages))
    handler = world().servicer.handlers()[schema.INFERENCE]["ModelStreamInfer"].stream_stream
    with journal() as said:
        world().do(_called_stream(handler, context))
    if context.code is not None or len(context.written) != len(messages):
        raise Finding(f"{len(messages)} messages, {len(context.written)} answers, {context.code}\n{said.getvalue()}")
    for answer in context.written:
        if b"failed to answer" in answer:
            raise Finding(f"{answer[:300]!r}\n{said.getvalue()}")


async def _called_stream(handler: Any, context: Context) -> None:
    with contextlib.suppress(Aborted):
        await handler(None, context)


def _split(case: bytes) -> Any:
    place = 0
    while place + 2 <= len(case):
        size = int.from_bytes(case[place : place + 2], "little")
        yield case[place + 2 : place + 2 + size]
        place += 2 + size


def _joined(messages: Any) -> bytes:
    return b"".join(min(len(one), 0xFFFF).to_bytes(2, "little") + one[:0xFFFF] for one in messages)


def seeds() -> tuple[bytes, ...]:
    """Inference, and every other operation with each of the small messages."""
    names = range(1, len(handlers()))
    return (*(b"\0" + one for one in valid.messages()),
            *(bytes([name]) + one for name in names for one in valid.small_messages()))  # fmt: skip


def mutate(case: bytes, mutator: Mutator) -> bytes:
    """Another operation now and then; mostly another message."""
    first = bytes([mutator.chance.randrange(256)]) if mutator.often(0.1) else case[:1]
    return first + (mutator.any_bytes(case[1:]) if mutator.often(0.1) else mutator.protobuf(case[1:]))


def streams() -> tuple[bytes, ...]:
    """Three streams of valid messages."""
    found = valid.messages()
    return _joined(found[:9]), _joined(found[9:18]), _joined(found[18:])


def mutate_stream(case: bytes, mutator: Mutator) -> bytes:
    """One or two of its messages changed."""
    messages = list(_split(case))
    for _ in range(mutator.chance.choice((1, 2))):
        if messages:
            place = mutator.chance.randrange(len(messages))
            messages[place] = mutator.protobuf(messages[place])[:0xFFFF]
    return mutator.any_bytes(case) if mutator.often(0.05) else _joined(messages)
