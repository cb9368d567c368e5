"""Normalising: the same answers in one form, and a failure that says where."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.graph import normalise as room
from tailorbird.builder.graph import passes
from tailorbird.builder.graph.normalise import Pass, normalise
from tailorbird.domain.errors import ModelError

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
Node = onnx.NodeProto


def graph(
    nodes: Sequence[Node],
    weights: dict[str, Any] | None = None,
    *,
    opset: int = 17,
    ir: int = 8,
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    dims: Sequence[Any] = ("N", 3, 4, 4),
) -> onnx.ModelProto:
    def values(names: Sequence[str], shape: Any) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, FLOAT, shape) for name in names]

    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    made = helper.make_graph(nodes, "g", values(inputs, dims), values(outputs, None), tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Node:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def answers(model: onnx.ModelProto, **inputs: Any) -> list[Any]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs or {"x": X}))


def by_the_book(model: onnx.ModelProto, **inputs: Any) -> list[Any]:
    """The reference evaluator keeps the latest value of a name, as the exporter that wrote it meant."""
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(model).run(None, inputs or {"x": X}))


OLD = {
    "softmax over an inner axis": graph([node("Softmax", "x", "y", axis=1)], opset=11),
    "softmax over the default axis": graph([node("Softmax", "x", "y")], opset=11),
    "softmax of dynamic dims": graph([node("Softmax", "x", "y", axis=2)], opset=11, dims=("N", "C", "H", "W")),
    "log-softmax": graph([node("LogSoftmax", "x", "y", axis=1)], opset=11),
    "clip by inputs": graph([node("Clip", "x lo", "y")], {"lo": np.float32(0)}, opset=11),
    "clip by attributes": graph([node("Clip", "x", "y", min=-0.5, max=0.5)], opset=9, ir=3),
    "squeeze and sum": graph(
        [node("ReduceSum", "x", "s", axes=[2], keepdims=1), node("Squeeze", "s", "y", axes=[2])], opset=11
    ),
    "pad by input": graph(
        [node("Pad", "x p", "y", mode="reflect")], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}, opset=11
    ),
    "pad by attribute": graph([node("Pad", "x", "y", pads=[0, 0, 1, 1, 0, 0, 1, 1], value=2.0)], opset=9),
    "resize": graph(
        [node("Resize", "x roi sc", "y", mode="linear")],
        {"roi": np.zeros(0, np.float32), "sc": np.array([1, 1, 2, 2], np.float32)},
        opset=11,
    ),
    "resize of opset 10": graph([node("Resize", "x sc", "y")], {"sc": np.array([1, 1, 2, 2], np.float32)}, opset=10),
    "upsample": graph([node("Upsample", "x sc", "y")], {"sc": np.array([1, 1, 2, 2], np.float32)}, opset=9),
    "convolution and batch norm": graph(
        [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("BatchNormalization", "c s b m v", "y")],
        {"w": np.ones((5, 3, 3, 3), np.float32)} | {name: np.full(5, 0.7, np.float32) for name in "sbmv"},
        opset=11,
    ),
    "dropout": graph([node("Dropout", "x", "d", ratio=0.5), node("Relu", "d", "y")], opset=11),
    "constant in a file of version 3": graph(
        [node("Constant", "", "k", value=numpy_helper.from_array(np.float32(2))), node("Mul", "x k", "y")],
        opset=8,
        ir=3,
    ),
    "split": graph([node("Split", "x", "a b", axis=2, split=[1, 3]), node("Concat", "b a", "y", axis=2)], opset=11),
    "unsqueeze": graph([node("Flatten", "x", "f"), node("Unsqueeze", "f", "y", axes=[0])], opset=11),
}


@pytest.mark.parametrize("model", OLD.values(), ids=OLD.keys())
def test_an_old_model_answers_the_same_in_the_new_operator_set(model: onnx.ModelProto) -> None:
    found = normalise(copy(model))
    assert passes.opset_of(found.model) == passes.TARGET_OPSET
    assert found.rewrites == ("upgrade-opset",)
    assert not found.notes
    for before, after in zip(answers(model), answers(found.model), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", OLD.values(), ids=OLD.keys())
def test_normalising_twice_changes_nothing(model: onnx.ModelProto) -> None:
    once = normalise(copy(model)).model
    assert normalise(copy(once)).model == once


def test_a_skipped_pass_is_left_out() -> None:
    found = normalise(copy(OLD["split"]), frozenset({"upgrade-opset"}))
    assert passes.opset_of(found.model) == 11
    assert found.rewrites == ()


# --- failures ------------------------------------------------------------------------------------


def failing(_: onnx.ModelProto) -> onnx.ModelProto:
    raise RuntimeError("no way")


def always(_: onnx.ModelProto) -> bool:
    return True


def test_a_failing_pass_is_named_with_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PASSES", (*room.PASSES, Pass("last", 1, always, failing)))
    with pytest.raises(ModelError) as caught:
        normalise(graph([node("Relu", "x", "y")]))
    assert str(caught.value) == (
        "the model cannot be normalised: pass 'last' failed after drop-unused@2, name-nodes@1, infer-shapes@1: "
        "got no way"
    )


def test_an_optional_pass_that_fails_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PASSES", (Pass("bold", 1, always, failing, optional=True),))
    model = graph([node("Relu", "x", "y")])
    assert normalise(copy(model)) == room.Normalised(model, (), ("bold left out: no way",))


def test_a_pass_that_leaves_two_values_of_one_name_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    clashing = graph([node("Relu", "x", "a"), node("Relu", "a", "a"), node("Relu", "a", "y")])
    monkeypatch.setattr(room, "PASSES", (Pass("bad", 1, always, lambda _: clashing),))
    with pytest.raises(ModelError, match="pass 'bad' failed after no pass: got two values share one name"):
        normalise(graph([node("Relu", "x", "y")]))


def test_a_pass_that_reads_what_is_not_there_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = graph([node("Relu", "lost", "y")])
    monkeypatch.setattr(room, "PASSES", (Pass("bad", 1, always, lambda _: broken),))
    with pytest.raises(ModelError, match="node 'Relu' reads 'lost' before it is defined"):
        normalise(graph([node("Relu", "x", "y")]))


def test_a_pass_that_loses_the_outputs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = graph([node("Relu", "x", "y")], outputs=())
    monkeypatch.setattr(room, "PASSES", (Pass("bad", 1, always, lambda _: empty),))
    with pytest.raises(ModelError, match="the graph lost its outputs"):
        normalise(graph([node("Relu", "x", "y")]))


# --- names ---------------------------------------------------------------------------------------


def test_an_output_named_like_an_inner_value_keeps_its_name() -> None:
    model = graph([node("Relu", "x", "y"), node("Neg", "y", "z"), node("Exp", "z", "y")])
    found = normalise(copy(model)).model
    assert [value.name for value in found.graph.output] == ["y"]
    np.testing.assert_allclose(answers(found)[0], np.exp(-np.maximum(X, 0)), rtol=1e-6)
    np.testing.assert_array_equal(by_the_book(model)[0], by_the_book(found)[0])


def test_a_later_use_of_a_name_means_its_latest_definition() -> None:
    model = graph([node("Relu", "x", "a"), node("Neg", "a", "a"), node("Exp", "a", "b"), node("Add", "a b", "y")])
    found = normalise(copy(model)).model
    negative = -np.maximum(X, 0)
    np.testing.assert_allclose(answers(found)[0], negative + np.exp(negative), atol=1e-6)


def test_an_output_named_like_a_weight_keeps_its_name_and_the_weight_its_value() -> None:
    model = graph([node("Mul", "x y", "a"), node("Relu", "a", "y")], {"y": np.float32(3)})
    found = normalise(copy(model)).model
    np.testing.assert_allclose(answers(found)[0], 3 * np.maximum(X, 0), rtol=1e-6)


def test_a_fresh_name_avoids_names_in_use() -> None:
    model = graph(
        [node("Relu", "x", "a__2"), node("Relu", "x", "a"), node("Neg", "a", "a"), node("Add", "a a__2", "y")]
    )
    found = normalise(copy(model)).model
    np.testing.assert_array_equal(answers(found)[0], np.zeros_like(X))


def branch(name: str, *nodes: Node) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(nodes[-1].output[0], FLOAT, None)])


def choosing(*inner: Node) -> onnx.ModelProto:
    """A graph that defines 'a' twice; a branch of If reads it."""
    chosen = node("If", "c", "r", then_branch=branch("then", *inner), else_branch=branch("else", node("Exp", "a", "e")))
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "a"), chosen, node("Add", "r a", "y")]
    return graph(nodes, {"c": np.array(True)})


def test_a_branch_that_reads_an_outer_name_reads_its_latest_definition() -> None:
    model = choosing(node("Abs", "a", "t"))
    found = normalise(copy(model)).model
    np.testing.assert_array_equal(answers(found)[0], np.zeros_like(X))
    np.testing.assert_array_equal(by_the_book(found)[0], np.zeros_like(X))


def test_a_name_that_a_branch_defines_itself_stays_its_own() -> None:
    model = choosing(node("Exp", "x", "a"), node("Abs", "a", "t"))
    found = normalise(copy(model)).model
    then = next(a.g for n in found.graph.node for a in n.attribute if a.name == "then_branch")
    assert [list(inner.input) for inner in then.node] == [["x"], ["a"]]


def test_a_loop_reads_outer_names_too() -> None:
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Add", "acc a", "next")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("acc", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("next", FLOAT, None)],
    )
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "a"), helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)]
    found = normalise(graph(nodes, {"n": np.int64(3)})).model
    np.testing.assert_allclose(answers(found)[0], X - 3 * np.maximum(X, 0), rtol=1e-6)


# --- constants and what nobody needs -------------------------------------------------------------

CONSTANTS = {
    "value": (numpy_helper.from_array(np.array([1.5, 2], np.float32)), np.float32, [1.5, 2]),
    "value_float": (2.5, np.float32, 2.5),
    "value_floats": ([2.5, 3.5], np.float32, [2.5, 3.5]),
    "value_int": (7, np.int64, 7),
    "value_ints": ([7, 8], np.int64, [7, 8]),
}


@pytest.mark.parametrize("attribute", CONSTANTS)
def test_numbers_in_constant_nodes_become_initializers(attribute: str) -> None:
    value, dtype, expected = CONSTANTS[attribute]
    model = graph([node("Constant", "", "k", **{attribute: value}), node("Shape", "k", "y")])
    found = normalise(model).model
    (weight,) = found.graph.initializer
    array = numpy_helper.to_array(weight)
    assert (weight.name, array.dtype) == ("k", dtype)
    np.testing.assert_array_equal(array, expected)
    assert [n.op_type for n in found.graph.node] == ["Shape"]


@pytest.mark.parametrize("attribute", [{"value_string": "text"}, {"value_strings": ["a", "b"]}])
def test_text_in_constant_nodes_stays(attribute: dict[str, Any]) -> None:
    found = normalise(graph([node("Constant", "", "k", **attribute), node("Shape", "k", "y")]))
    assert [n.op_type for n in found.model.graph.node] == ["Constant", "Shape"]
    assert found.applied == ("drop-unused@2", "name-nodes@1", "infer-shapes@1")


def test_a_constant_that_is_an_output_still_comes_out() -> None:
    model = graph([node("Constant", "", "y", value_float=4.0), node("Relu", "x", "z")], outputs=("y", "z"))
    assert answers(normalise(model).model)[0] == 4.0


def test_nodes_and_weights_that_no_output_needs_go() -> None:
    nodes = [node("Relu", "x", "y"), node("Mul", "x w", "dead"), node("Neg", "dead", "deader")]
    found = normalise(graph(nodes, {"w": np.float32(1)})).model
    assert [n.op_type for n in found.graph.node] == ["Relu"]
    assert not found.graph.initializer


@pytest.mark.parametrize("opset", [11, 17])
def test_weights_that_pose_as_inputs_pose_no_longer_needed_or_not(opset: int) -> None:
    weights = {"w": np.float32(2), "spare": np.float32(9)}
    model = graph([node("Mul", "x w", "y")], weights, inputs=("x", "w", "spare"), opset=opset, ir=3)
    found = normalise(model).model
    assert [value.name for value in found.graph.input] == ["x"]
    np.testing.assert_allclose(answers(found)[0], 2 * X)


def test_a_value_that_only_a_branch_reads_is_needed() -> None:
    model = choosing(node("Mul", "a w", "t"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(-1), "w"))
    found = normalise(model).model
    assert {tensor.name for tensor in found.graph.initializer} == {"c", "w"}
    np.testing.assert_array_equal(answers(found)[0], np.zeros_like(X))
