"""The hub: which models and versions are served, who answers for each, and what is not in service and why.

Readers never lock: what they read is replaced whole, never changed. Writers take turns under one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from tailorbird.domain.errors import ModelNotFound, NotReady, UsageError, VersionNotFound
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.signature import Signature
from tailorbird.repository.signing.trust import Signer
from tailorbird.serving.instance import Instance
from tailorbird.serving.statistics import VersionStatistics


def _nothing() -> None:
    pass


class LoadedModel(msgspec.Struct, frozen=True):
    """One version in service."""

    name: str
    version: int
    manifest: Manifest
    instance: Instance
    signer: Signer | None = None
    """None where unsigned bundles were explicitly allowed."""
    statistics: VersionStatistics = msgspec.field(default_factory=VersionStatistics)
    in_order: bool = False
    """Answers leave in the order in which requests came."""
    release: Callable[[], object] = _nothing
    """Gives back what it holds besides its instance: an unpacked bundle's folder."""

    @property
    def alive(self) -> bool:
        """Whether anything is there to answer; False while each of its processes is down."""
        return self.instance.alive

    def close(self) -> None:
        """Drain and close the instance, and give back the rest; blocks until that is done."""
        try:
            self.instance.close()
        finally:
            self.release()

    @property
    def signature(self) -> Signature:
        """What goes in and what comes out."""
        return self.manifest.signature


class FailedModel(msgspec.Struct, frozen=True):
    """One version that should be in service and is not. The reason is for the log, not for clients."""

    name: str
    version: int
    reason: str


