"""Administration: the operations that change what is served, as a table. A server has it at its doors or has it not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tailorbird.service.faults import WireError
from tailorbird.service.guard.guard import Guard
from tailorbird.service.guard.tls import Tls
from tailorbird.service.guard.tokens import EVERYBODY, Caller
from tailorbird.service.observe import journal
from tailorbird.service.routes import Operation, Route
from tailorbird.service.web import wire
from tailorbird.service.web.replies import Reply, json_reply
from tailorbird.service.web.requests import decoded
from tailorbird.service.web.shared_memory import ANSWERS, answer_region
from tailorbird.serving.dataplane import DataPlane

_KNOWN = ("unload_dependents",)


class _Changing(msgspec.Struct):
    parameters: dict[str, Any] = {}


_changing = msgspec.json.Decoder(_Changing)


class Administration:
    """What changes models in service, and says how that is going.

    Args:
        plane: who does it.
    """

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._answers: dict[Operation, Callable[[Route, bytes, Caller], Awaitable[Reply]]] = {
            Operation.MODEL_LOAD: self._load,
            Operation.MODEL_UNLOAD: self._unload,
            Operation.ROLLOUTS: self._rollouts,
            **dict.fromkeys(ANSWERS, self._region),
        }

    async def answer(self, found: Route, body: bytes = b"", caller: Caller = EVERYBODY) -> Reply:
        """Answer one request over HTTP.

        Args:
            found: the operation, and the model it is about.
            body: of operations that have one.
            caller: for the log, and for what it may see.

        Raises:
            WireError: the body is no request of that kind, or asks for what clients may not say.
            TailorbirdError: as the data plane.
        """
        return await self._answers[found.operation](found, body, caller)

    async def load(self, model: str, parameters: dict[str, Any], caller: Caller = EVERYBODY) -> None:
        """Load the version of a model that should serve, and return when it does.

        Args:
            model: its name.
            parameters: none: what is served, and how, is said by the repository and the server's flags alone.
            caller: for the log.
        """
        _check(parameters)
        journal.record("load asked for", model=model, caller=caller.name or None)
        await self._plane.repository_load(model)

    async def unload(self, model: str, parameters: dict[str, Any], caller: Caller = EVERYBODY) -> None:
        """Answer what a model has accepted, and put it away; arguments as of :meth:`load`."""
        _check(parameters)
        journal.record("unload asked for", model=model, caller=caller.name or None)
        await self._plane.repository_unload(model)

    async def _load(self, found: Route, body: bytes, caller: Caller) -> Reply:
        await self.load(found.model, _parameters(body), caller)
        return json_reply(b"{}")

    async def _unload(self, found: Route, body: bytes, caller: Caller) -> Reply:
        await self.unload(found.model, _parameters(body), caller)
        return json_reply(b"{}")

    async def _rollouts(self, _: Route, __: bytes, caller: Caller) -> Reply:
        return json_reply(wire.encode([one for one in self._plane.rollouts() if caller.sees(one.model)]))

    async def _region(self, found: Route, body: bytes, caller: Caller) -> Reply:
        if found.operation is not Operation.SHARED_MEMORY_STATUS:
            journal.record(f"{found.operation} asked for", region=found.region[:128], caller=caller.name or None)
        return answer_region(self._plane.regions, found, body)


class Entrance(msgspec.Struct, frozen=True):
    """How one door is locked, and whether it is one for administration, too."""

    guard: Guard | None = None
    """Who is let in; None lets everybody in."""
    tls: Tls | None = None
    """None leaves connections in the clear."""
    admin: Administration | None = None
    """Answers the operations of administration; without it they are refused."""


def _parameters(body: bytes) -> dict[str, Any]:
    return decoded(_changing, body or b"{}").parameters


def _check(parameters: dict[str, Any]) -> None:
    """Triton lets clients send a configuration and files along. ``unload_dependents`` is sent by its client always."""
    for name in parameters:
        if name not in _KNOWN:
            raise WireError(f"the parameter '{name[:40]}' is not taken: what is served is said by the repository alone",
                            hint="publish a version: tailorbird repo publish")  # fmt: skip
