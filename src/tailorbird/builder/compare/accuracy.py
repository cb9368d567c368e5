"""Why one engine is less accurate: the gate's figures side by side, and what explains their change.

A metric says both what FP32 scores and what the engine does, so its change falls into two measured parts: the source's
own, and what the engine loses. Of an SNR, energies of errors add up, so that the layers' errors which a build measured
(its ``sensitivity`` event) say how much of a change the layers kept in float explain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tailorbird.builder.compare import words
from tailorbird.builder.compare.comparison import AccuracyChange, Area, Basis, Cause, Difference, Figure
from tailorbird.builder.compare.graphs import GraphChange
from tailorbird.builder.compare.latency import ranked
from tailorbird.builder.compare.sides import Side
from tailorbird.domain.budget import METRIC, Check
from tailorbird.domain.candidate import Candidate

SNR = "snr_db"
_RULES = (SNR, "cosine", "top1", "equal elements")
LEAST_DB = 0.5
"""Decibels that two builds may differ by though nothing changed: a runtime sums in an order of its own."""

LOSSLESS_DB = 80.0
"""Above it both sides answer as the source does, to the rounding of FP32."""

LEAST_SCORE = 1e-9

_SOURCE = (Area.WEIGHTS, Area.GRAPH)
_ENGINE = (Area.PRECISION, Area.QUANTISATION, Area.RUNTIME, Area.OPTIONS, Area.VERSION, Area.SHAPES, Area.DEVICE)
_DATA = (Area.DATA,)
_METHODS = (Area.PRECISION, Area.QUANTISATION)


@dataclass(frozen=True)
class Known:
    """What is known to differ, and the logs and candidates of both sides."""

    a: Side
    b: Side
    differences: tuple[Difference, ...]
    graph: GraphChange | None

    @property
    def areas(self) -> frozenset[Area]:
        """Areas that differ. Digests of the source differ with its weights: the graphs tell which of the two it is."""
        found = {one.area for one in self.differences}
        if self.graph is None:
            return frozenset(found)
        source = {Area.WEIGHTS: bool(self.graph.retrained), Area.GRAPH: self.graph.is_structural}
        return frozenset((found - set(source)) | {area for area, differs in source.items() if differs})


def figures_of(a: Side, b: Side) -> tuple[Figure, ...]:
    """The gate's figures of accuracy, matched by rule and place."""
    mine, theirs = _checks(a), _checks(b)
    return tuple(_figure(key, mine.get(key), theirs.get(key)) for key in dict.fromkeys((*mine, *theirs)))


def accuracy_change(figures: Sequence[Figure], known: Known) -> AccuracyChange | None:
    """The change of the figure that tells most, with its causes; None where no figure is on both sides."""
    both = [one for one in figures if one.a is not None and one.b is not None]
    telling = _telling(both)
    if telling is None or telling.a is None or telling.b is None:
        return None
    change = telling.b - telling.a
    moved = _score_moved(telling) if telling.rule.startswith(METRIC) else _fidelity_moved(telling.a, telling.b, telling)
    causes = (_of_score if telling.rule.startswith(METRIC) else _of_fidelity)(telling, known) if moved else ()
    return AccuracyChange(telling.rule, telling.where, telling.a, telling.b, change, moved, ranked(causes))


def accuracy_sentence(found: AccuracyChange) -> str:
    """How much accuracy was lost or won, and what most of it is."""
    rule, unit = (found.rule.removeprefix(METRIC), "") if found.rule != SNR else ("SNR", " dB")
    numbers = f"{rule} {found.a:.4g} -> {found.b:.4g}{unit} ({found.where})"
    if not found.beyond_noise:
        return f"B is as accurate as A: {numbers}"
    head = f"B is {'less' if found.change < 0 else 'more'} accurate: {numbers}"
    whole = found.change if found.rule.startswith(METRIC) else 1.0
    return f"{head}; {words.top_cause(found.causes, whole)}"


def _checks(side: Side) -> dict[tuple[str, str], Check]:
    if side.manifest is None:
        return {}
    return {(one.rule, one.where): one for one in side.manifest.gate.checks
            if one.rule in _RULES or one.rule.startswith(METRIC)}  # fmt: skip


def _figure(key: tuple[str, str], a: Check | None, b: Check | None) -> Figure:
    return Figure(*key, _number(a), _number(b), a.reference if a else None, b.reference if b else None)


def _number(check: Check | None) -> float | None:
    return check.measured if check is not None and isinstance(check.measured, float) else None


def _telling(figures: Sequence[Figure]) -> Figure | None:
    """The score that moved most; without scores the least SNR on either side."""
    scores = [one for one in figures if one.rule.startswith(METRIC)]
    if scores:
        return max(scores, key=lambda one: abs((one.b or 0.0) - (one.a or 0.0)))
    for rule in _RULES:
        found = [one for one in figures if one.rule == rule]
        if found:
            return min(found, key=lambda one: min(one.a or 0.0, one.b or 0.0))
    return None


