"""What runs inside each contestant's own process: open once, answer for the gate's numbers, then take turns.

A contestant is a way to run one model: our bundle, one of our other candidates, a runtime as its
documentation shows it, or PyTorch eager. Called through ``tailorbird.backends.isolate.Worker``.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird import api
from tailorbird.backends import registry
from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.builder.gate.fidelity import at_least, compare, winners
from tailorbird.builder.search import measure
from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.signature import Signature

Feeds = dict[str, NDArray[Any]]
Run = Callable[[Any], Any]

TIMED_SETS = 4
"""Sets of inputs that are timed, in rotation: the first of the folder."""


class Turn(msgspec.Struct, frozen=True):
    """One contestant's turn: who, on what, how often."""

    kind: str
    model: str
    inputs: str
    threads: int
    runs: int = 0
    candidate: Candidate | None = None
    signature: Signature | None = None


class Times(msgspec.Struct, frozen=True):
    """Milliseconds of each run."""

    milliseconds: tuple[float, ...]


class Hearing(msgspec.Struct, frozen=True):
    """A contestant, the folder that holds FP32's answers to its inputs, and the budget to hold it to."""

    turn: Turn
    references: str
    budget: Budget = Budget()


class Answering(msgspec.Struct, frozen=True):
    """Sets of inputs to answer, and the folder that receives the answers under the same names."""

    model: str
    inputs: str
    outputs: str
    threads: int


class Answered(msgspec.Struct, frozen=True):
    """How many sets were answered."""

    sets: int


def take_turn(turn: Turn) -> Times:
    """``turn.runs`` timed runs on several sets of inputs in rotation, after others have settled."""
    feeds = [load_set(path) for path in _sets(turn.inputs)[:TIMED_SETS]]
    return Times(tuple(measure.take_turn([_run(turn)], feeds, turn.runs)))


def judge(hearing: Hearing) -> GateReport:
    """The gate's numbers of form and fidelity for every set of the folder: what our own engines are held to."""
    run, checks = _run(hearing.turn), []
    equal: dict[str, list[int]] = {}
    for path in _sets(hearing.turn.inputs):
        references = load_set(Path(hearing.references) / path.name)
        outputs = named(tuple(references), run(load_set(path)))
        checks += list(compare(references, outputs, hearing.budget, f"set {path.stem}"))
        for name, same, rows in winners(references, outputs):
            known = equal.setdefault(name, [0, 0])
            known[:] = known[0] + same, known[1] + rows
    checks += [_top1(name, same, rows, hearing.budget) for name, (same, rows) in equal.items()]
    return GateReport(tuple(checks))


def answer(args: Answering) -> Answered:
    """FP32's own answers: ONNX Runtime on the graph as written, nothing optimised."""
    session = _ort_session(args.model, args.threads, optimised=False)
    names = [output.name for output in session.get_outputs()]
    for path in _sets(args.inputs):
        save_set(Path(args.outputs) / path.name, named(tuple(names), session.run(names, load_set(path))))
    return Answered(len(_sets(args.inputs)))


def named(names: tuple[str, ...], answered: Any) -> Feeds:
    """Outputs by name, in the model's order, whatever a runtime returns: a mapping, a list, or one tensor."""
    if isinstance(answered, Mapping):
        values = list(answered.values())
    else:
        values = list(answered) if isinstance(answered, list | tuple) else [answered]
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}


def _top1(name: str, same: int, rows: int, budget: Budget) -> Check:
    return at_least("top1", f"all sets, {name}", same / rows, budget.top1)


def _sets(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*.npz"))


def _run(turn: Turn) -> Run:
    return _opened(msgspec.json.encode(msgspec.structs.replace(turn, runs=0)))


@cache
def _opened(key: bytes) -> Run:
    turn = msgspec.json.decode(key, type=Turn)
    return KINDS[turn.kind](turn)


def _bundle(turn: Turn) -> Run:
    return api.open(turn.model).run


def _candidate(turn: Turn) -> Run:
    """One of our other candidates, compiled anew, to see whether the choice was right."""
    assert turn.candidate is not None
    assert turn.signature is not None
    folder = Path(tempfile.mkdtemp(dir=Path(turn.inputs).parent))
    backend = registry.backend(turn.candidate.target.runtime)
    backend.compile(Path(turn.model), turn.candidate, folder)
    return backend.open(folder, turn.candidate, turn.signature).run


def _onnxruntime(turn: Turn) -> Run:
    session = _ort_session(turn.model, turn.threads)
    return lambda feeds: session.run(None, feeds)


def _ort_session(model: str, threads: int, optimised: bool = True) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as our own backend does: the same library, the same work
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _openvino(turn: Turn) -> Run:
    import openvino

    core = openvino.Core()
    return cast(Run, core.compile_model(turn.model, "CPU", {"INFERENCE_NUM_THREADS": turn.threads}))


def _torch(turn: Turn) -> Run:
    torch = importlib.import_module("torch")
    torch.set_num_threads(turn.threads)
    module_name, _, name = turn.model.partition(":")
    program, _ = getattr(importlib.import_module(module_name), name)()

    def run(feeds: Feeds) -> Any:
        with torch.inference_mode():
            return program(**{key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in feeds.items()})

    return run


KINDS: dict[str, Callable[[Turn], Run]] = {
    "ours": _bundle,
    "candidate": _candidate,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch,
}
