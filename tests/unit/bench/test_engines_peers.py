"""The INT8 peers: NNCF as its documentation shows it, in a process of its own."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench import contest, peers
from bench.contestants import Turn
from tailorbird.builder.cases.data import save_set
from tailorbird.domain.budget import Check, GateReport
from tailorbird.domain.fidelity import CAP_DB

pytest.importorskip("nncf")


def check(rule: str, measured: float, passed: bool = True) -> Check:
    return Check(rule, passed, "set 0, y", measured, 20.0)


def test_the_score_is_the_least_signal_to_noise_ratio() -> None:
    report = GateReport((check("snr_db", 31.0), check("snr_db", 12.0, passed=False), check("cosine", 0.9)))
    assert peers.score_db(report) == 12.0


def test_the_score_is_bounded_and_a_broken_form_is_worth_nothing() -> None:
    assert peers.score_db(GateReport((check("snr_db", 140.0),))) == peers.SCORE_CAP_DB
    assert peers.score_db(GateReport((check("equal elements", 1.0),))) == peers.SCORE_CAP_DB
    assert peers.score_db(GateReport((check("snr_db", 140.0), check("NaN or Inf", 3.0, passed=False)))) == -CAP_DB


@pytest.fixture
def ground(tmp_path: Path) -> peers.PeerArgs:
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])
    graph = helper.make_graph(nodes, "conv", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model)
    data = tmp_path / "data"
    data.mkdir()
    for seed in range(6):
        save_set(data / f"{seed}.npz", {"x": np.random.default_rng(seed).standard_normal((1, 3, 16, 16), np.float32)})
    files = tuple(sorted(map(str, data.iterdir())))
    return peers.PeerArgs(str(model), files, str(tmp_path / "int8.xml"), transformer=False)


def test_the_quantised_model_runs_and_is_nearly_right(tmp_path: Path, ground: peers.PeerArgs) -> None:
    made = peers.made("plain", ground, 100, tmp_path / "log")
    assert made.failure == ""
    assert made.seconds > 0
    data = Path(ground.calibration[0]).parent
    references = contest.answers(Path(ground.model), data, tmp_path / "fp32", threads=1)
    turns = {"nncf": peers.entered(made, data, 1), "openvino": Turn("openvino", ground.model, str(data), 1)}
    found = contest.held(turns, references, rounds=1)
    worst = {name: report.worst("snr_db") or 0.0 for name, report in found.reports.items()}
    assert 10 < worst["nncf"] < 45  # INT8 it is: FP32 and BF16 are closer
    assert worst["nncf"] < worst["openvino"]


@pytest.mark.heavy
def test_accuracy_control_is_scored_by_the_gates_number(tmp_path: Path, ground: peers.PeerArgs) -> None:
    data = Path(ground.calibration[0]).parent
    answers = contest.answers(Path(ground.model), data, tmp_path / "fp32", threads=1)
    pairs = tuple((file, str(answers / Path(file).name)) for file in ground.calibration[4:])
    args = peers.PeerArgs(ground.model, ground.calibration[:4], ground.target, False, pairs)
    made = peers.made("controlled", args, 100, tmp_path / "log")
    assert made.failure == ""
    found = contest.held({"it": peers.entered(made, data, 1)}, answers, rounds=1)
    assert (found.reports["it"].worst("snr_db") or 0.0) > 18  # 20 on the two sets it was scored on


def test_what_takes_too_long_is_a_record_that_says_so(tmp_path: Path, ground: peers.PeerArgs) -> None:
    made = peers.made("plain", ground, 0.1, tmp_path / "log")
    assert made.model == ""
    assert made.failure == "step 'plain' took too long and was stopped: expected at most 0.1 s"


def test_what_fails_is_a_record_that_says_so(tmp_path: Path, ground: peers.PeerArgs) -> None:
    Path(ground.model).write_bytes(b"no model")
    made = peers.made("plain", ground, 100, tmp_path / "log")
    assert made.model == ""
    assert made.failure.startswith("the step failed: got RuntimeError:")
