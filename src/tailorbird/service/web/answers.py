"""The operations that describe, as a table: which method of the data plane answers each, and in which form."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tailorbird.service.guard.tokens import EVERYBODY, Caller
from tailorbird.service.routes import Operation, Route
from tailorbird.service.statuspage.page import status_page
from tailorbird.service.web import wire
from tailorbird.service.web.replies import Reply, html_reply, json_reply
from tailorbird.service.web.requests import decoded
from tailorbird.serving.dataplane import DataPlane


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_index_request = msgspec.json.Decoder(_IndexRequest)


def describe(plane: DataPlane, found: Route, body: bytes = b"", caller: Caller = EVERYBODY) -> Reply:
    """Answer an operation that runs no model.

    Args:
        plane: who knows.
        found: the operation, and the model it is about.
        body: of operations that have one.
        caller: who sees of lists what it may.

    Raises:
        WireError: the body is no request of that kind.
        TailorbirdError: as the data plane.
    """
    if found.operation is Operation.REPOSITORY_INDEX:
        return _index(plane, body, caller)
    if found.operation is Operation.MODEL_STATISTICS:
        return _statistics(plane, found, caller)
    return _ANSWERS[found.operation](plane, found)


def _index(plane: DataPlane, body: bytes, caller: Caller) -> Reply:
    asked = decoded(_index_request, body or b"{}")
    return json_reply(wire.encode([one for one in plane.repository_index(ready=asked.ready) if caller.sees(one.name)]))


def _live(plane: DataPlane, _: Route) -> Reply:
    return _health("live", plane.server_live())


def _ready(plane: DataPlane, _: Route) -> Reply:
    return _health("ready", plane.server_ready())


def _model_ready(plane: DataPlane, found: Route) -> Reply:
    return _health("ready", plane.model_ready(found.model, found.version), name=found.model)


def _server(plane: DataPlane, _: Route) -> Reply:
    return json_reply(wire.encode(plane.server_metadata()))


def _page(plane: DataPlane, _: Route) -> Reply:
    return html_reply(status_page(plane.status()))


def _model(plane: DataPlane, found: Route) -> Reply:
    return json_reply(wire.encode(plane.model_metadata(found.model, found.version)))


def _config(plane: DataPlane, found: Route) -> Reply:
    return json_reply(wire.encode(plane.model_config(found.model, found.version)))


def _statistics(plane: DataPlane, found: Route, caller: Caller) -> Reply:
    accounts = [one for one in plane.model_statistics(found.model, found.version) if caller.sees(one.name)]
    return json_reply(wire.encode({"model_stats": accounts}))


_ANSWERS: dict[Operation, Callable[[DataPlane, Route], Reply]] = {
    Operation.STATUS_PAGE: _page,
    Operation.SERVER_METADATA: _server,
    Operation.SERVER_LIVE: _live,
    Operation.SERVER_READY: _ready,
    Operation.MODEL_METADATA: _model,
    Operation.MODEL_READY: _model_ready,
    Operation.MODEL_CONFIG: _config,
}


def _health(what: str, good: bool, **names: str) -> Reply:
    """The specification's body. Not ready is 503, as load balancers expect; Triton says 400."""
    return json_reply(wire.encode({**names, what: good}), 200 if good else 503)
