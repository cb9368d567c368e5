"""The protocol's operations, without a transport: HTTP and gRPC convert, call these, convert."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

import msgspec

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError, NotReady, TailorbirdError, nearest
from tailorbird.domain.signature import Signature
from tailorbird.repository.config_pbtxt import max_batch_size
from tailorbird.serving import descriptions
from tailorbird.serving.account import ModelAccount, account
from tailorbird.serving.classification import classified
from tailorbird.serving.descriptions import (
    EXTENSIONS,
    SHARED_MEMORY_EXTENSION,
    UNSIGNED_EXTENSION,
    IndexEntry,
    ModelMetadata,
    ServerMetadata,
    ServerStatus,
)
from tailorbird.serving.hub import Asleep, Hub, LoadedModel
from tailorbird.serving.model_config import ModelConfig, model_config
from tailorbird.serving.recording.recorder import Recorder
from tailorbird.serving.rollout.canary import Turn
from tailorbird.serving.rollout.status import RolloutStatus
from tailorbird.serving.rollout.traffic import Traffic
from tailorbird.serving.shared_memory import Regions
from tailorbird.serving.slices import Slice
from tailorbird.serving.statistics import VersionStatistics, kind_of
from tailorbird.serving.ticket import Ticket
from tailorbird.serving.trail import Trail

Parameter = str | int | float | bool
"""What the protocol lets a parameter be."""

SWAPS = 4
"""Times that a request asks the hub: a version that was chosen may be put away before the request reaches it."""


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
    classes: dict[str, int] | None = None
    """Of which outputs only so many of the largest values are wanted; see :mod:`tailorbird.serving.classification`."""
    shared: dict[str, Slice] | None = None
    """Which outputs go into a client's shared memory instead of the reply: the transports see to it."""
    trail: Trail | None = None
    """Where its way through the server is noted, if anybody traces it."""


class InferResponse(msgspec.Struct, frozen=True):
    """The answer. ``dtypes`` has a key for each output."""

    model: str
    version: int
    outputs: dict[str, Array]
    dtypes: dict[str, DType]
    id: str = ""
    placed: frozenset[str] = frozenset()
    """Outputs that lie in a client's shared memory: their data is not in the reply."""


