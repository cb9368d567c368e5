"""NNCF on the ONNX graph."""

from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("nncf")

from tailorbird.builder.quantise.nncf_onnx import quantise
from tailorbird.builder.sources.onnx_file import read_model, signature_of
from tailorbird.domain.errors import BackendError, InputError, TailorbirdError
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.nncf_graphs import attention, files, huge, snr_db, texts
from tests.unit.builder.quantise.onnx_graphs import args, const, convolutions, images, node, numbers

IMAGES = [images(seed) for seed in range(4)]


def test_a_convolutional_net_is_quantised(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "nncf-onnx", IMAGES)
    made = quantise(call)
    assert made.model == "model.onnx"
    assert files(call) == ["model.onnx"]
    found = {unit.name: unit.operator for unit in made.units}
    assert found.items() >= {"first": "Conv", "second": "Conv", "head": "Gemm"}.items()
    assert "BatchNormalization" not in found.values()
    assert signature_of(read_model(Path(call.folder, made.model))) == signature_of(read_model(Path(call.model)))
    assert snr_db(call, images(9), made.model) > 20
    weights = {tensor.data_type for tensor in onnx.load(f"{call.folder}/model.onnx").graph.initializer
               if np.prod(tensor.dims) > 100}  # fmt: skip
    assert weights == {onnx.TensorProto.INT8}


def test_a_transformer_is_told_apart(tmp_path: Path) -> None:
    call = args(attention(), tmp_path, "nncf-onnx", [texts(seed) for seed in range(4)])
    made = quantise(call)
    assert made.notes[0] == "as a transformer: normalisation and sums stay in float"
    assert {"project_q", "project_k", "project_v", "up"} <= {unit.name for unit in made.units}
    assert snr_db(call, texts(9), made.model) > 15


def test_a_cast_of_a_constant_is_no_obstacle(tmp_path: Path) -> None:
    """NNCF 3.4 takes every input of a Cast for a computed value."""
    nodes = [node("Cast", "whole", "real", "cast", to=onnx.TensorProto.FLOAT), node("Mul", "x real", "m", "scale"),
             node("Conv", "m k", "y", "conv")]  # fmt: skip
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 8, 10, 10])],
                 [numbers("whole", 2, dtype=np.int64), const("k", 8, 3, 3, 3)])  # fmt: skip
    call = args(made, tmp_path, "nncf-onnx", IMAGES)
    assert ("conv", "Conv", 216) in [(unit.name, unit.operator, unit.weights) for unit in quantise(call).units]


def test_without_samples_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to calibrate on"):
        quantise(args(convolutions(), tmp_path, "nncf-onnx", []))


def test_the_vendors_refusal_is_ours(tmp_path: Path) -> None:
    samples = [{"x": np.zeros((1, 5, 12, 12), np.float32)}]
    with pytest.raises(BackendError, match="nncf could not quantise the model: got"):
        quantise(args(convolutions(), tmp_path, "nncf-onnx", samples))


def test_scales_that_are_not_finite_are_named(tmp_path: Path) -> None:
    made = convolutions()
    huge(made, "k1")
    with pytest.raises(TailorbirdError, match=r"quantising made '.*' NaN or infinite"):
        quantise(args(made, tmp_path, "nncf-onnx", IMAGES))
