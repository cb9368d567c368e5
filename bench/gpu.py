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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("CXX", "/usr/bin/g++")  # another compiler's output crashed on loading: facts of this benchmark
os.environ.setdefault("CC", "/usr/bin/gcc")

BATCHES = (1, 8, 32)
STEPS = ("table", "packages", "levers", "streams", "profile")


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

    def way(self, model: Any, way: Any, batches: Sequence[int], kind: str) -> None:
        """Make, judge and time one way at these batches."""
        from bench.gpu_parts.gate import verdict
        from bench.gpu_parts.timing import Runner, kernels_of, measured

        made: dict[int, Runner] = {}
        rows = []
        for batch in batches:
            if self.left() < 10:
                return
            began = time.monotonic()
            row = {"kind": kind, "model": model.name, "way": way.name, "precision": str(way.precision), "batch": batch}
            try:
                sets = [list(one.values()) for one in model.sets(batch)]
                runner = Runner(way.make(model, batch, self.context), sets[0], way.graph)
                row["made_s"] = round(time.monotonic() - began, 1)
                row |= measured(runner, sets, self.options.runs)
                if "profile" in self.options.steps and way.name.startswith("our kernels"):
                    row["kernels"] = kernels_of(runner)
                made[batch] = runner
            except Exception as error:
                traceback.print_exc()
                row["error"] = " ".join(str(error).split())[:300]
            rows.append(row)
        if made:
            gate = verdict(model, made, way.precision)
            for row in rows:
                row["gate"] = gate
        for row in rows:
            self.say(row["model"], row["way"], f"b{row['batch']}", row.get("device_ms"), row.get("host_ms"),
                     row.get("error", ""), row.get("made_s"))  # fmt: skip
            for kernel in row.get("kernels", ()):
                print("        ", kernel)
        self.say("   gate", made and gate["passed"], made and gate["least"], made and gate["failed"])
        self.rows += rows
        self.write()


def facts() -> dict[str, Any]:
    """The machine and its software."""
    import torch
    import transformers
    import triton

    from bench.gpu_parts.timing import ceilings

    return {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "triton": triton.__version__,
            "transformers": transformers.__version__, "date": time.strftime("%Y-%m-%d"), **ceilings()}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = _options(arguments)
    if options.package:
        return _package(options)
    bench = Bench(options)
    bench.say(bench.facts)
    _settle()
    aside = _start_packages(bench) if "packages" in options.steps else {}
    from bench.gpu_parts.models import MODELS

    for name in options.models:
        model = MODELS[name]()
        bench.say(model.name, "exported")
        _precompile(bench, model)
        _table(bench, model)
        if "packages" in options.steps:
            _packages(bench, name, model, aside)
        if "levers" in options.steps:
            _levers(bench, name, model)
        if "streams" in options.steps:
            _streams(bench, model)
        del model
    bench.write()
    print((bench.output / "gpu.md").read_text())
    return 0


def _settle() -> None:
    """FP32 is FP32, and cuDNN looks for its best kernel."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)


def _precompile(bench: Bench, model: Any) -> None:
    """Collect the problems of all batches first, so that their kernels are compiled side by side."""
    from tailorbird.backends.inductor.kernels.fuse import fused
    from tailorbird.backends.inductor.kernels.launching import Options
    from tailorbird.backends.inductor.kernels.tuning import problems, tune
    from tailorbird.backends.inductor.restructure import restructured
    from tailorbird.domain.precision import Precision

    found = []
    for batch in bench.options.batches:
        examples = list(model.inputs(batch, 0).values())
        graph = fused(restructured(model.program, "cuda", Precision.FP16, examples))
        bench.say(model.name, f"b{batch}", {name: count for name, count in graph.meta["matches"].items() if count})
        found += problems(graph, [one.cuda() for one in examples])
    tune(found, Options(), bench.context.tuning)
    bench.say(f"{len(found)} problems tuned, {bench.context.tuning.seconds:.0f} s in all")
    for one in found:
        answer = bench.context.tuning.answers[one.key]
        print(
            "    ", one.key, answer.config, answer.microseconds, "library", answer.library, answer.tried, answer.refused
        )
    bench.write()


def _table(bench: Bench, model: Any) -> None:
    from bench.gpu_parts.levers import TABLE
    from bench.gpu_parts.timing import floor

    for batch in bench.options.batches:
        row = {"kind": "floor", "model": model.name, "batch": batch, **floor(model, batch, bench.facts)}
        bench.rows.append(row)
        bench.say(row)
    if "table" in bench.options.steps:
        for way in TABLE:
            if not bench.options.ways or any(word in way.name for word in bench.options.ways):
                bench.way(model, way, bench.options.batches, "table")


def _levers(bench: Bench, name: str, model: Any) -> None:
    from bench.gpu_parts.levers import LEVERS

    for way in LEVERS[name]:
        bench.way(model, way, bench.options.batches, "lever")


def _streams(bench: Bench, model: Any) -> None:
    """Rows a second of engines for eight rows, one after another or side by side on streams of their own."""
    import torch

    from bench.gpu_parts.levers import FP16, own
    from bench.gpu_parts.timing import Runner

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
        rate = 200 * count * batch / (time.perf_counter() - began)
        bench.rows.append({"kind": "streams", "model": model.name, "batch": batch, "streams": count,
                           "rows_per_s": round(rate)})  # fmt: skip
        bench.say(bench.rows[-1])
    bench.write()


def _start_packages(bench: Bench) -> dict[str, Any]:
    """AOTInductor takes a minute or two for each: all are made side by side, before anything is timed."""
    started = {}
    for name in bench.options.models:
        for restructure in (False, True):
            key = f"{name}-{int(restructure)}"
            path = bench.scratch / f"{key}.pt2"
            command = [sys.executable, "-m", "bench.gpu", "--package", name, str(int(restructure)), str(path)]
            log = (bench.output / f"package-{key}.log").open("w")
            started[key] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    for process in started.values():
        process.wait()
    bench.say("packages made", {key: process.returncode for key, process in started.items()})
    return started


def _package(options: argparse.Namespace) -> int:
    from bench.gpu_parts.models import MODELS
    from bench.gpu_parts.ways import package

    name, restructure, path = options.package
    package(MODELS[name](), 8, restructure == "1", Path(path))
    return 0


def _packages(bench: Bench, name: str, model: Any, aside: dict[str, Any]) -> None:
    from bench.gpu_parts.levers import FP16
    from bench.gpu_parts.ways import Way, packaged

    for restructure, words in ((False, "AOTInductor"), (True, "AOTInductor after our passes")):
        if aside[f"{name}-{int(restructure)}"].returncode == 0:
            make = packaged(bench.scratch / f"{name}-{int(restructure)}.pt2")
            bench.way(model, Way(words, FP16, True, make), (8,), "table")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gpu", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output", default="bench-output/gpu", help="folder for gpu.json, gpu.md and tuned.json")
    parser.add_argument("--scratch", default="/tmp/tailorbird-gpu", help="folder for engines")
    parser.add_argument("--models", nargs="+", default=["bert", "resnet"], choices=["bert", "resnet"])
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--steps", nargs="+", default=STEPS, choices=STEPS)
    parser.add_argument("--ways", nargs="+", help="only ways of the table whose names hold one of these words")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--known", help="tuned.json of an earlier run on the same kind of GPU")
    parser.add_argument("--seconds", type=float, default=3600, help="leave out what would start after this long")
    parser.add_argument("--package", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
