"""What an inspection says of real files."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from tailorbird.backends import registry
from tailorbird.backends.base import Availability
from tailorbird.builder.graph.inspect import DescribeArgs, Inspection, _obstacles, describe, inspect_model, run_shapes
from tailorbird.builder.graph.trial import Trial, TrialArgs, try_backend
from tailorbird.builder.sources.onnx_file import signature_of
from tailorbird.domain.candidate import Form
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import InputError, ModelError
from tests.unit.builder.graphs import externalise, linear, model, save, value, weight


def described(made: onnx.ModelProto, tmp_path: Path, **shapes: tuple[int, ...]) -> Inspection:
    return describe(DescribeArgs(str(save(made, tmp_path / "m.onnx")), shapes, ""))


def that_take_graphs() -> set[str]:
    """Backends of this machine that compile ONNX."""
    return {one.name for one in registry.available() if one.capabilities().form is not Form.PROGRAM}


def test_an_inspection_of_a_real_file(tmp_path: Path) -> None:
    """The whole way: read in a child, weights inlined, every backend of this machine tried."""
    made = linear("batch")
    made.producer_name, made.producer_version = "hand", "1.0"
    externalise(made.graph.initializer[0], tmp_path, "w.bin")
    found = inspect_model(save(made, tmp_path / "m.onnx"))
    assert found.digest.startswith("sha256-files:")
    assert (found.format, found.producer, found.ir_version, found.opsets) == ("onnx", "hand 1.0", 8, {"ai.onnx": 17})
    assert (found.dynamic_dims, found.batch_dim) == (("batch",), "batch")
    assert (found.operators, found.nodes) == ({"MatMul": 1, "Add": 1, "Relu": 1}, 3)
    assert (found.parameters, found.weight_bytes, found.dtypes) == (15, 60, {"FLOAT": 15})
    assert found.external_files == ("w.bin",)
    assert found.flops is not None
    assert (found.flops.shapes, found.flops.flops) == ({"x": (1, 4)}, 30)
    assert {name: found.obstacles[name] for name in that_take_graphs()} == dict.fromkeys(that_take_graphs(), ())
    for name in set(registry.names()) - that_take_graphs():
        (reason,) = found.obstacles[name]
        assert reason.startswith(("not available here: ", "compiles PyTorch programs, not ONNX"))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Inspection) == found


def test_obstacles_are_in_the_backends_words(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchThing", ["x"], ["y"], domain="com.microsoft")
    made = model([node], [value("x", [1])], [value("y", [1])])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = inspect_model(save(made, tmp_path / "m.onnx"))
    assert set(found.obstacles) == set(registry.names())
    for name in that_take_graphs():
        (text,) = found.obstacles[name]
        assert text.startswith(f"{name} could not ")
        assert "NoSuchThing" in text


def test_obstacles_can_be_left_out(tmp_path: Path) -> None:
    assert inspect_model(save(linear(), tmp_path / "m.onnx"), try_obstacles=False).obstacles == {}


def test_a_bad_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="the file is not an ONNX model: got text, beginning 'not a model'"):
        inspect_model(tmp_path / "m.onnx")


def trial(tmp_path: Path, made: onnx.ModelProto, backend: str = "reference") -> TrialArgs:
    path = save(made, tmp_path / "trial.onnx")
    return TrialArgs(backend, str(path), str(tmp_path / "try"), signature_of(made), None)


def test_a_backend_that_hangs_is_an_obstacle(tmp_path: Path) -> None:
    (text,) = _obstacles(trial(tmp_path, linear()), Limits(seconds=0.001))
    assert text.startswith("step 'try_backend' took too long and was stopped")


def test_a_backend_that_needs_too_much_memory_is_an_obstacle(tmp_path: Path) -> None:
    (text,) = _obstacles(trial(tmp_path, linear()), Limits(memory_bytes=1 << 20))
    assert text.startswith("step 'try_backend' used too much memory and was stopped")


class Stub:
    """A backend of which a trial sees what a test gives it."""

    def __init__(self, **facts: Any) -> None:
        self._facts = facts

    def probe(self) -> Availability:
        return self._facts.get("availability", Availability(available=True))

    def capabilities(self) -> Any:
        return msgspec.structs.replace(registry.backend("reference").capabilities(), **self._facts["able"])


def with_stub(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    stub, real = Stub(**facts), registry.backend
    monkeypatch.setattr(registry, "backend", lambda name: stub if name == "stub" else real(name))


def test_an_unavailable_backend_says_why_and_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Availability(available=False, reason="ImportError: no module", install="pip install it")
    with_stub(monkeypatch, availability=absent)
    assert try_backend(trial(tmp_path, linear(), "stub")) == Trial(
        ("not available here: ImportError: no module; pip install it",)
    )


def test_a_backend_of_fixed_shapes_asks_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stub(monkeypatch, able={"dynamic_shapes": False})
    assert try_backend(trial(tmp_path, linear(), "stub")) == Trial(("takes fixed shapes only: give --shapes",))


# --- FLOPs, and the shapes they need -------------------------------------------------------------


def image(tmp_path: Path, **shapes: tuple[int, ...]) -> Inspection:
    node = helper.make_node("Relu", ["x"], ["y"])
    dims = ["n", 3, "height", "width"]
    return described(model([node], [value("x", dims)], [value("y", dims)], opset=11), tmp_path, **shapes)


def test_other_dims_than_the_batch_need_shapes(tmp_path: Path) -> None:
    found = image(tmp_path)
    assert found.flops is None
    assert found.flops_reason == "the size of height, width is not known: give --shapes"
    given = image(tmp_path, x=(2, 3, 4, 5))
    assert (given.flops.flops if given.flops else 0, given.flops_reason) == (120, "")


def test_shapes_that_contradict_the_signature(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="input 'x' has the wrong shape"):
        image(tmp_path, x=(2, 4, 4, 5))
    with pytest.raises(InputError, match="unknown input 'y'"):
        image(tmp_path, y=(1,))


def test_inputs_left_out_follow_from_the_others() -> None:
    node = helper.make_node("Add", ["a", "b"], ["y"])
    inputs = [value("a", ["n", "t"]), value("b", ["n", "t"])]
    signature = signature_of(model([node], inputs, [value("y", ["n", "t"])]))
    assert run_shapes(signature, {"a": (2, 7)}) == ({"a": (2, 7), "b": (2, 7)}, ())
    assert run_shapes(signature, {}) == ({}, ("t",))


def test_notes_are_about_this_model(tmp_path: Path) -> None:
    assert image(tmp_path).notes == (
        "opset 11: per-channel INT8 needs opset 13, so a build upgrades the graph first",
        "dynamic height, width: an engine for fixed sizes is often faster (--opt-shapes)",
    )
    assert described(linear("n"), tmp_path).notes == ()
    assert described(linear(1), tmp_path).notes == (
        "no dynamic dim leads every input: requests cannot be joined in batches",
    )


def test_a_name_given_twice_is_noted(tmp_path: Path) -> None:
    made = linear("n")
    made.graph.node.append(helper.make_node("Neg", ["y"], ["s"]))
    assert described(made, tmp_path).notes == ("one name is given to several values: a build renames them",)


def test_what_is_stored_is_counted_wherever_it_is(tmp_path: Path) -> None:
    then = helper.make_graph([helper.make_node("Add", ["x", "t"], ["z"])], "then", [], [value("z", None)])
    then.initializer.append(weight("t", 4))
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["z2"])], "else", [], [value("z2", None)])
    nodes = [
        helper.make_node("Constant", [], ["k"], value=weight("kv", 4, dtype=np.float16)),
        helper.make_node("Constant", [], ["flag"], value=weight("fv", dtype=np.bool_)),
        helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other),
        helper.make_node("Relu", ["x"], ["unused"], domain="ai.onnx"),
    ]
    made = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [weight("ids", 2, dtype=np.int64)])
    found = described(made, tmp_path)
    assert found.dtypes == {"FLOAT": 4, "FLOAT16": 4, "INT64": 2, "BOOL": 1}
    assert (found.parameters, found.weight_bytes) == (8, 16 + 8 + 16 + 1)
    assert found.operators == {"Constant": 2, "If": 1, "Add": 1, "Neg": 1, "Relu": 1}
    assert found.nodes == 6
