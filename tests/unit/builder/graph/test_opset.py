"""Another operator set, and everything else as it was."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tailorbird.builder.graph.opset import converted
from tailorbird.builder.graph.passes import opset_of
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import const, images, node, run


def test_names_weights_types_and_answers_stay(tmp_path: Path) -> None:
    """Weights of any size, of which the converter is shown the small ones only."""
    nodes = [
        node("Conv", "x k", "c", "conv", pads=[1, 1, 1, 1]),
        node("ReduceMean", "c", "m", "mean", axes=[2, 3], keepdims=0),
        node("MatMul", "m w", "y", "head"),
    ]
    weights = [const("k", 16, 3, 3, 3), const("w", 16, 4)]
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 4])], weights)
    made.graph.value_info.append(value("c", None))
    before = made.SerializeToString()
    found = converted(made, 22)
    assert made.SerializeToString() == before
    assert opset_of(found) == 22
    onnx.checker.check_model(found, full_check=True)
    assert [one.name for one in found.graph.node if one.op_type != "Constant"] == ["conv", "mean", "head"]
    assert [one.name for one in found.graph.input] == ["x"]
    assert [one.name for one in found.graph.value_info] == ["c"]
    kernel = next(one for one in found.graph.initializer if one.name == "k")
    np.testing.assert_array_equal(numpy_helper.to_array(kernel), numpy_helper.to_array(weights[0]))
    onnx.save(made, f"{tmp_path}/before.onnx")
    onnx.save(found, f"{tmp_path}/after.onnx")
    for true, got in zip(
        run(f"{tmp_path}/before.onnx", images(0)), run(f"{tmp_path}/after.onnx", images(0)), strict=True
    ):
        np.testing.assert_allclose(got, true, rtol=1e-6)
