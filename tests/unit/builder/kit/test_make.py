"""What goes into a kit."""

from pathlib import Path
from typing import Any

import pytest

from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.kit.make import Stuff, _lower_all
from tailorbird.domain.candidate import Candidate, Form, ShapeMode
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import ModelError
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target


class Asked:
    """A lowering that takes down what it is asked for, and refuses some of it."""

    def __init__(self, *refused: Form) -> None:
        self.forms: list[Form] = []
        self._refused = refused

    def graph(self, candidate: Candidate) -> Path:
        self.forms.append(candidate.form)
        if candidate.form in self._refused:
            raise ModelError("nets:make cannot be exported", got="a loop over data")
        return Path("model.onnx")


def lower(tmp_path: Path, lowering: Any, *forms: Form) -> list[dict[str, Any]]:
    """Events of lowering one candidate of each form."""
    profile, target = Profile.static({"x": (1, 3)}), Target("some", "cpu", "avx2")
    ways = [Candidate(target, Precision.FP32, profile, ShapeMode.STATIC, 1, {}, None, 1, form) for form in forms]
    nothing: Any = None
    events: list[dict[str, Any]] = []
    log = BuildLog(tmp_path / "build.jsonl", events.append)
    _lower_all(Stuff("net", nothing, lowering, ways, BuildConfig(), nothing, {}), log)
    return events


def test_all_that_candidates_are_compiled_from_is_made(tmp_path: Path) -> None:
    lowering = Asked()
    assert lower(tmp_path, lowering, *Form) == []
    assert lowering.forms == [*Form]


def test_a_kit_goes_without_what_cannot_be_made_and_says_so_once(tmp_path: Path) -> None:
    events = lower(tmp_path, Asked(Form.PROGRAM), Form.PROGRAM, Form.PROGRAM, Form.GRAPH)
    said = [(event["event"], event["reason"]) for event in events]
    assert said == [("not lowered", "nets:make cannot be exported: got a loop over data")]


def test_a_kit_from_which_nothing_could_be_compiled_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nets:make cannot be exported: got a loop over data"):
        lower(tmp_path, Asked(*Form), Form.PROGRAM)
