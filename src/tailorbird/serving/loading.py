"""Loading: from a repository or a bundle to a hub. A model that fails to load takes nothing else down."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tailorbird.domain import bundle
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.repository import layout
from tailorbird.repository.load import LoadedEngine, load_version, open_bundle
from tailorbird.repository.store import LocalRepository
from tailorbird.serving.hub import FailedModel, Hub, LoadedModel
from tailorbird.serving.instance import OUTSTANDING, ThreadInstance


def load_hub(source: Path, outstanding: int = OUTSTANDING) -> Hub:
    """Load what ``source`` holds.

    Args:
        source: a ``.engine`` bundle, a version's or a model's folder; or a repository, of which the
            latest version of each model is loaded.
        outstanding: requests that may wait for one model.

    Raises:
        UsageError: there is nothing of the kind.
        TailorbirdError: the one bundle failed to load. In a repository that is a row of
            :attr:`Hub.failed` instead, and the other models are served.
    """
    if not source.exists():
        raise UsageError(f"nothing to serve at {source}", got="no such file or folder",
                         expected="a repository or a bundle")  # fmt: skip
    if _is_bundle(source):
        engine = open_bundle(source)
        return Hub([_in_service(engine.manifest.model, _version(source), engine, outstanding)])
    return _load_repository(LocalRepository(source), outstanding)


def _is_bundle(source: Path) -> bool:
    return not source.is_dir() or (source / bundle.MANIFEST).is_file() or bool(layout.versions_in(source))


def _version(source: Path) -> int:
    """The number a version's folder is named by, or a model's latest; a bundle outside a repository is 1."""
    if source.is_dir() and not (source / bundle.MANIFEST).is_file():
        return layout.versions_in(source)[-1]
    return (layout.version_number(source.name) if source.is_dir() else None) or 1


def _load_repository(repository: LocalRepository, outstanding: int) -> Hub:
    loaded: list[LoadedModel] = []
    failed: list[FailedModel] = []
    for name in repository.models():
        version = repository.versions(name)[-1]
        found = _try(name, version, partial(load_version, repository.version_dir(name, version)), outstanding)
        loaded += [found] if isinstance(found, LoadedModel) else []
        failed += [found] if isinstance(found, FailedModel) else []
    if not loaded and not failed:
        raise UsageError(f"no model in {repository.root}", expected="a repository or a bundle",
                         hint="publish one: tailorbird repo publish")  # fmt: skip
    return Hub(loaded, failed)


def _try(name: str, version: int, load: Callable[[], LoadedEngine], outstanding: int) -> LoadedModel | FailedModel:
    try:
        return _in_service(name, version, load(), outstanding)
    except TailorbirdError as error:
        return FailedModel(name, version, error.message)
    except Exception as error:  # one model's fault, of whatever kind, is not the others'
        return FailedModel(name, version, f"{type(error).__name__}: {error}")


def _in_service(name: str, version: int, engine: LoadedEngine, outstanding: int) -> LoadedModel:
    try:
        layout.model_name(name)  # it becomes part of URLs
        _warm_up(engine)
    except BaseException:
        engine.close()
        raise
    instance = ThreadInstance(engine, f"model '{name}' version {version}", outstanding)
    return LoadedModel(name, version, engine.manifest, instance)


def _warm_up(engine: LoadedEngine) -> None:
    """One run on zeros at the profile's opt shape: a runtime allocates and picks kernels on its first run."""
    shapes = engine.manifest.candidate.profile.opt
    engine.run({spec.name: _zeros(spec.dtype, shapes[spec.name]) for spec in engine.manifest.signature.inputs})


def _zeros(dtype: DType, shape: tuple[int, ...]) -> Array:
    if dtype is DType.BYTES:
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype.numpy)
