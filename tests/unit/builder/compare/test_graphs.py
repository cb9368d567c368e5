"""Which node is which: renamed, retrained, added, removed, changed."""

import time
from collections.abc import Sequence

from tailorbird.builder.compare.graphs import changes
from tailorbird.domain.outline import Outline, OutlineNode

Row = tuple[str, str, str]


def chain(rows: Sequence[Row]) -> Outline:
    """Nodes in a row, each reading the one before: name, form, weights."""
    before = ["x", *(name for name, _, _ in rows)]
    return Outline(tuple(OutlineNode(name, form.split("-")[0], (read,), form, weights)
                         for (name, form, weights), read in zip(rows, before, strict=False)))  # fmt: skip


PLAIN = [("c1", "Conv-3", "w1"), ("r1", "Relu", ""), ("c2", "Conv-3", "w2"), ("r2", "Relu", ""), ("fc", "Gemm", "w3")]


def test_equal_graphs_have_no_change() -> None:
    found = changes(chain(PLAIN), chain(PLAIN))
    assert found.twins == {name: name for name, _, _ in PLAIN}
    assert not found.is_structural
    assert not found.retrained


def test_a_block_that_shifts_every_later_name_is_still_only_an_added_block() -> None:
    shifted = [("c1", "Conv-3", "w1"), ("r1", "Relu", ""), ("c2", "Conv-3", "new"), ("r2", "Relu", ""),
               ("c3", "Conv-3", "w2"), ("r3", "Relu", ""), ("fc", "Gemm", "w3")]  # fmt: skip
    found = changes(chain(PLAIN), chain(shifted))
    assert found.added == ("c2", "r2")
    assert (found.removed, found.changed, found.retrained) == ((), (), ())
    assert found.twins["c3"] == "c2"
    assert found.twins["r3"] == "r2"


def test_other_values_of_weights_are_a_retrained_node() -> None:
    retrained = [(name, form, "other" if name == "c2" else weights) for name, form, weights in PLAIN]
    found = changes(chain(PLAIN), chain(retrained))
    assert found.retrained == ("c2",)
    assert not found.is_structural


def test_a_renamed_and_retrained_graph_is_matched_by_order() -> None:
    other = [(f"model/{name}", form, weights and f"new {weights}") for name, form, weights in PLAIN]
    found = changes(chain(PLAIN), chain(other))
    assert found.twins == {f"model/{name}": name for name, _, _ in PLAIN}
    assert set(found.retrained) == {"model/c1", "model/c2", "model/fc"}
    assert not found.is_structural


def test_another_attribute_is_a_changed_node() -> None:
    strided = [(name, "Conv-3-stride2" if name == "c2" else form, weights) for name, form, weights in PLAIN]
    found = changes(chain(PLAIN), chain(strided))
    assert found.changed == ("c2",)
    assert found.is_structural


def test_a_removed_node_is_named_as_a_had_it() -> None:
    found = changes(chain(PLAIN), chain([row for row in PLAIN if row[0] != "r2"]))
    assert found.removed == ("r2",)
    assert not found.added


def test_a_node_that_reads_from_another_is_rewired() -> None:
    plain = chain(PLAIN)
    last = OutlineNode("fc", "Gemm", ("r1",), "Gemm", "w3")
    found = changes(plain, Outline((*plain.nodes[:-1], last)))
    assert found.rewired == ("fc",)
    assert found.is_structural


def test_an_empty_graph_has_lost_everything() -> None:
    assert changes(chain(PLAIN), Outline()).removed == tuple(name for name, _, _ in PLAIN)


def test_many_forms_in_another_order_take_no_time() -> None:
    def outline(prefix: str, forms: str) -> Outline:
        return Outline(tuple(OutlineNode(f"{prefix}{i}", form, (), form, "") for i, form in enumerate(forms)))

    start = time.perf_counter()
    found = changes(outline("a", "head" + "xy" * 500 + "tail"), outline("b", "head" + "yx" * 500 + "z" + "tail"))
    assert time.perf_counter() - start < 5
    assert {"b0": "a0", "b1008": "a1007"}.items() <= found.twins.items()


def test_long_graphs_with_one_node_more_are_paired_from_both_ends() -> None:
    def outline(prefix: str, forms: list[str]) -> Outline:
        nodes = (OutlineNode(f"{prefix}{i}", "Op", (f"{prefix}{i - 1}",), form, f"{prefix}{i}")
                 for i, form in enumerate(forms))  # fmt: skip
        return Outline(tuple(nodes))

    forms = [f"f{i}" for i in range(1000)]
    found = changes(outline("a", forms), outline("b", [*forms[:500], "new", *forms[500:]]))
    assert (found.added, found.removed) == (("b500",), ())
