"""The tables: one description of columns, printed on a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.serving_parts.results import Contest, Entry


@dataclass(frozen=True)
class Column:
    """A figure, its title with the unit, and how many digits it is given."""

    title: str
    figure: str
    digits: int = 1
    spread: bool = False


@dataclass(frozen=True)
class Layout:
    """One table of one contest."""

    contest: str
    table: str
    title: str
    columns: tuple[Column, ...]


LAYOUTS = (
    Layout("tiny", "servers", "Sixteen floats doubled, JSON over HTTP", (
        Column("requests/s, 16 connections", "rate", 0, True), Column("p99 ms", "p99_many_ms", 2),
        Column("CPU µs/request", "cpu_many_us", 0), Column("p50 µs, 1 connection", "p50_us", 0, True),
        Column("p99 µs", "p99_us", 0), Column("CPU µs/request", "cpu_one_us", 0))),
    Layout("resnet", "closed", "ResNet-50, closed loop of 16 clients, and of one", (
        Column("images/s", "rate", 1, True), Column("p50 ms", "p50_ms"), Column("p99 ms", "p99_ms"),
        Column("CPU ms/image", "cpu_ms"), Column("one client, p50 ms", "single_ms", 1, True))),
    Layout("resnet", "poisson", "ResNet-50, Poisson arrivals at 70 % of the engine's own throughput", (
        Column("p50 ms", "p50_ms", 1, True), Column("p99 ms, rounds together", "pooled_p99_ms"),
        Column("answers", "answers", 0), Column("not answered", "failed", 0), Column("CPU ms/image", "cpu_ms"),
        Column("generator late, p99 ms", "late_ms"))),
    Layout("resnet", "overload", "ResNet-50, Poisson arrivals at 200 % of it", (
        Column("goodput/s", "goodput", 1, True), Column("answered/s", "answered"), Column("p99 ms", "p99_ms", 0),
        Column("refused/s", "refused"), Column("refusal p50 ms", "refusal_p50_ms", 2),
        Column("p99 ms", "refusal_p99_ms", 1), Column("failed", "failed", 0), Column("CPU ms/request", "cpu_ms"))),
    Layout("start", "servers", "From start to first answer", (
        Column("seconds", "seconds", 2, True), Column("CPU s", "cpu_s", 2))),
    Layout("batching", "costs", "Milliseconds a row, by the rows of a run", (
        *(Column(f"{rows}", f"rows{rows}", 3) for rows in (1, 2, 4, 8)),)),
    Layout("batching", "loops", "With and without batching", (
        Column("requests/s, 16 clients", "rate", 1, True), Column("p50 ms", "p50_ms"), Column("p99 ms", "p99_ms"),
        Column("CPU ms/request", "cpu_ms", 2), Column("lone client p99 ms", "single_p99_ms", 2),
        Column("p99 bound ms", "bound_ms", 1), Column("requests/s within it", "held_rate", 1),
        Column("p99 ms", "held_p99_ms"))),
)  # fmt: skip


def show(contests: Sequence[Contest], out: Console) -> None:
    """Everything, on a terminal."""
    for one in contests:
        for layout, entries in _tables(one):
            out.print(_drawn(layout, entries))
            out.print()
        out.print(*(escape(line) for line in (*notes(one), *map(str, one.goals), *stands_on(one))), sep="\n")
        out.print()


def markdown(one: Contest) -> Iterator[str]:
    """A contest's tables, goals and what they stand on, line by line."""
    for layout, entries in _tables(one):
        columns = [column for column in layout.columns if _known(column, entries)]
        yield from (f"### {layout.title}", "")
        yield "| | " + " | ".join(column.title for column in columns) + " |"
        yield "|---|" + "---:|" * len(columns)
        for entry in entries:
            yield f"| {entry.name} | " + " | ".join(cell(entry, column) for column in columns) + " |"
        yield ""
    yield from (f"- {line}" for line in (*notes(one), *map(str, one.goals), *stands_on(one)))
    yield ""


def cell(entry: Entry, column: Column) -> str:
    """A figure's median over the rounds, with its spread where the column shows it."""
    figure = entry.figures.get(column.figure)
    if figure is None:
        return "–"
    text = f"{figure.median:,.{column.digits}f}"
    return f"{text} ±{figure.spread:,.{column.digits}f}" if column.spread and len(figure.values) > 1 else text


def notes(one: Contest) -> Iterator[str]:
    """Who could not take part, or not in all, and why."""
    for entries in one.tables.values():
        yield from (f"{entry.name}: {entry.note}" for entry in entries if entry.note)


def stands_on(one: Contest) -> Iterator[str]:
    """What the figures stand on."""
    yield "; ".join(f"{key}: {value}" for key, value in one.facts.items())
    device = one.device
    yield (f"{device.get('cpu', '?')}, {device.get('isa', '?')}, {device.get('cores', '?')} cores; "
           f"{one.rounds} rounds in turn, {one.seconds:.0f} s, {one.date[:10]}; "
           f"load average {one.load:.1f} at the beginning")  # fmt: skip
    yield ", ".join(f"{name} {version}" for name, version in one.versions.items())


def _tables(one: Contest) -> Iterator[tuple[Layout, tuple[Entry, ...]]]:
    for layout in LAYOUTS:
        if layout.contest == one.name and one.tables.get(layout.table):
            yield layout, one.tables[layout.table]


def _drawn(layout: Layout, entries: Sequence[Entry]) -> Table:
    found = Table(box=None, pad_edge=False, header_style="bold", title=layout.title, title_justify="left")
    found.add_column("")
    columns = [column for column in layout.columns if _known(column, entries)]
    for column in columns:
        found.add_column(column.title, justify="right")
    for entry in entries:
        found.add_row(entry.name, *(cell(entry, column) for column in columns))
    return found


def _known(column: Column, entries: Sequence[Entry]) -> bool:
    return any(column.figure in entry.figures for entry in entries)
