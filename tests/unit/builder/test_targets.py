"""Targets that are not here, as data."""

from typing import Any

import msgspec
import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Availability, Capabilities
from tailorbird.builder.targets import check_builds, check_threads, reason_not_to_run, travelling
from tailorbird.domain.candidate import Form
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import UsageError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target


def able(**facts: Any) -> dict[str, Capabilities]:
    target = Target("somert", "cuda", "sm86")
    return {"somert": Capabilities(target, (Precision.FP16,), EngineFormat("b", "p", "model.b"), **facts)}


def test_what_is_here_is_built_and_run() -> None:
    check_builds(able(needs_device_to_build=True))
    assert not reason_not_to_run(able(), BuildConfig())


def test_what_is_built_here_and_runs_elsewhere_is_not_run() -> None:
    check_builds(able(runs_here=False))
    assert reason_not_to_run(able(runs_here=False), BuildConfig()) == "no somert:cuda:sm86 here"
    assert reason_not_to_run(able(), BuildConfig(qualify=False)) == "as asked"


@pytest.mark.parametrize(
    "facts", [{"runs_here": False, "needs_device_to_build": True}, {"runs_here": False, "builds_here": False}]
)
def test_what_only_its_device_builds_is_refused_with_the_way_out(facts: dict[str, bool]) -> None:
    with pytest.raises(UsageError) as caught:
        check_builds(able(**facts))
    assert caught.value.message == (
        "somert builds for somert:cuda:sm86 on such a device only: got this machine\n"
        "Hint: make a build kit with -o NAME.kit, and finish it there"
    )


def test_a_kit_is_finished_on_its_device_only() -> None:
    foreign = able(runs_here=False)["somert"]
    with pytest.raises(UsageError) as caught:
        check_builds({"reference": foreign}, made_elsewhere=True)
    assert caught.value.message == (
        "the build kit is for somert:cuda:sm86, which this machine is not\nHint: finish it on such a device"
    )


def test_where_the_runtime_itself_is_what_is_wrong_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign, backend = able(runs_here=False)["somert"], registry.backend("reference")
    monkeypatch.setattr(type(backend), "probe", lambda self: Availability(available=False, reason="no driver"))
    with pytest.raises(UsageError, match="which this machine is not: got no driver"):
        check_builds({"reference": foreign}, made_elsewhere=True)


def test_how_many_threads_a_machine_elsewhere_has_must_be_said() -> None:
    check_threads(able(), BuildConfig())
    check_threads(able(), BuildConfig(qualify=False))
    check_threads(able(runs_here=False, takes_threads=False), BuildConfig())
    check_threads(able(runs_here=False), BuildConfig(threads=(4,)))
    with pytest.raises(UsageError) as caught:
        check_threads(able(runs_here=False), BuildConfig())
    assert caught.value.what == "how many threads engines for somert:cuda:sm86 are to use cannot be seen here"


def test_a_kit_without_a_program_names_no_runtime_that_would_compile_it() -> None:
    found = {**able(form=Form.PROGRAM), "other": able()["somert"]}
    config = travelling(found, BuildConfig(backends=("somert", "other"), seed=7))
    assert (config.backends, config.seed) == (("other",), 7)
    assert travelling(found, BuildConfig()) == BuildConfig()
    assert travelling(found, BuildConfig(backends=("somert",))).backends == ("somert",)  # not: all that there are


def test_code_for_another_cpu_is_compiled_there() -> None:
    pytest.importorskip("torch")
    backend = registry.backend("inductor")
    other = Target("inductor", "cpu", "riscv64")
    found = backend.capabilities(other)
    assert (found.target, found.runs_here, found.needs_device_to_build) == (other, False, True)
    with pytest.raises(UsageError, match="inductor builds for inductor:cpu:riscv64 on such a device only"):
        check_builds({"inductor": found})
    with pytest.raises(UsageError, match="unknown CPU architecture 'avx521'"):
        backend.capabilities(Target("inductor", "cpu", "avx521"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_engines_that_are_the_graph_are_built_for_any_cpu(runtime: str) -> None:
    pytest.importorskip(runtime)
    backend = registry.backend(runtime)
    here = backend.capabilities()
    other = msgspec.structs.replace(here.target, arch="riscv64")
    found = backend.capabilities(other)
    assert (found.target, found.runs_here, found.builds_here) == (other, False, True)
    assert found.format == here.format
    assert backend.capabilities(here.target) == here
    with pytest.raises(UsageError, match=f"{runtime} cannot build for {runtime}:cuda:sm90"):
        backend.capabilities(Target(runtime, "cuda", "sm90"))
    with pytest.raises(UsageError) as caught:
        backend.capabilities(Target(runtime, "cpu", "avx521"))
    assert caught.value.message == (
        "unknown CPU architecture 'avx521': expected x86_64, avx2, avx512, amx, aarch64, arm64, riscv64\n"
        "Hint: did you mean 'avx512'?"
    )
