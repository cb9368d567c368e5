"""Both engines run here, in turn, and A's with one of B's settings after another: what each change costs by itself.

The way leads from A to B: A as it is, with B's threads, with B's runtime options as well, then B. Each step's cost is
measured in paired rounds, so that the steps add up to the whole; what is left for the last one, which changes the
engine's files, is split by the layers of both, profiled here under the same settings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from tailorbird.backends import registry
from tailorbird.backends.host import cpu_facts
from tailorbird.backends.isolate import Worker
from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.builder.cases.places import Place
from tailorbird.builder.cases.synthesise import synthesise
from tailorbird.builder.compare import words
from tailorbird.builder.compare.comparison import Area, Basis, Cause, LatencyChange
from tailorbird.builder.compare.latency import Context, Parts, by_layers, ranked
from tailorbird.builder.compare.rows import LEAST_NOISE, Rows
from tailorbird.builder.compare.sides import Side
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.search import steps
from tailorbird.builder.search.choose import gain_and_noise
from tailorbird.builder.search.measure import take_turn
from tailorbird.builder.workdir import workdir
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import UsageError
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.layers import Layer, LayerTable
from tailorbird.domain.manifest import Manifest

ROUNDS = 7
ROUND_SECONDS = 0.2
PROFILES = 3
"""Turns that each engine is profiled in; the quickest counts, because other programs only ever add time."""

PROFILE_SECONDS = 0.2
LEAST_RUNS, MOST_RUNS = 3, 200
LIMITS = Limits(seconds=120.0)
"""Of one call; comparing asks for seconds."""

_STEPS = steps.__name__


class Variant(msgspec.Struct, frozen=True):
    """One stop on the way from A to B: whose files, opened how, and which areas changed since the stop before."""

    engine: str
    candidate: Candidate
    areas: tuple[Area, ...]
    place: Place
    owner: int
    """0 for A, 1 for B."""


@dataclass(frozen=True)
class Counterfactuals:
    """What was measured on the way from A to B."""

    rows: Rows
    """The place, and the latencies that the builds recorded there."""
    variants: tuple[Variant, ...]
    turns: tuple[tuple[float, ...], ...]
    """Median milliseconds of each variant in each round."""
    tables: tuple[LayerTable, LayerTable] | None
    """Layers of the last two variants; None where a runtime does not tell them."""
    notes: tuple[str, ...]

    @property
    def milliseconds(self) -> tuple[float, ...]:
        """Each variant's latency, such that paired differences add up to the whole change."""
        start = float(np.median(self.turns[0]))
        costs = (-gain_and_noise(mine, before)[0] for before, mine in pairwise(self.turns))
        return (start, *(float(value) for value in start + np.cumsum(list(costs))))

    def parts(self, context: Context) -> Parts:
        """All causes: the settings as measured in turn, the rest by layers."""
        times = self.milliseconds
        settings = [self._step(number, times, context) for number in range(1, len(times) - 1)]
        rest = _without(context, {area for one in self.variants[1:-1] for area in one.areas})
        if self.tables is None:
            basis = rest.everywhere or rest.local or (Area.UNEXPLAINED,)
            text = "; ".join(words.area_words(area, rest.differences, rest.graph) for area in basis)
            last = Cause(basis, text, times[-1] - times[-2], Basis.TURNS, self._noise(len(times) - 1))
            return Parts((), ranked([*settings, last]))
        noise = max(self._noise(len(times) - 1), LEAST_NOISE * min(times))
        found = by_layers(*self.tables, (times[-2], times[-1]), rest, noise)
        return Parts(found.pairs, ranked([*settings, *found.causes], noise))

    def change(self, parts: Parts) -> LatencyChange:
        """The change as measured here."""
        times, noise = self.milliseconds, gain_and_noise(self.turns[-1], self.turns[0])[1]
        change = times[-1] - times[0]
        ends = (self._row(self.rows.a, self.turns[0]), self._row(self.rows.b, self.turns[-1]))
        return LatencyChange(*ends, self.rows.same_shapes, change, noise, abs(change) > noise, True, parts.causes)

    def _row(self, row: LatencyRow, turns: Sequence[float]) -> LatencyRow:
        return msgspec.structs.replace(row, instances=1, latency=Latency.of(turns))

    def _step(self, number: int, times: Sequence[float], context: Context) -> Cause:
        areas = self.variants[number].areas
        text = "; ".join(words.area_words(area, context.differences, None) for area in areas)
        return Cause(areas, text, times[number] - times[number - 1], Basis.TURNS, self._noise(number))

    def _noise(self, number: int) -> float:
        return gain_and_noise(self.turns[number], self.turns[number - 1])[1]


