"""Which nodes to quantise: the heavy ones with constant weights, and what lies between them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable

import onnx
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.quantise.methods import Unit
from tailorbird.builder.quantise.onnx_graph import captured, constants, elements
from tailorbird.domain.errors import TailorbirdError

HEAVY = ("Conv", "MatMul", "Gemm")
"""Where INT8 pays: they have kernels that multiply in INT8."""

# fmt: off
BETWEEN = frozenset({
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Relu",
    "Reshape", "Resize", "Sigmoid", "Squeeze", "Transpose", "Unsqueeze",
})
# fmt: on
"""What runs on quantised values too, so that no conversion stands between two heavy nodes."""


class Islands:
    """The nodes to quantise, for some units kept in float.

    A node between is quantised when every input that is not constant comes quantised and some reader of its
    output is quantised too. The fewer units are left, the fewer nodes are between: what a mixed graph needs is
    a part of what the whole one needs, so ranges found once serve all.

    Args:
        model: from :func:`tailorbird.builder.quantise.onnx_graph.prepared`.
        kept: names of units to leave in float.
        heavy: operators that are units.
        flows: operators whose output is quantised of itself; the others give float back.
        barred: values that cannot be quantised.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        kept: Iterable[str] = (),
        heavy: tuple[str, ...] = HEAVY,
        flows: tuple[str, ...] = ("Conv",),
        barred: Iterable[str] = (),
    ) -> None:
        self._weights = constants(model)
        self._flows = flows
        self._barred = set(barred) | _passed_on(model)
        self._types = _element_types(model)
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._float = captured(model) | {value.name for value in model.graph.output if value.name in self._readers}
        left = set(kept)
        self._heavy = [node for node in model.graph.node if _is_standard(node, heavy) and self._fits(node)]
        self._check_known(left)
        self._heavy = [node for node in self._heavy if node.name not in left]
        self._between = self._led_on(self._fed(model))

        self.nodes = [*self._heavy, *self._between]
        """All nodes to quantise."""
        self.units = tuple(Unit(node.name, node.op_type, self._weight_elements(node)) for node in self._heavy)
        """The heavy ones, in topological order."""
        self.values = self._active()
        """Values whose range must be known: what goes in, and what comes out quantised, constants apart."""

    def _active(self) -> list[str]:
        float_out = {node.name for node in self._heavy if node.op_type not in self._flows}
        named = {name: None for node in self.nodes for name in node.input}
        named |= {name: None for node in self.nodes if node.name not in float_out for name in node.output}
        return [name for name in named if name not in self._weights and self._types.get(name) == TensorProto.FLOAT]

    def _check_known(self, left: set[str]) -> None:
        unknown = sorted(left - {node.name for node in self._heavy})
        if unknown:
            raise TailorbirdError(f"no unit is named '{unknown[0]}'", hint="units are listed with the quantised graph")

    def _fits(self, node: onnx.NodeProto) -> bool:
        """Whether its kernel exists: float, constant weights, nothing that a sub-graph reads."""
        weight = self._weights.get(node.input[1])
        if weight is None or weight.data_type != TensorProto.FLOAT or node.input[0] in self._weights:
            return False
        biases = [self._weights.get(name) for name in node.input[2:] if name]
        return self._is_free(node) and None not in biases and _SHAPED[node.op_type](node, weight, *biases)

    def _is_free(self, node: onnx.NodeProto) -> bool:
        """Whether its values can be quantised: sub-graphs, and callers who see an inner value, must find it in float.

        The quantiser would give them a value after the Relu that it dropped, or none.
        """
        return not self._barred & {*node.input, *node.output} and not self._float & set(node.output)

    def _fed(self, model: onnx.ModelProto) -> list[onnx.NodeProto]:
        """Nodes between that get quantised values only."""
        heavy = {node.name for node in self._heavy}
        quantised: set[str] = set()
        fed = []
        for node in model.graph.node:
            if node.name in heavy and node.op_type in self._flows:
                quantised |= set(node.output)
            elif _is_standard(node, BETWEEN) and self._is_fed(node, quantised):
                quantised |= set(node.output)
                fed.append(node)
        return fed

    def _is_fed(self, node: onnx.NodeProto, quantised: set[str]) -> bool:
        floats = [name for name in node.input if name and self._types.get(name) == TensorProto.FLOAT]
        data = floats if node.op_type in _SEVERAL else floats[:1]
        flowing = [name for name in data if name not in self._weights]
        keeps_zero = node.op_type != "Clip" or self._clips_around_zero(node)
        return bool(flowing) and set(flowing) <= quantised and self._is_free(node) and keeps_zero

    def _clips_around_zero(self, node: onnx.NodeProto) -> bool:
        """The quantiser drops a Clip and lets the range clip; but every range is widened to hold 0."""
        limits = [self._weights.get(name) for name in node.input[1:] if name]
        if None in limits:
            return False
        low, high = ([*node.input[1:], "", ""])[:2]
        return (not low or float(numpy_helper.to_array(self._weights[low])) <= 0) and (
            not high or float(numpy_helper.to_array(self._weights[high])) >= 0
        )

    def _led_on(self, fed: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Those whose output some quantised node reads."""
        wanted = {node.name for node in self._heavy}
        kept = []
        for node in reversed(fed):
            if any(reader.name in wanted for name in node.output for reader in self._readers[name]):
                wanted.add(node.name)
                kept.append(node)
        return kept[::-1]

    def _weight_elements(self, node: onnx.NodeProto) -> int:
        return sum(elements(self._weights[name]) for name in node.input if name in self._weights)


_SEVERAL = ("Add", "Mul", "Concat")
"""Operators whose every input is data."""


def _is_standard(node: onnx.NodeProto, operators: Container[str]) -> bool:
    return node.op_type in operators and node.domain in ("", "ai.onnx")


def _is_plain_gemm(node: onnx.NodeProto, weight: onnx.TensorProto, bias: onnx.TensorProto | None = None) -> bool:
    """QGemm takes alpha for the bias too, and the quantiser forgets it; the bias must be one number a column."""
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    columns = weight.dims[0 if given.get("transB") else 1]
    row = bias is None or (elements(bias) == columns and bias.dims[-1] == columns)
    return row and given.get("alpha", 1.0) == 1.0 and given.get("beta", 1.0) == 1.0 and not given.get("transA", 0)


_SHAPED: dict[str, Callable[..., bool]] = {
    "Conv": lambda *_: True,
    "MatMul": lambda _node, weight: len(weight.dims) == 2,
    "Gemm": _is_plain_gemm,
}


def _passed_on(model: onnx.ModelProto) -> set[str]:
    """Inputs that are outputs too: the quantiser would define them twice."""
    return {value.name for value in model.graph.input} & {value.name for value in model.graph.output}


def _element_types(model: onnx.ModelProto) -> dict[str, int]:
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}
