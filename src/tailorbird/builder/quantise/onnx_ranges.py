"""The range of each value of a graph on calibration data: min-max, percentile or entropy.

ONNX Runtime's own calibrators are not used: they hold the activations of all samples at once, expect every
sample to have one shape, and look at every float value, where one attention mask of -3.4e38 ends them. Here the
samples pass one by one, first for the extremes, then for a histogram of fixed size.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import helper

from tailorbird.builder.cases.data import load_set
from tailorbird.builder.quantise.onnx_graph import border, open_session
from tailorbird.builder.sources.onnx_file import write_model
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.quantisation import Ranges

FILE = "ranges.json"

PERCENTILE = 99.999
"""Share of values inside the range, in per cent; ONNX Runtime's default."""

_BINS = 2048
_LEVELS = 256
_STEP = 16

Range = tuple[float, float]


class Found(msgspec.Struct, frozen=True):
    """Ranges as kept in the folder: (low, high) by value, how they were found, and on how many samples."""

    method: Ranges
    ranges: dict[str, Range]
    samples: int


def save(found: Found, folder: Path) -> None:
    """Write them where a mixed graph made from this one will look."""
    (folder / FILE).write_bytes(msgspec.json.encode(found))


def load(folder: Path) -> Found:
    """Read them back; raises :class:`TailorbirdError` naming the file."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Found)
    except (OSError, msgspec.DecodeError) as error:
        raise TailorbirdError(f"cannot read the ranges in {folder / FILE}", got=error,
                              hint="quantise again with nothing kept") from error  # fmt: skip


def find(  # noqa: PLR0913, PLR0917
    model: onnx.ModelProto,
    values: list[str],
    samples: tuple[str, ...],
    method: Ranges,
    scratch: Path,
    threads: int,
    levels: int = _LEVELS,
) -> Found:
    """Run the samples and look.

    Args:
        model: from :func:`tailorbird.builder.quantise.onnx_graph.prepared`.
        values: names of float values of it.
        samples: ``.npz`` files, each one set of inputs; shapes may differ.
        method: how the range follows from the values.
        scratch: a directory for a passing copy of the model.
        threads: of the runtime.
        levels: steps that a value of one sign has; UINT8 gives it all, a symmetric type half of them.

    Returns:
        Finite ranges: an input's are its extremes, because white paper is no outlier; a value that was NaN or
        infinite somewhere is left out.

    Raises:
        TailorbirdError: there are no samples.
        BackendError: the model does not run on them.
    """
    if not samples:
        raise TailorbirdError("calibration needs data", hint="give real inputs with --data")
    with border():
        seen = extremes_of(model, values, samples, scratch, threads)
        extremes = {name: span for name, span in seen.items() if np.isfinite(span).all()}
        if method is not Ranges.MINMAX:
            inner = {name: span for name, span in extremes.items() if name not in _inputs(model)}
            histograms = _histograms(model, inner, samples, scratch, threads)
            narrow = _by_percentile if method is Ranges.PERCENTILE else partial(_by_entropy, one_sided=levels)
            extremes |= {name: narrow(counts, *_span(inner[name]), inner[name]) for name, counts in histograms.items()}
    return Found(method, extremes, len(samples))


def extremes_of(
    model: onnx.ModelProto,
    values: list[str],
    samples: tuple[str, ...],
    scratch: Path,
    threads: int,
    level: str = "ORT_ENABLE_ALL",
) -> dict[str, Range]:
    """Least and greatest of each value, computed in the graph so that no activation leaves the runtime.

    Args and errors are those of :func:`find`, without its border; ``level`` is the runtime's optimisation: a value
    that is asked for has a reader of its own and is never fused away. NaN and infinities are told as they are; a value
    that no sample had any element of is (inf, -inf).
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    asked = [_reduce(probe, kind, name) for name in values for kind in ("ReduceMin", "ReduceMax")]
    lows = np.full(len(values), np.inf)
    highs = np.full(len(values), -np.inf)
    session = _session(probe, scratch, threads, level)
    for inputs in feeds(samples):
        got = session.run(asked, inputs)
        seen = np.array([array.flat[0] if array.size else np.nan for array in got], np.float64).reshape(-1, 2)
        present = np.array([array.size > 0 for array in got]).reshape(-1, 2)[:, 0]
        lows = np.where(present, np.minimum(lows, seen[:, 0]), lows)
        highs = np.where(present, np.maximum(highs, seen[:, 1]), highs)
    return {name: (float(low), float(high)) for name, low, high in zip(values, lows, highs, strict=True)}


def _reduce(model: onnx.ModelProto, kind: str, name: str) -> str:
    output = f"{kind} of {name}"
    model.graph.node.append(helper.make_node(kind, [name], [output], name=output, keepdims=1))
    model.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return output