def _score_moved(one: Figure) -> bool:
    return abs((one.b or 0.0) - (one.a or 0.0)) > LEAST_SCORE


def _fidelity_moved(a: float, b: float, one: Figure) -> bool:
    if one.rule != SNR:
        return abs(b - a) > LEAST_SCORE
    return abs(b - a) > LEAST_DB and min(a, b) < LOSSLESS_DB


def _of_score(one: Figure, known: Known) -> list[Cause]:
    """The source's part and the engine's; without FP32's scores whatever differs."""
    assert one.a is not None and one.b is not None  # noqa: PT018 - only such figures come here
    if one.reference_a is None or one.reference_b is None:
        return _possible(known, (*_SOURCE, *_DATA, *_ENGINE), one.b - one.a)
    source = one.reference_b - one.reference_a
    parts = _possible(known, (*_SOURCE, *_DATA), source) if abs(source) > LEAST_SCORE else []
    engine = one.b - one.a - source
    return parts + (_possible(known, _ENGINE, engine) if abs(engine) > LEAST_SCORE else [])


def _of_fidelity(one: Figure, known: Known) -> list[Cause]:
    """Shares of the change of the error's energy: kept layers by what their groups were measured to bring."""
    assert one.a is not None and one.b is not None  # noqa: PT018 - only such figures come here
    if one.rule != SNR:
        return _possible(known, (*_ENGINE, *_SOURCE, *_DATA), 1.0)
    added = 10 ** (-one.b / 10) - 10 ** (-one.a / 10)
    kept = _kept_causes(known, one.where, added)
    rest = 1.0 - sum(cause.contribution or 0.0 for cause in kept)
    others = [area for area in (*_ENGINE, *_SOURCE, *_DATA) if not (kept and area in _METHODS)]
    return kept + (_possible(known, others, rest) if others else [])


def _possible(known: Known, areas: Iterable[Area], whole: float) -> list[Cause]:
    """Causes of the part that areas have: all of it where one alone differs, otherwise nobody measured which."""
    found = [area for area in areas if area in known.areas]
    if Area.PRECISION in found:
        found = [
            area for area in found if area is not Area.QUANTISATION
        ]  # told together: one says how the other is got
    if Area.RUNTIME in found:
        found = [area for area in found if area not in (Area.VERSION, Area.OPTIONS)]
    if not found:
        return [Cause((Area.UNEXPLAINED,), words.UNEXPLAINED, whole, Basis.NONE)]
    alone = len(found) == 1
    basis = Basis.ONLY if alone else Basis.NONE
    return [Cause((area,), _said(area, known), whole if alone else None, basis) for area in found]


def _said(area: Area, known: Known) -> str:
    if area is Area.WEIGHTS and known.graph is not None:
        return words.weights_words(known.graph)
    return words.area_words(area, known.differences, known.graph)


def _kept_causes(known: Known, where: str, added: float) -> list[Cause]:
    """Groups of layers that one side keeps in float and the other does not, with the error they were found to bring."""
    mine, theirs = _kept(known.a), _kept(known.b)
    groups = [*_groups(known.a, where), *_groups(known.b, where)]
    noises = {first: noise for first, noise in groups if (first in mine) != (first in theirs)}
    if not noises or not added:
        return []
    return [_kept_cause(first, noise * (1 if first in mine else -1) / added, first in theirs)
            for first, noise in noises.items()]  # fmt: skip


def _kept_cause(first: str, contribution: float, in_b: bool) -> Cause:
    text = f"the group of layers from {words.short(first)} is {'kept in float' if in_b else 'no longer kept in float'}"
    return Cause((Area.QUANTISATION,), text, contribution, Basis.PROBES)


def _kept(side: Side) -> frozenset[str]:
    candidate: Candidate | None = side.manifest.candidate if side.manifest else None
    return frozenset(candidate.quantisation.kept if candidate and candidate.quantisation else ())


def _groups(side: Side, where: str) -> Iterable[tuple[str, float]]:
    """First layer and error's energy of each group that the build measured, for the output of ``where``."""
    groups = side.event("sensitivity").get("groups")
    for group in groups if isinstance(groups, list) else ():
        noise = group.get("noise") if isinstance(group, dict) else None
        if isinstance(noise, dict) and isinstance(group.get("first"), str):
            yield group["first"], _of_output(noise, where)


def _of_output(noise: Mapping[str, object], where: str) -> float:
    numbers = {name: float(value) for name, value in noise.items() if isinstance(value, (int, float))}
    named = [value for name, value in numbers.items() if where.startswith(f"{name} ") or where.endswith(f", {name}")]
    return max(named or numbers.values(), default=0.0)
