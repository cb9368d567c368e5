"""The graph that ONNX Runtime's quantiser is given, and what is promised of the one that comes out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tailorbird.backends.base import vendor_border
from tailorbird.backends.host import sums_int8_exactly
from tailorbird.builder.sources.onnx_file import read_model, without_weights, write_model
from tailorbird.domain.errors import TailorbirdError

_PREPARED = "prepared.onnx"

_FUSED = "/MatMulAddFusion"
"""What the runtime appends to the name of a MatMul that it made a Gemm of."""


def onnxruntime() -> Any:
    """The package, told to send nothing, as :mod:`tailorbird.backends.onnxruntime` does."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as vendor

    return vendor


def open_session(
    path: Path,
    threads: int,
    level: str = "ORT_ENABLE_ALL",
    optimised: Path | None = None,
    settings: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> Any:
    """A session on the CPU; ``optimised`` receives the graph as that level of optimisation leaves it.

    ``without`` names optimisers that are left out.
    """
    vendor = onnxruntime()
    options = vendor.SessionOptions()
    options.graph_optimization_level = getattr(vendor.GraphOptimizationLevel, level)
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if optimised:
        options.optimized_model_filepath = str(optimised)
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    return vendor.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )


def border() -> vendor_border:
    """Where the vendor's exceptions stop."""
    return vendor_border("onnxruntime", "quantise the model")


def seven_bits() -> bool:
    """Whether weights must be given one bit less.

    AVX2 and AVX-512 without VNNI multiply UINT8 by INT8 with ``vpmaddubsw``, which adds two products in 16 bits
    and saturates: 255 * 127 * 2 > 32767. Seven-bit weights cannot reach that (255 * 64 * 2 < 32767).
    """
    return not sums_int8_exactly()


def seven_bits_note() -> tuple[str, ...]:
    """What to tell of it."""
    return ("weights in 7 bits: without VNNI this CPU saturates 8-bit products",) if seven_bits() else ()


def prepared(path: Path, scratch: Path, threads: int, without: Sequence[str] = ()) -> onnx.ModelProto:
    """The model as the quantiser needs it: named, folded, typed.

    Every node has a name of its own, constants are computed, batch norms and additions are folded into the
    convolutions before them (both by ONNX Runtime's basic optimisations, which keep to ONNX's own operators),
    and every inner value has its element type.

    Args:
        path: a normalised ONNX file.
        scratch: a directory for a passing copy.
        threads: of the runtime.
        without: its optimisers to leave out.

    Raises:
        BackendError: ONNX Runtime refuses the model.
    """
    named = scratch / "named.onnx"
    model = name_nodes(read_model(path))
    write_model(model, named)
    with border():
        _optimise(named, scratch / _PREPARED, threads, without)
    named.unlink()
    made = _tidied(read_model(scratch / _PREPARED), model)
    with border():
        note_types(made, scratch / "types.onnx")
    return made


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every node gets a name of its own: the one it has, or its operator and first output."""
    taken: set[str] = set()
    for node in model.graph.node:
        plain = node.name or f"{node.op_type}_{next(filter(None, node.output), '')}"
        name, count = plain, 1
        while name in taken:
            count += 1
            name = f"{plain}__{count}"
        taken.add(name)
        node.name = name
    return model


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The initializers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def elements(tensor: onnx.TensorProto) -> int:
    """Product of the dims."""
    return int(np.prod(tensor.dims, dtype=np.int64))


def captured(model: onnx.ModelProto) -> set[str]:
    """Values of the main graph that a sub-graph of ``If``, ``Loop`` or ``Scan`` reads."""
    return {name for node in model.graph.node for graph in _subgraphs(node) for name in _inner_reads(graph)}


def own_constants(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give each node to be quantised constants of its own, and a bias of one dim.

    A shared one would carry its scales to every reader: an embedding tied to a classifier would be quantised too,
    and two products could not have their scales along different axes. A Gemm's bias of shape (1, n) ends the
    quantiser with "The truth value of an array with more than one element is ambiguous".
    """
    known = constants(model)
    readers = Counter(name for node in model.graph.node for name in _reads(node))
    for node in nodes:
        for index, name in enumerate(node.input):
            row = node.op_type == "Gemm" and index == 2
            if name in known and (readers[name] > 1 or row):
                copy = model.graph.initializer.add()
                copy.CopyFrom(known[name])
                copy.name = node.input[index] = f"{name}@{node.name}"
                copy.dims[:] = [elements(copy)] if row else copy.dims


