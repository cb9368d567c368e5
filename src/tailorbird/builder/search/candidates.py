"""Candidates: from what this machine's backends say they can do, times what the user asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tailorbird.backends import registry
from tailorbird.backends.base import Capabilities
from tailorbird.backends.host import usable_cores
from tailorbird.builder.quantise.methods import Method, is_here, method
from tailorbird.builder.search.asked import with_options
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import BackendUnavailable, UsageError, nearest
from tailorbird.domain.objective import Objective
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation, Ranges
from tailorbird.domain.target import Target

_RESTS = {
    Form.GRAPH: frozenset({Precision.FP32, Precision.BF16}),
    Form.CAST: frozenset({Precision.FP32, Precision.FP16, Precision.BF16}),
    Form.PROGRAM: frozenset({Precision.FP32}),
}
"""Float precisions that layers beside quantised ones are run in, by what is compiled."""


def capabilities_for(config: BuildConfig) -> dict[str, Capabilities]:
    """What each backend to try can do.

    Raises:
        UsageError: a backend is unknown, none is left to try, or none builds for the target.
        BackendUnavailable: a backend named by the user cannot be used here.
    """
    if config.target:
        target = Target.parse(config.target)
        if set(config.backends) - {target.runtime}:
            raise UsageError("a target names its backend itself", got=", ".join(config.backends),
                             expected=target.runtime, hint="leave --backend out")  # fmt: skip
        return {target.runtime: registry.backend(target.runtime).capabilities(target)}
    if config.backends:
        return {name: registry.backend(name).capabilities() for name in config.backends}
    found = {backend.name: backend.capabilities() for backend in registry.available()}
    serving = {name: able for name, able in found.items() if able.serves}
    if not serving:
        raise BackendUnavailable("no backend that serves is available here", hint="pip install 'tailorbird[cpu]'")
    return serving


def takers(
    able: dict[str, Capabilities], config: BuildConfig, is_program: bool
) -> tuple[tuple[Capabilities, ...], tuple[str, ...]]:
    """Those that take the source, and why the others do not.

    Args:
        able: what each backend to try can do, by name.
        config: names backends, or none.
        is_program: whether the source is a PyTorch program.

    Raises:
        UsageError: none takes it.
    """
    named = {*config.backends, Target.parse(config.target).runtime if config.target else ""}
    reasons = {name: _no_part(one, name in named, is_program) for name, one in able.items()}
    left_out = tuple(f"{name}: {reason}" for name, reason in reasons.items() if reason)
    found = tuple(one for name, one in able.items() if not reasons[name])
    if not found:
        raise UsageError("no backend takes this model", got="; ".join(left_out), hint="name another with --backend")
    return found, left_out


def _no_part(one: Capabilities, named: bool, is_program: bool) -> str:
    if one.form is Form.PROGRAM and not is_program:
        return "compiles PyTorch programs, and this is an ONNX graph"
    return "" if named or not one.on_request else f"{one.on_request}; name it to try it"


class Entrants(msgspec.Struct, frozen=True):
    """What takes part, the most promising first, and what was left out and why."""

    candidates: tuple[Candidate, ...]
    left_out: tuple[str, ...]


def candidates_for(
    profile: Profile,
    config: BuildConfig,
    dynamic: bool,
    able: Sequence[Capabilities],
    calibrated: bool = False,
    ready: frozenset[str] = frozenset(),
) -> Entrants:
    """Every way worth trying. The baseline comes first: it is what all others must beat.

    Args:
        profile: what the engine must serve.
        config: the user's choice of precisions, threads and objective.
        dynamic: whether the source has dynamic dims; without them only static engines differ.
        able: of the backends to try.
        calibrated: whether there is data to calibrate on; without it no candidate that needs it is built.
        ready: quantisation methods whose graphs a build kit holds: they need neither data nor their package.

    Raises:
        UsageError: an unknown precision or option, or a thread count below one.
    """
    wanted = _precisions(config.precisions)
    modes = _modes(profile, dynamic)
    left_out: list[str] = []
    found: list[Candidate] = []
    for one in able:
        ways, reasons = quantisations_of(one, wanted, config.ranges, calibrated, ready)
        left_out += reasons
        for threads, instances in _widths(config, one.runs_here) if one.takes_threads else [(1, 1)]:
            found += [
                Candidate(one.target, precision, profile, mode, threads, options, None, instances, one.form)
                for precision in one.precisions
                if precision in wanted
                for mode in modes
                if mode is ShapeMode.STATIC or (one.dynamic_shapes and not (one.specialises and profile.is_static))
                for options in one.variants_of.get(precision, one.variants)
            ]
            found += [
                Candidate(
                    one.target,
                    precision,
                    profile,
                    modes[0],
                    threads,
                    one.variants[0],
                    quantisation,
                    instances,
                    one.form,
                )
                for precision, quantisation in ways
            ]
    return Entrants(_ordered(with_options(found, able, config.options), able), tuple(dict.fromkeys(left_out)))


def quantisations_of(
    able: Capabilities,
    wanted: frozenset[Precision],
    ranges: Sequence[Ranges],
    calibrated: bool,
    ready: frozenset[str] = frozenset(),
) -> tuple[list[tuple[Precision, Quantisation]], list[str]]:
    """Each quantisation a backend takes with the precision it must be seen to run, and what is left out and why."""
    found: list[tuple[Precision, Quantisation]] = []
    left_out = []
    for known in map(method, able.quantised):
        reason = _missing(known, wanted, ranges, calibrated or known.name in ready, known.name in ready)
        if reason is not None:
            left_out += [reason] if reason else []
            continue
        ways: list[Ranges | None] = [way for way in known.ranges if way in ranges] or [None]
        taken = wanted & _RESTS[able.form] | {Precision.FP32}
        rests = [rest for rest in able.precisions if rest in taken]
        found += [
            (rest if known.weights_only else known.precision, Quantisation(known.name, rest, way))
            for way in ways
            for rest in rests
        ]
    return found, left_out


def _missing(
    known: Method, wanted: frozenset[Precision], ranges: Sequence[Ranges], calibrated: bool, made: bool
) -> str | None:
    """Why a method is left out: a sentence, an empty text when the user did not ask for it, None when it is not."""
    if known.precision not in wanted:
        return ""
    if not made and not is_here(known):
        return f"{known.name}: {known.package} is not installed: pip install 'tailorbird[cpu]'"
    if known.ranges and not calibrated:
        return f"{known.name}: there is no data to calibrate on: give --data with two samples or more"
    if known.ranges and not set(known.ranges) & set(ranges):
        return f"{known.name}: offers no {' or '.join(ranges)} calibration"
    return None


def baseline_of(candidates: Sequence[Candidate], able: Iterable[Capabilities]) -> str:
    """Name of the candidate that people would run without us, or an empty name: speed-ups are told against it."""
    usual = {one.target for one in able if one.baseline}
    plain = [c for c in candidates if _is_plain(c) and c.target in usual]
    return min(plain, key=lambda c: (-c.threads, c.shape_mode is ShapeMode.STATIC)).name if plain else ""


def by_promise(candidates: Sequence[Candidate], able: Iterable[Capabilities]) -> tuple[Candidate, ...]:
    """The most promising first, and the baseline, which leads only where it is measured, in its own place."""
    favourites = _favourites(able)
    return tuple(sorted(candidates, key=lambda one: _promise(one, favourites)))


def _is_plain(candidate: Candidate) -> bool:
    return candidate.precision is Precision.FP32 and not candidate.options and candidate.quantisation is None


def _ordered(found: Sequence[Candidate], able: Sequence[Capabilities]) -> tuple[Candidate, ...]:
    """The baseline, then by promise, so that whatever is stopped early is stopped against a strong rival."""
    baseline = baseline_of(found, able)
    favourites = _favourites(able)
    return tuple(sorted(found, key=lambda one: (one.name != baseline, _promise(one, favourites))))


def _favourites(able: Iterable[Capabilities]) -> frozenset[tuple[Target, str]]:
    """Each backend's usual ways, one to each precision: the first that it names."""
    first = {(one.target, method(name).precision): name for one in able for name in reversed(one.quantised)}
    return frozenset((target, name) for (target, _), name in first.items())


