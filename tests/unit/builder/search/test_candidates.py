"""Candidates follow from what backends say they can do."""

from typing import Any

import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Availability, Capabilities
from tailorbird.backends.host import usable_cores
from tailorbird.builder.search import candidates as room
from tailorbird.builder.search.candidates import baseline_of, candidates_for, capabilities_for, takers
from tailorbird.domain.candidate import Form
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import BackendUnavailable, UsageError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target

FORMAT = EngineFormat("b", "p", "model.b")
STATIC = Profile.static({"x": (1, 3)})
RANGE = Profile({"x": (1, 3)}, {"x": (2, 3)}, {"x": (4, 3)})


def able(name: str, precisions: str = "fp32", **facts: Any) -> Capabilities:
    asked = tuple(Precision(one) for one in precisions.split())
    return Capabilities(Target(name, "cpu", "avx2"), asked, FORMAT, **facts)


def names(profile: Profile, *backends: Capabilities, dynamic: bool = True, **config: Any) -> list[str]:
    settings = BuildConfig(**{"threads": (2,)} | config)
    return [candidate.name for candidate in candidates_for(profile, settings, dynamic, backends).candidates]


def test_a_static_profile_of_a_dynamic_source_is_tried_both_ways() -> None:
    assert names(STATIC, able("a")) == ["a fp32 static t2", "a fp32 dynamic t2"]


def test_a_range_needs_dynamic_shapes() -> None:
    assert names(RANGE, able("a"), able("b", dynamic_shapes=False)) == ["a fp32 dynamic t2"]


def test_a_static_source_has_one_form() -> None:
    assert names(STATIC, able("a"), dynamic=False) == ["a fp32 static t2"]


def test_lower_precision_comes_first_then_more_threads_first_of_all() -> None:
    assert names(STATIC, able("a", "fp32 bf16"), dynamic=False, threads=(1, 4)) == [
        "a bf16 static t4",
        "a fp32 static t4",
        "a bf16 static t1",
        "a fp32 static t1",
    ]


def test_an_accelerators_ways_come_before_the_cpus_but_for_the_baseline() -> None:
    card = Capabilities(Target("g", "cuda", "sm90"), (Precision.FP32, Precision.FP16), FORMAT, takes_threads=False)
    assert names(STATIC, able("a", "fp32 bf16", baseline=True), card, dynamic=False, threads=(4,)) == [
        "a fp32 static t4",
        "g fp16 static t1",
        "g fp32 static t1",
        "a bf16 static t4",
    ]


def test_a_backends_favourite_is_of_each_precision() -> None:
    ways = ("qdq-symmetric", "qdq-fp8", "qdq")
    found = candidates_for(STATIC, BuildConfig(threads=(1,)), False, [able("a", quantised=ways)], ready=frozenset(ways))
    methods = [one.quantisation.method if one.quantisation else "" for one in found.candidates]
    assert list(dict.fromkeys(methods)) == ["qdq-symmetric", "qdq-fp8", "", "qdq"]


def test_variants_and_backends_without_threads() -> None:
    found = names(STATIC, able("a", takes_threads=False, variants=({}, {"fuse": True})), dynamic=False, threads=(1, 4))
    assert found == ["a fp32 static t1", "a fp32 static t1 fuse=true"]


def test_threads_are_all_cores_and_one_when_nothing_is_said() -> None:
    found = names(STATIC, able("a"), dynamic=False, threads=())
    assert found == [f"a fp32 static t{count}" for count in sorted({usable_cores(), 1}, reverse=True)]


def test_only_asked_precisions_are_tried() -> None:
    assert names(STATIC, able("a", "fp32 bf16"), dynamic=False, precisions=("bf16",)) == ["a bf16 static t2"]
    assert names(STATIC, able("a"), precisions=("int8",)) == []


def test_names_are_unique() -> None:
    found = names(STATIC, able("a", "fp32 bf16", variants=({}, {"x": 1})), able("b"), threads=(1, 2))
    assert len(found) == len(set(found)) == 20


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        names(STATIC, able("a"), precisions=("fp23",))
    assert str(caught.value) == (
        "unknown precision 'fp23': expected fp32, fp16, bf16, fp8, int8\nHint: did you mean 'fp32'?"
    )


@pytest.mark.parametrize("threads", [(0,), (2, -1)])
def test_threads_below_one_are_refused(threads: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="threads must be positive: got "):
        names(STATIC, able("a"), threads=threads)


def test_the_baseline_is_the_plain_dynamic_candidate_with_most_threads() -> None:
    backends = (able("a", "fp32 bf16", baseline=True, variants=({}, {"z": 1})), able("b"))
    found = candidates_for(STATIC, BuildConfig(threads=(1, 4)), dynamic=True, able=backends).candidates
    assert baseline_of(found, backends) == "a fp32 dynamic t4"
    assert baseline_of(found, backends[1:]) == ""


def quantised(calibrated: bool = True, precisions: str = "fp32", **config: Any) -> tuple[list[str], tuple[str, ...]]:
    """Names of the quantised candidates of a backend that takes two methods, and what was left out."""
    backend = able("a", precisions, quantised=("qdq", "dynamic", "weights"))
    settings = BuildConfig(**{"threads": (2,)} | config)
    found = candidates_for(STATIC, settings, dynamic=True, able=[backend], calibrated=calibrated)
    return [one.name for one in found.candidates if one.quantisation], found.left_out


