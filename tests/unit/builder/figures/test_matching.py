"""Matching: layers of two engines by the nodes they share."""

import itertools

import msgspec

from tailorbird.builder.figures.matching import parts_of
from tailorbird.domain.layers import Layer, LayerTable
from tests.unit.builder.figures import books


def table(*layers: Layer) -> LayerTable:
    return LayerTable("engine", "opt", 1, 1.0, layers)


def test_a_fused_layer_meets_all_that_another_engine_runs_for_it() -> None:
    parts = {part.nodes: part for part in parts_of(books.book(2).engines)}
    part = parts["conv0", "relu0"]
    assert [[layer.name for layer in layers] for layers in part.layers] == [["conv0"], ["c0", "r0"]]
    assert part.times == (1.0, 2.5)


def test_every_layer_is_in_one_part_and_no_time_is_lost() -> None:
    engines = books.book(40).engines
    parts = parts_of(engines)
    for number, engine in enumerate(engines):
        found = [layer for part in parts for layer in part.layers[number]]
        assert sorted(layer.name for layer in found) == sorted(layer.name for layer in engine.layers)
        assert abs(sum(part.times[number] for part in parts) - engine.profiled) < 1e-9


def test_a_layer_without_nodes_is_a_part_of_its_own() -> None:
    one = Layer("reorder", "Reorder", "fp32", 1.0)
    other = Layer("reorder", "Reorder", "fp32", 2.0)
    parts = parts_of([table(one), table(other)])
    assert [(part.nodes, part.times) for part in parts] == [((), (0, 2.0)), ((), (1.0, 0))]


def test_layers_that_overlap_in_a_chain_are_one_part() -> None:
    left = table(Layer("ab", "k", "fp32", 1.0, ("a", "b")), Layer("cd", "k", "fp32", 1.0, ("c", "d")))
    right = table(Layer("bc", "k", "fp32", 1.0, ("b", "c")), Layer("d", "k", "fp32", 1.0, ("d",)))
    (part,) = parts_of([left, right])
    assert set(part.nodes) == {"a", "b", "c", "d"}
    assert part.times == (2.0, 2.0)


def test_the_slowest_part_comes_first() -> None:
    times = [max(part.times) for part in parts_of(books.book(20).engines)]
    assert times == sorted(times, reverse=True)


def test_long_chains_do_not_go_deep() -> None:
    names = [f"n{i}" for i in range(5000)]
    links = [Layer(f"l{i}", "k", "fp32", 0.1, pair) for i, pair in enumerate(itertools.pairwise(names))]
    (part,) = parts_of([table(*links), table(*msgspec.structs.replace(table(links[0])).layers)])
    assert len(part.nodes) == 5000
