"""The comparison, as a table of contents: read both sides, match their graphs and layers, rank the causes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tailorbird.builder.compare import words
from tailorbird.builder.compare.accuracy import Known, accuracy_change, accuracy_sentence, figures_of
from tailorbird.builder.compare.comparison import Area, Comparison, LatencyChange, LayerSide, Pair, SideFacts
from tailorbird.builder.compare.differences import differences
from tailorbird.builder.compare.graphs import changes
from tailorbird.builder.compare.latency import Context, Parts, by_layers, by_records
from tailorbird.builder.compare.measure import Counterfactuals, measured
from tailorbird.builder.compare.rows import Rows, common_rows
from tailorbird.builder.compare.sides import Side, read_side
from tailorbird.domain.errors import UsageError


def compare(a: Path, b: Path) -> Comparison:
    """What differs between two builds, and why one is slower or less accurate, from their records alone.

    Nothing is loaded or run: each side may come from a stranger.

    Raises:
        UsageError: there is nothing to compare at a path.
        BundleError: a bundle cannot be read.
    """
    return _compared(read_side(a), read_side(b), None)


def compare_here(a: Path, b: Path, engines: tuple[Path, Path]) -> Comparison:
    """The same with both engines run here in turn, and what differs everywhere changed one thing at a time.

    Args:
        a, b: as the user named them.
        engines: their versions' folders. Engines are executable code: whoever calls has verified the signatures.

    Raises:
        UsageError, BundleError: as :func:`compare`; or a side is a build log, of which nothing can be run.
        BackendError, StepError: an engine does not run here.
    """
    sides = read_side(a), read_side(b)
    for side in sides:
        if side.manifest is None:
            raise UsageError(f"{side.path} holds no engine to measure", got=side.kind,
                             expected="a bundle or a version", hint="leave --measure out")  # fmt: skip
    rows = common_rows(*sides)
    found = None if rows is None else measured(sides, engines, rows)
    return _compared(*sides, found)


def _compared(a: Side, b: Side, found: Counterfactuals | None) -> Comparison:
    graph = changes(a.outline, b.outline) if a.outline and b.outline else None
    differing = differences(a, b, graph)
    latency, pairs, notes = _latency(a, b, Context(differing, graph), found)
    figures = figures_of(a, b)
    accuracy = accuracy_change(figures, Known(a, b, differing, graph))
    return Comparison(
        summary=(
            words.latency_sentence(latency) if latency else "latency: not measured on both sides",
            accuracy_sentence(accuracy) if accuracy else "accuracy: not measured on both sides",
        ),
        a=_facts(a),
        b=_facts(b),
        latency=latency,
        accuracy=accuracy,
        differences=differing,
        layers=pairs.pairs if pairs is not None else (),
        figures=figures,
        notes=(*(f"A has {note}" for note in a.notes), *(f"B has {note}" for note in b.notes), *notes),
    )


def _latency(
    a: Side, b: Side, context: Context, found: Counterfactuals | None
) -> tuple[LatencyChange | None, Parts | None, tuple[str, ...]]:
    """The change, its layers, and what stood in the way."""
    if found is not None:
        whole = found.parts(context)
        measured_change = found.change(whole)
        return measured_change, whole, (*found.notes, *_drift(whole, measured_change.noise))
    rows = common_rows(a, b)
    if rows is None:
        return None, None, ("no latency of a chosen engine on both sides",)
    context = dataclasses.replace(context, same_shapes=rows.same_shapes)
    parts, notes = _parts(a, b, rows, context)
    causes = parts.causes if parts is not None else by_records(rows.change, context)
    change = LatencyChange(
        a=rows.a,
        b=rows.b,
        same_shapes=rows.same_shapes,
        change=rows.change,
        noise=rows.noise,
        beyond_noise=abs(rows.change) > rows.noise,
        measured_here=False,
        causes=causes,
    )
    return change, parts, (*notes, *(_drift(parts, rows.noise) if parts is not None else ()))


def _drift(parts: Parts, noise: float) -> tuple[str, ...]:
    """Layers that nothing changed and that all took longer say that the machine was slower, not the engine."""
    same = [pair for pair in parts.pairs if pair.area is Area.UNEXPLAINED and pair.a and pair.b]
    was, now = (sum(one.milliseconds for one in side) for side in _sides(same))
    if not was or abs(now - was) <= noise:
        return ()
    pace = "slower" if now > was else "faster"
    return (f"layers that nothing changed took {now / was:.2f}x as long in B: the machine itself may have been {pace}"
            " then; --measure takes turns",)  # fmt: skip


def _sides(pairs: list[Pair]) -> tuple[list[LayerSide], list[LayerSide]]:
    return [one for pair in pairs for one in pair.a], [one for pair in pairs for one in pair.b]


def _parts(a: Side, b: Side, rows: Rows, context: Context) -> tuple[Parts | None, tuple[str, ...]]:
    """The change layer by layer, where both sides profiled the place that is compared."""
    if a.layers is None or b.layers is None:
        return None, ("no layer times on both sides: contributions are not measured",)
    if (a.layers.edge, b.layers.edge) != (rows.a.edge, rows.b.edge):
        return None, (f"layers were profiled at {a.layers.edge} and {b.layers.edge}, not where latencies are compared",)
    milliseconds = rows.a.latency.median, rows.b.latency.median
    return by_layers(a.layers, b.layers, milliseconds, context, rows.noise), ()


def _facts(side: Side) -> SideFacts:
    manifest = side.manifest
    if manifest is None:
        started = side.event("started")
        return SideFacts(str(side.path), side.kind, "", side.name, "", "", str(started.get("source", "")))
    origin = manifest.provenance
    target = str(manifest.candidate.target)
    return SideFacts(
        str(side.path), side.kind, manifest.model, side.name, target, origin.created, origin.source
    )  # fmt: skip
