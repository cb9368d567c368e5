"""Static INT8 by ONNX Runtime's quantiser: what becomes INT8, what stays, and how near the answers are."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("onnxruntime")

from tailorbird.builder.quantise import onnx_graph, onnx_static
from tailorbird.builder.quantise.methods import Unit
from tailorbird.builder.quantise.onnx_static import quantise
from tailorbird.builder.sources.onnx_file import read_model, signature_of
from tailorbird.domain.errors import BackendError, TailorbirdError
from tailorbird.domain.quantisation import Ranges
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import (
    args,
    const,
    convolutions,
    encoder,
    images,
    node,
    numbers,
    run,
    snr_db,
    words,
)

BOTH = pytest.mark.parametrize("method", ["qdq", "qoperator"])
IMAGES = [images(seed) for seed in range(4)]
WORDS = [words(seed, 3 + seed) for seed in range(4)]


def kinds(folder: str) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(f"{folder}/model.onnx").graph.node)


@BOTH
@pytest.mark.parametrize("ranges", list(Ranges))
def test_a_convolutional_net_is_quantised(method: str, ranges: Ranges, tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, method, IMAGES, ranges=ranges)
    made = quantise(call)
    assert made.units == (Unit("first", "Conv", 224), Unit("second", "Conv", 576), Unit("head", "Gemm", 36))
    assert snr_db(call, images(9)) > 25
    found = read_model(Path(call.folder) / made.model)
    assert signature_of(found) == signature_of(read_model(Path(call.model)))
    onnx.checker.check_model(found)
    assert "BatchNormalization" not in kinds(call.folder)
    assert sorted(path.name for path in Path(call.folder).iterdir()) == ["model.onnx", "ranges.json"]


def test_quantised_operators_are_in_the_graph(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "qoperator", IMAGES)
    quantise(call)
    found = kinds(call.folder)
    assert (found["QLinearConv"], found["QGemm"], found["Conv"], found["Gemm"]) == (2, 1, 0, 0)


def test_pairs_are_around_what_lies_between(tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, "qdq", IMAGES)
    quantise(call)
    found = onnx.load(f"{call.folder}/model.onnx")
    made = {name: node.op_type for node in found.graph.node for name in node.output}
    (added,) = [node for node in found.graph.node if node.op_type == "Add"]
    assert [made[name] for name in added.input] == ["DequantizeLinear"] * 2


@BOTH
def test_weights_are_signed_and_per_channel_and_activations_unsigned(method: str, tmp_path: Path) -> None:
    call = args(convolutions(), tmp_path, method, IMAGES)
    quantise(call)
    known = {tensor.name: tensor for tensor in onnx.load(f"{call.folder}/model.onnx").graph.initializer}
    weights = [tensor for tensor in known.values() if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4]
    assert len(weights) == 2
    for weight in weights:
        scale = known[weight.name.replace("_quantized", "_scale")]
        zero = numpy_helper.to_array(known[weight.name.replace("_quantized", "_zero_point")])
        assert list(scale.dims) == [8]
        assert not zero.any()
        assert np.abs(numpy_helper.to_array(weight)).max() <= (64 if onnx_graph.seven_bits() else 127)
    assert {numpy_helper.to_array(known["x_zero_point"]).dtype} == {np.dtype(np.uint8)}


@BOTH
def test_a_transformer_keeps_its_table_mask_and_softmax(method: str, tmp_path: Path) -> None:
    """Samples of several lengths; the table is also the last product's weight."""
    call = args(encoder(), tmp_path, method, WORDS)
    made = quantise(call)
    assert [unit.name for unit in made.units] == ["project", "tied"]
    assert snr_db(call, words(9, 6)) > 25
    table = next(node for node in onnx.load(f"{call.folder}/model.onnx").graph.node if node.op_type == "Gather")
    assert table.input[0] == "table"


@BOTH
def test_kept_units_stay_float_and_ranges_are_not_found_again(method: str, tmp_path: Path) -> None:
    whole = args(convolutions(), tmp_path, method, IMAGES)
    units = quantise(whole).units
    one = args(convolutions(), tmp_path, method, [], kept=("second",), base=whole.folder)
    assert quantise(one).units == (units[0], units[2])
    assert [path.name for path in Path(one.folder).iterdir()] == ["model.onnx"]
    assert kinds(one.folder)["Conv"] == (2 if method == "qdq" else 1)
    assert snr_db(one, images(9)) > snr_db(whole, images(9)) - 3
    none = args(convolutions(), tmp_path, method, [], kept=tuple(unit.name for unit in units), base=whole.folder)
    assert quantise(none).units == ()
    assert snr_db(none, images(9)) > 60
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(none.folder))


