"""What one node costs: a rule for each operator, as a table.

Sources: the operators' definitions in the ONNX operator documentation (Operators.md); com.microsoft's in ONNX
Runtime's ContribOperators.md. 2 FLOPs for each multiply-add, as in the usual published figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from onnx.helper import get_attribute_value

from tailorbird.builder.graph.shapes import Value

Values = Mapping[str, Value]
Rule = Callable[["Operands"], int]


class UnknownCost(Exception):
    """No rule, or a cost that depends on data; the text says which."""


class Operands:
    """One node's shapes, as the rules read them."""

    def __init__(self, node: Any, values: Values) -> None:
        self._node = node
        self._values = values

    def input(self, index: int) -> Value:
        """An input that must be there; raises :class:`LookupError` otherwise."""
        return self._values[self._node.input[index]]

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self._node.input) and bool(self._node.input[index])

    @property
    def count(self) -> int:
        """Number of inputs."""
        return len(self._node.input)

    @property
    def read(self) -> int:
        """Elements of the first input."""
        return self.input(0).elements

    @property
    def output(self) -> Value:
        """The first output that is not left out."""
        return self._values[next(filter(None, self._node.output))]

    @property
    def out(self) -> int:
        """Elements of the first output."""
        return self.output.elements

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value, or the default."""
        for attribute in self._node.attribute:
            if attribute.name == name:
                return get_attribute_value(attribute)
        return default


def flops_of_node(node: Any, values: Values) -> int:
    """Operations of one node.

    Args:
        node: a ``NodeProto``.
        values: type and shape of each of its inputs and outputs.

    Raises:
        UnknownCost: there is no rule for the operator, or its cost depends on data.
        LookupError, ArithmeticError, ValueError: the shapes do not fit the operator.
    """
    rule = _RULES.get(node.op_type) if node.domain in {"", "ai.onnx", "com.microsoft"} else None
    if rule is None:
        raise UnknownCost("no rule for this operator")
    return rule(Operands(node, values))


def bytes_of_node(node: Any, values: Values) -> int:
    """Bytes that one node reads and writes: each input and output once.

    Nodes that rename, reshape or describe a value move nothing. Those that pick elements (``Gather``, ``Slice``)
    read as many as they write, and their indices, not the whole table.
    """
    if node.op_type in _MOVES_NOTHING:
        return 0
    written = sum(values[name].bytes for name in node.output if name)
    first, *others = (values[name].bytes if name else 0 for name in node.input) if node.input else (0,)
    if node.op_type in _PICKS:
        first = min(first, written)
    return written + first + sum(others)


def _free(_: Operands) -> int:
    return 0


def _each_output(factor: int) -> Rule:
    return lambda at: factor * at.out


def _each_input(factor: int) -> Rule:
    return lambda at: factor * at.read


def _variadic(at: Operands) -> int:
    """Sum, Max, Min: n-1 operations for each element; Mean: one more, the division."""
    return max(at.count - 1, 0) * at.out


def _conv(weights: int, bias: int) -> Rule:
    """Each output element: Cin/group x kernel multiply-adds, W being [Cout, Cin/group, k...]; one add for a bias."""
    return lambda at: at.out * (2 * math.prod(at.input(weights).shape[1:]) + int(at.has(bias)))


def _conv_transpose(at: Operands) -> int:
    """Each input element meets Cout/group x kernel weights, W being [Cin, Cout/group, k...]."""
    return 2 * at.read * math.prod(at.input(1).shape[1:]) + (at.out if at.has(2) else 0)


def _gemm(at: Operands) -> int:
    """M x N x K multiply-adds, and one add for each element when there is a C; alpha and beta count as folded."""
    k = at.input(0).shape[0 if at.attribute("transA", 0) else 1]
    return 2 * at.out * k + (at.out if at.has(2) else 0)


def _matmul(at: Operands) -> int:
    """Each output element: K multiply-adds, K being A's last dim (its second last when FusedMatMul transposes A)."""
    return 2 * at.out * at.input(0).shape[-2 if at.attribute("transA", 0) else -1]


def _matmul_nbits(at: Operands) -> int:
    return 2 * at.out * int(at.attribute("K", 0))


def _einsum(at: Operands) -> int:
    """One multiply-add for each point of the space of all labels, for each operand after the first.

    This is the cost of the plain nested loops; a runtime that contracts pairs in a good order needs less.
    """
    equation = at.attribute("equation", b"").decode().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "." in equation or len(terms) != at.count:
        raise UnknownCost("an Einsum with an ellipsis")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        sizes |= dict(zip(term, at.input(index).shape, strict=True))
    return 2 * math.prod(sizes.values()) * max(at.count - 1, 1)


def _recurrent(gates: int, elementwise: int) -> Rule:
    """RNN, GRU, LSTM: for each direction, step and row gates x H x (I + H) multiply-adds, then the cell.

    W is [directions, gates x H, I], R is [directions, gates x H, H], X holds steps x rows x I. Adding the two
    products costs gates x H, the bias as much again; ``elementwise`` are the operations of the cell for each hidden
    unit, one for each activation.
    """

    def rule(at: Operands) -> int:
        directions, _, size = at.input(1).shape
        hidden = at.input(2).shape[2]
        cells = directions * at.read // size if size else 0
        adds = gates * hidden * (2 if at.has(3) else 1)
        return cells * (2 * gates * hidden * (size + hidden) + adds + elementwise * hidden)

    return rule


def _pool(at: Operands) -> int:
    """Each output element looks at one kernel's worth of input."""
    return at.out * int(math.prod(at.attribute("kernel_shape", ())))


def _reduce_to_output(factor: int) -> Rule:
    """``factor`` operations for each input element, and one for each result (the division, root or logarithm)."""
    return lambda at: factor * at.read + at.out


