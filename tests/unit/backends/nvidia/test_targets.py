"""Targets: what an architecture computes in, and which are refused by name."""

import pytest

from tailorbird.backends import tensorrt, tensorrt_rtx
from tailorbird.backends.nvidia.targets import capability, check_target, floats_of, methods_of
from tailorbird.domain.errors import UsageError
from tailorbird.domain.target import Target

RTX = tensorrt_rtx.TensorRtRtxBackend.flavour
TRT = tensorrt.TensorRtBackend.flavour


@pytest.mark.parametrize(
    ("arch", "floats", "methods"),
    [
        ("sm75", "fp32 fp16", "qdq-symmetric"),
        ("sm86", "fp32 fp16 bf16", "qdq-symmetric"),
        ("sm89", "fp32 fp16 bf16", "qdq-symmetric qdq-fp8"),
        ("sm90", "fp32 fp16 bf16", "qdq-symmetric qdq-fp8"),
        ("sm120", "fp32 fp16 bf16", "qdq-symmetric qdq-fp8"),
        ("sm75_sm89", "fp32 fp16", "qdq-symmetric"),  # what all of them have
    ],
)
def test_what_an_architecture_computes_in(arch: str, floats: str, methods: str) -> None:
    assert " ".join(floats_of(arch)) == floats
    assert " ".join(methods_of(arch)) == methods


def test_an_architecture_is_a_compute_capability() -> None:
    assert (capability("sm75"), capability("sm120")) == (75, 120)
    with pytest.raises(UsageError) as refused:
        capability("ampere")
    assert (
        refused.value.message == "not an architecture of NVIDIA's: got 'ampere', expected sm and a number, as in sm86"
    )


@pytest.mark.parametrize("text", ["tensorrt:cuda:sm87", "tensorrt:cuda:sm90"])
def test_tensorrt_takes_any_architecture(text: str) -> None:
    check_target(TRT, Target.parse(text))


def test_rtx_takes_those_it_has_kernels_for() -> None:
    for arch in (*RTX.architectures, "sm86_sm89"):
        check_target(RTX, Target("tensorrt_rtx", "cuda", arch))
    with pytest.raises(UsageError) as refused:
        check_target(RTX, Target.parse("tensorrt_rtx:cuda:sm90"))
    assert refused.value.message == (
        "TensorRT-RTX has no kernels for sm90: expected sm75, sm80, sm86, sm89, sm120, sm121\n"
        "Hint: use another runtime on that device"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt:cpu:sm86", "TensorRT makes no engine for tensorrt:cpu:sm86: expected tensorrt:cuda:sm86"),
        ("openvino:cuda:sm86", "TensorRT makes no engine for openvino:cuda:sm86: expected tensorrt:cuda:sm86"),
        ("tensorrt:cuda:sm80_sm86", "TensorRT builds for one architecture: got sm80_sm86"),
    ],
)
def test_other_targets_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_target(TRT, Target.parse(text))
    assert refused.value.message == message
