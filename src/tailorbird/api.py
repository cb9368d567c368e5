"""The facade's functions: what a Python program calls, and what every CLI command is made of."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.domain.config import BuildConfig, configured
from tailorbird.domain.errors import BundleError, TailorbirdError, UsageError
from tailorbird.domain.manifest import Manifest, speedup
from tailorbird.domain.outcome import Outcome, Status

if TYPE_CHECKING:
    from tailorbird.backends.base import Availability
    from tailorbird.builder.compare.comparison import Comparison
    from tailorbird.builder.graph.inspect import Inspection
    from tailorbird.repository.load import LoadedEngine
    from tailorbird.repository.signing.keys import OwnKey


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
        repository: a directory or ``s3://bucket/prefix`` to publish the engine into, as the next version of ``name``.
        name: the model's name; by default made of the source's.
        config: settings; with ``settings`` (fields of :class:`BuildConfig`) winning over them.
        observers: called with every event of the build log as it happens.

    Raises:
        UsageError, ModelError, InputError: the source, the settings or the data are wrong.
        NoEngineError: no candidate passed the gate; ``error.outcomes`` is the table.
    """
    from tailorbird.builder.cached import CachedBuild, deliver
    from tailorbird.builder.workdir import workdir
    from tailorbird.repository.signing.keys import ensured

    chosen = configured(config or BuildConfig(), **settings)
    _check_output(output)
    with _disk_errors("build"), workdir() as folder, CachedBuild(str(model), chosen, folder, observers, name) as work:
        key, is_new = ensured()  # before the long work, which would end in vain without a key
        if is_new:
            work.tell_of_key(key.id, key.path)
        found = work.run(partial(_press, key), partial(_distrust, key))
        bundle = deliver(found.bundle, Path(output)) if output else None
        version_dir = _published(found.bundle, repository, name) if repository else None
        return Result(found.manifest.outcomes, found.manifest, bundle, version_dir)


def open(path: str | Path, *, allow_unsigned: bool = False) -> LoadedEngine:  # noqa: A001 - the facade's name, as in gzip.open
    """Open an engine: a ``.engine`` file, a version's directory, or a model's directory (latest version).

    Use it as a context manager; ``run(inputs)`` takes and returns named arrays.

    Args:
        path: the engine.
        allow_unsigned: for local experiments: open it without a trusted signature, too.

    Raises:
        BundleError: the bundle is altered, incomplete, not signed by a key trusted here, or made for another
            kind of machine.
    """
    from tailorbird.repository.load import open_bundle

    return open_bundle(Path(path), allow_unsigned=allow_unsigned)


def inspect(model: str | Path, *, shapes: str = "", try_backends: bool = True) -> Inspection:
    """What a model is, what it costs at given shapes, and what stands in the way of each backend."""
    from tailorbird.builder.graph.inspect import inspect_model
    from tailorbird.domain.profile import parse_shapes

    return inspect_model(Path(model), parse_shapes(shapes) or None, try_obstacles=try_backends)


def publish(bundle: str | Path, repository: str | Path, *, name: str | None = None) -> Path:
    """Publish a ``.engine`` file as a model's next version, unless it is the latest already.

    Args:
        bundle: the file, or a version's directory.
        repository: a directory, or ``s3://bucket/prefix``.
        name: the model's name; by default the bundle's own.

    Returns:
        The version's directory; for object storage this machine's copy of it.
    """
    with _disk_errors("publish"):
        return _published(Path(bundle), repository, name)


def serve(source: str | Path, **settings: Any) -> None:
    """Serve a repository or a bundle over the Open Inference Protocol until SIGTERM or SIGINT.

    Args:
        source: a repository, as a directory or ``s3://bucket/prefix``; or a ``.engine`` file.
        settings: fields of :class:`tailorbird.service.options.ServeSettings`: ``host``, ``port``, ``channel``,
            ``isolation``, ``instances`` and so on, named as the flags of ``tailorbird serve`` are.

    Raises:
        UsageError: there is nothing to serve, or a setting is wrong.
        TailorbirdError: the one bundle failed to load, or a port is taken.
    """
    from tailorbird.service.app import serve as run_server
    from tailorbird.service.options import options_of

    run_server(source, options_of(**settings))


