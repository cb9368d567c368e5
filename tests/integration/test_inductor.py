"""Builds of PyTorch programs with Inductor in the race, through the real API."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tailorbird
from tailorbird.domain.errors import UsageError
from tailorbird.domain.outcome import Status
from tests.unit.builder.graphs import model, save, value

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

_PROGRAM = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)

    def forward(self, x, scale):
        return {"y": self.two(torch.relu(self.one(x))) * scale}

def make():
    torch.manual_seed(0)
    return Net(), {"scale": torch.full((2, 8), 2.0), "x": torch.ones(2, 64)}
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "inductor_nets.py").write_text(_PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILORBIRD_CACHE", str(tmp_path / "cache"))
    return "inductor_nets:make"


def expected(x: Any, scale: Any) -> Any:
    scope: dict[str, Any] = {}
    exec(_PROGRAM, scope)
    with torch.inference_mode():
        return scope["make"]()[0](torch.from_numpy(x), torch.from_numpy(scale))["y"].numpy()


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_a_program_is_built_gated_and_opened(nets: str, tmp_path: Path) -> None:
    shapes = {"min_shapes": "x:1x64,scale:1x8", "opt_shapes": "x:2x64,scale:2x8", "max_shapes": "x:4x64,scale:4x8"}
    shown: list[dict[str, Any]] = []
    result = tailorbird.build(nets, output=tmp_path / "m.engine", threads=[1], backends=["inductor"],
                              precisions=["fp32"], observers=[shown.append], **shapes)  # fmt: skip
    assert result.manifest.format.platform == "torch_aoti"
    assert result.manifest.executed["fp32"] >= 3
    assert [event["event"] for event in shown].count("exported") == 1
    for rows in (1, 3, 4):
        x, scale = np.random.default_rng(0).random((rows, 64), np.float32), np.full((rows, 8), 3, np.float32)
        with tailorbird.open(tmp_path / "m.engine") as engine:
            (found,) = engine.run({"x": x, "scale": scale}).values()
        np.testing.assert_allclose(found, expected(x, scale), atol=1e-5)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_it_races_with_the_others_where_it_is_named(nets: str) -> None:
    result = tailorbird.build(nets, threads=[1], backends=["onnxruntime", "inductor"], precisions=["fp32"])
    outcomes = {outcome.candidate.name: outcome for outcome in result.manifest.outcomes}
    raced = {name: one.status for name, one in outcomes.items() if name.startswith("inductor")}
    assert set(raced) >= {"inductor fp32 static t1"}
    assert set(raced.values()) <= {Status.CHOSEN, Status.SLOWER, Status.STOPPED}
    assert Status.CHOSEN in {one.status for one in outcomes.values()}


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_it_is_left_out_with_the_reason_where_nobody_named_it(nets: str) -> None:
    shown: list[dict[str, Any]] = []
    tailorbird.build(nets, threads=[1], precisions=["fp32"], observers=[shown.append])
    (event,) = (event for event in shown if event["event"] == "candidates")
    assert not [name for name in event["names"] if name.startswith("inductor")]
    (reason,) = (reason for reason in event["left_out"] if reason.startswith("inductor:"))
    assert reason.endswith("name it to try it")


def test_an_onnx_file_is_no_program(tmp_path: Path) -> None:
    from onnx import helper

    file = save(
        model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2])], [value("y", [2])]), tmp_path / "m.onnx"
    )
    with pytest.raises(UsageError, match="no backend takes this model: got inductor: compiles PyTorch programs"):
        tailorbird.build(file, threads=[1], backends=["inductor"])
