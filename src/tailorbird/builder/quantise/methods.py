"""The quantisation methods: a table of name to function, and what each takes and gives.

A method turns the normalised graph into another graph file. It runs in a process of its own through
:class:`tailorbird.backends.isolate.Worker`; ``entry points`` of the group ``tailorbird.quantisers`` add methods.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points

import msgspec

from tailorbird.domain.errors import UsageError, nearest
from tailorbird.domain.precision import Precision
from tailorbird.domain.quantisation import Quantisation, Ranges

ENTRY_POINTS = "tailorbird.quantisers"


class Unit(msgspec.Struct, frozen=True):
    """The smallest thing that can be kept in float: one quantised operation with its weights and inputs."""

    name: str
    """Name by which ``Quantisation.kept`` says it."""
    operator: str
    """ONNX operator type, or the method's own word for it."""
    weights: int = 0
    """Elements of its constant operands: a measure of its cost where nothing better is known."""


class QuantiseArgs(msgspec.Struct, frozen=True):
    """What one call of a method is given."""

    quantisation: Quantisation
    model: str
    """The normalised ONNX file."""
    base: str
    """Directory that the same method wrote for ``quantisation.base``; empty when nothing is kept."""
    samples: tuple[str, ...]
    """``.npz`` files, each one set of inputs to calibrate on; empty where the method needs none."""
    folder: str
    """An existing empty directory to write into; all that is written there is kept for the next build."""
    threads: int
    seed: int = 0


class Quantised(msgspec.Struct, frozen=True):
    """What a method wrote."""

    model: str
    """File name inside the folder: what a backend compiles."""
    units: tuple[Unit, ...]
    """What runs quantised in it, in topological order."""
    notes: tuple[str, ...] = ()


class Method(msgspec.Struct, frozen=True):
    """One method, as data."""

    name: str
    function: str
    """``module:function`` from :class:`QuantiseArgs` to :class:`Quantised`; raises a TailorbirdError to refuse."""
    package: str
    """The vendor package it stands on: a method is there when that can be imported."""
    version: int
    """Raised whenever its output can change: it enters the cache's key."""
    ranges: tuple[Ranges, ...] = ()
    """Calibration methods it offers; empty means that it needs no data."""
    mixes: bool = False
    """Whether it can keep units in float."""
    weights_only: bool = False
    """Whether only weights are quantised, and the engine computes in float."""
    precision: Precision = Precision.INT8
    """What an engine of it must be seen to run, unless only weights are quantised."""
    kin: str = ""
    """A method whose engines run much the same kernels: where they were far behind, this one is not tried."""
    beside: tuple[str, ...] = ("onnx", "onnxruntime", "openvino")
    """Packages that can change what it writes, too."""


_ROOM = "tailorbird.builder.quantise"

BUILT_IN = (
    Method("nncf", f"{_ROOM}.nncf_openvino:quantise", "nncf", 1, (Ranges.MINMAX, Ranges.PERCENTILE), mixes=True),
    Method("nncf-onnx", f"{_ROOM}.nncf_onnx:quantise", "nncf", 1, (Ranges.MINMAX, Ranges.PERCENTILE)),
    Method("qdq", f"{_ROOM}.onnx_static:quantise", "onnxruntime", 1, tuple(Ranges), mixes=True),
    Method("qoperator", f"{_ROOM}.onnx_static:quantise", "onnxruntime", 1, tuple(Ranges), mixes=True, kin="qdq"),
    Method("qdq-symmetric", f"{_ROOM}.onnx_symmetric:quantise", "onnxruntime", 1, tuple(Ranges), mixes=True),
    Method("qdq-fp8", f"{_ROOM}.onnx_symmetric:quantise", "onnxruntime", 1, (Ranges.MINMAX,), mixes=True,
           precision=Precision.FP8),
    Method("dynamic", f"{_ROOM}.onnx_dynamic:quantise", "onnxruntime", 1, mixes=True),
    Method("weights", f"{_ROOM}.nncf_weights:quantise", "nncf", 1, weights_only=True),
)  # fmt: skip


@cache
def methods() -> dict[str, Method]:
    """Every known method by name, built in or installed."""
    installed = [point.load() for point in entry_points(group=ENTRY_POINTS)]
    return {method.name: method for method in (*BUILT_IN, *installed)}


def method(name: str) -> Method:
    """The method of that name; raises :class:`UsageError` naming the nearest one."""
    known = methods()
    if name not in known:
        close = nearest(name, tuple(known))
        raise UsageError(f"unknown quantisation method '{name}'", expected=", ".join(known),
                         hint=f"did you mean '{close}'?" if close else None)  # fmt: skip
    return known[name]


def is_here(one: Method) -> bool:
    """Whether the package it stands on is installed; nothing is imported."""
    return importlib.util.find_spec(one.package) is not None
