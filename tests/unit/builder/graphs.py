"""Small ONNX models, as files and as messages."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None] | None


def value(name: str, dims: Dims, elem_type: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, elem_type, dims)


def weight(name: str, *shape: int, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype), name)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Sequence[Any] = (),
    opset: int = 17,
    **graph: Any,
) -> onnx.ModelProto:
    made = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights), **graph)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def linear(rows: int | str | None = "rows", width: int = 4, out: int = 3) -> onnx.ModelProto:
    """One layer: y = relu(x @ w + b)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="product"),
        helper.make_node("Add", ["xw", "b"], ["s"], name="shift"),
        helper.make_node("Relu", ["s"], ["y"], name="relu"),
    ]
    return model(
        nodes, [value("x", [rows, width])], [value("y", [rows, out])], [weight("w", width, out), weight("b", out)]
    )


def externalise(tensor: Any, folder: Path, location: str, **entries: str) -> bytes:
    """Move a tensor's bytes to a file beneath ``folder``; entries add to or replace its keys, None leaves one out."""
    data = bytes(tensor.raw_data)
    path = folder / location
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    point_to(tensor, location=location, **entries)
    return data


def point_to(tensor: Any, **entries: str) -> None:
    """Make a tensor name external data."""
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in entries.items():
        tensor.external_data.add(key=key, value=text)


def save(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path
