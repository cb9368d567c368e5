"""What runs inside each contestant's own process: open once, then take turns.

A contestant is a way to run one model: our bundle, one of our other candidates, a runtime as its
documentation shows it, or PyTorch eager. Called through ``tailorbird.backends.isolate.Worker``.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailorbird import api
from tailorbird.backends import registry
from tailorbird.builder.cases.data import load_set
from tailorbird.builder.search import measure
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.signature import Signature

Feeds = dict[str, NDArray[Any]]
Run = Callable[[Any], Any]


class Turn(msgspec.Struct, frozen=True):
    """One contestant's turn: who, on what, how often."""

    kind: str
    model: str
    inputs: str
    threads: int
    runs: int
    candidate: Candidate | None = None
    signature: Signature | None = None


class Times(msgspec.Struct, frozen=True):
    """Milliseconds of each run."""

    milliseconds: tuple[float, ...]


def take_turn(turn: Turn) -> Times:
    """``turn.runs`` timed runs on several sets of inputs in rotation, after others have settled."""
    key = msgspec.json.encode(msgspec.structs.replace(turn, runs=0))
    run, feeds = _opened(key)
    return Times(tuple(measure.take_turn(run, feeds, turn.runs)))


@cache
def _opened(key: bytes) -> tuple[Run, list[Feeds]]:
    turn = msgspec.json.decode(key, type=Turn)
    feeds = [load_set(path) for path in sorted(Path(turn.inputs).glob("*.npz"))]
    return KINDS[turn.kind](turn), feeds


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
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as our own backend does: the same library, the same work
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = turn.threads
    session = onnxruntime.InferenceSession(turn.model, options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


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
