"""Tensors on the wire: JSON lists and the binary extension's bytes, to arrays and back. Pure functions."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError
from tailorbird.domain.signature import Shape
from tailorbird.service.faults import WireError
from tailorbird.service.limits import RANK, Limits

# What rounds to a finite FP32 lies strictly between -(2^128 - 2^103) and 2^128 - 2^103 (IEEE 754).
_FP32_BOUND = 2.0**128 - 2.0**103
_BINARY_ONLY = frozenset({DType.FP16, DType.BF16})
_LONG = 1 << 16
_LENGTH = struct.Struct("<I")


def element_count(name: str, shape: Sequence[int], limits: Limits) -> int:
    """Elements of a shape, judged before anything of that size is made.

    Raises:
        WireError: too many dims, or too many elements; a zero does not excuse the other dims.
    """
    if len(shape) > RANK:
        raise WireError(f"input '{name}' has too many dims", got=len(shape), expected=f"at most {RANK}")
    extent = math.prod(shape) or _extent(shape)  # at most 16 factors below 2^63: small work
    if extent > limits.elements:
        raise WireError(
            f"input '{name}' has too many elements", got=_short(shape), expected=f"at most {limits.elements}"
        )
    return 0 if 0 in shape else extent


def check_bytes(name: str, count: int, left: int, limits: Limits) -> None:
    """Judge how many BYTES elements an input has, before it is taken apart.

    Raises:
        WireError: more than what is left to its request.
    """
    if count > left:
        raise WireError(f"input '{name}' has too many BYTES elements", got=limits.bytes_elements - left + count,
                        expected=f"at most {limits.bytes_elements} in one request",
                        hint="send fewer rows at once")  # fmt: skip


def _extent(shape: Sequence[int]) -> int:
    """Elements, where a zero counts as one."""
    return math.prod(size or 1 for size in shape)


def from_json(name: str, dtype: DType, shape: Shape, data: bytes, limits: Limits) -> Array:
    """An array from JSON text: a flat row-major list, or lists nested as the shape says.

    Args:
        name: the input's name, for errors.
        dtype: any but FP16 and BF16, which the protocol carries as binary data only.
        shape: already judged by :func:`element_count`.
        data: the JSON text of the ``data`` member.
        limits: ``json_elements`` is checked here.

    Raises:
        WireError: the list's length, nesting or values contradict shape and dtype.
    """
    if dtype in _BINARY_ONLY:
        raise WireError(f"input '{name}' is {dtype}, which JSON cannot carry", hint="send it as binary data")
    text = data.strip()
    _check_length(name, dtype, shape, text, limits)
    depth = len(shape) if text[1:].lstrip().startswith(b"[") else 1
    try:
        values = _decoder(dtype, depth, dtype is DType.BYTES and 0 not in shape).decode(text)
        return _array(dtype, values, depth).reshape(shape) if depth == 1 else _nested(dtype, values, shape)
    except (ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"input '{name}' has data that does not fit", got=_plain(error),
                        expected=f"{dtype} {_short(shape)}, flat or nested") from None  # fmt: skip


def from_binary(name: str, dtype: DType, shape: Shape, blob: memoryview) -> Array:
    """An array over little-endian, row-major, unpadded bytes; read-only, and a copy only where alignment asks for it.

    Raises:
        WireError: the size contradicts shape and dtype, or a BOOL is neither 0 nor 1.
    """
    count = math.prod(shape)
    if dtype is DType.BYTES:
        return _strings(name, count, blob).reshape(shape)
    if blob.nbytes != count * dtype.itemsize:
        raise WireError(f"input '{name}' has binary data of the wrong size", got=f"{blob.nbytes} bytes",
                        expected=f"{count * dtype.itemsize} bytes for {dtype} {_short(shape)}")  # fmt: skip
    if dtype is DType.BOOL:
        _check_bools(name, blob)
    array = np.frombuffer(blob, dtype.numpy, count).reshape(shape)
    return array if array.flags.aligned else array.copy()


def to_json(name: str, dtype: DType, array: Array) -> list[Any]:
    """The values as a flat row-major list that JSON can carry; NaN and Infinity are the caller's to find.

    Raises:
        InputError: JSON cannot carry the dtype, or a BYTES element is not UTF-8.
    """
    if dtype in _BINARY_ONLY:
        raise binary_needed(name, f"is {dtype}")
    if dtype is not DType.BYTES:
        values: list[Any] = array.ravel().tolist()
        return values
    try:
        return [item if isinstance(item, str) else bytes(item).decode() for item in array.ravel()]
    except UnicodeDecodeError:
        raise binary_needed(name, "holds bytes that are not UTF-8") from None


def to_binary(dtype: DType, array: Array) -> bytes | memoryview:
    """The array's bytes as the binary extension wants them."""
    if dtype is not DType.BYTES:
        whole = np.ascontiguousarray(array, dtype.numpy)
        return whole.reshape(-1).view(np.uint8).data
    items = [item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()]
    return b"".join(part for item in items for part in (_LENGTH.pack(len(item)), item))


def binary_needed(name: str, why: str) -> InputError:
    """The error for an output that JSON cannot carry."""
    return InputError(f"output '{name}' {why}, which JSON cannot carry",
                      hint='ask for it as binary data: "parameters": {"binary_data": true}')  # fmt: skip


