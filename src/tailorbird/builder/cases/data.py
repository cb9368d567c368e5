"""Real inputs the user gives: read, checked against the signature, and dealt out to places.

A sample is one set of inputs, batch dim included. Where a place has more rows than a sample, rows of
several samples are stacked; a place that no sample fits gets synthetic inputs, and the log says so.
"""

from __future__ import annotations

import importlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.builder.cases.places import Place
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import InputError, UsageError
from tailorbird.domain.signature import Signature

MAX_SAMPLES = 256
"""Samples read at most; calibration and the gate need variety, not volume."""

Sample = dict[str, Array]


def load_samples(spec: str, signature: Signature) -> list[Sample]:
    """Samples from an ``.npz`` file, a directory of them, or ``module:callable`` yielding dicts of arrays.

    Raises:
        UsageError: nothing is there, or it cannot be read.
        InputError: a sample contradicts the signature, holds NaN, or there is none.
    """
    samples = [_fitted(sample, signature) for sample in islice(_read(spec), MAX_SAMPLES)]
    if not samples:
        raise InputError("the data holds no sample", got=spec, expected=", ".join(map(str, signature.inputs)))
    return samples


def deal(samples: list[Sample], place: Place, batch_dim: str | None, count: int) -> list[Sample]:
    """Up to ``count`` sets of inputs for a place, distinct where the data allows; empty when none fits."""
    fitting = [sample for sample in samples if _fits(sample, place, batch_dim)]
    if batch_dim is None or not fitting:
        return fitting[:count]
    pool = {name: np.concatenate([sample[name] for sample in fitting]) for name in place.shapes}
    rows = len(next(iter(pool.values())))
    sets = min(count, max(1, rows // place.rows))
    picks = [np.arange(start * place.rows, (start + 1) * place.rows) % rows for start in range(sets)]
    return [{name: np.ascontiguousarray(array[pick]) for name, array in pool.items()} for pick in picks]


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
    return {name: array.astype(object) if array.dtype.kind == "S" else array for name, array in arrays.items()}


def read_arrays(path: Path) -> Sample:
    """Named arrays of a user's ``.npz`` file; raises :class:`UsageError` for anything else."""
    try:
        return load_set(path)
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"cannot read {path}", got=error, expected=".npz with one array for each input") from None


def _read(spec: str) -> Iterable[Mapping[str, Any]]:
    path = Path(spec)
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if not files:
            raise UsageError(f"no .npz file in {path}", hint="each .npz file is one sample: an array for every input")
        return (read_arrays(file) for file in files)
    if path.is_file():
        return [read_arrays(path)]
    module, colon, name = spec.partition(":")
    if not colon or not module.replace(".", "").replace("_", "").isalnum():
        raise UsageError("cannot read data", got=spec, expected="an .npz file, a directory of them, or module:callable")
    return _call(module, name)


def _call(module: str, name: str) -> Iterable[Mapping[str, Any]]:
    """The callable is the user's code: whatever it raises, at once or while it yields, is theirs to read."""
    try:
        yield from getattr(importlib.import_module(module), name)()
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        expected = "a callable that yields dicts of arrays"
        raise UsageError(f"cannot load data from {module}:{name}", got=got, expected=expected) from error


def _fitted(sample: Mapping[str, Any], signature: Signature) -> Sample:
    names = {spec.name for spec in signature.inputs}
    if not isinstance(sample, Mapping):
        raise InputError("a sample is not a dict", got=type(sample).__name__, expected="arrays by input name")
    arrays = {name: np.asarray(sample[name]) for name in sample if name in names}
    if set(sample) - names and not arrays:
        raise InputError(
            "the data names no input of the model", got=", ".join(sample), expected=", ".join(sorted(names))
        )
    signature.check(arrays)
    for name, array in arrays.items():
        if array.size == 0:
            raise InputError(f"the data is empty in input '{name}'", got=list(array.shape), expected="one row or more")
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise InputError(
                f"the data holds NaN in input '{name}'", hint="clean the data; NaN hides every other fault"
            )
    return arrays


def _fits(sample: Sample, place: Place, batch_dim: str | None) -> bool:
    skip = 0 if batch_dim is None else 1
    return all(sample[name].shape[skip:] == shape[skip:] for name, shape in place.shapes.items())
