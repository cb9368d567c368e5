"""What happens to one candidate, inside its own process: compile, look, gate, measure, sample, profile.

Each function takes and returns one struct, so that it can be called through
:class:`tailorbird.backends.isolate.Worker`. An engine opened by one call stays open for the next.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tailorbird.backends import registry
from tailorbird.backends.base import Session
from tailorbird.builder.cases.data import load_set
from tailorbird.builder.gate.judge import Case, Trial, judge, reference_scores
from tailorbird.builder.search.attribution import attributed
from tailorbird.builder.search.measure import Run, look, measure, median, row_of, take_turn
from tailorbird.domain.budget import Budget, GateReport
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.layers import LayerTable
from tailorbird.domain.signature import Signature, Tensors

TIMED_SETS = 8
"""Sets of inputs that runs are timed on, in rotation."""

PROFILE_SECONDS = 0.4
"""About how long an engine is timed, and then profiled."""
LEAST_PROFILED, MOST_PROFILED = 5, 50


class StepArgs(msgspec.Struct, frozen=True):
    """A candidate, the graph to compile, its engine's directory, and the cases to hold it against."""

    candidate: Candidate
    signature: Signature
    model: str
    engine: str
    cases: tuple[Case, ...]
    budget: Budget
    metric: str = ""
    edge: str = "opt"
    """The place of a look or a turn."""
    runs: int = 0


class Compiled(msgspec.Struct, frozen=True):
    """What compiling and opening took, and the size of what came out."""

    seconds: float
    engine_bytes: int


class Samples(msgspec.Struct, frozen=True):
    """Milliseconds of single runs at one place."""

    milliseconds: tuple[float, ...]


class Scores(msgspec.Struct, frozen=True):
    """A metric's score by place."""

    scores: dict[str, float]


class Judged(msgspec.Struct, frozen=True):
    """The gate's report and the layers by executed precision."""

    gate: GateReport
    executed: dict[str, int]


class Measured(msgspec.Struct, frozen=True):
    """One row for each place."""

    rows: tuple[LatencyRow, ...]


def compile_engine(args: StepArgs) -> Compiled:
    """Compile into the engine's directory and open the result."""
    start = time.perf_counter()
    built = only_compile(args)
    _session(args)
    return Compiled(round(time.perf_counter() - start, 3), built.engine_bytes)


def only_compile(args: StepArgs) -> Compiled:
    """Compile into the engine's directory; what came out may be for another device."""
    start = time.perf_counter()
    engine = Path(args.engine)
    engine.mkdir(parents=True)
    registry.backend(args.candidate.target.runtime).compile(Path(args.model), args.candidate, engine)
    size = sum(file.stat().st_size for file in engine.iterdir())
    return Compiled(round(time.perf_counter() - start, 3), size)


def first_look(args: StepArgs) -> Samples:
    """A few warm runs at the place named."""
    return Samples(tuple(look(_runs(args), _inputs_at(args, args.edge))))


def score_source(args: StepArgs) -> Scores:
    """The source's own score at every place; raises when its FP32 outputs cannot be scored at all."""
    return Scores(reference_scores(args.metric, (_trial(case) for case in args.cases), _min_rows(args)))


def gate_engine(args: StepArgs) -> Judged:
    """Run every check of the gate on this very engine."""
    session = _session(args)
    trials = (_trial(case) for case in args.cases)  # one at a time: labelled data is large
    executed = session.executed_precision()
    report = judge(
        session.run, trials, args.budget, args.candidate.precision, executed, _min_rows(args), metric=args.metric
    )
    return Judged(report, dict(Counter(executed.values())))


def measure_engine(args: StepArgs) -> Measured:
    """Measure every place of the cases, with as many instances side by side as the candidate says."""
    runs, places = _runs(args), {case.place.edge: case.place for case in args.cases}
    rows = [
        row_of(place, len(runs), measure(runs, _inputs_at(args, edge))) for edge, place in places.items()
    ]  # fmt: skip
    return Measured(tuple(rows))


def sample_engine(args: StepArgs) -> Samples:
    """``args.runs`` runs of each instance at the place named: this engine's turn in a round."""
    return Samples(tuple(take_turn(_runs(args), _inputs_at(args, args.edge), args.runs)))


def profile_engine(args: StepArgs) -> LayerTable:
    """Layers of one instance at the place named, with the nodes of the graph ``args.model`` that each stands for.

    Where no model is named, as where the engine came without it, layers stand for no node.
    """
    inputs, session = _inputs_at(args, args.edge), _session(args)
    latency = median(measure([session.run], inputs, PROFILE_SECONDS))
    runs = max(LEAST_PROFILED, min(MOST_PROFILED, int(PROFILE_SECONDS * 1e3 / max(latency, 1e-3))))
    layers = session.profile(inputs, runs)
    nodes = _nodes(args.model) if args.model else ()
    return LayerTable(args.candidate.name, args.edge, runs, round(latency, 6), attributed(layers, nodes))


def _nodes(model: str) -> Sequence[Any]:
    import onnx  # here, so that what was built elsewhere is qualified where there is none

    return tuple(onnx.load(model, load_external_data=False).graph.node)


def _trial(case: Case) -> Trial:
    labels = load_set(Path(case.labels))["labels"] if case.labels else None
    return Trial(case, load_set(Path(case.inputs)), load_set(Path(case.outputs)), labels)


def _session(args: StepArgs, number: int = 0) -> Session:
    return _opened(number, args.engine, msgspec.json.encode(args.candidate), msgspec.json.encode(args.signature))


def _runs(args: StepArgs) -> list[Run]:
    return [_session(args, number).run for number in range(args.candidate.instances)]


@cache
def _opened(_: int, engine: str, candidate: bytes, signature: bytes) -> Session:
    chosen = msgspec.json.decode(candidate, type=Candidate)
    backend = registry.backend(chosen.target.runtime)
    return backend.open(Path(engine), chosen, msgspec.json.decode(signature, type=Signature))


def _inputs_at(args: StepArgs, edge: str) -> list[Tensors]:
    cases = [case for case in args.cases if case.place.edge == edge]
    return [_loaded(case.inputs) for case in cases[:TIMED_SETS]]


@cache
def _loaded(path: str) -> Tensors:
    return {name: np.ascontiguousarray(array) for name, array in load_set(Path(path)).items()}


def _min_rows(args: StepArgs) -> int | None:
    batch = args.signature.batch_dim
    return args.signature.bind(args.candidate.profile.min)[batch] if batch else None
