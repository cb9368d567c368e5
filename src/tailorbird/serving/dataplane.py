"""The protocol's operations, without a transport: HTTP and gRPC convert, call these, convert."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import msgspec

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError, nearest
from tailorbird.domain.signature import Signature
from tailorbird.serving import descriptions
from tailorbird.serving.account import ModelAccount, account
from tailorbird.serving.descriptions import (
    EXTENSIONS,
    UNSIGNED_EXTENSION,
    IndexEntry,
    ModelMetadata,
    ServerMetadata,
    ServerStatus,
)
from tailorbird.serving.hub import Hub, LoadedModel
from tailorbird.serving.model_config import ModelConfig, model_config
from tailorbird.serving.statistics import VersionStatistics
from tailorbird.serving.ticket import Ticket

Parameter = str | int | float | bool
"""What the protocol lets a parameter be."""


class InferRequest(msgspec.Struct, frozen=True):
    """One request for one answer."""

    model: str
    inputs: dict[str, Array]
    version: int | None = None
    id: str = ""
    parameters: dict[str, Parameter] = {}
    outputs: tuple[str, ...] = ()
    """Names of the outputs asked for, in that order; empty means all."""
    dtypes: dict[str, DType] = {}
    """What the client said its inputs are. An array cannot say it alone: BF16 and UINT16 look the same."""


class InferResponse(msgspec.Struct, frozen=True):
    """The answer. ``dtypes`` has a key for each output."""

    model: str
    version: int
    outputs: dict[str, Array]
    dtypes: dict[str, DType]
    id: str = ""


class DataPlane:
    """The operations of the Open Inference Protocol.

    Args:
        hub: the models.
        version: the server's own version, as metadata states it.
        strict_readiness: the server counts as ready only when every model is.
        allow_unsigned: models without a trusted signature were let in; status and metadata say so.
    """

    def __init__(
        self, hub: Hub, version: str = "", *, strict_readiness: bool = True, allow_unsigned: bool = False
    ) -> None:
        self._hub = hub
        self._version = version
        self._strict = strict_readiness
        self._allow_unsigned = allow_unsigned

    def server_live(self) -> bool:
        """Whether the server can answer at all."""
        return True

    def server_ready(self) -> bool:
        """Whether every model can answer now; without strict readiness, whether the server is up."""
        return not self._strict or not (self._hub.failed or not all(model.alive for model in self._hub.loaded))

    def server_metadata(self) -> ServerMetadata:
        """Name, version, extensions."""
        extensions = (*EXTENSIONS, UNSIGNED_EXTENSION) if self._allow_unsigned else EXTENSIONS
        return ServerMetadata("tailorbird", self._version, extensions)

    def status(self) -> ServerStatus:
        """Every version with its engine, signer and pace, in the order of names and versions."""
        return ServerStatus(self._version, descriptions.statuses(self._hub), self._allow_unsigned)

    def repository_index(self, *, ready: bool = False) -> tuple[IndexEntry, ...]:
        """Every version and its state; with ``ready`` only those that can answer."""
        return tuple(one for one in descriptions.index(self._hub) if one.state == "READY" or not ready)

    def model_ready(self, model: str, version: int | None = None) -> bool:
        """Whether a model can answer now; raises :class:`ModelNotFound` or :class:`VersionNotFound`."""
        return self._hub.is_ready(model, version)

    def model_metadata(self, model: str, version: int | None = None) -> ModelMetadata:
        """Signature and versions.

        Raises:
            ModelNotFound, VersionNotFound, NotReady: there is no such thing, or it did not load.
        """
        return descriptions.model_metadata(self._hub.get(model, version), self._hub.versions(model))

    def model_config(self, model: str, version: int | None = None) -> ModelConfig:
        """What Triton's configuration says of a model; raises as :meth:`model_metadata` does."""
        return model_config(self._hub.get(model, version))

    def model_statistics(self, model: str = "", version: int | None = None) -> tuple[ModelAccount, ...]:
        """The statistics of versions in service, in the order of names and versions.

        Args:
            model: one model; empty for all.
            version: one version of it; None for all.

        Raises:
            ModelNotFound, VersionNotFound, NotReady: there is no such thing, or it did not load.
        """
        if model:
            self._hub.get(model, version)
        found = [one for one in self._hub.loaded if model in ("", one.name) and version in (None, one.version)]
        return tuple(account(one) for one in sorted(found, key=lambda one: (one.name, one.version)))

    def numbers(self) -> Iterator[tuple[str, int, VersionStatistics, int]]:
        """Of each version in service: model, version, statistics, and how many requests are in it now."""
        for model in self._hub.loaded:
            yield model.name, model.version, model.statistics, model.instance.outstanding

    def signature(self, model: str, version: int | None = None) -> Signature:
        """What the model takes and gives; raises as :meth:`model_metadata` does."""
        return self._hub.get(model, version).signature

    async def infer(self, request: InferRequest) -> InferResponse:
        """Run the model once. Its parameters ``timeout`` and ``priority`` are what Triton means by them.

        Raises:
            ModelNotFound, VersionNotFound, NotReady: there is no such thing, it did not load, or nothing of it is
                alive now.
            InputError: inputs contradict the signature or the profile, an output is unknown, or ``timeout`` or
                ``priority`` is no such thing.
            Overloaded: too many requests wait already, or the answer would come too late.
            BackendError: the runtime failed.
        """
        found = self._hub.get(request.model, request.version)
        started = time.monotonic()
        try:
            _check_dtypes(found.signature, request.dtypes)
            wanted = _wanted(found, request.outputs)
            ticket = ticket_of(request.parameters, started) if request.parameters else None
            outputs = await found.instance.run(request.inputs, ticket)
        except BaseException as error:  # a client that has left, too
            found.statistics.failure(error, time.monotonic() - started)
            raise
        found.statistics.answer(time.monotonic() - started)
        return InferResponse(
            model=found.name,
            version=found.version,
            outputs={name: outputs[name] for name in wanted},
            dtypes=wanted,
            id=request.id,
        )


