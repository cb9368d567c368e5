"""Nodes that stay for what they are: recognised in the forms that exporters give them."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from tailorbird.builder.precision.structure import NORM, SHAPES, reasons
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import const, node, numbers

TWO, HALF, EPS, N = numbers("two", 2.0), numbers("half", 0.5), numbers("eps", 1e-5), numbers("n", 1 / 8)


def found(nodes: list[Any], *weights: Any, inputs: tuple[Any, ...] = ()) -> dict[str, str]:
    x, y = value("x", ["rows", 8]), value("y", None)
    return reasons(model(nodes, [x, *inputs], [y], [TWO, HALF, EPS, N, *weights]))


def test_the_mean_of_squares_less_the_square_of_the_mean() -> None:
    """As JAX writes it: by sums and a factor, with reshapes in between, and the root's inverse."""
    nodes = [
        node("ReduceSum", "x axes", "s", "sum", keepdims=0),
        node("Mul", "s n", "m", "mean"),
        node("Mul", "x x", "xx", "squares"),
        node("ReduceSum", "xx axes", "ss", "sum of squares", keepdims=0),
        node("Mul", "ss n", "mm", "mean of squares"),
        node("Mul", "m m", "m2", "square of mean"),
        node("Sub", "mm m2", "v", "variance"),
        node("Max", "v zero", "v0", "not below 0"),
        node("Shape", "x", "size", "shape"),
        node("Slice", "size first second", "lead", "leading"),
        node("Concat", "lead one", "column", "column", axis=0),
        node("Reshape", "v0 column", "vr", "as column"),
        node("Add", "vr eps", "ve", "epsilon"),
        node("Sqrt", "ve", "r", "root"),
        node("Reciprocal", "r", "i", "inverse"),
        node("Mul", "i gamma", "g", "scale"),
        node("Mul", "x g", "y", "product"),
    ]
    weights = [numbers(name, number, dtype=np.int64) for name, number in (("axes", 1), ("first", 0), ("second", 1),
                                                                          ("one", 1))]  # fmt: skip
    names = {name for name, why in found(nodes, *weights, const("gamma", 8), numbers("zero", 0.0)).items()
             if why == NORM}  # fmt: skip
    assert names == {"sum", "mean", "squares", "sum of squares", "mean of squares", "square of mean", "variance",
                     "not below 0", "as column", "epsilon", "root", "inverse", "scale"}  # fmt: skip


@pytest.mark.parametrize("square", ["Mul", "Pow"])
def test_a_root_mean_square(square: str) -> None:
    nodes = [
        node("Mul", "x x", "s", "square") if square == "Mul" else node("Pow", "x two", "s", "square"),
        node("ReduceMean", "s", "m", "mean", axes=[1]),
        node("Add", "m eps", "e", "epsilon"),
        node("Pow", "e half", "r", "root"),
        node("Div", "x r", "y", "divide"),
    ]
    assert found(nodes) == dict.fromkeys(["square", "mean", "epsilon", "root", "divide"], NORM)


def test_other_roots_and_means_are_none() -> None:
    nodes = [
        node("ReduceMean", "x", "m", "mean", axes=[1]),
        node("Sqrt", "m", "r", "root of mean"),
        node("Div", "x r", "d", "divide"),
        node("Exp", "d", "e", "power"),
        node("Sqrt", "e", "q", "root of power"),
        node("Div", "d q", "z", "divide again"),
        node("Sqrt", "two", "constant", "root of constant"),
        node("Div", "z constant", "y", "last"),
    ]
    assert found(nodes) == {}


def test_angles_of_positions_follow_from_shapes_and_a_table_of_weights_does_not() -> None:
    nodes = [
        node("Shape", "x", "shape", "shape"),
        node("Gather", "shape zero", "rows", "rows"),
        node("Range", "zero rows one", "places", "places"),
        node("Cast", "places", "p", "as float", to=TensorProto.FLOAT),
        node("Mul", "p half", "angle", "angle"),
        node("Sin", "angle", "wave", "wave"),
        node("Gather", "table places", "row", "look-up"),
        node("MatMul", "row x", "y", "product"),
    ]
    scalars = [numpy_helper.from_array(np.array(number), name) for name, number in (("zero", 0), ("one", 1))]
    assert found(nodes, *scalars, const("table", 512, 8)) == dict.fromkeys(
        ["rows", "places", "as float", "angle", "wave"], SHAPES
    )


def test_running_sums_and_norms_without_a_first_stage_in_fp32() -> None:
    nodes = [
        node("CumSum", "x axis", "a", "run"),
        node("LpNormalization", "a", "b", "unit"),
        node("LayerNormalization", "b g", "c", "norm"),
        node("LayerNormalization", "c g", "y", "low norm", stash_type=10),
    ]
    reasons = found(nodes, const("g", 8), numpy_helper.from_array(np.array(1), "axis"))
    assert reasons == {
        "run": "its sums run on",
        "unit": "its norm is a sum in the type of its input",
        "low norm": "its first stage is not FP32 (stash_type)",
    }
