"""Clients' shared memory over the protocol: outputs that are put there, and the extension's operations over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from tailorbird.service import tensors
from tailorbird.service.faults import Forbidden, NotOffered, Refused
from tailorbird.service.guard.scopes import Scope
from tailorbird.service.guard.tokens import Caller
from tailorbird.service.options import ServerOptions
from tailorbird.service.routes import Operation, Route
from tailorbird.service.web import wire
from tailorbird.service.web.replies import Reply, json_reply
from tailorbird.service.web.requests import decoded
from tailorbird.serving.dataplane import InferResponse
from tailorbird.serving.shared_memory import Regions
from tailorbird.serving.slices import Slice


class _Register(msgspec.Struct):
    key: str
    byte_size: int
    offset: int = 0


_register_request = msgspec.json.Decoder(_Register)


def placed(response: InferResponse, wanted: Mapping[str, Slice], regions: Regions | None) -> InferResponse:
    """An answer with some outputs written to shared memory, where their client finds them.

    Raises:
        NotOffered: shared memory is off.
        InputError: as :meth:`Regions.write`.
    """
    if regions is None:
        raise shared_memory_is_off()
    for name, where in wanted.items():
        regions.write(where, tensors.to_binary(response.dtypes[name], response.outputs[name]))
    return msgspec.structs.replace(response, placed=frozenset(wanted))


def regions_of(options: ServerOptions) -> Regions | None:
    """What keeps track of clients' shared memory, if a server takes any."""
    if not options.client_shm:
        return None
    return Regions(options.limits.body_bytes, options.limits.buffered_bytes, options.client_shm_users)


def regions_for(regions: Regions | None, caller: Caller) -> Regions | Refused | None:
    """The regions that a caller's requests may read and write: all or none, since no region has an owner.

    Whoever may register regions may use them. Returns the error for others, to be raised if they name one.
    """
    if regions is None or (Scope.ADMIN in caller.scopes and caller.sees_all):
        return regions
    return Forbidden("shared memory is not allowed with this token", why="shared memory", scopes=(Scope.ADMIN,))


def answer_region(regions: Regions | None, found: Route, body: bytes) -> Reply:
    """Answer one operation of the system shared memory extension.

    Args:
        regions: what is registered; None where shared memory is off.
        found: the operation, and the region it is about.
        body: of a registration.

    Raises:
        NotOffered: shared memory is off.
        InputError: as :class:`Regions`.
        WireError: the body is no registration.
    """
    if regions is None:
        raise shared_memory_is_off()
    return ANSWERS[found.operation](regions, found.region, body)


def shared_memory_is_off() -> NotOffered:
    """What a server says that was started without shared memory."""
    return NotOffered("system shared memory", hint="'tailorbird serve --allow-client-shm' offers it to local clients")


def _status(regions: Regions, region: str, _: bytes) -> Reply:
    return json_reply(wire.encode(regions.status(region)))


def _register(regions: Regions, region: str, body: bytes) -> Reply:
    asked = decoded(_register_request, body)
    regions.register(region, asked.key, asked.offset, asked.byte_size)
    return json_reply(b"{}")


def _unregister(regions: Regions, region: str, _: bytes) -> Reply:
    regions.unregister(region)
    return json_reply(b"{}")


ANSWERS: dict[Operation, Callable[[Regions, str, bytes], Reply]] = {
    Operation.SHARED_MEMORY_STATUS: _status,
    Operation.SHARED_MEMORY_REGISTER: _register,
    Operation.SHARED_MEMORY_UNREGISTER: _unregister,
}
"""By operation."""
