"""Targets that are not here, as data."""

from typing import Any

import msgspec
import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import Capabilities
from tailorbird.builder.targets import check_builds, check_threads, check_travels, reason_not_to_run, travelling
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
    with pytest.raises(UsageError, match="the build kit is for somert:cuda:sm86, which this machine is not"):
        check_builds(able(runs_here=False), made_elsewhere=True)


def test_how_many_threads_a_machine_elsewhere_has_must_be_said() -> None:
    check_threads(able(), BuildConfig())
    check_threads(able(), BuildConfig(qualify=False))
    check_threads(able(runs_here=False, takes_threads=False), BuildConfig())
    check_threads(able(runs_here=False), BuildConfig(threads=(4,)))
    with pytest.raises(UsageError) as caught:
        check_threads(able(runs_here=False), BuildConfig())
    assert caught.value.what == "how many threads engines for somert:cuda:sm86 are to use cannot be seen here"


def test_a_program_does_not_travel_in_a_kit() -> None:
    check_travels({**able(form=Form.PROGRAM), "other": able()["somert"]})
    with pytest.raises(UsageError, match="somert would compile the program, and a build kit holds no code"):
        check_travels(able(form=Form.PROGRAM))


def test_a_kit_names_no_runtime_that_would_compile_the_program() -> None:
    found = {**able(form=Form.PROGRAM), "other": able()["somert"]}
    config = travelling(found, BuildConfig(backends=("somert", "other"), seed=7))
    assert (config.backends, config.seed) == (("other",), 7)
    assert travelling(found, BuildConfig()) == BuildConfig()


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
