"""What the tests of NNCF's methods share: an attention block, and how near an engine of OpenVINO answers."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tailorbird.builder.quantise.methods import QuantiseArgs
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import node, numbers

WIDTH = 16


def attention() -> onnx.ModelProto:
    """One layer: attention whose query, key and value read one normalised input, a residual sum, two products."""
    nodes = [
        *norm("x", "n"),
        *(node("MatMul", f"n w{part}", part, f"project_{part}") for part in "qkv"),
        node("Transpose", "k", "kt", "turn", perm=[0, 2, 1]),
        node("MatMul", "q kt", "scores", "attend"),
        node("Softmax", "scores", "shares", "softmax"),
        node("MatMul", "shares v", "mixed", "mix"),
        node("Add", "mixed x", "sum", "residual"),
        node("MatMul", "sum wide_w", "wide", "up"),
        node("Add", "wide bias", "biased", "shift"),
        node("Relu", "biased", "active", "relu"),
        node("MatMul", "active down_w", "y"),
    ]
    weights = [weight(f"w{part}", WIDTH, WIDTH) for part in "qkv"]
    weights += [weight("wide_w", WIDTH, 32), weight("bias", 32), weight("down_w", 32, WIDTH), *norm_weights()]
    ports = [value(name, ["rows", "words", WIDTH]) for name in "xy"]
    return model(nodes, ports[:1], ports[1:], weights)


def weight(name: str, *shape: int) -> Any:
    """The same numbers for the same name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return onnx.numpy_helper.from_array((rng.standard_normal(shape) * 0.3).astype(np.float32), name)


def norm(source: str, target: str) -> list[Any]:
    """Layer normalisation in parts, as exporters of opset 16 and before write it."""
    return [
        node("ReduceMean", source, "mean", axes=[-1]),
        node("Sub", f"{source} mean", "off"),
        node("Pow", "off two", "square"),
        node("ReduceMean", "square", "variance", axes=[-1]),
        node("Add", "variance epsilon", "safe"),
        node("Sqrt", "safe", "deviation"),
        node("Div", "off deviation", target),
    ]


def norm_weights() -> list[Any]:
    return [numbers("two", 2.0), numbers("epsilon", 1e-5)]


def texts(seed: int, length: int = 6) -> dict[str, Any]:
    """Rows with one wide channel, which SmoothQuant is made for."""
    rows = np.random.default_rng(seed).standard_normal((2, length, WIDTH)).astype(np.float32)
    rows[..., 3] *= 20
    return {"x": rows}


def huge(made: onnx.ModelProto, name: str) -> None:
    """Make a weight so large that the width of its range, though not itself, is beyond FP32."""
    (tensor,) = [one for one in made.graph.initializer if one.name == name]
    array = onnx.numpy_helper.to_array(tensor)
    tensor.raw_data = (np.sign(array) * np.float32(3e38)).tobytes()


def run(path: str, inputs: dict[str, Any]) -> list[Any]:
    import openvino

    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return [np.array(one) for one in openvino.Core().compile_model(path, "CPU", config)(inputs).values()]


def snr_db(call: QuantiseArgs, inputs: dict[str, Any], written: str = "model.xml") -> float:
    """Signal to noise of what was written against the source, over all outputs."""
    pairs = zip(run(call.model, inputs), run(f"{call.folder}/{written}", inputs), strict=True)
    signal, noise = np.sum([(np.sum(a**2.0), np.sum((a - b) ** 2.0)) for a, b in pairs], axis=0)
    return float(10 * np.log10(signal / max(noise, 1e-30)))


def written(call: QuantiseArgs) -> Any:
    """The IR that was written, as ``openvino.Model``."""
    import openvino

    return openvino.Core().read_model(f"{call.folder}/model.xml")


def fakes(graph: Any) -> list[str]:
    """Names of its FakeQuantize operations."""
    return [one.get_friendly_name() for one in graph.get_ordered_ops() if one.get_type_name() == "FakeQuantize"]


def stored(graph: Any, kind: str) -> list[Any]:
    """Arrays of its constants of more than 32 elements and that element type."""
    constants = [one for one in graph.get_ops() if one.get_type_name() == "Constant"]
    return [one.data.copy() for one in constants
            if one.data.size > 32 and one.get_element_type().get_type_name() == kind]  # fmt: skip


def files(call: QuantiseArgs) -> list[str]:
    return sorted(path.name for path in Path(call.folder).iterdir())
