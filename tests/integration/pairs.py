"""Pairs of versions whose difference is known: small nets, really compiled, measured and profiled, then sealed."""

import importlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tailorbird.backends import registry
from tailorbird.backends.host import cpu_facts
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.graph.normalise import normalise
from tailorbird.builder.graph.outline import write_outline
from tailorbird.builder.quantise.methods import QuantiseArgs
from tailorbird.builder.search import steps
from tailorbird.domain import bundle
from tailorbird.domain.budget import Budget, Check, GateReport
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.digest import digest_file
from tailorbird.domain.dtype import DType
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.layers import LAYERS, LayerBook, LayerTable, encode_layers
from tailorbird.domain.manifest import Manifest, Provenance
from tailorbird.domain.outline import OUTLINE
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.quantisation import Quantisation
from tailorbird.domain.signature import Signature, TensorSpec

CHANNELS, SIDE, BLOCKS = 48, 56, 6
TURNS = 5

SIGNATURE = Signature(
    inputs=(TensorSpec("x", DType.FP32, ("N", CHANNELS, "H", SIDE)),),
    outputs=(TensorSpec("y", DType.FP32, ("N", CHANNELS, "H", SIDE)),),
)


def shape(height: int = SIDE, rows: int = 1) -> dict[str, tuple[int, ...]]:
    return {"x": (rows, CHANNELS, height, SIDE)}


