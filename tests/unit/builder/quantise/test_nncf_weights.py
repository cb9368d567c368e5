"""INT8 weights only."""

from pathlib import Path

import pytest

pytest.importorskip("nncf")

from tailorbird.builder.quantise.nncf_weights import quantise
from tailorbird.domain.errors import TailorbirdError
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.nncf_graphs import attention, fakes, files, snr_db, stored, texts, written
from tests.unit.builder.quantise.onnx_graphs import args, convolutions, images, node


def test_weights_are_stored_in_int8_and_nothing_else(tmp_path: Path) -> None:
    call = args(attention(), tmp_path, "weights", [])
    made = quantise(call)
    assert made.model == "model.xml"
    assert files(call) == ["model.bin", "model.xml"]
    assert [unit.name for unit in made.units] == ["project_q", "project_k", "project_v", "up", "y"]
    assert {unit.weights for unit in made.units} == {256, 512}
    assert fakes(written(call)) == stored(written(call), "f32") == []
    assert snr_db(call, texts(9)) > 30


def test_convolutions_too(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "weights", [])
    assert [unit.operator for unit in quantise(call).units] == ["Convolution", "Convolution", "MatMul"]
    assert snr_db(call, images(9)) > 30


def test_a_model_without_weights_is_refused(tmp_path: Path) -> None:
    made = model([node("Relu", "x", "y", "relu")], [value("x", ["n", 3])], [value("y", ["n", 3])])
    with pytest.raises(TailorbirdError, match="nothing to quantise: got no weights of matrix products, convolutions"):
        quantise(args(made, tmp_path, "weights", []))
