"""Lowering: every reason to keep a node has a graph here that breaks without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("onnxruntime")

from tailorbird.builder.precision import lower as module
from tailorbird.builder.precision.formats import FORMATS
from tailorbird.builder.precision.lower import lower
from tailorbird.builder.precision.structure import NORM, SHAPES
from tailorbird.builder.sources.onnx_file import read_model, signature_of
from tailorbird.domain.errors import BackendError, ModelError, TailorbirdError
from tailorbird.domain.precision import Precision
from tests.unit.builder.graphs import model, value
from tests.unit.builder.precision.casts import args, careless_db, cast_pairs, lowered, types, why
from tests.unit.builder.quantise.onnx_graphs import (
    const,
    convolutions,
    encoder,
    images,
    node,
    normal,
    numbers,
    run,
    words,
)

FP16, BF16 = Precision.FP16, Precision.BF16
BOTH = pytest.mark.parametrize("precision", [FP16, BF16])
IMAGES = [images(seed) for seed in range(3)]
WORDS = [words(seed, 3 + seed) for seed in range(3)]


def rows(scale: float = 1.0, width: int = 8, count: int = 4, offset: float = 0.0) -> dict[str, Any]:
    return {"x": (normal("rows", (count, width)) * scale + offset).astype(np.float32)}


def between(nodes: list[Any], weights: list[Any], width: int = 8, out: Any = 8, opset: int = 17) -> onnx.ModelProto:
    """A graph from x [n, width] to y, which a product with an identity leads in and out of."""
    x, y = value("x", ["n", width]), value("y", ["n", out])
    eye = numpy_helper.from_array(np.eye(width, dtype=np.float32), "eye")
    return model([node("MatMul", "x eye", "a", "in"), *nodes], [x], [y], [eye, *weights], opset)


@BOTH
@pytest.mark.parametrize(("made", "samples"), [(convolutions, IMAGES), (encoder, WORDS)])
def test_networks_go_low_as_a_whole(
    made: Callable[[], onnx.ModelProto], samples: list[Any], precision: Precision, tmp_path: Path
) -> None:
    call = args(made(), tmp_path, precision, samples)
    found = lower(call)
    written = read_model(Path(call.folder) / found.model)
    onnx.checker.check_model(written, full_check=True)
    assert signature_of(written) == signature_of(read_model(Path(call.model)))
    assert found.kept == ()
    assert found.snr_db is not None
    assert found.snr_db > {FP16: 50, BF16: 35}[precision]
    assert not cast_pairs(written)
    element = FORMATS[precision].element
    products = [one for one in written.graph.node if one.op_type in ("Conv", "MatMul", "Gemm")]
    known = types(written)
    assert products
    assert {known[name] for one in products for name in (*one.input, *one.output)} == {element}


def test_bfloat16_convolutions_need_another_operator_set(tmp_path: Path) -> None:
    found, written = lowered(convolutions(), tmp_path, BF16, IMAGES)
    assert found.notes == ("operator set 22 instead of 17",)
    assert [(one.domain, one.version) for one in written.opset_import] == [("", 22)]
    found, written = lowered(convolutions(), tmp_path, FP16, IMAGES)
    assert found.notes == ()
    assert written.opset_import[0].version == 17


def test_values_beyond_the_end_stay(tmp_path: Path) -> None:
    """1e4 seen is inside FP16, and its square is not."""
    made = between([node("Mul", "a a", "s", "square"), node("MatMul", "s small", "y", "out")],
                   [const("small", 8, 8, scale=1e-6)])  # fmt: skip
    inputs = rows(3000)
    assert careless_db(made, tmp_path, FP16, inputs) == -np.inf
    found, written = lowered(made, tmp_path, FP16, [inputs])
    reasons = why(found)
    assert set(reasons) >= {"square", "out"}
    assert reasons["square"].startswith("its values reach ")
    assert reasons["square"].endswith("; FP16 ends at 65504")
    assert found.snr_db is not None
    assert found.snr_db > 50
    assert types(written)["s"] == TensorProto.FLOAT
    found, _ = lowered(made, tmp_path, BF16, [inputs])
    assert "square" not in why(found)


def test_headroom_is_left_for_inputs_not_seen(tmp_path: Path) -> None:
    made = between([node("Relu", "a", "y", "relu")], [])
    assert lowered(made, tmp_path, FP16, [rows(1)])[0].kept == ()
    peak = 65504 / 4 / float(np.abs(rows()["x"]).max())
    with pytest.raises(TailorbirdError, match=r"nothing of the graph can run in FP16: got its values reach 1\.65e\+04"):
        lowered(made, tmp_path, FP16, [rows(1.01 * peak)])
    assert lowered(made, tmp_path, FP16, [rows(0.99 * peak)])[0].kept == ()


def test_weights_beyond_the_end_and_epsilons_below_it_stay(tmp_path: Path) -> None:
    made = between(
        [
            node("Mul", "a large", "b", "grow"),
            node("Mul", "b small", "c", "shrink"),
            node("Abs", "c", "d"),
            node("Add", "d eps", "e", "epsilon"),
            node("Div", "c e", "y", "sign"),
        ],
        [numbers("large", 1e6), numbers("small", 1e-6), numbers("eps", 1e-12)],
    )
    inputs = rows()
    inputs["x"][0, 0] = 0.0  # which the epsilon is for
    assert careless_db(made, tmp_path, FP16, inputs) == -np.inf
    reasons = why(lowered(made, tmp_path, FP16, [inputs])[0])
    assert reasons["grow"] == "its constant reaches 1e+06, beyond 65504"
    assert reasons["epsilon"] == "its constant holds 1e-12 at most, too small for the format"


def test_values_too_small_stay(tmp_path: Path) -> None:
    made = between([node("Mul", "a a", "s", "square"), node("Mul", "s large", "y", "back")], [numbers("large", 6e4)])
    inputs = rows(1e-4)
    assert careless_db(made, tmp_path, FP16, inputs) < 30
    found, _ = lowered(made, tmp_path, FP16, [inputs])
    assert "too small for FP16" in why(found)["square"]
    assert found.snr_db is not None
    assert found.snr_db > 50


@BOTH
def test_differences_of_large_numbers_stay_with_what_they_are_made_of(precision: Precision, tmp_path: Path) -> None:
    """A variance as the mean of squares less the square of the mean, of values far from 0."""
    made = between(
        [
            node("Add", "a far", "f", "away"),
            node("Mul", "f f", "ff", "squares"),
            node("ReduceMean", "ff", "mean2", "mean of squares", axes=[1]),
            node("ReduceMean", "f", "mean", "mean", axes=[1]),
            node("Mul", "mean mean", "m2", "square of mean"),
            node("Sub", "mean2 m2", "y", "variance"),
        ],
        [numbers("far", 20.0)],
        out=1,
    )
    assert careless_db(made, tmp_path, precision, rows()) < 25
    found, _ = lowered(made, tmp_path, precision, [rows()])
    reasons = why(found)
    assert "it cancels" in reasons["variance"]
    assert reasons["mean of squares"] == "feeds 'variance', in which noise grows"
    assert found.snr_db is not None
    assert found.snr_db > {FP16: 42, BF16: 25}[precision]


def test_sums_that_run_over_stay(tmp_path: Path) -> None:
    """A mean of numbers around 10 is 10, and their sum over 4096 places is not in FP16."""
    nodes = [
        node("Softplus", "x", "a", "plus"),
        node("ReduceMean", "a", "m", "mean", axes=[1]),
        node("MatMul", "m w", "y", "out"),
    ]
    made = model(nodes, [value("x", ["n", 4096])], [value("y", ["n", 2])], [const("w", 1, 2)])
    found, _ = lowered(made, tmp_path, FP16, [rows(1, 4096, 2, 10.0)])
    assert why(found)["mean"].startswith("adds up to 4.")
    made = between([node("ReduceL2", "a", "n", "norm", axes=[1]), node("Div", "a n", "y", "unit")], [])
    found, _ = lowered(made, tmp_path, FP16, [rows(300)])
    assert why(found)["norm"].endswith("FP16 ends at 65504")
    assert "norm" not in why(lowered(made, tmp_path, FP16, [rows(10)])[0])


def norm(root: str = "Sqrt") -> onnx.ModelProto:
    nodes = [
        node("ReduceMean", "a", "m", "mean", axes=[1]),
        node("Sub", "a m", "c", "centre"),
        node("Pow", "c two", "s", "square"),
        node("ReduceMean", "s", "v", "variance", axes=[1]),
        node("Add", "v eps", "ve", "plus"),
        node("Sqrt", "ve", "d", "root") if root == "Sqrt" else node("Pow", "ve half", "d", "root"),
        node("Div", "c d", "n", "divide"),
        node("MatMul", "n w", "y", "after"),
    ]
    return between(nodes, [numbers("two", 2.0), numbers("half", 0.5), numbers("eps", 1e-5), const("w", 8, 8)])


@pytest.mark.parametrize("root", ["Sqrt", "Pow"])
def test_a_layer_norm_written_out_stays(root: str, tmp_path: Path) -> None:
    """Squares of 600 are beyond FP16's end; what goes in and what comes out are not."""
    inputs = rows(600)
    assert careless_db(norm(root), tmp_path, FP16, inputs) < 1  # divided by infinity
    found, _ = lowered(norm(root), tmp_path, FP16, [inputs])
    reasons = why(found)
    assert {name for name, reason in reasons.items() if reason == NORM} == {
        "mean", "centre", "square", "variance", "plus", "root", "divide"}  # fmt: skip
    assert "after" not in reasons
    assert found.snr_db is not None
    assert found.snr_db > 50


