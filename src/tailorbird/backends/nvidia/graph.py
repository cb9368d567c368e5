"""What the vendor's parser and builder refuse in a graph that is right by ONNX's rules, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.nvidia.types import TYPES
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.profile import Profile


class Graph(msgspec.Struct, frozen=True):
    """A graph to parse: a file, or bytes in its place whose weights may lie beside it."""

    path: Path
    content: bytes | None = None


def fitted(model: Path, ranges: Sequence[Profile]) -> Graph:
    """The graph as it is, or rewritten where the builder would refuse it at these shapes.

    Raises:
        BackendError: an input or output has a type that the library does not take as it is.
    """
    import onnx

    proto = onnx.load(str(model), load_external_data=False)
    _check_types(proto.graph)
    ambiguous = _ambiguous(proto.graph.input, ranges)
    if not ambiguous:
        return Graph(model)
    _part(proto.graph, ambiguous)
    return Graph(model, proto.SerializeToString())


def _check_types(graph: Any) -> None:
    known = {dtype.onnx: dtype for dtype in TYPES.values()}
    for value in (*graph.input, *graph.output):
        code = value.type.tensor_type.elem_type
        if code and code not in known:
            raise BackendError(f"'{value.name}' has a type that the runtime does not take", got=DType.from_onnx(code),
                               expected=", ".join(known.values()), hint="use another runtime")  # fmt: skip


def _ambiguous(inputs: Sequence[Any], ranges: Sequence[Profile]) -> frozenset[str]:
    """Names of dims that a profile sizes differently at different places.

    To the builder two dims of one name are one, and exporters call all that they do not know ``?``.
    """
    sizes: dict[str, set[tuple[int, ...]]] = {}
    for value in inputs:
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                edges = (edge[value.name][index] for one in ranges for edge in (one.min, one.opt, one.max))
                sizes.setdefault(dim.dim_param, set()).add(tuple(edges))
    return frozenset(name for name, found in sizes.items() if len(found) > 1)


def _part(graph: Any, names: frozenset[str]) -> None:
    """Give such dims of inputs names of their own, and those of other values, which follow from them, none."""
    for value in graph.input:
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param in names:
                dim.dim_param = f"{value.name}_{index}"
    for value in (*graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.ClearField("dim_param")