def publish(model: onnx.ModelProto, source: Path, folder: Path) -> None:
    """Check what the quantiser made and write it as ``model.onnx``.

    Raises:
        TailorbirdError: a scale or another float constant is NaN or infinite and the source has none such, or
            an output is lost.
    """
    original = read_model(source)
    model.graph.ClearField("value_info")  # inferred for the graph before
    _sort(model.graph)
    _restore_interface(model, original)
    _check_outputs(model)
    _check_finite(model, original)
    write_model(model, folder / "model.onnx")


def _sort(graph: onnx.GraphProto) -> None:
    """Definitions before uses: the quantiser appends its nodes at the end."""
    nodes = list(graph.node)
    maker = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    needs = {number: [maker[name] for name in _reads(node) if name in maker] for number, node in enumerate(nodes)}
    ordered = [onnx.NodeProto.FromString(nodes[number].SerializeToString())
               for number in TopologicalSorter(needs).static_order()]  # fmt: skip
    del graph.node[:]
    graph.node.extend(ordered)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.input
    for graph in _subgraphs(node):
        yield from _inner_reads(graph)


def _optimise(source: Path, target: Path, threads: int, without: Sequence[str]) -> None:
    settings = {}
    if source.with_name(source.name + ".data").exists():
        settings["session.optimized_model_external_initializers_file_name"] = target.name + ".data"
    open_session(source, threads, "ORT_ENABLE_BASIC", target, settings, without)


def note_types(model: onnx.ModelProto, path: Path) -> None:
    """Say the element type of every inner float value, as the runtime knows it, its own operators included.

    ``path`` is where a passing copy without the weights may lie.
    """
    light = without_weights(model)
    declared = {value.name for value in light.graph.output}
    inner = [name for node in light.graph.node for name in node.output if name and name not in declared]
    light.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    path.write_bytes(light.SerializeToString())
    session = open_session(path, 1, "ORT_DISABLE_ALL")
    floats = {output.name for output in session.get_outputs() if output.type == "tensor(float)"}
    del model.graph.value_info[:]
    model.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner if name in floats
    )


def _tidied(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Without the operator sets that the runtime knows and the model does not use, and with the names it had.

    A MatMul and the Add behind it became one Gemm here. Left for later the runtime would still make it, from the
    dequantised product, and compute it in float.
    """
    used = {"", *(node.domain for node in _all_nodes(model.graph)), *(entry.domain for entry in original.opset_import)}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.ir_version = original.ir_version
    _restore_interface(model, original)
    for node in model.graph.node:
        node.name = node.name.removesuffix(_FUSED)
    return name_nodes(model)


def _restore_interface(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """The declared inputs, outputs and properties: the tools rewrite names of dynamic dims, and add marks."""
    for field in ("input", "output"):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(getattr(original.graph, field))
    model.ClearField("metadata_props")
    model.metadata_props.extend(original.metadata_props)


def _check_outputs(model: onnx.ModelProto) -> None:
    """The declared outputs are the source's; each must still be computed."""
    known = {name for node in model.graph.node for name in node.output} | set(constants(model))
    known |= {value.name for value in model.graph.input}
    lost = [value.name for value in model.graph.output if value.name not in known]
    if lost:
        raise TailorbirdError(f"quantising lost the output '{lost[0]}'")


def _check_finite(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    if any(not _is_finite(tensor) for tensor in original.graph.initializer):
        return
    for tensor in model.graph.initializer:
        if not _is_finite(tensor):
            raise TailorbirdError(
                f"quantising made '{tensor.name}' NaN or infinite", expected="finite scales, as in the source",
                hint="look for NaN or infinite values in the calibration data",
            )  # fmt: skip


def _is_finite(tensor: onnx.TensorProto) -> bool:
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    return tensor.data_type not in floats or bool(np.isfinite(numpy_helper.to_array(tensor)).all())


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _inner_reads(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in graph.output)
    for node in graph.node:
        yield from _reads(node)


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in _subgraphs(node):
            yield from _all_nodes(inner)