def ticket_of(parameters: Mapping[str, Parameter], arrived: float) -> Ticket | None:
    """What a request's parameters say about its handling; None where they say nothing of it.

    Args:
        parameters: ``timeout`` in microseconds, where 0 means none; ``priority``, where 1 is served first and 0 is
            the default. Triton's schedule policy extension.
        arrived: by the monotonic clock.

    Raises:
        InputError: one of the two is not a whole number, or is negative.
    """
    timeout, priority = (_whole(name, parameters.get(name, 0)) for name in ("timeout", "priority"))
    if not timeout and not priority:
        return None
    return Ticket(arrived, arrived + timeout * 1e-6 if timeout else None, priority)


def _whole(name: str, value: Parameter) -> int:
    if type(value) is not int or value < 0:  # True is an int to Python, not to a client
        raise InputError(f"the parameter '{name}' is wrong", got=repr(value)[:40], expected="a whole number, 0 or more")
    return value


def _check_dtypes(signature: Signature, stated: Mapping[str, DType]) -> None:
    """Unknown and missing names are left to the session, which says what is known."""
    for spec in signature.inputs:
        got = stated.get(spec.name, spec.dtype)
        if got is not spec.dtype:
            raise InputError(f"input '{spec.name}' has the wrong datatype", got=got, expected=spec.dtype)


def _wanted(model: LoadedModel, names: tuple[str, ...]) -> dict[str, DType]:
    """The outputs to return with their dtypes, in the order asked for."""
    known = {spec.name: spec.dtype for spec in model.signature.outputs}
    if not names:
        return known
    for name in names:
        if name not in known:
            close = nearest(name, tuple(known))
            raise InputError(f"unknown output '{name}'", expected=", ".join(known),
                             hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    if len(set(names)) < len(names):
        raise InputError("an output is asked for twice", got=", ".join(names))
    return {name: known[name] for name in names}