def test_an_unknown_unit_is_an_error(tmp_path: Path) -> None:
    whole = args(convolutions(), tmp_path, "qdq", IMAGES)
    quantise(whole)
    with pytest.raises(TailorbirdError, match=r"^no unit is named 'clip'\nHint: units are listed with the"):
        quantise(args(convolutions(), tmp_path, "qdq", [], kept=("clip",), base=whole.folder))


def test_lost_ranges_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TailorbirdError, match=r"^cannot read the ranges in .*ranges.json: got .*No such file"):
        quantise(args(convolutions(), tmp_path, "qdq", [], kept=("first",), base=str(tmp_path)))


def test_no_samples_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TailorbirdError, match=r"^calibration needs data\nHint: give real inputs with --data$"):
        quantise(args(convolutions(), tmp_path, "qdq", [], ranges=Ranges.MINMAX))


@BOTH
def test_nothing_to_quantise_is_an_error(method: str, tmp_path: Path) -> None:
    plain = model([node("Relu", "x", "y")], [value("x", ["n", 4])], [value("y", ["n", 4])])
    with pytest.raises(TailorbirdError, match=r"^nothing to quantise: got no Conv, MatMul or Gemm with constant"):
        quantise(args(plain, tmp_path, method, [{"x": np.ones((2, 4), np.float32)}]))


def test_the_vendor_s_words_are_kept(tmp_path: Path) -> None:
    wrong = [{"x": np.ones((2, 5), np.float32)}]
    with pytest.raises(BackendError, match=r"^onnxruntime could not quantise the model: got .*invalid dimensions"):
        quantise(args(two_products(), tmp_path, "qdq", wrong))


def two_products(*extra: Any) -> onnx.ModelProto:
    nodes = [node("MatMul", "x w1", "h"), node("MatMul", "h w2", "y"), *extra]
    return model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [const("w1", 4, 4), const("w2", 4, 4)])


def dense(seed: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal((3, 4)).astype(np.float32)}


@BOTH
def test_unnamed_nodes_get_stable_names(method: str, tmp_path: Path) -> None:
    made = quantise(args(two_products(), tmp_path, method, [dense(0)]))
    assert [unit.name for unit in made.units] == ["MatMul_h", "MatMul_y"]


@BOTH
def test_nodes_of_one_name_are_told_apart(method: str, tmp_path: Path) -> None:
    twice = two_products()
    for one in twice.graph.node:
        one.name = "same"
    whole = args(twice, tmp_path, method, [dense(0)])
    assert [unit.name for unit in quantise(whole).units] == ["same", "same__2"]
    rest = quantise(args(twice, tmp_path, method, [], kept=("same",), base=whole.folder))
    assert [unit.name for unit in rest.units] == ["same__2"]


@BOTH
@pytest.mark.parametrize("dims", [(4,), (1, 4), (1, 1, 4)])
def test_a_bias_with_dims_of_one_is_taken(method: str, dims: tuple[int, ...], tmp_path: Path) -> None:
    """The vendor's tool ends with "The truth value of an array with more than one element is ambiguous"."""
    nodes = [node("MatMul", "x w", "h", "product"), node("Add", "h b", "y")]
    shape = ["n", 4] if len(dims) < 3 else [1, "n", 4]
    made = model(nodes, [value("x", ["n", 4])], [value("y", shape)], [const("w", 4, 4), const("b", *dims)])
    call = args(made, tmp_path, method, [dense(seed) for seed in range(4)])
    assert [unit.name for unit in quantise(call).units] == ["product"]
    assert snr_db(call, dense(2)) > 25


@BOTH
@pytest.mark.parametrize(
    ("attributes", "taken"),
    [({}, True), ({"transB": 1}, True), ({"alpha": 0.5}, False), ({"beta": 2.0}, False), ({"transA": 1}, False)],
)
def test_a_gemm_is_quantised_where_its_kernel_exists(
    method: str, attributes: dict[str, Any], taken: bool, tmp_path: Path
) -> None:
    nodes = [node("MatMul", "x w1", "h", "product"), node("Gemm", "h w2 b", "y", "gemm", **attributes)]
    weights = [const("w1", 4, 4), const("w2", 4, 4), const("b", 4)]
    made = model(nodes, [value("x", [4, 4])], [value("y", [4, 4])], weights)
    square = {"x": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)}
    call = args(made, tmp_path, method, [square])
    assert ("gemm" in {unit.name for unit in quantise(call).units}) is taken
    assert snr_db(call, square) > 25


