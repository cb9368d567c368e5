"""Small graphs to quantise, samples for them, and how near two files answer."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.cases.data import save_set
from tailorbird.builder.quantise.methods import QuantiseArgs
from tailorbird.domain.quantisation import Quantisation, Ranges
from tests.unit.builder.graphs import model, save, value


def normal(name: str, shape: Any) -> Any:
    """Numbers that follow from the name: a model is the same whichever tests ran before."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)


def const(name: str, *shape: int, scale: float = 0.3) -> Any:
    return numpy_helper.from_array((normal(name, shape) * scale).astype(np.float32), name)


def numbers(name: str, *values: Any, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.array(values, dtype), name)


def node(kind: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=name, **attributes)


def convolutions() -> onnx.ModelProto:
    """Two convolutions with a batch norm, a clip and a residual sum between them, then a classifier."""
    nodes = [
        node("Conv", "x k1", "c1", "first", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c1 g b m v", "n1", "norm"),
        node("Clip", "n1 zero six", "r1", "clip"),
        node("Conv", "r1 k2", "c2", "second", pads=[1, 1, 1, 1]),
        node("Add", "c2 r1", "s", "sum"),
        node("GlobalAveragePool", "s", "p", "pool"),
        node("Flatten", "p", "f", "flat"),
        node("MatMul", "f w", "fw", "head"),
        node("Add", "fw bias", "y", "bias"),
    ]
    variance = numpy_helper.from_array(np.abs(normal("v", 8)).astype(np.float32) + 0.5, "v")
    weights = [const("k1", 8, 3, 3, 3), const("k2", 8, 8, 3, 3), const("w", 8, 4, scale=1), const("bias", 1, 4)]
    norm = [const("g", 8, scale=1), const("b", 8), const("m", 8), variance]
    limits = [numpy_helper.from_array(np.array(limit, np.float32), name) for name, limit in (("zero", 0), ("six", 6))]
    x, y = value("x", ["batch", 3, 12, 12]), value("y", ["batch", 4])
    return model(nodes, [x], [y], [*weights, *norm, *limits])


def encoder() -> onnx.ModelProto:
    """Token ids, a table, one projection whose weight is the table, a mask of -3.4e38 and a softmax."""
    nodes = [
        node("Gather", "table ids", "e"),
        node("MatMul", "e w", "h", "project"),
        node("Tanh", "h", "t"),
        node("Transpose", "h", "ht", perm=[0, 2, 1]),
        node("MatMul", "t ht", "scores", "attend"),
        node("Where", "mask scores floor", "masked"),
        node("Softmax", "masked", "shares"),
        node("MatMul", "shares h", "mixed"),
        node("Transpose", "table", "back", perm=[1, 0]),
        node("MatMul", "mixed back", "y", "tied"),
    ]
    weights = [const("table", 20, 8, scale=1), const("w", 8, 8), numbers("floor", float(np.finfo(np.float32).min))]
    inputs = [value("ids", ["n", "words"], TensorProto.INT64), value("mask", ["n", 1, "words"], TensorProto.BOOL)]
    return model(nodes, inputs, [value("y", ["n", "words", 20])], weights)


def images(seed: int, rows: int = 2) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, 3, 12, 12)).astype(np.float32)}


def words(seed: int, count: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mask = np.arange(count)[None, None] < rng.integers(2, count + 1, (2, 1, 1))
    return {"ids": rng.integers(0, 20, (2, count)), "mask": mask}


def args(
    made: onnx.ModelProto, folder: Path, method: str, samples: list[dict[str, Any]], **changes: Any
) -> QuantiseArgs:
    """A call on that model; each gets a directory of its own."""
    number = sum(path.is_dir() for path in folder.iterdir())
    out = folder / f"out{number}"
    out.mkdir()
    files = [folder / f"sample{index}.npz" for index in range(len(samples))]
    for file, sample in zip(files, samples, strict=True):
        save_set(file, sample)
    ranges = changes.pop("ranges", Ranges.MINMAX if samples else None)
    base = changes.pop("base", "")
    return QuantiseArgs(
        quantisation=Quantisation(method, ranges=ranges, **changes),
        model=str(save(made, folder / "source.onnx")),
        base=base,
        samples=tuple(map(str, files)),
        folder=str(out),
        threads=1,
    )


def run(path: Path | str, inputs: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return list(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, inputs))


def snr_db(call: QuantiseArgs, inputs: dict[str, Any]) -> float:
    """Signal to noise of the quantised file against its source, over all outputs."""
    pairs = zip(run(call.model, inputs), run(f"{call.folder}/model.onnx", inputs), strict=True)
    signal, noise = np.sum([(np.sum(a**2.0), np.sum((a - b) ** 2.0)) for a, b in pairs], axis=0)
    return float(10 * np.log10(signal / max(noise, 1e-30)))
