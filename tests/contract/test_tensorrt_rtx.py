"""What of the contract holds without a device, held to the real builder of TensorRT-RTX, which needs none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from tailorbird.backends import cuda, registry
from tailorbird.backends.base import MESSAGES, Backend
from tailorbird.backends.nvidia.flavour import vendor
from tailorbird.backends.nvidia.loading import Loaded
from tailorbird.backends.nvidia.plan import read_record
from tailorbird.backends.tensorrt_rtx import TensorRtRtxBackend
from tailorbird.domain.candidate import Candidate, Form, Option, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError, BackendUnavailable
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target
from tests.contract import models
from tests.contract.models import Case
from tests.stand_ins import tensorrt_module

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has no wheels for this platform")

TARGET = Target.parse("tensorrt_rtx:cuda:sm86")
TYPES = (DType.BOOL, DType.UINT8, DType.INT8, DType.INT32, DType.INT64, DType.FP16, DType.BF16, DType.FP32)


@pytest.fixture
def backend() -> Backend:
    return registry.backend("tensorrt_rtx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "engine"
    made.mkdir()
    return made


def candidate_of(
    case: Case, mode: ShapeMode = ShapeMode.DYNAMIC, target: Target = TARGET, **options: Option
) -> Candidate:
    profile = Profile.static(case.profile.opt) if mode is ShapeMode.STATIC else case.profile
    return Candidate(target, Precision.FP32, profile, mode, 1, dict(options), form=Form.CAST)


def _has_device() -> bool:
    try:
        return bool(cuda.device())
    except BackendUnavailable:
        return False


without_device = pytest.mark.skipif(_has_device(), reason="this machine has a CUDA device")


@pytest.mark.parametrize("mode", list(ShapeMode))
@pytest.mark.parametrize("make", models.CASES, ids=lambda make: make.__name__)
def test_every_model_is_built(
    backend: Backend, folder: Path, tmp_path: Path, make: Callable[[], Case], mode: ShapeMode
) -> None:
    case = make()
    backend.compile(case.write(tmp_path), candidate_of(case, mode), folder)
    able = backend.capabilities(TARGET)
    assert {path.name for path in folder.iterdir()} == {able.format.filename, "engine.json", MESSAGES}
    record = read_record(folder)
    assert (record.version, record.architectures) == (backend.probe().version, ("sm86",))
    assert record.size == (folder / able.format.filename).stat().st_size


def test_what_the_builder_said_is_kept(backend: Backend, folder: Path, tmp_path: Path) -> None:
    case = models.dense()
    backend.compile(case.write(tmp_path), candidate_of(case), folder)
    said = (folder / MESSAGES).read_text().splitlines()
    assert "info: Detected 1 inputs and 1 output network tensors." in said
    assert said[-1] == "info: layers as planned: fp32 x1"


def test_weights_beside_the_model_are_read(backend: Backend, folder: Path, tmp_path: Path) -> None:
    case, model = models.dense(), tmp_path / "outside.onnx"
    onnx.save_model(case.model, model, save_as_external_data=True, location="outside.onnx.data", size_threshold=0)
    backend.compile(model, candidate_of(case), folder)
    assert (folder / "model.plan").stat().st_size > 16 * 8 * 4
    model.with_name("outside.onnx.data").unlink()
    with pytest.raises(BackendError, match="the runtime's parser refused the graph"):
        backend.compile(model, candidate_of(case), folder)


def test_dims_of_one_name_and_several_sizes_are_told_apart(backend: Backend, folder: Path, tmp_path: Path) -> None:
    """PP-OCR calls three of its dims ``?``: the builder alone takes them for one, and refuses."""
    case = models.convolution()
    for dim in case.model.graph.input[0].type.tensor_type.shape.dim:
        if not dim.dim_value:
            dim.dim_param = "?"
    backend.compile(case.write(tmp_path), candidate_of(case), folder)
    assert read_record(folder).planned


def test_one_engine_is_built_for_several_architectures(backend: Backend, folder: Path, tmp_path: Path) -> None:
    case, several = models.dense(), Target.parse("tensorrt_rtx:cuda:sm86_sm89")
    backend.compile(case.write(tmp_path), candidate_of(case, target=several), folder)
    assert read_record(folder).architectures == ("sm86", "sm89")


def test_every_edge_can_have_kernels_of_its_own(backend: Backend, folder: Path, tmp_path: Path) -> None:
    case = models.dense()
    backend.compile(case.write(tmp_path), candidate_of(case), folder)
    one = read_record(folder).size
    backend.compile(case.write(tmp_path), candidate_of(case, profiles="edges"), folder)
    assert read_record(folder).size > 2 * one


def test_the_builder_takes_its_options(backend: Backend, folder: Path, tmp_path: Path) -> None:
    case, options = models.dense(), {"aux_streams": 0, "optimization_level": 5, "tf32": True, "workspace_mib": 64}
    backend.compile(case.write(tmp_path), candidate_of(case, **options), folder)
    assert read_record(folder).planned == {"fp32": 1}


@without_device
@pytest.mark.parametrize("option", ["refit", "strip_weights"])
def test_what_is_refitted_later_needs_a_device_now(backend: Backend, folder: Path, tmp_path: Path, option: str) -> None:
    case = models.dense()
    with pytest.raises(BackendUnavailable) as refused:
        backend.compile(case.write(tmp_path), candidate_of(case, **{option: True}), folder)
    assert refused.value.message == (
        f"TensorRT-RTX builds with '{option}' only where there is a device\n"
        "Hint: leave the option out, or build on the device"
    )


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype is not DType.BYTES])
def test_element_types_are_taken_as_they_are_or_refused(
    backend: Backend, folder: Path, tmp_path: Path, dtype: DType
) -> None:
    case = models.same(dtype, np.array([1, 0, 1, 1], dtype.numpy))
    candidate, model = candidate_of(case), case.write(tmp_path)
    if dtype in TYPES:
        backend.compile(model, candidate, folder)
        return
    with pytest.raises(BackendError, match=f"^'x' has a type that the runtime does not take: got {dtype}, expected "):
        backend.compile(model, candidate, folder)


@without_device
def test_without_a_device_it_is_not_available_and_has_a_version(backend: Backend) -> None:
    found = backend.probe()
    assert not found.available
    assert found.version.startswith("1.")
    assert found.reason.startswith("no NVIDIA driver or no device here: got ")
    assert found.install == "install NVIDIA's driver, or a newer one"
    with pytest.raises(BackendUnavailable, match=r"^tensorrt_rtx is not available: got no NVIDIA driver"):
        backend.capabilities()


@without_device
def test_for_a_named_target_it_builds_here_and_runs_elsewhere(backend: Backend) -> None:
    able = backend.capabilities(TARGET)
    assert (able.target, able.builds_here, able.runs_here, able.needs_device_to_build) == (TARGET, True, False, False)
    assert able.precisions == (Precision.FP32, Precision.FP16, Precision.BF16)
    assert able.form is Form.CAST


@without_device
def test_an_engine_for_another_machine_is_not_opened_here(backend: Backend, folder: Path, tmp_path: Path) -> None:
    case = models.dense()
    candidate = candidate_of(case)
    backend.compile(case.write(tmp_path), candidate, folder)
    for look in (lambda: backend.check(folder, candidate), lambda: backend.open(folder, candidate, case.signature)):
        with pytest.raises(BackendError, match=r"^no NVIDIA driver or no device here: got "):
            look()


@without_device
def test_the_real_runtime_refuses_without_ending_the_process(backend: Backend, folder: Path, tmp_path: Path) -> None:
    """Past our own checks: what the library says of a machine without a driver, and of a header that is none."""
    case = models.dense()
    backend.compile(case.write(tmp_path), candidate_of(case), folder)
    with pytest.raises(BackendError) as refused:
        Loaded(TensorRtRtxBackend.flavour, folder)
    assert refused.value.what == "the runtime refuses the engine on this device"
    assert "CUDA driver version is insufficient" in str(refused.value.got)
    (folder / "model.plan").write_bytes(b"x" * 100)
    with pytest.raises(BackendError, match="the runtime refuses the engine on this device: got malformed engine"):
        Loaded(TensorRtRtxBackend.flavour, folder)


def test_the_builders_own_architectures_are_the_ones_we_name(backend: Backend) -> None:
    flavour = TensorRtRtxBackend.flavour
    known = vendor(flavour).ComputeCapability.__members__
    assert {name.lower() for name in known if name.startswith("SM")} == set(flavour.architectures)


STAND_INS = {
    tensorrt_module.Config: "IBuilderConfig",
    tensorrt_module.Context: "IExecutionContext",
    tensorrt_module.Network: "INetworkDefinition",
    tensorrt_module.OptimizationProfile: "IOptimizationProfile",
    tensorrt_module.Parser: "OnnxParser",
    tensorrt_module.Profiler: "IProfiler",
    tensorrt_module.Tensor: "ITensor",
}


@pytest.mark.parametrize("kind", STAND_INS, ids=STAND_INS.values())
def test_the_stand_ins_have_no_name_of_their_own(kind: type) -> None:
    """What the session is tested with looks like the vendor's module, whose API TensorRT shares."""
    real = getattr(vendor(TensorRtRtxBackend.flavour), STAND_INS[kind])
    mine = [name for name in vars(kind) if not name.startswith("_")]
    assert [name for name in mine if not hasattr(real, name)] == []


def test_the_stand_in_module_has_no_name_of_its_own() -> None:
    real = vendor(TensorRtRtxBackend.flavour)
    for name, value in vars(tensorrt_module.TensorRt).items():
        if not name.startswith("_"):
            members = vars(value) if isinstance(value, SimpleNamespace) else getattr(value, "__members__", {})
            assert [one for one in members if not hasattr(getattr(real, name), one)] == [], name


def test_the_registry_does_not_load_the_library() -> None:
    """A quarter of a gigabyte: only whoever builds pays for it."""
    program = (
        "import sys; from tailorbird.backends import registry; registry.report();"
        "print('tensorrt_rtx_bindings' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
