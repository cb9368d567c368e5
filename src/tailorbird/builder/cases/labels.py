"""Labels: found beside the inputs, brought to one form, and held against the rows they are of."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np

from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import InputError, nearest

KEYS = ("labels", "label")
"""Where labels are looked for when nobody said where they are."""


def key_among(names: Iterable[str], inputs: Container[str], key: str) -> str | None:
    """The key of the labels among the names of a sample's arrays, or None when it has none.

    Raises:
        InputError: the key that was asked for is an input, or is not there.
    """
    known = tuple(names)
    if not key:
        return next((name for name in KEYS if name in known and name not in inputs), None)
    if key in inputs:
        raise InputError(f"'{key}' is an input of the model, so it cannot be the labels")
    if key not in known:
        close = nearest(key, known)
        raise InputError(f"the data has no labels under '{key}'", got=", ".join(known),
                         hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    return key


def fitted(found: Any, rows: tuple[int, ...]) -> Array:
    """Labels as an array whose first axis is the rows; text as fixed-width unicode.

    Args:
        found: what the data holds.
        rows: counts of rows that the sample can be said to have.

    Raises:
        InputError: there are more or fewer than rows, none, NaN, or they are neither numbers nor text.
    """
    array = _plain(found)
    if array.ndim == 0 and 1 in rows:
        array = array.reshape(1)
    if array.size == 0:
        raise InputError("the labels are empty", got=list(array.shape), expected="one for each row")
    if array.ndim == 0 or len(array) not in rows:
        got = f"{len(array)} labels" if array.ndim else "one label"
        raise InputError("labels do not match the rows of their sample", got=got,
                         expected=f"{' or '.join(map(str, rows))}, one for each row")  # fmt: skip
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise InputError("the labels hold NaN", hint="leave rows without a label out")
    return array


def check_alike(one: Array, other: Array, by_row: bool) -> None:
    """Labels of two samples can be joined; raises :class:`InputError` when their forms differ."""
    start = 1 if by_row else 0
    if _kind(one) != _kind(other) or one.shape[start:] != other.shape[start:]:
        raise InputError("labels differ in form between samples", got=f"{other.dtype}{list(other.shape)}",
                         expected=f"{one.dtype}{list(one.shape)} as before",
                         hint="bring them to one type, and pad sequences to one length")  # fmt: skip


def share(labels: Array, rows: Sequence[int]) -> list[Array]:
    """One array of labels dealt out to samples of so many rows: an entry for each sample, or one for each row.

    Raises:
        InputError: the count is neither that of the samples nor that of their rows.
    """
    if labels.ndim and len(labels) == len(rows):
        return [_entry(labels, n, count) for n, count in enumerate(rows)]
    if labels.ndim == 0 or len(labels) != sum(rows):
        raise InputError("labels do not match the samples", got=list(labels.shape),
                         expected=f"{len(rows)}, one for each sample")  # fmt: skip
    return np.split(labels, np.cumsum(rows)[:-1])


def _entry(labels: Array, number: int, rows: int) -> Array:
    entry = labels[number, ...]
    return labels[number : number + 1] if rows == 1 and entry.shape[:1] not in ((), (1,)) else entry


def _plain(found: Any) -> Array:
    try:
        array = np.array(found)
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
        if array.dtype.kind == "O" and all(isinstance(one, str) for one in array.ravel()):
            array = array.astype(str)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; bytes that are no text
        raise InputError("cannot read the labels", got=error, expected="numbers or text, of one shape") from None
    if array.dtype.kind not in "biufU":
        raise InputError("the labels have an unsupported type", got=array.dtype, expected="numbers or text")
    return array


def _kind(array: Array) -> str:
    return "whole" if array.dtype.kind in "biu" else array.dtype.kind
