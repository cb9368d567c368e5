"""Descriptions: what a server says about itself and its models, to clients and on its status page."""

from __future__ import annotations

import msgspec
import numpy as np

from tailorbird.domain.dtype import DType
from tailorbird.domain.signature import TensorSpec
from tailorbird.repository.signing.trust import Signer
from tailorbird.serving.hub import Hub, LoadedModel
from tailorbird.serving.statistics import Trouble

EXTENSIONS = ("binary_tensor_data", "parameters", "schedule_policy", "statistics", "model_configuration")
UNSIGNED_EXTENSION = "tailorbird_unsigned"
"""Stated by a server that serves models without a trusted signature, too."""


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


class IndexEntry(msgspec.Struct, frozen=True):
    """One version, as the repository index lists it."""

    name: str
    version: str
    state: str
    """READY or UNAVAILABLE."""
    reason: str = ""


class Pace(msgspec.Struct, frozen=True):
    """How a version is doing."""

    answered: int = 0
    failed: int = 0
    waiting: int = 0
    """Requests accepted and not yet answered."""
    crashes: int = 0
    p50_ms: float | None = None
    """Of the latest answers; None before the first."""
    p99_ms: float | None = None
    troubles: tuple[Trouble, ...] = ()
    """The latest failures, the newest first."""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version that the server has been given; an engine and a signer have only those that loaded."""

    name: str
    version: int
    ready: bool
    engine: str = ""
    target: str = ""
    signer: Signer | None = None
    pace: Pace = Pace()

    @property
    def state(self) -> str:
        """In words."""
        return "ready" if self.ready else "down, starting again" if self.engine else "failed to load"


class ServerStatus(msgspec.Struct, frozen=True):
    """What the server serves, and on what terms. Why a model failed is for the log."""

    version: str
    models: tuple[ModelStatus, ...]
    allow_unsigned: bool


def model_metadata(model: LoadedModel, versions: tuple[int, ...]) -> ModelMetadata:
    """Signature and versions of a model."""
    inputs, outputs = (tuple(map(_metadata, specs)) for specs in (model.signature.inputs, model.signature.outputs))
    return ModelMetadata(model.name, tuple(map(str, versions)), model.manifest.format.platform, inputs, outputs)


def statuses(hub: Hub) -> tuple[ModelStatus, ...]:
    """Every version with its engine, signer and pace, in the order of names and versions."""
    models = [*map(_loaded_status, hub.loaded)]
    models += [ModelStatus(name=one.name, version=one.version, ready=False) for one in hub.failed]
    return tuple(sorted(models, key=lambda one: (one.name, one.version)))


def index(hub: Hub) -> tuple[IndexEntry, ...]:
    """Every version as the repository index lists it. Why one failed is for the log."""
    return tuple(IndexEntry(one.name, str(one.version), *_state(one)) for one in statuses(hub))


def _state(model: ModelStatus) -> tuple[str, str]:
    return ("READY", "") if model.ready else ("UNAVAILABLE", f"{model.state}: the server's log has the reason")


def _loaded_status(model: LoadedModel) -> ModelStatus:
    chosen = model.manifest.candidate
    return ModelStatus(name=model.name, version=model.version, ready=model.alive, engine=chosen.name,
                       target=str(chosen.target), signer=model.signer, pace=_pace(model))  # fmt: skip


def _pace(model: LoadedModel) -> Pace:
    found = model.statistics
    p50, p99 = np.percentile(found.recent, (50, 99)) * 1e3 if found.recent else (None, None)
    return Pace(
        answered=found.answered.count,
        failed=found.failures.total(),
        waiting=model.instance.outstanding,
        crashes=found.crashes,
        p50_ms=p50,
        p99_ms=p99,
        troubles=tuple(found.troubles)[::-1],
    )


def _metadata(spec: TensorSpec) -> TensorMetadata:
    shape = tuple(-1 if isinstance(dim, str) else dim for dim in spec.dims)
    return TensorMetadata(spec.name, spec.dtype, shape)
