"""What people see: tables and plain lines. Data goes to stdout, all else to stderr."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tailorbird.domain.manifest import speedup
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.profile import format_shapes

if TYPE_CHECKING:
    from tailorbird.backends.base import Availability
    from tailorbird.builder.graph.inspect import Inspection
    from tailorbird.domain.dtype import Array
    from tailorbird.domain.manifest import Manifest
    from tailorbird.domain.objective import Goal
    from tailorbird.repository.store import VersionCheck

T = TypeVar("T")

PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask, so that a redirected table keeps its lines whole."""


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)


out = _console(sys.stdout)
err = _console(sys.stderr)

_STYLES = {
    Status.CHOSEN: "bold green",
    Status.SLOWER: "",
    Status.STOPPED: "dim",
    Status.NOT_TRIED: "dim",
    Status.NOT_RUN: "",
}
_ENDED = frozenset({Status.FAILED, Status.CRASHED, Status.TIMED_OUT, Status.OUT_OF_MEMORY})
"""Ended by an error, whose words are shown whole: there may be no other place to read them."""

MOST_NOT_TRIED = 6
"""More candidates than this that were not tried become one line; ``--json`` and the report have them all."""


def write_json(value: Any) -> None:
    """Plain JSON on stdout, whatever the terminal."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def outcomes_table(outcomes: Sequence[Outcome], goal: Goal | None = None) -> Table:
    """One line a candidate: verdict, latency, rows a second where they differ, fidelity, score, reason.

    Args:
        outcomes: in the order to show them.
        goal: what fastest meant; one request at a time without it.
    """
    columns = _columns(outcomes, goal)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number > 1 else "left", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=1)
    shown, rest = _split(outcomes)
    for outcome in shown:
        cells = [Text(cell(outcome)) for cell in columns.values()]
        table.add_row(*cells, _why(outcome), style=_STYLES.get(outcome.status, "red"))
    if rest:
        blank = ["-"] * (len(columns) - 2)
        table.add_row(f"{len(rest)} candidates", Status.NOT_TRIED, *blank, _reasons(rest), style="dim")
    return table


def _columns(outcomes: Sequence[Outcome], goal: Goal | None) -> dict[str, Callable[[Outcome], str]]:
    """Names of the columns and what stands in them; rows a second and scores only where there is something to say."""
    from tailorbird.builder.figures import gains

    goal = goal or gains.LATENCY
    rated, metric = gains.has_rates(outcomes, goal), gains.metric_of(outcomes)
    return {
        "candidate": lambda one: one.candidate.name,
        "verdict": lambda one: one.status,
        gains.time_title(goal): lambda one: _cell(one.deciding_row(goal), lambda row: gains.time_of(row, goal)),
        **({"rows/s": lambda one: _cell(gains.shown_rate(one, goal), count)} if rated else {}),
        "spread": lambda one: _cell(one.deciding_row(goal), lambda row: f"±{row.latency.spread:.2g}"),
        "SNR dB": lambda one: _cell(one.gate and one.gate.worst("snr_db"), lambda snr: f"{snr:.0f}"),
        **({metric: lambda one: gains.score_of(one) or "-"} if metric else {}),
    }


def _cell(value: T | None, shown: Callable[[T], str]) -> str:
    return "-" if value is None else shown(value)


def _split(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """What gets a line of its own, and those not tried when there are too many of them."""
    idle = [outcome for outcome in outcomes if outcome.status is Status.NOT_TRIED]
    if len(idle) <= MOST_NOT_TRIED:
        return list(outcomes), []
    return [outcome for outcome in outcomes if outcome.status is not Status.NOT_TRIED], idle


def _why(outcome: Outcome) -> Text:
    """One line, cut at the table's edge unless it is an error's."""
    text = " ".join(outcome.reason.split())
    return Text(text) if outcome.status in _ENDED else Text(text, no_wrap=True, overflow="ellipsis")


def _reasons(outcomes: Sequence[Outcome]) -> Text:
    counted = Counter(outcome.reason for outcome in outcomes)
    return Text("; ".join(f"{reason} ({times})" for reason, times in counted.most_common()))


def result_lines(manifest: Manifest) -> Iterable[str]:
    """What a build came to, below its table: the speed-up, and rows a second where several instances were measured."""
    from tailorbird.builder.figures import gains

    if not manifest.qualified:
        yield f"not qualified: on a machine with {manifest.candidate.target} run: tailorbird qualify BUNDLE"
        return
    goal = manifest.goal
    ratio = speedup(manifest.outcomes, manifest.baseline, goal)
    if manifest.baseline == manifest.candidate.name:
        yield f"nothing is faster here than {manifest.baseline}, ONNX Runtime's default"
    elif ratio is not None:
        what = "rows a second" if goal.is_throughput else "speed"
        yield f"{ratio:.2f}x the {what} of {manifest.baseline}, ONNX Runtime's default"
    several = [row for row in manifest.latency if row.instances > manifest.candidate.instances]
    if several:
        best = max(several, key=gains.rate)
        yield f"{count(gains.rate(best))} rows/s with {best.instances} instances side by side, at {best.edge}"


def manifest_lines(manifest: Manifest) -> Iterable[str]:
    """A version in a few lines."""
    facts = manifest.provenance
    yield f"model      {manifest.model}"
    yield f"engine     {manifest.candidate.name} on {manifest.candidate.target}"
    yield f"serves     {manifest.candidate.profile}"
    yield f"inputs     {', '.join(map(str, manifest.signature.inputs))}"
    yield f"outputs    {', '.join(map(str, manifest.signature.outputs))}"
    if manifest.candidate.quantisation and manifest.candidate.quantisation.kept:
        yield f"in float   {_listed(manifest.candidate.quantisation.kept)}"
    yield f"gate       {manifest.gate.verdict}; {len(manifest.gate.checks)} checks"
    yield f"executed   {', '.join(f'{count} x {kind}' for kind, count in manifest.executed.items())}"
    yield f"source     {facts.source} {facts.source_digest}"
    yield f"built      {facts.created} on {(facts.built_on or facts.device).get('cpu', '?')}"
    if facts.qualified:
        yield f"qualified  {facts.qualified} on {facts.device.get('cpu', '?')}"


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def latency_table(manifest: Manifest) -> Table:
    """The latency table of one engine, in milliseconds; instances and rows a second where several were measured."""
    from tailorbird.builder.figures import gains

    several = any(row.instances > 1 for row in manifest.latency)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("place", "shapes"):
        table.add_column(name)
    for name in ("rows", *_if(several, "instances"), "min", "median", "p90", "p99", *_if(several, "rows/s"), "runs"):
        table.add_column(name, justify="right")
    for row in manifest.latency:
        found = row.latency
        times = (ms(found.min), ms(found.median), ms(found.p90), ms(found.p99))
        table.add_row(row.edge, format_shapes(row.shapes), str(row.rows), *_if(several, str(row.instances)), *times,
                      *_if(several, count(gains.rate(row))), str(found.runs))  # fmt: skip
    return table


def _if(condition: bool, text: str) -> tuple[str, ...]:
    return (text,) if condition else ()


def doctor_table(report: dict[str, Availability]) -> Table:
    """One row a backend: here or not, why, what to install."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("backend", "state", "version", "reason", "install"):
        table.add_column(name, overflow="fold")
    for name, found in report.items():
        state = "[green]ready[/]" if found.available else "[red]missing[/]"
        told = (Text(text or "-") for text in (found.version, found.reason, found.install))  # brackets are no markup
        table.add_row(name, state, *told)
    return table