def _check_length(name: str, dtype: DType, shape: Shape, text: bytes, limits: Limits) -> None:
    """Before the list is made: n numbers have n - 1 commas between them, however they are nested."""
    extent = math.prod(shape) or _extent(shape)
    if extent > limits.json_elements:
        raise WireError(f"input '{name}' has too many elements for JSON", got=extent,
                        expected=f"at most {limits.json_elements}", hint="send it as binary data")  # fmt: skip
    if not text.startswith(b"["):
        raise WireError(f"input '{name}' has no list of data", expected=f"{dtype} {_short(shape)}, flat or nested")
    if dtype is DType.BYTES and 0 not in shape:  # a string may have commas inside
        _check_quotes(name, shape, text)
        return
    commas = _occurrences(text, b",")
    listed = commas + (1 if commas or text[1:-1].strip() else 0)
    if listed > extent or (listed < extent and 0 not in shape):
        raise WireError(f"input '{name}' has data of the wrong length", got=f"{listed} elements",
                        expected=f"{math.prod(shape)} for shape {_short(shape)}")  # fmt: skip


def _occurrences(text: bytes, byte: bytes) -> int:
    """As ``text.count(byte)``, which takes long where there are many."""
    if len(text) < _LONG:
        return text.count(byte)
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == byte[0]))


def _check_quotes(name: str, shape: Shape, text: bytes) -> None:
    """Each string has a quote before it and one behind it; those inside of it have a backslash before them."""
    quotes = _occurrences(text, b'"') - text.count(b'\\"')
    if quotes > 2 * math.prod(shape):
        raise WireError(f"input '{name}' has data of the wrong length", got=f"at least {(quotes + 1) // 2} elements",
                        expected=f"{math.prod(shape)} for shape {_short(shape)}")  # fmt: skip


@lru_cache(maxsize=2 * len(DType) * RANK)
def _decoder(dtype: DType, depth: int, filled: bool = False) -> msgspec.json.Decoder[Any]:
    """For lists of that depth; ``filled`` refuses the first empty one, of which there could be any number."""
    kind: Any = _element(dtype)
    for _ in range(depth):
        kind = Annotated[list[kind], msgspec.Meta(min_length=1)] if filled else list[kind]
    return msgspec.json.Decoder(kind)


def _element(dtype: DType) -> Any:
    """The Python type of one element, with the dtype's range, so that decoding checks it."""
    if dtype is DType.BOOL:
        return bool
    if dtype is DType.BYTES:
        return str
    if dtype is DType.FP32:
        return Annotated[float, msgspec.Meta(gt=-_FP32_BOUND, lt=_FP32_BOUND)]
    if dtype is DType.FP64:
        return float
    if dtype.itemsize == 8:  # msgspec's bounds end at 63 bits; numpy refuses what does not fit
        return Annotated[int, msgspec.Meta(ge=0)] if dtype is DType.UINT64 else int
    info = np.iinfo(dtype.numpy)
    return Annotated[int, msgspec.Meta(ge=int(info.min), le=int(info.max))]


def _array(dtype: DType, values: list[Any], depth: int) -> Array:
    if dtype is not DType.BYTES:
        return np.array(values, dtype.numpy)
    for _ in range(depth - 1):
        values = [item for inner in values for item in inner]
    array = np.empty(len(values), dtype=object)
    array[:] = [value.encode() for value in values]
    return array


def _nested(dtype: DType, values: list[Any], shape: Shape) -> Array:
    """Every list checked against the shape: numpy cannot for strings, and is vague for the rest."""
    level: list[Any] = values
    for axis, size in enumerate(shape):
        rows = [level] if axis == 0 else level
        if any(len(row) != size for row in rows):
            raise ValueError(f"lists of other lengths than {size} at depth {axis + 1}")
        level = level if axis == 0 else [item for row in rows for item in row]
    return _array(dtype, level, 1).reshape(shape)


def _strings(name: str, count: int, blob: memoryview) -> Array:
    """BYTES elements, each behind its length as uint32."""
    if 4 * count > blob.nbytes:
        raise WireError(f"input '{name}' has binary data of the wrong size", got=f"{blob.nbytes} bytes",
                        expected=f"at least {4 * count} bytes for {count} BYTES elements")  # fmt: skip
    array = np.empty(count, dtype=object)
    data, size, place = bytes(blob), blob.nbytes, 0
    for index in range(count):
        end = place + 4 + (_LENGTH.unpack_from(data, place)[0] if place + 4 <= size else size)
        if end > size:
            raise WireError(f"input '{name}' has a BYTES element that runs past its data", got=f"element {index}")
        array[index] = data[place + 4 : end]
        place = end
    if place != size:
        raise WireError(f"input '{name}' has binary data of the wrong size", got=f"{blob.nbytes} bytes",
                        expected=f"{place} bytes for its {count} BYTES elements")  # fmt: skip
    return array


def _check_bools(name: str, blob: memoryview) -> None:
    raw = np.frombuffer(blob, np.uint8)
    if raw.size and raw.max() > 1:
        raise WireError(f"input '{name}' has a BOOL that is neither 0 nor 1", got=int(raw.max()))


def _plain(error: Exception) -> str:
    return "lists nested too deeply" if isinstance(error, RecursionError) else str(error)


def _short(shape: Sequence[int]) -> str:
    text = ",".join(map(str, shape))
    return f"[{text}]" if len(text) <= 100 else f"[{text[:100]}…]"
