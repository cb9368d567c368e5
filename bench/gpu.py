"""BERT-base and ResNet-50 on an NVIDIA GPU: PyTorch's ways of running them against our passes and kernels.

One call counts operations and bytes, builds every engine, holds each against the gate, times it with device events and
the host's clock, and leaves out one lever at a time. ``python -m bench.gpu --output DIR`` writes ``gpu.json`` there
(after every row, so that a run cut short keeps what it has) and ``gpu.md``, the page's tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("CXX", "/usr/bin/g++")  # another compiler's output crashed on loading: facts of this benchmark
os.environ.setdefault("CC", "/usr/bin/gcc")

BATCHES = (1, 8, 32)
STEP_NAMES = ("table", "packages", "served", "streams", "levers", "profile")


ASIDE_SECONDS = 120
"""How long work beside is waited for, once all else that it may go beside is done."""


class Bench:
    """One run: rows so far, and where they are written."""

    def __init__(self, options: argparse.Namespace) -> None:
        import msgspec

        from bench.gpu_parts.ways import Context
        from tailorbird.backends.inductor.kernels.tuning import Tuning

        self.options = options
        self.output = Path(options.output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.scratch = Path(options.scratch)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.facts = facts()
        known = Path(options.known) if options.known else None
        tuning = msgspec.json.decode(known.read_bytes(), type=Tuning) if known else Tuning(self.facts["device"])
        self.context = Context(self.scratch, tuning)

    def left(self) -> float:
        """Seconds until the run should end."""
        return float(self.options.seconds) - (time.monotonic() - self.started)

    def write(self) -> None:
        """Everything known so far."""
        import msgspec

        from bench.gpu_parts.page import tables

        record = {"facts": self.facts, "rows": self.rows}
        (self.output / "gpu.json").write_text(json.dumps(record, indent=1))
        (self.output / "gpu.md").write_text(tables(record))
        (self.output / "tuned.json").write_bytes(msgspec.json.encode(self.context.tuning))

    def say(self, *words: object) -> None:
        """A line of progress."""
        print(f"[{time.monotonic() - self.started:6.1f} s]", *words, flush=True)

    def wants(self, way: Any) -> bool:
        """Whether this way was asked for."""
        return not self.options.ways or any(word in way.name for word in self.options.ways)

    def way(self, model: Any, way: Any, batches: Sequence[int], kind: str) -> None:
        """Make, judge and time one way at these batches."""
        from bench.gpu_parts.gate import verdict

        made: dict[int, Any] = {}
        rows = []
        for batch in batches:
            if self.left() < 10:
                break
            row = {"kind": kind, "model": model.name, "way": way.name, "precision": str(way.precision), "batch": batch}
            try:
                made[batch], numbers = self._timed(model, way, batch)
                row |= numbers
            except Exception as error:
                traceback.print_exc()
                row["error"] = " ".join(str(error).split())[:300]
            rows.append(row)
        gate = verdict(model, made, way.precision) if made else {}
        self.rows += [{**row, "gate": gate} for row in rows]
        self._tell(rows, gate)
        self.write()

    def _timed(self, model: Any, way: Any, batch: int) -> tuple[Any, dict[str, Any]]:
        from bench.gpu_parts.timing import Runner, kernels_of, measured

        began = time.monotonic()
        sets = [list(one.values()) for one in model.sets(batch)]
        runner = Runner(way.make(model, batch, self.context), sets[0], way.graph)
        row: dict[str, Any] = {"made_s": round(time.monotonic() - began, 1)}
        row |= measured(runner, sets, self.options.runs)
        if "profile" in self.options.steps and way.name == "our kernels FP16":
            row["kernels"] = kernels_of(runner)
        return runner, row

    def _tell(self, rows: Sequence[dict[str, Any]], gate: dict[str, Any]) -> None:
        for row in rows:
            times = [row.get(name, "") for name in ("device_ms", "host_ms", "error", "made_s")]
            self.say(row["model"], row["way"], f"b{row['batch']}", *times)
            for kernel in row.get("kernels", ()):
                print("        ", kernel)
        self.say("   gate", gate.get("passed"), gate.get("least"), gate.get("failed"))


def facts() -> dict[str, Any]:
    """The machine and its software."""
    import torch
    import transformers

    from bench.gpu_parts.timing import ceilings

    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": version("triton"),
            "transformers": transformers.__version__, "date": time.strftime("%Y-%m-%d"), **ceilings()}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = _options(arguments)
    if options.aside:
        return _aside(options)
    bench = Bench(options)
    bench.say(bench.facts)
    _settle()
    from bench.gpu_parts.models import MODELS

    models = {name: MODELS[name]() for name in options.models}
    found = {name: _tune(bench, name, model) for name, model in models.items()}
    bench.write()
    aside = _start_aside(bench)
    for problems in found.values():
        _warm(bench, problems)
    ends = _finish_aside(bench, aside)
    for step, run in STEPS.items():
        for name, model in models.items():
            if step in options.steps:
                run(bench, name, model, ends)
    bench.write()
    print((bench.output / "gpu.md").read_text())
    return 0


def _served(bench: Bench, name: str, _: Any, __: dict[str, int]) -> None:
    if name != "bert":
        return
    from bench.gpu_parts.served import served

    print((bench.scratch / "build.log").read_text()[-3000:])
    try:
        for row in served(bench.scratch, bench.say):
            bench.rows.append(row)
    except Exception:
        traceback.print_exc()
    bench.write()


def _settle() -> None:
    """FP32 is FP32, and cuDNN looks for its best kernel."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)


