"""What single passes promise beyond the chain they stand in."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.graph import passes
from tailorbird.domain.errors import ModelError
from tests.unit.builder.graph.test_normalise import graph, node


def test_a_model_too_large_for_a_pass_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_LIMIT", 10)
    for refusing in (passes.upgrade_opset, passes.infer_shapes):
        with pytest.raises(ModelError, match=r"the model is too large for this pass: got 0 MiB, expected 2 GiB"):
            refusing(graph([node("Mul", "x w", "y")], {"w": np.ones(9, np.float32)}))


def test_the_opset_is_that_of_the_default_domain() -> None:
    model = graph([node("Relu", "x", "y")], opset=13)
    model.opset_import.insert(0, helper.make_opsetid("com.microsoft", 1))
    assert passes.opset_of(model) == 13
    del model.opset_import[1]
    assert passes.opset_of(model) == 0
    assert not passes.has_old_opset(model)


def test_newer_opsets_stay_as_they_are() -> None:
    assert not passes.has_old_opset(graph([node("Relu", "x", "y")], opset=21))


def test_shapes_are_filled_in() -> None:
    found = passes.infer_shapes(graph([node("Flatten", "x", "f"), node("Relu", "f", "y")]))
    (inner,) = found.graph.value_info
    assert [dim.dim_param or dim.dim_value for dim in inner.type.tensor_type.shape.dim] == ["N", 48]


def test_a_weight_listed_among_the_inputs_is_no_clash() -> None:
    model = graph([node("Mul", "x w", "y")], {"w": np.float32(1)}, inputs=("x", "w"))
    assert not passes.has_clashing_names(model)


def test_two_weights_of_one_name_are_a_clash() -> None:
    model = graph([node("Mul", "x w", "y")], {"w": np.float32(1)})
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "w"))
    assert passes.has_clashing_names(model)


def test_a_sparse_weight_is_defined() -> None:
    model = graph([node("Mul", "x w", "y")])
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    passes.check_order(model)


def test_an_optional_input_left_out_is_no_value() -> None:
    passes.check_order(graph([helper.make_node("Clip", ["x", "", "hi"], ["y"])], {"hi": np.float32(1)}))


def test_every_node_gets_a_name_of_its_own() -> None:
    model = graph([node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "c"), node("Relu", "c", "y")])
    for one, name in zip(model.graph.node, ("", "a", "a", ""), strict=True):
        one.name = name
    assert passes.has_unnamed_nodes(model)
    passes.name_nodes(model)
    assert [one.name for one in model.graph.node] == ["a__3", "a", "a__2", "y"]
    assert not passes.has_unnamed_nodes(model)
