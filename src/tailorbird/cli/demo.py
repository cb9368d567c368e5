"""The demo on a terminal: steps and progress on stderr, tables and readings on stdout."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from tailorbird.cli import render
from tailorbird.cli.progress import BuildProgress
from tailorbird.demo.watch import Watcher

if TYPE_CHECKING:
    from tailorbird.api import Result
    from tailorbird.demo.models import Model
    from tailorbird.demo.reader import Reading
    from tailorbird.demo.run import Demo
    from tailorbird.demo.watch import Observer

STEPS = 4


def run_demo(output: Path, as_json: bool) -> None:
    """Run the demo and show it."""
    from tailorbird.demo.requirements import check_requirements

    check_requirements()
    from tailorbird.demo.run import run

    demo = run(output, Watcher() if as_json else DemoProgress())
    if as_json:
        render.write_json(_summary(demo))
    else:
        _show_end(demo)


class DemoProgress(Watcher):
    """Tells every step as it happens."""

    def __init__(self) -> None:
        self._step = 0

    def step(self, title: str) -> None:
        """A heading with its number."""
        self._step += 1
        render.err.print(f"\n[bold green]{self._step}/{STEPS}[/]  [bold]{escape(title)}[/]")

    def note(self, text: str) -> None:
        """A line below the heading."""
        render.err.print(f"     {escape(text)}", soft_wrap=True)

    def building(self) -> AbstractContextManager[Observer]:
        """The build's own progress."""
        return BuildProgress()

    def built(self, model: Model, result: Result) -> None:
        """The table of candidates, and what was gained."""
        render.out.print()
        render.out.print(render.outcomes_table(result.table))
        render.out.print(f"\n{_gained(model, result)}")
        if _noise(result) > 0.15:
            self.note(f"The timings spread by ±{100 * _noise(result):.0f} %: something else keeps this machine busy.")

    def read(self, reading: Reading) -> None:
        """The lines as they were written and as they were read."""
        render.out.print(f"\n[bold]{reading.page.name}[/]  {_told(reading)}")
        render.out.print(_lines(reading))


def _gained(model: Model, result: Result) -> str:
    if result.speedup is None:
        return f"{model.name}: ONNX Runtime's default was not measured"
    if result.winner.candidate.name == result.manifest.baseline:
        return f"{model.name}: nothing is faster here than ONNX Runtime's default"
    return f"{model.name}: [bold green]{result.speedup:.2f}x[/] the speed of ONNX Runtime's default"


def _noise(result: Result) -> float:
    """Spread of the chosen engine's latency, as a share of its median."""
    latency = next(row.latency for row in result.winner.latency if row.edge == "opt")
    return latency.spread / latency.median


def _told(reading: Reading) -> str:
    return (
        f"{100 * reading.right:.1f} % of the characters right, {reading.page_ms:.0f} ms: lines found in "
        f"{reading.detect_ms:.0f} ms, {reading.requests - 1} strips read in {reading.read_ms:.1f} ms each"
    )


def _lines(reading: Reading) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("written", "read"):
        table.add_column(name, min_width=38)
    table.add_column("sure", justify="right")
    table.add_column("")
    for written, line in zip_longest(reading.page.lines, reading.lines):
        read, sure = (line.text, f"{100 * line.confidence:.0f} %") if line else ("", "")
        mark = "[green]✓[/]" if written == read else "[red]✗[/]"
        table.add_row(escape(written or ""), escape(read), sure, mark)
    return table


def _show_end(demo: Demo) -> None:
    gains = ", ".join(f"{model.name} {result.speedup:.2f}x" for model, result in demo.results if result.speedup)
    right = f"{100 * demo.right:.1f} % of the characters right"
    render.out.print(f"\n[bold green]Done[/] in {demo.seconds:.0f} s: {right}; "
                     f"speed against ONNX Runtime's default: {gains or 'not measured'}.")  # fmt: skip
    render.out.print("The server is stopped and the repository removed. To look at, in a browser:")
    render.out.print(f"{demo.page}", markup=False, soft_wrap=True)


def _summary(demo: Demo) -> dict[str, Any]:
    return {
        "page": str(demo.page),
        "seconds": round(demo.seconds, 1),
        "characters_right": round(demo.right, 4),
        "engines": {model.name: _engine(result) for model, result in demo.results},
        "pages": [_page(reading) for reading in demo.readings],
    }


def _engine(result: Result) -> dict[str, Any]:
    return {"chosen": result.winner.candidate.name, "speedup": result.speedup, "table": result.table}


def _page(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.page.name,
        "written": reading.page.lines,
        "read": [line.text for line in reading.lines],
        "characters_right": round(reading.right, 4),
        "ms": round(reading.page_ms, 2),
    }
