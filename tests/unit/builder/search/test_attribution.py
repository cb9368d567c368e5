"""Attribution: names that runtimes say become nodes of the normalised graph, or nothing."""

import onnx
from onnx import helper

from tailorbird.builder.search.attribution import attributed
from tailorbird.domain.layers import Layer


def graph() -> onnx.GraphProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("Add", ["a", "b"], ["s"], name="bias"),
        helper.make_node("Split", ["s"], ["l", "r"], name="halves"),
        helper.make_node("Relu", ["l"], ["y"], name="last"),
    ]
    return helper.make_graph(nodes, "g", [], [])


def layer(name: str, *nodes: str) -> Layer:
    return Layer(name, "kind", "fp32", 1.0, nodes)


def nodes_of(*layers: Layer) -> list[tuple[str, ...]]:
    return [one.nodes for one in attributed(layers, graph().node)]


def test_nodes_come_in_the_graphs_order_once_each() -> None:
    assert nodes_of(layer("fused", "bias", "product", "bias")) == [("product", "bias")]


def test_what_a_runtime_added_is_left_out() -> None:
    assert nodes_of(layer("q", "product/quantiser", "Reshape_17"), layer("p", "product")) == [(), ("product",)]


def test_a_value_stands_for_its_node_where_nobody_names_the_node() -> None:
    assert nodes_of(layer("y", "y")) == [("last",)]
    assert nodes_of(layer("parts", "r", "l")) == [("halves",)]


def test_a_name_is_worth_more_than_a_value() -> None:
    """A quantiser's own node may give out the value that once was the source's."""
    assert nodes_of(layer("relu", "last"), layer("dequantise", "y_Dequantise", "y")) == [("last",), ()]


def test_two_layers_may_share_a_node() -> None:
    assert nodes_of(layer("first", "product"), layer("second", "product", "bias")) == [
        ("product",),
        ("product", "bias"),
    ]


def test_nothing_else_of_a_layer_changes() -> None:
    (one,) = attributed([Layer("n", "k", "int8", 2.5, ("product",))], graph().node)
    assert one == Layer("n", "k", "int8", 2.5, ("product",))


def test_what_a_quantiser_renamed_is_known_again() -> None:
    """As ONNX Runtime's operators on integers: the last adds up in float what the product gave out."""
    found = nodes_of(
        layer("product_quant", "product_quant", "a_quantized"),
        layer("halves_quant", "halves_quant", "r_quantized", "y_quantized"),
        layer("y_DequantizeLinear", "y_DequantizeLinear", "y"),
    )
    assert found == [("product",), ("halves",), ("last",)]
    assert nodes_of(layer("q", "last_quant"), layer("f", "last")) == [(), ("last",)]
