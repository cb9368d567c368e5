"""The look at nodes at work: what it measures, on numbers known beforehand."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tailorbird.builder.cases.data import save_set
from tailorbird.builder.precision.formats import FORMATS
from tailorbird.builder.precision.look import Look, Seen
from tailorbird.builder.precision.slots import float_values, slots_of
from tailorbird.domain.fidelity import snr_db
from tailorbird.domain.precision import Precision
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import node, normal, numbers

BF16 = FORMATS[Precision.BF16]


def look(made: onnx.ModelProto, folder: Path, *samples: dict[str, Any], kept: tuple[str, ...] = ()) -> Seen:
    files = [folder / f"{index}.npz" for index in range(len(samples))]
    for file, sample in zip(files, samples, strict=True):
        save_set(file, sample)
    slots = slots_of(made, float_values(made), BF16)
    return Look(made, slots, dict.fromkeys(kept, "told to"), BF16).run(tuple(map(str, files)), folder, 1)


def typed(nodes: list[Any], *weights: Any, out: Any = None) -> onnx.ModelProto:
    made = model(nodes, [value("x", ["n", 16])], [value("y", out)], weights)
    return onnx.shape_inference.infer_shapes(made)


def low(array: Any) -> Any:
    return BF16.rounded(array).astype(np.float32)


def test_noise_is_that_of_rounded_inputs_and_outputs_over_all_samples(tmp_path: Path) -> None:
    made = typed([node("Mul", "x third", "y", "third of it")], numbers("third", 1 / 3))
    samples = [normal(name, (rows, 16)).astype(np.float32) for name, rows in (("a", 2), ("b", 5))]
    seen = look(made, tmp_path, *({"x": sample} for sample in samples))
    x = np.concatenate(samples)
    expected = snr_db(x * np.float32(1 / 3), low(low(x) * low(np.float32(1 / 3))))
    assert seen.snr_db("y") == pytest.approx(expected, abs=0.01)


def test_noise_is_handed_on_to_the_next_product_and_not_beyond(tmp_path: Path) -> None:
    """1 is added and taken away again: what is left of x has its rounding error, until a product starts anew."""
    eye = np.eye(16, dtype=np.float32)
    nodes = [
        node("Add", "x one", "a", "add"),
        node("Sub", "a one", "s", "sub"),
        node("MatMul", "s eye", "m", "product"),
        node("Neg", "m", "y", "neg"),
    ]
    made = typed(nodes, numbers("one", 1.0), onnx.numpy_helper.from_array(eye, "eye"))
    x = normal("x", (8, 16)).astype(np.float32) * np.float32(0.01)
    seen = look(made, tmp_path, {"x": x})
    by_hand = low(low(low(x) + 1) - 1)
    assert seen.snr_db("s") == pytest.approx(snr_db(x, by_hand), abs=0.5)
    assert seen.snr_db("s") < 20
    assert (seen.snr_db("y") or 0) > 45
    kept = look(made, tmp_path, {"x": x}, kept=("add", "sub"))
    assert (kept.snr_db("s") or 0) > 100


def test_sums_are_told_with_all_terms_positive(tmp_path: Path) -> None:
    x = np.tile(np.array([3.0, -3.0], np.float32), (2, 8))
    for kind, expected in (("ReduceMean", 48.0), ("ReduceL2", 16 * 9.0), ("ReduceSumSquare", 16 * 9.0)):
        made = typed([node(kind, "x", "y", "reduce", axes=[1])])
        seen = look(made, tmp_path, {"x": x})
        assert seen.largest_sum(made.graph.node[0]) == pytest.approx(expected, rel=1e-5)
    made = typed([node("Relu", "x", "y", "relu")])
    assert look(made, tmp_path, {"x": x}).largest_sum(made.graph.node[0]) == 0.0


def test_whole_numbers_that_are_not_there_are_noticed(tmp_path: Path) -> None:
    made = typed([node("Floor", "x", "y", "floor")])
    for peak, lost in ((256.0, False), (257.0, True)):
        assert look(made, tmp_path, {"x": np.full((1, 16), peak, np.float32)}).loses_whole("y") is lost
    assert not look(made, tmp_path, {"x": np.full((1, 16), 0.5, np.float32)}).loses_whole("y")


def test_what_is_infinite_has_no_ratio(tmp_path: Path) -> None:
    made = typed([node("Reciprocal", "x", "y", "inverse")])
    assert look(made, tmp_path, {"x": np.zeros((1, 16), np.float32)}).snr_db("y") is None
