"""Real inputs the user gives, with labels where there are any: bounded, and checked against the signature.

A sample is one set of inputs, batch dim included.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.builder.cases.labels import check_alike, fitted, key_among
from tailorbird.builder.cases.read import Raw, raw_samples, read_npz
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError
from tailorbird.domain.signature import Signature

MAX_ROWS = 1024
"""Rows read at most; calibration and the gate need variety, not volume."""

MAX_BYTES = 1 << 30
"""Bytes of arrays read at most."""

Sample = dict[str, Array]


@dataclass(frozen=True)
class Data:
    """Samples, and labels of each of them or of none."""

    samples: list[Sample] = field(default_factory=list)
    labels: list[Array] = field(default_factory=list)
    """First axis = rows of the sample."""
    notes: tuple[str, ...] = ()


def load_data(spec: str, signature: Signature, key: str = "") -> Data:
    """Samples from files or a callable, as :mod:`tailorbird.builder.cases.read` describes them.

    Args:
        spec: an ``.npz`` file, a directory of ``.npz`` or ``.npy``, or ``module:callable`` yielding dicts of arrays.
        signature: what the samples must fit.
        key: of the labels; empty for ``labels`` or ``label``, where the data has one that is no input.

    Returns:
        At most ``MAX_ROWS`` rows and ``MAX_BYTES``, with a note where more was left out.

    Raises:
        UsageError: nothing is there, or it cannot be read.
        InputError: a sample contradicts the signature, is empty or holds NaN, labels do not match their rows or are
            missing in some samples, or there is no sample.
    """
    intake = _Intake(signature, key)
    for raw in raw_samples(spec, signature, key):
        if not intake.has_room(raw):
            break
        intake.take(raw)
    if not intake.samples:
        raise InputError("the data holds no sample", got=spec, expected=", ".join(map(str, signature.inputs)))
    return Data(intake.samples, intake.labels, tuple(intake.notes))


class _Intake:
    """Takes samples in, one after another, up to the limits."""

    def __init__(self, signature: Signature, key: str) -> None:
        self._signature = signature
        self._key = key
        self._rows = 0
        self._bytes = 0
        self.samples: list[Sample] = []
        self.labels: list[Array] = []
        self.notes: list[str] = []

    def has_room(self, raw: Raw) -> bool:
        """Whether one more sample may be read; notes it when not."""
        over = raw.size > MAX_BYTES - self._bytes
        if over and not self.samples:
            raise InputError("the first sample of the data is too large", got=f"{raw.size / 2**30:.1f} GiB",
                             expected=f"{MAX_BYTES / 2**30:.0f} GiB or less",
                             hint="split it into several files, or give a directory of .npy files")  # fmt: skip
        if over:
            self._leave_out(f"{MAX_BYTES / 2**30:.0f} GiB")
        elif self._rows >= MAX_ROWS:
            self._leave_out(f"{MAX_ROWS} rows")
        return not over and self._rows < MAX_ROWS

    def take(self, raw: Raw) -> None:
        """Read, check and keep one sample."""
        found = raw.read()
        sample = _fitted(found, self._signature)
        batch = self._signature.batch_dim
        rows = len(next(iter(sample.values()))) if batch else 1
        labels = self._labels_of(found, sample)
        room = MAX_ROWS - self._rows
        if rows > room:
            self._leave_out(f"{MAX_ROWS} rows")
            sample = {name: array[:room] for name, array in sample.items()}
            labels = labels if labels is None else labels[:room]
        self._rows += min(rows, room)
        self._bytes += raw.size
        self.samples.append(sample)
        self.labels += [] if labels is None else [labels]

    def _labels_of(self, found: Mapping[str, Any], sample: Sample) -> Array | None:
        key = key_among(found, sample, self._key)
        if self.samples and (key is None) == bool(self.labels):
            state = "no labels, but those before it have" if key is None else "labels, but those before it have none"
            raise InputError(
                f"sample {len(self.samples) + 1} has {state}", expected="labels in every sample, or in none"
            )
        if key is None:
            return None
        batch = self._signature.batch_dim
        labels = fitted(found[key], _rows_of(sample, batch))
        if self.labels:
            check_alike(self.labels[0], labels, by_row=batch is not None)
        return labels

    def _leave_out(self, limit: str) -> None:
        note = f"the data was read up to {limit}; what follows was left out"
        self.notes += [] if note in self.notes else [note]


def _rows_of(sample: Sample, batch: str | None) -> tuple[int, ...]:
    """Rows a sample has. Without a batch dim nothing tells whether leading dims are rows: then either is taken."""
    leading = {array.shape[0] if array.ndim else 1 for array in sample.values()}
    known = leading if len(leading) == 1 else set()
    return tuple(sorted(known)) if batch is not None else tuple(sorted(known | {1}))


def distinct_rows(sample: Sample, rows: int) -> bool:
    """Whether no row equals another, over all inputs; true of fewer than two rows."""
    if rows < 2:
        return True
    prints = {tuple(array[row].tobytes() for array in sample.values()) for row in range(rows)}
    return len(prints) == rows


def save_set(path: Path, tensors: Mapping[str, Array]) -> None:
    """Write named arrays as ``.npz``; BYTES become fixed-width byte strings, so nothing is pickled."""
    with zipfile.ZipFile(path, "w") as archive:  # np.savez takes no array named "file"
        for name, array in tensors.items():
            plain = array.astype(bytes) if array.dtype == object else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(plain), allow_pickle=False)


def load_set(path: Path) -> Sample:
    """The inverse of :func:`save_set`."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return {name: _as_text(array) for name, array in arrays.items()}


def read_arrays(path: Path) -> Sample:
    """Named arrays of a user's ``.npz`` file; raises :class:`UsageError` for anything else."""
    return {name: _as_text(array) for name, array in read_npz(path).items()}


def _as_text(array: Array) -> Array:
    return array.astype(object) if array.dtype.kind == "S" else array


def _fitted(sample: Any, signature: Signature) -> Sample:
    names = {spec.name: spec for spec in signature.inputs}
    if not isinstance(sample, Mapping):
        raise InputError("a sample is not a dict", got=type(sample).__name__, expected="arrays by input name")
    arrays = {name: _own(sample[name], names[name].dtype) for name in sample if name in names}
    if set(sample) - set(names) and not arrays:
        raise InputError(
            "the data names no input of the model", got=", ".join(sample), expected=", ".join(sorted(names))
        )
    signature.check(arrays)
    for name, array in arrays.items():
        _check_content(name, array)
    return arrays


def _own(given: Any, dtype: DType) -> Array:
    """An array in memory: what was mapped from a file is read here."""
    array = np.asarray(given)
    array = np.array(array) if isinstance(array, np.memmap) or isinstance(array.base, np.memmap) else array
    return _as_text(array) if dtype is DType.BYTES else array


def _check_content(name: str, array: Array) -> None:
    if array.size == 0:
        raise InputError(f"the data is empty in input '{name}'", got=list(array.shape), expected="one row or more")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError(f"the data holds NaN in input '{name}'", hint="clean the data; NaN hides every other fault")
