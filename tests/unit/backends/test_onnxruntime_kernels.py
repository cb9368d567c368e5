"""ONNX Runtime's kernels: times out of a trace, and the nodes they stand for in graphs that it really optimises."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tailorbird.backends.onnxruntime_kernels import kernels, medians, outermost, stands_for
from tests.contract import models

onnxruntime = pytest.importorskip("onnxruntime")


def event(name: str, start: int, micros: int, **args: Any) -> dict[str, Any]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": micros, "args": {"op_name": "Op", **args}}


def run(start: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": 1000, "args": {}}


def test_medians_are_of_the_runs_that_count() -> None:
    events = [run(0), event("a", 10, 900), run(1000), event("a", 1010, 30), run(2000), event("a", 2010, 50), run(3000),
              event("a", 3010, 40)]  # fmt: skip
    assert medians(kernels(events), events, skip=1) == {"a": 0.04}


def test_what_runs_several_times_in_one_run_is_added_up() -> None:
    events = [run(0), event("a", 10, 30), event("a", 50, 20), run(1000), event("a", 1010, 50), event("b", 1100, 7)]
    assert medians(kernels(events), events, skip=0) == {"a": 0.05, "b": 0.0035}


def test_the_body_of_a_loop_counts_as_the_loop() -> None:
    events = [run(0), event("inner", 20, 30), event("inner", 60, 40), event("loop", 10, 90), event("after", 100, 5)]
    assert [kernel.name for kernel in outermost(kernels(events))] == ["loop", "after"]


def test_other_events_are_no_kernels() -> None:
    fence = {"cat": "Node", "name": "a_fence_before", "ts": 1, "dur": 1, "args": {"op_name": "Op"}}
    assert kernels([fence, run(0)]) == []
    (found,) = kernels([event("a", 1, 2, output_type_shape=[{"float": [1]}, {"int64": [1]}])])
    assert (found.name, found.kind, found.micros, found.types) == ("a", "Op", 2, ("float", "int64"))


def optimised(model: onnx.ModelProto, folder: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(str(folder / "optimised.onnx")).graph


def nodes_by_kind(model: onnx.ModelProto, folder: Path) -> list[tuple[str, set[str]]]:
    """Kernels of the optimised graph with the source's nodes that they stand for."""
    graph = optimised(model, folder)
    names = {node.name for node in model.graph.node}
    found = stands_for(model.graph, graph)
    return [(kernel.op_type, set(found[kernel.name]) & names) for kernel in graph.node]


def test_convolutions_hold_what_was_fused_into_them(tmp_path: Path) -> None:
    found = nodes_by_kind(models.block().model, tmp_path)
    assert ("Conv", {"first", "first_relu"}) in [(kind.removeprefix("Fused"), nodes) for kind, nodes in found]
    parts = [nodes for _, nodes in found if nodes]
    assert set().union(*parts) == {node.name for node in models.block().model.graph.node}
    assert sum(map(len, parts)) == len(models.block().model.graph.node)  # each node once
    assert any({"second", "sum", "sum_relu"} <= nodes for nodes in parts)


def test_a_fused_gelu_is_all_its_nodes(tmp_path: Path) -> None:
    def constant(name: str, number: float) -> Any:
        return numpy_helper.from_array(np.array(number, np.float32), name)

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Div", ["m", "root"], ["d"], name="div"),
        helper.make_node("Erf", ["d"], ["e"], name="erf"),
        helper.make_node("Add", ["e", "one"], ["a"], name="add"),
        helper.make_node("Mul", ["m", "a"], ["t"], name="mul"),
        helper.make_node("Mul", ["t", "half"], ["y"], name="half_of"),
    ]
    weights = [constant("root", 2**0.5), constant("one", 1), constant("half", 0.5),
               numpy_helper.from_array(models.numbers(8, 8), "w")]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, 1, ["n", 8]) for name in "xy"]
    made = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights),
                             opset_imports=[helper.make_opsetid("", 17)], ir_version=8)  # fmt: skip
    assert nodes_by_kind(made, tmp_path) == [
        ("MatMul", {"product"}), ("Gelu", {"div", "erf", "add", "mul", "half_of"}),
    ]  # fmt: skip


def graph_of(*nodes: Any) -> onnx.GraphProto:
    return helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, [1])], [])


def test_a_rewritten_graph_gives_no_guess() -> None:
    written = graph_of(helper.make_node("A", ["x"], ["a"], name="a"), helper.make_node("B", ["a"], ["b"], name="b"))
    rewritten = graph_of(
        helper.make_node("A", ["x"], ["a"], name="a"),
        helper.make_node("C", ["x"], ["b"], name="new"),  # b without a, which it was made of
    )
    assert stands_for(written, rewritten) == {"a": ("a", "a"), "new": ()}


def test_a_kernel_that_kept_its_name_stands_for_its_node() -> None:
    written = graph_of(helper.make_node("A", ["x"], ["a"], name="kept"))
    rewritten = graph_of(helper.make_node("QLinearA", ["x"], ["other"], name="kept_token_3"))
    assert stands_for(written, rewritten) == {"kept_token_3": ("kept", "a")}


def test_traces_are_json(tmp_path: Path) -> None:
    """What the profiler of this version writes is what is read here."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "run")
    case = models.block()
    session = onnxruntime.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, case.inputs)
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    found = outermost(kernels(events))
    times = medians(found, events, skip=1)
    assert len(found) == 3 * len(times)
    assert sum(times.values()) > 0
