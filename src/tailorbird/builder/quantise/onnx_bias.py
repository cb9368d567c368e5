"""Bias correction: what rounding its weights moves the mean of a convolution's outputs by, put into its bias.

After Nagel et al., "Data-free quantization through weight equalization and bias correction" (2019), section 4.2: the
error of a channel's mean is the weights' error times the mean of what goes in. Unlike noise it does not average out,
and where a channel has few weights, as in depthwise convolutions, it is large. Borders, where there is padding, are
taken as if there was none.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import helper

from tailorbird.builder.quantise.onnx_graph import border, open_session
from tailorbird.builder.quantise.onnx_ranges import feeds
from tailorbird.builder.sources.onnx_file import write_model
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import TailorbirdError

FILE = "means.json"

Means = dict[str, list[float]]
"""By value, one for each channel."""


def channel_means(
    model: onnx.ModelProto, values: list[str], samples: tuple[str, ...], scratch: Path, threads: int
) -> Means:
    """The mean of each channel of values ``[N, C, ...]`` over rows, places and samples, found in the graph.

    Raises:
        BackendError: the model does not run on the samples.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for name in values:
        probe.graph.node.append(helper.make_node("GlobalAveragePool", [name], [_asked(name)], name=_asked(name)))
        probe.graph.output.append(helper.make_empty_tensor_value_info(_asked(name)))
    sums: dict[str, Array] = {}
    rows: dict[str, int] = {}
    with border():
        write_model(probe, scratch / "means.onnx")
        session = open_session(scratch / "means.onnx", threads)
        for inputs in feeds(samples if values else ()):
            got = session.run([_asked(name) for name in values], inputs)
            for name, array in zip(values, got, strict=True):
                total = np.asarray(array, np.float64).reshape(*array.shape[:2]).sum(0)
                sums[name] = sums.get(name, 0.0) + total
                rows[name] = rows.get(name, 0) + len(array)  # each value has leading dims of its own
    return {name: (total / max(rows[name], 1)).tolist() for name, total in sums.items() if np.isfinite(total).all()}


def save(means: Means, folder: Path) -> None:
    """Write them where a mixed graph made from this one will look."""
    (folder / FILE).write_bytes(msgspec.json.encode(means))


def load(folder: Path) -> Means:
    """Read them back; raises :class:`TailorbirdError` naming the file."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Means)
    except (OSError, msgspec.DecodeError) as error:
        raise TailorbirdError(f"cannot read the means in {folder / FILE}", got=error,
                              hint="quantise again with nothing kept") from error  # fmt: skip


def _asked(name: str) -> str:
    return f"mean of {name}"


def shift_of(error: Array, means: Array, group: int) -> Array:
    """What to add to each channel's bias.

    Args:
        error: the true weights less the quantised ones, ``[O, C / group, ...]``.
        means: of the input's channels, ``[C]``.
        group: of the convolution.

    Returns:
        ``[O]``.
    """
    summed = error.reshape(*error.shape[:2], -1).sum(-1)
    parted = summed.reshape(group, -1, summed.shape[1])
    return np.asarray(np.einsum("goc,gc->go", parted, means.reshape(group, -1)).reshape(-1))
