"""Candidates: from what this machine's backends say they can do, times what the user asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tailorbird.backends import registry
from tailorbird.backends.base import Capabilities
from tailorbird.backends.host import usable_cores
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import BackendUnavailable, UsageError, nearest
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile


def capabilities_for(config: BuildConfig) -> dict[str, Capabilities]:
    """What each backend to try can do.

    Raises:
        UsageError: a backend is unknown, or none is left to try.
        BackendUnavailable: a backend named by the user cannot be used here.
    """
    if config.backends:
        return {name: registry.backend(name).capabilities() for name in config.backends}
    found = {backend.name: backend.capabilities() for backend in registry.available()}
    serving = {name: able for name, able in found.items() if able.serves}
    if not serving:
        raise BackendUnavailable("no backend that serves is available here", hint="pip install 'tailorbird[cpu]'")
    return serving


def candidates_for(
    profile: Profile, config: BuildConfig, dynamic: bool, able: Iterable[Capabilities]
) -> list[Candidate]:
    """Every way worth trying, the most promising first.

    Args:
        profile: what the engine must serve.
        config: the user's choice of precisions and threads.
        dynamic: whether the source has dynamic dims; without them only static engines differ.
        able: of the backends to try.

    Raises:
        UsageError: an unknown precision or a thread count below one.
    """
    wanted = _precisions(config.precisions)
    modes = _modes(profile, dynamic)
    threads = _threads(config.threads)
    found = [
        Candidate(one.target, precision, profile, mode, count, options)
        for one in able
        for precision in one.precisions
        if precision in wanted
        for mode in modes
        if mode is ShapeMode.STATIC or one.dynamic_shapes
        for count in (threads if one.takes_threads else [1])
        for options in one.variants
    ]
    return sorted(found, key=_promise)


def baseline_of(candidates: Sequence[Candidate], able: Iterable[Capabilities]) -> str:
    """Name of the candidate that people would run without us, or an empty name: speed-ups are told against it."""
    usual = {one.target for one in able if one.baseline}
    plain = [c for c in candidates if c.target in usual and c.precision is Precision.FP32 and not c.options]
    return min(plain, key=lambda c: (-c.threads, c.shape_mode is ShapeMode.STATIC)).name if plain else ""


def _promise(candidate: Candidate) -> tuple[int, int, bool, str]:
    """More threads, lower precision, static shapes first: the sooner a fast one is known, the more is stopped early."""
    static = candidate.shape_mode is ShapeMode.STATIC
    return (-candidate.threads, -candidate.precision.rank, not static, candidate.target.runtime)


def _modes(profile: Profile, dynamic: bool) -> Sequence[ShapeMode]:
    if not dynamic:
        return (ShapeMode.STATIC,)
    return (ShapeMode.STATIC, ShapeMode.DYNAMIC) if profile.is_static else (ShapeMode.DYNAMIC,)


def _threads(asked: tuple[int, ...]) -> Sequence[int]:
    if any(count < 1 for count in asked):
        raise UsageError("threads must be positive", got=", ".join(map(str, asked)))
    return asked or sorted({usable_cores(), 1}, reverse=True)


def _precisions(asked: tuple[str, ...]) -> frozenset[Precision]:
    known = tuple(Precision)
    for name in asked:
        if name not in known:
            close = nearest(name, known)
            raise UsageError(f"unknown precision '{name}'", expected=", ".join(known),
                             hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    return frozenset(map(Precision, asked)) or frozenset(Precision)
