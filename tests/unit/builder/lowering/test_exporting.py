"""A program's exported form: made once, in a child, named and ordered as its ONNX form is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tailorbird.backends.program import load_program
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.lowering.exporting import Exporting
from tailorbird.builder.recall import Recall
from tailorbird.builder.sources.export_torch import export, write_program
from tailorbird.builder.sources.source import ExportArgs, ProgramArgs
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import ModelError, TailorbirdError

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

_NETS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 3)

    def forward(self, x, scale, bias=None):
        y = self.layer(x) * scale
        return {"y": y, "nothing": bias, "both": (y + 1, x * 2)}

def make():
    torch.manual_seed(0)
    return Net(), {"scale": torch.full((2, 3), 2.0), "x": torch.ones(2, 8)}

class Tangled(torch.nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x

def tangled():
    return Tangled(), (torch.ones(2, 8),)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which a user's module is found in the current directory, and nowhere else."""
    name = f"nets_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(_NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def exporting(tmp_path: Path, program: str, onnx: Path) -> tuple[Exporting, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    log = BuildLog(tmp_path / "build.jsonl", events.append)
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    recall = Recall(tmp_path / "cache", log, work, "net")
    return Exporting(program, (onnx, "digest"), Limits(), work, recall, log), events


def test_it_has_the_names_and_the_order_of_the_onnx_form(nets: str, tmp_path: Path) -> None:
    import onnxruntime

    export(ExportArgs(f"{nets}:make", "net.onnx"))
    one, events = exporting(tmp_path, f"{nets}:make", tmp_path / "net.onnx")
    program, names = load_program(one.file())
    session = onnxruntime.InferenceSession("net.onnx")
    assert names.inputs == tuple(value.name for value in session.get_inputs())
    assert names.outputs == tuple(value.name for value in session.get_outputs())
    given = {"x": np.random.default_rng(0).random((5, 8), np.float32), "scale": np.full((5, 3), 3, np.float32)}
    expected = session.run(None, given)
    found = program.module()(*(torch.from_numpy(given[name]) for name in names.inputs))
    assert len(found) == len(expected) == 3  # what is None is no output
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got.detach().numpy(), wanted, atol=1e-6)
    assert one.file() == one.file()
    again, later = exporting(tmp_path, f"{nets}:make", tmp_path / "net.onnx")
    again.file()
    # Made once: in this build, and in those after it.
    assert [event["cached"] for event in (*events, *later) if event["event"] == "exported"] == [False, True]


def test_a_users_own_pt2_keeps_its_dynamic_dims(nets: str, tmp_path: Path) -> None:
    layer, rows = torch.nn.Linear(4, 3).eval(), torch.export.Dim.AUTO
    traced = torch.export.export(layer, (torch.ones(2, 4),), dynamic_shapes={"input": {0: rows}})
    torch.export.save(traced, str(tmp_path / "layer.pt2"))
    export(ExportArgs(str(tmp_path / "layer.pt2"), "layer.onnx"))
    made = write_program(ProgramArgs(str(tmp_path / "layer.pt2"), "layer.onnx", str(tmp_path / "program.pt2")))
    assert made.operators == 1
    program, names = load_program(tmp_path / "program.pt2")
    x = torch.randn(7, 4)
    torch.testing.assert_close(program.module()(x)[0], layer(x))
    assert names.inputs == ("input",)


def test_a_program_that_cannot_be_exported_is_said_each_time(nets: str, tmp_path: Path) -> None:
    one, _ = exporting(tmp_path, f"{nets}:tangled", tmp_path / "net.onnx")
    for _ in range(2):
        with pytest.raises(ModelError, match=f"{nets}:tangled cannot be exported: got .*data-dependent"):
            one.file()


def test_without_a_program_there_is_none(tmp_path: Path) -> None:
    one, _ = exporting(tmp_path, "", tmp_path / "net.onnx")
    with pytest.raises(TailorbirdError, match="there is no program to compile: expected a PyTorch source"):
        one.file()
