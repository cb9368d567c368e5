"""Models whose answers say which version gave them, and to which row: ``y = 3 x + version`` on whole numbers."""

import importlib
import shutil
from pathlib import Path
from typing import Any

from tailorbird.backends import registry
from tailorbird.domain import bundle
from tailorbird.domain.dtype import DType
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tailorbird.repository.base import Repository
from tailorbird.repository.opening import open_repository
from tailorbird.repository.signing import keys
from tailorbird.repository.signing.sign import sign_version
from tests import bundles

COLUMNS = 4
MOST_ROWS = 16
"""Of one run; requests may have more, and are split."""
FACTOR = 3
TURNS = {"quick": 0, "slow": 1500}
"""By model: turns of a loop that changes nothing, of which a millisecond has some hundreds."""

SIGNATURE = Signature(
    (TensorSpec("x", DType.INT64, ("rows", COLUMNS)),), (TensorSpec("y", DType.INT64, ("rows", COLUMNS)),)
)


def repository(folder: Path, versions: int = 2, models: tuple[str, ...] = tuple(TURNS)) -> Repository:
    """A new repository with signed versions 1 to ``versions`` of each model; ``production`` points at the first."""
    folder.mkdir(parents=True, exist_ok=True)
    made = open_repository(folder / "repository")
    for model in models:
        for version in range(1, versions + 1):
            publish(made, folder, model, version)
        made.promote(model, 1, "production")
    return made


def publish(into: Repository, folder: Path, model: str, version: int) -> None:
    """Add the next version of a model, which must be the one that its engine says it is."""
    place = _version(folder / f"{model}-{version}", version, TURNS[model])
    assert into.publish(place, model) == version


def _version(folder: Path, version: int, turns: int) -> Path:
    onnx = importlib.import_module("onnx")
    source = folder.with_name(folder.name + ".onnx")
    onnx.save(_graph(onnx, version, turns), source)
    chosen = bundles.candidate(profile=Profile(*({"x": (rows, COLUMNS)} for rows in (1, 1, MOST_ROWS))))
    workdir = folder.with_name(folder.name + ".engine")
    workdir.mkdir()
    registry.backend("onnxruntime").compile(source, chosen, workdir)
    shutil.copytree(workdir, bundles.unsealed(folder), dirs_exist_ok=True)
    bundle.seal(folder, bundles.manifest(signature=SIGNATURE, candidate=chosen, latency=_latencies(turns)))
    sign_version(folder, keys.ensured()[0])
    return folder


def _graph(onnx: Any, version: int, turns: int) -> Any:
    helper, kind = onnx.helper, onnx.TensorProto.INT64
    nodes = [helper.make_node("Mul", ["x", "factor"], ["tripled"]),
             helper.make_node("Add", ["tripled", "version"], ["z" if turns else "y"])]  # fmt: skip
    constants = {"factor": FACTOR, "version": version, "turns": turns}
    if turns:
        nodes.append(helper.make_node("Loop", ["turns", "", "z"], ["y"], body=_turn(onnx)))
    graph = helper.make_graph(
        nodes,
        "marked",
        [helper.make_tensor_value_info("x", kind, ["rows", COLUMNS])],
        [helper.make_tensor_value_info("y", kind, ["rows", COLUMNS])],
        [helper.make_tensor(name, kind, [], [value]) for name, value in constants.items() if turns or name != "turns"],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _turn(onnx: Any) -> Any:
    helper, kind = onnx.helper, onnx.TensorProto
    return helper.make_graph(
        [helper.make_node("Neg", ["v"], ["a"]), helper.make_node("Neg", ["a"], ["w"]),
         helper.make_node("Identity", ["go"], ["on"])],
        "turn",
        [helper.make_tensor_value_info("i", kind.INT64, []), helper.make_tensor_value_info("go", kind.BOOL, []),
         helper.make_tensor_value_info("v", kind.INT64, ["rows", COLUMNS])],
        [helper.make_tensor_value_info("on", kind.BOOL, []),
         helper.make_tensor_value_info("w", kind.INT64, ["rows", COLUMNS])],
    )  # fmt: skip


def _latencies(turns: int) -> tuple[LatencyRow, ...]:
    """About what they take; the batcher goes by what it sees."""
    base = 0.03 + turns / 500
    rows = ((1, base), (MOST_ROWS, base * 1.2))
    return tuple(
        LatencyRow(f"{count} rows", {"x": (count, COLUMNS)}, count, 1, Latency(ms, ms, ms, ms, ms, ms, 100))
        for count, ms in rows
    )
