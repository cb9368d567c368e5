"""Engines small enough to make in a test: real ones out of a real graph, and fakes that need no runtime."""

import time
from pathlib import Path

import msgspec
import numpy as np

from tailorbird.backends import registry
from tailorbird.backends.base import Session
from tailorbird.domain.budget import Budget, GateReport
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.dtype import DType
from tailorbird.domain.manifest import EngineFormat, Manifest, Provenance
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.domain.target import Target
from tailorbird.serving.batching.admission import BatchOptions
from tailorbird.serving.batching.batcher import Batcher
from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.instance import ThreadInstance

TINY = Signature(
    inputs=(TensorSpec("x", DType.FP32, ("N", 4)), TensorSpec("k", DType.INT64, ("N", 1))),
    outputs=(TensorSpec("y", DType.FP32, ("N", 4)), TensorSpec("n", DType.INT64, ("N", 1))),
)
"""y = 2 x + k, n = k + 1."""
MAX_ROWS = 64


def candidate(signature: Signature, runtime: str = "fake") -> Candidate:
    """A dynamic FP32 candidate for 1 to 64 rows; other named dims may be 1 to 64 too."""
    low, high = (
        {spec.name: tuple(size if isinstance(dim, str) else dim for dim in spec.dims) for spec in signature.inputs}
        for size in (1, MAX_ROWS)
    )
    profile = Profile(min=low, opt=low, max=high)
    return Candidate(Target(runtime, "cpu", "any"), Precision.FP32, profile, ShapeMode.DYNAMIC, threads=1)


def manifest(name: str, signature: Signature, chosen: Candidate, form: EngineFormat | None = None) -> Manifest:
    """A manifest that says nothing but what serving reads."""
    return Manifest(
        model=name,
        candidate=chosen,
        format=form or EngineFormat("fake", "fake_platform", "model.fake"),
        signature=signature,
        files={},
        executed={},
        latency=(),
        gate=GateReport(()),
        budget=Budget(),
        outcomes=(),
        provenance=Provenance("", "", "", (), {}, {}, ""),
    )


class FakeSession(Session):
    """Runs a Python function in place of an engine."""

    def __init__(self, signature, function, delay=0.0):
        super().__init__("fake", candidate(signature), signature)
        self.function = function
        self.delay = delay
        self.closed = False

    def _run(self, inputs):
        if self.delay:
            time.sleep(self.delay)
        return self.function(inputs)

    def _executed_precision(self):
        return {}

    def _close(self):
        self.closed = True


def tiny_function(inputs):
    """What the tiny graph computes."""
    return {"y": 2 * inputs["x"] + inputs["k"].astype(np.float32), "n": inputs["k"] + 1}


def fake_model(name="fake", version=1, signature=TINY, function=tiny_function, delay=0.0, outstanding=256):
    """A model in service without a runtime."""
    return in_service(name, version, FakeSession(signature, function, delay), outstanding)


def in_service(name, version, session, outstanding=256, stated=None):
    """One session in a thread, behind its batcher."""
    stated = stated or manifest(name, session.signature, candidate(session.signature))
    model = LoadedModel(name, version, stated, None)
    words, options = f"model '{name}' version {version}", BatchOptions(most_requests=outstanding)
    batcher = Batcher(stated, [ThreadInstance(session, f"{words} instance 0")], options, model.statistics.batch, words)
    return msgspec.structs.replace(model, instance=batcher)


def session_of(model):
    """The session of a model made here."""
    (slot,) = model.instance._slots.all
    return slot.executor._engine


def echo_model(name, dtype, dims=("N",), delay=0.0, outstanding=256):
    """A model with one input ``x``, which it returns as ``y``."""
    signature = Signature((TensorSpec("x", dtype, dims),), (TensorSpec("y", dtype, dims),))

    def echo(inputs):
        return {"y": inputs["x"]}

    return fake_model(name, signature=signature, function=echo, delay=delay, outstanding=outstanding)


def tiny_onnx(path: Path) -> Path:
    """Write the tiny graph as an ONNX file."""
    import onnx
    from onnx import TensorProto, helper

    def value(name, kind, width):
        return helper.make_tensor_value_info(name, kind, ["N", width])

    two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
    one = helper.make_tensor("one", TensorProto.INT64, [], [1])
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "two"], ["doubled"]),
            helper.make_node("Cast", ["k"], ["kf"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["doubled", "kf"], ["y"]),
            helper.make_node("Add", ["k", "one"], ["n"]),
        ],
        "tiny",
        [value("x", TensorProto.FLOAT, 4), value("k", TensorProto.INT64, 1)],
        [value("y", TensorProto.FLOAT, 4), value("n", TensorProto.INT64, 1)],
        [two, one],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def real_model(runtime: str, folder: Path, name="tiny", version=1) -> LoadedModel:
    """The tiny graph, compiled and opened by a real backend."""
    backend = registry.backend(runtime)
    chosen = candidate(TINY, runtime)
    workdir = folder / f"{runtime}-{version}"
    workdir.mkdir()
    backend.compile(tiny_onnx(folder / f"{runtime}-{version}.onnx"), chosen, workdir)
    session = backend.open(workdir, chosen, TINY)
    stated = manifest(name, TINY, chosen, backend.capabilities().format)
    return in_service(name, version, session, stated=stated)
