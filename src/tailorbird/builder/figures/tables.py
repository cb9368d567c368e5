"""Tables of the report: candidates, latencies, the gate's checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from tailorbird.builder.figures import gains
from tailorbird.builder.figures.latencyplot import latency_plot
from tailorbird.builder.gate.fidelity import NOT_JUDGED
from tailorbird.domain.budget import METRIC, Check, GateReport
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.objective import Goal
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.profile import format_shapes

_KINDS = {Status.CHOSEN: "chosen", Status.SLOWER: "", Status.STOPPED: "early", Status.NOT_TRIED: "early",
          Status.REFUSED: "refused", Status.NOT_RUN: "early"}  # fmt: skip


def candidates_table(outcomes: Sequence[Outcome], goal: Goal = gains.LATENCY) -> str:
    """A row for each candidate; those that were not tried are folded away."""
    tried = [outcome for outcome in outcomes if outcome.status is not Status.NOT_TRIED]
    others = [outcome for outcome in outcomes if outcome.status is Status.NOT_TRIED]
    return f"<h2>Candidates</h2>{_tried(tried, goal)}{_not_tried(others)}"


def _tried(outcomes: Sequence[Outcome], goal: Goal) -> str:
    slowest = max((outcome.cost(goal) or 0.0 for outcome in outcomes), default=0.0) or 1.0
    rated = gains.has_rates(outcomes, goal)
    metric = gains.metric_of(outcomes)
    rows = "".join(_candidate(outcome, slowest, goal, rated, bool(metric)) for outcome in outcomes)
    head = (
        '<tr><th>candidate<th>verdict<th class="n">'
        + gains.time_title(goal)
        + ('<th class="n">rows/s' if rated else "")
        + '<th class="n minor">spread<th class="minor">'
        + ("time a row" if goal.is_throughput else "latency")
        + '<th class="n">SNR dB'
        + (f'<th class="n">{escape(metric)}' if metric else "")
        + "<th>why</tr>"
    )
    return f'<div class="scroll"><table class="wordy">{head}{rows}</table></div>'


def _candidate(outcome: Outcome, slowest: float, goal: Goal, rated: bool, scored: bool) -> str:
    row, cost = outcome.deciding_row(goal), outcome.cost(goal)
    share = f'<div class="track"><div class="fill" style="width:{100 * (cost or 0.0) / slowest:.1f}%"></div></div>'
    snr = outcome.gate.worst("snr_db") if outcome.gate else None
    rate = gains.shown_rate(outcome, goal)
    cells = (
        f'<td class="n">{gains.time_of(row, goal) if row else ""}',
        f'<td class="n">{"" if rate is None else number(rate)}' if rated else "",
        f'<td class="n minor">{f"±{row.latency.spread:.2g}" if row else ""}<td class="minor">{share if row else ""}',
        f'<td class="n">{"" if snr is None else f"{snr:.0f}"}',
        f'<td class="n">{escape(gains.score_of(outcome))}' if scored else "",
    )
    return (
        f'<tr class="{_KINDS.get(outcome.status, "failed")}"><td class="name">{escape(outcome.candidate.name)}'
        f'<td class="v w">{escape(outcome.status)}{"".join(cells)}<td class="why">{escape(outcome.reason)}</tr>'
    )


def _not_tried(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return ""
    rows = "".join(f'<tr><td class="name">{escape(one.candidate.name)}<td class="v w">{escape(one.status)}'
                   f'<td class="why">{escape(one.reason)}</tr>' for one in outcomes)  # fmt: skip
    many = "1 candidate was" if len(outcomes) == 1 else f"{len(outcomes)} candidates were"
    table = f'<table class="wordy"><tr><th>candidate<th>verdict<th>why</tr>{rows}</table>'
    return f'<details><summary>{many} not tried</summary><div class="scroll">{table}</div></details>'


def latency_table(rows: Sequence[LatencyRow]) -> str:
    """The chosen engine's latencies, in milliseconds, by place and instances."""
    several = any(row.instances > 1 for row in rows)
    rated = several or any(row.rows > 1 for row in rows)
    names = ("rows", *(("instances",) if several else ()), "min", "median", "p90", "p99", "runs",
             *(("rows/s",) if rated else ()))  # fmt: skip
    head = "".join(f'<th class="n">{name}' for name in names)
    lines = "".join(_latency(row, several, rated) for row in rows)
    table = f'<table class="wordy"><tr><th>place<th>shapes{head}</tr>{lines}</table>'
    return f'<h2>Latency of the chosen engine, ms</h2>{latency_plot(rows)}<div class="scroll">{table}</div>'


def _latency(row: LatencyRow, several: bool, rated: bool) -> str:
    found = row.latency
    cells = [str(row.rows), *([str(row.instances)] if several else ()),
             *map(gains.ms, (found.min, found.median, found.p90, found.p99)), str(found.runs),
             *([number(gains.rate(row))] if rated else ())]  # fmt: skip
    numbers = "".join(f'<td class="n">{cell}' for cell in cells)
    return f'<tr><td>{escape(row.edge)}<td class="name">{escape(format_shapes(row.shapes))}{numbers}</tr>'


def gate_table(gate: GateReport, executed: dict[str, int]) -> str:
    """What decided: the tightest check of every rule, metrics first; all of them folded below."""
    rules: dict[str, list[Check]] = {}
    for check in sorted(gate.checks, key=lambda check: not check.rule.startswith(METRIC)):
        rules.setdefault(check.rule, []).append(check)
    tightest = [(min(checks, key=_room), len(checks)) for checks in rules.values()]
    layers = ", ".join(f"{count} {escape(kind)}" for kind, count in executed.items())
    return (
        f'<h2>Gate</h2><p class="lead">Against the FP32 source. Layers as executed: {layers}.</p>'
        f"{_checks(tightest)}<details><summary>All {len(gate.checks)} checks</summary>"
        f"{_checks([(check, 1) for check in gate.checks])}</details>"
    )


def _room(check: Check) -> tuple[bool, float]:
    """How far a check is from its limit: the one to show for its rule has least."""
    limit = check.limit if isinstance(check.limit, float) else 0.0  # a number that is only noted: the least of them
    return check.passed, check.measured - limit if isinstance(check.measured, float) else 0.0


def _checks(counted: Iterable[tuple[Check, int]]) -> str:
    listed = list(counted)
    scored = any(check.reference is not None for check, _ in listed)
    several = any(count > 1 for _, count in listed)
    head = (
        "<tr><th>rule"
        + ('<th class="n">checks<th>tightest' if several else "<th>where")
        + '<th class="n">measured'
        + ('<th class="n">FP32' if scored else "")
        + '<th class="n">limit<th>verdict</tr>'
    )
    rows = "".join(_check(check, f'<td class="n">{count}' if several else "", scored) for check, count in listed)
    return f'<div class="scroll"><table>{head}{rows}</table></div>'


def _check(check: Check, count: str, scored: bool) -> str:
    reference = "" if check.reference is None else f"{check.reference:.4g}"
    return (
        f'<tr><td>{escape(check.rule)}{count}<td>{escape(check.where)}<td class="n">{_value(check.measured)}'
        + (f'<td class="n">{reference}' if scored else "")
        + f'<td class="n">{_value(check.limit)}<td>{_verdict(check)}</tr>'
    )


def _verdict(check: Check) -> str:
    return "noted" if check.limit == NOT_JUDGED else "held" if check.passed else "broken"


def number(value: float) -> str:
    """A count of rows with three significant digits, or whole with thousands apart."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _value(value: float | str) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.4g}"
