"""The operations that describe, as a table: which method of the data plane answers each, and in which form."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tailorbird.service import wire
from tailorbird.service.faults import WireError
from tailorbird.service.replies import Reply, html_reply, json_reply
from tailorbird.service.routes import Operation, Route
from tailorbird.service.status import status_page
from tailorbird.serving.dataplane import DataPlane


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_index_request = msgspec.json.Decoder(_IndexRequest)


def describe(plane: DataPlane, found: Route, body: bytes = b"") -> Reply:
    """Answer an operation that runs no model.

    Args:
        plane: who knows.
        found: the operation, and the model it is about.
        body: of operations that have one.

    Raises:
        WireError: the body is no request of that kind.
        TailorbirdError: as the data plane.
    """
    if found.operation is Operation.REPOSITORY_INDEX:
        return _index(plane, body)
    return _ANSWERS[found.operation](plane, found)


def _index(plane: DataPlane, body: bytes) -> Reply:
    try:
        asked = _index_request.decode(body or b"{}")
    except ValueError as error:
        raise WireError("the request's JSON is not valid", got=error) from None
    return json_reply(wire.encode(plane.repository_index(ready=asked.ready)))


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


def _statistics(plane: DataPlane, found: Route) -> Reply:
    return json_reply(wire.encode({"model_stats": plane.model_statistics(found.model, found.version)}))


_ANSWERS: dict[Operation, Callable[[DataPlane, Route], Reply]] = {
    Operation.STATUS_PAGE: _page,
    Operation.SERVER_METADATA: _server,
    Operation.SERVER_LIVE: _live,
    Operation.SERVER_READY: _ready,
    Operation.MODEL_METADATA: _model,
    Operation.MODEL_READY: _model_ready,
    Operation.MODEL_CONFIG: _config,
    Operation.MODEL_STATISTICS: _statistics,
}


def _health(what: str, good: bool, **names: str) -> Reply:
    """The specification's body. Not ready is 503, as load balancers expect; Triton says 400."""
    return json_reply(wire.encode({**names, what: good}), 200 if good else 503)
