"""Loading: from a repository or a bundle to a hub. A model that fails to load takes nothing else down."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec

from tailorbird.domain import bundle
from tailorbird.domain.errors import UsageError
from tailorbird.repository import layout
from tailorbird.repository.base import Repository
from tailorbird.repository.load import version_folder
from tailorbird.repository.opening import is_remote, open_repository, repository_of
from tailorbird.serving.hub import Hub
from tailorbird.serving.rollout.control import Channels, ControlOptions, Mode
from tailorbird.serving.rollout.controller import Controller
from tailorbird.serving.rollout.place import RepositoryPlace
from tailorbird.serving.rollout.record import Told
from tailorbird.serving.rollout.smoke import smoke_check
from tailorbird.serving.starting import HubOptions, Started, Watch, put_in_service


def load_hub(
    source: Path | str, options: HubOptions | None = None, *, channel: str = "", watch: Watch | None = None
) -> Hub:
    """Load what ``source`` holds now, for a hub that stays as it is.

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
    control = ControlOptions(mode=Mode.NONE, channels=Channels(live=channel))
    return load(source, options, control, watch=watch).hub


def load(
    source: Path | str,
    options: HubOptions | None = None,
    control: ControlOptions | None = None,
    *,
    watch: Watch | None = None,
    told: Told | None = None,
) -> Controller:
    """Load what ``source`` holds, with the controller that goes on from there once it is started.

    Args:
        source: as of :func:`load_hub`.
        options: how models are put into service.
        control: when and how they change.
        watch: told of what happens to the instances' processes.
        told: of every change of a model.

    Raises:
        UsageError: there is nothing of the kind. A repository may be empty where a mode was named that can fill it.
        ModelNotFound: a model that was to be loaded by name is not there.
        TailorbirdError: as of :func:`load_hub`.
    """
    way = _Way(options or HubOptions(), control or ControlOptions(), watch or _nobody, told)
    if is_remote(source):
        return _controlled(_repository(source, way), way)
    path = Path(source)
    if not path.exists():
        raise UsageError(f"nothing to serve at {source}", got="no such file or folder",
                         expected="a repository or a bundle")  # fmt: skip
    if not _is_bundle(path):
        return _controlled(_repository(source, way), way)
    repository = repository_of(path) if _is_model(path) else None
    return _one(path, way) if repository is None else _controlled(repository, way, path.resolve().name)


class _Way(msgspec.Struct, frozen=True):
    """How everything of one hub is loaded."""

    options: HubOptions
    control: ControlOptions
    watch: Watch
    told: Told | None


def _repository(source: Path | str, way: _Way) -> Repository:
    return open_repository(source, allow_unsigned=way.options.allow_unsigned)


def _controlled(repository: Repository, way: _Way, only: str = "") -> Controller:
    channel = way.control.channels.live
    place = RepositoryPlace(repository, way.options, channel, only)
    if way.control.mode in (None, Mode.NONE) and not place.look().serving:
        raise _nothing(repository, channel)
    controller = Controller(Hub(), place, way.control, way.watch, way.told)
    with ExitStack() as undo:
        undo.callback(controller.close)
        controller.begin()
        undo.pop_all()
    return controller


def _one(source: Path, way: _Way) -> Controller:
    """A single bundle, which stays what it is."""
    for flag, said, plain in _of_repositories(way.control):
        if said != plain:
            raise UsageError(f"a single bundle has no {flag[0]}", got=f"{flag[1]} {said}", expected="a repository")
    with ExitStack() as resources:
        folder = version_folder(source, resources)
        what = Started(bundle.read_manifest(folder).model, _version(source), folder)
        model = put_in_service(what, way.options, way.watch, resources.pop_all(), smoke_check)
    return Controller(Hub([model]), told=way.told)


def _of_repositories(control: ControlOptions) -> tuple[tuple[tuple[str, str], object, object], ...]:
    """What means nothing to a single bundle, what was said of it, and what says nothing."""
    mode = None if control.mode is Mode.NONE else control.mode
    return (
        (("channels", "--channel"), control.channels.live, ""),
        (("channels", "--canary-weight"), control.channels.weight, 0.0),
        (("channels", "--shadow-channel"), control.channels.shadow, ""),
        (("versions to follow", "--model-control-mode"), mode, None),
        (("neighbours to make room for", "--memory-budget"), control.memory_budget, None),
    )


def _is_bundle(source: Path) -> bool:
    return not source.is_dir() or (source / bundle.MANIFEST).is_file() or bool(layout.versions_in(source))


def _is_model(source: Path) -> bool:
    return source.is_dir() and not (source / bundle.MANIFEST).is_file()


def _version(source: Path) -> int:
    """The number a version's folder is named by, or a model's latest; a bundle outside a repository is 1."""
    if _is_model(source):
        return layout.versions_in(source)[-1]
    return (layout.version_number(source.name) if source.is_dir() else None) or 1


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


def _nobody(*_: object) -> None:
    pass
