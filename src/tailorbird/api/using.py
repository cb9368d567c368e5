"""Using: engines opened and served, bundles compared and told of, models and machines looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailorbird.api.elsewhere import rebuild_stale
from tailorbird.api.ways import disk_errors
from tailorbird.domain.errors import UsageError

if TYPE_CHECKING:
    from tailorbird.backends.base import Availability
    from tailorbird.builder.compare.comparison import Comparison
    from tailorbird.builder.graph.inspect import Inspection
    from tailorbird.repository.load import LoadedEngine


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


def serve(source: str | Path, **settings: Any) -> None:
    """Serve a repository or a bundle over the Open Inference Protocol until SIGTERM or SIGINT.

    Args:
        source: a repository, as a directory or ``s3://bucket/prefix``; or a ``.engine`` file.
        settings: fields of :class:`tailorbird.service.options.ServeSettings`: ``host``, ``port``, ``channel``,
            ``isolation``, ``instances`` and so on, named as the flags of ``tailorbird serve`` are. With
            ``rebuild_stale`` engines that this machine cannot load are first built again from the kits they keep.

    Raises:
        UsageError: there is nothing to serve, or a setting is wrong.
        TailorbirdError: the one bundle failed to load, or a port is taken.
    """
    from tailorbird.service.app import serve as run_server
    from tailorbird.service.options import options_of
    from tailorbird.serving.rollout.control import Mode

    rebuild_first = settings.pop("rebuild_stale", False)
    options = options_of(**settings)
    if rebuild_first:
        control = options.control
        explicit = control.mode is Mode.EXPLICIT and control.load != ("*",)
        rebuild_stale(source, control.channels.live, control.load if explicit else None)
    run_server(source, options)


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
    with disk_errors("read the bundle"), tempfile.TemporaryDirectory(prefix="tailorbird-") as folder:
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

    with disk_errors("read the repository"):
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
    with disk_errors("unpack the bundle"), workdir() as folder:
        version_dir = side.place if side.place.is_dir() else unpack(side.place, folder / "version")
        verified(version_dir, allow_unsigned=allow_unsigned)
        yield version_dir