def _tune(bench: Bench, name: str, model: Any) -> list[Any]:
    """Answer the problems of all batches at once, so that their kernels are compiled side by side."""
    from tailorbird.backends.inductor.kernels.engine import prepare
    from tailorbird.backends.inductor.kernels.launching import Options
    from tailorbird.backends.inductor.kernels.tuning import problems, tune
    from tailorbird.backends.inductor.restructure import restructured
    from tailorbird.domain.precision import Precision

    found = []
    for options in (Options(), Options(eight_bits=True))[: 2 if name == "bert" else 1]:
        for batch in bench.options.batches:
            examples = list(model.inputs(batch, 0).values())
            graph = prepare(restructured(model.program, "cuda", Precision.FP16, examples), options)
            bench.say(model.name, f"b{batch}", {name: count for name, count in graph.meta["matches"].items() if count})
            found += problems(graph, [one.cuda() for one in examples])
    tune(found, Options(), bench.context.tuning)
    bench.say(f"{len(found)} problems tuned, {bench.context.tuning.seconds:.0f} s in all")
    for one in {one.key: one for one in found}.values():
        answer = bench.context.tuning.answers[one.key]
        print(
            "    ", one.key, answer.config, answer.microseconds, "library", answer.library, answer.tried, answer.refused
        )
    return found


def _warm(bench: Bench, found: Sequence[Any]) -> None:
    """Compile what the ways to come will launch, side by side: the answers, in both types and all kinds of overlap."""
    import torch

    from bench.gpu_parts.levers import OVERLAPS
    from tailorbird.backends.inductor.kernels.launching import Options, is_half
    from tailorbird.backends.inductor.kernels.tuning import Problem, compile_aside

    def cast(arg: Any) -> Any:
        return arg.to(torch.bfloat16) if isinstance(arg, torch.Tensor) and is_half(arg) else arg

    answers = [(one, [bench.context.tuning.answers[one.key].config]) for one in found]
    other = [(Problem(one.operator, tuple(map(cast, one.args))), configs) for one, configs in answers]
    jobs = [(answers, Options()), (other, Options())]
    jobs += [(answers, Options(overlap=overlap)) for overlap in OVERLAPS if "levers" in bench.options.steps]
    for problems, options in jobs:
        compile_aside(problems, options)
    bench.say("warm")


def _table(bench: Bench, name: str, model: Any, _: dict[str, int]) -> None:
    from bench.gpu_parts.levers import EIGHT, TABLE
    from bench.gpu_parts.timing import floor

    for batch in bench.options.batches:
        row = {"kind": "floor", "model": model.name, "batch": batch, **floor(model, batch, bench.facts)}
        bench.rows.append(row)
        bench.say(row)
    for way in (*TABLE, EIGHT) if name == "bert" else TABLE:
        slow = "torch.compile" in way.name and name not in bench.options.compilers
        if not slow and bench.wants(way):
            bench.way(model, way, bench.options.batches, "table")


def _levers(bench: Bench, name: str, model: Any, _: dict[str, int]) -> None:
    from bench.gpu_parts.levers import LEVERS

    for way in filter(bench.wants, LEVERS[name]):
        bench.way(model, way, bench.options.lever_batches, "lever")


