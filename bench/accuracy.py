"""Is INT8 still right, and is it faster? FP32, naive INT8 and ours, on three tasks with labels.

For every task: ONNX Runtime and OpenVINO on the FP32 source, the quantisers with their defaults (``nncf.quantize``,
``onnxruntime.quantization``'s ``quantize_static`` and ``quantize_dynamic``), and an engine of ours built with the
task's labels and a budget of 99 %. All of them are scored on a split that none has seen, then take turns, each in its
own process and at the same thread count, A B C A B C ...; a speed-up is the median over rounds of the paired ratio
to ONNX Runtime's FP32, its spread half the interquartile range. Naive calibration gets all the inputs that our build
gets. What fails is a row that says so.

``python -m bench.accuracy [TASK ...] [--threads N] [--rounds N] [--naive-only]`` prints the table and writes
``bench-output/accuracy.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import contest, tasks
from bench.contestants import Turn
from bench.tasks import naive, scoring
from tailorbird import api
from tailorbird.backends.host import cpu_facts, usable_cores
from tailorbird.backends.isolate import Worker
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.workdir import workdir
from tailorbird.cli.progress import BuildProgress
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import TailorbirdError

BASE = "onnxruntime fp32"
OURS = "tailorbird"
SHARE = 0.99
"""Of FP32's score: MLPerf's budget."""
LIMITS = Limits(seconds=900)


@dataclass
class Row:
    """One contestant's figures at one task; what is None did not come about, and the note says why."""

    task: str
    contestant: str
    score: float | None = None
    rows: int = 0
    kept: float | None = None
    """Share of FP32's score."""
    held: bool | None = None
    median_ms: float | None = None
    speedup: float | None = None
    spread: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Ground:
    """One task laid out in a folder: what each contestant is given."""

    name: str
    task: tasks.Task
    folder: Path
    threads: int

    def turn(self, kind: str, model: object) -> Turn:
        """A contestant that runs on the test split."""
        return Turn(kind, str(model), str(self.folder / "inputs"), self.threads, 0)


def main() -> None:
    """Score and race the tasks named on the command line; all by default."""
    args = _arguments()
    out = Console(width=None if Console().is_terminal else 170, highlight=False)
    rows: list[Row] = []
    for name in args.tasks or tasks.NAMES:
        rows += measure(name, args.threads, args.rounds, ours=not args.naive_only)
        _save(rows, args.threads, args.rounds)
        out.print(table(rows))
    out.print(f"{cpu_facts()['cpu']}, {cpu_facts()['isa']}, {args.threads} threads, {args.rounds} rounds in turn")


def measure(name: str, threads: int, rounds: int, ours: bool = True) -> list[Row]:
    """One task from its model to its rows, FP32 first."""
    with workdir() as folder:
        ground = _laid(Ground(name, tasks.get(name), folder, threads))
        source = ground.task.model()
        turns: dict[str, Turn | str] = {BASE: ground.turn("onnxruntime", source)}
        turns |= {"openvino fp32": ground.turn("openvino", source)}
        turns |= {f"naive {way}": _naive(ground, way, source) for way in naive.WAYS}
        if ours:
            turns[OURS] = _ours(ground, source)
        rows = [_scored(ground, contestant, turn) for contestant, turn in turns.items()]
        running = {row.contestant: turns[row.contestant] for row in rows if row.score is not None}
        times = contest.in_turn({key: turn for key, turn in running.items() if isinstance(turn, Turn)}, rounds)
    return compared(rows, times)


def compared(rows: list[Row], times: dict[str, list[float]]) -> list[Row]:
    """The rows with what can be said only beside FP32: kept share, budget, speed-up."""
    base = next(row for row in rows if row.contestant == BASE)
    for row in rows:
        if row.score is not None and base.score:
            row.kept = row.score / base.score
            row.held = row.kept >= SHARE
        if own := times.get(row.contestant):
            low, middle, high = np.percentile(np.array(times[BASE]) / own, [25, 50, 75])
            row.median_ms, row.speedup, row.spread = float(np.median(own)), float(middle), float(high - low) / 2
    return rows