@BOTH
def test_two_products_share_a_weight(method: str, tmp_path: Path) -> None:
    """One reads it transposed, so their scales lie along different axes."""
    nodes = [node("MatMul", "x w", "h", "one"), node("Gemm", "h w b", "y", "two", transB=1)]
    made = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [const("w", 4, 4), const("b", 4)])
    call = args(made, tmp_path, method, [dense(seed) for seed in range(4)])
    assert len(quantise(call).units) == 2
    assert snr_db(call, dense(2)) > 25


@BOTH
def test_what_a_sub_graph_reads_stays_float(method: str, tmp_path: Path) -> None:
    """``If`` with branches that read an inner value and a weight of the main graph."""
    branches = {
        f"{name}_branch": helper.make_graph([node(kind, "h w2", "out")], name, [], [value("out", None)])
        for name, kind in (("then", "MatMul"), ("else", "Add"))
    }
    nodes = [
        node("MatMul", "x w1", "h", "read"),
        node("MatMul", "h w3", "free", "free"),
        node("If", "flag", "chosen", "choice", **branches),
        node("Mul", "chosen free", "y"),
    ]
    inputs = [value("x", [4, 4]), value("flag", [], TensorProto.BOOL)]
    made = model(nodes, inputs, [value("y", [4, 4])], [const("w1", 4, 4), const("w2", 4, 4), const("w3", 4, 4)])
    flags = [np.array(flag) for flag in (True, False)]
    samples = [{"x": RNG.standard_normal((4, 4)).astype(np.float32), "flag": flag} for flag in flags]
    call = args(made, tmp_path, method, samples)
    assert [unit.name for unit in quantise(call).units] == ["free"]
    assert all(snr_db(call, sample) > 25 for sample in samples)


RNG = np.random.default_rng(1)


@BOTH
def test_a_loop_in_the_graph_is_no_obstacle(method: str, tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("MatMul", "carried w2", "next"), node("Identity", "going", "still")],
        "body",
        [value("turn", [], TensorProto.INT64), value("going", [], TensorProto.BOOL), value("carried", [3, 4])],
        [value("still", [], TensorProto.BOOL), value("next", [3, 4])],
    )
    nodes = [node("MatMul", "x w1", "h", "product"), node("Loop", "turns yes h", "y", "loop", body=body)]
    weights = [const("w1", 4, 4), const("w2", 4, 4), numpy_helper.from_array(np.array(2), "turns")]
    weights.append(numpy_helper.from_array(np.array(True), "yes"))
    call = args(model(nodes, [value("x", [3, 4])], [value("y", [3, 4])], weights), tmp_path, method, [dense(0)])
    assert [unit.name for unit in quantise(call).units] == ["product"]
    assert snr_db(call, dense(0)) > 25


@BOTH
@pytest.mark.parametrize("low", [-1.0, 1.0])
def test_a_clip_is_not_lost(method: str, low: float, tmp_path: Path) -> None:
    """The tool replaces a Clip by the range of its output, and every range is made to hold 0."""
    nodes = [node("Conv", "x k1", "c"), node("Clip", "c low high", "l"), node("Conv", "l k2", "y")]
    limits = [numpy_helper.from_array(np.array(limit, np.float32), name) for name, limit in (("low", low), ("high", 2))]
    made = model(
        nodes,
        [value("x", ["n", 3, 12, 12])],
        [value("y", None)],
        [const("k1", 4, 3, 1, 1), const("k2", 4, 4, 1, 1), *limits],
    )
    call = args(made, tmp_path, method, IMAGES)
    quantise(call)
    assert snr_db(call, images(9)) > 25


