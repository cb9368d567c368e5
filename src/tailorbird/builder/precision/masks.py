"""Masks before a Softmax: -3.4e38 says "not this one", and a number that every format holds says it as well."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tailorbird.builder.graph.passes import reads
from tailorbird.domain.dtype import Array

REACH = 8192.0
"""What a mask's constants are brought to: exp(-8192) is 0 in FP32 as exp(-3.4e38) is, and two masks and large scores
together still stay well inside FP16."""

_LIMIT = 65504.0
"""Only what FP16 does not hold is touched, for either format, so that they differ in rounding only."""

_PASSING = frozenset({
    "Add", "Where", "Mul", "Expand", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Slice", "Concat", "Identity",
    "Gather", "Tile",
})  # fmt: skip
"""What carries a mask from its constant to the Softmax."""

_ENDS = frozenset({"Softmax", "LogSoftmax"})


def fitted(model: onnx.ModelProto) -> tuple[str, ...]:
    """Bring masks' constants into reach, in place.

    Only constants all of whose ways lead through such operators to a Softmax are touched. A row in which all is
    masked is uniform in FP32, because -3.4e38 swallows the scores; here its shares follow the scores.

    Returns:
        A note for each constant.
    """
    ways = _Ways(model)
    return tuple(
        f"mask '{tensor.name}': {float(array.min()):.3g} became {-REACH:g}"
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and _is_far(array := numpy_helper.to_array(tensor))
        if ways.end_in_softmax(tensor.name) and _bring(tensor, array)
    )


def _is_far(array: Array) -> bool:
    return bool((np.isfinite(array) & (array < -_LIMIT)).any())


def _bring(tensor: onnx.TensorProto, array: Array) -> bool:
    near = np.where(np.isfinite(array) & (array < -_LIMIT), np.float32(-REACH), array)
    tensor.CopyFrom(numpy_helper.from_array(near.astype(np.float32), tensor.name))
    return True


class _Ways:
    """Where values go."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in reads(node):
                self._readers[name].append(node)
        self._outputs = {value.name for value in model.graph.output}
        self._known: dict[str, bool] = {}

    def end_in_softmax(self, name: str) -> bool:
        """Whether every reader of a value is a Softmax, or passes it on to one."""
        if name not in self._known:
            self._known[name] = (
                name not in self._outputs and bool(self._readers[name]) and all(map(self._leads, self._readers[name]))
            )
        return self._known[name]

    def _leads(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _ENDS:
            return True
        return node.op_type in _PASSING and all(map(self.end_in_softmax, node.output))
