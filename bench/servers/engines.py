"""The engines that are served: built once by our own build, signed, and kept with the rivals' environments."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import zoo
from bench.servers.venvs import root
from tailorbird import api
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.workdir import workdir
from tailorbird.cli.progress import BuildProgress
from tailorbird.domain.manifest import Manifest
from tailorbird.domain.profile import format_shapes

DATA_SETS = 16
"""For calibration and gate."""

BUILD_SECONDS = 240.0

Shape = tuple[int, ...]
Edges = tuple[dict[str, Shape], dict[str, Shape], dict[str, Shape]]
"""min, opt, max."""


@dataclass(frozen=True)
class Served:
    """One model as it is served: where its source comes from, and for which shapes its engine is built."""

    name: str
    source: Callable[[Path], Path]
    """The ONNX file, made in a folder if need be."""
    shapes: Edges
    sample: Callable[[dict[str, Shape], int], dict[str, Any]]
    """Inputs of given shapes, by seed."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def bundle(self) -> Path:
        """Where the engine lies once it is built."""
        return root() / "engines" / f"{self.name}.engine"

    @property
    def files(self) -> Path:
        """The engine's own files, for whoever runs them without us; see :func:`unpacked`."""
        return root() / "engines" / self.name

    def inputs(self, seed: int = 0, rows: int | None = None) -> dict[str, Any]:
        """Inputs of the opt shape, or of that with another batch."""
        return self.sample({name: (rows or dims[0], *dims[1:]) for name, dims in self.shapes[1].items()}, seed)

    def build(self, seconds: float = BUILD_SECONDS, *, anew: bool = False) -> None:
        """Build it, if that was not done before, or without what earlier builds left; raises as the build does."""
        if self.bundle.exists() and not anew:
            return
        self.bundle.parent.mkdir(parents=True, exist_ok=True)
        low, opt, high = map(format_shapes, self.shapes)
        edges = {"min_shapes": low, "opt_shapes": opt, "max_shapes": high}
        with workdir() as folder, BuildProgress() as progress:
            settings = {"time_budget": seconds, "data": str(_data(self, folder)), **edges, **self.settings}
            settings |= {"cache": str(folder / "cache")} if anew else {}
            unfinished = folder / self.bundle.name
            api.build(self.source(folder), output=unfinished, name=self.name, observers=[progress], **settings)
            shutil.copyfile(unfinished, self.bundle.with_suffix(".unfinished"))
        self.bundle.with_suffix(".unfinished").rename(self.bundle)


def unpacked(served: Served) -> Path:
    """The version's folder of an engine, unpacked once: what rivals are given to run."""
    from tailorbird.demo.wheel import whole
    from tailorbird.domain.bundlefile import unpack

    if not served.files.exists() or served.files.stat().st_mtime < served.bundle.stat().st_mtime:
        shutil.rmtree(served.files, ignore_errors=True)
        with whole(served.files) as unfinished:
            found = unpack(served.bundle, unfinished)
            for part in found.iterdir():
                part.rename(unfinished / part.name)
    return served.files


def manifest(served: Served) -> Manifest:
    """What its build found out."""
    from tailorbird.domain.bundlefile import manifest_of

    return manifest_of(served.bundle)


def _data(served: Served, folder: Path) -> Path:
    target = folder / "data"
    target.mkdir()
    for number in range(DATA_SETS):
        save_set(target / f"{number:03}.npz", served.inputs(1000 + number, 1))
    return target


def doubling(folder: Path) -> Path:
    """An ONNX file that doubles 16 floats: what a server costs when its model costs nothing."""
    import onnx

    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 16]) for name in "xy"]
    two = onnx.numpy_helper.from_array(np.array(2, np.float32), "two")
    nodes = [onnx.helper.make_node("Mul", ["x", "two"], ["y"])]
    return _saved(onnx.helper.make_graph(nodes, "double", sides[:1], sides[1:], [two]), folder / "double.onnx")


TOWER = (256, 2048, 2048, 2048, 64)
"""Widths of a small dense network, as rankers have. A run of one row waits for its weights, 36 MB of them."""


def tower(folder: Path) -> Path:
    """A dense network with seeded random weights."""
    import onnx

    rng, nodes, weights, value = np.random.default_rng(0), [], [], "features"
    for layer, (wide, out) in enumerate(itertools.pairwise(TOWER)):
        matrix = (rng.standard_normal((wide, out)) / np.sqrt(wide)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(onnx.helper.make_node("MatMul", [value, f"w{layer}"], [f"m{layer}"]))
        nodes.append(onnx.helper.make_node("Relu", [f"m{layer}"], [value := f"h{layer}"]))
    sides = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", width])
        for name, width in (("features", TOWER[0]), (value, TOWER[-1]))
    ]
    return _saved(onnx.helper.make_graph(nodes, "tower", sides[:1], sides[1:], weights), folder / "tower.onnx")


def _saved(graph: Any, target: Path) -> Path:
    import onnx

    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, target)
    return target


def _normal(shapes: dict[str, Shape], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _from_zoo(name: str) -> Callable[[Path], Path]:
    return lambda _: zoo.path(name)


def _one_input(name: str, low: Shape, opt: Shape, high: Shape) -> Edges:
    return {name: low}, {name: opt}, {name: high}


def _tokens(low: Shape, opt: Shape, high: Shape) -> Edges:
    low_, opt_, high_ = (dict.fromkeys(("input_ids", "attention_mask"), one) for one in (low, opt, high))
    return low_, opt_, high_


IMAGE = (3, 224, 224)
LENGTHS = (16, 32, 64, 128)
"""Of the sentences that BERT is asked: a client pads each to the next of these, as tokenisers do with a multiple."""

DOUBLE = Served("double", doubling, _one_input("x", (1, 16), (1, 16), (64, 16)), _normal,
                {"precisions": ("fp32",), "threads": (1,)})  # fmt: skip
RESNET = Served("resnet50", _from_zoo("resnet50"),
                _one_input("pixel_values", (1, *IMAGE), (1, *IMAGE), (8, *IMAGE)), zoo.get("resnet50").inputs,
                {"objective": "throughput", "precisions": ("int8", "fp32")})  # fmt: skip
RESNET_FP32 = Served("resnet50-fp32", _from_zoo("resnet50"),
                     _one_input("pixel_values", (1, *IMAGE), (1, *IMAGE), (1, *IMAGE)), zoo.get("resnet50").inputs,
                     {"precisions": ("fp32",)})  # fmt: skip
BERT = Served("bert-base", _from_zoo("bert-base"), _tokens((1, 16), (1, 64), (8, 128)), zoo.get("bert-base").inputs,
              {"precisions": ("int8", "fp32")})  # fmt: skip
RANKER = Served("tower", tower, _one_input("features", (1, 256), (1, 256), (16, 256)), _normal,
                {"precisions": ("fp32",)})  # fmt: skip
MAGIKA = Served("magika", _from_zoo("magika"), _one_input("bytes", (1, 2048), (1, 2048), (8, 2048)),
                zoo.get("magika").inputs)  # fmt: skip

ALL = (DOUBLE, RESNET, RESNET_FP32, BERT, RANKER, MAGIKA)
