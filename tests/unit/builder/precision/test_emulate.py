"""The emulation rounds every low value, and rounds it as numpy does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from tailorbird.builder.precision.emulate import emulated, emulation
from tailorbird.builder.precision.formats import FORMATS
from tailorbird.domain.precision import Precision
from tests.unit.builder.graphs import model, value
from tests.unit.builder.precision.casts import lowered
from tests.unit.builder.quantise.onnx_graphs import node, normal, numbers, run


def chain() -> onnx.ModelProto:
    """Y = (x * third + one) - one: every step rounds, and the last shows it."""
    nodes = [node("Mul", "x third", "a", "mul"), node("Add", "a one", "b", "add"), node("Sub", "b one", "y", "sub")]
    weights = [numbers("third", 1 / 3), numbers("one", 1.0)]
    return model(nodes, [value("x", [64])], [value("y", [64])], weights)


def by_hand(x: Any, precision: Precision) -> Any:
    def low(array: Any) -> Any:
        return FORMATS[precision].rounded(array).astype(np.float32)

    third, one = low(np.float32(1 / 3)), np.float32(1)
    return low(low(low(low(x) * third) + one) - one)


def low_everywhere(folder: Path, precision: Precision) -> onnx.ModelProto:
    found, written = lowered(chain(), folder, precision, [])
    assert found.kept == ()
    return written


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_every_low_value_is_rounded_to_the_bit(precision: Precision, level: str, tmp_path: Path) -> None:
    x = normal("x", 64).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    data = emulation(low_everywhere(tmp_path, precision)).SerializeToString()
    (got,) = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_array_equal(got, by_hand(x, precision))


def test_a_file_is_emulated_where_it_has_low_values(tmp_path: Path) -> None:
    x = normal("x", 64).astype(np.float32)
    low_everywhere(tmp_path, Precision.BF16)
    (path,) = tmp_path.glob("out-*/model.onnx")
    (got,) = run(emulated(path, tmp_path), {"x": x})
    np.testing.assert_array_equal(got, by_hand(x, Precision.BF16))
    (source,) = tmp_path.glob("out-*.onnx")
    assert emulated(source, tmp_path) == source


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16])
def test_onnx_itself_comes_to_the_same(precision: Precision, tmp_path: Path) -> None:
    """ONNX's evaluator computes in the low types themselves, with numpy."""
    x = normal("x", 64).astype(np.float32)
    (got,) = ReferenceEvaluator(low_everywhere(tmp_path, precision)).run(None, {"x": x})
    np.testing.assert_array_equal(got, by_hand(x, precision))


def test_the_runtime_itself_does_not_round_in_the_middle(tmp_path: Path) -> None:
    """Why there is an emulation: should this fail one day, ONNX Runtime's CPU may be asked directly."""
    x = normal("x", 64).astype(np.float32)
    low_everywhere(tmp_path, Precision.FP16)
    (path,) = tmp_path.glob("out-*/model.onnx")
    (got,) = run(path, {"x": x})
    assert not np.array_equal(got, by_hand(x, Precision.FP16))
