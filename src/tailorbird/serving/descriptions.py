"""Descriptions: what a server says about itself and its models, to clients and on its status page."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tailorbird.domain.dtype import DType
from tailorbird.domain.signature import TensorSpec
from tailorbird.repository.signing.trust import Signer
from tailorbird.serving.hub import Direction, Hub, IdleModel, LoadedModel
from tailorbird.serving.pace import Pace, pace_of
from tailorbird.serving.rollout.record import Change
from tailorbird.serving.rollout.status import RolloutStatus

EXTENSIONS = (
    *("binary_tensor_data", "classification", "parameters"),
    *("schedule_policy", "statistics", "model_configuration"),
)
SHARED_MEMORY_EXTENSION = "system_shared_memory"
"""Stated by a server that takes local clients' shared memory."""
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
    """READY, LOADING, UNLOADING or UNAVAILABLE, as Triton says it."""
    reason: str = ""


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One version that the server has been given; an engine and a signer have only those that loaded."""

    name: str
    version: int
    ready: bool
    engine: str = ""
    target: str = ""
    signer: Signer | None = None
    pace: Pace = Pace()
    role: str = ""
    """``live``, ``canary``, ``shadow``, or ``kept for a rollback``; empty where nobody has said who answers."""
    memory: int | None = None
    """Bytes it takes, where that is known."""
    idle: IdleModel | None = None
    """Where it is on purpose in no service: why."""

    @property
    def state(self) -> str:
        """In words."""
        if self.idle is not None:
            return self.idle.reason
        return "ready" if self.ready else "down, starting again" if self.engine else "failed to load"


class ServerStatus(msgspec.Struct, frozen=True):
    """What the server serves, and on what terms. Why a model failed is for the log."""

    version: str
    models: tuple[ModelStatus, ...]
    allow_unsigned: bool
    rollouts: tuple[RolloutStatus, ...] = ()
    changes: tuple[Change, ...] = ()
    """The latest, the newest first."""


def model_metadata(model: LoadedModel, versions: tuple[int, ...]) -> ModelMetadata:
    """Signature and versions of a model."""
    inputs, outputs = (tuple(map(_metadata, specs)) for specs in (model.signature.inputs, model.signature.outputs))
    return ModelMetadata(model.name, tuple(map(str, versions)), model.manifest.format.platform, inputs, outputs)


def statuses(hub: Hub, memory: Mapping[tuple[str, int], int] | None = None) -> tuple[ModelStatus, ...]:
    """Every version with its engine, signer and pace, in the order of names and versions.

    Args:
        hub: the versions.
        memory: bytes that each takes, where that is known.
    """
    weights = memory or {}
    models = [_loaded_status(one, hub.direction(one.name), weights.get((one.name, one.version))) for one in hub.loaded]
    models += [ModelStatus(name=one.name, version=one.version, ready=False, idle=one) for one in hub.idle]
    models += [ModelStatus(name=one.name, version=one.version, ready=False) for one in hub.failed]
    return tuple(sorted(models, key=lambda one: (one.name, one.version)))


def index(hub: Hub) -> tuple[IndexEntry, ...]:
    """Every version as the repository index lists it. Why one failed is for the log."""
    return tuple(IndexEntry(one.name, str(one.version), *_state(one)) for one in statuses(hub))


def _state(model: ModelStatus) -> tuple[str, str]:
    if model.idle is not None:
        return model.idle.state, model.idle.reason
    return ("READY", "") if model.ready else ("UNAVAILABLE", f"{model.state}: the server's log has the reason")


def _loaded_status(model: LoadedModel, direction: Direction | None, memory: int | None) -> ModelStatus:
    chosen = model.manifest.candidate
    return ModelStatus(name=model.name, version=model.version, ready=model.alive, engine=chosen.name,
                       target=str(chosen.target), signer=model.signer, pace=pace_of(model),
                       role=_role(model.version, direction), memory=memory)  # fmt: skip


def _role(version: int, direction: Direction | None) -> str:
    if direction is None:
        return ""
    roles = {direction.shadow: "shadow", direction.canary: "canary", direction.live: "live"}
    return roles.get(version, "kept for a rollback")


def _metadata(spec: TensorSpec) -> TensorMetadata:
    shape = tuple(-1 if isinstance(dim, str) else dim for dim in spec.dims)
    return TensorMetadata(spec.name, spec.dtype, shape)