def test_a_layer_norm_goes_low_because_its_first_stage_does_not(tmp_path: Path) -> None:
    made = between([node("LayerNormalization", "a g", "y", "norm")], [const("g", 8, scale=1)])
    assert lowered(made, tmp_path, FP16, [rows(600)])[0].kept == ()


def test_masks_are_brought_into_reach(tmp_path: Path) -> None:
    """-3.4e38 is -inf in either format, and 0 * -inf is NaN: how BERT wrote its masks once."""
    made = between(
        [
            node("Sub", "one keep", "away", "invert"),
            node("Mul", "away lowest", "bias", "mask"),
            node("Add", "a bias", "s", "masked"),
            node("Softmax", "s", "y", "shares", axis=-1),
        ],
        [numbers("one", 1.0), numpy_helper.from_array(np.array(np.finfo(np.float32).min), "lowest")],
    )
    made.graph.input.append(value("keep", ["n", 8]))
    inputs = rows() | {"keep": np.array([[1, 1, 1, 1, 1, 0, 0, 0]] * 4, np.float32)}
    for precision in (FP16, BF16):
        assert careless_db(made, tmp_path, precision, inputs) == -np.inf
        found, written = lowered(made, tmp_path, precision, [inputs])
        assert found.notes == ("mask 'lowest': -3.4e+38 became -8192",)
        assert found.kept == ()
        assert found.snr_db is not None
        assert found.snr_db > {FP16: 50, BF16: 35}[precision]
        assert not [one for one in written.graph.initializer if not np.isfinite(numpy_helper.to_array(one)).all()]


