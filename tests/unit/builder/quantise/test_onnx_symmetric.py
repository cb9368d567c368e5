"""Q/DQ as TensorRT takes them: symmetric, biases in float, pairs where kernels fuse."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.quantise import onnx_bias
from tailorbird.builder.quantise.methods import Unit, method
from tailorbird.builder.quantise.onnx_ranges import load
from tailorbird.builder.quantise.onnx_symmetric import quantise
from tailorbird.builder.sources.onnx_file import read_model, signature_of
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.precision import Precision
from tailorbird.domain.quantisation import Ranges
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import args, const, convolutions, encoder, images, node, run, words

METHODS = pytest.mark.parametrize("method", ["qdq-symmetric", "qdq-fp8"])
IMAGES = [images(seed) for seed in range(4)]
WORDS = [words(seed, 3 + seed) for seed in range(4)]
TYPES = {"qdq-symmetric": TensorProto.INT8, "qdq-fp8": TensorProto.FLOAT8E4M3FN}


def plainly(path: Path | str, inputs: dict[str, Any]) -> list[Any]:
    """Outputs with the graph as it is written: one of ONNX Runtime's optimisers fails on FP8."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return list(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, inputs))


def snr_db(call: Any, inputs: dict[str, Any]) -> float:
    (true,), (got,) = run(call.model, inputs), plainly(f"{call.folder}/model.onnx", inputs)
    return float(10 * np.log10(np.sum(true**2.0) / np.sum((true - got) ** 2.0)))


def written(call: Any) -> onnx.ModelProto:
    found = read_model(Path(call.folder) / "model.onnx")
    onnx.checker.check_model(found, full_check=True)
    return found


def sources(made: onnx.ModelProto, kind: str) -> list[list[str]]:
    """What gives the inputs of each node of a kind: an operator, a constant, or an input."""
    makers = {name: one.op_type for one in made.graph.node for name in one.output}
    weights = {tensor.name for tensor in made.graph.initializer}
    return [[makers.get(name, "constant" if name in weights else "input") for name in one.input]
            for one in made.graph.node if one.op_type == kind]  # fmt: skip


@METHODS
@pytest.mark.parametrize("ranges", list(Ranges))
def test_a_convolutional_net_is_quantised(method: str, ranges: Ranges, tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, method, IMAGES, ranges=ranges)
    found = quantise(call)
    assert found.units == (Unit("first", "Conv", 224), Unit("second", "Conv", 576), Unit("head", "MatMul", 32))
    assert snr_db(call, images(9)) > {"qdq-symmetric": 28, "qdq-fp8": 20}[method]
    assert signature_of(written(call)) == signature_of(read_model(Path(call.model)))


@METHODS
def test_everything_is_symmetric_and_of_one_type(method: str, tmp_path: Path) -> None:
    """No UINT8, no zero point but 0, no INT32: TensorRT refuses a bias with a DequantizeLinear."""
    call = args(convolutions(), tmp_path, method, IMAGES)
    quantise(call)
    made = written(call)
    known = {tensor.name: tensor for tensor in made.graph.initializer}
    pairs = [one for one in made.graph.node if one.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [known[one.input[2]] for one in pairs]
    assert {tensor.data_type for tensor in zeros} == {TYPES[method]}
    assert not any(numpy_helper.to_array(tensor).astype(np.float32).any() for tensor in zeros)
    assert TensorProto.INT32 not in {tensor.data_type for tensor in known.values()}
    assert {name for inputs in sources(made, "Conv") for name in inputs[2:]} == {"constant"}


@METHODS
def test_names_that_the_graph_has_already_stay_its_own(method: str, tmp_path: Path) -> None:
    """As an instance norm's ``x_scale``, which is no scale of a pair."""
    nodes = [node("Conv", "x k", "c", "conv"), node("Mul", "c x_scale", "m"), node("Add", "m k_zero_point", "y")]
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 8, 10, 10])],
                 [const("k", 8, 3, 3, 3), const("x_scale", 8, 1, 1), const("k_zero_point", 8, 1, 1)])  # fmt: skip
    call = args(made, tmp_path, method, IMAGES)
    quantise(call)
    names = [tensor.name for tensor in written(call).graph.initializer]
    assert len(names) == len(set(names))
    assert snr_db(call, images(9)) > {"qdq-symmetric": 28, "qdq-fp8": 20}[method]


