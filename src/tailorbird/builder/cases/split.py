"""The split: what candidates are calibrated on, what the gate judges them on, and the sets made of either.

The unit is the row where the model has a batch dim, otherwise the sample. Units fit a place when their shapes do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from tailorbird.builder.cases.data import Data, Sample
from tailorbird.builder.cases.places import Place
from tailorbird.domain.digest import digest_bytes
from tailorbird.domain.dtype import Array

CALIBRATION_ROWS = 64
"""Units to calibrate on, at most; more of them move ranges little and cost each method time."""

GATE_ROWS = 512
"""Labelled units that are scored at each place, at most."""

FEWEST = 4
"""Units below which a split leaves too little on either side."""


class Unit(NamedTuple):
    """One row, leading dim 1, or one whole sample."""

    inputs: Sample
    labels: Array | None


class Split(NamedTuple):
    """Units in the order they are used in, and words on how it was made."""

    calibration: list[Unit]
    held: list[Unit]
    notes: tuple[str, ...] = ()


class InputSet(NamedTuple):
    """Inputs at one place, with labels of their first rows."""

    inputs: Sample
    labels: Array | None = None


def units_of(data: Data, batch_dim: str | None) -> list[Unit]:
    """The data's units, in order."""
    labels: Sequence[Array | None] = data.labels or [None] * len(data.samples)
    pairs = zip(data.samples, labels, strict=True)
    if batch_dim is None:
        return [Unit(sample, label) for sample, label in pairs]
    return [Unit({name: array[row : row + 1] for name, array in sample.items()},
                 None if label is None else label[row : row + 1])
            for sample, label in pairs for row in range(len(next(iter(sample.values()))))]  # fmt: skip


def split_units(units: list[Unit], opt: Place, batch_dim: str | None, seed: int) -> Split:
    """Units that fit the opt place, half to calibrate on and half held out; the gate gets all others, too.

    With fewer than four there is no honest split, and both sides use all of them; one alone is no range to
    calibrate on. The same seed makes the same split on every machine.
    """
    unit = "row" if batch_dim else "sample"
    fitting = sum(fits(one, opt, batch_dim) for one in units)
    if fitting < 2:
        some = f"1 {unit} at the opt shapes is" if fitting else f"no {unit} has the opt shapes, which is"
        return Split([], units, (f"{some} not enough to calibrate on",) if units else ())
    if fitting < FEWEST:
        same = [one for one in units if fits(one, opt, batch_dim)]
        return Split(same, units, (f"{fitting} {unit}s: calibrated and judged on the same ones",))
    order = [units[n] for n in np.random.default_rng(seed).permutation(len(units))]
    count = min(CALIBRATION_ROWS, fitting // 2)
    calibration, held = _parted(order, count, opt, batch_dim)
    scored = (
        f", {GATE_ROWS} at most scored at each place" if held[0].labels is not None and len(held) > GATE_ROWS else ""
    )
    note = f"{count} {unit}s to calibrate on, {len(held)} held out for the gate{scored} (seed {seed})"
    return Split(calibration, held, (note,))


def fits(unit: Unit, place: Place, batch_dim: str | None) -> bool:
    """Whether a unit has the place's shapes, rows apart."""
    skip = 0 if batch_dim is None else 1
    return all(unit.inputs[name].shape[skip:] == shape[skip:] for name, shape in place.shapes.items())


def deal(units: list[Unit], place: Place, batch_dim: str | None, count: int) -> list[InputSet]:
    """Up to ``count`` unlabelled sets for a place, distinct where the units allow; empty when none fits."""
    fitting = [unit for unit in units if fits(unit, place, batch_dim)]
    rows = 1 if batch_dim is None else place.rows
    sets = min(count, max(1, len(fitting) // rows)) if fitting else 0
    return [InputSet(_stacked(_turn(fitting, start, rows))) for start in range(0, sets * rows, rows)]


def cover(units: list[Unit], place: Place, batch_dim: str | None, most: int = GATE_ROWS) -> list[InputSet]:
    """As many sets as hold each fitting unit once, up to ``most`` units; labels, if any, are of those alone.

    The last set is filled up from the start; what fills it has no label, so that nothing is scored twice.
    """
    fitting = [unit for unit in units if fits(unit, place, batch_dim)][:most]
    rows = 1 if batch_dim is None else place.rows
    return [InputSet(_stacked(_turn(fitting, start, rows)), _labels(fitting[start : start + rows]))
            for start in range(0, len(fitting), rows)]  # fmt: skip


def digest_sets(sets: Sequence[InputSet]) -> str:
    """A digest of the inputs of all sets, in order; empty when there are none."""
    if not sets:
        return ""
    return digest_bytes(msgspec.json.encode([[_print(name, array) for name, array in sorted(one.inputs.items())]
                                             for one in sets]))  # fmt: skip


def _parted(units: list[Unit], count: int, opt: Place, batch_dim: str | None) -> tuple[list[Unit], list[Unit]]:
    """The first ``count`` units that fit, and all the others."""
    calibration: list[Unit] = []
    held: list[Unit] = []
    for unit in units:
        wanted = len(calibration) < count and fits(unit, opt, batch_dim)
        (calibration if wanted else held).append(unit)
    return calibration, held


def _turn(units: list[Unit], start: int, rows: int) -> list[Unit]:
    """``rows`` units from ``start`` on, beginning again where they end."""
    return [units[n % len(units)] for n in range(start, start + rows)]


def _stacked(units: list[Unit]) -> Sample:
    if len(units) == 1:
        return {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in units[0].inputs.items()}
    return {name: np.concatenate([unit.inputs[name] for unit in units]) for name in units[0].inputs}


def _labels(units: list[Unit]) -> Array | None:
    found = [unit.labels for unit in units if unit.labels is not None]
    return np.concatenate(found) if found else None


def _print(name: str, array: Array) -> tuple[str, str, tuple[int, ...], str]:
    plain = array.astype(bytes) if array.dtype == object else array
    return name, str(plain.dtype), plain.shape, digest_bytes(plain.tobytes())
