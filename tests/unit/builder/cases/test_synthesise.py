"""Synthetic inputs: seeded, and inside what the graph can take."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tailorbird.builder.cases.synthesise import index_limits, synthesise
from tailorbird.domain.dtype import DType
from tailorbird.domain.signature import Signature, TensorSpec
from tests.unit.builder.graphs import model, value, weight


def signature(dtype: DType, rank: int = 2) -> Signature:
    return Signature((TensorSpec("x", dtype, tuple("NABCD"[:rank])),), ())


def drawn(dtype: DType, shape: tuple[int, ...], limits: dict[str, int] | None = None, seed: int = 0) -> np.ndarray:
    return synthesise(signature(dtype, len(shape)), {"x": shape}, limits or {}, seed)["x"]


@pytest.mark.parametrize("dtype", list(DType))
def test_every_type_is_drawn_in_its_own_form(dtype: DType) -> None:
    found = drawn(dtype, (4, 5))
    assert (found.dtype, found.shape) == (dtype.numpy, (4, 5))


@pytest.mark.parametrize("dtype", list(DType))
def test_the_same_seed_gives_the_same_arrays(dtype: DType) -> None:
    np.testing.assert_array_equal(drawn(dtype, (4, 5), seed=3), drawn(dtype, (4, 5), seed=3))
    assert not np.array_equal(drawn(dtype, (9, 9), seed=3), drawn(dtype, (9, 9), seed=4))


def test_floats_are_standard_normal() -> None:
    found = drawn(DType.FP32, (100, 100))
    assert abs(found.mean()) < 0.05
    assert abs(found.std() - 1) < 0.05


def test_brain_floats_are_bit_patterns_of_the_same_numbers() -> None:
    found = (drawn(DType.BF16, (100, 100)).astype(np.uint32) << 16).view(np.float32)
    assert abs(found.std() - 1) < 0.05


@pytest.mark.parametrize("dtype", [DType.INT32, DType.INT64, DType.BOOL, DType.UINT8])
def test_masks_are_zero_or_one(dtype: DType) -> None:
    assert set(drawn(dtype, (20, 20)).ravel().tolist()) == {0, 1}


def test_pictures_take_every_byte() -> None:
    found = drawn(DType.UINT8, (1, 3, 64, 64))
    assert (found.min(), found.max()) == (0, 255)


def test_indices_stay_inside_their_table() -> None:
    found = drawn(DType.INT64, (50, 50), {"x": 7})
    assert (found.min(), found.max()) == (0, 6)


def test_indices_that_come_as_floats_are_whole_and_inside() -> None:
    found = drawn(DType.FP32, (50, 50), {"x": 7})
    assert set(found.ravel().tolist()) == set(range(7))


@pytest.mark.parametrize(
    ("nodes", "limit"),
    [
        ([("Gather", "table x", {})], 11),
        ([("Gather", "table x", {"axis": 1})], 4),
        ([("Cast", "x", {"to": TensorProto.INT32}), ("Unsqueeze", "0 zero", {}), ("Gather", "table 1", {})], 11),
        ([("Gather", "table x", {}), ("Gather", "small x", {})], 3),
        ([("Identity", "x", {}), ("Gather", "small 0", {}), ("Gather", "table x", {})], 3),
        ([("Add", "x zero", {}), ("Gather", "table 0", {})], None),
        ([("Gather", "x zero", {})], None),
        ([("OneHot", "x depth pair", {})], None),
    ],
)
def test_the_smallest_table_that_an_input_indexes_is_its_limit(
    nodes: list[tuple[str, str, dict[str, int]]], limit: int | None
) -> None:
    made = [
        helper.make_node(kind, inputs.split(), [str(number)], **attributes)
        for number, (kind, inputs, attributes) in enumerate(nodes)
    ]
    weights = [weight("table", 11, 4), weight("small", 3, 4), weight("zero", 1, dtype=np.int64)]
    graph = model(made, [value("x", ["N"], TensorProto.INT64)], [value(str(len(nodes) - 1), None)], weights)
    assert index_limits(graph) == ({} if limit is None else {"x": limit})