def test_small_biases_beside_large_sums_go_low(tmp_path: Path) -> None:
    """A batch norm's bias that is 0 but for rounding; without samples nothing says so."""
    made = between([node("Gemm", "a w bias", "y", "product")], [const("w", 8, 8), const("bias", 8, scale=1e-9)])
    assert lowered(made, tmp_path, FP16, [rows()])[0].kept == ()
    reason = why(lowered(made, tmp_path, FP16, [])[0])["product"]
    assert reason.startswith("its constant holds ")


def test_noise_that_small_numbers_bring_is_followed_to_its_source(tmp_path: Path) -> None:
    """Each step is exact beside its own inputs, and one over a small difference is not."""
    made = between(
        [
            node("Exp", "a", "e", "power"),
            node("Mul", "e half", "h", "scale"),
            node("Sub", "e h", "d", "difference"),
            node("Sub", "d rest", "r", "remainder"),
            node("Reciprocal", "r", "i", "inverse"),
            node("MatMul", "i w", "y", "out"),
        ],
        [numbers("half", 0.5), numbers("rest", 0.499), const("w", 8, 8)],
    )
    inputs = rows(0.02)
    assert careless_db(made, tmp_path, BF16, inputs) < 10
    found, _ = lowered(made, tmp_path, BF16, [inputs])
    assert {"difference", "remainder"} <= set(why(found))
    assert found.snr_db is not None
    assert found.snr_db > 30


def test_infinite_masks_may_stay_as_they_are(tmp_path: Path) -> None:
    made = between(
        [node("Where", "keep a lowest", "s", "masked"), node("Softmax", "s", "y", "shares")],
        [numbers("lowest", -np.inf)],
    )
    made.graph.input.append(value("keep", ["n", 8], TensorProto.BOOL))
    inputs = rows() | {"keep": np.arange(8)[None] < np.array([[8], [3], [1], [5]])}
    found, _ = lowered(made, tmp_path, FP16, [inputs])
    assert found.kept == ()
    assert found.snr_db is not None
    assert found.snr_db > 50


