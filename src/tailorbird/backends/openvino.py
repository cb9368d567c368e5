"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tailorbird.backends.base import WARM_RUNS, Backend, Capabilities, Session
from tailorbird.backends.host import check_cpu_arch, cpu_arch
from tailorbird.backends.openvino_layers import COMPUTING, executed_layers, stands_for
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.layers import Layer
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Shape, Signature, Tensors, TensorSpec
from tailorbird.domain.target import Target

_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}
"""INT8 is in the graph; the hint is then for the layers around it."""
_NAMES = {"f32": "fp32", "f16": "fp16", "f64": "fp64", "i8": "int8", "u8": "int8", "i16": "int16", "i32": "int32",
          "i64": "int64", "u16": "uint16", "u32": "uint32", "u64": "uint64", "boolean": "bool"}  # fmt: skip
_BYTES = {"i8": "sint8", "u8": "uint8"}


class OpenVinoSession(Session):
    """One compiled model with one inference request."""

    def __init__(self, engine: Path, candidate: Candidate, signature: Signature) -> None:
        super().__init__(OpenVinoBackend.name, candidate, signature)
        self._engine = engine
        self._compiled = _core().compile_model(str(engine / "model.xml"), "CPU", _config(candidate))
        self._request = self._compiled.create_infer_request()
        # The wrapper's infer() dispatches every array through Python, which costs more than a small model.
        self._infer: Any = super(_openvino().InferRequest, self._request).infer  # type: ignore[misc]
        self._inputs = [_Input(self._compiled, self._request, spec) for spec in signature.inputs]

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        for one in self._inputs:
            one.set(inputs[one.name])
        results = self._infer({}, share_outputs=False, decode_strings=True).values()
        return {
            spec.name: result.view(np.uint16) if spec.dtype is DType.BF16 else result
            for spec, result in zip(self._signature.outputs, results, strict=True)
        }

    def _executed_precision(self) -> dict[str, str]:
        """The runtime model lists each executed node with the precision its kernel was chosen for."""
        return {facts["name"]: _executed(facts) for facts in executed_layers(self._compiled)}

    def _profile(self, inputs: Sequence[Tensors], runs: int) -> tuple[Layer, ...]:
        """Times are means: the plugin tells the mean of all runs so far, in whole microseconds.

        What the runs before those that count took is taken off again, which leaves about a microsecond of doubt.
        """
        config = {**_config(self._candidate), "PERF_COUNT": True}
        profiled = _core().compile_model(str(self._engine / "model.xml"), "CPU", config)
        request = profiled.create_infer_request()
        ports = [_Input(profiled, request, spec) for spec in self._signature.inputs]
        counts = (WARM_RUNS, runs)
        before, after = (_run_in_turn(profiled, request, ports, inputs, count) for count in counts)
        executed = [facts for facts in executed_layers(profiled) if facts["name"] in after]
        nodes = stands_for(executed, _core().read_model(str(self._engine / "model.xml")))
        return tuple(
            Layer(
                facts["name"], facts["layerType"], _executed(facts), _mean(before, after, facts["name"], counts), part
            )
            for facts, part in zip(executed, nodes, strict=True)
        )

    def _close(self) -> None:
        del self._infer, self._inputs, self._request, self._compiled


def _run_in_turn(
    compiled: Any, request: Any, ports: Sequence[_Input], inputs: Sequence[Tensors], runs: int
) -> dict[str, float]:
    """Mean milliseconds of each executed layer, over all runs there were of this compiled model."""
    for _, one in zip(range(runs), cycle(inputs), strict=False):
        for port in ports:
            port.set(one[port.name])
        request.infer()
    told = ((facts["name"], facts["execTimeMcs"]) for facts in executed_layers(compiled))
    return {name: int(micros) / 1e3 for name, micros in told if micros.isdigit()}  # not those that did not run


def _mean(before: dict[str, float], after: dict[str, float], name: str, counts: tuple[int, int]) -> float:
    """Milliseconds of one run of a layer, from the means of the first runs and of all of them."""
    first, rest = counts
    return max(0.0, round((after[name] * (first + rest) - before.get(name, 0.0) * first) / rest, 6))


