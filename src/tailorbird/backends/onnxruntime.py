"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tailorbird.backends.base import Backend, Capabilities, Session, copy_model
from tailorbird.backends.host import cpu_arch
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.domain.target import Target

_NAMES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64"}

# fmt: off
_INT8 = frozenset({
    "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "QAttention", "QEmbedLayerNormalization", "QGemm",
})
# fmt: on
"""Kernels that compute in INT8 whatever they give out, besides all whose name begins with QLinear."""


class OnnxRuntimeSession(Session):
    """One ``InferenceSession``."""

    def __init__(self, engine: Path, candidate: Candidate, signature: Signature) -> None:
        super().__init__(OnnxRuntimeBackend.name, candidate, signature)
        self._engine = engine
        self._session = _session(engine, candidate)
        self._outputs = [spec.name for spec in signature.outputs]
        self._texts = [spec.name for spec in signature.inputs if spec.dtype is DType.BYTES]

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        given = dict(inputs)
        for name in self._texts:
            given[name] = _text(name, given[name])
        results = self._session.run(self._outputs, given)
        return {name: result if result.dtype != object else _utf8(result)
                for name, result in zip(self._outputs, results, strict=True)}  # fmt: skip

    def _executed_precision(self) -> dict[str, str]:
        """One profiled run: ONNX Runtime's profiler names every kernel with the types it was given."""
        with tempfile.TemporaryDirectory() as folder:
            profiled = _session(self._engine, self._candidate, profile_prefix=f"{folder}/run")
            profiled.run(self._outputs, self._sample())
            events = json.loads(Path(profiled.end_profiling()).read_text("utf-8"))
        return {name: precision for event in events for name, precision in _layer(event)}

    def _close(self) -> None:
        del self._session


class OnnxRuntimeBackend(Backend):
    """The CPU execution provider. A static engine is the graph with its dims fixed before optimisation."""

    name = "onnxruntime"
    install = "pip install 'tailorbird[cpu]'"

    def _version(self) -> str:
        return str(_onnxruntime().__version__)

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            target=Target("onnxruntime", "cpu", cpu_arch()),
            precisions=(Precision.FP32,),
            format=EngineFormat(backend="onnxruntime", platform="onnxruntime_onnx", filename="model.onnx"),
            portable="any CPU",
            baseline=True,
            quantised=("qdq", "qoperator", "dynamic"),
            oracle={"optimise": False},
        )

    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
        if candidate.shape_mode is ShapeMode.STATIC:
            _fix_shapes(copy_model(model, workdir), candidate)
        else:
            copy_model(model, workdir)

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        return OnnxRuntimeSession(engine, candidate, signature)


def _onnxruntime() -> Any:
    """The package, told to send nothing: since 1.29 it reports to Microsoft unless told so before its import."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _session(engine: Path, candidate: Candidate, profile_prefix: str = "") -> Any:
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = candidate.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not candidate.options.get("optimise", True):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return onnxruntime.InferenceSession(str(engine / "model.onnx"), options, providers=["CPUExecutionProvider"])


def _text(name: str, array: Array) -> Array:
    """ONNX Runtime's text is ``str``; given ``bytes`` it runs on what they look like in Python's notation."""
    try:
        return np.array([element.decode() for element in array.flat], object).reshape(array.shape)
    except (UnicodeDecodeError, AttributeError) as error:
        raise InputError(f"input '{name}' is not text", got=error, expected="bytes that are UTF-8") from None


def _utf8(array: Array) -> Array:
    return np.array([element.encode() for element in array.flat], object).reshape(array.shape)


def _fix_shapes(model: Path, candidate: Candidate) -> None:
    import onnx

    proto = onnx.load(str(model), load_external_data=False)
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, candidate.profile.opt[value.name], strict=True):
            dim.dim_value = size
    _forget_stale_shapes(proto)
    model.write_bytes(proto.SerializeToString())


def _forget_stale_shapes(proto: Any) -> None:
    """Named dims of inner values and outputs were inferred for the dynamic graph; the runtime infers them anew."""
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")


def _layer(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
        types = event["args"].get("output_type_shape") or event["args"].get("input_type_shape") or []
        names = [name for tensor in types for name in tensor]
        if names:
            yield event["name"].removesuffix("_kernel_time"), _executed(event["args"].get("op_name", ""), names[0])


def _executed(kernel: str, output: str) -> str:
    """What a kernel computes in. Where Q/DQ pairs were not fused, the kernel between them is the float one."""
    if kernel in _INT8 or kernel.startswith("QLinear"):
        return "int8"
    return _NAMES.get(output, output)
