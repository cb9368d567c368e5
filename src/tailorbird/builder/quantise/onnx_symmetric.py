"""Q/DQ pairs as TensorRT wants them: symmetric INT8, or FP8, with biases in float.

Zero points are 0, weights are stored quantised with a DequantizeLinear behind them (per channel in INT8), activations
have one scale. There is no INT32 bias with a DequantizeLinear, which TensorRT refuses, nor any UINT8. Only the inputs
of convolutions and matrix products with constant weights are quantised, so that a product, its bias, the Add of a
residual and the activation after it stay one kernel that gives INT8 on to the next. Of an Add behind a convolution
the other input is quantised, too: TensorRT fuses the sum into the convolution when the residual is INT8 as well
("Optimising placement of Q/DQ layers" in its developer guide). An Add without a convolution of its own has both.
Biases of convolutions make up for what rounding the weights does to means.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tailorbird.builder.graph.opset import converted
from tailorbird.builder.graph.passes import free_name, opset_of
from tailorbird.builder.quantise import onnx_bias, onnx_ranges
from tailorbird.builder.quantise.methods import QuantiseArgs, Quantised
from tailorbird.builder.quantise.onnx_bias import Means
from tailorbird.builder.quantise.onnx_graph import border, captured, constants, own_constants, prepared, publish
from tailorbird.builder.quantise.onnx_islands import Islands
from tailorbird.builder.quantise.onnx_scales import STYLES, Style
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.quantisation import Ranges

_LEFT_OUT = ("MatMulAddFusion",)
"""Of ONNX Runtime's basic optimisations: with three dims its Gemm would stand between two reshapes."""


def quantise(args: QuantiseArgs) -> Quantised:
    """Write the quantised graph; see :mod:`tailorbird.builder.quantise.methods`.

    Ranges and means are kept beside the graph, and a graph with units kept in float reads them from the one it is
    made from.

    Raises:
        TailorbirdError: nothing can be quantised, there are no samples, or the result is not finite.
        BackendError: the vendor's tool failed.
    """
    source, style = Path(args.model), STYLES[args.quantisation.method]
    with tempfile.TemporaryDirectory() as scratch:
        model = _in_opset(prepared(source, Path(scratch), args.threads, _LEFT_OUT), style)
        whole = Islands(model)
        if not whole.units:
            raise TailorbirdError("nothing to quantise", got="no Conv, MatMul or Gemm with constant weights")
        places = _Places(model, whole)
        found = _ranges(args, model, places.values, Path(scratch), style)
        blind = sorted({node.input[0] for node in places.units} - set(found.ranges))
        means = _means(args, model, places, Path(scratch)) if style.corrects else {}
        islands = Islands(model, args.quantisation.kept, barred=blind)
        if islands.units:
            model = _quantised(model, islands, _Pairs(model, found, means, style))
        publish(model, source, Path(args.folder))
    notes = tuple(f"'{name}' stays in float: it has no finite range" for name in blind)
    return Quantised("model.onnx", islands.units, notes)


def _in_opset(model: onnx.ModelProto, style: Style) -> onnx.ModelProto:
    """In an operator set that has the type."""
    if opset_of(model) >= style.opset:
        return model
    with border():
        return converted(model, style.opset)


def _ranges(
    args: QuantiseArgs, model: onnx.ModelProto, values: list[str], scratch: Path, style: Style
) -> onnx_ranges.Found:
    if args.base:
        return onnx_ranges.load(Path(args.base))
    method = args.quantisation.ranges or Ranges.MINMAX
    found = onnx_ranges.find(model, values, args.samples, method, scratch, args.threads, style.levels)
    onnx_ranges.save(found, Path(args.folder))
    return found


def _means(args: QuantiseArgs, model: onnx.ModelProto, places: _Places, scratch: Path) -> Means:
    """Of what convolutions take: their biases are corrected, and other products have none of their own."""
    if args.base:
        return onnx_bias.load(Path(args.base))
    values = list(dict.fromkeys(node.input[0] for node in places.units if node.op_type == "Conv"))
    means = onnx_bias.channel_means(model, values, args.samples, scratch, args.threads)
    onnx_bias.save(means, Path(args.folder))
    return means


class _Places:
    """Where pairs go: which input of which node."""

    def __init__(self, model: onnx.ModelProto, islands: Islands) -> None:
        heavy = {unit.name for unit in islands.units}
        self.units = [node for node in model.graph.node if node.name in heavy]
        self._reads = Counter(name for node in model.graph.node for name in node.input)
        self._weights = constants(model)
        self._fixed = captured(model) | {value.name for value in model.graph.output}
        self.residuals = list(self._residuals(model))
        """(node, position) of inputs of Adds."""

    @property
    def values(self) -> list[str]:
        """Values that may get a pair, whichever units are kept in float later: of an Add either input."""
        named = [node.input[0] for node in self.units] + [name for node, _ in self.residuals for name in node.input]
        return list(dict.fromkeys(named))

    def _residuals(self, model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, int]]:
        """Adds of two values of which one is a quantised convolution's, or both are quantised elsewhere anyway."""
        products = {node.output[0] for node in self.units if node.op_type == "Conv"}
        taken = {node.input[0] for node in self.units}
        for node in model.graph.node:
            if node.op_type != "Add" or any(name in self._weights for name in node.input):
                continue
            fused = [index for index, name in enumerate(node.input) if name in products and self._is_alone(name)]
            if fused:
                yield node, 1 - fused[-1]
            elif all(name in taken | products for name in node.input):
                yield from ((node, index) for index in (0, 1))

    def _is_alone(self, name: str) -> bool:
        """Whether the Add is all that reads it."""
        return self._reads[name] == 1 and name not in self._fixed


