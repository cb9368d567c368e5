"""Which way of running each fused operator is fastest here, measured: one answer for each problem, kept.

Configurations are compiled side by side in processes of their own first; each is then timed alone, in a CUDA graph of
calls that read different weights, as a network's layers do. Where there are many, some are drawn, and a second round
looks around the best of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.inductor.kernels.launching import LIBRARY, Config, Kernel, Options, problem
from tailorbird.backends.inductor.kernels.operators import OPERATORS
from tailorbird.backends.inductor.kernels.table import KERNELS
from tailorbird.backends.inductor.restructure.editing import torch

LIBRARY_MUST_GAIN = 0.05
"""The library is taken where it is this much faster: it waits for its predecessor's end, ours need not."""
REPEATS = 7
_WEIGHT_SETS = 8
_STARTS = 2
"""Configurations of the first round around which the second one looks."""


class Tuned(msgspec.Struct, frozen=True):
    """The answer to one problem."""

    config: Config
    microseconds: float
    library: float
    """What PyTorch's own operators take, in microseconds."""
    tried: int
    refused: dict[str, int] = {}
    """Why configurations could not run, and how many each reason stopped."""


class Tuning(msgspec.Struct):
    """All answers of one machine."""

    device: str
    answers: dict[str, Tuned] = {}
    seconds: float = 0.0
    """What finding them took."""


class Problem(msgspec.Struct, frozen=True):
    """One call to tune."""

    operator: str
    args: tuple[Any, ...]

    @property
    def key(self) -> str:
        """What decides the answer."""
        return problem(self.operator, self.args)


def problems(graph_module: Any, examples: Sequence[Any]) -> list[Problem]:
    """Every different call of a fused operator in a graph, with the arguments it gets."""
    found: dict[str, Problem] = {}

    class Watch(torch().fx.Interpreter):  # type: ignore[misc]
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            name = getattr(target, "__name__", "")
            if OPERATORS.get(name) is target:
                one = Problem(name, tuple(args))
                found.setdefault(one.key, one)
            return super().call_function(target, args, kwargs)

    with torch().no_grad():
        Watch(graph_module).run(*examples)
    return list(found.values())


def tune(found: Sequence[Problem], options: Options, tuning: Tuning, workers: int | None = None) -> None:
    """Answer every problem that has no answer yet.

    Args:
        found: what a graph calls.
        options: of the engine.
        tuning: answers so far; new ones are added.
        workers: processes that compile; by default one less than there are cores.
    """
    started = time.perf_counter()
    new = {one.key: one for one in found if one.key not in tuning.answers}
    searches = [_Search(one, options) for one in new.values()]
    _round([(search, search.first()) for search in searches], options, workers)
    _round([(search, search.second()) for search in searches], options, workers)
    tuning.answers |= {search.problem.key: search.answer() for search in searches}
    tuning.seconds += time.perf_counter() - started


class _Search:
    """What is known about one problem so far."""

    def __init__(self, problem: Problem, options: Options) -> None:
        self.problem = problem
        self._kernel = KERNELS[problem.operator]
        self._options = options
        self._times: dict[Config, float] = {}
        self._seen: set[Config] = set()
        self._refused: dict[str, int] = {}

    def first(self) -> list[Config]:
        """What to try; nothing where there is no choice."""
        found = self._kernel.configs(*self.problem.args)
        return found if len(found) > 1 else []

    def second(self) -> list[Config]:
        """What is like the best of the first round."""
        best = sorted((one for one in self._times if one != LIBRARY), key=self._times.__getitem__)[:_STARTS]
        near = (one for start in best for one in self._kernel.around(start, *self.problem.args))
        return [one for one in dict.fromkeys(near) if one not in self._seen]

    def look(self, configs: Sequence[Config]) -> None:
        """Time them."""
        self._seen.update(configs)
        for config in configs:
            try:
                kernel = self._kernel(config, self._options)
                calls = [(kernel, given) for given in _with_other_weights(kernel, self.problem.args)]
                self._times[config] = graph_time(calls)
            except Exception as error:  # too much shared memory, say
                torch().cuda.synchronize()
                reason = " ".join(str(error).split())[:80]
                self._refused[reason] = self._refused.get(reason, 0) + 1

    def answer(self) -> Tuned:
        """The fastest; the library where there is nothing else."""
        return _chosen(self._times, self._refused) if self._times else Tuned(LIBRARY, 0.0, 0.0, 0, self._refused)


