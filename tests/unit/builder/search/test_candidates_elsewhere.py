"""Candidates for a target that was named, and of a build kit that holds graphs already."""

from typing import Any

import pytest

from tailorbird.backends.base import Capabilities
from tailorbird.backends.host import cpu_arch
from tailorbird.builder.search import candidates as room
from tailorbird.builder.search.candidates import by_promise, candidates_for, capabilities_for
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import UsageError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.objective import Objective
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target

PROFILE = Profile.static({"x": (1, 3)})


def able(precisions: str, **facts: Any) -> Capabilities:
    kinds = tuple(Precision(one) for one in precisions.split())
    return Capabilities(Target("some", "cpu", "avx2"), kinds, EngineFormat("b", "p", "model.b"), **facts)


def test_a_target_names_the_one_backend_that_is_tried() -> None:
    pytest.importorskip("onnxruntime")
    here = f"onnxruntime:cpu:{cpu_arch()}"
    for target in (here, "onnxruntime:cpu:riscv64"):
        found = capabilities_for(BuildConfig(target=target))
        assert {name: str(one.target) for name, one in found.items()} == {"onnxruntime": target}
        assert found["onnxruntime"].runs_here is (target == here)
    assert capabilities_for(BuildConfig(target=here, backends=("onnxruntime",)))


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"target": "onnxruntime:cpu:avx2", "backends": ("openvino",)}, "a target names its backend itself"),
        ({"target": "onnxruntime"}, "cannot read target"),
        ({"target": "onxruntime:cpu:avx2"}, "unknown backend 'onxruntime'"),
        ({"target": "onnxruntime:cuda:sm90"}, "onnxruntime cannot build for onnxruntime:cuda:sm90"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        capabilities_for(BuildConfig(**settings))
    assert caught.value.what == what


def test_the_cores_of_a_machine_elsewhere_are_the_most_threads_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "usable_cores", lambda: 64)
    config = BuildConfig(threads=(8, 2), objective=Objective.THROUGHPUT)
    widths = {}
    for here in (True, False):
        found = candidates_for(PROFILE, config, False, [able("fp32", runs_here=here)]).candidates
        widths[here] = {(one.threads, one.instances) for one in found}
    assert widths == {True: {(8, 8), (2, 32)}, False: {(8, 1), (2, 4)}}


def test_by_promise_the_baseline_has_no_privilege() -> None:
    backend = able("fp32 fp16", baseline=True)
    found = candidates_for(PROFILE, BuildConfig(threads=(1,)), True, [backend]).candidates
    assert [one.name for one in found][:2] == ["some fp32 dynamic t1", "some fp16 static t1"]
    assert [one.name for one in by_promise(found, [backend])] == [
        "some fp16 static t1", "some fp16 dynamic t1", "some fp32 static t1", "some fp32 dynamic t1",
    ]  # fmt: skip


def test_a_method_whose_graphs_are_there_needs_neither_data_nor_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "is_here", lambda method: False)
    backend = able("fp32", quantised=("qdq", "qoperator"))
    config = BuildConfig(threads=(1,))
    without = candidates_for(PROFILE, config, False, [backend])
    assert [one.quantisation for one in without.candidates] == [None]
    assert len(without.left_out) == 2
    found = candidates_for(PROFILE, config, False, [backend], ready=frozenset({"qdq"}))
    assert {one.quantisation.method for one in found.candidates if one.quantisation} == {"qdq"}
    assert [reason.partition(":")[0] for reason in found.left_out] == ["qoperator"]
