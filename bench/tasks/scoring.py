"""What a contestant is worth: its outputs on labelled inputs, held against the labels. Runs in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from bench.contestants import KINDS, Turn
from bench.tasks import LABELS, Array, top1
from tailorbird.builder.cases.data import load_set

Metric = Callable[[Mapping[str, Array], Array], float]


class Args(msgspec.Struct, frozen=True):
    """Who is scored, by which metric, against the labels in which folder."""

    turn: Turn
    metric: str
    labels: str
    """Folder of ``.npz`` files, named as those in the turn's folder of inputs."""


class Score(msgspec.Struct, frozen=True):
    """Mean over all rows, and how many they are."""

    score: float
    rows: int


def score(args: Args) -> Score:
    """Run the contestant once on every set of inputs, and score what it says.

    Sample by sample, weighed by rows, since a recogniser's outputs for a whole split would not fit in memory: this
    equals the metric of the whole only where that is a mean over rows, as those of the tasks are.
    """
    run, metric = KINDS[args.turn.kind](args.turn), resolve(args.metric)
    total, rows = 0.0, 0
    for path in sorted(Path(args.turn.inputs).glob("*.npz")):
        labels = load_set(Path(args.labels, path.name))[LABELS]
        total += metric(named(run(load_set(path))), labels) * len(labels)
        rows += len(labels)
    return Score(total / rows, rows)


def resolve(metric: str) -> Metric:
    """``top1`` or ``module:callable`` as a function."""
    if metric == "top1":
        return top1
    module, _, name = metric.partition(":")
    found: Metric = getattr(import_module(module), name)
    return found


def named(outputs: Any) -> dict[str, Array]:
    """Outputs by position, whatever the runtime gave them as: a list, or a mapping by its own names."""
    arrays = outputs.values() if isinstance(outputs, Mapping) else outputs
    return {str(number): array for number, array in enumerate(arrays)}
