"""What goes into a kit."""

from pathlib import Path
from typing import Any

from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.kit.make import Stuff, _lower_all
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target


class Asked:
    """A lowering that only takes down what it is asked for."""

    def __init__(self) -> None:
        self.forms: list[Form] = []

    def graph(self, candidate: Candidate) -> Path:
        self.forms.append(candidate.form)
        return Path("model.onnx")


def test_no_program_is_exported_for_a_kit_that_holds_none(tmp_path: Path) -> None:
    profile, target = Profile.static({"x": (1, 3)}), Target("some", "cpu", "avx2")
    ways = [Candidate(target, Precision.FP32, profile, ShapeMode.STATIC, 1, {}, None, 1, form) for form in Form]
    lowering: Any = Asked()
    nothing: Any = None
    _lower_all(Stuff("net", nothing, lowering, ways, BuildConfig(), nothing), BuildLog(tmp_path / "build.jsonl"))
    assert lowering.forms == [Form.GRAPH, Form.CAST]
