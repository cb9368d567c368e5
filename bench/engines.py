"""How fast is the engine we choose? Ours against ONNX Runtime, OpenVINO and PyTorch as people run them.

For every zoo model: build (timed, gate passed), then all contestants take turns, A B C D A B C D ...,
each in its own process, at the same thread count, on the same real inputs. A ratio is the median over
rounds of the paired ratio; its spread is half the interquartile range.

``python -m bench.engines [NAME ...] [--threads N] [--rounds N]`` prints the table and writes
``bench-output/engines.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import zoo
from bench.contestants import Times, Turn
from tailorbird import api
from tailorbird.backends.host import cpu_facts, usable_cores
from tailorbird.backends.isolate import Worker
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.workdir import workdir
from tailorbird.cli.progress import BuildProgress
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.outcome import Status
from tailorbird.domain.profile import format_shapes

SETS = 4
TURN_SECONDS = 0.4
NEAR = 1.3
"""Our own candidates measured within this factor of the chosen one take part: was the choice right?"""


@dataclass
class Row:
    """One model's figures."""

    model: str
    shapes: str
    engine: str
    snr_db: float | None
    build_seconds: float
    median_ms: float = 0.0
    ratios: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Contestant to (median ratio, half its interquartile range): how many times as fast ours is."""
    best_candidate: float = 1.0
    """The least of our candidates' times over ours: below one, another would have been faster."""


def main() -> None:
    """Build and race the models named on the command line; all by default."""
    args = _arguments()
    out = Console(width=None if Console().is_terminal else 170, highlight=False)
    rows = []
    for name in args.models or [model.name for model in zoo.ZOO]:
        rows.append(measure(name, args.threads, args.rounds, tuple(args.precision)))
        out.print(table(rows))
    _save(rows, args.threads, args.rounds)
    out.print(f"{cpu_facts()['cpu']}, {cpu_facts()['isa']}, {args.threads} threads, {args.rounds} rounds in turn")


def measure(name: str, threads: int, rounds: int, precisions: tuple[str, ...] = ()) -> Row:
    """One model from file to figures."""
    model = zoo.get(name)
    source = zoo.path(name)
    with workdir() as folder:
        inputs = _write_inputs(model, folder)
        started = time.perf_counter()
        with BuildProgress() as progress:
            result = api.build(
                source,
                output=folder / f"{name}.engine",
                opt_shapes=format_shapes(model.shapes),
                data=str(inputs),
                threads=(threads,),
                precisions=precisions,
                observers=[progress],
            )
        row = Row(name, format_shapes(model.shapes), result.winner.candidate.name,
                  result.manifest.gate.worst("snr_db"), time.perf_counter() - started)  # fmt: skip
        times = _in_turn(_contestants(model, source, result, inputs, threads), rounds)
    return _with_figures(row, times)


def _write_inputs(model: zoo.ZooModel, folder: Path) -> Path:
    inputs = folder / "inputs"
    inputs.mkdir()
    for seed in range(SETS):
        save_set(inputs / f"{seed}.npz", model.sample(seed))
    return inputs


def _contestants(model: zoo.ZooModel, source: Path, result: api.Result, inputs: Path, threads: int) -> dict[str, Turn]:
    def turn(kind: str, what: object, **more: object) -> Turn:
        return Turn(kind, str(what), str(inputs), threads, 0, **more)  # type: ignore[arg-type]

    found = {"ours": turn("ours", result.bundle)}
    found |= {kind: turn(kind, source) for kind in ("onnxruntime", "openvino")}
    if model.source is not None:
        found["torch"] = turn("torch", model.source)
    for outcome in result.table:
        if outcome.status is Status.SLOWER and (outcome.median or 0) < NEAR * (result.winner.median or 0):
            more = {"candidate": outcome.candidate, "signature": result.manifest.signature}
            found[f"candidate {outcome.candidate.name}"] = turn("candidate", source, **more)
    return found


def _in_turn(contestants: dict[str, Turn], rounds: int) -> dict[str, list[float]]:
    """Median milliseconds of every contestant's every turn. One that a runtime refuses is left out, and said."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with _workers(contestants) as workers:
        paces = {name: _first(workers[name], turn) for name, turn in contestants.items()}
        running = {name: turn for name, turn in contestants.items() if paces[name]}
        for _ in range(rounds):
            for name, turn in running.items():
                runs = max(3, min(500, int(TURN_SECONDS * 1e3 / (paces[name] or 1))))
                times[name].append(_turn(workers[name], turn, runs))
    return {name: values for name, values in times.items() if values}


@contextlib.contextmanager
def _workers(names: dict[str, Turn]) -> Iterator[dict[str, Worker]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Worker(Limits(seconds=300), search_path=(".",))) for name in names}


def _first(worker: Worker, turn: Turn) -> float | None:
    try:
        return _turn(worker, turn, 3)
    except TailorbirdError as error:
        print(f"{turn.kind} left out: {error.message[:300]}")
        return None


def _turn(worker: Worker, turn: Turn, runs: int) -> float:
    import msgspec

    asked = msgspec.structs.replace(turn, runs=runs)
    return float(np.median(worker.call("bench.contestants:take_turn", asked, Times).milliseconds))


def _with_figures(row: Row, times: dict[str, list[float]]) -> Row:
    ours = np.array(times.pop("ours"))
    row.median_ms = float(np.median(ours))
    for name, theirs in times.items():
        p25, median, p75 = np.percentile(np.array(theirs) / ours, [25, 50, 75])
        row.ratios[name] = (float(median), float(p75 - p25) / 2)
    rivals = [ratio for name, (ratio, _) in row.ratios.items() if name.startswith("candidate")]
    row.best_candidate = min([1.0, *rivals])
    return row


def geometric_mean(values: Sequence[float]) -> float:
    """exp(mean(log(x)))."""
    return float(np.exp(np.mean(np.log(values))))


def table(rows: Sequence[Row]) -> Table:
    """All models, and the geometric mean of each ratio."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column("model")
    found.add_column("chosen engine")
    for name in ("ours ms", "x ORT", "x OpenVINO", "x PyTorch", "best candidate", "SNR dB", "build s"):
        found.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        ratios = [_ratio(row.ratios.get(kind)) for kind in ("onnxruntime", "openvino", "torch")]
        snr = f"{row.snr_db:.0f}" if row.snr_db is not None else "-"
        found.add_row(row.model, row.engine, f"{row.median_ms:.3g}", *ratios, f"{row.best_candidate:.2f}", snr,
                      f"{row.build_seconds:.0f}")  # fmt: skip
    means = [_mean(rows, kind) for kind in ("onnxruntime", "openvino", "torch")]
    found.add_row("geometric mean", "", "", *means, "", "", "", style="bold")
    return found


def _mean(rows: Sequence[Row], kind: str) -> str:
    values = [row.ratios[kind][0] for row in rows if kind in row.ratios]
    return f"{geometric_mean(values):.2f}" if values else "-"


def _ratio(found: tuple[float, float] | None) -> str:
    return "-" if found is None else f"{found[0]:.2f} ±{found[1]:.2f}"


def _save(rows: Sequence[Row], threads: int, rounds: int) -> None:
    folder = Path("bench-output")
    folder.mkdir(exist_ok=True)
    document = {"device": cpu_facts(), "threads": threads, "rounds": rounds, "rows": [vars(row) for row in rows]}
    (folder / "engines.json").write_text(json.dumps(document, indent=2), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--precision", action="append", default=[], help="allow this one only; repeatable")
    parser.add_argument("--rounds", type=int, default=11)
    return parser.parse_args()


if __name__ == "__main__":
    main()
