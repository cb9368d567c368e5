"""The facade's functions: what a Python program calls, and what every CLI command is made of."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.domain.config import BuildConfig, configured
from tailorbird.domain.errors import TailorbirdError, UsageError
from tailorbird.domain.manifest import Manifest, speedup
from tailorbird.domain.outcome import Outcome, Status

if TYPE_CHECKING:
    from tailorbird.backends.base import Availability
    from tailorbird.builder.graph.inspect import Inspection
    from tailorbird.repository.load import LoadedEngine


@dataclass(frozen=True)
class Result:
    """What a build came to."""

    table: tuple[Outcome, ...]
    """Every candidate, the chosen one first."""
    manifest: Manifest
    bundle: Path | None
    """The ``.engine`` file, when one was asked for."""
    version_dir: Path | None
    """The published version's directory, when a repository was asked for."""

    @property
    def winner(self) -> Outcome:
        """The chosen candidate's row."""
        return next(outcome for outcome in self.table if outcome.status is Status.CHOSEN)

    @property
    def speedup(self) -> float | None:
        """Latency of ONNX Runtime's default over the chosen engine's, measured in turn at the same threads."""
        return speedup(self.table, self.manifest.baseline, self.manifest.goal)


def build(
    model: str | Path,
    *,
    output: str | Path | None = None,
    repository: str | Path | None = None,
    name: str | None = None,
    config: BuildConfig | None = None,
    observers: Sequence[Callable[[dict[str, Any]], None]] = (),
    **settings: Any,
) -> Result:
    """Find the fastest engine for a model that is still right on this machine.

    Args:
        model: an ONNX file, a ``.pt2`` file of ``torch.export``, or ``module:callable``.
        output: the ``.engine`` file to write.
        repository: a directory to publish the engine into, as the next version of ``name``.
        name: the model's name; by default made of the source's.
        config: settings; with ``settings`` (fields of :class:`BuildConfig`) winning over them.
        observers: called with every event of the build log as it happens.

    Raises:
        UsageError, ModelError, InputError: the source, the settings or the data are wrong.
        NoEngineError: no candidate passed the gate; ``error.outcomes`` is the table.
    """
    from tailorbird.builder.pipeline import Build
    from tailorbird.builder.workdir import workdir

    chosen = configured(config or BuildConfig(), **settings)
    _check_output(output)
    with _disk_errors("build"), workdir() as folder:
        built = Build(str(model), chosen, folder, observers).run(name)
        bundle = _packed(built.version_dir, built.manifest, Path(output)) if output else None
        version_dir = _published(built.version_dir, Path(repository), name) if repository else None
        return Result(built.manifest.outcomes, built.manifest, bundle, version_dir)


def open(path: str | Path) -> LoadedEngine:  # noqa: A001 - the facade's name, as in gzip.open
    """Open an engine: a ``.engine`` file, a version's directory, or a model's directory (latest version).

    Use it as a context manager; ``run(inputs)`` takes and returns named arrays.

    Raises:
        BundleError: the bundle is altered, incomplete, or made for another kind of machine.
    """
    from tailorbird.repository.load import open_bundle

    return open_bundle(Path(path))


def inspect(model: str | Path, *, shapes: str = "", try_backends: bool = True) -> Inspection:
    """What a model is, what it costs at given shapes, and what stands in the way of each backend."""
    from tailorbird.builder.graph.inspect import inspect_model
    from tailorbird.domain.profile import parse_shapes

    return inspect_model(Path(model), parse_shapes(shapes) or None, try_obstacles=try_backends)


def publish(bundle: str | Path, repository: str | Path, *, name: str | None = None) -> Path:
    """Publish a ``.engine`` file as a model's next version; returns the version's directory."""
    with _disk_errors("publish"):
        return _published(Path(bundle), Path(repository), name)


def serve(source: str | Path, *, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve a repository or a bundle over the Open Inference Protocol until SIGTERM or SIGINT."""
    from tailorbird.service.app import serve as run_server

    run_server(Path(source), host=host, port=port)


def doctor() -> dict[str, Availability]:
    """Which backends are here, which are not, why, and what to install."""
    from tailorbird.backends import registry

    return registry.report()


def _check_output(output: str | Path | None) -> None:
    """Wrong places are refused before the long work, not after it."""
    if output is None:
        return
    if Path(output).suffix != ".engine":
        raise UsageError("the output is not named as a bundle", got=output, expected="NAME.engine")
    if not Path(output).resolve().parent.is_dir():
        raise UsageError("the output's directory does not exist", got=Path(output).parent)


def _packed(version_dir: Path, manifest: Manifest, output: Path) -> Path:
    from tailorbird.domain.bundlefile import pack
    from tailorbird.repository.config_pbtxt import config_pbtxt

    pack(version_dir, output, config_pbtxt(manifest))
    return output


def _published(source: Path, repository: Path, name: str | None) -> Path:
    from tailorbird.domain.bundlefile import manifest_of
    from tailorbird.repository.store import LocalRepository

    store = LocalRepository(repository)
    version = store.publish(source, name)
    return store.version_dir(name or manifest_of(source).model, version)


@contextmanager
def _disk_errors(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
            raise
        raise TailorbirdError(f"cannot {action}: {error.strerror}", got=error.filename,
                              hint="free space or choose another place; nothing was published") from error  # fmt: skip
