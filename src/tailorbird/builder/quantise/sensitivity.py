"""Sensitivity: how much of the error each group of quantised layers brings, measured on calibration data.

One group at a time is left quantised and everything else kept in float; the engine's outputs are held against the
source's. Errors of groups add up nearly independently (their energies do), which is what
:mod:`tailorbird.builder.search.mixed` predicts from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from tailorbird.backends import registry
from tailorbird.builder.cases.data import load_set
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.quantise.methods import Unit
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import StepError
from tailorbird.domain.fidelity import snr_db, strange
from tailorbird.domain.signature import Signature

GROUPS = 12
WORST = 1e6
"""Stands for the error of an output that is NaN or infinite."""


class ProbeArgs(msgspec.Struct, frozen=True):
    """A partly quantised graph, how to run it, and inputs with the source's outputs."""

    candidate: Candidate
    signature: Signature
    model: str
    engine: str
    cases: tuple[Case, ...]


class Noise(msgspec.Struct, frozen=True):
    """Energy of the error over energy of the signal, by float output: the worst case's."""

    outputs: dict[str, float]


def groups_of(units: Sequence[Unit], count: int = GROUPS) -> Iterator[tuple[str, ...]]:
    """Names of units in at most ``count`` groups of neighbours, in topological order."""
    count = min(count, len(units))
    edges = [round(len(units) * number / max(count, 1)) for number in range(count + 1)]
    for start, stop in pairwise(edges):
        yield tuple(unit.name for unit in units[start:stop])


def probe(args: ProbeArgs) -> Noise:
    """Compile and run a partly quantised graph on every case."""
    backend, engine = registry.backend(args.candidate.target.runtime), Path(args.engine)
    engine.mkdir(parents=True)
    backend.compile(Path(args.model), args.candidate, engine)
    worst: dict[str, float] = {}
    with backend.open(engine, args.candidate, args.signature) as session:
        for case in args.cases:
            references, outputs = load_set(Path(case.outputs)), session.run(load_set(Path(case.inputs)))
            for name, reference in references.items():
                if reference.dtype.kind == "f":
                    worst[name] = max(worst.get(name, 0.0), _noise(reference, outputs[name]))
    if not worst:
        raise StepError("no float output to measure the error of", hint="mixed precision needs one")
    return Noise(worst)


def _noise(reference: Array, output: Array) -> float:
    if reference.shape != output.shape or strange(reference, output):
        return WORST
    return min(WORST, 10 ** (-snr_db(reference, output) / 10))
