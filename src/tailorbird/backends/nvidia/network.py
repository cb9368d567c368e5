"""From an ONNX file to the vendor's network, every complaint of the parser gathered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tailorbird.backends.nvidia.graph import Graph
from tailorbird.backends.nvidia.messages import Heard
from tailorbird.domain.errors import BackendError
from tailorbird.domain.signature import Shapes


def network_of(trt: Any, builder: Any, graph: Graph, heard: Heard, logger: Any) -> tuple[Any, Any]:
    """A strongly typed network, and the parser, which must live as long as the network: it owns weights.

    TensorRT 11 and RTX know no other kind and ignore the flag; with it TensorRT 10 computes in the graph's own
    types, too, so that one graph means the same to all three.

    Raises:
        BackendError: the parser refused, with the node and its reason.
    """
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if graph.content is None:
        parsed = parser.parse_from_file(str(graph.path))
    else:
        parsed = parser.parse(graph.content, str(graph.path))  # weights beside the file are found relative to it
    complaints = tuple(_complaints(parser))
    for text in complaints:
        heard.add("error" if not parsed else "warning", text)
    if not parsed:
        raise BackendError("the runtime's parser refused the graph", got="; ".join(complaints) or "no reason given")
    _refuse_shape_inputs(network)
    return network, parser


def fix_shapes(network: Any, shapes: Shapes) -> None:
    """Give every input its one shape, so that all that follows from shapes is folded away."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name in shapes:
            tensor.shape = shapes[tensor.name]


def open_inputs(network: Any) -> tuple[str, ...]:
    """Names of the inputs whose shapes are not fixed."""
    inputs = (network.get_input(index) for index in range(network.num_inputs))
    return tuple(tensor.name for tensor in inputs if any(size < 0 for size in tensor.shape))


def _complaints(parser: Any) -> Iterator[str]:
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        name, kind = error.node_name(), error.node_operator()
        place = f"{kind} '{name}'" if kind else f"node {error.node()}"
        yield f"{place}: {' '.join(error.desc().split())}"


def _refuse_shape_inputs(network: Any) -> None:
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.is_shape_tensor:
            raise BackendError(f"input '{tensor.name}' gives a shape by its values",
                               expected="inputs that are data: the builder would have to be told which values come",
                               hint="fix that value in the source, or use another runtime")  # fmt: skip
