"""The protocol's operations, without a transport: HTTP and gRPC convert, call these, convert."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError, nearest
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.repository.trust import Signer
from tailorbird.serving.hub import Hub, LoadedModel

Parameter = str | int | float | bool
"""What the protocol lets a parameter be."""

EXTENSIONS = ("binary_tensor_data",)
UNSIGNED_EXTENSION = "tailorbird_unsigned"
"""Stated by a server that serves models without a trusted signature, too."""


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


class ServerMetadata(msgspec.Struct, frozen=True):
    """Who answers, and which extensions of the protocol it speaks."""

    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(msgspec.Struct, frozen=True):
    """One input or output; -1 stands for a dynamic dim."""

    name: str
    datatype: DType
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    """What a client needs to know to send a request."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version that the server has been given; an engine and a signer have only those that loaded."""

    name: str
    version: int
    ready: bool
    engine: str = ""
    target: str = ""
    signer: Signer | None = None


class ServerStatus(msgspec.Struct, frozen=True):
    """What the server serves, and on what terms. Why a model failed is for the log."""

    version: str
    models: tuple[ModelStatus, ...]
    allow_unsigned: bool


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
        """Whether every model can answer; without strict readiness, whether the server is up."""
        return not (self._strict and self._hub.failed)

    def server_metadata(self) -> ServerMetadata:
        """Name, version, extensions."""
        extensions = (*EXTENSIONS, UNSIGNED_EXTENSION) if self._allow_unsigned else EXTENSIONS
        return ServerMetadata("tailorbird", self._version, extensions)

    def status(self) -> ServerStatus:
        """Every version with its engine and signer, in the order of names and versions."""
        models = [*map(_loaded_status, self._hub.loaded)]
        models += [ModelStatus(name=one.name, version=one.version, ready=False) for one in self._hub.failed]
        ordered = sorted(models, key=lambda one: (one.name, one.version))
        return ServerStatus(self._version, tuple(ordered), self._allow_unsigned)

    def model_ready(self, model: str, version: int | None = None) -> bool:
        """Whether a model can answer; raises :class:`ModelNotFound` or :class:`VersionNotFound`."""
        return self._hub.is_ready(model, version)

    def model_metadata(self, model: str, version: int | None = None) -> ModelMetadata:
        """Signature and versions.

        Raises:
            ModelNotFound, VersionNotFound, NotReady: there is no such thing, or it did not load.
        """
        found = self._hub.get(model, version)
        versions = tuple(str(number) for number in self._hub.versions(model))
        inputs, outputs = (tuple(map(_metadata, specs)) for specs in (found.signature.inputs, found.signature.outputs))
        return ModelMetadata(model, versions, found.manifest.format.platform, inputs, outputs)

    def signature(self, model: str, version: int | None = None) -> Signature:
        """What the model takes and gives; raises as :meth:`model_metadata` does."""
        return self._hub.get(model, version).signature

    async def infer(self, request: InferRequest) -> InferResponse:
        """Run the model once.

        Raises:
            ModelNotFound, VersionNotFound, NotReady: there is no such thing, or it did not load.
            InputError: inputs contradict the signature or the profile, or an output is unknown.
            Overloaded: too many requests wait already.
            BackendError: the runtime failed.
        """
        found = self._hub.get(request.model, request.version)
        _check_dtypes(found.signature, request.dtypes)
        wanted = _wanted(found, request.outputs)
        outputs = await found.instance.run(request.inputs)
        return InferResponse(
            model=found.name,
            version=found.version,
            outputs={name: outputs[name] for name in wanted},
            dtypes=wanted,
            id=request.id,
        )


def _loaded_status(model: LoadedModel) -> ModelStatus:
    chosen = model.manifest.candidate
    return ModelStatus(name=model.name, version=model.version, ready=True, engine=chosen.name,
                       target=str(chosen.target), signer=model.signer)  # fmt: skip


def _metadata(spec: TensorSpec) -> TensorMetadata:
    shape = tuple(-1 if isinstance(dim, str) else dim for dim in spec.dims)
    return TensorMetadata(spec.name, spec.dtype, shape)


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
