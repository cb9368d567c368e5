"""Real engines, small enough for any test: ``y = relu(x @ w)``, compiled by a real backend, sealed and packed."""

import functools
import importlib
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tailorbird.backends import registry
from tailorbird.domain import bundle, bundlefile
from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.manifest import Manifest, Provenance
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.repository.config_pbtxt import config_pbtxt
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sign import sign_version

WIDTH = 16
SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, ("rows", WIDTH)),), outputs=(TensorSpec("y", DType.FP32, ("rows", WIDTH)),)
)
INPUTS = {"x": np.linspace(-1, 1, 2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)}


def weights(width: int = WIDTH) -> Any:
    return np.random.default_rng(0).standard_normal((width, width)).astype(np.float32)


def expected() -> Any:
    return np.maximum(INPUTS["x"] @ weights(), 0)


def write_model(path: Path) -> Path:
    onnx = importlib.import_module("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Relu", ["xw"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", kind, ["rows", WIDTH])],
        [helper.make_tensor_value_info("y", kind, ["rows", WIDTH])],
        [onnx.numpy_helper.from_array(weights(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def candidate(runtime: str = "onnxruntime", **changes: Any) -> Candidate:
    profile = Profile(min={"x": (1, WIDTH)}, opt={"x": (2, WIDTH)}, max={"x": (8, WIDTH)})
    plain = Candidate(
        registry.backend(runtime).capabilities().target, Precision.FP32, profile, ShapeMode.DYNAMIC, threads=1
    )
    return msgspec.structs.replace(plain, **changes)


def manifest(runtime: str = "onnxruntime", **changes: Any) -> Manifest:
    latency = LatencyRow("opt", {"x": (2, WIDTH)}, 2, 1, Latency(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 100))
    plain = Manifest(
        model="tiny",
        candidate=candidate(runtime),
        format=registry.backend(runtime).capabilities().format,
        signature=SIGNATURE,
        files={},
        executed={"fp32": 2},
        latency=(latency,),
        gate=GateReport((Check("snr_db", True, "y at opt", 120.0, 20.0),)),
        budget=Budget(),
        outcomes=(),
        provenance=Provenance("tiny.onnx", "sha256:0", "sha256:1", (), {}, {}, "2026-01-01T00:00:00Z"),
    )
    return msgspec.structs.replace(plain, **changes)


@functools.cache
def _engine(runtime: str) -> dict[str, bytes]:
    """The files that the backend's compiler writes, made once."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder, "engine")
        workdir.mkdir()
        registry.backend(runtime).compile(write_model(Path(folder, "tiny.onnx")), candidate(runtime), workdir)
        return {path.name: path.read_bytes() for path in workdir.iterdir()}


def unsealed(folder: Path, runtime: str = "onnxruntime", ballast: int = 0) -> Path:
    """A version without its manifest; ``ballast`` bytes more make it slower to copy."""
    (folder / "tailorbird").mkdir(parents=True)
    for name, content in _engine(runtime).items():
        (folder / name).write_bytes(content)
    (folder / "tailorbird" / "build.jsonl").write_text('{"event": "done"}\n')
    (folder / "tailorbird" / "report.html").write_text("<p>tiny</p>\n")
    if ballast:
        (folder / "ballast.bin").write_bytes(bytes(ballast))
    return folder


def version(folder: Path, runtime: str = "onnxruntime", ballast: int = 0, **changes: Any) -> Path:
    """A sealed version, signed by the key of this run of the tests."""
    sign_version(sealed(folder, runtime, ballast, **changes), keys.ensured()[0])
    return folder


def sealed(folder: Path, runtime: str = "onnxruntime", ballast: int = 0, **changes: Any) -> Path:
    """A sealed version that nobody has signed."""
    bundle.seal(unsealed(folder, runtime, ballast), manifest(runtime, **changes))
    return folder


def engine_file(version_dir: Path, out: Path) -> Path:
    """The version as one file."""
    bundlefile.pack(version_dir, out, config_pbtxt(bundle.read_manifest(version_dir)))
    return out
