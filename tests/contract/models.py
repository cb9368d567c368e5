"""Small real models, each with its signature, shapes, inputs and what numpy says comes out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tailorbird.domain.dtype import DType
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Case:
    name: str
    model: onnx.ModelProto
    signature: Signature
    profile: Profile
    inputs: Arrays
    expect: Callable[..., Arrays]

    def expected(self, inputs: Mapping[str, Any] | None = None) -> Arrays:
        return self.expect(**(inputs or self.inputs))

    def names(self) -> tuple[set[str], set[str]]:
        """Names of the graph's nodes, and of the values that they give out."""
        nodes = self.model.graph.node
        return {one.name for one in nodes}, {value for one in nodes for value in one.output}

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.name}.onnx"
        onnx.save_model(self.model, path)
        return path


def spec(name: str, dtype: DType, *dims: int | str) -> TensorSpec:
    return TensorSpec(name, dtype, dims)


def model(nodes: Sequence[Any], signature: Signature, **weights: Any) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [_value(one) for one in signature.inputs],
        [_value(one) for one in signature.outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def profile(inputs: Arrays, small: Mapping[str, Any], large: Mapping[str, Any]) -> Profile:
    return Profile(min=dict(small), opt={name: array.shape for name, array in inputs.items()}, max=dict(large))


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def _value(one: TensorSpec) -> Any:
    return helper.make_tensor_value_info(one.name, one.dtype.onnx, list(one.dims))


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def dense() -> Case:
    weight = numbers(16, 8, seed=1)
    signature = Signature((spec("x", DType.FP32, "rows", 16),), (spec("y", DType.FP32, "rows", 8),))
    inputs = {"x": numbers(3, 16)}
    return Case(
        "dense",
        model([node("MatMul", "x w", "xw"), node("Relu", "xw", "y")], signature, w=weight),
        signature,
        profile(inputs, {"x": (1, 16)}, {"x": (8, 16)}),
        inputs,
        lambda x: {"y": np.maximum(x @ weight, 0)},
    )


def embedding() -> Case:
    table = numbers(10, 4, seed=2)
    signature = Signature((spec("ids", DType.INT64, "rows", "words"),), (spec("e", DType.FP32, "rows", "words", 4),))
    inputs = {"ids": np.array([[1, 9, 0], [3, 3, 7]], np.int64)}
    return Case(
        "embedding",
        model([node("Gather", "table ids", "e", axis=0)], signature, table=table),
        signature,
        profile(inputs, {"ids": (1, 1)}, {"ids": (4, 6)}),
        inputs,
        lambda ids: {"e": table[ids]},
    )


def whole_numbers() -> Case:
    signature = Signature((spec("i", DType.INT32, "rows"),), (spec("o", DType.INT32, "rows"),))
    inputs = {"i": np.array([-7, 0, 5], np.int32)}
    return Case(
        "whole_numbers",
        model([node("Add", "i k", "o")], signature, k=np.array([3], np.int32)),
        signature,
        profile(inputs, {"i": (1,)}, {"i": (5,)}),
        inputs,
        lambda i: {"o": i + np.int32(3)},
    )


def convolution() -> Case:
    weight = numbers(2, 3, 1, 1, seed=3)
    signature = Signature((spec("image", DType.FP32, 1, 3, "h", "w"),), (spec("map", DType.FP32, 1, 2, "h", "w"),))
    inputs = {"image": numbers(1, 3, 6, 5)}
    return Case(
        "convolution",
        model([node("Conv", "image k", "map")], signature, k=weight),
        signature,
        profile(inputs, {"image": (1, 3, 2, 2)}, {"image": (1, 3, 300, 200)}),
        inputs,
        lambda image: {"map": np.einsum("bchw,oc->bohw", image, weight[:, :, 0, 0])},
    )


def choice() -> Case:
    """Three inputs of three types, one a scalar; outputs whose order is not the alphabet's."""
    signature = Signature(
        (spec("which", DType.BOOL, "n"), spec("a", DType.FP32, "n"), spec("scale", DType.FP32)),
        (spec("z", DType.FP32, "n"), spec("not", DType.BOOL, "n"), spec("m", DType.FP32, "n")),
    )
    inputs = {
        "which": np.array([True, False, True]),
        "a": np.array([1, 2, -3], np.float32),
        "scale": np.array(2.5, np.float32),
    }
    nodes = [
        node("Mul", "a scale", "m"),
        node("Where", "which m a", "z"),
        node("Not", "which", "not"),
    ]
    return Case(
        "choice",
        model(nodes, signature),
        signature,
        profile(inputs, {"which": (1,), "a": (1,), "scale": ()}, {"which": (6,), "a": (6,), "scale": ()}),
        inputs,
        lambda which, a, scale: {"z": np.where(which, a * scale, a), "not": ~which, "m": a * scale},
    )


def twins() -> Case:
    """Outputs of one value under several names, one of them the input itself."""
    signature = Signature(
        (spec("x", DType.FP32, "n"),), tuple(spec(name, DType.FP32, "n") for name in ("second", "first", "same"))
    )
    inputs = {"x": np.array([1, -2, 3], np.float32)}
    nodes = [node("Neg", "x", "second"), node("Identity", "second", "first"), node("Identity", "x", "same")]
    return Case(
        "twins",
        model(nodes, signature),
        signature,
        profile(inputs, {"x": (1,)}, {"x": (40000,)}),
        inputs,
        lambda x: {"second": -x, "first": -x, "same": x},
    )


def same(dtype: DType, values: Any) -> Case:
    """The input comes back: what an element type goes through on its way in and out."""
    signature = Signature((spec("x", dtype, "n"),), (spec("y", dtype, "n"),))
    inputs = {"x": values}
    made = model([node("Identity", "x", "y")], signature)
    return Case(f"same_{dtype}", made, signature, Profile.static({"x": values.shape}), inputs, lambda x: {"y": x})


def block() -> Case:
    """Two convolutions with what runtimes fuse into them, a pool, and a product: every node has a name."""
    one, two, product = numbers(16, 3, 3, 3, seed=5) / 5, numbers(16, 16, 3, 3, seed=6) / 12, numbers(16, 8, seed=7)
    signature = Signature((spec("image", DType.FP32, "n", 3, 32, 32),), (spec("y", DType.FP32, "n", 8),))
    inputs = {"image": numbers(2, 3, 32, 32)}
    nodes = [
        node("Conv", "image one", "a", name="first", pads=[1, 1, 1, 1]),
        node("Relu", "a", "b", name="first_relu"),
        node("Conv", "b two", "c", name="second", pads=[1, 1, 1, 1]),
        node("Add", "c b", "d", name="sum"),
        node("Relu", "d", "e", name="sum_relu"),
        node("GlobalAveragePool", "e", "f", name="pool"),
        node("Flatten", "f", "g", name="flat"),
        node("MatMul", "g product", "y", name="product"),
    ]

    def expect(image: Any) -> Arrays:
        first = np.maximum(_convolved(image, one), 0)
        return {"y": np.maximum(_convolved(first, two) + first, 0).mean((2, 3)) @ product}

    return Case(
        "block",
        model(nodes, signature, one=one, two=two, product=product),
        signature,
        profile(inputs, {"image": (1, 3, 32, 32)}, {"image": (4, 3, 32, 32)}),
        inputs,
        expect,
    )


def _convolved(image: Any, weight: Any) -> Any:
    """A 3 x 3 convolution with a border of one zero."""
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight).astype(np.float32)


CASES = (dense, embedding, whole_numbers, convolution, choice, twins)