def test_values_without_a_finite_range_stay_float(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w1", "h", "one"), node("Div", "h nought", "d"), node("MatMul", "d w2", "y", "two")]
    made = model(
        nodes,
        [value("x", ["n", 4])],
        [value("y", ["n", 4])],
        [const("w1", 4, 4), const("w2", 4, 4), numbers("nought", 0)],
    )
    call = args(made, tmp_path, "qdq", [dense(0)])
    result = quantise(call)
    assert [unit.name for unit in result.units] == ["one"]
    assert result.notes[-1] == "'d' stays in float: it has no finite range"


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_scale_that_is_not_finite_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = convolutions()
    call = args(made, tmp_path, "qdq", IMAGES)
    whole = onnx_static.onnx_ranges.find

    def spoilt(*given: Any) -> Any:
        found = whole(*given)
        found.ranges["x"] = (float("-inf"), 1.0)
        return found

    monkeypatch.setattr(onnx_static.onnx_ranges, "find", spoilt)
    with pytest.raises(TailorbirdError, match=r"^quantising made 'x_scale' NaN or infinite: expected finite scales"):
        quantise(call)
    assert not (Path(call.folder) / "model.onnx").exists()


def test_a_source_with_infinite_constants_may_keep_them(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "h", "one"), node("Min", "h roof", "y")]
    made = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [const("w", 4, 4), numbers("roof", np.inf)])
    call = args(made, tmp_path, "qdq", [dense(0)])
    assert len(quantise(call).units) == 1
    assert np.isfinite(run(f"{call.folder}/model.onnx", dense(1))[0]).all()


def test_whole_number_and_text_inputs_pass(tmp_path: Path) -> None:
    nodes = [node("Cast", "i", "f", to=TensorProto.FLOAT), node("MatMul", "f w", "y"), node("Identity", "t", "u")]
    inputs = [value("i", ["n", 4], TensorProto.INT32), value("t", ["n"], TensorProto.STRING)]
    outputs = [value("y", ["n", 4]), value("u", ["n"], TensorProto.STRING)]
    sample = {"i": np.arange(8, dtype=np.int32).reshape(2, 4), "t": np.array([b"a", b"caf\xc3\xa9"], object)}
    call = args(model(nodes, inputs, outputs, [const("w", 4, 4)]), tmp_path, "qdq", [sample])
    assert len(quantise(call).units) == 1


def test_a_large_model_gets_a_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = onnx_graph.write_model
    monkeypatch.setattr(onnx_graph, "write_model", lambda made, path: plain(made, path, inline_bytes=100))
    call = args(convolutions(), tmp_path, "qdq", IMAGES)
    quantise(call)
    names = sorted(path.name for path in Path(call.folder).iterdir())
    assert names == ["model.onnx", "model.onnx.data", "ranges.json"]
    assert snr_db(call, images(9)) > 25


def test_no_temporary_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    quantise(args(convolutions(), tmp_path, "qdq", IMAGES, ranges=Ranges.ENTROPY))
    assert not list(scratch.iterdir())


@BOTH
def test_an_output_of_every_kind_of_value_is_still_there(method: str, tmp_path: Path) -> None:
    """A convolution's, an activation's that the tool drops, a constant, an input; the shape of one is not declared."""
    nodes = [node("Conv", "x k1", "c"), node("Relu", "c", "r"), node("Conv", "r k2", "d"), node("Relu", "d", "z")]
    outputs = [value(name, ["n", None, 12, 12]) for name in ("c", "r", "d", "x")]
    nodes.append(node("Conv", "z k3", "last"))
    weights = [const("k1", 4, 3, 1, 1), const("k2", 4, 4, 1, 1), const("k3", 4, 4, 1, 1)]
    made = model(
        nodes, [value("x", ["n", 3, 12, 12])], [*outputs, value("last", None), value("k1", [4, 3, 1, 1])], weights
    )
    call = args(made, tmp_path, method, IMAGES)
    assert [unit.operator for unit in quantise(call).units] == ["Conv"]  # the last: all others feed what callers see
    got = run(f"{call.folder}/model.onnx", IMAGES[0])
    for exact, near in zip(run(call.model, IMAGES[0]), got, strict=True):
        assert float(np.sum(exact**2) / max(np.sum((exact - near) ** 2), 1e-12)) > 100


def test_a_lost_output_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    onnx.save(two_products(), source)
    broken = two_products()
    broken.graph.node[1].output[0] = "other"
    with pytest.raises(TailorbirdError, match=r"^quantising lost the output 'y'$"):
        onnx_graph.publish(broken, source, tmp_path)


@BOTH
def test_a_graph_that_was_never_inferred_and_has_the_runtime_s_own_operators(method: str, tmp_path: Path) -> None:
    gelu = helper.make_node("Gelu", ["h"], ["g"], domain="com.microsoft")
    nodes = [node("MatMul", "x w1", "h", "one"), gelu, node("MatMul", "g w2", "y", "two")]
    made = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [const("w1", 4, 4), const("w2", 4, 4)])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    call = args(made, tmp_path, method, [dense(seed) for seed in range(4)])
    assert [unit.name for unit in quantise(call).units] == ["one", "two"]
    assert snr_db(call, dense(2)) > 25
