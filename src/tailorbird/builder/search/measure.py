"""Measuring: wall-clock time of single runs, as the process that serves would see it.

Where several instances of an engine run side by side, each run is timed on its own while the others run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np

from tailorbird.builder.cases.places import Place
from tailorbird.domain.dtype import Array
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.signature import Tensors

Run = Callable[[Tensors], dict[str, Array]]

SETTLE_SECONDS = 0.1
"""Pause before a turn. ONNX Runtime's threads were seen to spin for 60 ms after a run (2 cores, 2026-11): whoever
runs next on the same cores would pay for it."""

LOOK_RUNS = 3
MOST_LOOKS = 100
LOOK_SECONDS = 0.15
WARM_SECONDS = 0.15
ROW_SECONDS = 0.4
LEAST_RUNS = 5
MOST_RUNS = 400


def timed(run: Run, inputs: Sequence[Tensors], count: int) -> list[float]:
    """Milliseconds of ``count`` runs, taking the sets of inputs in turn."""
    samples = []
    for _, one in zip(range(count), cycle(inputs), strict=False):
        start = time.perf_counter()
        run(one)
        samples.append((time.perf_counter() - start) * 1e3)
    return samples


def together(runs: Sequence[Run], inputs: Sequence[Tensors], count: int) -> list[float]:
    """Milliseconds of ``count`` runs of every instance, all instances at once: runtimes let go of the interpreter."""
    if len(runs) == 1:
        return timed(runs[0], inputs, count)
    with ThreadPoolExecutor(len(runs)) as pool:
        shares = [pool.submit(timed, run, inputs, count) for run in runs]
        return [sample for share in shares for sample in share.result()]


def warm_up(runs: Sequence[Run], inputs: Sequence[Tensors]) -> float:
    """Run until caches, allocators and clocks have settled; the last run's milliseconds."""
    deadline = time.perf_counter() + WARM_SECONDS
    last = together(runs, inputs, 2)[-1]
    while time.perf_counter() < deadline:
        last = together(runs, inputs, 1)[-1]
    return last


def take_turn(runs: Sequence[Run], inputs: Sequence[Tensors], count: int) -> list[float]:
    """Milliseconds of ``count`` runs after others ran on the same cores: let them settle, wake up, measure."""
    time.sleep(SETTLE_SECONDS)
    together(runs, inputs, 2)
    return together(runs, inputs, count)


def look(runs: Sequence[Run], inputs: Sequence[Tensors]) -> list[float]:
    """A first look after warm-up: a few runs, more of a quick engine, to stop early what cannot win."""
    pace = warm_up(runs, inputs)
    return together(runs, inputs, max(LOOK_RUNS, min(MOST_LOOKS, int(LOOK_SECONDS * 1e3 / max(pace, 1e-3)))))


def measure(runs: Sequence[Run], inputs: Sequence[Tensors], seconds: float = ROW_SECONDS) -> list[float]:
    """About ``seconds`` of runs after warm-up, between 5 and 400 of them for each instance."""
    pace = warm_up(runs, inputs)
    return together(runs, inputs, max(LEAST_RUNS, min(MOST_RUNS, int(seconds * 1e3 / max(pace, 1e-3)))))


def row_of(place: Place, instances: int, milliseconds: Sequence[float]) -> LatencyRow:
    """One row of the latency table."""
    return LatencyRow(place.edge, place.shapes, place.rows, instances, Latency.of(milliseconds))


def median(samples: Sequence[float]) -> float:
    """The median as a plain number."""
    return float(np.median(samples))
