"""Naive INT8, as the tools' first pages show it: all defaults, a folder of inputs, no look at the accuracy.

Each function is called in a process of its own through :class:`tailorbird.backends.isolate.Worker`; whatever a tool
raises becomes a row of the table.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.builder.cases.data import load_set

Feeds = dict[str, Any]


class Args(msgspec.Struct, frozen=True):
    """What is quantised, on what, and where to."""

    way: str
    """A key of :data:`WAYS`."""
    model: str
    inputs: str
    """Folder of ``.npz`` files: the inputs to calibrate on."""
    target: str
    """File to write."""


class Done(msgspec.Struct, frozen=True):
    """What there is to run."""

    model: str


def quantise(args: Args) -> Done:
    """Quantise one model in one way; raises whatever the tool raises."""
    WAYS[args.way](args)
    return Done(args.target)


def _nncf(args: Args) -> None:
    import nncf
    import openvino

    model = openvino.Core().read_model(args.model)
    openvino.save_model(nncf.quantize(model, nncf.Dataset(_inputs(args))), args.target)


def _static(args: Args) -> None:
    from onnxruntime.quantization import quantize_static

    quantize_static(args.model, args.target, _reader(_inputs(args)))


def _dynamic(args: Args) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(args.model, args.target)


def _inputs(args: Args) -> list[Feeds]:
    return [load_set(path) for path in sorted(Path(args.inputs).glob("*.npz"))]


def _reader(inputs: list[Feeds]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> Feeds | None:
            return next(self._left, None)

    return Reader()


WAYS: dict[str, Callable[[Args], None]] = {"nncf": _nncf, "ort static": _static, "ort dynamic": _dynamic}
RUN_BY = {"nncf": "openvino", "ort static": "onnxruntime", "ort dynamic": "onnxruntime"}
"""The kind of contestant of :mod:`bench.contestants` that runs the result."""
