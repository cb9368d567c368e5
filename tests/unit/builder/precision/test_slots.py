"""What of a node can be low, by the operators' schemas."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tailorbird.builder.precision.formats import FORMATS
from tailorbird.builder.precision.slots import Slots, float_values, slots_of
from tailorbird.domain.precision import Precision
from tests.unit.builder.graphs import model, value
from tests.unit.builder.quantise.onnx_graphs import node, numbers

FP16, BF16 = FORMATS[Precision.FP16], FORMATS[Precision.BF16]
IN = {"x": TensorProto.FLOAT, "z": TensorProto.FLOAT, "i": TensorProto.INT64, "b": TensorProto.BOOL}


def slots(kind: str, inputs: str, *outputs: int, low: object = FP16, opset: int = 17, **attributes: object) -> Slots:
    """The slots of one node whose outputs have these element types."""
    names = [f"y{index}" for index in range(len(outputs))]
    made = model(
        [helper.make_node(kind, inputs.split(), names, "one", **attributes)],
        [value(name, ["n"], kind) for name, kind in IN.items()],
        [value(name, None, kind) for name, kind in zip(names, outputs, strict=True)],
        [numbers("half", 0.5), numbers("k", 1, dtype=np.int64)],
        opset,
    )
    assert low in (FP16, BF16)
    return slots_of(made, float_values(made), low)["one"]  # type: ignore[arg-type]


FLOAT, INT64, BOOL, INT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.INT8


def test_floats_in_and_out() -> None:
    assert slots("Add", "x z", FLOAT) == Slots((0, 1), (0,))
    assert slots("Concat", "x z x", FLOAT, axis=0) == Slots((0, 1, 2), (0,))
    assert slots("Gather", "x i", FLOAT) == Slots((0,), (0,))
    assert slots("Where", "b x z", FLOAT) == Slots((1, 2), (0,))
    assert slots("Greater", "x z", BOOL) == Slots((0, 1), ())


def test_places_of_boxes_stay() -> None:
    assert slots("NonMaxSuppression", "x z", INT64) == Slots(obstacle="NonMaxSuppression takes no FP16")


def test_nothing_to_lower_is_no_obstacle() -> None:
    assert slots("Add", "i i", INT64) == Slots()
    assert not slots("Shape", "i", INT64)


def test_casts_go_where_they_lead() -> None:
    assert slots("Cast", "i", FLOAT, to=FLOAT) == Slots((), (0,))
    assert slots("Cast", "x", INT64, to=INT64) == Slots((0,), ())
    assert slots("Cast", "x", FLOAT, to=FLOAT) == Slots((0,), (0,))


def test_outputs_whose_type_an_attribute_says_stay() -> None:
    assert slots("ConstantOfShape", "i", FLOAT) == Slots(obstacle="ConstantOfShape takes no FP16")
    assert slots("LayerNormalization", "x z", FLOAT, FLOAT) == Slots((0, 1), (0,))


def test_bfloat16_comes_with_later_operator_sets() -> None:
    assert slots("MaxPool", "x", FLOAT, kernel_shape=[2]) == Slots((0,), (0,))
    assert slots("MaxPool", "x", FLOAT, low=BF16, kernel_shape=[2]) == Slots(obstacle="MaxPool takes no BF16")
    assert slots("MaxPool", "x", FLOAT, low=BF16, opset=22, kernel_shape=[2]) == Slots((0,), (0,))
    assert slots("TopK", "x k", FLOAT, INT64, low=BF16, opset=22) == Slots(obstacle="TopK takes no BF16")


def test_what_no_kernel_is_there_for_stays() -> None:
    assert slots("ConvTranspose", "x z", FLOAT) == Slots((0, 1), (0,))
    found = slots("ConvTranspose", "x z", FLOAT, low=BF16, opset=22)
    assert found == Slots(obstacle="ConvTranspose has no BF16 kernels in TensorRT")


def test_quantised_pairs_take_scales_in_half_from_19_on() -> None:
    assert slots("QuantizeLinear", "x half", INT8).obstacle == "QuantizeLinear takes no FP16"
    assert slots("QuantizeLinear", "x half", INT8, opset=19) == Slots((0, 1), ())


def test_operators_of_others_and_branches_stay() -> None:
    made = model([helper.make_node("Own", ["x"], ["y"], "own", domain="org.example")], [value("x", ["n"])],
                 [value("y", ["n"])])  # fmt: skip
    assert slots_of(made, float_values(made), FP16)["own"].obstacle == "is an operator of org.example"
    branch = helper.make_graph([node("Neg", "x", "r")], "branch", [], [value("r", None)])
    made = model([helper.make_node("If", ["b"], ["y"], "if", then_branch=branch, else_branch=branch)],
                 [value("x", ["n"]), value("b", [], BOOL)], [value("y", ["n"])])  # fmt: skip
    assert slots_of(made, float_values(made), FP16)["if"].obstacle == "has branches or a body"


@pytest.mark.parametrize("low", [FP16, BF16])
def test_a_resize_keeps_region_and_scales(low: object) -> None:
    assert slots("Resize", "x z half", FLOAT, low=low) == Slots((0,), (0,))
