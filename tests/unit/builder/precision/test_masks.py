"""Masks: which constants are brought into reach, and which are left alone."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from tailorbird.builder.precision.masks import REACH, fitted
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import node, numbers

LOWEST = float(np.finfo(np.float32).min)


def masked(*nodes: Any, floor: Any = LOWEST, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    inputs = [value("x", ["n", 4]), value("keep", ["n", 4], TensorProto.BOOL)]
    weights = [numbers("floor", *np.atleast_1d(floor)), numbers("zero", 0.0)]
    return model(nodes, inputs, [value(name, None) for name in outputs], weights)


def floor_of(made: onnx.ModelProto) -> list[float]:
    return list(numpy_helper.to_array(made.graph.initializer[0]))


SOFTMAX = node("Softmax", "m", "y", "shares")


def test_what_is_chosen_or_added_before_a_softmax_is_brought_near() -> None:
    for nodes in (
        [node("Where", "keep x floor", "m"), SOFTMAX],
        [node("Where", "keep zero floor", "bias"), node("Add", "x bias", "m"), SOFTMAX],
        [node("Identity", "floor", "same"), node("Where", "keep x same", "m"), node("LogSoftmax", "m", "y")],
    ):
        made = masked(*nodes)
        assert fitted(made) == ("mask 'floor': -3.4e+38 became -8192",)
        assert floor_of(made) == [-REACH]


@pytest.mark.parametrize("nodes", [
    [node("Where", "keep x floor", "y")],
    [node("Where", "keep x floor", "m"), node("ReduceMax", "m", "y")],
    [node("Where", "keep x floor", "m"), SOFTMAX, node("Abs", "m", "z")],
    [node("Div", "x floor", "m"), SOFTMAX],
])  # fmt: skip
def test_what_anything_else_sees_is_left_alone(nodes: list[Any]) -> None:
    made = masked(*nodes, outputs=("y", *(("z",) if nodes[-1].output[0] == "z" else ())))
    assert fitted(made) == ()
    assert floor_of(made) == [np.float32(LOWEST)]


def test_what_fits_and_what_is_infinite_is_left_alone() -> None:
    for floor in ([-10000.0, 1.0], [-np.inf, 0.0]):
        made = masked(node("Where", "keep x floor", "m"), SOFTMAX, floor=floor)
        assert fitted(made) == ()
    made = masked(node("Where", "keep x floor", "m"), SOFTMAX, floor=[-np.inf, LOWEST, 3.0, -1e5])
    assert len(fitted(made)) == 1
    assert floor_of(made) == [-np.inf, -REACH, 3.0, -REACH]
