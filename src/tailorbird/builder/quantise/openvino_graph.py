"""OpenVINO graphs as the NNCF methods need them: read with lasting names, judged, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tailorbird.backends.base import vendor_border
from tailorbird.builder.quantise.methods import Unit
from tailorbird.builder.quantise.nncf_package import Promise

MODEL = "model.xml"

SMOOTHED = "nncf_smooth_quant"
"""Part of the name of the Multiply by which NNCF takes outliers from an activation into the weights."""

CARRIERS = frozenset(
    (
        *("Reshape", "Squeeze", "Unsqueeze", "Transpose", "Split", "VariadicSplit", "Concat", "Slice", "StridedSlice"),
        *("Tile", "Broadcast", "Pad", "ShuffleChannels", "DepthToSpace", "SpaceToDepth", "BatchToSpace"),
        *("SpaceToBatch", "Gather", "GatherND", "GatherElements", "ReverseSequence", "MaxPool", "ReduceMax"),
    )
)
"""Operations that only move or pick values: what is quantised above one is quantised below it."""

IDLE = frozenset({"ShapeOf", "Result"})
"""Operations to which it makes no difference whether what they read is quantised."""

_NO_UNITS = frozenset({"FakeQuantize", *IDLE, *CARRIERS})
_STORED = frozenset({"i8", "u8", "i4", "u4"})


def read_onnx(path: Path, proto: onnx.ModelProto) -> Any:
    """An ONNX file as ``openvino.Model``, simplified, with names of operations that are the same in every process.

    ``convert_model``, unlike ``read_model``, folds batch normalisation into convolutions and makes whole operations
    out of parts (swish, GELU, normalisation): measured on PP-OCR's classifier, that halves the number of values that
    are quantised and takes the outputs from 29 to 43 dB. OpenVINO numbers what has no name in the file by a counter
    of the process; here such an operation is called by its type and its place in topological order, ``MatMul#12``.

    Args:
        path: the normalised file.
        proto: the same, parsed; weights may be absent.

    Raises:
        BackendError: OpenVINO refused, with its own words.
    """
    with vendor_border("openvino", "read the model"):
        import openvino

        graph = openvino.convert_model(str(path))
    known = {name for node in proto.graph.node for name in (node.name, *node.output) if name}
    known |= {value.name for value in (*proto.graph.input, *proto.graph.initializer)}
    _name_nodes(graph, known)
    return graph


def read(path: Path) -> Any:
    """An OpenVINO IR as ``openvino.Model``; raises :class:`BackendError` with OpenVINO's words."""
    with vendor_border("openvino", "read the model"):
        import openvino

        return openvino.Core().read_model(str(path))


def write(graph: Any, folder: Path) -> str:
    """Write ``model.xml`` and ``model.bin``, weights as they are; returns the former's name."""
    with vendor_border("openvino", "write the quantised model"):
        import openvino

        openvino.save_model(graph, str(folder / MODEL), compress_to_fp16=False)
    return MODEL


def units_of(graph: Any) -> tuple[Unit, ...]:
    """Every operation that runs quantised, in topological order.

    That is one whose weights are stored in INT8, or one of whose inputs comes from a FakeQuantize, be it through
    operations that only move values.
    """
    fixed = fixed_names(graph)
    return tuple(
        Unit(node.get_friendly_name(), node.get_type_name(), _elements(node, fixed))
        for node in graph.get_ordered_ops()
        if node.get_friendly_name() not in fixed and _is_unit(node, fixed)
    )


def fixed_names(graph: Any) -> frozenset[str]:
    """Names of operations that follow from constants alone: weights, and what unpacks them."""
    fixed: set[str] = set()
    for node in graph.get_ordered_ops():
        sources = [value.get_node().get_friendly_name() for value in node.input_values()]
        if node.get_type_name() == "Constant" or (sources and fixed.issuperset(sources)):
            fixed.add(node.get_friendly_name())
    return frozenset(fixed)


def is_altered(source: Any) -> bool:
    """Whether an output is not the float graph's own: quantised or smoothed there or above, past carriers."""
    node = source.get_node()
    if node.get_type_name() == "FakeQuantize" or SMOOTHED in node.get_friendly_name():
        return True
    return node.get_type_name() in CARRIERS and any(map(is_altered, node.input_values()))


def promise_of(graph: Any) -> Promise:
    """What quantising must leave as it is, of a graph before or after."""
    return Promise(
        signature=tuple(_port(port) for port in (*graph.inputs, *graph.outputs)),
        broken=frozenset(node.get_friendly_name() for node in graph.get_ops() if _reads_broken(node)),
    )


def _name_nodes(graph: Any, known: set[str]) -> None:
    """Names from the file stay, and those made from one (``conv1/WithoutBiases``), unless they are taken already."""
    taken: set[str] = set()
    nodes = list(enumerate(graph.get_ordered_ops()))
    for place, node in sorted(nodes, key=lambda one: one[1].get_type_name() == "Constant"):  # a weight gives way
        name = node.get_friendly_name()
        if name in taken or (name not in known and name.rpartition("/")[0] not in known):
            name = f"{node.get_type_name()}#{place}"
            node.set_friendly_name(name)
        taken.add(name)


def _is_unit(node: Any, fixed: frozenset[str]) -> bool:
    if SMOOTHED in node.get_friendly_name():
        return False
    sources = node.input_values()
    stored = any(_is_stored(one) for one in sources if one.get_node().get_friendly_name() in fixed)
    return stored or (node.get_type_name() not in _NO_UNITS and any(map(is_altered, sources)))


def _is_stored(source: Any) -> bool:
    """Whether a constant's value is unpacked from INT8."""
    node = source.get_node()
    if node.get_type_name() == "Constant":
        return False
    return node.get_type_name() == "FakeQuantize" or any(
        _is_packed(one) or _is_stored(one) for one in node.input_values()
    )


def _is_packed(source: Any) -> bool:
    return source.get_node().get_type_name() == "Constant" and source.get_element_type().get_type_name() in _STORED


def _elements(node: Any, fixed: frozenset[str]) -> int:
    """Of its float constants: shapes, axes and indices are no weights."""
    constants = [one for one in node.input_values() if one.get_node().get_friendly_name() in fixed]
    return sum(int(np.prod(one.get_shape(), dtype=np.int64)) for one in constants if one.get_element_type().is_real())


def _port(port: Any) -> str:
    return f"{'/'.join(sorted(port.get_names()))} {port.get_element_type()} {port.get_partial_shape()}"


def _reads_broken(node: Any) -> bool:
    sources = [value.get_node() for value in node.input_values() if value.get_element_type().is_real()]
    return any(one.get_type_name() == "Constant" and not np.isfinite(one.data).all() for one in sources)