def _promise(
    candidate: Candidate, favourites: frozenset[tuple[Target, str]]
) -> tuple[bool, int, int, int, int, bool, str]:
    """Accelerators, more threads, bolder precision, static shapes first: the sooner a fast one, the more stops early.

    A backend's favourite way to INT8 or FP8 comes before float, and the others after it: a float engine is made in
    seconds, a calibrated one in minutes when the model is large, and time is bounded.
    """
    quantised = candidate.quantisation
    tier = 1 if quantised is None else 0 if (candidate.target, quantised.method) in favourites else 2
    hosted = candidate.target.device == "cpu"  # threads of an accelerator's engine mean nothing
    rest = quantised.rest.rank if quantised else 0
    static = candidate.shape_mode is ShapeMode.STATIC
    return (hosted, -candidate.threads, tier, -candidate.precision.rank, -rest, not static, candidate.target.runtime)


def _modes(profile: Profile, dynamic: bool) -> Sequence[ShapeMode]:
    if not dynamic:
        return (ShapeMode.STATIC,)
    return (ShapeMode.STATIC, ShapeMode.DYNAMIC) if profile.is_static else (ShapeMode.DYNAMIC,)


def _widths(config: BuildConfig, here: bool) -> Sequence[tuple[int, int]]:
    """Threads and instances: all cores or one for a single request; for throughput, ways to fill the cores.

    Of a device that is not here the cores are the most threads that the user names.
    """
    asked = tuple(dict.fromkeys(config.threads))
    cores = usable_cores() if here else max(asked, default=1)
    if any(count < 1 for count in asked):
        raise UsageError("threads must be positive", got=", ".join(map(str, asked)))
    if config.objective is Objective.LATENCY:
        return [(count, 1) for count in asked or sorted({cores, 1}, reverse=True)]
    halves = (cores >> power for power in range(cores.bit_length()))
    return [(count, max(1, cores // count)) for count in asked or sorted({*halves, 1} - {0}, reverse=True)]


def _precisions(asked: tuple[str, ...]) -> frozenset[Precision]:
    known = tuple(Precision)
    for name in asked:
        if name not in known:
            close = nearest(name, known)
            raise UsageError(f"unknown precision '{name}'", expected=", ".join(known),
                             hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    return frozenset(map(Precision, asked)) or frozenset(Precision)