class State(StrEnum):
    """Of a version, in the words of Triton's index."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class IdleModel(msgspec.Struct, frozen=True):
    """One version that is known and, for a good reason, not in service."""

    name: str
    version: int
    state: State
    reason: str
    """For clients, too."""
    wakes: bool = False
    """A request for it loads it."""


class Direction(msgspec.Struct, frozen=True):
    """Which versions of a model answer requests that name none."""

    live: int
    canary: int | None = None
    """Gets a share of them."""
    weight: float = 0.0
    """That share, 0 to 1."""
    shadow: int | None = None
    """Gets copies of them, and its answers go nowhere."""


class Asleep(NotReady):
    """The model is not loaded, and a request may load it."""


class Changer(Protocol):
    """Who changes a hub: the controller."""

    def changes(self) -> tuple[Any, ...]:
        """The latest :class:`tailorbird.serving.rollout.record.Change` values, the newest first."""

    def memory(self) -> Mapping[tuple[str, int], int]:
        """Bytes that versions in service take, by model and version, where that is known."""

    def load(self, name: str, /) -> None:
        """Load a model, or the version of it that should be in service by now; blocks until it serves."""

    def unload(self, name: str, /) -> None:
        """Put a model away; blocks until it has answered what it accepted."""

    async def aside(self, action: Callable[[str], None], name: str, /) -> None:
        """Let :meth:`load` or :meth:`unload` block in a thread that no request needs."""

    async def awaken(self, name: str, deadline: float | None = None, /) -> None:
        """Wait, until a moment by the monotonic clock, for a model that sleeps to be loaded."""


class _Nobody:
    """Of a hub that stays as it is."""

    def changes(self) -> tuple[Any, ...]:
        return ()

    def memory(self) -> Mapping[tuple[str, int], int]:
        return {}

    def load(self, _: str, /) -> None:
        raise UsageError("this server does not load models on request")

    def unload(self, _: str, /) -> None:
        raise UsageError("this server does not unload models on request")

    async def aside(self, action: Callable[[str], None], name: str, /) -> None:
        action(name)

    async def awaken(self, name: str, _: float | None = None, /) -> None:
        raise NotReady(f"model '{name}' is not loaded")


_Absent = FailedModel | IdleModel
_Key = tuple[str, int]


class Hub:
    """The models by name and version. Safe for any number of readers and writers in any thread.

    Args:
        loaded: versions that serve; owned from here on, and closed by :meth:`close`.
        failed: versions that are known and cannot serve.
    """

    def __init__(self, loaded: Iterable[LoadedModel] = (), failed: Iterable[FailedModel] = ()) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._loaded: Mapping[str, Mapping[int, LoadedModel]] = {}
        self._absent: Mapping[_Key, _Absent] = {(model.name, model.version): model for model in failed}
        self._default: Mapping[str, LoadedModel] = {}
        self._directions: Mapping[str, Direction] = {}
        self._traffic: Mapping[str, Any] = {}
        self.changer: Changer = _Nobody()
        """Who loads and puts away models."""
        for model in loaded:
            self.put(model)
        self._vital = frozenset(self.models)

    # --- what readers ask ---

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models, in service or not, in alphabetical order."""
        return tuple(sorted({*self._loaded, *(name for name, _ in self._absent)}))

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """Everything in service."""
        return tuple(model for versions in self._loaded.values() for model in versions.values())

    @property
    def failed(self) -> tuple[FailedModel, ...]:
        """Everything that failed to load."""
        return tuple(one for one in self._absent.values() if isinstance(one, FailedModel))

    @property
    def idle(self) -> tuple[IdleModel, ...]:
        """Everything else that is not in service: being loaded, put away, or not wanted now."""
        return tuple(one for one in self._absent.values() if isinstance(one, IdleModel))

    @property
    def ready(self) -> bool:
        """Whether every model answers that has to: those there at the start, and those that ever answered.

        A model that is loaded for the first time, was unloaded, or sleeps does not count against it; nor does a
        failed version while another one of its model answers.
        """
        idle = {one.name for one in self.idle}
        return all(
            model.alive if (model := self._default.get(name)) else name in idle and not self._fails(name)
            for name in self._vital
        )

    def get(self, name: str, version: int | None = None) -> LoadedModel:
        """A version in service; when none is named the live one, or the highest that loaded.

        Raises:
            ModelNotFound, VersionNotFound: there is no such thing here.
            Asleep: it is known, and a request may load it.
            NotReady: it is here and did not load, or is not in service now.
        """
        model = self._default.get(name) if version is None else self._loaded.get(name, {}).get(version)
        if model is None:
            raise self._refusal(name, version)
        return model

    def traffic(self, name: str) -> Any | None:
        """What shares a model's requests out where a canary or a shadow takes part, or None."""
        return self._traffic.get(name)

    def direction(self, name: str) -> Direction | None:
        """Which versions answer for a model; None where nobody has said so."""
        return self._directions.get(name)

    def versions(self, name: str) -> tuple[int, ...]:
        """Versions of a model, in service or not, in order; raises :class:`ModelNotFound`."""
        absent = {version for model, version in self._absent if model == name}
        versions = tuple(sorted({*self._loaded.get(name, ()), *absent}))
        if not versions:
            raise ModelNotFound(name, self.models)
        return versions

    def loaded_versions(self, name: str) -> Mapping[int, LoadedModel]:
        """What of a model is in service, by version."""
        return self._loaded.get(name, {})

    def is_ready(self, name: str, version: int | None = None) -> bool:
        """Whether :meth:`get` would answer, and what it gives is alive.

        Raises:
            ModelNotFound, VersionNotFound: there is no such thing here.
        """
        try:
            return self.get(name, version).alive
        except NotReady:
            return False

    # --- what writers do ---

    def put(self, model: LoadedModel) -> None:
        """Take a version into service. It answers requests that name it; others only once :meth:`direct` says so.

        The first version of a model answers at once, and without any direction the highest one does.

        Raises:
            NotReady: the hub is closed; the model stays the caller's.
        """
        with self._lock:
            if self._closed:
                raise NotReady("the server is being put away")
            versions = {**self._loaded.get(model.name, {}), model.version: model}
            self._loaded = {**self._loaded, model.name: versions}
            self._absent = _without(self._absent, (model.name, model.version))
            if model.name not in self._directions:
                self._default = {**self._default, model.name: versions[max(versions)]}

    def direct(self, name: str, direction: Direction, traffic: Any | None = None) -> None:
        """Say who answers requests that name no version.

        Args:
            name: the model; the live version is in service.
            direction: the versions.
            traffic: shares the requests out, where the direction has a canary or a shadow.
        """
        with self._lock:
            live = self._loaded[name][direction.live]
            self._directions = {**self._directions, name: direction}
            before = self._traffic
            self._traffic = _without(before, name) if traffic is None else {**before, name: traffic}
            self._default = {**self._default, name: live}
            self._vital |= {name}

    def take_out(self, name: str, version: int, *, wakes: bool = False) -> LoadedModel | None:
        """Take a version out of service; None where it is in none. Whoever calls closes it, then says :meth:`drained`.

        Requests that it accepted are its own. Where it was the live one nobody answers for the model any more.

        Args:
            name: the model.
            version: of it.
            wakes: a request for it may load it again.
        """
        with self._lock:
            model = self._loaded.get(name, {}).get(version)
            if model is None:
                return None
            left = _without(self._loaded[name], version)
            self._loaded = {**self._loaded, name: left} if left else _without(self._loaded, name)
            leaving = IdleModel(name, version, State.UNLOADING, "being put away", wakes)
            self._absent = {**self._absent, (name, version): leaving}
            if self._default.get(name) is model:
                self._default, self._directions, self._traffic = (
                    _without(table, name) for table in (self._default, self._directions, self._traffic)
                )
            return model

    def wait(self, model: IdleModel) -> None:
        """A version is known and not in service, for that reason; forgets what was known of it before."""
        self._say(model)

    def fail(self, name: str, version: int, reason: str) -> None:
        """A version cannot serve, for a reason that is for the log alone."""
        self._say(FailedModel(name, version, reason))

    def drained(self, name: str, version: int, after: IdleModel | None = None) -> None:
        """A version that was taken out has answered what it accepted; it is known as ``after``, or not at all."""
        with self._lock:
            found = self._absent.get((name, version))
            if isinstance(found, IdleModel) and found.state is State.UNLOADING:  # else it is wanted again already
                self._absent = _without(self._absent, (name, version))
                if after is not None:
                    self._absent = {**self._absent, (name, version): after}

    def gone(self, name: str, version: int) -> None:
        """Forget a version that is not in service."""
        with self._lock:
            self._absent = _without(self._absent, (name, version))

    def all_vital(self) -> None:
        """The server is ready only while each of the models is that are in service now, or that failed."""
        with self._lock:
            self._vital = frozenset({*self._loaded, *(one.name for one in self.failed)})

    def release(self, name: str) -> None:
        """The server may be ready without a model: somebody took it out on purpose."""
        with self._lock:
            self._vital -= {name}

    def close(self) -> None:
        """Drain and close every model, side by side, and take no more; blocks until that is done."""
        with self._lock:
            self._closed = True
        if self.loaded:
            with ThreadPoolExecutor(len(self.loaded), "closing") as threads:
                list(threads.map(LoadedModel.close, self.loaded))

    # --- steps ---

    def _say(self, absent: _Absent) -> None:
        with self._lock:
            if absent.version not in self._loaded.get(absent.name, {}):
                self._absent = {**self._absent, (absent.name, absent.version): absent}

    def _fails(self, name: str) -> bool:
        return any(one.name == name for one in self.failed)

    def _refusal(self, name: str, version: int | None) -> Exception:
        known = self.versions(name)
        if version is not None and version not in known:
            return VersionNotFound(name, version, known)
        which = f"model '{name}'" if version is None else f"model '{name}' version {version}"
        idle = [one for one in self.idle if one.name == name and version in (None, one.version)]
        if any(one.wakes for one in idle):
            return Asleep(f"{which} is not loaded", hint="send the request again in a moment")
        if idle and not (version is None and self._fails(name)):
            reason = idle[-1].reason
            return NotReady(f"{which} is not ready: {reason}", hint="see the repository index")
        return NotReady(f"{which} is not ready: it failed to load", hint="the server's log has the reason")


def _without(table: Mapping[Any, Any], key: Any) -> dict[Any, Any]:
    return {name: value for name, value in table.items() if name != key}
