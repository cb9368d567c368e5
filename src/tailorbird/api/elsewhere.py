"""Devices that are elsewhere: build kits, qualifying, and building again what went stale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tailorbird.api.building import is_kit
from tailorbird.api.result import Result
from tailorbird.api.ways import Observers, Order, check_output, delivered, disk_errors, ordered, press
from tailorbird.domain.config import BuildConfig, Limits, configured
from tailorbird.domain.errors import BundleError, RepositoryError, TailorbirdError, UsageError
from tailorbird.domain.manifest import Manifest

if TYPE_CHECKING:
    from tailorbird.domain.kit import Kit
    from tailorbird.repository.base import Repository
    from tailorbird.repository.signing.keys import OwnKey


def make_kit(
    model: str | Path,
    output: str | Path,
    *,
    name: str | None = None,
    config: BuildConfig | None = None,
    observers: Observers = (),
    **settings: Any,
) -> Path:
    """Make a build kit: all that a build does up to the race, for a machine of the target to go on from.

    Args:
        model: as of :func:`build`.
        output: the ``.kit`` file to write.
        name, config, observers, settings: as of :func:`build`.

    Returns:
        The file.

    Raises:
        UsageError, ModelError, InputError: the source, the settings or the data are wrong.
    """
    from tailorbird.builder.cached import CachedBuild
    from tailorbird.builder.workdir import workdir
    from tailorbird.repository.signing.keys import ensured

    chosen = configured(config or BuildConfig(), **settings)
    check_output(output, ".kit")
    if is_kit(model):
        raise UsageError("a build kit is finished, not made into another", got=model, expected="a model",
                         hint="name the bundle: -o NAME.engine")  # fmt: skip
    with disk_errors("make the kit"), workdir() as folder:
        with CachedBuild(str(model), chosen, folder, observers, name) as work:
            key, is_new = ensured()
            if is_new:
                work.tell_of_key(key.id, key.path)
            work.make_kit(partial(_press_kit, key), Path(output))
        return Path(output)


def qualify(
    bundle: str | Path,
    *,
    output: str | Path | None = None,
    repository: str | Path | None = None,
    name: str | None = None,
    limits: Limits | None = None,
    observers: Observers = (),
) -> Result:
    """Run the gate and the measurements of an unqualified bundle, on the device that it was built for.

    Args:
        bundle: the ``.engine`` file, or the version's folder.
        output: the qualified bundle to write.
        repository: a directory or ``s3://bucket/prefix`` to publish it into, as the next version of ``name``.
        name: the model's name there; by default the bundle's own.
        limits: of each step.
        observers: called with every event as it happens.

    Raises:
        UsageError: the bundle is qualified already.
        BundleError: it is altered, not signed by a key trusted here, or for another kind of machine.
        BackendError, StepError: the engine cannot be opened or run here.
        NoEngineError: it failed its gate here; ``error.outcomes`` holds its row. Nothing is written.
    """
    from tailorbird.builder.qualify import Qualification, Unqualified
    from tailorbird.builder.workdir import workdir
    from tailorbird.repository.incoming import copied
    from tailorbird.repository.machine import backend_here, check_target
    from tailorbird.repository.signing.keys import ensured
    from tailorbird.repository.signing.trust import verified

    check_output(output)
    with disk_errors("qualify"), workdir() as folder:
        version_dir = copied(Path(bundle), folder)  # where nobody else can change what was verified
        found = verified(version_dir)
        manifest = found.manifest
        if manifest.qualified:
            raise UsageError("the bundle is qualified already", got=manifest.gate.verdict,
                             expected="one that was built for another machine, or with --no-qualify")  # fmt: skip
        check_target(version_dir, manifest, backend_here(manifest))
        key = ensured()[0]
        work = Qualification(Unqualified(version_dir, manifest, found.digest), limits or Limits(), folder, observers)
        pressed = folder / "qualified.engine"
        press(key, work.run(), pressed)
        return delivered(pressed, output, repository, name)


def rebuild(
    repository: str | Path,
    model: str,
    *,
    version: int | None = None,
    channel: str = "",
    observers: Observers = (),
) -> Result:
    """Build a version of a model again on this machine, from the build kit that it keeps, and publish what comes out.

    Args:
        repository: a directory, or ``s3://bucket/prefix``.
        model: its name there.
        version: the latest without one.
        channel: let this one point at the new version.
        observers: as of :func:`build`.

    Raises:
        BundleError: the version is altered, not signed by a trusted key, or keeps no kit.
        NoEngineError: nothing passed the gate here; nothing is published.
        RepositoryError: the channel was moved while it was built; the new version is published, and not promoted.
        UsageError: the channel's name is not one.
    """
    from tailorbird.builder.workdir import workdir
    from tailorbird.repository.incoming import copied
    from tailorbird.repository.machine import why_stale
    from tailorbird.repository.opening import open_repository
    from tailorbird.repository.signing.trust import kept_kit, verified

    store = open_repository(repository)
    before = store.live(model, channel) if channel else None
    number = store.latest(model) if version is None else version
    with disk_errors("rebuild"), workdir() as folder:
        version_dir = copied(store.version_dir(model, number), folder)
        manifest = verified(version_dir).manifest
        stale = why_stale(version_dir, manifest)
        kit = kept_kit(version_dir)
        if kit is None:
            got = f"stale: {stale}" if stale else None
            hint = "build it from its source, with --keep-kit so that this works next time"
            raise BundleError(f"version {number} of model '{model}' keeps no build kit", got=got, hint=hint)
        order = Order(f"{model}.kit", BuildConfig(keep_kit=True), model, _for_this_machine(kit, manifest))
        result = ordered(order, folder, None, repository, observers)
    if channel and result.version_dir is not None:
        why = f"stale: {stale}" if stale else "built again"
        store.promote(model, int(result.version_dir.name), channel, why, before)
    return result


def rebuild_stale(source: str | Path, channel: str, only: Sequence[str] | None = None) -> None:
    """Every model in service whose engine this machine cannot load, built again from the kit that its version keeps.

    Args:
        source: a repository, or a model's folder in one: then that model alone.
        channel: what is in service; without one as a server does without.
        only: models that are served; None for all.

    Raises:
        UsageError: the source is a bundle by itself, or a version's folder.
    """
    from tailorbird.service.observe import journal

    store, name = _rebuildable(source)
    for model, version in store.serving(channel).items():
        if model != (name or model) or (only is not None and model not in only):
            continue
        try:
            _rebuild_if_stale(store, model, version, channel)
        except TailorbirdError as error:  # the others are served, and this one's load says what is wrong
            journal.record("not rebuilt", level="warning", model=model, version=version, reason=error.message)


def _rebuildable(source: str | Path) -> tuple[Repository, str]:
    """The repository, and the one model of it that is meant, if one is: what a server would make of the source."""
    from tailorbird.domain.bundle import MANIFEST
    from tailorbird.repository.layout import versions_in
    from tailorbird.repository.opening import is_remote, open_repository, repository_of

    path = Path(source)
    if is_remote(source) or not path.exists():
        return open_repository(source), ""
    if path.is_dir() and not (path / MANIFEST).is_file():
        store = repository_of(path) if versions_in(path) else open_repository(path)
        if store is not None:
            return store, path.resolve().name if versions_in(path) else ""
    raise UsageError("a single bundle cannot be built again where it is", got=source, expected="a repository",
                     hint="leave --rebuild-stale out, or publish the bundle")  # fmt: skip


def _rebuild_if_stale(store: Repository, model: str, version: int, channel: str) -> None:
    from tailorbird.repository.machine import why_stale
    from tailorbird.repository.signing.trust import verified
    from tailorbird.service.observe import journal

    version_dir = store.version_dir(model, version)
    stale = why_stale(version_dir, verified(version_dir).manifest)
    if not stale:
        return
    journal.record("stale", level="warning", model=model, version=version, reason=stale)
    live = channel or ("production" if store.live(model, "production") == version else "")
    result = rebuild(store.place, model, version=version)
    assert result.version_dir is not None
    came = int(result.version_dir.name)
    journal.record("rebuilt", model=model, version=came, engine=result.winner.candidate.name)
    if live:
        _promote_unless_moved(store, (model, came), live, version, stale)


def _promote_unless_moved(store: Repository, came: tuple[str, int], channel: str, before: int, stale: str) -> None:
    """Whoever moved the channel while it was built has decided what it points at."""
    from tailorbird.service.observe import journal

    model, version = came
    try:
        store.promote(model, version, channel, f"stale: {stale}", before)
    except RepositoryError as error:
        journal.record("not promoted", level="warning", model=model, version=version, reason=error.message)


def _for_this_machine(kit: Kit, manifest: Manifest) -> Kit:
    """The kit with its target, if it names one, on this machine: its arch is what went stale."""
    from tailorbird.repository.machine import backend_here

    if not kit.manifest.config.target:
        return kit
    target = str(backend_here(manifest).capabilities().target)
    config = msgspec.structs.replace(kit.manifest.config, target=target)
    return dataclasses.replace(kit, manifest=msgspec.structs.replace(kit.manifest, config=config))


def _press_kit(key: OwnKey, folder: Path, out: Path) -> None:
    """A sealed kit signed and packed."""
    from tailorbird.domain.kit import pack_kit
    from tailorbird.repository.signing.sign import sign_kit

    sign_kit(folder, key)
    pack_kit(folder, out)
