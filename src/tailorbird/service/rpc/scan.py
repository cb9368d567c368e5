"""A message's bytes before they are parsed: raw tensors set apart, and everything repeated counted.

A parser makes an object of two bytes, so what a message repeats is judged on its bytes. The rest of it is
what protobuf then parses; the raw tensors are never copied on the way. Pure functions.

Source of the format: Protocol Buffers' "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tailorbird.service.faults import WireError
from tailorbird.service.limits import Limits

FIELDS = 1 << 16
"""Fields of a message with all that is nested in it, raw tensors aside. Elements of ``bytes_contents`` are fields."""
_UNCOUNTED_BYTES = FIELDS
"""A message of fewer bytes cannot have more fields, nor more numbers than any limit forbids."""

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_SIZE_OF = {_FIXED64: 8, _FIXED32: 4}
_RAW = 7
_COUNTED = {4: "parameters", 5: "inputs", 6: "outputs", _RAW: "raw_input_contents"}

Tree = Mapping[int, "Tree | int"]
"""By field number: the fields of a nested message, or the bytes of one packed number, 1 standing for varints."""

_CONTENTS: Tree = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 4, 7: 8}
_REQUEST: Tree = {4: {}, 5: {3: 1, 4: {}, 5: _CONTENTS}, 6: {2: {}}}


def split(message: bytes, limits: Limits) -> tuple[bytes, list[memoryview]]:
    """Set the raw tensors of a ``ModelInferRequest`` apart.

    Args:
        message: as received.
        limits: ``tensors``, ``parameters`` and ``json_elements`` are checked here.

    Returns:
        The message without field 7, and that field's values in order, as views of ``message``.

    Raises:
        WireError: the bytes are no message, or it repeats something too often.
    """
    view = memoryview(message)
    kept: list[memoryview] = []
    blobs: list[memoryview] = []
    counts = dict.fromkeys(_COUNTED, 0)
    copied = 0
    for fields, (number, kind, start, value, end) in enumerate(_fields(view), 1):
        if number in counts:
            counts[number] += 1
            _check_count(number, counts[number], limits)
        elif fields > FIELDS:
            raise _too_many_fields()
        if number == _RAW and kind == _DELIMITED:
            blobs.append(view[value:end])
            kept.append(view[copied:start])
            copied = end
    header = b"".join([*kept, view[copied:]]) if blobs else message
    if len(header) > _UNCOUNTED_BYTES:
        _Census(limits).walk(memoryview(header), _REQUEST)
    return header, blobs


class _Census:
    """Counts fields and packed numbers against their limits."""

    def __init__(self, limits: Limits) -> None:
        self._fields = 0
        self._numbers = 0
        self._limit = limits.json_elements

    def walk(self, view: memoryview, tree: Tree) -> None:
        """Count what is in ``view``, and in what the tree says is nested there."""
        for number, kind, _, value, end in _fields(view):
            self._fields += 1
            if self._fields > FIELDS:
                raise _too_many_fields()
            inside = tree.get(number)
            if kind != _DELIMITED or inside is None:
                continue
            if isinstance(inside, int):
                self._count(view[value:end], inside)
            else:
                self.walk(view[value:end], inside)

    def _count(self, packed: memoryview, size: int) -> None:
        """A varint ends with the byte whose highest bit is clear."""
        if size > 1:
            self._numbers += len(packed) // size
        else:
            self._numbers += int(np.count_nonzero(np.frombuffer(packed, np.uint8) < 128))
        if self._numbers > self._limit:
            raise WireError("the request has too many elements in contents", got=f"at least {self._numbers}",
                            expected=f"at most {self._limit}", hint="send them in raw_input_contents")  # fmt: skip


def varint(number: int) -> bytes:
    """A length as protobuf writes it."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, and where the field, its value and its end are."""
    place, size = 0, len(view)
    while place < size:
        start = place
        tag, place = _varint(view, place, size)
        kind = tag & 7
        end = place
        if kind == _DELIMITED:
            length, place = _varint(view, place, size)
            end = place + length
        elif kind == _VARINT:
            _, end = _varint(view, place, size)
        elif kind in _SIZE_OF:
            end = place + _SIZE_OF[kind]
        else:  # groups, which proto3 has none of
            raise _no_message(f"wire type {kind}")
        if end > size:
            raise _no_message("a field that runs past the end")
        yield tag >> 3, kind, start, place, end
        place = end


def _varint(view: memoryview, place: int, size: int) -> tuple[int, int]:
    """A varint and the place behind it."""
    if place < size and view[place] < 128:
        return view[place], place + 1
    value = 0
    for offset in range(min(10, size - place)):
        byte = view[place + offset]
        value |= (byte & 127) << 7 * offset
        if byte < 128:
            return value, place + offset + 1
    raise _no_message("a number without an end")


def _check_count(number: int, count: int, limits: Limits) -> None:
    limit = limits.parameters if number == 4 else limits.tensors
    if count > limit:
        raise WireError(f"the request has too many {_COUNTED[number]}", got=f"at least {count}",
                        expected=f"at most {limit}")  # fmt: skip


def _too_many_fields() -> WireError:
    return WireError("the request has too many fields", expected=f"at most {FIELDS}",
                     hint="send long BYTES tensors in raw_input_contents")  # fmt: skip


def _no_message(got: str) -> WireError:
    return WireError("the message is not valid protobuf", got=got)
