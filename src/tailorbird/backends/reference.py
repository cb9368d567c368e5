"""The reference backend: ONNX's own evaluator. Slow, plain, always there; an oracle, not a choice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tailorbird.backends.base import Backend, Capabilities, Session, copy_model
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.dtype import Array
from tailorbird.domain.layers import Layer
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.domain.target import Target


class ReferenceSession(Session):
    """Runs a graph node by node in numpy, in the types the graph names. Its profile has no times: nobody chooses it."""

    def __init__(self, engine: Path, candidate: Candidate, signature: Signature) -> None:
        from onnx.reference import ReferenceEvaluator

        super().__init__(ReferenceBackend.name, candidate, signature)
        self._evaluator = ReferenceEvaluator(str(engine / "model.onnx"))

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, self._evaluator.run(names, dict(inputs)), strict=True))

    def _profile(self, inputs: Sequence[Tensors], runs: int) -> tuple[Layer, ...]:
        nodes = [(node.op_type, node.onnx_node.name) for node in self._evaluator.rt_nodes_]
        return tuple(Layer(f"{i}:{op}", op, "fp32", 0.0, (name,) if name else ()) for i, (op, name) in enumerate(nodes))

    def _close(self) -> None:
        del self._evaluator


class ReferenceBackend(Backend):
    """numpy, on any machine."""

    name = "reference"
    install = "pip install 'tailorbird[cpu]'"

    def _version(self) -> str:
        import onnx

        return str(onnx.__version__)

    def _capabilities(self) -> Capabilities:
        return Capabilities(Target("reference", "cpu", "any"), (Precision.FP32,),
                            EngineFormat("onnxruntime", "onnxruntime_onnx", "model.onnx"), serves=False,
                            takes_threads=False, portable="anywhere", oracle={})  # fmt: skip

    def _compile(self, model: Path, candidate: Candidate, workdir: Path) -> None:
        copy_model(model, workdir)

    def _open(self, engine: Path, candidate: Candidate, signature: Signature) -> Session:
        return ReferenceSession(engine, candidate, signature)
