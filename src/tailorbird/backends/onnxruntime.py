"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tailorbird.backends.base import WARM_RUNS, Backend, Capabilities, Session, copy_model
from tailorbird.backends.host import check_cpu_arch, cpu_arch
from tailorbird.backends.onnxruntime_kernels import Kernel, kernels, medians, outermost, stands_for
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import InputError
from tailorbird.domain.layers import Layer
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
        results = self._session.run(self._outputs, self._given(inputs))
        return {name: result if result.dtype != object else _utf8(result)
                for name, result in zip(self._outputs, results, strict=True)}  # fmt: skip

    def _given(self, inputs: Tensors) -> dict[str, Array]:
        given = dict(inputs)
        for name in self._texts:
            given[name] = _text(name, given[name])
        return given

    def _executed_precision(self) -> dict[str, str]:
        """One profiled run: ONNX Runtime's profiler names every kernel with the types it was given."""
        with tempfile.TemporaryDirectory() as folder:
            events = self._trace(folder, [self._sample()], 1)
        return {kernel.name: _executed(kernel) for kernel in kernels(events) if kernel.types}

    def _profile(self, inputs: Sequence[Tensors], runs: int) -> tuple[Layer, ...]:
        """The profiler's times, to the microsecond, and the graph as optimised to say what each kernel stands for."""
        with tempfile.TemporaryDirectory() as folder:
            optimised = Path(folder, "optimised.onnx")
            events = self._trace(folder, inputs, WARM_RUNS + runs, optimised)
            nodes = _nodes(self._engine / "model.onnx", optimised)
        found = outermost(kernels(events))
        about = {kernel.name: kernel for kernel in found}
        return tuple(
            Layer(name, about[name].kind, _executed(about[name]), milliseconds, nodes.get(name, ()))
            for name, milliseconds in medians(found, events, WARM_RUNS).items()
        )

    def _trace(
        self, folder: str, inputs: Sequence[Tensors], runs: int, optimised: Path | None = None
    ) -> list[dict[str, Any]]:
        """Events of a second session, whose profiler is on, so that this one stays as fast as it is."""
        profiled = _session(self._engine, self._candidate, profile_prefix=f"{folder}/run", optimised=optimised)
        for _, one in zip(range(runs), cycle(inputs), strict=False):
            profiled.run(self._outputs, self._given(one))
        events: list[dict[str, Any]] = json.loads(Path(profiled.end_profiling()).read_text("utf-8"))
        return events

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

    def _capabilities_for(self, target: Target) -> Capabilities:
        """Its engine is the graph itself, which is compiled where it is opened: any CPU's can be made on any."""
        here = self.capabilities()
        if target.device != here.target.device:
            return super()._capabilities_for(target)
        check_cpu_arch(target.arch)
        return msgspec.structs.replace(here, target=target, runs_here=target == here.target)

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


def _session(engine: Path, candidate: Candidate, profile_prefix: str = "", optimised: Path | None = None) -> Any:
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
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        for key, value in (("file_name", "weights"), ("min_size_in_bytes", "1024")):
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
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


def _nodes(engine: Path, optimised: Path) -> dict[str, tuple[str, ...]]:
    """Names of nodes by kernel; weights beside the files are not read."""
    import onnx

    graphs = [onnx.load(str(path), load_external_data=False).graph for path in (engine, optimised)]
    return stands_for(*graphs)


def _executed(kernel: Kernel) -> str:
    """What a kernel computes in. Where Q/DQ pairs were not fused, the kernel between them is the float one."""
    if kernel.kind in _INT8 or kernel.kind.startswith("QLinear"):
        return "int8"
    return next((_NAMES.get(name, name) for name in kernel.types), "")
