"""Building: the fastest engine of a model, published or written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.api.result import Result
from tailorbird.api.ways import Observers, Order, check_output, disk_errors, ordered, published
from tailorbird.domain.config import BuildConfig, configured
from tailorbird.domain.errors import UsageError

if TYPE_CHECKING:
    from tailorbird.domain.kit import Kit


def build(
    model: str | Path,
    *,
    output: str | Path | None = None,
    repository: str | Path | None = None,
    name: str | None = None,
    config: BuildConfig | None = None,
    observers: Observers = (),
    **settings: Any,
) -> Result:
    """Find the fastest engine for a model that is still right on this machine.

    For a target that is not this machine, or with ``qualify=False``, engines are compiled and not run, and the bundle
    is *unqualified*: of no use until :func:`qualify` has run it on its device.

    Args:
        model: an ONNX file, a ``.pt2`` file of ``torch.export``, ``module:callable``, or a ``.kit`` file, which is
            finished here.
        output: the ``.engine`` file to write.
        repository: a directory or ``s3://bucket/prefix`` to publish the engine into, as the next version of ``name``.
        name: the model's name; by default made of the source's.
        config: settings; with ``settings`` (fields of :class:`BuildConfig`) winning over them.
        observers: called with every event of the build log as it happens.

    Raises:
        UsageError, ModelError, InputError: the source, the settings or the data are wrong.
        NoEngineError: no candidate passed the gate; ``error.outcomes`` is the table.
        BundleError: the kit is altered, or not signed by a key trusted here.
    """
    from tailorbird.builder.workdir import workdir

    chosen = configured(config or BuildConfig(), **settings)
    check_output(output)
    if repository is not None:
        _check_publishable(chosen)
    with disk_errors("build"), workdir() as folder:
        kit = _opened_kit(Path(model), folder) if is_kit(model) else None
        order = Order(str(model), chosen, name, kit, _names(settings))
        return ordered(order, folder, output, repository, observers)


def publish(bundle: str | Path, repository: str | Path, *, name: str | None = None) -> Path:
    """Publish a ``.engine`` file as a model's next version, unless it is the latest already.

    Args:
        bundle: the file, or a version's directory.
        repository: a directory, or ``s3://bucket/prefix``.
        name: the model's name; by default the bundle's own.

    Returns:
        The version's directory; for object storage this machine's copy of it.
    """
    with disk_errors("publish"):
        return published(Path(bundle), repository, name)


def is_kit(model: str | Path) -> bool:
    """Whether a source is a build kit, by its name."""
    return Path(model).suffix == ".kit"


def _names(settings: dict[str, Any]) -> frozenset[str]:
    """Of settings that are given; ``limits.seconds`` where one field is, in a table."""
    given = {name for name, value in settings.items() if value is not None}
    limits = settings.get("limits")
    return frozenset(given | {f"limits.{name}" for name in (limits if isinstance(limits, dict) else ())})


def _opened_kit(path: Path, folder: Path) -> Kit:
    """A stranger's kit, once its signature and every digest hold."""
    from tailorbird.domain.kit import unpack_kit
    from tailorbird.repository.signing.trust import verified_kit

    return verified_kit(unpack_kit(path, folder / "kit"))


def _check_publishable(config: BuildConfig) -> None:
    """What cannot be published is said before the long work."""
    from tailorbird.builder.search.candidates import capabilities_for
    from tailorbird.builder.targets import reason_not_to_run

    apart = "as asked" if not config.qualify else ""
    if config.target and not apart:
        apart = reason_not_to_run(capabilities_for(config), config)
    if apart:
        raise UsageError("an engine that is not run cannot be published", got=apart,
                         hint="write it with -o, and publish what 'tailorbird qualify' makes of it")  # fmt: skip
