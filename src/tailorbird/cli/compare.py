"""``tailorbird compare``: two builds side by side on the terminal, as JSON, or as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

import tailorbird
from tailorbird.cli import render

if TYPE_CHECKING:
    from tailorbird.builder.compare.comparison import Cause, Comparison, LayerSide, Pair

MOST_PAIRS = 12
"""Groups of layers on the terminal; ``--json`` and ``--html`` have them all."""


def compare(
    a: Path,
    b: Path,
    *,
    measure: Annotated[bool, Parameter(negative="")] = False,
    html: Path | None = None,
    allow_unsigned: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout.")] = False,
) -> None:
    """Say what differs between two builds, and which of it made B slower or less accurate.

    Args:
        a: a .engine file, a version's or a model's folder (REPOSITORY/MODEL), or a build log.
        b: the same of the other build.
        measure: run both here in turn, so that settings which differ at once are told apart.
        html: a page to write.
        allow_unsigned: with --measure, run engines without a trusted signature: for local experiments.
    """
    found = tailorbird.compare(a, b, measure=measure, allow_unsigned=allow_unsigned)
    if html is not None:
        _write_page(found, html)
    if json:
        render.write_json(found)
    else:
        _show(found)
    if html is not None and not json:
        render.out.print(f"\nwrote {html}", markup=False, soft_wrap=True)


def _write_page(found: Comparison, path: Path) -> None:
    from tailorbird.builder.compare.page import page_of
    from tailorbird.domain.errors import UsageError
    from tailorbird.domain.files import reason, replacing

    try:
        with replacing(path) as file:
            file.write(page_of(found).encode())
    except OSError as error:
        raise UsageError(f"cannot write {path}", got=reason(error), hint="choose another place with --html") from error


def _show(found: Comparison) -> None:
    for sentence in found.summary:
        render.out.print(f"{sentence}.", markup=False, soft_wrap=True)
    render.out.print()
    render.pairs((letter, " · ".join(filter(None, (one.path, one.kind, one.candidate, one.created))))
                 for letter, one in (("A", found.a), ("B", found.b)))  # fmt: skip
    for title, table in _tables(found):
        render.out.print(f"\n[bold]{title}[/]")
        render.out.print(table)
    if found.notes:
        render.out.print("\n[bold]Notes[/]")
    for note in found.notes:
        render.out.print(f"{note}.", markup=False, soft_wrap=True)


def _tables(found: Comparison) -> Iterable[tuple[str, Table]]:
    if found.latency is not None and found.latency.causes:
        noise = f"{found.latency.change:+.3g} ms, noise {found.latency.noise:.2g} ms"
        yield f"Latency: {noise}", _causes(found.latency.causes, "ms", 1.0)
    if found.accuracy is not None and found.accuracy.causes:
        scored = found.accuracy.rule.startswith("metric ")
        yield "Accuracy", _causes(found.accuracy.causes, "points" if scored else "% of it", 1.0 if scored else 100.0)
    if found.differences:
        yield "What differs", _differences(found)
    if found.layers:
        yield "Layer by layer, the largest change first", _layers(found.layers)


def _causes(causes: Sequence[Cause], unit: str, factor: float) -> Table:
    from tailorbird.builder.compare.words import areas_words

    table = _grid(("cause", "left"), (unit, "right"), ("±", "right"), ("found by", "left"), ("what", "left"))
    for one in causes:
        part = "-" if one.contribution is None else f"{factor * one.contribution:+.3g}"
        spread = "" if one.spread is None else f"{factor * one.spread:.2g}"
        table.add_row(*map(Text, (areas_words(one.areas), part, spread, str(one.basis), one.text)))
    return table


def _differences(found: Comparison) -> Table:
    from tailorbird.builder.compare.words import short

    table = _grid(("area", "left"), ("what", "left"), ("A", "left"), ("B", "left"))
    for one in found.differences:
        table.add_row(*map(Text, (one.area, one.what, short(one.a, 200), short(one.b, 200))))
    return table


def _layers(pairs: Sequence[Pair]) -> Table:
    from tailorbird.builder.compare.words import listed

    table = _grid(("nodes", "left"), ("A", "left"), ("ms", "right"), ("B", "left"), ("ms", "right"),
                  ("change", "right"), ("because of", "left"))  # fmt: skip
    order = sorted(pairs, key=lambda one: -abs(one.change))
    for one in order[:MOST_PAIRS]:
        cells = (listed(one.nodes), _kinds(one.a), _sum(one.a), _kinds(one.b), _sum(one.b), f"{one.change:+.3f}")
        table.add_row(*map(Text, (*cells, one.area)))
    if len(order) > MOST_PAIRS:
        left = order[MOST_PAIRS:]
        blank = [Text("")] * 4
        table.add_row(Text(f"{len(left)} more"), *blank, Text(f"{sum(one.change for one in left):+.3f}"), Text(""))
    return table


def _kinds(layers: Sequence[LayerSide]) -> str:
    counted = Counter(f"{one.kind} {one.precision}" for one in layers)
    return ", ".join(f"{count} x {what}" if count > 1 else what for what, count in counted.items()) or "-"


def _sum(layers: Sequence[LayerSide]) -> str:
    return f"{sum(one.milliseconds for one in layers):.3f}" if layers else "-"


def _grid(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, side in columns:
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    return table
