"""The doors, each as a function of some bytes that raises nothing, whatever they are; or there is a finding."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.signature import Signature
from tailorbird.service.routes import route
from tailorbird.service.rpc import messages
from tailorbird.service.web import compression, wire
from tests.fuzz import asgi, calls, documents, seeds, sockets
from tests.fuzz.mutate import Mutator
from tests.fuzz.world import LIMITS, Finding, world

Case = bytes


class Target(NamedTuple):
    """One door."""

    name: str
    one: Callable[[Case], object]
    seeds: Callable[[], tuple[Case, ...]]
    mutate: Callable[[Case, Mutator], Case]
    share: float
    """Of all cases of a run, about as the doors differ in cost."""


def ours(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns; None where it raises an error of ours. Any other is a finding."""
    try:
        return call(*arguments)
    except TailorbirdError as error:
        if not error.message:
            raise Finding("an error without words") from error
        return None
    except Exception as error:
        raise Finding(f"{type(error).__name__}: {error}") from error


# --- pure ---


def body(case: Case) -> None:
    """An inference request's body, behind two bytes that say how much of it is JSON."""
    size = int.from_bytes(case[:2], "little")
    ours(wire.decode_infer, case[2:], None if size == 0xFFFF else size, "m", None, LIMITS)


def raw_body(case: Case) -> None:
    """A body without JSON, for any model."""
    for model in world().hub.loaded:
        signature: Signature = model.signature
        ours(wire.decode_raw, case[:4096], signature, "m", None, LIMITS)


def message(case: Case) -> None:
    """A ``ModelInferRequest``."""
    ours(messages.decode_infer, case, LIMITS)
    ours(messages.request_id, case, LIMITS)


def compressed(case: Case) -> None:
    """A compressed body; never longer than the limit."""
    encoding = ("gzip", "deflate", "x-gzip", "", "br")[case[0] % 5] if case else ""
    found = ours(compression.decompress, encoding, case[1:], 5000)
    if found is not None and encoding and encoding != "br" and len(found) > 5000:
        raise Finding(f"{len(found)} bytes were made")


def path(case: Case) -> None:
    """A method and a path."""
    method, _, rest = case.partition(b" ")
    ours(route, method.decode("latin-1"), rest)


# --- mutations ---


def _behind(prefix: int, change: Callable[[Mutator, bytes], bytes]) -> Callable[[Case, Mutator], Case]:
    """Leave the first bytes mostly alone."""

    def mutate(case: Case, mutator: Mutator) -> Case:
        if mutator.often(0.1):
            return mutator.any_bytes(case)
        return case[:prefix] + change(mutator, case[prefix:])

    return mutate


def _body(case: Case, mutator: Mutator) -> Case:
    """The JSON or the blobs; the length mostly follows."""
    size = int.from_bytes(case[:2], "little")
    if size == 0xFFFF or size > len(case) - 2:
        return case[:2] + mutator.json(case[2:])
    text, blobs = case[2 : 2 + size], case[2 + size :]
    if mutator.often(0.6):
        text = mutator.json(text)
    else:
        blobs = mutator.any_bytes(blobs)
    size = min(0xFFFE, len(text) if mutator.often(0.9) else mutator.chance.randrange(0xFFFF))
    return size.to_bytes(2, "little") + text + blobs


def _path(case: Case, mutator: Mutator) -> Case:
    method, _, rest = case.partition(b" ")
    return method + b" " + mutator.path(rest)


def _paths() -> tuple[Case, ...]:
    found = (documents.parsed(one) for one in seeds.requests())
    return tuple({b"%b %b" % (one.method, one.path) for one in found})


def _packed() -> tuple[Case, ...]:
    bodies = [documents.parsed(one) for one in seeds.requests()]
    return tuple(
        (b"\0" if headers[b"content-encoding"] == b"gzip" else b"\1") + one.body
        for one in bodies
        if b"content-encoding" in (headers := dict(one.headers))
    )


TARGETS = {
    target.name: target
    for target in (
        Target("body", body, seeds.bodies, _body, 0.30),
        Target("raw", raw_body, seeds.bodies, _behind(0, Mutator.any_bytes), 0.01),
        Target("message", message, seeds.messages, _behind(0, Mutator.protobuf), 0.25),
        Target("compressed", compressed, _packed, _behind(1, Mutator.any_bytes), 0.10),
        Target("path", path, _paths, _path, 0.14),
        Target("http", asgi.one, seeds.requests, documents.mutated, 0.10),
        Target("calls", calls.one, calls.seeds, calls.mutate, 0.06),
        Target("stream", calls.stream, calls.streams, calls.mutate_stream, 0.01),
        Target("socket", sockets.one, sockets.seeds, sockets.mutate, 0.03),
    )
}
