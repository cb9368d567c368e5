"""Options of candidates: what a builder is told, and what is refused by name."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tailorbird.backends import tensorrt, tensorrt_rtx
from tailorbird.backends.nvidia.options import SETTINGS, check_options
from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.domain.candidate import Candidate, Option
from tailorbird.domain.errors import UsageError
from tailorbird.domain.precision import Precision
from tests.contract import models
from tests.stand_ins.tensorrt_module import Config, TensorRt

RTX = tensorrt_rtx.TensorRtRtxBackend.flavour
TRT = tensorrt.TensorRtBackend.flavour

Configure = Callable[..., Config]


@pytest.fixture
def configured(
    backend: TensorRtBackend, trt: TensorRt, candidate: Candidate, folder: Path, tmp_path: Path
) -> Configure:
    def build(**changes: object) -> Config:
        backend.compile(models.dense().write(tmp_path), msgspec.structs.replace(candidate, **changes), folder)
        return trt.configs[-1]

    return build


def test_every_option_reaches_the_builder(configured: Configure) -> None:
    options = {
        "aux_streams": 0,
        "hardware_compatibility": "ampere_plus",
        "optimization_level": 5,
        "refit": True,
        "strip_weights": True,
        "tf32": True,
        "version_compatible": True,
        "workspace_mib": 64,
    }
    config = configured(options=options)
    assert config.set == {"REFIT": True, "STRIP_PLAN": True, "TF32": True, "VERSION_COMPATIBLE": True,
                          "workspace": 64 << 20}  # fmt: skip
    assert (config.max_aux_streams, config.hardware_compatibility_level, config.builder_optimization_level) == (
        0,
        "ampere",
        5,
    )
    assert set(options) | {"profiles", "timing_cache"} == set(SETTINGS)


def test_details_are_kept_for_the_inspector(configured: Configure) -> None:
    assert configured().profiling_verbosity == "detailed"


@pytest.mark.parametrize(("precision", "tf32"), [(Precision.FP32, False), (Precision.FP16, True)])
def test_fp32_is_fp32_unless_tf32_was_asked_for(configured: Configure, precision: Precision, tf32: bool) -> None:
    assert configured(precision=precision).set["TF32"] is tf32


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("workspace", 1, "TensorRT has no option 'workspace': expected aux_streams, hardware_compatibility, "
         "optimization_level, profiles, refit, strip_weights, tf32, timing_cache, version_compatible, workspace_mib\n"
         "Hint: did you mean 'workspace_mib'?"),
        ("optimization_level", 6, "option 'optimization_level' cannot be that: got 6, expected 0, 1, 2, 3, 4, 5"),
        ("refit", 1, "option 'refit' cannot be that: got 1, expected true or false"),
        ("workspace_mib", True, "option 'workspace_mib' cannot be that: got True, expected a number"),
        ("workspace_mib", 0, "option 'workspace_mib' cannot be that: got 0, expected a number"),
        ("profiles", "all", "option 'profiles' cannot be that: got 'all', expected one, edges"),
    ],
)  # fmt: skip
def test_what_is_no_option_or_no_value_of_it_is_refused(name: str, value: Option, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_options(TRT, {name: value})
    assert refused.value.message == message


@pytest.mark.parametrize("name", ["hardware_compatibility", "version_compatible", "timing_cache"])
def test_rtx_names_its_hardware_and_keeps_no_timings(name: str) -> None:
    with pytest.raises(UsageError, match=f"^TensorRT-RTX has no option '{name}'"):
        check_options(RTX, {name: True})
