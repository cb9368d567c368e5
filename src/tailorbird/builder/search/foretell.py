"""Foretelling: the gate on a lowered graph, run by this machine's CPU where the engine's device is elsewhere.

What it refuses no device will mend: the precision is in the graph. What it lets pass is still to be gated there.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.builder.cases.data import load_set
from tailorbird.builder.gate.judge import Case, Trial, judge
from tailorbird.builder.gate.oracle import OracleArgs, as_written, oracles
from tailorbird.domain.budget import Budget, GateReport
from tailorbird.domain.errors import BackendUnavailable
from tailorbird.domain.precision import Precision


class ForetellArgs(msgspec.Struct, frozen=True):
    """A lowered ONNX graph, and the cases to hold it against."""

    graph: OracleArgs
    cases: tuple[Case, ...]
    precision: Precision
    budget: Budget
    metric: str
    min_rows: int | None


class Foretold(msgspec.Struct, frozen=True):
    """What the gate would say if the device computed as this CPU does."""

    gate: GateReport


def foretell(args: ForetellArgs) -> Foretold:
    """Judge the graph; raises :class:`TailorbirdError` where no runtime here takes it, which says nothing about it."""
    backends = oracles()
    if not backends:
        raise BackendUnavailable("no runtime here computes a graph as it is written")
    with as_written(backends[0], args.graph) as session:
        trials = (_trial(case) for case in args.cases)
        # Which types are executed is the device's to show: here the graph's own word is taken for it.
        executed = {"as the graph says": str(args.precision)}
        return Foretold(judge(session.run, trials, args.budget, args.precision, executed, args.min_rows, args.metric))


def _trial(case: Case) -> Trial:
    labels = load_set(Path(case.labels))["labels"] if case.labels else None
    return Trial(case, load_set(Path(case.inputs)), load_set(Path(case.outputs)), labels)
