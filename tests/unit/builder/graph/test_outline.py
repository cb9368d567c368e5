"""The outline of a graph: what changes a digest, and what does not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.graph.outline import outline_of, write_outline
from tailorbird.domain.outline import OutlineNode, decode_outline
from tests.unit.builder.graphs import linear, model, value


def named(one: onnx.ModelProto) -> dict[str, OutlineNode]:
    return {node.name: node for node in outline_of(one).nodes}


def convolution(**attributes: Any) -> onnx.ModelProto:
    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)]
    return model(nodes, [value("x", [1, 3, 8, 8])], [value("y", None)], [weights])


def branching(constant: float) -> onnx.ModelProto:
    branches = {}
    for name, number in (("then_branch", constant), ("else_branch", 1.0)):
        inner = [helper.make_node("Mul", ["r", "k"], [f"{name}_y"])]
        tensor = numpy_helper.from_array(np.full(3, number, np.float32), "k")
        branches[name] = helper.make_graph(inner, name, [], [value(f"{name}_y", [3])], [tensor])
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("If", ["flag"], ["y"], name="if", **branches),
    ]
    return model(nodes, [value("x", [3]), value("flag", [], TensorProto.BOOL)], [value("y", [3])])


def test_nodes_come_in_order_with_what_they_read() -> None:
    found = outline_of(linear()).nodes
    assert [(node.name, node.op, node.inputs) for node in found] == [
        ("product", "MatMul", ("x",)),
        ("shift", "Add", ("product",)),
        ("relu", "Relu", ("shift",)),
    ]
    assert [bool(node.weights) for node in found] == [True, True, False]
    assert len({node.form for node in found}) == 3


def test_one_changed_value_changes_the_weights_of_its_node_alone() -> None:
    before, retrained = linear(), linear()
    values = numpy_helper.to_array(retrained.graph.initializer[0]).copy()
    values[0, 0] += 1e-3
    retrained.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    old, new = named(before), named(retrained)
    assert [name for name in old if old[name] != new[name]] == ["product"]
    assert old["product"].form == new["product"].form


@pytest.mark.parametrize("change", [{"strides": [2, 2]}, {"group": 1, "pads": [1, 1, 1, 1]}, {"auto_pad": "VALID"}])
def test_an_attribute_changes_the_form(change: dict[str, Any]) -> None:
    old, new = named(convolution())["conv"], named(convolution(**change))["conv"]
    assert old.form != new.form
    assert old.weights == new.weights


def test_few_whole_numbers_are_form_and_not_weights() -> None:
    def reshaping(*shape: int) -> OutlineNode:
        nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"], name="reshape")]
        tensor = numpy_helper.from_array(np.array(shape), "shape")
        return named(model(nodes, [value("x", [2, 6])], [value("y", None)], [tensor]))["reshape"]

    assert reshaping(3, 4).form != reshaping(4, 3).form
    assert reshaping(3, 4).weights == ""


def test_the_field_that_holds_the_values_does_not_matter() -> None:
    other = linear()
    for number, tensor in enumerate(other.graph.initializer):
        values = numpy_helper.to_array(tensor)
        plain = helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.ravel().tolist())
        other.graph.initializer[number].CopyFrom(plain)
    assert not other.graph.initializer[0].HasField("raw_data")
    assert outline_of(other) == outline_of(linear())


def test_names_of_weights_and_documentation_do_not_matter() -> None:
    other = linear()
    other.graph.initializer[0].name = other.graph.node[0].input[1] = "renamed"
    other.graph.node[0].doc_string = "where it was traced"
    assert outline_of(other) == outline_of(linear())


def test_what_a_branch_holds_is_its_owners() -> None:
    old, new = named(branching(2.0)), named(branching(3.0))
    assert old["if"].inputs == ("flag", "relu")
    assert old["if"].form == new["if"].form
    assert old["if"].weights != new["if"].weights
    assert old["relu"] == new["relu"]


def test_it_is_written_whole_and_reads_back(tmp_path: Path) -> None:
    write_outline(linear(), tmp_path / "graph.json")
    assert decode_outline((tmp_path / "graph.json").read_bytes()) == outline_of(linear())
    assert [path.name for path in tmp_path.iterdir()] == ["graph.json"]
