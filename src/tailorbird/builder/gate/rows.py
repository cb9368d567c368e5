"""Rows: the same row gives the same answer alone, in a batch, elsewhere in it, and beside other neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from tailorbird.domain.budget import Check
from tailorbird.domain.dtype import Array
from tailorbird.domain.fidelity import CAP_DB, decibels, strange
from tailorbird.domain.signature import Tensors

Run = Callable[[Tensors], dict[str, Array]]


class Rows(msgspec.Struct, frozen=True):
    """What is known of the rows of one run."""

    count: int
    fewest: int | None
    """The fewest rows the engine takes, or None when the model has no batch dim."""
    limit_db: float
    """Least signal-to-noise ratio between a row and itself."""


def row_checks(run: Run, tensors: Tensors, outputs: Tensors, rows: Rows, where: str) -> Iterator[Check]:
    """The same row gives the same answer alone, elsewhere in the batch, beside others, and again.

    Outputs that do not lead with the rows (a pooled scalar, say) are only checked for repetition.

    Args:
        run: runs the engine.
        tensors: the inputs of one run.
        outputs: what the engine answered to them.
        rows: how many there are, and may be, and how closely they must agree.
        where: enters the checks.
    """
    limit, count = rows.limit_db, rows.count
    yield _agree("same input again", outputs, run(tensors), limit, where)
    per_row = {name: array for name, array in outputs.items() if array.ndim and array.shape[0] == count}
    if rows.fewest is None or count < 2 or not per_row:
        return
    turned = np.roll(np.arange(count), 1)
    moved = run(_take(tensors, turned))
    yield _agree("same row at another position", _take(per_row, turned), _only(moved, per_row), limit, where)
    last = np.full(count, count - 1)  # in its own place, and beside nothing but itself
    beside = run(_take(tensors, last))
    yield _agree("same row beside other neighbours", _take(per_row, last), _only(beside, per_row), limit, where)
    if rows.fewest == 1:
        alone = [run(_take(tensors, np.array([row]))) for row in (0, count - 1)]
        joined = {name: np.concatenate([one[name] for one in alone]) for name in per_row}
        yield _agree("same row alone", _take(per_row, np.array([0, count - 1])), joined, limit, where)


def _agree(rule: str, expected: Tensors, got: Tensors, limit: float, where: str) -> Check:
    """One check over all outputs: the worst row's signal-to-noise ratio, in dB; whole numbers must be equal."""
    worst = min((_agreement(expected[name], got[name]) for name in expected), default=CAP_DB)
    return Check(rule, worst >= limit, where, worst, limit)


def _agreement(expected: Array, got: Array) -> float:
    if expected.shape != got.shape:
        return -CAP_DB
    if expected.dtype.kind != "f":
        return CAP_DB if np.array_equal(expected, got) else -CAP_DB
    return -CAP_DB if strange(expected, got) or strange(got, expected) else worst_row_db(expected, got)


def worst_row_db(expected: Array, got: Array) -> float:
    """The least signal-to-noise ratio of a row, in dB over finite elements.

    Row by row, so that one strong row cannot hide what happened to the others. A row weaker than the
    median one is held against the median's signal: near zero, rounding is all there is.
    """
    if expected.size == 0:
        return CAP_DB
    rows = len(expected) if expected.ndim else 1
    ref, out = (np.nan_to_num(array.reshape(rows, -1).astype(np.float64), posinf=0.0, neginf=0.0)
                for array in (expected, got))  # fmt: skip
    signal, noise = np.square(ref).sum(1), np.square(ref - out).sum(1)
    return min(map(decibels, np.maximum(signal, np.median(signal)).tolist(), noise.tolist()))


def _take(tensors: Tensors, rows: Array) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array[rows]) for name, array in tensors.items()}


def _only(tensors: Tensors, names: Tensors) -> dict[str, Array]:
    return {name: tensors[name] for name in names}