def measured(sides: tuple[Side, Side], engines: tuple[Path, Path], rows: Rows) -> Counterfactuals:
    """Run every variant in turn, then profile the last two.

    Args:
        sides: both with a manifest.
        engines: the versions' folders, already verified.
        rows: the place to measure at.

    Raises:
        BackendError, StepError: an engine does not run here.
    """
    manifests = _manifest(sides[0]), _manifest(sides[1])
    variants = tuple(_variants(manifests, engines, rows))
    with workdir() as folder, _workers(folder, len(variants)) as workers:
        args = [_args(variant, manifests[variant.owner], folder) for variant in variants]
        turns = _in_turn(args, workers)
        profiles = [[_profiled(args[number], workers[number], sides[variants[number].owner]) for number in (-2, -1)]
                    for _ in range(PROFILES)]  # fmt: skip
    tables = tuple(min(found, key=lambda one: one.latency + one.profiled) for found in zip(*profiles, strict=True))
    told = all(table.layers for table in tables)
    return Counterfactuals(rows, variants, turns, (tables[0], tables[1]) if told else None, tuple(_notes(sides, rows)))


def profile_here(args: steps.StepArgs) -> LayerTable:
    """Layers of one engine at the place named, as the runtime itself names their nodes. Runs in a worker."""
    inputs = [load_set(Path(case.inputs)) for case in args.cases]
    with registry.backend(args.candidate.target.runtime).open(Path(args.engine), args.candidate, args.signature) as one:
        latency = float(np.median(take_turn([one.run], inputs, args.runs)))
        return LayerTable(args.candidate.name, args.edge, args.runs, latency, one.profile(inputs, args.runs))


def _manifest(side: Side) -> Manifest:
    if side.manifest is None:
        raise UsageError(f"{side.path} holds no engine to measure", got=side.kind, expected="a bundle or a version")
    return side.manifest


def _variants(manifests: tuple[Manifest, Manifest], engines: tuple[Path, Path], rows: Rows) -> Iterator[Variant]:
    """A, A with more and more of B's settings, B; one instance of each."""
    a, b = (msgspec.structs.replace(manifest.candidate, instances=1) for manifest in manifests)
    here, there = (Place(row.edge, row.shapes, row.rows) for row in (rows.a, rows.b))
    yield Variant(str(engines[0]), a, (), here, 0)
    if a.threads != b.threads:
        a = msgspec.structs.replace(a, threads=b.threads)
        yield Variant(str(engines[0]), a, (Area.THREADS,), here, 0)
    if a.options != b.options and a.target.runtime == b.target.runtime:
        a = msgspec.structs.replace(a, options=b.options)
        yield Variant(str(engines[0]), a, (Area.OPTIONS,), here, 0)
    yield Variant(str(engines[1]), b, (), there, 1)


