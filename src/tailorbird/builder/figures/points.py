"""Points: from the table's rows to what the scatter plot shows. Speed against accuracy, of all that met the gate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tailorbird.builder.figures import gains
from tailorbird.domain.budget import METRIC, Budget, Check
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.objective import Goal
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision

FAMILIES = ("fp32", "half", "int8", "mixed", "weights")
"""What a point's colour tells apart."""

SPEED_UP = "speed-up over ONNX Runtime’s default"


class Point(msgspec.Struct, frozen=True):
    """One engine that met the gate."""

    name: str
    x: float
    """Speed-up over the baseline, or milliseconds."""
    y: float
    """SNR in dB, or the metric's score."""
    family: str
    """One of :data:`FAMILIES`."""
    runtime: str
    passed: bool
    chosen: bool = False
    note: str = ""
    """What else is shown when a pointer rests on it."""


class Path(msgspec.Struct, frozen=True):
    """The attempts of one search for mixed precision, by how much each keeps in float."""

    names: tuple[str, ...]
    """Of points; the first keeps nothing."""
    labels: tuple[str, ...]


class Plot(msgspec.Struct, frozen=True):
    """Everything a scatter plot shows."""

    points: tuple[Point, ...]
    y_title: str
    x_title: str = SPEED_UP
    baseline: str = ""
    """Name of the point that speed-ups are told against; empty when x is in milliseconds."""
    limit: float | None = None
    """The budget on the y axis."""
    top: float | None = None
    """FP32's own y, where it has one: a score's."""
    paths: tuple[Path, ...] = ()


def plot_of(outcomes: Sequence[Outcome], budget: Budget, baseline: str = "", goal: Goal = gains.LATENCY) -> Plot | None:
    """The plot of a build's table, or None where fewer than two engines met the gate with a number to show.

    Args:
        outcomes: every row.
        budget: what the fidelity was held against.
        baseline: name of the candidate that speed-ups are told against, or an empty text.
        goal: what is compared: milliseconds of a run, or of a row.
    """
    gated = [outcome for outcome in outcomes if outcome.gate is not None and outcome.latency]
    decisive = _decisive(gated)
    speed = next((one.cost(goal) for one in outcomes if one.candidate.name == baseline), None)
    points = tuple(filter(None, (_point(outcome, decisive, speed, goal) for outcome in gated)))
    if len(points) < 2:
        return None
    metric = decisive.rule.removeprefix(METRIC) if decisive else ""
    limit = decisive.limit if decisive else budget.snr_db
    return Plot(
        points=points,
        y_title=f"{metric.rpartition(':')[2]}, FP32 {decisive.reference:.4g}" if decisive else "SNR against FP32, dB",
        x_title=SPEED_UP if speed else _milliseconds(goal),
        baseline=baseline if speed else "",
        limit=limit if isinstance(limit, float) else None,
        top=decisive.reference if decisive else None,
        paths=paths_of(outcomes, frozenset(point.name for point in points)),
    )


def paths_of(outcomes: Iterable[Outcome], shown: frozenset[str]) -> tuple[Path, ...]:
    """The searches for mixed precision: what was refused with nothing kept, then each attempt, the least kept first."""
    seeds: dict[str, list[Candidate]] = {}
    for candidate in (outcome.candidate for outcome in outcomes):
        if candidate.quantisation is not None and candidate.name in shown:
            base = msgspec.structs.replace(candidate, quantisation=candidate.quantisation.base)
            seeds.setdefault(base.name, []).append(candidate)
    searches = [sorted(found, key=kept) for found in seeds.values() if len(found) > 1]
    return tuple(Path(tuple(one.name for one in search), tuple(f"kept {kept(one)}" for one in search))
                 for search in searches)  # fmt: skip


def kept(candidate: Candidate) -> int:
    """How many layers a candidate keeps in float although its method could quantise them."""
    return len(candidate.quantisation.kept) if candidate.quantisation else 0


def family(candidate: Candidate) -> str:
    """What a point's colour says of a candidate."""
    if candidate.quantisation is None:
        return {Precision.FP32: "fp32", Precision.INT8: "int8"}.get(candidate.precision, "half")
    if candidate.precision is not Precision.INT8:
        return "weights"
    return "mixed" if candidate.quantisation.kept else "int8"


def _decisive(gated: Sequence[Outcome]) -> Check | None:
    """The metric's check whose place stands for all: the chosen engine's first; None where no labels decided."""
    chosen_first = sorted(gated, key=lambda outcome: outcome.status is not Status.CHOSEN)
    return next((check for outcome in chosen_first for check in _scores(outcome)), None)


def _scores(outcome: Outcome) -> list[Check]:
    checks = outcome.gate.checks if outcome.gate else ()
    return [check for check in checks if check.rule.startswith(METRIC) and isinstance(check.measured, float)]


def _height(outcome: Outcome, decisive: Check | None) -> float | None:
    if decisive is None:
        return outcome.gate.worst("snr_db") if outcome.gate else None
    scores = _scores(outcome)
    same = [check.measured for check in scores if check.where == decisive.where]
    return next((float(score) for score in (*same, *(check.measured for check in scores))), None)


def _point(outcome: Outcome, decisive: Check | None, speed: float | None, goal: Goal) -> Point | None:
    mine, height = outcome.cost(goal), _height(outcome, decisive)
    if not mine or height is None:
        return None
    passed = outcome.gate is not None and outcome.gate.passed
    return Point(
        name=outcome.candidate.name,
        x=speed / mine if speed else mine,
        y=height,
        family=family(outcome.candidate),
        runtime=outcome.candidate.target.runtime,
        passed=passed,
        chosen=outcome.status is Status.CHOSEN,
        note=f"{outcome.status}: {outcome.reason}",
    )


def _milliseconds(goal: Goal) -> str:
    return "milliseconds a row" if goal.is_throughput else "milliseconds"