def test_each_method_a_backend_takes_is_a_candidate_static_where_the_profile_is() -> None:
    assert quantised() == (["a int8 static t2 qdq", "a int8 static t2 dynamic", "a fp32 static t2 weights"], ())


def test_the_rest_beside_int8_is_tried_in_the_lower_float_first() -> None:
    assert quantised(precisions="fp32 fp16 bf16")[0] == [
        "a int8 static t2 qdq bf16-rest",
        "a int8 static t2 qdq",
        "a int8 static t2 dynamic bf16-rest",
        "a int8 static t2 dynamic",
        "a bf16 static t2 weights bf16-rest",
        "a fp32 static t2 weights",
    ]


def test_without_data_what_needs_calibration_is_left_out_and_said() -> None:
    names, left_out = quantised(calibrated=False)
    assert names == ["a int8 static t2 dynamic", "a fp32 static t2 weights"]
    assert left_out == ("qdq: there is no data to calibrate on: give --data with two samples or more",)


def test_every_calibration_asked_for_is_tried() -> None:
    names, _ = quantised(ranges=("minmax", "entropy"))
    assert names[:2] == ["a int8 static t2 qdq", "a int8 static t2 qdq entropy"]


def test_int8_that_nobody_asked_for_is_not_worth_a_word() -> None:
    backend = able("a", quantised=("qdq",))
    found = candidates_for(STATIC, BuildConfig(precisions=("fp32",)), dynamic=False, able=[backend])
    assert not found.left_out
    assert not [one for one in found.candidates if one.quantisation]


def test_a_method_whose_package_is_absent_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "is_here", lambda known: known.package != "onnxruntime")
    _, left_out = quantised()
    assert left_out == (
        "qdq: onnxruntime is not installed: pip install 'tailorbird[cpu]'",
        "dynamic: onnxruntime is not installed: pip install 'tailorbird[cpu]'",
    )


def test_a_backend_s_favourite_int8_comes_before_float_and_the_others_after_it() -> None:
    backend = able("a", "fp32", quantised=("qdq", "dynamic"))
    entrants = candidates_for(STATIC, BuildConfig(threads=(2,)), dynamic=False, able=[backend], calibrated=True)
    assert [one.name for one in entrants.candidates] == [
        "a int8 static t2 qdq",
        "a fp32 static t2",
        "a int8 static t2 dynamic",
    ]


def test_for_throughput_the_cores_are_filled_in_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "usable_cores", lambda: 4)
    found = names(STATIC, able("a"), dynamic=False, threads=(), objective="throughput")
    assert found == ["a fp32 static t4", "a fp32 static t2x2", "a fp32 static t1x4"]


class Fake:
    def __init__(self, found: Capabilities) -> None:
        self.name = found.target.runtime
        self.found = found

    def probe(self) -> Availability:
        return Availability(available=True)

    def capabilities(self) -> Capabilities:
        return self.found


def test_backends_that_only_answer_are_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "available", lambda: (Fake(able("a")), Fake(able("oracle", serves=False))))
    assert list(capabilities_for(BuildConfig())) == ["a"]


def test_no_backend_that_serves_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "available", lambda: (Fake(able("oracle", serves=False)),))
    with pytest.raises(BackendUnavailable) as caught:
        capabilities_for(BuildConfig())
    assert str(caught.value) == "no backend that serves is available here\nHint: pip install 'tailorbird[cpu]'"


def test_named_backends_are_taken_as_named() -> None:
    assert list(capabilities_for(BuildConfig(backends=("reference",)))) == ["reference"]
    with pytest.raises(UsageError, match=r"unknown backend 'onxruntime'.*\nHint: did you mean 'onnxruntime'\?"):
        capabilities_for(BuildConfig(backends=("onxruntime",)))


def test_no_backend_is_named_in_the_code() -> None:
    text = room.__loader__.get_data(room.__file__).decode()  # type: ignore[union-attr]
    assert not [name for name in registry.BUILT_IN if name in text]


def test_backends_of_programs_take_part_where_the_source_is_one() -> None:
    backends = {"a": able("a"), "p": able("p", form=Form.PROGRAM)}
    found, left_out = takers(backends, BuildConfig(), is_program=False)
    assert [one.target.runtime for one in found] == ["a"]
    assert left_out == ("p: compiles PyTorch programs, and this is an ONNX graph",)
    assert takers(backends, BuildConfig(), is_program=True) == (tuple(backends.values()), ())


def test_no_backend_for_the_source_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        takers({"p": able("p", form=Form.PROGRAM)}, BuildConfig(backends=("p",)), is_program=False)
    assert str(caught.value) == (
        "no backend takes this model: got p: compiles PyTorch programs, and this is an ONNX graph\n"
        "Hint: name another with --backend"
    )


def test_backends_on_request_take_part_when_they_are_named() -> None:
    backends = {"a": able("a"), "slow": able("slow", on_request="compiles for minutes")}
    assert takers(backends, BuildConfig(), is_program=True)[1] == ("slow: compiles for minutes; name it to try it",)
    for config in (BuildConfig(backends=("a", "slow")), BuildConfig(target="slow:cpu:avx2")):
        assert takers(backends, config, is_program=True) == (tuple(backends.values()), ())


def test_what_specialises_need_not_be_tried_both_ways() -> None:
    assert names(STATIC, able("a", specialises=True)) == ["a fp32 static t2"]
    assert names(RANGE, able("a", specialises=True)) == ["a fp32 dynamic t2"]
