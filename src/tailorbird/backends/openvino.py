"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.backends.base import Backend, Capabilities, Session
from tailorbird.backends.host import cpu_arch
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.domain.target import Target

_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}
_NAMES = {"f32": "fp32", "f16": "fp16", "f64": "fp64", "i8": "int8", "u8": "int8", "i16": "int16", "i32": "int32",
          "i64": "int64", "u16": "uint16", "u32": "uint32", "u64": "uint64", "boolean": "bool"}  # fmt: skip
_NOT_LAYERS = frozenset({"Input", "Output", "Const", "Parameter", "Result", "Constant"})


class OpenVinoSession(Session):
    """One compiled model with one inference request."""

    def __init__(self, engine: Path, candidate: Candidate, signature: Signature) -> None:
        super().__init__(OpenVinoBackend.name, candidate, signature)
        import openvino

        self._openvino = openvino
        self._compiled = _core().compile_model(str(engine / "model.xml"), "CPU", _config(candidate))
        self._request = self._compiled.create_infer_request()
        # The wrapper's infer() dispatches every array through Python, which costs more than a small model.
        self._infer = super(openvino.InferRequest, self._request).infer
        self._inputs = [(_port(self._compiled, spec.name), spec) for spec in signature.inputs]
        self._held: dict[int, Any] = {}

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        # The request keeps no reference to the arrays whose memory it reads, so the session holds them.
        self._held = {port: _tensor(self._openvino, inputs[spec.name], spec.dtype) for port, spec in self._inputs}
        results = self._infer(self._held, share_outputs=False, decode_strings=False).values()
        return {spec.name: _array(result, spec.dtype)
                for spec, result in zip(self.signature.outputs, results, strict=True)}  # fmt: skip

    def _executed_precision(self) -> dict[str, str]:
        """The runtime model lists each executed node with the precision its kernel was chosen for."""
        layers = {}
        for node in self._compiled.get_runtime_model().get_ops():
            info = node.get_rt_info()
            if str(info["layerType"].astype(str)) not in _NOT_LAYERS:
                precision = str(info["runtimePrecision"].astype(str))
                layers[node.get_friendly_name()] = _NAMES.get(precision, precision)
        return layers

    def _close(self) -> None:
        del self._infer, self._request, self._compiled, self._held


class OpenVinoBackend(Backend):
    """The CPU plugin. A static engine is the model reshaped before it is compiled."""

    name = "openvino"
    install = "pip install 'tailorbird[cpu]'"

    def _version(self) -> str:
        import openvino

        return str(openvino.__version__).partition("-")[0]

    def _capabilities(self) -> Capabilities:
        executes = set(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        named = {"FP32": Precision.FP32, "FP16": Precision.FP16, "BF16": Precision.BF16}
        return Capabilities(
            target=Target("openvino", "cpu", cpu_arch()),
            precisions=tuple(precision for name, precision in named.items() if name in executes),
            format=EngineFormat(backend="openvino", platform="openvino", filename="model.xml"),
            portable="any CPU of the same vendor family",
        )

    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
        import openvino

        graph = _core().read_model(str(model))
        if candidate.shape_mode is ShapeMode.STATIC:
            graph.reshape({name: list(shape) for name, shape in candidate.profile.opt.items()})
        openvino.save_model(graph, str(workdir / "model.xml"), compress_to_fp16=False)

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        return OpenVinoSession(engine, candidate, signature)


def _port(compiled: Any, name: str) -> int:
    """The index of the input of that name."""
    return next(index for index, port in enumerate(compiled.inputs) if name in port.get_names())


def _tensor(openvino: Any, array: Array, dtype: DType) -> Any:
    """The array as OpenVINO's tensor, without a copy where its memory can be shared."""
    if dtype is DType.BYTES:
        return openvino.Tensor(array.astype(np.bytes_))
    flags = array.flags
    if not (flags.c_contiguous and flags.writeable):
        array = array.copy()
    if dtype is DType.BF16:
        return openvino.Tensor(array, array.shape, openvino.Type.bf16)
    return openvino.Tensor(array, shared_memory=True)


def _array(result: Array, dtype: DType) -> Array:
    """An output in the signature's type: bfloat16 comes as float16's bits, text as fixed-length bytes."""
    return result.view(np.uint16) if dtype is DType.BF16 else result.astype(dtype.numpy, copy=False)


def _core() -> Any:
    import openvino

    return openvino.Core()


def _config(candidate: Candidate) -> dict[str, Any]:
    # The precision hint is set even for FP32: where the CPU has BF16 the plugin's own default is BF16.
    return {
        "INFERENCE_NUM_THREADS": candidate.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[candidate.precision],
        **candidate.options,
    }
