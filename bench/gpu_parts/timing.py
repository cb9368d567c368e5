"""Timing on a GPU: CUDA graphs, device events and the host's clock, and the machine's two ceilings."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

RUNS = 300
WARM = 30
BUSY = 300_000
"""Clock cycles of the GPU, about 170 microseconds: longer than a host takes to launch one recorded graph."""
Function = Callable[[list[Any]], Sequence[Any]]


class Runner:
    """A function on tensors that stay where they are, replayed from a CUDA graph or called anew each time."""

    def __init__(self, function: Function, example: Sequence[Any], graph: bool) -> None:
        self.held = [one.cuda().clone() for one in example]
        self._function = function
        self._graph = None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(5):
                self.found = function(list(self.held))
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        if graph:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph), torch.no_grad():
                self.found = function(list(self.held))

    def load(self, tensors: Sequence[Any]) -> None:
        """Put other inputs in place."""
        for held, one in zip(self.held, tensors, strict=True):
            held.copy_(one)

    def run(self) -> None:
        """Run once, without waiting."""
        if self._graph is not None:
            self._graph.replay()
            return
        with torch.no_grad():
            self.found = self._function(list(self.held))

    def answer(self, tensors: Sequence[Any]) -> list[Any]:
        """Outputs for these inputs; what lay in the outputs before is spoilt first."""
        self.load(tensors)
        if self._graph is not None:
            for one in self.found:
                one.fill_(float("nan"))
        self.run()
        torch.cuda.synchronize()
        return [one.clone() for one in self.found]


def measured(runner: Runner, sets: Sequence[Sequence[Any]], runs: int = RUNS) -> dict[str, float]:
    """Medians in milliseconds: between events on the device, and on the host's clock until the device is done.

    Host: one run on an idle device, from before its launch. Device: the run was queued while the device was still
    busy with something else, so that its launch is not in it as far as that takes less than :data:`BUSY`;
    ``launch_hidden`` is the share of the runs in which it was.
    """
    given = [[one.cuda() for one in tensors] for tensors in sets]
    for number in range(WARM):
        runner.load(given[number % len(given)])
        runner.run()
    device, host = [], []
    for number in range(runs):
        runner.load(given[number % len(given)])
        device.append(_on_device(runner))
        host.append(_on_host(runner))
    quartiles = statistics.quantiles([taken for taken, _ in device], n=4)
    return {"device_ms": round(quartiles[1], 4), "host_ms": round(statistics.median(host), 4),
            "spread_ms": round((quartiles[2] - quartiles[0]) / 2, 4), "runs": runs,
            "launch_hidden": round(statistics.mean(hidden for _, hidden in device), 3)}  # fmt: skip


def _on_device(runner: Runner) -> tuple[float, bool]:
    """Milliseconds, and whether the device was still busy with something else when all of the run was queued."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY)
    start.record()
    runner.run()
    end.record()
    hidden = not start.query()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)), hidden


def _on_host(runner: Runner) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    runner.run()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1e3


def kernels_of(runner: Runner, runs: int = 3, most: int = 16) -> list[tuple[str, float, int]]:
    """The kernels of one run that take longest: name, microseconds, calls."""
    from torch.profiler import ProfilerActivity, profile

    runner.run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(runs):
            runner.run()
        torch.cuda.synchronize()
    events = [(event.key[:90], event.self_device_time_total / runs, event.count // runs)
              for event in found.key_averages() if event.self_device_time_total]  # fmt: skip
    return sorted(events, key=lambda event: -event[1])[:most]


def ceilings() -> dict[str, float]:
    """What this GPU does at best: a large FP16 product in TFLOP/s, and a copy in TB/s, read and written."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    source = torch.randn(1 << 29, device="cuda")
    target = torch.empty_like(source)
    product = _fastest(lambda: torch.mm(a, b))
    copy = _fastest(lambda: target.copy_(source))
    return {"tflops": round(2 * 8192**3 / product / 1e9, 1), "tbytes": round(source.numel() * 8 / copy / 1e9, 3)}


def _fastest(call: Callable[[], Any]) -> float:
    """Milliseconds of one call: the median of ten."""
    found = []
    for _ in range(13):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return float(statistics.median(found[3:]))


def floor(model: Any, batch: int, limits: dict[str, float]) -> dict[str, float]:
    """Operations and bytes that no 16-bit version can do without, and the time that takes at the ceilings.

    Bytes: every weight once in 16 bits, inputs and outputs once as they are. Operations: those of products and
    convolutions, two for each multiplication.
    """
    from torch.utils.flop_counter import FlopCounterMode

    given = model.inputs(batch, 0)
    with FlopCounterMode(display=False) as counter:
        found = model.reference(given)
    operations = counter.get_total_flops()
    weights = sum(weight.numel() * 2 for weight in model.module.parameters())
    moved = weights + sum(one.numel() * one.element_size() for one in [*given.values(), *found.values()])
    compute, memory = operations / limits["tflops"] / 1e9, moved / limits["tbytes"] / 1e9
    return {"gflop": round(operations / 1e9, 2), "mbytes": round(moved / 1e6, 2), "compute_ms": round(compute, 4),
            "memory_ms": round(memory, 4), "floor_ms": round(max(compute, memory), 4)}  # fmt: skip
