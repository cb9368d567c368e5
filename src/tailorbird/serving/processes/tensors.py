"""Tensors in a segment of shared memory: laid out and written on one side, checked and read on the other."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import BackendError, InputError
from tailorbird.domain.signature import Shape, Tensors, TensorSpec
from tailorbird.serving.processes.memory import Segment
from tailorbird.serving.processes.messages import Place

ALIGNMENT = 64
"""Bytes: a cache line, and what the widest vector instructions like."""

_LENGTH = struct.Struct("<I")
_MAX_COUNT = 1 << 48


class Layout:
    """Where the tensors of one run will lie, before memory of that size is made.

    Args:
        specs: the inputs or outputs of a signature; their order is the order of :attr:`places`.
        tensors: arrays of the specs' dtypes; BYTES as ``bytes`` or ``str`` elements.

    Raises:
        InputError: an element of a BYTES tensor is no text.
    """

    __slots__ = ("_contents", "extent", "places")

    def __init__(self, specs: Sequence[TensorSpec], tensors: Tensors) -> None:
        self._contents: list[Array] = []
        places: list[Place] = []
        end = 0
        for spec in specs:
            tensor = tensors[spec.name]
            content = tensor if spec.dtype is not DType.BYTES else _packed(spec.name, tensor)
            self._contents.append(content)
            places.append(Place(tensor.shape, end, content.nbytes))
            end = (end + content.nbytes + ALIGNMENT - 1) & -ALIGNMENT
        self.places = tuple(places)
        self.extent = end
        """Bytes from the segment's start to the end of the last tensor, aligned."""

    def write(self, segment: Segment) -> None:
        """Grow the segment as needed and copy the tensors there; raises :class:`BackendError` as that does."""
        segment.grow(self.extent)
        for place, content in zip(self.places, self._contents, strict=True):
            np.ndarray(content.shape, content.dtype, segment.memory, place.offset)[...] = content


class Reader:
    """Tensors that the other side wrote into a segment.

    Everything that side says is checked before an array is made of it.

    Args:
        specs: the inputs or outputs of a signature, in the order of places.
        segment: where they lie.
    """

    def __init__(self, specs: Sequence[TensorSpec], segment: Segment) -> None:
        self._specs = specs
        self._segment = segment
        self._keeps = all(spec.dtype is not DType.BYTES for spec in specs)
        self._seen: tuple[Place, ...] | None = None
        self._memory: object = None
        self._views: dict[str, Array] = {}

    def read(self, places: tuple[Place, ...], extent: int) -> dict[str, Array]:
        """The tensors at ``places``, as views of the segment; texts are copies.

        Raises:
            BackendError: count, rank, sizes, place or bytes contradict the specs or the segment.
        """
        self._segment.follow(extent)
        memory = self._segment.memory
        if places == self._seen and memory is self._memory:  # the same views again: nothing new to check
            return self._views
        if len(places) != len(self._specs):
            raise BackendError("a wrong count of tensors", got=len(places), expected=len(self._specs))
        views = {spec.name: _read(spec, at, self._segment) for spec, at in zip(self._specs, places, strict=True)}
        if self._keeps:
            self._seen, self._memory, self._views = places, memory, views
        return views

    def forget(self) -> None:
        """Let go of the views, so that the segment can go."""
        self._seen, self._memory, self._views = None, None, {}


def check_outputs(specs: Sequence[TensorSpec], outputs: Tensors) -> None:
    """Raise :class:`BackendError` unless an engine's outputs are what its signature says."""
    for spec in specs:
        array = outputs[spec.name]
        fits = array.dtype.kind in "OSU" if spec.dtype is DType.BYTES else array.dtype == spec.dtype.numpy
        if not fits or not _fits(spec, array.shape):
            raise BackendError(f"the engine's output '{spec.name}' is not what its signature says",
                               got=f"{array.dtype} {list(array.shape)}", expected=spec)  # fmt: skip


def _read(spec: TensorSpec, place: Place, segment: Segment) -> Array:
    count = _count(spec, place)
    if place.offset < 0 or place.offset % ALIGNMENT or place.offset + place.nbytes > len(segment.memory):
        raise BackendError(f"tensor '{spec.name}' lies outside its memory", got=f"{place.nbytes} at {place.offset}",
                           expected=f"aligned, in {len(segment.memory)} bytes")  # fmt: skip
    if spec.dtype is DType.BYTES:
        blob = segment.memory[place.offset : place.offset + place.nbytes]
        return _unpacked(spec.name, count, blob).reshape(place.shape)
    return np.ndarray(place.shape, spec.dtype.numpy, segment.memory, place.offset)


def _count(spec: TensorSpec, place: Place) -> int:
    """Elements of a shape that fits the spec and the bytes stated; a zero does not excuse the other dims."""
    extent = math.prod(size or 1 for size in place.shape)
    if not _fits(spec, place.shape) or not 0 < extent < _MAX_COUNT:
        raise BackendError(f"tensor '{spec.name}' has the wrong shape", got=list(place.shape), expected=spec)
    count = 0 if 0 in place.shape else extent
    right = place.nbytes >= 4 * count if spec.dtype is DType.BYTES else place.nbytes == count * spec.dtype.itemsize
    if not right:
        raise BackendError(f"tensor '{spec.name}' has the wrong size", got=f"{place.nbytes} bytes", expected=spec)
    return count


def _fits(spec: TensorSpec, shape: Shape) -> bool:
    """Rank and fixed dims; a named dim may have any size, also where an input bound it to another."""
    if len(shape) != len(spec.dims):
        return False
    return all(size >= 0 if isinstance(dim, str) else size == dim for dim, size in zip(spec.dims, shape, strict=True))


def _packed(name: str, tensor: Array) -> Array:
    """BYTES elements in row-major order, each behind its length as uint32, as the protocol's binary form has them."""
    parts: list[bytes] = []
    for item in tensor.ravel():
        if not isinstance(item, bytes | str):
            raise InputError(f"'{name}' has an element that is no text", got=type(item).__name__, expected="bytes")
        content = item.encode() if isinstance(item, str) else bytes(item)
        parts += (_LENGTH.pack(len(content)), content)
    return np.frombuffer(b"".join(parts), np.uint8)


def _unpacked(name: str, count: int, blob: bytes) -> Array:
    array = np.empty(count, dtype=object)
    place = 0
    for index in range(count):
        start = place + _LENGTH.size
        end = start + _LENGTH.unpack_from(blob, place)[0] if start <= len(blob) else start
        if end > len(blob):
            raise BackendError(f"text {index} of tensor '{name}' runs past its end", got=end, expected=len(blob))
        array[index] = blob[start:end]
        place = end
    if place != len(blob):
        raise BackendError(f"tensor '{name}' has bytes left over", got=len(blob), expected=place)
    return array
