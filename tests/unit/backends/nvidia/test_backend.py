"""Building, checking and opening: what can go wrong is a clear error, and what was said is kept."""

import sys
from pathlib import Path

import msgspec
import pytest

from tailorbird.backends import registry
from tailorbird.backends.base import MESSAGES
from tailorbird.backends.nvidia.plan import read_record
from tailorbird.backends.tensorrt import TensorRtBackend
from tailorbird.backends.tensorrt_rtx import TensorRtRtxBackend
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.errors import BackendError, BackendUnavailable, UsageError
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target
from tests.contract import models
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.installed import device_of, tensorrt_on
from tests.stand_ins.tensorrt_module import TensorRt

DENSE = models.dense()


def build(backend: TensorRtBackend, candidate: Candidate, folder: Path) -> None:
    backend.compile(DENSE.write(folder.parent), candidate, folder)


def test_where_there_is_a_device_it_is_a_target(backend: TensorRtBackend) -> None:
    able = backend.capabilities()
    assert (able.target, able.runs_here, able.builds_here) == (Target.parse("tensorrt:cuda:sm86"), True, True)
    assert able.format.filename == "model.plan"
    assert (able.format.backend, able.format.platform) == ("tensorrt", "tensorrt_plan")
    assert backend.capabilities(able.target) == able


def test_for_another_device_it_makes_a_kit_at_most(backend: TensorRtBackend) -> None:
    able = backend.capabilities(Target.parse("tensorrt:cuda:sm90"))
    assert (able.runs_here, able.builds_here, able.needs_device_to_build) == (False, False, True)
    assert able.quantised == ("qdq-symmetric", "qdq-fp8")


def test_a_kit_needs_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    backend = TensorRtBackend()
    assert backend.probe().reason == "TensorRT is not installed"
    assert backend.probe().install == "pip install 'tailorbird[tensorrt]'"
    assert not backend.capabilities(Target.parse("tensorrt:cuda:sm87")).builds_here


def test_a_device_without_kernels_is_not_available() -> None:
    with device_of(CudaRuntime(9, 0)):
        found = TensorRtRtxBackend().probe()
    if not found.version:
        pytest.skip("TensorRT-RTX has no wheels for this platform")
    assert not found.available
    assert found.reason == (
        "TensorRT-RTX has no kernels for this device: got sm90, expected sm75, sm80, sm86, sm89, sm120, sm121"
    )
    assert found.install == "use another runtime"


def test_both_are_known_by_name() -> None:
    assert {"tensorrt", "tensorrt_rtx"} <= set(registry.names())


def test_a_record_says_what_the_plan_depends_on(engine: Path) -> None:
    record = read_record(engine)
    assert (record.runtime, record.version, record.architectures) == ("tensorrt", "10.16.1.11", ("sm86",))
    assert (record.driver, record.hardware, record.version_compatible) == (13000, "none", False)


def test_messages_are_kept_where_the_builder_refuses(
    backend: TensorRtBackend, trt: TensorRt, candidate: Candidate, folder: Path
) -> None:
    trt.refusal = "Error Code 10: Could not find any implementation for node y"
    with pytest.raises(BackendError) as refused:
        build(backend, candidate, folder)
    assert refused.value.message == f"the builder gave no engine: got {trt.refusal}"
    assert (folder / MESSAGES).read_text().splitlines() == [f"error: {trt.refusal}"]


def test_a_builder_without_memory_says_what_to_do(
    backend: TensorRtBackend, trt: TensorRt, candidate: Candidate, folder: Path
) -> None:
    trt.refusal = "Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)"
    with pytest.raises(BackendError, match="Hint: serve smaller shapes, allow a smaller workspace, or free the device"):
        build(backend, candidate, folder)


def test_a_parser_that_refuses_names_the_node(
    backend: TensorRtBackend, candidate: Candidate, folder: Path, tmp_path: Path
) -> None:
    case = models.convolution()
    case.model.graph.node[0].op_type = "Convolute"
    candidate = msgspec.structs.replace(candidate, profile=case.profile)
    with pytest.raises(BackendError) as refused:
        backend.compile(case.write(tmp_path), candidate, folder)
    assert refused.value.what == "the runtime's parser refused the graph"
    assert str(refused.value.got).startswith("Conv 'first': No Op registered for Convolute")
    assert (folder / MESSAGES).read_text().startswith("error: Conv 'first': No Op")


def test_a_shape_given_by_values_is_refused(
    backend: TensorRtBackend, candidate: Candidate, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.stand_ins.tensorrt_module.Tensor.is_shape_tensor", True)
    with pytest.raises(BackendError, match=r"^input 'x' gives a shape by its values: expected inputs that are data"):
        build(backend, candidate, folder)


def test_an_unknown_option_is_refused_before_anything_is_built(
    backend: TensorRtBackend, trt: TensorRt, candidate: Candidate, folder: Path
) -> None:
    with pytest.raises(UsageError, match="has no option 'fp16'"):
        build(backend, msgspec.structs.replace(candidate, options={"fp16": True}), folder)
    assert not trt.configs


def test_an_engine_of_another_machine_is_refused_before_it_is_read(engine: Path, candidate: Candidate) -> None:
    with tensorrt_on(CudaRuntime(8, 9)) as other:
        other.Runtime = None  # type: ignore[method-assign,assignment]
        with pytest.raises(BackendError, match="built for another architecture: got sm86, expected sm89"):
            TensorRtBackend().open(engine, candidate, DENSE.signature)


def test_an_engine_of_another_version_is_refused_before_it_is_read(engine: Path, candidate: Candidate) -> None:
    with tensorrt_on(CudaRuntime()) as newer:
        newer.__version__ = "11.4.0.106"
        with pytest.raises(BackendError, match=r"version of TensorRT: got 10\.16\.1\.11, expected 11\.4\.0\.106"):
            TensorRtBackend().check(engine, candidate)


def test_a_driver_that_went_away_is_an_error(engine: Path, candidate: Candidate) -> None:
    runtime = CudaRuntime()
    runtime.broken = 35
    with tensorrt_on(runtime), pytest.raises(BackendUnavailable, match=r"^no NVIDIA driver or no device here"):
        TensorRtBackend().open(engine, candidate, DENSE.signature)


def test_a_stripped_engine_gets_its_weights_back(
    backend: TensorRtBackend, trt: TensorRt, candidate: Candidate, folder: Path
) -> None:
    candidate = msgspec.structs.replace(candidate, options={"strip_weights": True})
    build(backend, candidate, folder)
    with backend.open(folder, candidate, DENSE.signature) as session:
        session.run(DENSE.inputs)
    assert trt.refitted == ["weights.onnx"]


def test_tf32_is_a_candidate_of_its_own_for_fp32_only(backend: TensorRtBackend) -> None:
    able = backend.capabilities()
    assert able.variants_of == {Precision.FP32: ({}, {"tf32": True})}
    assert able.variants == ({},)