def _histograms(
    model: onnx.ModelProto, extremes: dict[str, Range], samples: tuple[str, ...], scratch: Path, threads: int
) -> dict[str, Array]:
    """Counts in equal bins over the span of each value; one sample's activations are held at a time."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    declared = {value.name for value in model.graph.output}
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in extremes if name not in declared
    )
    counts = {name: np.zeros(_BINS, np.int64) for name in extremes}
    session = _session(probe, scratch, threads)
    for inputs in feeds(samples if extremes else ()):
        for name, array in zip(extremes, session.run(list(extremes), inputs), strict=True):
            counts[name] += np.histogram(array, _BINS, _span(extremes[name]))[0]
    return counts


def _inputs(model: onnx.ModelProto) -> set[str]:
    return {value.name for value in model.graph.input}


def _span(extremes: Range) -> Range:
    """From 0 for values of one sign, otherwise even about 0, where entropy's bins must be centred."""
    reach = max(abs(extremes[0]), abs(extremes[1])) or 1.0
    return (0.0 if extremes[0] >= 0 else -reach, 0.0 if extremes[1] <= 0 < -extremes[0] else reach)


def _by_percentile(counts: Array, low: float, high: float, extremes: Range) -> Range:
    """The edges outside of which lies half of what may be cut, on each side."""
    shares = np.cumsum(counts) / counts.sum()
    cut = (100 - PERCENTILE) / 200
    edges = np.linspace(low, high, _BINS + 1)
    first, last = np.searchsorted(shares, cut, "right"), np.searchsorted(shares, 1 - cut)
    return max(float(edges[first]), extremes[0]), min(float(edges[last + 1]), extremes[1])


def _by_entropy(counts: Array, low: float, high: float, extremes: Range, one_sided: int = _LEVELS) -> Range:
    """The cut whose quantised distribution is nearest to the true one in Kullback-Leibler divergence.

    After S. Migacz, "8-bit inference with TensorRT" (GTC 2017), with bins merged into as many levels as the type
    has: 128 for values of one sign in INT8, as there, otherwise 256. As in NVIDIA's pytorch-quantization, the bin of
    exact zeros counts like its neighbour: what a Relu made 0 is no reason to cut. Too few values show no distribution
    and are not cut.
    """
    if counts.sum() < 16 * _BINS:
        return extremes
    zero = 0 if low == 0 else _BINS - 1 if high == 0 else _BINS // 2
    levels = one_sided if low == 0 or high == 0 else _LEVELS
    smooth = counts.copy()
    smooth[zero] = counts[zero - 1 if zero else 1]
    _, keep = min((_divergence(smooth, *ends, levels), ends) for ends in _cuts(low, high, levels))
    edges = np.linspace(low, high, _BINS + 1)
    return max(float(edges[keep[0]]), extremes[0]), min(float(edges[keep[1]]), extremes[1])


def _cuts(low: float, high: float, levels: int) -> Iterator[tuple[int, int]]:
    """Bins to keep, from one bin a level up to all."""
    for width in range(levels, _BINS + 1, _STEP):
        if low == 0:
            yield 0, width
        elif high == 0:
            yield _BINS - width, _BINS
        else:
            yield (_BINS - width) // 2, (_BINS + width) // 2


def _divergence(counts: Array, start: int, end: int, levels: int) -> float:
    """KL divergence of the clipped distribution from its copy in so many levels, both smoothed by a little."""
    inside = counts[start:end].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[end:].sum()
    level = np.arange(len(inside)) * levels // len(inside)
    filled = (clipped > 0).astype(np.float64)
    mass, width = np.bincount(level, inside, levels), np.bincount(level, filled, levels)
    spread = np.divide(mass, width, out=np.zeros(levels), where=width > 0)[level] * filled
    if not spread.sum():
        return float("inf")
    true, copy = clipped / clipped.sum(), spread / spread.sum()
    some = true > 0
    return float((true[some] * np.log(true[some] / np.maximum(copy[some], 1e-10))).sum())


def _session(model: onnx.ModelProto, scratch: Path, threads: int, level: str = "ORT_ENABLE_ALL") -> Any:
    path = scratch / "probe.onnx"
    write_model(model, path)
    return open_session(path, threads, level)


def feeds(samples: tuple[str, ...]) -> Iterator[dict[str, Array]]:
    """What a session is given for each sample, one at a time; text as ONNX Runtime wants it."""
    for sample in samples:
        arrays = load_set(Path(sample))
        yield {name: _text(array) if array.dtype == DType.BYTES.numpy else array for name, array in arrays.items()}


def _text(array: Array) -> Array:
    return np.array([element.decode() for element in array.flat], object).reshape(array.shape)
