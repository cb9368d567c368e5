"""What people see: tables and plain lines. Data goes to stdout, all else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import msgspec
from rich.console import Console
from rich.table import Table

from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.profile import format_shapes

if TYPE_CHECKING:
    from tailorbird.backends.base import Availability
    from tailorbird.builder.graph.inspect import Inspection
    from tailorbird.domain.dtype import Array
    from tailorbird.domain.manifest import Manifest
    from tailorbird.repository.store import VersionCheck

PLAIN_WIDTH = 160
"""Columns where there is no terminal to ask, so that a redirected table keeps its lines whole."""


def _console(stream: TextIO) -> Console:
    return Console(file=stream, highlight=False, width=None if stream.isatty() else PLAIN_WIDTH)


out = _console(sys.stdout)
err = _console(sys.stderr)

_STYLES = {Status.CHOSEN: "bold green", Status.SLOWER: "", Status.STOPPED: "dim"}


def write_json(value: Any) -> None:
    """Plain JSON on stdout, whatever the terminal."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def outcomes_table(outcomes: Sequence[Outcome]) -> Table:
    """One row a candidate: verdict, latency, spread, gate, reason."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("median ms", "spread", "SNR dB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", ratio=1)
    for outcome in outcomes:
        table.add_row(*_cells(outcome), style=_STYLES.get(outcome.status, "red"))
    return table


def _cells(outcome: Outcome) -> tuple[str, ...]:
    opt = next((row.latency for row in outcome.latency if row.edge == "opt"), None)
    snr = outcome.gate.worst("snr_db") if outcome.gate else None
    return (
        outcome.candidate.name,
        outcome.status,
        ms(opt.median) if opt else "-",
        f"±{opt.spread:.2g}" if opt else "-",
        f"{snr:.0f}" if snr is not None else "-",
        outcome.reason.replace("\n", " "),
    )


def manifest_lines(manifest: Manifest) -> Iterable[str]:
    """A version in a few lines."""
    facts = manifest.provenance
    yield f"model      {manifest.model}"
    yield f"engine     {manifest.candidate.name} on {manifest.candidate.target}"
    yield f"serves     {manifest.candidate.profile}"
    yield f"inputs     {', '.join(map(str, manifest.signature.inputs))}"
    yield f"outputs    {', '.join(map(str, manifest.signature.outputs))}"
    yield f"gate       {manifest.gate.verdict}; {len(manifest.gate.checks)} checks"
    yield f"executed   {', '.join(f'{count} x {kind}' for kind, count in manifest.executed.items())}"
    yield f"source     {facts.source} {facts.source_digest}"
    yield f"built      {facts.created} on {facts.device.get('cpu', '?')}"


def latency_table(manifest: Manifest) -> Table:
    """The latency table of one engine, in milliseconds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("place", "shapes"):
        table.add_column(name)
    for name in ("rows", "min", "median", "p90", "p99", "runs"):
        table.add_column(name, justify="right")
    for row in manifest.latency:
        found = row.latency
        times = (ms(found.min), ms(found.median), ms(found.p90), ms(found.p99))
        table.add_row(row.edge, format_shapes(row.shapes), str(row.rows), *times, str(found.runs))
    return table


def doctor_table(report: dict[str, Availability]) -> Table:
    """One row a backend: here or not, why, what to install."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("backend", "state", "version", "reason", "install"):
        table.add_column(name, overflow="fold")
    for name, found in report.items():
        state = "[green]ready[/]" if found.available else "[red]missing[/]"
        table.add_row(name, state, found.version or "-", found.reason or "-", found.install or "-")
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