class DataPlane:
    """The operations of the Open Inference Protocol.

    Args:
        hub: the models.
        version: the server's own version, as metadata states it.
        strict_readiness: the server counts as ready only when every model is.
        allow_unsigned: models without a trusted signature were let in; status and metadata say so.
        recorder: told of every request that found its model; closed by whoever made it.
    """

    def __init__(
        self,
        hub: Hub,
        version: str = "",
        *,
        strict_readiness: bool = True,
        allow_unsigned: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.regions: Regions | None = None
        """Local clients' shared memory, given by whoever puts the server together; None where it is off."""
        self._hub = hub
        self._version = version
        self._strict = strict_readiness
        self._allow_unsigned = allow_unsigned
        self._recorder = recorder

    def server_live(self) -> bool:
        """Whether the server can answer at all."""
        return True

    def server_ready(self) -> bool:
        """Whether every model can answer now; without strict readiness, whether the server is up."""
        return not self._strict or self._hub.ready

    def server_metadata(self) -> ServerMetadata:
        """Name, version, extensions."""
        extensions = (
            *EXTENSIONS,
            *([SHARED_MEMORY_EXTENSION] if self.regions else ()),
            *([UNSIGNED_EXTENSION] if self._allow_unsigned else ()),
        )
        return ServerMetadata("tailorbird", self._version, extensions)

    def status(self) -> ServerStatus:
        """Every version with its engine, signer and pace, in the order of names and versions; and what changed."""
        changer = self._hub.changer
        models = descriptions.statuses(self._hub, changer.memory())
        return ServerStatus(self._version, models, self._allow_unsigned, self.rollouts(), changer.changes())

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

    def rollouts(self) -> tuple[RolloutStatus, ...]:
        """Who answers for each model that is in service, and how its canary and its shadow are doing; by name."""
        found = []
        for name in self._hub.models:
            traffic = self._hub.traffic(name)
            if traffic is not None:
                found.append(traffic.status())
                continue
            with contextlib.suppress(TailorbirdError):  # nobody answers for it now
                found.append(RolloutStatus(name, self._hub.get(name).version))
        return tuple(found)

    async def repository_load(self, model: str) -> None:
        """Load a model, or the version of it that the repository says should be in service by now.

        Raises:
            UsageError: the server's model control mode does not allow it.
            ModelNotFound: the repository has no such model in service.
            NotReady: it did not load; why is for the log.
        """
        await self._hub.changer.aside(self._hub.changer.load, model)

    async def repository_unload(self, model: str) -> None:
        """Put a model away; returns when it has answered what it accepted.

        Raises:
            UsageError: the server's model control mode does not allow it.
            ModelNotFound: there is no such model here.
        """
        await self._hub.changer.aside(self._hub.changer.unload, model)

    async def awake(self, model: str, version: int | None = None) -> None:
        """Load a model that sleeps; does nothing for any other, whether it is there or not."""
        try:
            self._hub.get(model, version)
        except Asleep:
            await self._hub.changer.awaken(model)
        except TailorbirdError:
            return

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
        started = time.monotonic()
        for _ in range(SWAPS):
            try:
                found = self._hub.get(request.model, request.version)
            except Asleep:
                await self._awaken(request, started)
                continue
            traffic = self._hub.traffic(request.model) if request.version is None else None
            try:
                if traffic is not None:
                    found = traffic.live
                    return await self._steered(traffic, request, started)
                outputs, wanted = await self._ask(found, request, started)
                return _response(found, request, outputs, wanted)
            except NotReady:
                if not self._moved(found, request):
                    raise
        raise NotReady(f"model '{request.model}' is changing", hint="send the request again in a moment")

    async def _awaken(self, request: InferRequest, started: float) -> None:
        """Wait until a model that sleeps is loaded."""
        ticket = ticket_of(request.parameters, started)
        await self._hub.changer.awaken(request.model, None if ticket is None else ticket.deadline)

    async def _ask(
        self, model: LoadedModel, request: InferRequest, started: float, *, spare: bool = False
    ) -> tuple[dict[str, Array], dict[str, DType]]:
        """One version's outputs, and which of them are wanted. With ``spare`` another one is asked where it fails."""
        try:
            _check_dtypes(model.signature, request.dtypes)
            wanted = _wanted(model, request.outputs)
            ticket = ticket_of(request.parameters, started) if request.parameters else None
            if request.trail is not None:
                ticket = traced(model, ticket, request.trail, started)
            outputs = await model.instance.run(request.inputs, ticket)
        except BaseException as error:  # a client that has left, too
            if spare or not (isinstance(error, NotReady) and self._moved(model, request)):
                self._failed(model, request, error, started, spare=spare)
            raise
        seconds = time.monotonic() - started
        model.statistics.answer(seconds)
        if self._recorder is not None:
            self._recorder.note(model, request.inputs, request.parameters, started, seconds)
        return outputs, wanted

    def _failed(
        self, model: LoadedModel, request: InferRequest, error: BaseException, started: float, *, spare: bool
    ) -> None:
        seconds = time.monotonic() - started
        model.statistics.failure(error, seconds)
        if self._recorder is not None and not spare:
            self._recorder.note(model, request.inputs, request.parameters, started, seconds, kind_of(error))

    def _moved(self, model: LoadedModel, request: InferRequest) -> bool:
        """Whether the hub has given the requests of ``model`` to somebody else meanwhile."""
        try:
            return self._hub.get(request.model, request.version) is not model
        except Asleep:  # to be loaded again
            return True
        except TailorbirdError:
            return False

    async def _steered(self, traffic: Traffic, request: InferRequest, started: float) -> InferResponse:
        """Where a canary or a shadow takes part."""
        turn = traffic.choose()
        if turn is None or not turn.canary:
            return await self._on_live(traffic, turn, request, started)
        canary = turn.model
        try:
            outputs, wanted = await self._ask(canary, request, started, spare=True)
        except Exception as error:
            return await self._rescued(traffic, turn, request, started, error)
        except BaseException as error:
            traffic.over(turn, error)
            raise
        traffic.over(turn)
        return _response(canary, request, outputs, wanted)

    async def _on_live(
        self, traffic: Traffic, turn: Turn | None, request: InferRequest, started: float
    ) -> InferResponse:
        asked = time.monotonic()
        try:
            outputs, wanted = await self._ask(traffic.live, request, started)
        except BaseException as error:
            traffic.over(turn, error)
            raise
        traffic.over(turn)
        traffic.copy(request.inputs, outputs, time.monotonic() - asked)
        return _response(traffic.live, request, outputs, wanted)

    async def _rescued(
        self, traffic: Traffic, turn: Turn, request: InferRequest, started: float, error: Exception
    ) -> InferResponse:
        """What failed on the canary is the live version's to answer or to refuse, with what is left of the time."""
        try:
            response = await self._on_live(traffic, None, request, started)
        except BaseException:
            traffic.over(turn, error)
            raise
        traffic.over(turn, error, rescued=True)
        return response


def ticket_of(parameters: Mapping[str, Parameter], arrived: float) -> Ticket | None:
    """What a request's parameters say about its handling; None where they say nothing of it.

    Args:
        parameters: ``timeout`` in microseconds, where 0 means none; ``priority``, where 1 is served first and 0 is
            the default. Triton's schedule policy extension.
        arrived: by the monotonic clock.

    Raises:
        InputError: one of the two is not a whole number, is negative, or has more than 63 bits.
    """
    timeout, priority = (_whole(name, parameters.get(name, 0)) for name in ("timeout", "priority"))
    if not timeout and not priority:
        return None
    return Ticket(arrived, arrived + timeout * 1e-6 if timeout else None, priority)


def traced(model: LoadedModel, ticket: Ticket | None, trail: Trail, arrived: float) -> Ticket:
    """The ticket, or a plain one, with a trail to be noted on, which says who answers."""
    trail.arrived, trail.version, trail.engine = arrived, model.version, model.manifest.candidate.name
    return msgspec.structs.replace(ticket or Ticket(arrived), trail=trail)


def _response(
    model: LoadedModel, request: InferRequest, outputs: dict[str, Array], dtypes: dict[str, DType]
) -> InferResponse:
    """The answer: the outputs that ``dtypes`` names, with classes in place of those they are asked of."""
    outputs = {name: outputs[name] for name in dtypes}
    if request.classes:
        outputs, dtypes = classified(outputs, dtypes, request.classes, batched=max_batch_size(model.manifest) > 0)
    return InferResponse(model.name, model.version, outputs, dtypes, request.id)


def _whole(name: str, value: Parameter) -> int:
    if type(value) is not int or value < 0:  # True is an int to Python, not to a client
        raise InputError(f"the parameter '{name}' is wrong", got=repr(value)[:40], expected="a whole number, 0 or more")
    if value >= 1 << 63:  # gRPC has no larger ones, and a float cannot hold every one
        raise InputError(f"the parameter '{name}' is too large", got=repr(value)[:40], expected="less than 2^63")
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
