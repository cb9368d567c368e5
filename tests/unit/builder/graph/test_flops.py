"""FLOPs and bytes of small graphs, against counts made by hand."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tailorbird.builder.graph.flops import FlopsReport, count_flops
from tailorbird.builder.graph.shapes import bound_model
from tailorbird.domain.errors import InputError
from tests.unit.builder.graphs import linear, model, value, weight

INT64 = TensorProto.INT64


def one(op_type: str, inputs: dict[str, Any], opset: int = 17, domain: str = "", **attributes: Any) -> FlopsReport:
    """The report of a graph of one node; inputs by name: a shape makes an input, an array a weight."""
    names = ["" if name.startswith("_") else name for name in inputs]
    node = helper.make_node(op_type, names, ["y"], name="n", domain=domain, **attributes)
    shapes = {name: given for name, given in inputs.items() if isinstance(given, tuple)}
    weights = [numpy_helper.from_array(given, name) for name, given in inputs.items() if isinstance(given, np.ndarray)]
    made = model([node], [value(name, given) for name, given in shapes.items()], [value("y", None)], weights, opset)
    if domain:
        made.opset_import.append(helper.make_opsetid(domain, 1))
        made.graph.output[0].CopyFrom(value("y", attributes.get("shape", ())))
    return count_flops_of(made, shapes)


def count_flops_of(made: onnx.ModelProto, shapes: Any) -> FlopsReport:
    made.graph.output[0].ClearField("type")
    inferred = onnx.shape_inference.infer_shapes(made)
    return count_flops(inferred, shapes)


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


# Each row: the operator, its inputs, its attributes, and the FLOPs, worked out beside it.
COUNTED = [
    # 4x6x6 outputs, each 3 channels x 3x3 multiply-adds.
    ("Conv", {"x": (1, 3, 8, 8), "w": zeros(4, 3, 3, 3)}, {}, 4 * 36 * 2 * 27),
    # One add more for each output.
    ("Conv", {"x": (1, 3, 8, 8), "w": zeros(4, 3, 3, 3), "b": zeros(4)}, {}, 4 * 36 * (2 * 27 + 1)),
    # Depthwise: one channel each; padded to 8x8; two rows.
    ("Conv", {"x": (2, 4, 8, 8), "w": zeros(4, 1, 3, 3)}, {"group": 4, "pads": [1] * 4}, 2 * 4 * 64 * 2 * 9),
    # Stride 2: 4x4 outputs.
    ("Conv", {"x": (1, 3, 8, 8), "w": zeros(5, 3, 1, 1)}, {"strides": [2, 2]}, 5 * 16 * 2 * 3),
    # Each of 3x4x4 inputs meets 5 channels x 2x2 weights; stride 2 gives 5x8x8 outputs, one bias add each.
    (
        "ConvTranspose",
        {"x": (1, 3, 4, 4), "w": zeros(3, 5, 2, 2), "b": zeros(5)},
        {"strides": [2, 2]},
        3 * 16 * 2 * 5 * 4 + 5 * 64,
    ),
    ("MatMul", {"a": (2, 3, 5), "b": (5, 7)}, {}, 2 * 2 * 3 * 7 * 5),
    ("MatMul", {"a": (5,), "b": (5, 7)}, {}, 2 * 7 * 5),
    ("Gemm", {"a": (3, 5), "b": (5, 7), "c": (7,)}, {}, 2 * 3 * 7 * 5 + 21),
    ("Gemm", {"a": (5, 3), "b": (7, 5)}, {"transA": 1, "transB": 1}, 2 * 3 * 7 * 5),
    ("Einsum", {"a": (2, 3, 5), "b": (2, 5, 7)}, {"equation": "bij,bjk->bik"}, 2 * 2 * 3 * 5 * 7),
    # 6 steps, 2 rows, 4 gates: 2 x 4 x 3 x (5+3) multiply-adds, 12 joins of the products, 12 biases, 27 in the cell.
    (
        "LSTM",
        {"x": (6, 2, 5), "w": zeros(1, 12, 5), "r": zeros(1, 12, 3), "b": zeros(1, 24)},
        {"hidden_size": 3},
        12 * (2 * 12 * 8 + 12 + 12 + 27),
    ),
    # Both directions, no bias, 3 gates, 8 x 3 in the cell.
    (
        "GRU",
        {"x": (6, 2, 5), "w": zeros(2, 9, 5), "r": zeros(2, 9, 3)},
        {"hidden_size": 3, "direction": "bidirectional"},
        2 * 12 * (2 * 9 * 8 + 9 + 24),
    ),
    ("RNN", {"x": (6, 2, 5), "w": zeros(1, 3, 5), "r": zeros(1, 3, 3)}, {"hidden_size": 3}, 12 * (2 * 3 * 8 + 3 + 3)),
    ("MaxPool", {"x": (1, 3, 8, 8)}, {"kernel_shape": [2, 2], "strides": [2, 2]}, 3 * 16 * 4),
    ("GlobalAveragePool", {"x": (1, 3, 8, 8)}, {}, 3 * 64 + 3),
    ("ReduceMean", {"x": (2, 10)}, {"axes": [1]}, 20 + 2),
    ("ReduceSum", {"x": (2, 10), "axes": np.array([1])}, {}, 20),
    ("ReduceL2", {"x": (2, 10)}, {"axes": [1]}, 40 + 2),
    ("ArgMax", {"x": (2, 10)}, {"axis": 1}, 20),
    ("Softmax", {"x": (2, 10)}, {}, 5 * 20),
    ("LayerNormalization", {"x": (2, 10), "g": zeros(10)}, {}, 7 * 20),
    ("BatchNormalization", {"x": (2, 3), "a": zeros(3), "b": zeros(3), "c": zeros(3), "d": zeros(3)}, {}, 2 * 6),
    ("LRN", {"x": (1, 5, 2, 2)}, {"size": 3}, 20 * 7),
    ("Relu", {"x": (2, 10)}, {}, 20),
    ("Add", {"x": (2, 10), "b": (10,)}, {}, 20),
    ("Sum", {"x": (2, 10), "b": (2, 10), "c": (2, 10)}, {}, 2 * 20),
    ("Mean", {"x": (2, 10), "b": (2, 10), "c": (2, 10)}, {}, 3 * 20),
    # Twice as high and wide: 2 x 2 neighbours each, a multiply-add each.
    (
        "Resize",
        {"x": (1, 3, 4, 4), "_roi": 0, "s": np.array([1, 1, 2, 2], np.float32)},
        {"mode": "linear"},
        2 * 3 * 64 * 4,
    ),
    ("Resize", {"x": (1, 3, 4, 4), "_roi": 0, "s": np.array([1, 1, 2, 2], np.float32)}, {"mode": "nearest"}, 0),
    ("Transpose", {"x": (2, 10)}, {}, 0),
    ("Reshape", {"x": (2, 10), "s": np.array([20])}, {}, 0),
]


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "flops"), COUNTED, ids=[f"{i}-{row[0]}" for i, row in enumerate(COUNTED)]
)
def test_flops(op_type: str, inputs: dict[str, Any], attributes: dict[str, Any], flops: int) -> None:
    report = one(op_type, inputs, **attributes)
    assert report.unknown == ()
    assert report.flops == flops


def test_a_runtimes_own_operators() -> None:
    """Their shapes are not inferred by ONNX, so they are known only where the file's output says them."""
    node = helper.make_node("FusedMatMul", ["a", "b"], ["y"], name="n", domain="com.microsoft", transA=1)
    made = model([node], [value("a", [5, 3]), value("b", [5, 7])], [value("y", [3, 7])])
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    report = count_flops(made, {"a": (5, 3), "b": (5, 7)})
    assert report.unknown == ("'n' (FusedMatMul): the shape of 'y' is not known",)


