"""Dynamic INT8: matrix products with constant weights, without data."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime")

from tailorbird.builder.quantise.onnx_dynamic import quantise
from tailorbird.builder.sources.onnx_file import read_model, signature_of
from tailorbird.domain.errors import TailorbirdError
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import args, const, convolutions, encoder, images, node, snr_db, words


def kinds(folder: str) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(f"{folder}/model.onnx").graph.node)


def test_products_with_constant_weights_are_quantised(tmp_path: Path) -> None:
    call = args(encoder(), tmp_path, "dynamic", [])
    made = quantise(call)
    assert [unit.name for unit in made.units] == ["project", "tied"]
    assert kinds(call.folder)["MatMulInteger"] == 2
    assert kinds(call.folder)["MatMul"] == 2  # of two activations each
    assert snr_db(call, words(9, 6)) > 25
    found = read_model(Path(call.folder) / made.model)
    assert signature_of(found) == signature_of(read_model(Path(call.model)))
    onnx.checker.check_model(found)
    assert [path.name for path in Path(call.folder).iterdir()] == ["model.onnx"]


def test_convolutions_stay_float_and_a_gemm_does_not(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "dynamic", [])
    assert [(unit.name, unit.operator) for unit in quantise(call).units] == [("head", "Gemm")]
    found = kinds(call.folder)
    assert (found["Conv"], found["ConvInteger"], found["MatMulInteger"]) == (2, 0, 1)
    assert snr_db(call, images(9)) > 25


def test_the_embedding_table_stays_float(tmp_path: Path) -> None:
    call = args(encoder(), tmp_path, "dynamic", [])
    quantise(call)
    graph = onnx.load(f"{call.folder}/model.onnx").graph
    (gather,) = [node for node in graph.node if node.op_type == "Gather"]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert types[gather.input[0]] == onnx.TensorProto.FLOAT


def test_weights_have_a_scale_for_each_column(tmp_path: Path) -> None:
    call = args(encoder(), tmp_path, "dynamic", [])
    quantise(call)
    graph = onnx.load(f"{call.folder}/model.onnx").graph
    scales = [tensor for tensor in graph.initializer if tensor.name.endswith("_scale")]
    assert sorted(list(tensor.dims) for tensor in scales) == [[8], [20]]


def test_kept_units_stay_float(tmp_path: Path) -> None:
    call = args(encoder(), tmp_path, "dynamic", [], kept=("project",))
    assert [unit.name for unit in quantise(call).units] == ["tied"]
    assert kinds(call.folder)["MatMulInteger"] == 1
    every = args(encoder(), tmp_path, "dynamic", [], kept=("project", "tied"))
    assert quantise(every).units == ()
    assert snr_db(every, words(9)) > 60


def test_a_kept_gemm_stays_float(tmp_path: Path) -> None:
    nodes = [node("Gemm", "x w1 b", "h", "one", transB=1), node("Gemm", "h w2 b", "y", "two")]
    weights = [const("w1", 4, 4), const("w2", 4, 4), const("b", 4)]
    made = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], weights)
    call = args(made, tmp_path, "dynamic", [], kept=("one",))
    assert [unit.name for unit in quantise(call).units] == ["two"]
    assert kinds(call.folder)["MatMulInteger"] == 1
    assert snr_db(call, {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}) > 25


def test_nothing_to_quantise_is_an_error(tmp_path: Path) -> None:
    nodes = [node("Conv", "x k", "y")]
    made = model(nodes, [value("x", [1, 3, 8, 8])], [value("y", None)], [const("k", 2, 3, 1, 1)])
    with pytest.raises(TailorbirdError, match=r"^nothing to quantise: got no MatMul or Gemm with constant weights$"):
        quantise(args(made, tmp_path, "dynamic", []))