def _round(looks: Sequence[tuple[_Search, list[Config]]], options: Options, workers: int | None) -> None:
    compile_aside([(search.problem, configs) for search, configs in looks], options, workers)
    for search, configs in looks:
        search.look(configs)


def _chosen(times: dict[Config, float], refused: dict[str, int]) -> Tuned:
    """The fastest of our kernels, or the library where it gains enough."""
    library = times.get(LIBRARY, float("inf"))
    ours = min(((taken, config) for config, taken in times.items() if config != LIBRARY), default=None)
    if ours is None or library < ours[0] * (1 - LIBRARY_MUST_GAIN):
        return Tuned(LIBRARY, round(library, 3), round(library, 3), len(times), refused)
    return Tuned(ours[1], round(ours[0], 3), round(library, 3), len(times), refused)


def graph_time(calls: Sequence[tuple[Any, tuple[Any, ...]]], repeats: int = REPEATS) -> float:
    """Microseconds of one of these calls inside a CUDA graph of all of them: the median of replays."""
    cuda = torch().cuda
    for call, args in calls:
        call(*args)
    cuda.synchronize()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        for call, args in calls:
            call(*args)
    graph.replay()
    found = []
    for _ in range(repeats):
        start, end = (cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        cuda.synchronize()
        found.append(start.elapsed_time(end) * 1000 / len(calls))
    return float(sorted(found)[len(found) // 2])


def _with_other_weights(kernel: Kernel, args: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for number in range(_WEIGHT_SETS):
        yield tuple(arg.clone() if number and place in kernel.weights else arg for place, arg in enumerate(args))


# --- compiling in other processes ---


def compile_aside(jobs: Sequence[tuple[Problem, Sequence[Config]]], options: Options, most: int | None = None) -> None:
    """Fill Triton's cache: processes, by default one less than there are cores, compile a share each.

    They call the kernels on tensors of the same shapes. A few jobs are not worth their start.
    """
    workers = most or max((os.cpu_count() or 2) - 1, 1)
    listed = [(one.operator, _described(one.args), config) for one, configs in jobs for config in configs
              if config != LIBRARY]  # fmt: skip
    if workers < 2 or len(listed) < 2 * workers:
        return
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for number in range(workers):
            share = Path(folder) / f"{number}.json"
            mine = [job for job in listed if _likeness(job) % workers == number]
            share.write_text(json.dumps([msgspec.to_builtins(options), mine]))
            command = [sys.executable, "-m", "tailorbird.backends.inductor.kernels.tuning", str(share)]
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for process in started:
            process.wait()


def _likeness(job: tuple[str, list[Any], Config]) -> int:
    """A number that is equal where the code may be: such jobs belong to one process, which compiles it once."""
    operator, _, config = job
    return zlib.crc32(json.dumps([operator, config[:4], config[-3:]]).encode())


def _described(args: tuple[Any, ...]) -> list[Any]:
    return [_layout(arg) if isinstance(arg, torch().Tensor) else arg for arg in args]


def _layout(tensor: Any) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "stride": list(tensor.stride()),
            "dtype": str(tensor.dtype).removeprefix("torch.")}  # fmt: skip


def _made(described: Any) -> Any:
    if not isinstance(described, dict):
        return described
    dtype = getattr(torch(), described["dtype"])
    return torch().empty_strided(described["shape"], described["stride"], dtype=dtype, device="cuda").zero_()


def compile_share(path: Path) -> None:
    """Call each configuration of a share once; those that cannot run are left to the timing, which says so."""
    options, jobs = json.loads(path.read_text())
    for operator, described, config in jobs:
        try:
            args = tuple(_made(one) for one in described)
            KERNELS[operator](tuple(config), Options(**options))(*args)
        except Exception:
            continue


if __name__ == "__main__":
    import_module("tailorbird.backends.inductor.kernels.tuning").compile_share(Path(sys.argv[1]))