def test_bytes_are_each_input_and_output_once() -> None:
    report = count_flops(linear(), {"x": (2, 4)})
    product = 4 * (2 * 4 + 4 * 3 + 2 * 3)
    shift = 4 * (2 * 3 + 3 + 2 * 3)
    relu = 4 * (2 * 3 + 2 * 3)
    assert report.bytes_moved == product + shift + relu
    assert report.flops == 2 * 2 * 3 * 4 + 6 + 6
    assert report.intensity == report.flops / report.bytes_moved


@pytest.mark.parametrize("op_type", ["Identity", "Flatten", "Shape"])
def test_renaming_moves_nothing(op_type: str) -> None:
    assert one(op_type, {"x": (2, 10)}).bytes_moved == 0


def test_a_lookup_reads_what_it_takes_and_not_the_table() -> None:
    indices = np.array([1, 5, 7])
    report = one("Gather", {"table": (1000, 8), "i": indices})
    assert report.bytes_moved == 2 * (3 * 8 * 4) + 3 * 8


def test_small_types_are_packed() -> None:
    nine = helper.make_tensor("q", TensorProto.INT4, [3, 3], [1] * 9)
    node = helper.make_node("DequantizeLinear", ["q", "scale"], ["w"])
    nodes = [node, helper.make_node("MatMul", ["x", "w"], ["y"])]
    made = model(nodes, [value("x", [1, 3])], [value("y", [1, 3])], [nine, weight("scale")], opset=21)
    report = count_flops(made, {"x": (1, 3)})
    assert {cost.operator: cost.bytes_moved for cost in report.operators}["DequantizeLinear"] == 5 + 4 + 9 * 4


def test_the_breakdown_is_sorted_and_adds_up() -> None:
    report = count_flops(linear(), {"x": (2, 4)})
    assert [(cost.operator, cost.nodes, cost.flops) for cost in report.operators] == [
        ("MatMul", 1, 48),
        ("Add", 1, 6),
        ("Relu", 1, 6),
    ]
    assert sum(cost.bytes_moved for cost in report.operators) == report.bytes_moved
    assert (report.nodes, report.unknown_share, report.shapes) == (3, 0.0, {"x": (2, 4)})


