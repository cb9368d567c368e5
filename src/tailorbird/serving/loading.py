"""Loading: from a repository or a bundle to a hub. A model that fails to load takes nothing else down."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tailorbird.domain import bundle
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.repository import layout
from tailorbird.repository.base import Repository
from tailorbird.repository.load import LoadedEngine, load_version, open_bundle
from tailorbird.repository.opening import is_remote, open_repository, repository_of
from tailorbird.serving.hub import FailedModel, Hub, LoadedModel
from tailorbird.serving.instance import OUTSTANDING, ThreadInstance

_Load = Callable[[str, int], LoadedModel | FailedModel]


def load_hub(
    source: Path | str, outstanding: int = OUTSTANDING, *, channel: str = "", allow_unsigned: bool = False
) -> Hub:
    """Load what ``source`` holds.

    Args:
        source: a ``.engine`` bundle, a version's or a model's folder; or a repository, as a folder or as
            ``s3://bucket/prefix``, of which one version of each model is loaded.
        outstanding: requests that may wait for one model.
        channel: which version: the one that this channel points at, for models that have it. Without it the one
            that ``production`` points at, or where there is no such channel the latest that is not retired.
        allow_unsigned: for local experiments; see :func:`tailorbird.repository.trust.verified`.

    Raises:
        UsageError: there is nothing of the kind.
        TailorbirdError: the one bundle failed to load. In a repository that is a row of
            :attr:`Hub.failed` instead, and the other models are served.
    """
    if not is_remote(source) and not Path(source).exists():
        raise UsageError(f"nothing to serve at {source}", got="no such file or folder",
                         expected="a repository or a bundle")  # fmt: skip
    if not is_remote(source) and _is_bundle(Path(source)):
        return _load_bundle(Path(source), outstanding, channel, allow_unsigned)
    repository = open_repository(source, allow_unsigned=allow_unsigned)
    return _load_repository(repository, outstanding, channel, allow_unsigned)


def _load_bundle(source: Path, outstanding: int, channel: str, allow_unsigned: bool) -> Hub:
    repository = repository_of(source) if _is_model(source) else None
    if repository is not None:
        return _load_repository(repository, outstanding, channel, allow_unsigned, source.resolve().name)
    if channel:
        raise UsageError("a single bundle has no channels", got=f"--channel {channel}", expected="a repository")
    engine = open_bundle(source, allow_unsigned=allow_unsigned)
    return Hub([_in_service(engine.manifest.model, _version(source), engine, outstanding)])


def _is_bundle(source: Path) -> bool:
    return not source.is_dir() or (source / bundle.MANIFEST).is_file() or bool(layout.versions_in(source))


def _is_model(source: Path) -> bool:
    return source.is_dir() and not (source / bundle.MANIFEST).is_file()


def _version(source: Path) -> int:
    """The number a version's folder is named by, or a model's latest; a bundle outside a repository is 1."""
    if _is_model(source):
        return layout.versions_in(source)[-1]
    return (layout.version_number(source.name) if source.is_dir() else None) or 1


def _load_repository(
    repository: Repository, outstanding: int, channel: str, allow_unsigned: bool, only: str = ""
) -> Hub:
    def load(name: str, version: int) -> LoadedModel | FailedModel:
        def opened() -> LoadedEngine:
            return load_version(repository.version_dir(name, version), allow_unsigned=allow_unsigned)

        return _try(name, version, opened, outstanding)

    serving = {name: found for name, found in repository.serving(channel).items() if only in ("", name)}
    if not serving:
        raise _nothing(repository, channel)
    found = [_latest_word(repository, channel, load(name, version), load) for name, version in serving.items()]
    loaded = [model for model in found if isinstance(model, LoadedModel)]
    return Hub(loaded, [model for model in found if isinstance(model, FailedModel)])


def _latest_word(
    repository: Repository, channel: str, found: LoadedModel | FailedModel, load: _Load
) -> LoadedModel | FailedModel:
    """What failed is tried again where another version is in service by now: the first may have been collected."""
    if isinstance(found, LoadedModel):
        return found
    with contextlib.suppress(TailorbirdError):
        version = repository.serving(channel).get(found.name)
        if version not in (None, found.version):
            return load(found.name, version)
    return found


def _nothing(repository: Repository, channel: str) -> UsageError:
    models = repository.models()
    if not models:
        return UsageError(f"no model in {repository.place}", expected="a repository or a bundle",
                          hint="publish one: tailorbird repo publish")  # fmt: skip
    if channel:
        known = ", ".join(sorted({live.channel for live in repository.channels()})) or "none"
        return UsageError(f"no model in {repository.place} has the channel '{channel}'", expected=f"one of: {known}",
                          hint="promote a version to it: tailorbird repo promote")  # fmt: skip
    return UsageError(f"every version in {repository.place} is retired", got=", ".join(models),
                      hint="restore one: tailorbird repo restore")  # fmt: skip


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
    return LoadedModel(name, version, engine.manifest, instance, engine.signer)


def _warm_up(engine: LoadedEngine) -> None:
    """One run on zeros at the profile's opt shape: a runtime allocates and picks kernels on its first run."""
    shapes = engine.manifest.candidate.profile.opt
    engine.run({spec.name: _zeros(spec.dtype, shapes[spec.name]) for spec in engine.manifest.signature.inputs})


def _zeros(dtype: DType, shape: tuple[int, ...]) -> Array:
    if dtype is DType.BYTES:
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, dtype.numpy)