def _resize(at: Operands) -> int:
    """Each output element weighs 2 (linear) or 4 (cubic) neighbours on each dim that changes; nearest is a copy."""
    taps = {b"nearest": 0, b"linear": 2, b"cubic": 4, b"bilinear": 2, b"bicubic": 4}
    mode = at.attribute("mode", b"nearest")
    if mode not in taps:
        raise UnknownCost(f"{mode.decode()} interpolation")
    changed = sum(old != new for old, new in zip(at.input(0).shape, at.output.shape, strict=True))
    return 2 * at.out * int(taps[mode] ** changed) if taps[mode] else 0


def _grid_sample(at: Operands) -> int:
    """4 neighbours of an image (8 of a volume), each a multiply-add; cubic takes 4 on each dim."""
    dims = len(at.input(0).shape) - 2
    taps = {b"nearest": 0, b"bilinear": 2, b"linear": 2, b"bicubic": 4, b"cubic": 4}[at.attribute("mode", b"linear")]
    return 2 * at.out * int(taps**dims) if taps else 0


def _attention(at: Operands) -> int:
    """QK' and the product with V, 2 x B x heads x Sq x Sk x D each, and a softmax of 5 for each score.

    Only the layout with Q, K and V as [B, S, hidden] or [B, heads, S, D], without a past.
    """
    query, key, value = at.input(0).shape, at.input(1).shape, at.input(2).shape
    if len(query) not in {3, 4} or len(key) != len(query) or len(value) != len(query):
        raise UnknownCost("an attention with packed or cached inputs")
    heads = query[1] if len(query) == 4 else int(at.attribute("num_heads", at.attribute("q_num_heads", 0)))
    scores = query[0] * query[-2] * key[-2]
    per_head = 1 if len(query) == 3 else heads
    return 2 * scores * per_head * (query[-1] + value[-1]) + 5 * scores * heads


def _data_dependent(_: Operands) -> int:
    raise UnknownCost("its cost depends on data or on a subgraph")


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


# fmt: off
_MOVES_NOTHING = frozenset({
    "Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze",
})
_PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})
# fmt: on

_RULES: dict[str, Rule] = {
    **_table(
        _free,
        "BitShift Cast CastLike Compress Concat Constant ConstantOfShape DepthToSpace Dropout "
        "Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Pad Range Reshape "
        "ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile "
        "Transpose Trilu Unsqueeze",
    ),
    **_table(
        _each_output(1),
        "Abs Acos Acosh Add And Asin Asinh Atan Atanh BiasGelu Ceil Celu Clip Cos Cosh Div Elu "
        "Equal Erf Exp FastGelu Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf IsNaN "
        "LeakyRelu Less LessOrEqual Log Mish Mod Mul Neg Not Or PRelu Pow QuickGelu Reciprocal Relu "
        "Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Swish Tan Tanh "
        "ThresholdedRelu Where Xor",
    ),
    **_table(_variadic, "Max Min Sum"),
    "Mean": lambda at: at.count * at.out,
    # The scale and shift that are left at inference.
    "BatchNormalization": _each_output(2),
    # Mean, subtract, square, mean, times 1/std, times gamma, plus beta.
    **_table(_each_output(7), "GroupNormalization InstanceNormalization LayerNormalization"),
    # The same and the skip's addition.
    "SkipLayerNormalization": _each_output(8),
    "MeanVarianceNormalization": _each_output(5),
    # Square, mean, times 1/rms, times gamma.
    **_table(_each_output(4), "RMSNormalization SimplifiedLayerNormalization"),
    "SkipSimplifiedLayerNormalization": _each_output(5),
    "LpNormalization": _each_output(3),
    # Square, sum over the window, scale and add, power, divide.
    "LRN": lambda at: at.out * (int(at.attribute("size", 0)) + 4),
    # Max, subtract, exp, sum, divide (or subtract the logarithm).
    **_table(_each_output(5), "LogSoftmax Softmax"),
    "Hardmax": _each_output(1),
    **_table(_each_output(2), "DequantizeLinear QuantizeLinear"),
    "DynamicQuantizeLinear": _each_output(4),
    **_table(_conv(weights=1, bias=2), "Conv FusedConv"),
    # Inputs 2 and 3 are zero points.
    "ConvInteger": _conv(weights=1, bias=4),
    "QLinearConv": _conv(weights=3, bias=8),
    "ConvTranspose": _conv_transpose,
    **_table(_gemm, "FusedGemm Gemm"),
    **_table(_matmul, "DynamicQuantizeMatMul FusedMatMul MatMul MatMulInteger MatMulIntegerToFloat QLinearMatMul"),
    "MatMulNBits": _matmul_nbits,
    "Einsum": _einsum,
    **_table(_attention, "Attention MultiHeadAttention"),
    # Cell operations for each hidden unit: RNN tanh; GRU 3 activations, r*h, (1-z)*h~ + z*h (4); LSTM 5
    # activations, f*c + i*g (3), o*tanh(c).
    "RNN": _recurrent(1, 1),
    "GRU": _recurrent(3, 8),
    "LSTM": _recurrent(4, 9),
    **_table(_pool, "AveragePool LpPool MaxPool"),
    **_table(_each_input(1), "ArgMax ArgMin CumSum GlobalMaxPool ReduceMax ReduceMin ReduceProd ReduceSum TopK"),
    **_table(_reduce_to_output(1), "GlobalAveragePool ReduceMean"),
    **_table(_reduce_to_output(2), "GlobalLpPool ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare"),
    **_table(_resize, "Resize Upsample"),
    "GridSample": _grid_sample,
    **_table(_data_dependent, "If Loop NonMaxSuppression NonZero RoiAlign Scan Unique"),
}
