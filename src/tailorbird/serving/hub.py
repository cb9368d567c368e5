"""The hub: which models and versions are served, and which failed to load and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from tailorbird.domain.errors import ModelNotFound, NotReady, VersionNotFound
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


class Hub:
    """The models by name and version.

    Args:
        loaded: versions that serve; owned from here on, and closed by :meth:`close`.
        failed: versions that are known and cannot serve.
    """

    def __init__(self, loaded: Iterable[LoadedModel] = (), failed: Iterable[FailedModel] = ()) -> None:
        self._loaded: dict[str, dict[int, LoadedModel]] = {}
        for model in loaded:
            self._loaded.setdefault(model.name, {})[model.version] = model
        self._failed = {(model.name, model.version): model for model in failed}
        self._default = {name: versions[max(versions)] for name, versions in self._loaded.items()}

    @property
    def models(self) -> tuple[str, ...]:
        """Names of all models, loaded or failed, in alphabetical order."""
        return tuple(sorted({*self._loaded, *(name for name, _ in self._failed)}))

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """Everything in service."""
        return tuple(model for versions in self._loaded.values() for model in versions.values())

    @property
    def failed(self) -> tuple[FailedModel, ...]:
        """Everything that failed to load."""
        return tuple(self._failed.values())

    def get(self, name: str, version: int | None = None) -> LoadedModel:
        """A version in service; the highest one that loaded when none is named.

        Raises:
            ModelNotFound, VersionNotFound: there is no such thing here.
            NotReady: it is here and did not load.
        """
        model = self._default.get(name) if version is None else self._loaded.get(name, {}).get(version)
        if model is None:
            raise self._refusal(name, version)
        return model

    def versions(self, name: str) -> tuple[int, ...]:
        """Versions of a model, loaded or failed, in order; raises :class:`ModelNotFound`."""
        failed = {version for model, version in self._failed if model == name}
        versions = tuple(sorted({*self._loaded.get(name, ()), *failed}))
        if not versions:
            raise ModelNotFound(name, self.models)
        return versions

    def is_ready(self, name: str, version: int | None = None) -> bool:
        """Whether :meth:`get` would answer, and what it gives is alive.

        Raises:
            ModelNotFound, VersionNotFound: there is no such thing here.
        """
        try:
            return self.get(name, version).alive
        except NotReady:
            return False

    def close(self) -> None:
        """Drain and close every model, side by side; blocks until that is done."""
        if self.loaded:
            with ThreadPoolExecutor(len(self.loaded), "closing") as threads:
                list(threads.map(LoadedModel.close, self.loaded))

    def _refusal(self, name: str, version: int | None) -> Exception:
        known = self.versions(name)
        if version is not None and version not in known:
            return VersionNotFound(name, version, known)
        which = f"model '{name}'" if version is None else f"model '{name}' version {version}"
        return NotReady(f"{which} is not ready: it failed to load", hint="the server's log has the reason")
