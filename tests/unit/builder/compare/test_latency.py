"""What a change of latency is put down to, on layers whose times are written down."""

import pytest

from tailorbird.builder.compare.comparison import Area, Basis, Difference
from tailorbird.builder.compare.graphs import GraphChange
from tailorbird.builder.compare.latency import Context, Parts, by_layers, by_records
from tailorbird.domain.layers import Layer, LayerTable

THREADS = Difference(Area.THREADS, "threads", "2", "1")
VERSION = Difference(Area.VERSION, "openvino", "2026.3", "2026.4")
SHAPES = Difference(Area.SHAPES, "shape mode", "static", "dynamic")
RUNTIME = Difference(Area.RUNTIME, "runtime", "openvino", "onnxruntime")


def layer(name: str, ms: float, *nodes: str, precision: str = "fp32") -> Layer:
    return Layer(name, "Convolution" if nodes else "Reorder", precision, ms, nodes)


def table(*layers: Layer, outside: float = 0.0) -> LayerTable:
    return LayerTable("one", "opt", 10, sum(one.milliseconds for one in layers) + outside, layers)


def parts(a: LayerTable, b: LayerTable, *differences: Difference, graph: GraphChange | None = None) -> Parts:
    return by_layers(a, b, (a.latency, b.latency), Context(differences, graph), noise=0.1)


def told(found: Parts) -> dict[tuple[Area, ...], float]:
    return {one.areas: pytest.approx(one.contribution) for one in found.causes}


PLAIN = table(layer("c1", 1, "c1", "r1"), layer("c2", 2, "c2", "r2"), outside=0.5)


def test_threads_explain_every_layer_and_what_lies_between() -> None:
    slower = table(layer("c1", 2, "c1", "r1"), layer("c2", 4, "c2", "r2"), outside=0.75)
    found = parts(PLAIN, slower, THREADS)
    assert told(found) == {(Area.THREADS,): 3.0, (Area.OUTSIDE, Area.THREADS): 0.25}
    assert found.causes[0].text == "threads 2 -> 1"
    assert found.causes[0].basis is Basis.LAYERS


def test_several_differences_everywhere_are_not_told_apart() -> None:
    slower = table(layer("c1", 2, "c1", "r1"), layer("c2", 4, "c2", "r2"), outside=0.5)
    first = parts(PLAIN, slower, THREADS, VERSION).causes[0]
    assert first.areas == (Area.THREADS, Area.VERSION)
    assert first.text.endswith("records cannot tell these apart, --measure can")


def test_precision_is_blamed_at_its_layers_and_for_the_conversions_beside_them() -> None:
    a = table(layer("c1", 1, "c1", precision="int8"), layer("c2", 1, "c2", precision="int8"))
    b = table(layer("c1", 1.1, "c1", precision="int8"), layer("to_float", 0.4), layer("c2", 3, "c2"))
    found = parts(a, b, THREADS)
    assert told(found) == {(Area.PRECISION,): 2.4, (Area.THREADS,): 0.1, (Area.OUTSIDE, Area.THREADS): 0.0}
    assert found.causes[0].text == "1 layer that ran int8 runs fp32 (c2)"


def test_a_changed_node_comes_before_its_precision() -> None:
    graph = GraphChange(
        twins={"c1": "c1", "r1": "r1", "c2": "c2", "r2": "r2"}, changed=("c2",), operators={"c2": "Conv"}
    )
    b = table(layer("c1", 1, "c1", "r1"), layer("c2", 5, "c2", "r2", precision="int8"), outside=0.5)
    assert told(parts(PLAIN, b, graph=graph))[Area.GRAPH,] == 3.0


def test_layers_of_a_renamed_graph_are_matched_by_their_twins() -> None:
    graph = GraphChange(twins={"m/c1": "c1", "m/r1": "r1", "m/c2": "c2", "m/r2": "r2"})
    b = table(layer("L1", 1, "m/c1", "m/r1"), layer("L2", 3, "m/c2", "m/r2"), outside=0.5)
    found = parts(PLAIN, b, graph=graph)
    assert [(pair.nodes, pair.change) for pair in found.pairs] == [(("c1", "r1"), 0), (("c2", "r2"), 1)]


def test_the_same_nodes_in_other_layers_are_fusion() -> None:
    b = table(layer("c1", 1, "c1"), layer("r1", 0.8, "r1"), layer("c2", 2, "c2", "r2"), outside=0.5)
    found = parts(PLAIN, b)
    assert told(found)[Area.FUSION,] == 0.8
    assert found.causes[0].text == "2 nodes that ran as 1 layer run as 2 (c1, r1)"


@pytest.mark.parametrize("difference", [SHAPES, RUNTIME])
def test_other_shapes_and_runtimes_fuse_otherwise_and_are_the_cause(difference: Difference) -> None:
    b = table(layer("c1", 1, "c1"), layer("r1", 0.8, "r1"), layer("c2", 2, "c2", "r2"), outside=0.5)
    found = parts(PLAIN, b, difference)
    assert found.causes[0].areas == (difference.area,)
    assert all(Area.FUSION not in cause.areas for cause in found.causes)


def test_what_nothing_explains_is_told_after_what_something_does_within_the_noise() -> None:
    graph = GraphChange(twins={"c1": "c1", "r1": "r1", "c2": "c2", "r2": "r2"}, changed=("c1",))
    b = table(layer("c1", 1.05, "c1", "r1"), layer("c2", 2.09, "c2", "r2"), outside=0.5)
    found = parts(PLAIN, b, graph=graph)
    assert [cause.areas[0] for cause in found.causes][:2] == [Area.GRAPH, Area.UNEXPLAINED]


def test_layers_are_scaled_to_the_latency_that_is_told() -> None:
    found = by_layers(PLAIN, PLAIN, (PLAIN.latency, 2 * PLAIN.latency), Context((THREADS,), None), 0.1)
    assert told(found) == {(Area.THREADS,): 3.0, (Area.OUTSIDE, Area.THREADS): 0.5}


def test_layers_of_no_time_at_all_are_no_fault() -> None:
    assert by_layers(table(), table(), (1.0, 2.0), Context((), None), 0.1).causes[0].contribution == 1.0


def test_memory_and_system_are_no_reason_for_a_change() -> None:
    memory = Difference(Area.DEVICE, "memory_gib", "15.6", "15.7")
    assert by_records(1.0, Context((memory,), None))[0].areas == (Area.UNEXPLAINED,)


def test_without_layers_a_single_difference_explains_all_and_several_nothing_for_sure() -> None:
    (only,) = by_records(2.0, Context((THREADS,), None))
    assert (only.areas, only.contribution, only.basis) == ((Area.THREADS,), 2.0, Basis.ONLY)
    both = by_records(2.0, Context((THREADS, SHAPES), None))
    assert [(one.areas[0], one.contribution) for one in both] == [(Area.SHAPES, None), (Area.THREADS, None)]


def test_layers_together_never_take_longer_than_the_run() -> None:
    slow = LayerTable("one", "opt", 10, 2.0, (layer("c1", 1, "c1"), layer("c2", 3, "c2")))
    found = by_layers(slow, slow, (2.0, 2.0), Context((), None), 0.1)
    assert [sum(one.milliseconds for one in pair.a) for pair in found.pairs] == [0.5, 1.5]
