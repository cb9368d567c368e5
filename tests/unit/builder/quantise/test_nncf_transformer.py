"""Which models are transformers."""

from typing import Any

import pytest
from onnx import helper

from tailorbird.builder.quantise.nncf_transformer import is_transformer
from tests.unit.builder.graphs import linear, model, value
from tests.unit.builder.quantise.nncf_graphs import attention, norm, norm_weights
from tests.unit.builder.quantise.onnx_graphs import const, convolutions, encoder, node


def graph(*nodes: Any, **changes: Any) -> Any:
    return model(nodes, [value("x", ["n", "t", 16])], [value("y", None)],
                 [const("w", 16, 16), *norm_weights()], **changes)  # fmt: skip


LENGTH = [node("Mul", "x x", "square"), node("ReduceSum", "square", "sum"), node("Sqrt", "sum", "length"),
          node("Div", "x length", "y")]  # fmt: skip
SCALED = [node("MatMul", "x x", "s"), node("Div", "s two", "d"), node("Add", "d two", "m"), node("Softmax", "m", "p"),
          node("Dropout", "p", "o"), node("MatMul", "o x", "y")]  # fmt: skip
MOMENTS = [node("ReduceSum", "x", "mean"), node("Mul", "x x", "xx"), node("ReduceSum", "xx", "msq"),
           node("Mul", "mean mean", "mm"), node("Sub", "msq mm", "v"), node("Max", "v two", "c"),
           node("Reshape", "c two", "r"), node("Add", "r two", "e"), node("Sqrt", "e", "y")]  # fmt: skip


@pytest.mark.parametrize(
    "made",
    [
        attention(),
        encoder(),
        graph(*norm("x", "y")),
        graph(*MOMENTS),
        graph(*SCALED),
        graph(node("LayerNormalization", "x w", "y")),
        graph(helper.make_node("Attention", ["x", "w", "w"], ["y"], domain="com.microsoft")),
    ],
    ids=["attention", "encoder", "norm in parts", "by moments", "scaled", "whole norm", "fused"],
)
def test_a_transformer(made: Any) -> None:
    assert is_transformer(made)


@pytest.mark.parametrize(
    "made",
    [
        convolutions(),
        linear(),
        graph(node("MatMul", "x w", "h"), node("Softmax", "h", "y")),
        graph(node("MatMul", "x w", "h"), node("Softmax", "h", "p"), node("MatMul", "p w", "y")),
        graph(*LENGTH),
    ],
    ids=["convolutions", "linear", "classifier", "gate", "scaled to length one"],
)
def test_no_transformer(made: Any) -> None:
    assert not is_transformer(made)
