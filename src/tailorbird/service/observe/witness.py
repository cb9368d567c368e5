"""Witnesses: who is told of each inference request and of how it ended, apart from whoever answers it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from tailorbird.service.observe.access import Access
from tailorbird.serving.dataplane import InferRequest

if TYPE_CHECKING:
    from tailorbird.service.observe.telemetry import Telemetry
    from tailorbird.service.observe.traced import Traced


class Witness:
    """The access log and the trace of one request; either may be missing."""

    __slots__ = ("_access", "_traced")

    def __init__(self, access: Access | None, traced: Traced | None) -> None:
        self._access = access
        self._traced = traced

    def asks(self, request: InferRequest) -> InferRequest:
        """The request could be read; what is returned is to be run in its place."""
        if self._access is not None:
            self._access.asks(request)
        if self._traced is None:
            return request
        return msgspec.structs.replace(request, trail=self._traced.asks(request))

    def ends(self, status: int | str, error: BaseException | None = None) -> None:
        """It is answered, with that status of its protocol, and because of that error if it is one."""
        if self._access is not None:
            self._access.ends(status)
        if self._traced is not None:
            with contextlib.suppress(Exception):  # whoever watches must not fail what is watched
                self._traced.ends(status, error)


class Witnesses:
    """Makes the witness of each request.

    Args:
        access_log: there is an access log.
        telemetry: who makes traces, if anybody does.
    """

    def __init__(self, *, access_log: bool, telemetry: Telemetry | None) -> None:
        self._access_log = access_log
        self._telemetry = telemetry

    def http(self, scope: Mapping[str, Any], model: str, version: int | None, caller: str = "") -> Witness:
        """Of a request over HTTP, with the model and the version that its path names, and who asks."""
        access = Access("http", model, version, caller) if self._access_log else None
        return Witness(access, None if self._telemetry is None else self._telemetry.http(scope, model))

    def grpc(self, metadata: Iterable[tuple[str, str | bytes]] | None, method: str, caller: str = "") -> Witness:
        """Of one over gRPC, with the metadata of its call, and who asks."""
        access = Access("grpc", caller=caller) if self._access_log else None
        return Witness(access, None if self._telemetry is None else self._telemetry.grpc(metadata, method))


def witnesses_of(*, access_log: bool, telemetry: Telemetry | None) -> Witnesses | None:
    """None where nobody wants to know."""
    return Witnesses(access_log=access_log, telemetry=telemetry) if access_log or telemetry is not None else None
