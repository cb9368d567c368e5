"""Candidates for a device that is not here: compiled in processes of their own, and the most promising taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from tailorbird.backends import registry
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.search.course import Course
from tailorbird.builder.search.unrun import compiled
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import NoEngineError, TailorbirdError
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tests.unit.builder.graphs import model, save, value

pytest.importorskip("onnxruntime")

SIGNATURE = Signature((TensorSpec("x", DType.FP32, ("n", 4)),), (TensorSpec("y", DType.FP32, ("n", 4)),))
PROFILE = Profile(min={"x": (1, 4)}, opt={"x": (3, 4)}, max={"x": (3, 4)})
WHY = "no onnxruntime:cpu:other here"


class Graphs:
    """Graphs by precision, as a lowering gives them; without one it refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.normalised = self.made(Precision.FP32, 2.0)

    def made(self, precision: Precision, factor: float, operator: str = "Mul") -> Path:
        nodes = [helper.make_node(operator, ["x", "w"], ["y"], domain="" if operator == "Mul" else "of.nobody")]
        weight = onnx.numpy_helper.from_array(np.float32([factor]), "w")
        graph = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [weight])
        if operator != "Mul":
            graph.opset_import.append(helper.make_opsetid("of.nobody", 1))
        return save(graph, self._folder / f"{precision}.onnx")

    def failing(self, precision: Precision) -> Path:
        """One that opens, and fails at every run: it reads a row that is not there."""
        nodes = [helper.make_node("Gather", ["x", "far"], ["y"], axis=0)]
        far = onnx.numpy_helper.from_array(np.int64([99, 99, 99]), "far")
        graph = model(nodes, [value("x", ["n", 4])], [value("y", ["m", 4])], [far])
        return save(graph, self._folder / f"{precision}.onnx")

    def graph(self, candidate: Candidate) -> Path:
        path = self._folder / f"{candidate.precision}.onnx"
        if not path.exists():
            raise TailorbirdError("the method refused", got="a reason")
        return path


def candidate(precision: Precision) -> Candidate:
    target = msgspec.structs.replace(registry.backend("onnxruntime").capabilities().target, arch="other")
    return Candidate(target, precision, PROFILE, ShapeMode.DYNAMIC, 1)


@pytest.fixture
def events() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def course(tmp_path: Path, events: list[dict[str, Any]]) -> Course:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    save_set(tmp_path / "in.npz", {"x": x})
    save_set(tmp_path / "out.npz", {"y": 2 * x})
    case = Case(Place("opt", {"x": (3, 4)}, 3), str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), True)
    log = BuildLog(tmp_path / "build.jsonl", events.append)
    lowering: Any = Graphs(tmp_path)
    (tmp_path / "engines").mkdir()
    return Course(SIGNATURE, (case,), (), BuildConfig(), "", lowering, tmp_path / "engines", log)


def tried(course: Course, *precisions: Precision) -> dict[str, Outcome]:
    found = compiled(course, [candidate(one) for one in precisions], WHY)
    return {str(outcome.candidate.precision): outcome for outcome in found}


def test_what_is_known_to_hold_is_taken_before_what_nobody_can_tell_of(
    course: Course, events: list[dict[str, Any]]
) -> None:
    graphs: Any = course.lowering
    graphs.made(Precision.INT8, 2.5)
    graphs.made(Precision.BF16, 2.0, operator="Unheard")
    graphs.made(Precision.FP16, 2.001)
    found = tried(course, Precision.INT8, Precision.BF16, Precision.FP16, Precision.FP32, Precision.FP8)
    assert list(found) == ["fp16", "int8", "bf16", "fp32", "fp8"], "the taken one first, the others as they came"
    assert {name: outcome.status for name, outcome in found.items()} == {
        "fp16": Status.CHOSEN, "int8": Status.REFUSED, "bf16": Status.NOT_RUN, "fp32": Status.NOT_RUN,
        "fp8": Status.FAILED,
    }  # fmt: skip
    seen = "its graph, run on this CPU: "
    assert found["fp16"].reason.startswith(f"not measured: {WHY}; first by promise of 3 that compiled; {seen}pass, SNR")
    assert found["int8"].reason.startswith(f"{seen}snr_db 12.04 misses 20")
    assert found["bf16"].reason == found["fp32"].reason == f"compiled; not measured: {WHY}"
    assert found["fp8"].reason == "the method refused: got a reason"
    assert [event["candidate"].split()[1] for event in events if event["event"] == "not foretold"] == ["bf16"]
    assert [path.name.split("_")[1] for path in course.folder.iterdir() if path.is_dir()] == ["fp16"]


def test_a_failure_of_this_cpus_runtime_says_nothing_of_the_device(
    course: Course, events: list[dict[str, Any]]
) -> None:
    graphs: Any = course.lowering
    graphs.failing(Precision.FP16)
    outcome = tried(course, Precision.FP16)["fp16"]
    assert outcome.status is Status.CHOSEN
    assert "run on this CPU" not in outcome.reason
    (said,) = [event["reason"] for event in events if event["event"] == "not foretold"]
    assert said.startswith("engine runs BackendError: onnxruntime could not run the engine")


def test_where_nothing_is_known_of_any_the_first_is_taken(course: Course) -> None:
    graphs: Any = course.lowering
    graphs.made(Precision.BF16, 2.0, operator="Unheard")
    assert tried(course, Precision.BF16)["bf16"].status is Status.CHOSEN


def test_where_nothing_compiles_there_is_no_engine_and_the_table_says_why(course: Course) -> None:
    graphs: Any = course.lowering
    graphs.made(Precision.INT8, 2.5)
    with pytest.raises(NoEngineError) as caught:
        tried(course, Precision.INT8, Precision.FP8)
    assert caught.value.what == "no candidate compiled"
    assert "the method refused: got a reason" in str(caught.value.got)
    assert [outcome.status for outcome in caught.value.outcomes] == [Status.REFUSED, Status.FAILED]


def test_the_first_has_its_turn_and_the_others_only_while_there_is_time(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: Callable[[Course], bool] = lambda course: True  # noqa: E731
    monkeypatch.setattr(Course, "out_of_time", property(late))
    found = tried(course, Precision.FP32, Precision.FP16)
    assert (found["fp32"].status, found["fp16"].status) == (Status.CHOSEN, Status.NOT_TRIED)
    assert found["fp16"].reason == "the time budget of 300 s was used up"
