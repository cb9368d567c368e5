"""Another operator set for a whole model, weights apart."""

from __future__ import annotations

import onnx
from onnx import version_converter

from tailorbird.builder.sources.onnx_file import without_weights

_IR = {19: 9, 20: 9, 21: 10, 22: 10}
"""File versions that go with operator sets (ONNX's table of versions)."""


def converted(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same model in another version of the default operator set.

    It is converted without its large weights, of which the converter would make several copies, and takes no more
    than 2 GiB; element types that were told stay told.

    Raises:
        Exception: the converter knows no way; it raises classes of its own.
    """
    light = without_weights(model)
    inputs = list(model.graph.input)
    made = version_converter.convert_version(light, opset)
    small = {tensor.name for tensor in made.graph.initializer}
    made.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in small)
    for field, values in (("input", inputs), ("value_info", model.graph.value_info)):
        made.graph.ClearField(field)
        getattr(made.graph, field).extend(values)
    made.ir_version = max(made.ir_version, _IR[opset])
    return made
