"""The models, the same functions for both servers: engines for ours, Python models for Triton."""

import contextlib
import shutil
import socket
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.signature import Signature, TensorSpec
from tests.protocol.engines import echo_model, fake_model

ROWS = 64
SLOW_SECONDS = 0.3


@dataclass(frozen=True)
class Model:
    """One model in Triton's words."""

    name: str
    inputs: dict[str, tuple[DType, tuple[int, ...]]]
    """Dtype and dims, without the rows."""
    outputs: dict[str, tuple[DType, tuple[int, ...]]]
    body: str
    """Python: from ``inputs`` to ``outputs``, both of arrays by name."""
    versions: tuple[int, ...] = (1,)

    def config(self):
        """Its ``config.pbtxt``."""
        tensors = "".join(_tensors(kind, found) for kind, found in (("input", self.inputs), ("output", self.outputs)))
        return f'backend: "python"\nmax_batch_size: {ROWS}\nversion_policy: {{ all {{ }} }}\n{tensors}'


def _tensors(kind, found):
    named = {DType.BYTES: "STRING"}
    return "".join(
        f'{kind} [{{ name: "{name}" data_type: TYPE_{named.get(dtype, dtype)} dims: {list(dims)} }}]\n'
        for name, (dtype, dims) in found.items()
    )


def _echo(name, dtype, body='outputs["y"] = inputs["x"]', dims=(2,)):
    return Model(name, {"x": (dtype, dims)}, {"y": (dtype, dims)}, body)


PAIR = (DType.INT32, (4,))
MODELS = (
    *(_echo(f"identity_{dtype.lower()}", dtype) for dtype in DType),
    _echo("open", DType.FP32, dims=(-1,)),
    _echo("slow", DType.FP32, f'time.sleep({SLOW_SECONDS}); outputs["y"] = inputs["x"]'),
    _echo("failing", DType.FP32, 'raise ValueError("secret")'),
    Model(
        "sum",
        {"a": PAIR, "b": PAIR},
        {"add": PAIR, "sub": PAIR},
        'outputs["add"] = inputs["a"] + inputs["b"]; outputs["sub"] = inputs["a"] - inputs["b"]',
        versions=(1, 2),
    ),
)
CHANGING = "changing"
"""The model that is loaded and unloaded; one input ``x``, FP32 of ``CHANGING_WIDTH``."""
CHANGING_WIDTH = 16

_PYTHON = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.one(request) for request in requests]

    def one(self, request):
        found = request.inputs()
        if {bf16}:  # numpy has no such type
            return pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", found[0].to_dlpack())])
        inputs = {{tensor.name(): np.array(tensor.as_numpy()) for tensor in found}}
        outputs = {{}}
        {body}
        wanted = request.requested_output_names()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, value) for name, value in outputs.items() if name in wanted]
        )
"""


def triton_repository(folder):
    """Write the models as Triton takes them, and one more to be loaded and unloaded."""
    for model in (*MODELS, _echo(CHANGING, DType.FP32, dims=(CHANGING_WIDTH,))):
        bf16 = any(dtype is DType.BF16 for dtype, _ in model.inputs.values())
        for version in model.versions:
            place = folder / model.name / str(version)
            place.mkdir(parents=True)
            place.joinpath("model.py").write_text(textwrap.dedent(_PYTHON).format(body=model.body, bf16=bf16))
        folder.joinpath(model.name, "config.pbtxt").write_text(model.config())
    return folder


def our_models():
    """The same in service here, without a runtime: it is the protocol that is checked."""
    return [_ours(model, version) for model in MODELS for version in model.versions]


def _ours(model, version):
    def specs(tensors):
        rows = [
            (name, dtype, tuple("M" if dim < 0 else dim for dim in dims)) for name, (dtype, dims) in tensors.items()
        ]
        return tuple(TensorSpec(name, dtype, ("N", *dims)) for name, dtype, dims in rows)

    if model.name == "slow":
        return echo_model("slow", DType.FP32, ("N", 2), delay=SLOW_SECONDS)
    functions = {"failing": _fail, "sum": _sum}
    signature = Signature(specs(model.inputs), specs(model.outputs))
    return fake_model(model.name, version, signature, functions.get(model.name, _same))


def _same(inputs):
    return {"y": inputs["x"]}


def _sum(inputs):
    return {"add": inputs["a"] + inputs["b"], "sub": inputs["a"] - inputs["b"]}


def _fail(_):
    raise BackendError("secret")


def values(dtype, rows=1):
    """Values that only that dtype holds, ``[rows, 2]``."""
    if dtype is DType.BYTES:
        pair = [b"", b"\xff\x00 not UTF-8"]
    elif dtype is DType.BOOL:
        pair = [True, False]
    elif dtype.is_float:
        pair = [-1.5, 2.0**15]
    else:
        bounds = np.iinfo(dtype.numpy)
        pair = [bounds.min, bounds.max]
    return np.array([pair] * rows, ml_dtypes.bfloat16 if dtype is DType.BF16 else dtype.numpy)


@contextlib.contextmanager
def scratch():
    """A folder that goes away."""
    folder = Path(tempfile.mkdtemp(prefix="conformance-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]
