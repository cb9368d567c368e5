"""Scoring: the engine's metric against FP32's, on the same labelled rows of one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tailorbird.builder.gate.metrics import score
from tailorbird.domain.budget import METRIC, Budget, Check
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import InputError, TailorbirdError
from tailorbird.domain.signature import Tensors

_ROUNDING = 1e-9
"""Of a score: 98.1 - 0.1 is a little more than 98.0 in binary, and an engine at the limit has met it."""


class Answers(NamedTuple):
    """One run of labelled rows."""

    references: Tensors
    outputs: Tensors
    labels: Array
    """Of the first rows; those behind them fill the batch and are not scored."""
    rows: int
    """Rows of the run."""


def metric_check(metric: str, answers: Sequence[Answers], budget: Budget, where: str) -> Check:
    """One check of all labelled rows of a place. A metric that cannot be taken, or a reference at 0, is a failure."""
    rule = f"{METRIC}{metric}"
    rows = sum(len(one.labels) for one in answers)
    if rows == 0:
        return Check(rule, False, where, "no labelled rows", budget.words)
    spot = f"{where}, {rows} rows"
    try:
        reference = reference_score(metric, answers)
    except TailorbirdError as error:
        return Check(rule, False, spot, f"FP32: {error.message}", budget.words)
    if reference == 0 or (reference < 0 and budget.drop is None):
        return Check(rule, False, spot, f"FP32 scores {reference:g}", "more than 0", reference)
    try:
        reached = score(metric, *_joined([(one.outputs, one.labels, one.rows) for one in answers]))
    except TailorbirdError as error:
        return Check(rule, False, spot, error.message, budget.words, reference)
    limit = budget.least(reference)
    return Check(rule, reached >= limit - _ROUNDING * abs(reference), spot, reached, limit, reference)


def reference_score(metric: str, answers: Sequence[Answers]) -> float:
    """What FP32 scores; raises :class:`UsageError` or :class:`InputError` when the metric cannot be taken."""
    return score(metric, *_joined([(one.references, one.labels, one.rows) for one in answers]))


def _joined(parts: Sequence[tuple[Tensors, Array, int]]) -> tuple[dict[str, Array], Array]:
    """Outputs and labels of all parts, fresh arrays with one row for each label.

    An output that leads with the rows is cut to those with labels. Any other one belongs to its run as a whole:
    it becomes a row of its own where each run has one label (in an array of arrays when shapes differ), and is left
    out where runs hold several.
    """
    for _, labels, rows in parts:
        if len(labels) > rows:
            raise InputError("there are more labels than rows", got=len(labels), expected=f"{rows} or fewer")
    names = [name for name in parts[0][0] if all(name in tensors for tensors, _, _ in parts)]
    joined = {name: _join([(tensors[name], len(labels), rows) for tensors, labels, rows in parts]) for name in names}
    labels = np.concatenate([labels for _, labels, _ in parts])
    return {name: array for name, array in joined.items() if array is not None}, labels


def _join(parts: Sequence[tuple[Array, int, int]]) -> Array | None:
    arrays = [array for array, _, _ in parts]
    if all(array.ndim and len(array) == rows for array, _, rows in parts) and _alike([one[:1] for one in arrays]):
        return np.concatenate([array[:count] for array, count, _ in parts])
    if any((count, rows) != (1, 1) for _, count, rows in parts):
        return None
    if _alike(arrays):
        return np.stack(arrays)
    found = np.empty(len(arrays), object)
    found[:] = [array.copy() for array in arrays]
    return found


def _alike(arrays: Sequence[Array]) -> bool:
    return len({array.shape for array in arrays}) == 1
