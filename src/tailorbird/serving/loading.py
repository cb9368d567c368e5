"""Loading: from a repository or a bundle to a hub. A model that fails to load takes nothing else down."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tailorbird.domain import bundle
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.repository import layout
from tailorbird.repository.base import Repository
from tailorbird.repository.load import version_folder
from tailorbird.repository.opening import is_remote, open_repository, repository_of
from tailorbird.serving.hub import FailedModel, Hub, LoadedModel
from tailorbird.serving.processes.events import Event
from tailorbird.serving.starting import HubOptions, Started, Watch, put_in_service

_Found = LoadedModel | FailedModel
_Load = Callable[[str, int], _Found]


class _Way(msgspec.Struct, frozen=True):
    """How everything of one hub is loaded."""

    options: HubOptions
    channel: str
    watch: Watch


def load_hub(
    source: Path | str, options: HubOptions | None = None, *, channel: str = "", watch: Watch | None = None
) -> Hub:
    """Load what ``source`` holds.

    Args:
        source: a ``.engine`` bundle, a version's or a model's folder; or a repository, as a folder or as
            ``s3://bucket/prefix``, of which one version of each model is loaded.
        options: how models are put into service.
        channel: which version: the one that this channel points at, for models that have it. Without it the one
            that ``production`` points at, or where there is no such channel the latest that is not retired.
        watch: told of what happens to the instances' processes.

    Raises:
        UsageError: there is nothing of the kind.
        TailorbirdError: the one bundle failed to load. In a repository that is a row of
            :attr:`Hub.failed` instead, and the other models are served.
    """
    way = _Way(options or HubOptions(), channel, watch or _nobody)
    if is_remote(source):
        return _load_repository(_repository(source, way), way)
    if not Path(source).exists():
        raise UsageError(f"nothing to serve at {source}", got="no such file or folder",
                         expected="a repository or a bundle")  # fmt: skip
    return _load_bundle(Path(source), way) if _is_bundle(Path(source)) else _load_repository(
        _repository(source, way), way
    )  # fmt: skip


def _repository(source: Path | str, way: _Way) -> Repository:
    return open_repository(source, allow_unsigned=way.options.allow_unsigned)


def _load_bundle(source: Path, way: _Way) -> Hub:
    repository = repository_of(source) if _is_model(source) else None
    if repository is not None:
        return _load_repository(repository, way, source.resolve().name)
    if way.channel:
        raise UsageError("a single bundle has no channels", got=f"--channel {way.channel}", expected="a repository")
    with ExitStack() as resources:
        folder = version_folder(source, resources)
        what = Started(bundle.read_manifest(folder).model, _version(source), folder)
        return Hub([put_in_service(what, way.options, way.watch, resources.pop_all())])


def _is_bundle(source: Path) -> bool:
    return not source.is_dir() or (source / bundle.MANIFEST).is_file() or bool(layout.versions_in(source))


def _is_model(source: Path) -> bool:
    return source.is_dir() and not (source / bundle.MANIFEST).is_file()


def _version(source: Path) -> int:
    """The number a version's folder is named by, or a model's latest; a bundle outside a repository is 1."""
    if _is_model(source):
        return layout.versions_in(source)[-1]
    return (layout.version_number(source.name) if source.is_dir() else None) or 1


def _load_repository(repository: Repository, way: _Way, only: str = "") -> Hub:
    """Every model side by side: what takes long is starting runtimes and reading engines."""

    def load(name: str, version: int) -> _Found:
        return _try(repository, name, version, way)

    def latest(name: str, version: int) -> _Found:
        return _latest_word(repository, way.channel, load(name, version), load)

    serving = {name: found for name, found in repository.serving(way.channel).items() if only in ("", name)}
    if not serving:
        raise _nothing(repository, way.channel)
    with ThreadPoolExecutor(os.cpu_count(), "loading") as threads:
        found = list(threads.map(latest, serving.keys(), serving.values()))
    loaded = [model for model in found if isinstance(model, LoadedModel)]
    return Hub(loaded, [model for model in found if isinstance(model, FailedModel)])


def _latest_word(repository: Repository, channel: str, found: _Found, load: _Load) -> _Found:
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


def _try(repository: Repository, name: str, version: int, way: _Way) -> _Found:
    try:
        what = Started(name, version, repository.version_dir(name, version))
        return put_in_service(what, way.options, way.watch, ExitStack())
    except TailorbirdError as error:
        return FailedModel(name, version, error.message)
    except Exception as error:  # one model's fault, of whatever kind, is not the others'
        return FailedModel(name, version, f"{type(error).__name__}: {error}")


def _nobody(_: str, __: int, ___: Event) -> None:
    pass