def pairs(rows: Iterable[tuple[str, Any]]) -> None:
    """Aligned name and value lines on stdout."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        out.print(f"{name:<{width}}  {value}", markup=False, soft_wrap=True)


def inspection_pairs(found: Inspection) -> Iterable[tuple[str, Any]]:
    """An inspection as aligned lines."""
    yield "model", f"{found.path} ({found.producer or 'unknown exporter'})"
    yield "digest", found.digest
    yield "opset", ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
    yield "inputs", ", ".join(map(str, found.signature.inputs))
    yield "outputs", ", ".join(map(str, found.signature.outputs))
    yield "dynamic dims", ", ".join(found.dynamic_dims) or "none"
    yield "parameters", f"{found.parameters:,} in {found.weight_bytes / 2**20:,.1f} MiB"
    yield "external data", ", ".join(found.external_files) or "none"
    yield "operators", ", ".join(f"{name} {count}" for name, count in found.operators.items())
    yield from _cost_pairs(found)
    yield from (("note", note) for note in found.notes)
    for backend, obstacles in found.obstacles.items():
        yield backend, "; ".join(" ".join(text.split()) for text in obstacles) or "nothing in the way"


def _cost_pairs(found: Inspection) -> Iterable[tuple[str, Any]]:
    cost = found.flops
    if cost is None:
        yield "cost", found.flops_reason
        return
    yield (
        "cost",
        f"{cost.flops / 1e9:,.2f} GFLOP, {cost.bytes_moved / 2**20:,.1f} MiB moved at {format_shapes(cost.shapes)}",
    )
    yield "intensity", f"{cost.intensity:,.1f} FLOP a byte"
    top = (f"{one.operator} {one.flops / max(cost.flops, 1):.1%}" for one in cost.operators[:5] if one.flops)
    yield "mostly", ", ".join(top)
    if cost.unknown:
        yield "not counted", f"{len(cost.unknown)} of {cost.nodes} nodes: {'; '.join(cost.unknown[:3])}"


def checks_table(checks: Iterable[VersionCheck]) -> Table:
    """One row a version: intact, or what is wrong with it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "version", "state", "reason"):
        table.add_column(name, overflow="fold")
    for check in checks:
        state = "[green]intact[/]" if check.ok else "[red]altered[/]"
        table.add_row(check.model, str(check.version), state, " ".join(check.problem.split()) or "-")
    return table


def array_line(array: Array) -> str:
    """An output in one line: form, range, and the first values."""
    if array.dtype.kind not in "fiu" or not array.size:
        return f"{array.dtype}{list(array.shape)}"
    first = " ".join(f"{value:.4g}" for value in array.ravel()[:6])
    return f"{array.dtype}{list(array.shape)} from {array.min():.4g} to {array.max():.4g}: {first} ..."


def ms(value: float) -> str:
    """Milliseconds with three significant digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def count(value: float) -> str:
    """A count with three significant digits, or whole with thousands apart."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