def _quantised(model: onnx.ModelProto, islands: Islands, work: _Pairs) -> onnx.ModelProto:
    """Pairs put in, in place."""
    places = _Places(model, islands)
    own_constants(model, places.units)
    work.begin()
    for node in places.units:
        work.weight(node)
        node.input[0] = work.pair(node.input[0])
    for node, index in places.residuals:
        if work.knows(node.input[index]):
            node.input[index] = work.pair(node.input[index])
    work.finish()
    return model


class _Pairs:
    """Makes pairs, one for each value, however many read it."""

    def __init__(self, model: onnx.ModelProto, found: onnx_ranges.Found, means: Means, style: Style) -> None:
        self._model = model
        self._found = found
        self._means = means
        self._style = style
        self._known: dict[str, onnx.TensorProto] = {}
        self._made: dict[str, str] = {}
        self._added: list[onnx.TensorProto] = []
        self._dropped: set[str] = set()
        self._taken: set[str] = set()

    def begin(self) -> None:
        """Look at the constants, of which each unit has its own now, and at the names that are taken."""
        self._known = constants(self._model)
        nodes = self._model.graph.node
        self._taken = {*self._known, *(value.name for value in self._model.graph.input)}
        self._taken |= {name for node in nodes for name in (node.name, *node.output)}

    def knows(self, name: str) -> bool:
        """Whether a value has a range."""
        return name in self._found.ranges

    def pair(self, name: str) -> str:
        """The name of an activation after its pair."""
        if name not in self._made:
            scale = self._constant(f"{name}_scale", self._style.scale_of(*self._found.ranges[name]))
            zero = self._zero(f"{name}_zero_point")
            narrow = self._add("QuantizeLinear", [name, scale, zero], f"{name}_quantized")
            self._made[name] = self._add("DequantizeLinear", [narrow, scale, zero], f"{name}_dequantized")
        return self._made[name]

    def weight(self, node: onnx.NodeProto) -> None:
        """Give a node its weight behind a DequantizeLinear, and correct its bias; its first input is still its own."""
        name = node.input[1]
        array = numpy_helper.to_array(self._known[name])
        axis = _channel_axis(node) if self._style.per_channel else None
        scale = self._style.weight_scales(array, axis)
        steps = self._style.narrowed(array, scale, axis)
        self._correct(node, array - self._style.restored(steps, scale, axis))
        narrow = numpy_helper.from_array(steps, free_name(f"{name}_quantized", self._taken))
        self._added.append(narrow)
        self._dropped.add(name)
        zero = self._zero(f"{name}_zero_point", *scale.shape)
        inputs = [narrow.name, self._constant(f"{name}_scale", scale), zero]
        node.input[1] = self._add("DequantizeLinear", inputs, f"{name}_dequantized", axis)

    def _correct(self, node: onnx.NodeProto, error: Array) -> None:
        means = self._means.get(node.input[0]) if node.op_type == "Conv" else None
        if means is None:
            return
        group = next((one.i for one in node.attribute if one.name == "group"), 1)
        shift = onnx_bias.shift_of(error.astype(np.float64), np.array(means), group)
        old = next(iter(node.input[2:]), "")
        bias = numpy_helper.to_array(self._known[old]) if old else 0.0
        self._dropped.add(old)
        self._taken.discard(old)
        del node.input[2:]
        node.input.append(self._constant(old or f"{node.name}_bias", bias + shift))

    def finish(self) -> None:
        """Constants that were replaced go, the new ones come."""
        kept = [tensor for tensor in self._model.graph.initializer if tensor.name not in self._dropped]
        copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in [*kept, *self._added]]
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend(copies)

    def _constant(self, name: str, value: Array) -> str:
        name = free_name(name, self._taken)
        self._added.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def _zero(self, name: str, *shape: int) -> str:
        """Zero points say the type, and that of weights has the shape of the scales."""
        name = free_name(name, self._taken)
        self._added.append(numpy_helper.from_array(np.zeros(shape, self._style.dtype), name))
        return name

    def _add(self, kind: str, inputs: list[str], output: str, axis: int | None = None) -> str:
        """Add a node; returns the name that its output has."""
        along = {} if axis is None else {"axis": axis}
        output = free_name(output, self._taken)
        name = free_name(f"{output}_{kind}", self._taken)
        self._model.graph.node.append(helper.make_node(kind, inputs, [output], name=name, **along))
        return output


def _channel_axis(node: onnx.NodeProto) -> int:
    """Where a weight's output channels are."""
    if node.op_type == "Conv":
        return 0
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    return 0 if node.op_type == "Gemm" and transposed else 1
