"""Classification: of an output only its largest values, each with its place.

Source: the protocol's classification extension, and for what it leaves open Triton's ``classification.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError

_WITHOUT_ORDER = frozenset({DType.FP16, DType.BF16, DType.BYTES})
"""Triton refuses these."""


def classified(
    outputs: Mapping[str, Array], dtypes: Mapping[str, DType], classes: Mapping[str, int], *, batched: bool
) -> tuple[dict[str, Array], dict[str, DType]]:
    """Outputs with some of them replaced by their top classes.

    Args:
        outputs: arrays by name.
        dtypes: their dtypes by name.
        classes: how many classes of which outputs, each 1 or more.
        batched: the first dim counts rows, each of which has classes of its own.

    Returns:
        All outputs and their dtypes. Those in ``classes`` are BYTES of shape ``[rows, k]`` or ``[k]``, each element
        ``value:place``, the largest value first; k is at most the number of values there are.

    Raises:
        InputError: an output has a dtype that classes cannot be made of.
    """
    arrays, kinds = dict(outputs), dict(dtypes)
    for name, count in classes.items():
        if kinds[name] in _WITHOUT_ORDER:
            raise InputError(f"output '{name}' is {kinds[name]}, which has no classes",
                             hint="ask for it without classification")  # fmt: skip
        arrays[name], kinds[name] = _top(arrays[name], count, batched=batched), DType.BYTES
    return arrays, kinds


def _top(array: Array, count: int, *, batched: bool) -> Array:
    values = array.reshape((array.shape[0], prod(array.shape[1:])) if batched else (1, array.size))
    ordered = _descending(values)[:, :count]
    found = np.empty(ordered.shape, dtype=object)
    for row, places in enumerate(ordered):
        found[row] = [_text(values[row, place], place) for place in places]
    return found if batched else found[0]


def _descending(values: Array) -> Array:
    """The order of each row, the largest first and NaN last; equal values stay in order."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -np.inf, values)
    backwards = np.argsort(values[:, ::-1], axis=1, kind="stable")[:, ::-1]
    ordered: Array = values.shape[1] - 1 - backwards
    return ordered


def _text(value: np.generic, place: int) -> bytes:
    """Six decimals for floats, as C++'s ``std::to_string`` has it."""
    number = value.item()
    return f"{number:f}:{place}".encode() if isinstance(number, float) else f"{int(number)}:{place}".encode()
