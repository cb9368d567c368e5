"""The contest: heard on answers, then in turn; who cannot run is left out, and it is said."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench import contest
from bench.contestants import Turn, named
from tailorbird.builder.cases.data import save_set
from tailorbird.domain.errors import BackendError


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    for seed in range(5):
        save_set(folder / f"{seed}.npz", {"x": np.random.default_rng(seed).standard_normal((2, 16), np.float32)})
    return folder


def linear(path: Path, scale: float = 1.0) -> Path:
    weight = (np.random.default_rng(0).standard_normal((16, 8)) * scale).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d]) for n, d in (("x", 16), ("y", 8)))
    graph = helper.make_graph(nodes, "linear", [x], [y], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_contestants_are_heard_and_timed(tmp_path: Path, inputs: Path) -> None:
    model, wrong = linear(tmp_path / "model.onnx"), linear(tmp_path / "wrong.onnx", scale=-3.0)
    references = contest.answers(model, inputs, tmp_path / "fp32", threads=1)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    turns = {
        "onnxruntime": Turn("onnxruntime", str(model), str(inputs), 1),
        "openvino": Turn("openvino", str(model), str(inputs), 1),
        "wrong": Turn("onnxruntime", str(wrong), str(inputs), 1),
        "broken": Turn("onnxruntime", str(tmp_path / "broken.onnx"), str(inputs), 1),
    }
    found = contest.held(turns, references, rounds=2)
    assert {name: report.passed for name, report in found.reports.items()} == {
        "onnxruntime": True, "openvino": True, "wrong": False}  # fmt: skip
    assert {check.rule for check in found.reports["wrong"].failures} >= {"snr_db", "cosine", "top1"}
    assert {name: len(medians) for name, medians in found.medians.items()} == {
        "onnxruntime": 2, "openvino": 2, "wrong": 2}  # fmt: skip
    assert list(found.failures) == ["broken"]
    assert "protobuf" in found.failures["broken"].lower()


def test_every_set_is_answered_under_its_own_name(tmp_path: Path, inputs: Path) -> None:
    folder = contest.answers(linear(tmp_path / "model.onnx"), inputs, tmp_path / "fp32", threads=1)
    assert sorted(path.name for path in folder.iterdir()) == [f"{seed}.npz" for seed in range(5)]


def test_without_a_hearing_all_take_turns(tmp_path: Path, inputs: Path) -> None:
    model = str(linear(tmp_path / "model.onnx"))
    found = contest.in_turn({"one": Turn("onnxruntime", model, str(inputs), 1)}, rounds=3)
    assert len(found["one"]) == 3
    assert all(median > 0 for median in found["one"])


@pytest.mark.parametrize("answered", [[np.ones(2), np.zeros(2)], {"p": np.ones(2), "q": np.zeros(2)}])
def test_outputs_are_named_in_order(answered: object) -> None:
    found = named(("a", "b"), answered)
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1, 1], "b": [0, 0]}


def test_a_single_tensor_is_the_only_output() -> None:
    assert named(("a",), np.ones(2))["a"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="shorter"):
        named(("a", "b"), [np.ones(2)])


def test_an_error_in_one_line_and_without_its_hint() -> None:
    error = BackendError("it failed", got="two\nlines", hint="install something")
    assert contest.words(error) == "it failed: got two lines"