def test_int8_weights_have_a_scale_for_each_channel(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "qdq-symmetric", IMAGES)
    quantise(call)
    made = written(call)
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    found = {one.input[0]: (list(known[one.input[1]].shape), one.attribute[0].i) for one in made.graph.node
             if one.op_type == "DequantizeLinear" and one.input[0] in known}  # fmt: skip
    assert found == {"ConvBnFusion_W_k1_quantized": ([8], 0), "k2_quantized": ([8], 0), "w_quantized": ([4], 1)}
    restored = known["k2_quantized"] * known["k2_scale"].reshape(8, 1, 1, 1)
    original = numpy_helper.to_array(next(one for one in convolutions().graph.initializer if one.name == "k2"))
    assert (np.abs(restored - original) <= known["k2_scale"].reshape(8, 1, 1, 1) / 2).all()


def test_fp8_weights_have_one_scale_and_the_opset_that_knows_them(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "qdq-fp8", IMAGES)
    quantise(call)
    made = written(call)
    assert made.opset_import[0].version == 19
    (scale,) = [one for one in made.graph.initializer if one.name == "k2_scale"]
    assert list(scale.dims) == []
    assert method("qdq-fp8").precision is Precision.FP8
    assert method("qdq-symmetric").precision is Precision.INT8


def test_biases_make_up_for_the_mean_of_what_rounding_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One convolution has a bias, the other gets one; inputs far from 0 make the error a shift."""

    def mean_error() -> float:
        call = args(made, tmp_path, "qdq-symmetric", samples)
        quantise(call)
        (true,), (got,) = run(call.model, samples[0]), plainly(f"{call.folder}/model.onnx", samples[0])
        return float(np.abs((true - got).mean((0, 2, 3))).max())

    nodes = [node("Conv", "x k b", "a", "with"), node("Relu", "a", "r"), node("Conv", "r k2", "y", "without")]
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 8, 8, 8])],
                 [const("k", 8, 3, 3, 3), const("b", 8), const("k2", 8, 8, 3, 3)])  # fmt: skip
    samples = [{"x": images(seed)["x"] * np.float32(0.2) + 3} for seed in range(3)]
    corrected = mean_error()
    monkeypatch.setattr(onnx_bias, "shift_of", lambda error, *_: np.zeros(len(error)))
    assert corrected < mean_error() / 2


def test_a_residual_is_quantised_and_what_is_fused_with_the_sum_is_not(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "qdq-symmetric", IMAGES)
    quantise(call)
    made = written(call)
    (added,) = [inputs for inputs in sources(made, "Add") if "constant" not in inputs]
    assert sorted(added) == ["Conv", "DequantizeLinear"]
    assert sources(made, "QuantizeLinear")[1][0] == "Clip"
    assert Counter(one.op_type for one in made.graph.node)["QuantizeLinear"] == 3, "one for each value"


def test_a_sum_of_two_quantised_values_has_both(tmp_path: Path) -> None:
    """Neither comes from a convolution directly, and both are there in INT8 anyway."""
    nodes = [
        node("Conv", "x k1", "a", "first", pads=[1, 1, 1, 1]),
        node("Relu", "a", "ra"),
        node("Conv", "ra k2", "b", "second", pads=[1, 1, 1, 1]),
        node("Relu", "b", "rb"),
        node("Add", "ra rb", "s", "sum"),
        node("Conv", "s k3", "c", "third"),
        node("Conv", "rb k4", "d", "fourth"),
        node("Add", "c d", "y", "last"),
    ]
    weights = [const("k1", 4, 3, 3, 3), const("k2", 4, 4, 3, 3), const("k3", 4, 4, 1, 1), const("k4", 4, 4, 1, 1)]
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 4, 12, 12])], weights)
    call = args(made, tmp_path, "qdq-symmetric", IMAGES)
    quantise(call)
    first, last = sources(written(call), "Add")
    assert first == ["DequantizeLinear", "DequantizeLinear"]
    assert sorted(last) == ["Conv", "DequantizeLinear"], "of two convolutions one is fused with the sum"
    assert snr_db(call, images(9)) > 25


def test_a_transformer_keeps_its_table_mask_and_softmax(tmp_path: Path) -> None:
    call = args(encoder(), tmp_path, "qdq-symmetric", WORDS)
    found = quantise(call)
    assert [unit.name for unit in found.units] == ["project", "tied"]
    made = written(call)
    table = next(one for one in made.graph.node if one.op_type == "Gather")
    assert table.input[0] == "table"
    assert sources(made, "Softmax") == [["Where"]]


def test_scales_hold_the_range_and_stand_in_both_low_formats(tmp_path: Path) -> None:
    """A rest in FP16 or BF16 takes them over: what is rounded once more would be off everywhere."""
    call = args(convolutions(), tmp_path, "qdq-symmetric", IMAGES)
    quantise(call)
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in written(call).graph.initializer}
    found = load(Path(call.folder)).ranges
    for name in ("x", "r1", "f"):
        peak = max(map(abs, found[name]))
        assert peak <= 127 * float(known[f"{name}_scale"]) <= 1.01 * peak
    for name, scale in known.items():
        if name.endswith("_scale"):
            bits, _ = np.frexp(scale)
            np.testing.assert_array_equal(bits * 256, np.round(bits * 256))


@METHODS
def test_units_can_be_kept_in_float(method: str, tmp_path: Path) -> None:
    base = args(convolutions(), tmp_path, method, IMAGES)
    quantise(base)
    call = args(convolutions(), tmp_path, method, [], base=base.folder, kept=("second",))
    found = quantise(call)
    assert [unit.name for unit in found.units] == ["first", "head"]
    convs = sources(written(call), "Conv")
    assert convs[0][:2] == ["DequantizeLinear", "DequantizeLinear"]
    assert convs[1][:2] == ["Clip", "constant"]
    everything = args(convolutions(), tmp_path, method, [], base=base.folder, kept=("first", "second", "head"))
    assert quantise(everything).units == ()
    assert not sources(written(everything), "QuantizeLinear")


def test_a_gemm_whose_weight_is_turned_round(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "head", transB=1)]
    weights = [const("w", 4, 8), const("b", 4)]
    made = model(nodes, [value("x", ["n", 8])], [value("y", ["n", 4])], weights)
    rng = np.random.default_rng(0)
    call = args(made, tmp_path, "qdq-symmetric", [{"x": rng.standard_normal((64, 8)).astype(np.float32)}])
    quantise(call)
    (weight,) = [one for one in written(call).graph.node if one.name == "w_dequantized_DequantizeLinear"]
    assert weight.attribute[0].i == 0
    assert snr_db(call, {"x": rng.standard_normal((16, 8)).astype(np.float32)}) > 30


def test_channels_of_zeros_are_no_fault(tmp_path: Path) -> None:
    made = convolutions()
    kernel = next(one for one in made.graph.initializer if one.name == "k2")
    array = numpy_helper.to_array(kernel).copy()
    array[0] = 0
    kernel.CopyFrom(numpy_helper.from_array(array, "k2"))
    call = args(made, tmp_path, "qdq-symmetric", IMAGES)
    quantise(call)
    assert snr_db(call, images(9)) > 25


def test_channels_of_nearly_nothing_have_scales_that_half_knows(tmp_path: Path) -> None:
    """A pruned channel: 1e-9 / 127 would be 0 in FP16, and TensorRT wants positive scales."""
    made = convolutions()
    kernel = next(one for one in made.graph.initializer if one.name == "k2")
    array = numpy_helper.to_array(kernel).copy()
    array[0], array[1] = 1e-9, array[1] * 1e-4
    kernel.CopyFrom(numpy_helper.from_array(array, "k2"))
    call = args(made, tmp_path, "qdq-symmetric", IMAGES)
    quantise(call)
    (scale,) = [numpy_helper.to_array(one) for one in written(call).graph.initializer if one.name == "k2_scale"]
    np.testing.assert_array_equal(scale, scale.astype(np.float16))
    assert scale.min() == 2.0**-24
    assert (127 * scale >= np.abs(array).max(axis=(1, 2, 3))).all()


def test_what_has_no_finite_range_stays_in_float(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x k1", "a", "first"),
        node("Div", "a zero", "b", "divide"),
        node("Conv", "b k2", "c", "second"),
        node("Where", "no c a", "y", "choose"),
    ]
    weights = [const("k1", 4, 3, 1, 1), const("k2", 4, 4, 1, 1), numpy_helper.from_array(np.float32(0), "zero"),
               numpy_helper.from_array(np.array(False), "no")]  # fmt: skip
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 4, 12, 12])], weights)
    found = quantise(args(made, tmp_path, "qdq-symmetric", IMAGES))
    assert [unit.name for unit in found.units] == ["first"]
    assert found.notes == ("'b' stays in float: it has no finite range",)


def test_nothing_to_quantise_is_said(tmp_path: Path) -> None:
    made = model([node("Relu", "x", "y")], [value("x", ["n", 3])], [value("y", ["n", 3])])
    with pytest.raises(TailorbirdError, match="nothing to quantise: got no Conv, MatMul or Gemm"):
        quantise(args(made, tmp_path, "qdq-symmetric", [{"x": np.ones((2, 3), np.float32)}]))


def test_it_needs_data(tmp_path: Path) -> None:
    with pytest.raises(TailorbirdError, match="calibration needs data"):
        quantise(args(convolutions(), tmp_path, "qdq-symmetric", []))