def net(path: Path, blocks: int = BLOCKS, retrained: int | None = None, extra_after: int | None = None) -> Path:
    """Convolutions with an activation each; ``extra_after`` puts a wide block after one of them."""
    onnx = importlib.import_module("onnx")
    helper, weights, nodes, at = onnx.helper, [], [], "x"

    def block(name: str, seed: int, at: str, kernel: int = 3) -> str:
        random = np.random.default_rng(seed)
        values = random.standard_normal((CHANNELS, CHANNELS, kernel, kernel)) * (2 / CHANNELS / kernel**2) ** 0.5
        weights.append(onnx.numpy_helper.from_array(values.astype(np.float32), f"{name}_w"))
        pads = [kernel // 2] * 4
        nodes.append(helper.make_node("Conv", [at, f"{name}_w"], [f"{name}_c"], name=f"{name}_conv", pads=pads))
        nodes.append(helper.make_node("Relu", [f"{name}_c"], [f"{name}_r"], name=f"{name}_relu"))
        return f"{name}_r"

    for number in range(blocks):
        at = block(f"block{number}", 100 + number if number == retrained else number, at)
        if number == extra_after:
            at = block("extra", 77, at, kernel=7)
    nodes.append(helper.make_node("Identity", [at], ["y"], name="out"))
    return _saved(path, nodes, weights)


def chain(path: Path, blocks: int = 60) -> Path:
    """Quick activations between reshapes whose target is computed from the shape: nothing of that is left if static."""
    onnx = importlib.import_module("onnx")
    helper, nodes, at = onnx.helper, [], "x"
    weights = [onnx.numpy_helper.from_array(np.array(values), name)
               for name, values in (("zero", [0]), ("two", [2]), ("flat", [CHANNELS * SIDE]))]  # fmt: skip
    for number in range(blocks):
        name = f"block{number}"
        nodes += [
            helper.make_node("Shape", [at], [f"{name}_s"], name=f"{name}_shape"),
            helper.make_node("Gather", [f"{name}_s", "zero"], [f"{name}_n"], name=f"{name}_rows"),
            helper.make_node("Gather", [f"{name}_s", "two"], [f"{name}_h"], name=f"{name}_height"),
            helper.make_node("Concat", [f"{name}_n", "flat", f"{name}_h"], [f"{name}_t"], name=f"{name}_to", axis=0),
            helper.make_node("Reshape", [at, f"{name}_t"], [f"{name}_r"], name=f"{name}_there"),
            helper.make_node("Sin", [f"{name}_r"], [f"{name}_a"], name=f"{name}_sin"),
            helper.make_node("Reshape", [f"{name}_a", f"{name}_s"], [f"{name}_y"], name=f"{name}_back"),
        ]
        at = f"{name}_y"
    nodes.append(helper.make_node("Identity", [at], ["y"], name="out"))
    return _saved(path, nodes, weights)


def _saved(path: Path, nodes: list[Any], weights: list[Any]) -> Path:
    onnx = importlib.import_module("onnx")
    helper, kind, dims = onnx.helper, onnx.TensorProto.FLOAT, ["N", CHANNELS, "H", SIDE]
    made = helper.make_graph(nodes, "net", [helper.make_tensor_value_info("x", kind, dims)],
                             [helper.make_tensor_value_info("y", kind, dims)], weights)  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(normalise(model).model, path)
    return path


def quantised(model: Path, folder: Path, kept: tuple[str, ...] = ()) -> Path:
    """The net with INT8 by the ``nncf`` method; units named in ``kept`` stay in float."""
    from tailorbird.builder.quantise.nncf_openvino import quantise

    samples = []
    for seed in range(3):
        samples.append(str(folder.parent / f"sample{seed}.npz"))
        save_set(Path(samples[-1]), {"x": _input(shape(), seed)})
    base = folder.parent / f"{folder.name}-base"
    base.mkdir(parents=True)
    whole = Quantisation("nncf")
    first = quantise(QuantiseArgs(whole, str(model), "", tuple(samples), str(base), 2))
    if not kept:
        return base / first.model
    folder.mkdir()
    mixed = msgspec.structs.replace(whole, kept=kept)
    return folder / quantise(QuantiseArgs(mixed, str(model), str(base), tuple(samples), str(folder), 2)).model


def candidate(runtime: str = "openvino", **changes: Any) -> Candidate:
    plain = Candidate(registry.backend(runtime).capabilities().target, Precision.FP32, Profile.static(shape()),
                      ShapeMode.STATIC, threads=2)  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


class Made(NamedTuple):
    """A version to be made: the normalised net, how to compile it, and what is compiled where that is another graph."""

    model: Path
    candidate: Candidate
    graph: Path | None = None


def versions(folder: Path, wanted: Mapping[str, Made], **manifest: Any) -> dict[str, Path]:
    """Sealed versions by name, compiled here and measured in turn.

    Of several turns each version keeps its quickest: what else the machine does only ever adds time.
    """
    args = {name: _compiled(folder / name, one) for name, one in wanted.items()}
    tables: dict[str, list[LayerTable]] = {name: [] for name in wanted}
    for _ in range(TURNS):
        for name, one in args.items():
            tables[name].append(steps.profile_engine(one))
    for name, one in wanted.items():
        table = min(tables[name], key=lambda found: found.latency + found.profiled)
        _sealed(folder / name, one, table, manifest)
    return {name: folder / name for name in wanted}


def _compiled(folder: Path, one: Made) -> steps.StepArgs:
    inputs = folder.with_suffix(".npz")
    save_set(inputs, {"x": _input(one.candidate.profile.opt, 0)})
    case = Case(Place("opt", one.candidate.profile.opt, 1), str(inputs), "", real=False)
    args = steps.StepArgs(one.candidate, SIGNATURE, str(one.graph or one.model), str(folder), (case,), Budget())
    steps.compile_engine(args)
    return msgspec.structs.replace(args, model=str(one.model))


def _sealed(folder: Path, one: Made, table: LayerTable, manifest: dict[str, Any]) -> None:
    (folder / "tailorbird").mkdir()
    (folder / LAYERS).write_bytes(encode_layers(LayerBook((table,))))
    write_outline(importlib.import_module("onnx").load(str(one.model)), folder / OUTLINE)
    latency = Latency.of([0.98 * table.latency, table.latency, 1.02 * table.latency])
    row = LatencyRow("opt", one.candidate.profile.opt, 1, 1, latency)
    executed = dict(Counter(layer.precision for layer in table.layers))
    plain = _manifest(one.candidate, one.model, executed=executed, latency=(row,))
    bundle.seal(folder, msgspec.structs.replace(plain, **manifest))


def _input(shapes: Any, seed: int) -> Any:
    sizes = shapes["x"]
    return np.random.default_rng(seed).standard_normal(sizes).astype(np.float32)


def _manifest(one: Candidate, model: Path, **fields: Any) -> Manifest:
    backend = registry.backend(one.target.runtime)
    versions = {"tailorbird": "0.1.0", one.target.runtime: backend.probe().version}
    digest = digest_file(model)
    return Manifest(
        model="net",
        candidate=one,
        format=backend.capabilities().format,
        signature=SIGNATURE,
        files={},
        gate=GateReport((Check("snr_db", True, "opt, y", 120.0, 20.0),)),
        budget=Budget(),
        outcomes=(),
        provenance=Provenance(model.name, digest, digest, (), versions, cpu_facts(), "2026-01-01T00:00:00Z"),
        **fields,
    )
