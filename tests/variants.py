"""Versions of one model that differ in what matters to a rollout: speed, answers, failures. Real engines, signed."""

import importlib
from pathlib import Path

import numpy as np

from tailorbird.domain.dtype import DType
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tests import processes

SIGNATURE = Signature((TensorSpec("x", DType.FP32, ("rows", 4)),), (TensorSpec("y", DType.FP32, ("rows", 4)),))
"""``y = x + offset``."""
POISON = 1e6
"""An engine that ``breaks`` fails on a request with this number in it."""
MILLISECOND = 1000
"""Turns that take about so long."""


def variant(folder: Path, *, turns: int = 0, offset: float = 0.0, breaks: bool = False) -> Path:
    """A signed version that takes so many turns of a loop longer, adds an offset, or breaks on some requests."""
    helper, kind = processes._helper()
    floats = [helper.make_tensor_value_info(name, kind.FLOAT, ["rows", 4]) for name in ("v", "w")]
    flags = [helper.make_tensor_value_info(name, kind.BOOL, []) for name in ("go", "on")]
    body = helper.make_graph(
        [helper.make_node("Neg", ["v"], ["a"]), helper.make_node("Neg", ["a"], ["w"]),
         helper.make_node("Identity", ["go"], ["on"])],
        "turn", [helper.make_tensor_value_info("i", kind.INT64, []), flags[0], floats[0]], [flags[1], floats[1]],
    )  # fmt: skip
    nodes = [
        _constant("turns", np.array(turns, np.int64)),
        _constant("offset", np.array(offset, np.float32)),
        helper.make_node("Loop", ["turns", "", "x"], ["later"], body=body),
        helper.make_node("Add", ["later", "offset"], ["sum" if breaks else "y"]),
    ]
    profile = Profile(*({"x": (rows, 4)} for rows in (1, 2, 64)))
    return processes._version(folder, nodes + (_breaking() if breaks else []), SIGNATURE, profile)


def _breaking() -> list:
    """``y = sum``, by way of an index that is out of bounds where the largest ``x`` is the poison."""
    helper, kind = processes._helper()
    return [
        _constant("table", np.zeros(1, np.float32)),
        _constant("poison", np.array(POISON, np.float32)),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("GreaterOrEqual", ["largest", "poison"], ["bad"]),
        helper.make_node("Cast", ["bad"], ["index"], to=kind.INT64),
        helper.make_node("Gather", ["table", "index"], ["nothing"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]


def _constant(name: str, value: np.ndarray):
    onnx = importlib.import_module("onnx")
    return onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))


def request(mark: float, rows: int = 2) -> dict:
    """A body whose every number is its mark."""
    data = [float(mark)] * 4 * rows
    return {"inputs": [{"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}]}