def test_an_unknown_shape_is_named_and_not_counted_as_zero() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"], name="find"),
        helper.make_node("Cast", ["where"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Relu", ["x"], ["y"], name="relu"),
    ]
    made = model(nodes, [value("x", [2, 3])], [value("y", [2, 3]), value("floats", [2, None])])
    report = count_flops(made, {"x": (2, 3)})
    assert report.unknown == (
        "'find' (NonZero): the shape of 'where' is not known",
        "'cast' (Cast): the shape of 'where' is not known",
    )
    assert report.flops == 6
    assert report.unknown_share == pytest.approx(2 / 3)


def test_an_operator_without_a_rule_is_unknown() -> None:
    report = one("Det", {"x": (3, 3)})
    assert report.unknown == ("'n' (Det): no rule for this operator",)
    assert (report.flops, report.bytes_moved) == (0, 0)


def test_a_branch_is_unknown() -> None:
    then = helper.make_graph([helper.make_node("Neg", ["x"], ["a"])], "then", [], [value("a", [2])])
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["b"])], "else", [], [value("b", [2])])
    node = helper.make_node("If", ["flag"], ["y"], name="if", then_branch=then, else_branch=other)
    made = model([node], [value("x", [2]), value("flag", [], TensorProto.BOOL)], [value("y", [2])])
    report = count_flops(made, {"x": (2,), "flag": ()})
    assert report.unknown == ("'if' (If): its cost depends on data or on a subgraph",)


def test_computed_shapes_are_followed() -> None:
    """[n, c, h, w] -> [n, c, h*w] through Shape, Gather, Mul and Concat, which inference alone cannot follow."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "two"], ["h"]),
        helper.make_node("Gather", ["shape", "three"], ["w"]),
        helper.make_node("Mul", ["h", "w"], ["hw"]),
        helper.make_node("Div", ["hw", "one"], ["area"]),
        helper.make_node("Slice", ["shape", "zero", "two"], ["nc"]),
        helper.make_node("Concat", ["nc", "area"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["y"]),
    ]
    numbers = [numpy_helper.from_array(np.array([n]), name) for n, name in enumerate(("zero", "one", "two", "three"))]
    made = model(nodes, [value("x", ["n", 3, "h", "w"])], [value("y", None)], numbers)
    made.graph.output[0].CopyFrom(value("y", ["n", 3, "a"]))
    report = count_flops(made, {"x": (2, 3, 4, 5)})
    assert report.unknown == ()
    assert {cost.operator: cost.flops for cost in report.operators}["Relu"] == 2 * 3 * 20


def test_functions_are_inlined() -> None:
    made = model([helper.make_node("Twice", ["x"], ["y"], domain="local")], [value("x", [5])], [value("y", [5])])
    body = [helper.make_node("Add", ["a", "a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    made.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, list(made.opset_import)))
    made.opset_import.append(helper.make_opsetid("local", 1))
    report = count_flops(made, {"x": (5,)})
    assert (report.flops, report.nodes, report.unknown) == (10, 2, ())


def test_what_the_file_claims_of_other_shapes_is_forgotten() -> None:
    made = linear("rows")
    made.graph.value_info.append(value("xw", [1000, 3]))
    made.graph.output[0].CopyFrom(value("y", [1000, 3]))
    assert count_flops(made, {"x": (2, 4)}).flops == 60


def test_names_given_twice_do_not_mix_shapes() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["t"]),
        helper.make_node("ReduceSum", ["t"], ["t"], keepdims=0),
        helper.make_node("Neg", ["t"], ["y"]),
    ]
    report = count_flops(model(nodes, [value("x", [10])], [value("y", [])]), {"x": (10,)})
    assert (report.flops, report.unknown) == (10 + 10 + 1, ())


def test_the_model_is_not_changed_and_its_weights_are_not_copied() -> None:
    made = linear(width=3000, out=3000)
    before = made.SerializeToString()
    assert len(bound_model(made, {"x": (1, 3000)}).SerializeToString()) < 2000
    report = count_flops(made, {"x": (1, 3000)})
    assert made.SerializeToString() == before
    assert report.flops == 2 * 3000 * 3000 + 6000


def test_a_large_fold_is_not_computed() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["dims"], ["huge"]),
        helper.make_node("Relu", ["huge"], ["y"]),
    ]
    dims = numpy_helper.from_array(np.array([2**30, 2**30]), "dims")
    report = count_flops(model(nodes, [value("x", [1])], [value("y", [None, None])], [dims]), {"x": (1,)})
    assert report.flops == 2**60


def test_shapes_that_contradict_the_signature() -> None:
    with pytest.raises(InputError, match="input 'x' has the wrong shape"):
        count_flops(linear(), {"x": (2, 5)})
    with pytest.raises(InputError, match="missing input 'x'"):
        count_flops(linear(), {})


def test_a_graph_whose_shapes_do_not_fit_is_unknown() -> None:
    made = linear()
    made.graph.initializer[0].CopyFrom(weight("w", 5, 3))
    report = count_flops(made, {"x": (2, 4)})
    assert (report.flops, report.unknown_share) == (0, 1.0)