def _args(variant: Variant, manifest: Manifest, folder: Path) -> steps.StepArgs:
    """Inputs are made up: a bundle carries none. Both sides get the same where their signatures are."""
    inputs = folder / f"inputs-{variant.owner}.npz"
    if not inputs.exists():
        save_set(inputs, synthesise(manifest.signature, variant.place.shapes, {}, 0))
    case = Case(variant.place, str(inputs), "", real=False)
    return steps.StepArgs(
        candidate=variant.candidate,
        signature=manifest.signature,
        model="",
        engine=variant.engine,
        cases=(case,),
        budget=manifest.budget,
        edge=variant.place.edge,
        runs=LEAST_RUNS,
    )


@contextlib.contextmanager
def _workers(folder: Path, count: int) -> Iterator[list[Worker]]:
    with contextlib.ExitStack() as stack:
        logs = (folder / f"worker-{number}.log" for number in range(count))
        yield [stack.enter_context(Worker(LIMITS, log, scratch=folder)) for log in logs]


def _in_turn(args: Sequence[steps.StepArgs], workers: Sequence[Worker]) -> tuple[tuple[float, ...], ...]:
    """Rounds of all variants, A B A B; the first one finds the pace and counts for nothing."""
    pace = [_turn(one, worker, LEAST_RUNS) for one, worker in zip(args, workers, strict=True)]
    counts = [_count(one, ROUND_SECONDS) for one in pace]
    rounds = [[_turn(*one) for one in zip(args, workers, counts, strict=True)] for _ in range(ROUNDS)]
    return tuple(tuple(turns) for turns in zip(*rounds, strict=True))


def _turn(args: steps.StepArgs, worker: Worker, runs: int) -> float:
    asked = msgspec.structs.replace(args, runs=runs)
    return float(np.median(worker.call(f"{_STEPS}:sample_engine", asked, steps.Samples).milliseconds))


def _count(milliseconds: float, seconds: float) -> int:
    return max(LEAST_RUNS, min(MOST_RUNS, int(seconds * 1e3 / max(milliseconds, 1e-3))))


def _profiled(args: steps.StepArgs, worker: Worker, side: Side) -> LayerTable:
    pace = _turn(args, worker, LEAST_RUNS)
    asked = msgspec.structs.replace(args, runs=_count(pace, PROFILE_SECONDS))
    table = worker.call(f"{__name__}:profile_here", asked, LayerTable)
    layers = tuple(_with_nodes(layer, _recorded(side), _known(side)) for layer in table.layers)
    return msgspec.structs.replace(table, layers=layers)


def _recorded(side: Side) -> Mapping[str, tuple[str, ...]]:
    """Nodes by layer, as the build attributed them with the graph at hand."""
    return {layer.name: layer.nodes for layer in side.layers.layers} if side.layers else {}


def _known(side: Side) -> frozenset[str] | None:
    return frozenset(node.name for node in side.outline.nodes) if side.outline else None


def _with_nodes(layer: Layer, recorded: Mapping[str, tuple[str, ...]], known: frozenset[str] | None) -> Layer:
    own = tuple(name for name in layer.nodes if known is None or name in known)
    return msgspec.structs.replace(layer, nodes=recorded.get(layer.name, own))


def _notes(sides: tuple[Side, Side], rows: Rows) -> Iterator[str]:
    was, now = rows.a.latency.median, rows.b.latency.median
    yield f"measured here on made-up inputs; the builds recorded {words.ms(was)} -> {words.ms(now)} ms"
    for name, side in zip("AB", sides, strict=True):
        if side.manifest and _is_elsewhere(side.manifest):
            yield f"{name} was built on another machine: what that changes does not show in what is measured here"


def _is_elsewhere(manifest: Manifest) -> bool:
    return any(manifest.provenance.device.get(name) not in (None, cpu_facts()[name]) for name in ("cpu", "cores"))


def _without(context: Context, areas: set[Area]) -> Context:
    """What differs between the last two variants: both run here, on one device and one version of each runtime."""
    gone = areas | {Area.DEVICE, Area.VERSION, Area.INSTANCES}
    left = tuple(one for one in context.differences if one.area not in gone)
    return Context(left, context.graph, context.same_shapes)