def bill_of_materials(bundle: str | Path) -> bytes:
    """The bill of materials of a bundle as CycloneDX 1.6 JSON with a model card: what it is made of, and its figures.

    Args:
        bundle: a ``.engine`` file or a version's folder. Its files are verified; without a trusted signature the
            bill says "signed by nobody".

    Raises:
        BundleError: the bundle is altered or incomplete.
    """
    import tempfile

    from tailorbird.domain.bundlefile import unpack
    from tailorbird.repository.bom import bill_of_materials as bill
    from tailorbird.repository.signing.trust import verified

    source = Path(bundle)
    with _disk_errors("read the bundle"), tempfile.TemporaryDirectory(prefix="tailorbird-") as folder:
        version_dir = source if source.is_dir() else unpack(source, Path(folder, "bundle"))
        return bill(verified(version_dir, allow_unsigned=True))


def compare(a: str | Path, b: str | Path, *, measure: bool = False, allow_unsigned: bool = False) -> Comparison:
    """What differs between two builds, and which of it explains the change in latency and accuracy.

    Args:
        a, b: each a ``.engine`` file, a version's folder, a model's folder in a repository (its latest version), or
            a build log. Nothing of them is loaded or run unless ``measure`` is set.
        measure: run both here in turn, A with one of B's settings after another, so that settings which differ at
            once are told apart.
        allow_unsigned: for local experiments: measure engines without a trusted signature, too.

    Raises:
        UsageError: there is nothing to compare at a path, or no engine to measure.
        BundleError: a bundle cannot be read; or, to measure it, its files or its signature are not right.
        BackendError, StepError: an engine that is to be measured does not run here.
    """
    from tailorbird.builder.compare.compare import compare as compare_records
    from tailorbird.builder.compare.compare import compare_here

    a, b = _newest(Path(a)), _newest(Path(b))
    if not measure:
        return compare_records(a, b)
    with contextlib.ExitStack() as stack:
        here, there = (stack.enter_context(_engine_of(one, allow_unsigned)) for one in (a, b))
        return compare_here(a, b, (here, there))


def doctor() -> dict[str, Availability]:
    """Which backends are here, which are not, why, and what to install."""
    from tailorbird.backends import registry

    return registry.report()


def _newest(path: Path) -> Path:
    """The latest version in a model's folder of a repository, whose log knows what is retired; else the path."""
    from tailorbird.domain.bundle import MANIFEST
    from tailorbird.repository.layout import versions_in
    from tailorbird.repository.opening import repository_of

    with _disk_errors("read the repository"):
        if not path.is_dir() or (path / MANIFEST).exists() or not versions_in(path):
            return path
        repository = repository_of(path)
        return path / str(repository.latest(path.resolve().name)) if repository else path


@contextmanager
def _engine_of(path: Path, allow_unsigned: bool) -> Iterator[Path]:
    """The folder of a verified version, for as long as the block runs; a ``.engine`` file is unpacked."""
    from tailorbird.builder.compare.sides import read_side
    from tailorbird.builder.workdir import workdir
    from tailorbird.domain.bundlefile import unpack
    from tailorbird.repository.signing.trust import verified

    side = read_side(path)
    if side.manifest is None:
        raise UsageError(f"{path} holds no engine to measure", got=side.kind, expected="a bundle or a version",
                         hint="leave --measure out")  # fmt: skip
    with _disk_errors("unpack the bundle"), workdir() as folder:
        version_dir = side.place if side.place.is_dir() else unpack(side.place, folder / "version")
        verified(version_dir, allow_unsigned=allow_unsigned)
        yield version_dir


def _check_output(output: str | Path | None) -> None:
    """Wrong places are refused before the long work, not after it."""
    if output is None:
        return
    if Path(output).suffix != ".engine":
        raise UsageError("the output is not named as a bundle", got=output, expected="NAME.engine")
    if not Path(output).resolve().parent.is_dir():
        raise UsageError("the output's directory does not exist", got=Path(output).parent)


def _press(key: OwnKey, version_dir: Path, out: Path) -> None:
    """A sealed version signed and packed."""
    from tailorbird.domain.bundlefile import manifest_of, pack
    from tailorbird.repository.config_pbtxt import config_pbtxt
    from tailorbird.repository.signing.sign import sign_version

    sign_version(version_dir, key)
    pack(version_dir, out, config_pbtxt(manifest_of(version_dir)))


def _distrust(key: OwnKey, engine: Path) -> str:
    """Why an engine's signature does not count here; empty when it is by the key that signs here."""
    from tailorbird.repository.signing.trust import signer_of

    try:
        signer = signer_of(engine)
    except BundleError as error:
        return error.what
    if signer is None:
        return "not signed"
    return "" if signer.key == key.id else "signed by another key than the one that signs here"


def _published(source: Path, repository: str | Path, name: str | None) -> Path:
    from tailorbird.domain.bundlefile import manifest_of
    from tailorbird.repository.opening import open_repository

    store = open_repository(repository)
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