def _streams(bench: Bench, _name: str, model: Any, _ends: dict[str, int]) -> None:
    """Rows a second of engines for eight rows, one after another or side by side on streams of their own."""
    import torch

    from bench.gpu_parts.levers import FP16
    from bench.gpu_parts.timing import Runner
    from bench.gpu_parts.ways import own

    batch = 8
    given = [list(one.values()) for one in model.sets(batch)]
    runners = [Runner(own(FP16)(model, batch, bench.context), given[0], True) for _ in range(4)]
    for count in (1, 2, 4):
        streams = [torch.cuda.Stream() for _ in range(count)]
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(200):
            for stream, runner in zip(streams, runners, strict=False):
                with torch.cuda.stream(stream):
                    runner.run()
        torch.cuda.synchronize()
        rate = round(200 * count * batch / (time.perf_counter() - began))
        bench.rows.append(
            {"kind": "streams", "model": model.name, "batch": batch, "streams": count, "rows_per_s": rate}
        )
        bench.say(bench.rows[-1])
    bench.write()


def _start_aside(bench: Bench) -> dict[str, Any]:
    """What takes a minute or more and times nothing runs side by side, before anything is timed.

    AOTInductor leaves packages, ``torch.compile`` fills its cache on disk, a build leaves the bundle to serve.
    """
    from bench.gpu_parts.served import start_build

    started: dict[str, Any] = {}
    if "served" in bench.options.steps:
        started["served"] = start_build(bench.scratch, str(bench.output / "tuned.json"))
    kinds = ["plain", "restructured", *(f"compile-{batch}" for batch in bench.options.batches)]
    for name in bench.options.compilers if "packages" in bench.options.steps else ():
        for kind in kinds:
            key = f"{name}-{kind}"
            command = [sys.executable, "-m", "bench.gpu", "--aside", name, kind, str(bench.scratch / f"{key}.pt2")]
            with (bench.scratch / f"{key}.log").open("w") as log:
                started[key] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    return started


def _finish_aside(bench: Bench, started: dict[str, Any]) -> dict[str, int]:
    deadline = time.monotonic() + ASIDE_SECONDS
    ends = {key: _end(process, deadline) for key, process in started.items()}
    bench.say("compiled aside", ends)
    for key in (key for key, end in ends.items() if end and key != "served"):
        print((bench.scratch / f"{key}.log").read_text()[-1500:])
    return ends


def _end(process: Any, deadline: float) -> int:
    try:
        return int(process.wait(max(deadline - time.monotonic(), 1)))
    except subprocess.TimeoutExpired:
        process.kill()
        return int(process.wait())


def _aside(options: argparse.Namespace) -> int:
    from bench.gpu_parts.levers import FP16
    from bench.gpu_parts.models import MODELS
    from bench.gpu_parts.timing import Runner
    from bench.gpu_parts.ways import Context, compiled, package
    from tailorbird.backends.inductor.kernels.tuning import Tuning

    name, kind, path = options.aside
    _settle()
    model = MODELS[name]()
    if not kind.startswith("compile"):
        package(model, 8, kind == "restructured", Path(path))
        return 0
    batch = int(kind.partition("-")[2])
    example = list(model.inputs(batch, 0).values())
    Runner(compiled("reduce-overhead", FP16)(model, batch, Context(Path(path), Tuning(""))), example, graph=False)
    return 0


def _packages(bench: Bench, name: str, model: Any, ends: dict[str, int]) -> None:
    from bench.gpu_parts.levers import FP16
    from bench.gpu_parts.ways import Way, packaged

    for restructure, words in ((False, "AOTInductor"), (True, "AOTInductor after our passes")):
        key = f"{name}-{'restructured' if restructure else 'plain'}"
        if ends.get(key) == 0:
            make = packaged(bench.scratch / f"{key}.pt2")
            bench.way(model, Way(words, FP16, True, make), (8,), "table")


STEPS: dict[str, Callable[[Bench, str, Any, dict[str, int]], None]] = {
    "table": _table,
    "packages": _packages,
    "served": _served,
    "streams": _streams,
    "levers": _levers,
}
"""What is measured, in order; each goes through all models."""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gpu", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output", default="bench-output/gpu", help="folder for gpu.json, gpu.md and tuned.json")
    parser.add_argument("--scratch", default="/tmp/tailorbird-gpu", help="folder for engines")
    parser.add_argument("--models", nargs="+", default=["bert", "resnet"], choices=["bert", "resnet"])
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--compilers", nargs="*", default=["bert", "resnet"], help="models for other compilers, too")
    parser.add_argument("--lever-batches", nargs="+", type=int, default=(1, 32))
    parser.add_argument("--steps", nargs="+", default=STEP_NAMES, choices=STEP_NAMES)
    parser.add_argument("--ways", nargs="+", help="only ways whose names hold one of these words")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--known", help="tuned.json of an earlier run on the same kind of GPU")
    parser.add_argument("--seconds", type=float, default=3600, help="leave out what would start after this long")
    parser.add_argument("--aside", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
