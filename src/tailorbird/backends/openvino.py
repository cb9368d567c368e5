"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailorbird.backends.base import Backend, Capabilities, Session
from tailorbird.backends.host import cpu_arch
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import Array
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.domain.target import Target

_HINTS = {Precision.FP32: "f32", Precision.BF16: "bf16", Precision.FP16: "f16"}
_NAMES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64", "i8": "int8", "u8": "int8", "i32": "int32"}
_NOT_LAYERS = frozenset({"Input", "Output", "Const", "Parameter", "Result", "Constant"})


class OpenVinoSession(Session):
    """One compiled model with one inference request."""

    def __init__(self, engine: Path, candidate: Candidate, signature: Signature) -> None:
        super().__init__(OpenVinoBackend.name, candidate, signature)
        self._compiled = _core().compile_model(str(engine / "model.xml"), "CPU", _config(candidate))
        self._request = self._compiled.create_infer_request()
        self._outputs = [spec.name for spec in signature.outputs]

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        results = self._request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        return dict(zip(self._outputs, results.values(), strict=True))

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
        del self._request, self._compiled


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
