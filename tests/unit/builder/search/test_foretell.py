"""Foretelling: the gate on a lowered graph, by this machine's CPU."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tailorbird.builder.cases.data import save_set
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.gate.oracle import OracleArgs
from tailorbird.builder.search.foretell import ForetellArgs, foretell
from tailorbird.domain.budget import Budget
from tailorbird.domain.dtype import DType
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Signature, TensorSpec
from tests.unit.builder.graphs import model, save, value

pytest.importorskip("onnxruntime")

SIGNATURE = Signature((TensorSpec("x", DType.FP32, ("n", 4)),), (TensorSpec("y", DType.FP32, ("n", 4)),))
PROFILE = Profile(min={"x": (1, 4)}, opt={"x": (3, 4)}, max={"x": (3, 4)})
X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


def scaled(factor: float, folder: Path) -> Path:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    weight = onnx.numpy_helper.from_array(np.float32([factor]), "w")
    made = model(nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [weight])
    return save(made, folder / "lowered.onnx")


def told(graph: Path) -> tuple[bool, str]:
    inputs, outputs = graph.with_name("in.npz"), graph.with_name("out.npz")
    save_set(inputs, {"x": X})
    save_set(outputs, {"y": 2 * X})
    case = Case(Place("opt", {"x": (3, 4)}, 3), str(inputs), str(outputs), real=True)
    written = OracleArgs(str(graph), SIGNATURE, PROFILE, 1, (str(inputs),), (str(outputs),))
    gate = foretell(ForetellArgs(written, (case,), Precision.FP16, Budget(), "", 1)).gate
    return gate.passed, gate.verdict


def test_a_graph_that_holds_its_budget_passes(tmp_path: Path) -> None:
    held, verdict = told(scaled(2.001, tmp_path))
    assert held, verdict
    assert verdict.startswith("pass, SNR 66")


def test_a_graph_that_misses_it_does_not_whatever_the_device(tmp_path: Path) -> None:
    held, verdict = told(scaled(2.4, tmp_path))
    assert not held
    assert verdict.startswith("snr_db 13.98 misses 20 (opt 3x4, y)")


def test_a_graph_that_nothing_here_takes_says_nothing(tmp_path: Path) -> None:
    made = onnx.load(scaled(2, tmp_path))
    made.graph.node[0].op_type, made.graph.node[0].domain = "Unheard", "of.nobody"
    made.opset_import.append(helper.make_opsetid("of.nobody", 1))
    with pytest.raises(TailorbirdError):
        told(save(made, tmp_path / "lowered.onnx"))
