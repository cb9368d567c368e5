"""Rows of several requests joined into one run's tensors, and its outputs parted again. No row is ever guessed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError
from tailorbird.domain.signature import Tensors

Outputs = dict[str, Array]


def joined(inputs: Sequence[Tensors], padding: int) -> Tensors:
    """The inputs of several requests as those of one run.

    Args:
        inputs: of at least one request; of one alone and without padding they are returned as they are.
        padding: copies of the last row to add.

    Returns:
        By name, all rows in the order given, then the padding.
    """
    if len(inputs) == 1 and not padding:
        return inputs[0]
    return {name: np.concatenate([*(one[name] for one in inputs), *_padding(inputs[-1][name], padding)])
            for name in inputs[0]}  # fmt: skip


def parted(outputs: Outputs, counts: Sequence[int], padding: int) -> list[Outputs]:
    """The outputs of one run as those of each request: views of its rows, without the padding.

    Args:
        outputs: of the run.
        counts: rows of each request, in the order in which they were joined.
        padding: rows at the end that are nobody's.

    Raises:
        BackendError: an output has not as many rows as went in, so that nobody knows whose they are.
    """
    if len(counts) == 1 and not padding:
        return [outputs]
    total = sum(counts) + padding
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != total:
            raise BackendError(f"output '{name}' does not have a row for each row of the batch",
                               got=list(array.shape), expected=f"{total} rows")  # fmt: skip
    found, start = [], 0
    for count in counts:
        found.append({name: array[start : start + count] for name, array in outputs.items()})
        start += count
    return found


def cut(inputs: Tensors, start: int, count: int) -> Tensors:
    """So many of a request's rows from ``start`` on, or as many as there are: views."""
    return {name: array[start : start + count] for name, array in inputs.items()}


def whole(outputs: Sequence[Outputs]) -> Outputs:
    """The outputs of a request's parts as one, in order; of a single part as they are."""
    if len(outputs) == 1:
        return outputs[0]
    return {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}


def _padding(array: Array, count: int) -> list[Array]:
    return [np.broadcast_to(array[-1:], (count, *array.shape[1:]))] if count else []
