"""Nodes that stay in FP32 for what they are, whatever the samples say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import onnx
from onnx import numpy_helper

from tailorbird.builder.quantise.onnx_graph import elements

HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN"})
"""Where nearly all the time goes: a low format pays there, and nowhere else is it worth much."""

MOVING = frozenset({
    "Abs", "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
"""What gives the numbers it gets: rounding cannot grow in it."""

_SUMS = {
    "CumSum": "its sums run on",
    "GroupNormalization": "its mean and variance are sums in the type of its input",
    "InstanceNormalization": "its mean and variance are sums in the type of its input",
    "LpNormalization": "its norm is a sum in the type of its input",
    "MeanVarianceNormalization": "its mean and variance are sums in the type of its input",
    "ReduceLogSum": "its sum is in the type of its input",
    "ReduceLogSumExp": "its sum is in the type of its input",
    "ReduceProd": "its products run on",
}
"""LayerNormalization is not among them: its first stage is FP32 by definition (ONNX, ``stash_type`` = 1)."""

ROOTS = frozenset({"Shape", "Size"})
"""What makes a shape of a value, and takes it in any type."""
_MOVED = frozenset({"Clip", "Identity", "Reshape", "Expand", "Squeeze", "Unsqueeze", "Transpose", "Pow"})
"""What has its data in the first input."""
_SHIFTS = frozenset({"Add", "Max", *_MOVED} - {"Pow"})
_STEPS = _SHIFTS | {"Sub", "Mul", "Div", "Pow", "Relu"}
_MEANS = frozenset({"ReduceMean", "ReduceSum", "GlobalAveragePool"})
_MOST = 24
"""Nodes of a variance at most: what is longer is something else."""

_SMALL = 256
"""Elements of a constant that shapes are computed with. What is looked up in a larger one is a weight."""

NORM = "is part of a normalisation: a variance, and what is divided by it"
SHAPES = "computes with shapes"


def reasons(model: onnx.ModelProto) -> dict[str, str]:
    """Why nodes stay, by name."""
    found = {node.name: SHAPES for node in _from_shapes(model)}
    found |= {node.name: _SUMS[node.op_type] for node in model.graph.node if node.op_type in _SUMS}
    found |= {
        node.name: "its first stage is not FP32 (stash_type)"
        for node in model.graph.node
        if node.op_type == "LayerNormalization" and _attribute(node, "stash_type", 1) != 1
    }
    return found | {node.name: NORM for node in _Norms(model).nodes()}


def _from_shapes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes that follow from shapes and small constants alone: sizes, scales, angles of positions."""
    constant = {tensor.name for tensor in model.graph.initializer if elements(tensor) <= _SMALL} | {""}
    derived: set[str] = set()
    for node in model.graph.node:
        rooted = node.op_type in ROOTS
        if rooted or (derived & set(node.input) and derived | constant >= set(node.input)):
            derived |= set(node.output)
            if not rooted:
                yield node


class _Norms:
    """Normalisations written out: x - mean, squared, averaged, a little added, the root taken, divided by.

    Recognised from the root backwards, so RMS norms and those with a Reciprocal are found, too.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._readers[name].append(node)

    def nodes(self) -> Iterator[onnx.NodeProto]:
        """All nodes of all of them; one may come twice."""
        for node in self._model.graph.node:
            before = self._variance(node) if self._is_root(node) else []
            if before:
                yield from before
                yield node
                yield from self._divisions(node)

    def _is_root(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Sqrt" or (node.op_type == "Pow" and self._number(node.input[1]) in (0.5, -0.5))

    def _variance(self, root: onnx.NodeProto) -> list[onnx.NodeProto]:
        """From squares and means to what the root is taken of; empty when it is no variance.

        Whether as the mean of squared differences or as the mean of squares less the square of the mean.
        """
        found: dict[str, onnx.NodeProto] = {}
        front, squared = [root.input[0]], False
        while front:
            node = self._makers.get(front.pop())
            if node is None or node.name in found:
                continue
            if node.op_type in _MEANS:
                square = self._makers.get(node.input[0])
                found[node.name] = node
                if square is not None and self._is_square(square):
                    squared = True
                    found |= {one.name: one for one in (square, *self._centred(square.input[0]))}
            elif node.op_type in _STEPS and len(found) < _MOST:
                found[node.name] = node
                front += node.input[: 1 if node.op_type in _MOVED else None]
            else:
                return []
        return list(found.values()) if squared else []

    def _is_square(self, node: onnx.NodeProto) -> bool:
        twice = node.op_type == "Mul" and node.input[0] == node.input[1]
        return twice or (node.op_type == "Pow" and self._number(node.input[1]) == 2.0)

    def _centred(self, name: str) -> list[onnx.NodeProto]:
        """The subtraction of the mean, and the mean."""
        node = self._makers.get(name)
        if node is None or node.op_type != "Sub":
            return []
        mean = self._makers.get(node.input[1])
        return [node, *([mean] if mean is not None and mean.op_type in _MEANS else [])]

    def _divisions(self, root: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        front = [root]
        while front:
            for reader in self._readers[front.pop().output[0]]:
                if reader.op_type in ("Div", "Mul"):
                    yield reader
                elif reader.op_type in ("Reciprocal", *_SHIFTS):
                    yield reader
                    front.append(reader)

    def _number(self, name: str) -> float | None:
        tensor = self._constants.get(name)
        if tensor is None or any(size != 1 for size in tensor.dims):
            return None
        return float(numpy_helper.to_array(tensor).reshape(()))


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((one.i for one in node.attribute if one.name == name), default)