def _laid(ground: Ground) -> Ground:
    """Inputs and labels of the test split, and inputs to calibrate on, as folders of ``.npz``."""
    for kind, samples in (("", ground.task.samples("test")), ("calibration", ground.task.data())):
        inputs, labels = ground.folder / (kind or "inputs"), ground.folder / f"{kind}labels"
        inputs.mkdir()
        labels.mkdir()
        for number, sample in enumerate(samples):
            plain = {key: array for key, array in sample.items() if key != tasks.LABELS}
            save_set(inputs / f"{number:04}.npz", plain)
            save_set(labels / f"{number:04}.npz", {tasks.LABELS: sample[tasks.LABELS]})
    return ground


def _naive(ground: Ground, way: str, source: Path) -> Turn | str:
    """The quantised model's turn, or what the tool said when it failed."""
    kind = naive.RUN_BY[way]
    target = ground.folder / f"{way.replace(' ', '-')}{'.xml' if kind == 'openvino' else '.onnx'}"
    args = naive.Args(way, str(source), str(ground.folder / "calibration"), str(target))
    try:
        with Worker(LIMITS, search_path=(".",), scratch=ground.folder) as worker:
            return ground.turn(kind, worker.call("bench.tasks.naive:quantise", args, naive.Done).model)
    except TailorbirdError as error:
        return error.message


def _ours(ground: Ground, source: Path) -> Turn | str:
    started = time.perf_counter()
    try:
        with BuildProgress() as progress:
            result = api.build(
                source,
                output=ground.folder / f"{ground.name}.engine",
                opt_shapes=ground.task.shapes,
                data=f"bench.tasks.{ground.name}:data",
                metric=ground.task.metric,
                budget=f"{SHARE:.0%}",
                threads=(ground.threads,),
                observers=[progress],
            )
    except TailorbirdError as error:
        return error.message
    print(f"{ground.name}: {result.winner.candidate.name} in {time.perf_counter() - started:.0f} s")
    return ground.turn("ours", result.bundle)


def _scored(ground: Ground, contestant: str, turn: Turn | str) -> Row:
    if isinstance(turn, str):
        return Row(ground.name, contestant, note=_short(turn))
    args = scoring.Args(turn, ground.task.metric, str(ground.folder / "labels"))
    try:
        with Worker(LIMITS, search_path=(".",), scratch=ground.folder) as worker:
            found = worker.call("bench.tasks.scoring:score", args, scoring.Score)
    except TailorbirdError as error:
        return Row(ground.name, contestant, note=_short(error.message))
    return Row(ground.name, contestant, found.score, found.rows)


def _short(message: str, most: int = 160) -> str:
    line = " ".join(message.split())
    return line if len(line) <= most else f"{line[:most]}..."


def table(rows: Iterable[Row]) -> Table:
    """All tasks, one contestant a line."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "contestant"):
        found.add_column(name, no_wrap=True)
    for name in ("score", "kept", "budget", "ms", "x FP32"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("note")
    for row in rows:
        found.add_row(row.task, row.contestant, *figures(row), row.note, end_section=row.contestant == OURS)
    return found


def figures(row: Row) -> tuple[str, str, str, str, str]:
    """Score, kept share, budget, milliseconds and speed-up as text; a dash for what did not come about."""
    return (
        "-" if row.score is None else f"{row.score:.2f}",
        "-" if row.kept is None else f"{row.kept:.2%}",
        "-" if row.held is None else "held" if row.held else "BROKEN",
        "-" if row.median_ms is None else f"{row.median_ms:.3g}",
        "-" if row.speedup is None else f"{row.speedup:.2f} ±{row.spread:.2f}",
    )


def _save(rows: Sequence[Row], threads: int, rounds: int) -> None:
    folder = Path("bench-output")
    folder.mkdir(exist_ok=True)
    document = {"device": cpu_facts(), "threads": threads, "rounds": rounds, "rows": [asdict(row) for row in rows]}
    (folder / "accuracy.json").write_text(json.dumps(document, indent=2), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(tasks.NAMES))
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--naive-only", action="store_true", help="leave our build out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
