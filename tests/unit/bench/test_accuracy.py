import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.accuracy import BASE, Row, compared, figures, table
from bench.contestants import Turn
from bench.tasks import naive, scoring
from tailorbird.builder.cases.data import save_set

WEIGHTS = np.array([[1, 0, 0], [0, 1, 0]], np.float32)


def saved_model(path):
    """Two features to three scores: the greater feature wins."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "winner",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_kept_share_budget_and_speed_are_told_against_fp32() -> None:
    rows = [Row("t", BASE, 80.0, 10), Row("t", "worse", 79.0, 10), Row("t", "fine", 79.3, 10), Row("t", "no", note="x")]
    found = compared(rows, {BASE: [2.0, 4.0, 6.0], "worse": [1.0, 2.0, 2.0]})
    assert [row.held for row in found] == [True, False, True, None]
    assert found[1].kept == pytest.approx(79 / 80)
    assert (found[1].median_ms, found[1].speedup, found[1].spread) == (2.0, 2.0, 0.25)
    assert found[2].median_ms is None


def test_figures_say_broken_and_dash() -> None:
    assert figures(Row("t", "c", 79.0, 10, 0.9875, False, 2.0, 2.0, 0.25)) == (
        "79.00", "98.75%", "BROKEN", "2", "2.00 ±0.25")  # fmt: skip
    assert figures(Row("t", "c", note="crashed")) == ("-",) * 5
    assert table([Row("t", "c", note="crashed")]).row_count == 1


def test_a_contestant_is_scored_over_all_rows_of_samples_of_unequal_length(tmp_path) -> None:
    inputs, labels = tmp_path / "inputs", tmp_path / "labels"
    inputs.mkdir()
    labels.mkdir()
    features = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    truth = np.array([0, 0, 0, 1])
    for name, part in (("0", slice(0, 3)), ("1", slice(3, 4))):
        save_set(inputs / f"{name}.npz", {"x": features[part]})
        save_set(labels / f"{name}.npz", {"labels": truth[part]})
    turn = Turn("onnxruntime", str(saved_model(tmp_path / "m.onnx")), str(inputs), 1, 0)
    assert scoring.score(scoring.Args(turn, "top1", str(labels))) == scoring.Score(75.0, 4)


def test_a_naive_static_quantisation_inserts_quantised_weights(tmp_path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for seed in range(4):
        save_set(inputs / f"{seed}.npz", {"x": np.random.default_rng(seed).normal(size=(2, 2)).astype(np.float32)})
    args = naive.Args("ort static", str(saved_model(tmp_path / "m.onnx")), str(inputs), str(tmp_path / "q.onnx"))
    made = onnx.load(naive.quantise(args).model)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in made.graph.node}