@BOTH
def test_counts_stay(precision: Precision, tmp_path: Path) -> None:
    """Places along a line as floats: 2049 is 2048 in FP16, 257 is 256 in BF16."""
    nodes = [
        node("Cast", "places", "p", "to float", to=TensorProto.FLOAT),
        node("Mul", "p step", "q", "scale"),
        node("Sin", "q", "y", "wave"),
    ]
    made = model(nodes, [value("places", ["n"], TensorProto.INT64)], [value("y", ["n"])], [numbers("step", 0.5)])
    made.graph.node.extend([node("MatMul", "z w", "k", "work")])
    made.graph.input.append(value("z", ["n", 8]))
    made.graph.output.append(value("k", ["n", 8]))
    made.graph.initializer.append(const("w", 8, 8))
    inputs = {"places": np.arange(2**FORMATS[precision].bits - 10, 2**FORMATS[precision].bits + 20), **{"z": normal(
        "z", (30, 8)).astype(np.float32)}}  # fmt: skip
    assert careless_db(made, tmp_path, precision, inputs) < 20
    found, _ = lowered(made, tmp_path, precision, [inputs])
    reasons = why(found)
    assert reasons["to float"].startswith(f"carries whole numbers, which {precision.upper()} holds up to ")
    assert set(reasons) == {"to float", "scale", "wave"}
    few = inputs | {"places": np.arange(30)}
    assert "to float" not in why(lowered(made, tmp_path, precision, [few])[0])


def test_shape_arithmetic_stays(tmp_path: Path) -> None:
    """Half the width, computed in floats: 2051 / 2 is 1025.5 in FP32, and 2052 / 2 in FP16."""
    nodes = [
        node("Shape", "a", "shape"),
        node("Gather", "shape second", "width", axis=0),
        node("Cast", "width", "w", "width as float", to=TensorProto.FLOAT),
        node("Div", "w two", "h", "half"),
        node("Floor", "h", "hf", "floor"),
        node("Cast", "hf", "end", "as integer", to=TensorProto.INT64),
        node("Slice", "a zero end one", "y", "cut"),
    ]
    weights = [numbers("second", 1, dtype=np.int64), numbers("two", 2.0), numbers("zero", 0, dtype=np.int64),
               numbers("one", 1, dtype=np.int64)]  # fmt: skip
    made = model([node("Relu", "x", "a", "in"), *nodes], [value("x", ["n", "m"])], [value("y", ["n", "k"])], weights)
    inputs = rows(1, 2051, 1)
    found, written = lowered(made, tmp_path, FP16, [inputs])
    assert {name for name, reason in why(found).items() if reason == SHAPES} == {
        "width as float", "half", "floor", "as integer"}  # fmt: skip
    assert found.snr_db is not None
    assert found.snr_db > 60
    assert "shape" in types(written)


@BOTH
@pytest.mark.parametrize("roi", [True, False])
def test_a_resize_keeps_its_scales(precision: Precision, roi: bool, tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x k", "c", "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["c", "roi" if roi else "", "scales"], ["y"], "resize", mode="linear",
                         coordinate_transformation_mode="tf_crop_and_resize" if roi else "half_pixel"),
    ]  # fmt: skip
    weights = [const("k", 4, 3, 3, 3), numbers("scales", 1.0, 1.0, 1.7, 1.7),
               numbers("roi", 0.0, 0.0, 0.1, 0.1, 1.0, 1.0, 0.9, 0.9)]  # fmt: skip
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 4, "h", "w"])], weights)
    found, written = lowered(made, tmp_path, precision, IMAGES)
    assert found.kept == ()
    (resize,) = [one for one in written.graph.node if one.op_type == "Resize"]
    known = types(written)
    assert known[resize.input[0]] == FORMATS[precision].element
    assert {known[name] for name in resize.input[1:] if name} == {TensorProto.FLOAT}


def test_branches_read_what_they_read_before(tmp_path: Path) -> None:
    def branch(kind: str) -> onnx.GraphProto:
        return helper.make_graph([node(kind, "a bias", "r")], kind, [], [value("r", None)])

    nodes = [
        node("Relu", "a", "kept_a", "relu"),
        node("ReduceMax", "a", "top", "top", keepdims=0),
        node("Greater", "top zero", "yes", "choose"),
        helper.make_node("If", ["yes"], ["b"], "if", then_branch=branch("Add"), else_branch=branch("Sub")),
        node("MatMul", "b w", "y", "out"),
    ]
    made = between(nodes, [numbers("zero", 0.0), const("bias", 8), const("w", 8, 8)])
    found, written = lowered(made, tmp_path, FP16, [rows()])
    assert why(found) == {"if": "has branches or a body"}
    known = types(written)
    assert known["a"] == known["bias"] == TensorProto.FLOAT
    assert found.snr_db is not None
    assert found.snr_db > 50


