"""The oracle: the graph as written, by the first runtime that can, checked by a second."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tailorbird.builder.cases.data import load_set, save_set
from tailorbird.builder.gate.oracle import AGREE_DB, OracleArgs, answer, cross_check
from tailorbird.builder.sources.onnx_file import signature_of
from tailorbird.domain.errors import ModelError
from tailorbird.domain.profile import Profile
from tests.unit.builder.graphs import linear, model, save, value

X = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)


def args(made: onnx.ModelProto, folder: Path, backend: str = "") -> OracleArgs:
    save_set(folder / "in.npz", {"x": X})
    return OracleArgs(
        model=str(save(made, folder / "m.onnx")),
        signature=signature_of(made),
        profile=Profile.static({"x": (2, 4)}),
        threads=1,
        inputs=(str(folder / "in.npz"),),
        outputs=(str(folder / "out.npz"),),
        backend=backend,
    )


def expected() -> np.ndarray:
    return np.maximum(X @ np.arange(12).reshape(4, 3) + np.arange(3), 0)


def test_the_source_answers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    report = answer(args(linear(), tmp_path))
    assert report.oracle.startswith("onnxruntime ")
    np.testing.assert_allclose(load_set(tmp_path / "out.npz")["y"], expected(), rtol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "in.npz", "out.npz"}


def test_where_one_runtime_refuses_another_answers(tmp_path: Path) -> None:
    doubled = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["y"])]
    made = model(doubled, [value("x", ["N", 4])], [value("y", ["N", 4])])
    assert answer(args(made, tmp_path)).oracle.startswith("reference ")
    np.testing.assert_array_equal(load_set(tmp_path / "out.npz")["y"], -np.maximum(X, 0))


def test_a_graph_that_none_can_run_is_refused_in_their_words(tmp_path: Path) -> None:
    made = model([helper.make_node("Nope", ["x"], ["y"])], [value("x", ["N", 4])], [value("y", ["N", 4])])
    with pytest.raises(ModelError) as caught:
        answer(args(made, tmp_path))
    assert str(caught.value).startswith("no reference runtime can run the model: got onnxruntime: ")
    assert "; reference: " in str(caught.value)
    assert str(caught.value).endswith("\nHint: tailorbird doctor says what is missing")


@pytest.mark.parametrize("backend", ["", "reference"])
def test_two_oracles_agree(tmp_path: Path, backend: str) -> None:
    answer(args(linear(), tmp_path))
    assert cross_check(args(linear(), tmp_path, backend)).snr_db > AGREE_DB


def test_another_graph_does_not_agree(tmp_path: Path) -> None:
    answer(args(linear(), tmp_path))
    other = linear()
    other.graph.node[2].op_type = "Sigmoid"
    assert cross_check(args(other, tmp_path)).snr_db < AGREE_DB


def test_another_shape_does_not_agree(tmp_path: Path) -> None:
    answer(args(linear(), tmp_path))
    save_set(tmp_path / "out.npz", {"y": np.zeros((2, 9), np.float32)})
    assert cross_check(args(linear(), tmp_path)).snr_db == -300.0


def test_text_agrees_when_it_is_equal(tmp_path: Path) -> None:
    nodes = [helper.make_node("Constant", [], ["y"], value_strings=["a", "b"])]
    made = model(nodes, [value("x", ["N", 4])], [value("y", [2], onnx.TensorProto.STRING)])
    answer(args(made, tmp_path))
    assert cross_check(args(made, tmp_path)).snr_db == 300.0
    save_set(tmp_path / "out.npz", {"y": np.array([b"a", b"c"], object)})
    assert cross_check(args(made, tmp_path)).snr_db == -300.0
