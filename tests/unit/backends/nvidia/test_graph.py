"""Graphs that are right by ONNX's rules and refused by the builder, and what is done about them."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tailorbird.backends.nvidia.graph import fitted
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import BackendError
from tailorbird.domain.profile import Profile
from tests.contract import models
from tests.contract.models import Case


def renamed(case: Case, names: tuple[str, ...]) -> Case:
    for value in (*case.model.graph.input, *case.model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name:
                dim.dim_param = name
    return case


def names_of(content: bytes) -> dict[str, list[str]]:
    graph = onnx.load_from_string(content).graph
    return {value.name: [dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in graph.input}


def test_a_graph_that_fits_is_left_alone(tmp_path: Path) -> None:
    case = models.dense()
    model = case.write(tmp_path)
    found = fitted(model, (case.profile,))
    assert (found.path, found.content) == (model, None)


def test_dims_of_one_name_that_differ_are_parted(tmp_path: Path) -> None:
    case = renamed(models.convolution(), ("rows", "", "?", "?"))
    profile = Profile(min={"image": (1, 3, 6, 5)}, opt={"image": (1, 3, 6, 5)}, max={"image": (4, 3, 8, 9)})
    found = fitted(case.write(tmp_path), (profile,))
    assert found.content is not None
    assert names_of(found.content) == {"image": ["rows", "", "image_2", "image_3"]}
    output = onnx.load_from_string(found.content).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in output] == ["rows", "", "", ""]


def test_dims_of_one_name_that_are_one_stay_one(tmp_path: Path) -> None:
    case = renamed(models.convolution(), ("rows", "", "side", "side"))
    square = Profile(min={"image": (1, 3, 6, 6)}, opt={"image": (1, 3, 6, 6)}, max={"image": (4, 3, 8, 8)})
    assert fitted(case.write(tmp_path), (square,)).content is None


def test_weights_beside_the_file_are_not_read(tmp_path: Path) -> None:
    case, model = models.dense(), tmp_path / "outside.onnx"
    onnx.save_model(case.model, model, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()
    assert fitted(model, (case.profile,)).content is None


def test_a_type_that_would_be_another_one_is_refused(tmp_path: Path) -> None:
    """The parser takes FP64, and makes FP32 of it."""
    case = models.same(DType.FP64, np.ones(4))
    with pytest.raises(BackendError) as refused:
        fitted(case.write(tmp_path), (case.profile,))
    assert refused.value.message == (
        "'x' has a type that the runtime does not take: got FP64, expected FP32, FP16, BF16, INT8, INT32, INT64, "
        "UINT8, BOOL\nHint: use another runtime"
    )