def test_a_constant_of_both_kinds_is_there_twice(tmp_path: Path) -> None:
    nodes = [
        node("Mul", "a w", "b", "low"),
        node("CumSum", "b axis", "s", "run"),
        node("Mul", "s w", "t", "high"),
        node("CumSum", "t axis", "y", "again"),
    ]
    made = between(nodes, [const("w", 8, scale=1), numpy_helper.from_array(np.array(1), "axis")])
    found, written = lowered(made, tmp_path, FP16, [rows()])
    assert why(found)["run"] == "its sums run on"
    assert why(found)["high"] == "stands between nodes that stay"
    kinds = {tensor.name: tensor.data_type for tensor in written.graph.initializer}
    assert (kinds["w"], kinds["w@fp16"]) == (TensorProto.FLOAT, TensorProto.FLOAT16)
    assert "eye" not in kinds


def test_what_stands_between_nodes_that_stay_stays(tmp_path: Path) -> None:
    """A Relu between two running sums would cost two casts and win nothing."""
    made = between([node("CumSum", "a axis", "s", "first"), node("Relu", "s", "r", "relu"),
                    node("CumSum", "r axis", "y", "second")],
                   [numpy_helper.from_array(np.array(1), "axis")])  # fmt: skip
    found, written = lowered(made, tmp_path, FP16, [rows()])
    assert why(found)["relu"] == "stands between nodes that stay"
    assert [one.op_type for one in written.graph.node] == ["Cast", "MatMul", "Cast", "CumSum", "Relu", "CumSum"]


def test_operators_without_the_type_stay(tmp_path: Path) -> None:
    made = between([node("TopK", "a k", "y i", "top")], [numbers("k", 8, dtype=np.int64)])
    assert why(lowered(made, tmp_path, BF16, [rows()])[0]) == {"top": "TopK takes no BF16"}
    assert lowered(made, tmp_path, FP16, [rows()])[0].kept == ()


def test_values_on_their_way_through_a_sequence_keep_their_type(tmp_path: Path) -> None:
    nodes = [
        node("SplitToSequence", "a", "parts", "split", axis=1, keepdims=1),
        node("SequenceAt", "parts third", "part", "pick"),
        node("MatMul", "part w", "y", "out"),
    ]
    made = between(nodes, [numpy_helper.from_array(np.array(3), "third"), const("w", 1, 4)], out=4)
    found, _ = lowered(made, tmp_path, FP16, [rows()])
    assert "split" in why(found)
    assert found.snr_db is not None
    assert found.snr_db > 50


def test_scales_that_would_vanish_stay(tmp_path: Path) -> None:
    """One of two: as a whole the tensor is near enough, and a channel is gone."""
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], "dequantise", axis=1),
        node("MatMul", "a w", "y", "out"),
    ]
    whole = numpy_helper.from_array(np.full((8, 2), 100, np.int8), "q")
    made = between(nodes, [whole, numpy_helper.from_array(np.array([0.01, 1e-9], np.float32), "scale")], out=2)
    found, written = lowered(made, tmp_path, FP16, [rows()])
    assert why(found) == {"dequantise": "its constant has a scale that becomes 0"}
    assert types(written)["w@fp16"] == TensorProto.FLOAT16


def test_casts_in_the_source_go_where_they_lead(tmp_path: Path) -> None:
    nodes = [
        node("Cast", "n", "f", "whole to float", to=TensorProto.FLOAT),
        node("Cast", "f", "same", "float to float", to=TensorProto.FLOAT),
        node("MatMul", "same w", "y", "product"),
    ]
    made = model(nodes, [value("n", ["rows", 8], TensorProto.INT32)], [value("y", ["rows", 4])], [const("w", 8, 4)])
    inputs = {"n": np.arange(24, dtype=np.int32).reshape(3, 8)}
    found, written = lowered(made, tmp_path, FP16, [inputs])
    assert found.kept == ()
    first = written.graph.node[0]
    assert (first.op_type, first.attribute[0].i) == ("Cast", TensorProto.FLOAT16)
    assert not cast_pairs(written)


