"""Engines and stand-ins for the tests of process instances: real versions of small models, and processes gone wrong."""

import importlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.backends import registry
from tailorbird.domain import bundle
from tailorbird.domain.dtype import DType
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sign import sign_version
from tailorbird.serving.processes import spawn
from tests import bundles

TURNS = Signature(
    (TensorSpec("n", DType.INT64, ()), TensorSpec("x", DType.FP32, ("rows", 4))),
    (TensorSpec("y", DType.FP32, ("rows", 4)),),
)
"""``y = x``, after ``n`` turns of a loop: a run as long as a test wants it, with the rows' own marks in the answer."""

COPIES = Signature(
    (TensorSpec("x", DType.FP32, ("rows", "width")), TensorSpec("t", DType.BYTES, ("texts",))),
    (TensorSpec("y", DType.FP32, ("rows", "width")), TensorSpec("u", DType.BYTES, ("texts",)),
     TensorSpec("sum", DType.FP32, ())),
)  # fmt: skip
"""Copies of both, and a scalar: any count of rows, any width, any texts."""


def turns(folder: Path) -> Path:
    """A signed version of ``TURNS``."""
    helper, kind = _helper()
    body = helper.make_graph(
        [helper.make_node("Neg", ["v"], ["a"]), helper.make_node("Neg", ["a"], ["w"]),
         helper.make_node("Identity", ["go"], ["on"])],
        "turn",
        [helper.make_tensor_value_info("i", kind.INT64, []), helper.make_tensor_value_info("go", kind.BOOL, []),
         helper.make_tensor_value_info("v", kind.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("on", kind.BOOL, []),
         helper.make_tensor_value_info("w", kind.FLOAT, ["rows", 4])],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)]
    profile = Profile(*({"n": (), "x": (rows, 4)} for rows in (1, 2, 64)))
    return _version(folder, nodes, TURNS, profile)


def copies(folder: Path) -> Path:
    """A signed version of ``COPIES``."""
    helper, _ = _helper()
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["t"], ["u"]),
             helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)]  # fmt: skip
    profile = Profile(*({"x": (rows, rows), "t": (rows,)} for rows in (0, 2, 1 << 30)))
    return _version(folder, nodes, COPIES, profile)


def scaled(folder: Path, factor: int, signature: Signature, profile: Profile) -> Path:
    """A signed version of ``y = x * factor``."""
    helper, _ = _helper()
    constant = importlib.import_module("onnx").numpy_helper.from_array(np.array(factor, np.float32))
    nodes = [helper.make_node("Constant", [], ["factor"], value=constant),
             helper.make_node("Mul", ["x", "factor"], ["y"])]  # fmt: skip
    return _version(folder, nodes, signature, profile)


def fickle(folder: Path, signature: Signature, profile: Profile) -> Path:
    """A signed version of ``y = x * noise``, which is another one each time."""
    helper, _ = _helper()
    nodes = [helper.make_node("RandomUniformLike", ["x"], ["noise"]), helper.make_node("Mul", ["x", "noise"], ["y"])]
    return _version(folder, nodes, signature, profile)


def rows(mark: float, count: int = 2, turns: int = 1) -> dict[str, Any]:
    """A request to ``turns`` whose every number is its mark."""
    return {"n": np.array(turns, np.int64), "x": np.full((count, 4), mark, np.float32)}


LONG = 1 << 40
"""Turns that nobody will see the end of."""


def stand_in(monkeypatch: Any, folder: Path, program: str) -> None:
    """Let instances run ``program`` in place of the real process."""
    name = f"stand_in_{len(list(folder.glob('stand_in_*.py')))}"
    (folder / f"{name}.py").write_text(_PREAMBLE + program)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(spawn, "MODULE", name)


_PREAMBLE = """
import os, signal, socket, sys, time
line = socket.socket(fileno=int(sys.argv[1]))
line.recv(65536)

def ready():
    import msgspec
    from pathlib import Path
    from tailorbird.domain import bundle
    from tailorbird.domain.digest import digest_bytes
    from tailorbird.domain.manifest import encode_manifest
    from tailorbird.serving.processes.messages import Ready, encode
    manifest = bundle.read_manifest(Path(os.environ["STAND_IN_VERSION"]))
    line.send(encode(Ready(digest_bytes(encode_manifest(manifest)), None)))

"""


def eventually(done: Callable[[], Any], seconds: float = 20.0) -> float:
    """Wait for something to come true; returns the seconds that it took."""
    started = time.monotonic()
    while not done():
        assert time.monotonic() - started < seconds, "it did not come true"
        time.sleep(0.002)
    return time.monotonic() - started


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a Path would have to list itself too


def _version(folder: Path, nodes: list[Any], signature: Signature, profile: Profile) -> Path:
    onnx = importlib.import_module("onnx")
    helper, _ = _helper()
    values = [[helper.make_tensor_value_info(spec.name, spec.dtype.onnx, spec.dims) for spec in specs]
              for specs in (signature.inputs, signature.outputs)]  # fmt: skip
    model = helper.make_model(helper.make_graph(nodes, "test", *values), opset_imports=[helper.make_opsetid("", 17)],
                              ir_version=8)  # fmt: skip
    source = folder.with_name(folder.name + ".onnx")
    onnx.save(model, source)
    chosen = bundles.candidate(profile=profile)
    workdir = folder.with_name(folder.name + ".engine")
    workdir.mkdir()
    registry.backend("onnxruntime").compile(source, chosen, workdir)
    shutil.copytree(workdir, bundles.unsealed(folder), dirs_exist_ok=True)
    bundle.seal(folder, bundles.manifest(signature=signature, candidate=chosen))
    sign_version(folder, keys.ensured()[0])
    return folder


def _helper() -> tuple[Any, Any]:
    onnx = importlib.import_module("onnx")
    return onnx.helper, onnx.TensorProto
