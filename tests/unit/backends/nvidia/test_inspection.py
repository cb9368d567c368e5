"""The inspector's answers of three versions, as layers."""

import json

import pytest

from tailorbird.backends.nvidia.inspection import layers_of, planned, timed
from tailorbird.domain.errors import BackendError
from tailorbird.domain.layers import Layer


def told(*layers: object) -> str:
    return json.dumps({"Layers": layers, "Bindings": ["x", "y"]})


def layer(inputs: str, outputs: str = "Float", key: str = "Datatype", **more: object) -> dict[str, object]:
    tensors = [{"Name": "t", key: word} for word in inputs.split(", ")]
    return {"Name": "one", "LayerType": "gemm", "Inputs": tensors, "Outputs": [{"Name": "o", key: outputs}], **more}


@pytest.mark.parametrize(
    ("key", "word", "precision"),
    [
        ("Datatype", "Float", "fp32"),
        ("Datatype", "Half", "fp16"),
        ("Datatype", "BFloat16", "bf16"),
        ("Datatype", "Int8", "int8"),
        ("Datatype", "FP8", "fp8"),
        ("Datatype", "Int64", "int64"),
        ("Datatype", "Bool", "bool"),
        ("Datatype", "UInt8", "uint8"),
        ("Format/Datatype", "Row major linear FP32 format", "fp32"),
        ("Format/Datatype", "Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Format/Datatype", "Row major linear BF16 format", "bf16"),
        ("Format/Datatype", "Thirty-two wide channel vectorized row major Int8 format", "int8"),
    ],
)
def test_a_layer_runs_in_the_type_that_it_reads(key: str, word: str, precision: str) -> None:
    (found,) = layers_of(told(layer(word, "Float", key)))
    assert found.precision == precision


def kind_of(inputs: str, outputs: str = "Float", **more: object) -> str:
    return layers_of(told(layer(inputs, outputs, **more)))[0].precision  # type: ignore[arg-type]


def test_the_boldest_float_read_is_what_is_computed_in() -> None:
    assert kind_of("Int64, Half") == "fp16"  # a table looked up
    assert kind_of("Float, Half") == "fp16"


INT8_WEIGHT = [{"Name": "w", "Datatype": "Int8"}, {"Name": "alpha", "Datatype": "Float"}]


def test_eight_bits_count_where_they_are_multiplied() -> None:
    for kind in ("gemm", "correlation", "CaskConvolution", "MatrixMultiply"):
        assert kind_of("Int8", Constants=INT8_WEIGHT, LayerType=kind) == "int8"
    assert kind_of("Int8", Weights={"Type": "Int8", "Count": 9}, LayerType="CaskConvolution") == "int8"
    assert kind_of("FP8, FP8, FP8", "Half", LayerType="kgen", Name="_gemm_mha_v2_myl0_7") == "fp8"


def test_eight_bits_that_are_stored_moved_or_added_are_not_computed_in() -> None:
    assert kind_of("Half", "Half", Constants=INT8_WEIGHT) == "fp16"  # weights alone, widened on their way
    assert kind_of("Float, Int8", "Int8", LayerType="kgen", Name="__myl_CastMulMulAddAddRounCast") == "fp32"
    assert kind_of("Int8", "Half", LayerType="kgen", Name="__myl_CastMul") == "fp16"  # widened
    assert kind_of("Int8", "Int8", LayerType="kgen", Name="__myl_MoveReshTran") == "uint8"
    assert kind_of("Int8", "Half", LayerType="kgen", Name="/conv1/DequantizeLinear_myl0_3") == "fp16"
    assert kind_of("Int8", "Half", LayerType="Convert") == "fp16"


def test_what_reads_nothing_is_told_by_what_it_gives() -> None:
    assert layers_of(told({"Name": "c", "LayerType": "constant", "Outputs": [{"Datatype": "Half"}]}))[0] == Layer(
        "c", "constant", "fp16", 0.0
    )
    assert layers_of(told({"Name": "s", "LayerType": "shape_call"}))[0] == Layer("s", "shape_call", "int64", 0.0)


def test_nodes_of_the_graph_are_in_the_metadata() -> None:
    metadata = "[ONNX Layer: mm]\x1e[ONNX Layer: act [0]]\x1f[ONNX Layer: mm]"
    assert layers_of(told(layer("Half", Metadata=metadata)))[0].nodes == ("mm", "act [0]")
    assert layers_of(told(layer("Half")))[0].nodes == ()


def test_an_engine_without_details_says_what_to_do() -> None:
    with pytest.raises(BackendError) as refused:
        layers_of(told("conv1", "conv2"))
    assert refused.value.message == (
        "the engine tells only the names of its layers\nHint: build it again with Tailorbird"
    )


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Layers": 3}'])
def test_an_answer_of_another_kind_is_an_error(text: str) -> None:
    with pytest.raises(BackendError, match=r"^the engine inspector's answer cannot be read"):
        layers_of(text)


def test_times_are_medians_in_the_order_layers_ran() -> None:
    layers = layers_of(told(layer("Half")))
    assert timed(layers, {"copy": [1.0], "one": [3.0, 1.0, 2.0]}) == (
        Layer("copy", "unknown", "", 1.0),
        Layer("one", "gemm", "fp16", 2.0),
    )


LOGGED = (
    "Layers:\n"
    "Name: shapes, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0\n"
    "Name: cast, LayerType: kgen, Inputs: [ { Name: x, Datatype: Float, Format: (Linear) Row major }], Constants: [], "
    "Outputs: [ { Name: h, Datatype: Half, Format: (NHWC) Channel major }], TacticName: a\n"
    "Name: conv, LayerType: correlation, Inputs: [ { Name: h, Dimensions: [-1,4], Datatype: Int8, Format: (NHWC) }], "
    "Constants: [ { Name: w, Datatype: Int8 }, { Name: alpha, Datatype: Float }], Outputs: [ { Datatype: Float }]\n"
    "\n"
    "I/O Tensors:\n Name: x, IOMode: Input, DataType: Float, Dimensions: [-1,16]\n"
)
"""As TensorRT-RTX 1.7 logs it, shortened."""


def test_the_builders_log_says_what_was_planned() -> None:
    assert planned(LOGGED) == {"fp32": 1, "int8": 1}
    widened = LOGGED.replace(
        "Datatype: Int8, Format: (NHWC) }], Constants", "Datatype: Half, Format: (NHWC) }], Constants"
    )
    assert planned(widened) == {"fp32": 1, "fp16": 1}
    assert planned("") == {}
