"""Seeded inputs that respect the signature, for when the user gave none.

Floats are standard normal. Whole numbers are drawn from the range the graph can take: an input that
indexes a table is kept inside that table, bytes of rank 3 and more are pictures and take every value; any
other is 0 or 1, as a mask or a flag is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.signature import Shapes, Signature

if TYPE_CHECKING:  # a graph is read by who hands it in
    import onnx

_PASS_THROUGH = frozenset(
    {"Cast", "Clip", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)


def index_limits(model: onnx.ModelProto) -> dict[str, int]:
    """For each whole-number input that indexes constant tables through Gather: the smallest table's size."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    readers = _readers(model.graph)
    found = {}
    for value in model.graph.input:
        limits = [size for node in _reached(value.name, readers) for size in _table_size(node, sizes)]
        if limits:
            found[value.name] = min(limits)
    return found


def synthesise(signature: Signature, shapes: Shapes, limits: dict[str, int], seed: int) -> dict[str, Array]:
    """One set of inputs at concrete shapes; the same seed gives the same arrays on every machine."""
    random = np.random.default_rng(seed)
    return {spec.name: _draw(random, spec.dtype, shapes[spec.name], limits.get(spec.name))
            for spec in signature.inputs}  # fmt: skip


def _draw(random: np.random.Generator, dtype: DType, shape: tuple[int, ...], limit: int | None) -> Array:
    if dtype is DType.BYTES:
        return np.array([b"text %d" % n for n in random.integers(0, 100, shape).ravel()], object).reshape(shape)
    if dtype is DType.BF16:
        return (random.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if dtype.is_float and limit is None:
        return random.standard_normal(shape).astype(dtype.numpy)
    usual = 256 if dtype is DType.UINT8 and len(shape) >= 3 else 2
    return random.integers(0, usual if limit is None else max(limit, 1), shape).astype(dtype.numpy)


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _reached(name: str, readers: dict[str, list[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """Nodes that read the value itself, or a copy of it in another shape or type."""
    queue, seen = [name], {name}
    while queue:
        value = queue.pop()
        for node in readers.get(value, ()):
            if node.op_type in _PASS_THROUGH and node.input[0] == value:
                fresh = [output for output in node.output if output not in seen]
                seen.update(fresh)
                queue.extend(fresh)
            elif node.op_type in ("Gather", "OneHot") and value in node.input[:2]:
                yield node


def _table_size(node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]) -> Iterator[int]:
    if node.op_type == "Gather" and node.input[0] in sizes:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        yield sizes[node.input[0]][axis]