def _executed(facts: dict[str, str]) -> str:
    precision = facts["runtimePrecision"]
    names = _NAMES if facts["layerType"] in COMPUTING else _NAMES | _BYTES
    return names.get(precision, precision)


class _Input:
    """One input of a request: small arrays are copied into memory of our own, large ones are read where they are.

    Giving a request other memory costs about 13 µs, as much as copying 100 KB.
    """

    _LARGE_BYTES = 1 << 16

    def __init__(self, compiled: Any, request: Any, spec: TensorSpec) -> None:
        self.name = spec.name
        self._request = request
        self._port = next(i for i, port in enumerate(compiled.inputs) if spec.name in port.get_names())
        self._type = compiled.inputs[self._port].get_element_type()
        self._bits = spec.dtype.numpy
        self._own: Array | None = None
        self._lent: Array | None = None

    def set(self, array: Array) -> None:
        flags = array.flags
        if array.nbytes > self._LARGE_BYTES and flags.c_contiguous and flags.writeable and self._bits != np.uint16:
            self._lend(array)
            return
        if self._own is None or self._own.shape != array.shape:
            self._own = self._allocate(array.shape)
        self._own[...] = array

    def _lend(self, array: Array) -> None:
        self._request.set_input_tensor(self._port, _openvino().Tensor(array, shared_memory=True))
        self._own, self._lent = None, array  # the request itself keeps no reference to the array

    def _allocate(self, shape: Shape) -> Array:
        tensor = _openvino().Tensor(self._type, shape)
        self._request.set_input_tensor(self._port, tensor)
        self._lent = None
        memory: Array = tensor.data.view(self._bits)  # bfloat16 shows itself as float16
        return memory


class OpenVinoBackend(Backend):
    """The CPU plugin. A static engine is the model reshaped before it is compiled."""

    name = "openvino"
    install = "pip install 'tailorbird[cpu]'"

    def _version(self) -> str:
        return str(_openvino().__version__).partition("-")[0]

    def _capabilities(self) -> Capabilities:
        executes = set(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        named = {"FP32": Precision.FP32, "FP16": Precision.FP16, "BF16": Precision.BF16}
        return Capabilities(
            target=Target("openvino", "cpu", cpu_arch()),
            precisions=tuple(precision for name, precision in named.items() if name in executes),
            format=EngineFormat(backend="openvino", platform="openvino", filename="model.xml"),
            portable="any CPU of the same vendor family",
            quantised=("nncf", "nncf-onnx", "weights"),
        )

    def _capabilities_for(self, target: Target) -> Capabilities:
        """Its engine is OpenVINO's own form of the graph, compiled where it is opened: any CPU's can be made on any.

        Of a CPU that is not here the precisions are those that its name promises: AMX computes in BF16.
        """
        here = self.capabilities()
        if target == here.target or target.device != here.target.device:
            return super()._capabilities_for(target)
        check_cpu_arch(target.arch)
        precisions = (Precision.FP32, Precision.BF16) if target.arch == "amx" else (Precision.FP32,)
        return msgspec.structs.replace(here, target=target, runs_here=False, precisions=precisions)

    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
        graph = _core().read_model(str(model))
        if candidate.shape_mode is ShapeMode.STATIC:
            graph.reshape({name: list(shape) for name, shape in candidate.profile.opt.items()})
        _openvino().save_model(graph, str(workdir / "model.xml"), compress_to_fp16=False)

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        if any(spec.dtype is DType.BYTES for spec in (*signature.inputs, *signature.outputs)):
            # Seen in 2026.4: right answers, then an abort in free().
            raise BackendError("openvino cannot open the engine", got="text tensors", hint="use another backend")
        return OpenVinoSession(engine, candidate, signature)


def _openvino() -> Any:
    """The package, unable to report home, which it does from its import on where ``openvino_telemetry`` is."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _core() -> Any:
    return _openvino().Core()


def _config(candidate: Candidate) -> dict[str, Any]:
    # The precision hint is set even for FP32: where the CPU has BF16 the plugin's own default is BF16.
    rest = candidate.quantisation.rest if candidate.quantisation else candidate.precision
    return {
        "INFERENCE_NUM_THREADS": candidate.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[rest],
        **candidate.options,
    }