def test_an_input_that_is_an_output_stays_itself(tmp_path: Path) -> None:
    made = between([node("Relu", "a", "y", "relu")], [])
    made.graph.output.append(value("x", ["n", 8]))
    found, _ = lowered(made, tmp_path, FP16, [rows()])
    assert found.snr_db is not None
    assert found.snr_db > 50


def test_a_source_in_half_keeps_its_inputs(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "h", "r", "half"),
        node("Cast", "r", "f", "up", to=TensorProto.FLOAT),
        node("MatMul", "f w", "y", "single"),
    ]
    made = model(nodes, [value("h", ["n", 8], TensorProto.FLOAT16)], [value("y", ["n", 4])], [const("w", 8, 4)])
    found, written = lowered(made, tmp_path, BF16, [{"h": rows()["x"].astype(np.float16)}])
    assert found.snr_db is None
    known = types(written)
    (product,) = [one for one in written.graph.node if one.op_type == "MatMul"]
    assert known["h"] == TensorProto.FLOAT16
    assert {known[name] for name in product.input} == {TensorProto.BFLOAT16}


def test_a_name_that_ends_like_ours_is_no_clash(tmp_path: Path) -> None:
    made = between([node("Relu", "a", "a@fp16", "relu"), node("Neg", "a@fp16", "y", "neg")], [])
    found, written = lowered(made, tmp_path, FP16, [rows()])
    assert found.kept == ()
    names = [name for one in written.graph.node for name in one.output]
    assert len(names) == len(set(names))


def test_without_samples_constants_and_structure_decide(tmp_path: Path) -> None:
    found, _ = lowered(norm(), tmp_path, FP16, [])
    assert found.snr_db is None
    assert set(why(found)) == {"mean", "centre", "square", "variance", "plus", "root", "divide"}


def test_a_graph_without_floats_has_nothing_to_lower(tmp_path: Path) -> None:
    made = model([node("Neg", "x", "y")], [value("x", [3], TensorProto.INT32)], [value("y", [3], TensorProto.INT32)])
    with pytest.raises(TailorbirdError, match="nothing of the graph can run in FP16: got no float operator"):
        lower(args(made, tmp_path, FP16, [{"x": np.arange(3, dtype=np.int32)}]))


def test_an_operator_set_from_before_the_formats_is_refused(tmp_path: Path) -> None:
    made = model([node("Relu", "x", "y")], [value("x", ["n"])], [value("y", ["n"])], opset=12)
    with pytest.raises(ModelError) as caught:
        lower(args(made, tmp_path, FP16, []))
    assert str(caught.value) == (
        "the graph's operator set is too old to be cast: got 12, expected 13 or later\n"
        "Hint: see why upgrade-opset was left out"
    )


def test_samples_that_do_not_fit_are_the_runtimes_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="onnxruntime could not look at the model's values"):
        lower(args(convolutions(), tmp_path, FP16, [rows()]))


def test_an_answer_that_is_not_finite_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no rule foresaw must not leave this room."""
    monkeypatch.setattr(module, "_kept", lambda *_: {})
    made = between([node("Mul", "a a", "s", "square"), node("Sub", "s s", "y", "nothing")], [])
    with pytest.raises(TailorbirdError, match="output 'y' is NaN or infinite in FP16"):
        lower(args(made, tmp_path, FP16, [rows(3000)]))


def test_an_invalid_graph_does_not_leave_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(made: onnx.ModelProto, *_: Any) -> onnx.ModelProto:
        made.graph.node[0].input[0] = "nowhere"
        return made

    monkeypatch.setattr(module, "cast", careless)
    with pytest.raises(ModelError, match="the lowered graph is not valid ONNX"):
        lower(args(convolutions(), tmp_path, FP16, IMAGES))


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    calls = [args(encoder(), tmp_path, FP16, WORDS) for _ in range(2)]
    assert lower(calls[0]) == lower(calls[1])
    first, second = (Path(call.folder, "model.onnx").read_bytes() for call in calls)
    assert first == second


def test_the_runtime_takes_the_graph(tmp_path: Path) -> None:
    """ONNX Runtime's CPU runs FP16 graphs in its own way; near, and not the same."""
    call = args(convolutions(), tmp_path, FP16, IMAGES)
    lower(call)
    (true,), (got,) = run(call.model, IMAGES[0]), run(f"{call.folder}/model.onnx", IMAGES[0])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, true, atol=0.01)
