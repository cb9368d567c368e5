"""Whether an engine may run here: it has passed its gate, and this machine is one of those that it was built for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tailorbird.backends import registry
from tailorbird.backends.base import Backend
from tailorbird.backends.host import sums_int8_exactly
from tailorbird.domain.bundle import KEPT_KIT
from tailorbird.domain.errors import BackendError, BackendUnavailable, BundleError, UsageError
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.precision import Precision

_WIDENING = ("x86_64", "avx2", "avx512", "amx")
"""Each of these instruction sets contains those before it."""


def check_qualified(manifest: Manifest) -> None:
    """Raise :class:`BundleError` for an engine that nobody saw run: it may be wrong, and its speed is unknown."""
    if not manifest.qualified:
        raise BundleError(
            f"the bundle of '{manifest.model}' is not qualified: its engine has not run on its device",
            got=manifest.gate.verdict,
            expected="a passed gate and a latency table",
            hint=f"on a machine with {manifest.candidate.target}: tailorbird qualify BUNDLE",
        )


def backend_here(manifest: Manifest) -> Backend:
    """The backend of an engine; raises :class:`BundleError` where this Tailorbird has none of that name."""
    runtime = manifest.candidate.target.runtime
    try:
        return registry.backend(runtime)
    except UsageError as error:
        hint = f"upgrade Tailorbird, or build for one of {error.expected}"
        raise BundleError(
            f"the engine needs the runtime '{runtime}'", got="no backend of that name", hint=hint
        ) from error


def check_machine(version_dir: Path, manifest: Manifest, backend: Backend) -> None:
    """Whether this machine can load a verified engine; nothing of it is deserialised.

    Args:
        version_dir: the version's folder.
        manifest: of it.
        backend: of the engine.

    Raises:
        BackendUnavailable: its runtime is not installed here.
        BundleError: the engine is for another machine, or its INT8 sums would overflow on this one.
        BackendError: the backend says that it does not load here: another architecture, runtime or driver.
    """
    check_target(version_dir, manifest, backend)
    candidate = manifest.candidate
    on_cpu = candidate.precision is Precision.INT8 and candidate.target.device == "cpu"
    if on_cpu and not sums_int8_exactly() and sums_int8_exactly(manifest.provenance.device):
        raise BundleError("the engine's INT8 sums would overflow on this machine", got="a CPU without VNNI",
                          expected="VNNI or AMX, as where it was built", hint="build it on this machine")  # fmt: skip


def check_target(version_dir: Path, manifest: Manifest, backend: Backend) -> None:
    """The same for an engine whose gate is still to be run here, which tells whether sums overflow."""
    here, target = backend.capabilities(), manifest.candidate.target
    fits = here.checks_arch or _covers(here.target.arch, target.arch)
    if target.device != here.target.device or not fits:
        hint = "build it on this machine, or on one like it"
        what = "the engine was built for another machine"
        raise BundleError(what, got=target, expected=here.target, hint=hint)
    if not here.runs(manifest.candidate):
        what = f"the engine's precision does not run in {target.runtime} on this machine"
        hint = "build it on this machine"
        raise BundleError(what, got=manifest.candidate.precision, expected=", ".join(here.precisions), hint=hint)
    backend.check(version_dir, manifest.candidate)


@contextmanager
def telling_of_kit(version_dir: Path) -> Iterator[None]:
    """What refuses an engine here names the way out, where its version keeps a build kit."""
    try:
        yield
    except BackendUnavailable:
        raise
    except (BundleError, BackendError) as error:
        if (version_dir / KEPT_KIT).is_dir():
            error.hint = "its version keeps a build kit: tailorbird serve --rebuild-stale, or tailorbird rebuild"
        raise


def why_stale(version_dir: Path, manifest: Manifest) -> str:
    """Why this machine cannot load a verified engine that was right elsewhere; empty where it can.

    Raises:
        BackendUnavailable: its runtime is not installed here, so nothing of it can be built either.
    """
    backend = backend_here(manifest)
    backend.capabilities()
    try:
        check_machine(version_dir, manifest, backend)
    except (BundleError, BackendError) as error:
        return error.message.partition("\n")[0]
    return ""


def _covers(here: str, needed: str) -> bool:
    if here in _WIDENING and needed in _WIDENING:
        return _WIDENING.index(here) >= _WIDENING.index(needed)
    return here == needed
