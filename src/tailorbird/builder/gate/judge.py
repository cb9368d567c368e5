"""The gate: the exact engine, at every place it will serve, against the FP32 source. Fails closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.fidelity import CAP_DB, compare, decibels, strange
from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.dtype import Array
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Tensors

Run = Callable[[Tensors], dict[str, Array]]

_FLOATS = frozenset({"fp64", "fp32", "fp16", "bf16", "int8"})
_BELOW_FP32 = frozenset({"fp16", "bf16"})
"""What an engine asked for FP32 must not run. Not INT8: truth values and pictures are bytes in the source, too."""


class Case(msgspec.Struct, frozen=True):
    """Inputs at one place, and what the source answers to them; both are ``.npz`` files."""

    place: Place
    inputs: str
    outputs: str
    real: bool
    """Whether the inputs are the user's data."""


class Trial(msgspec.Struct, frozen=True):
    """A loaded case."""

    case: Case
    inputs: dict[str, Array]
    references: dict[str, Array]


def judge(run: Run, trials: Sequence[Trial], budget: Budget, precision: Precision, executed: dict[str, str],
          min_rows: int | None) -> GateReport:  # fmt: skip
    """Every check of one engine.

    Args:
        run: runs the engine.
        trials: at least one case for every place of the profile.
        budget: the least allowed fidelity.
        precision: what the candidate asked for.
        executed: precision of each layer, from the runtime.
        min_rows: the fewest rows the engine takes, or None when the model has no batch dim.
    """
    own = {"fp16" for trial in trials for array in trial.references.values() if array.dtype == np.float16}
    checks = [executed_check(precision, executed, own), *compared_checks(trials)]
    for trial in trials:
        where = f"{trial.case.place.edge} {_rows(trial.case.place)}"
        outputs = run(trial.inputs)
        checks += compare(trial.references, outputs, budget, where, trial.case.real)
        checks += row_checks(run, trial, outputs, precision, min_rows, where)
    return GateReport(tuple(checks) if trials else ())


def executed_check(asked: Precision, executed: dict[str, str], own: Iterable[str] = ()) -> Check:
    """Asked for a lower precision and running none of it, or the other way round, is a failure.

    Args:
        asked: what the candidate asked for.
        executed: precision of each layer, from the runtime.
        own: precisions below FP32 that are the source's own.
    """
    counts = Counter(kind for kind in executed.values() if kind in _FLOATS)
    whole = f"{len(executed)} layers, none of them float" if executed else "nothing reported"
    text = " ".join(f"{kind} x{count}" for kind, count in counts.most_common()) or whole
    if asked is Precision.FP32:
        held = bool(executed) and not counts.keys() & (_BELOW_FP32 - set(own))
    else:
        held = counts[asked] > 0
    return Check("executed precision", held, "all layers", text, asked.value)


def compared_checks(trials: Sequence[Trial]) -> Iterator[Check]:
    """Each output holds something to compare at least once: an output that is always empty or NaN proves nothing."""
    for name in dict.fromkeys(name for trial in trials for name in trial.references):
        count = sum(_comparable(trial.references[name]) for trial in trials if name in trial.references)
        yield Check("elements to compare", count > 0, f"all places, {name}", float(count), 1.0)


def _comparable(reference: Array) -> int:
    return int(np.isfinite(reference).sum()) if reference.dtype.kind == "f" else reference.size


def row_checks(run: Run, trial: Trial, outputs: Tensors, precision: Precision, min_rows: int | None,
               where: str) -> Iterator[Check]:  # fmt: skip
    """The same row gives the same answer alone, elsewhere in the batch, beside others, and again.

    Outputs that do not lead with the rows (a pooled scalar, say) are only checked for repetition.
    """
    limit, rows = precision.consistency_db, trial.case.place.rows
    yield _agree("same input again", outputs, run(trial.inputs), limit, where)
    per_row = {name: array for name, array in outputs.items() if array.ndim and array.shape[0] == rows}
    if min_rows is None or rows < 2 or not per_row:
        return
    turned = np.roll(np.arange(rows), 1)
    moved = run(_take(trial.inputs, turned))
    yield _agree("same row at another position", _take(per_row, turned), _only(moved, per_row), limit, where)
    last = np.full(rows, rows - 1)  # in its own place, and beside nothing but itself
    beside = run(_take(trial.inputs, last))
    yield _agree("same row beside other neighbours", _take(per_row, last), _only(beside, per_row), limit, where)
    if min_rows == 1:
        alone = [run(_take(trial.inputs, np.array([row]))) for row in (0, rows - 1)]
        joined = {name: np.concatenate([one[name] for one in alone]) for name in per_row}
        yield _agree("same row alone", _take(per_row, np.array([0, rows - 1])), joined, limit, where)


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


def _rows(place: Place) -> str:
    return "x".join(map(str, next(iter(place.shapes.values()), ())))
