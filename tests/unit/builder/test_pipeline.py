"""What a build refuses before the long work."""

from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends.base import Capabilities
from tailorbird.builder import pipeline as subject
from tailorbird.domain.candidate import Form
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import UsageError
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target


class Ground:
    """Of an ONNX file; laying it is the long work."""

    made_elsewhere = False
    has_program = False

    def lay(self) -> None:
        raise AssertionError("laid")


@pytest.mark.parametrize("step", ["run", "kit"])
def test_what_follows_from_the_source_alone_is_told_before_the_groundwork(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = EngineFormat("b", "p", "model.b")
    able = {"some": Capabilities(Target("some", "cpu", "avx2"), (Precision.FP32,), form, form=Form.PROGRAM)}
    monkeypatch.setattr(subject, "capabilities_for", lambda config: able)
    nothing: Any = None
    ground: Any = Ground()
    with pytest.raises(UsageError) as caught:
        getattr(subject.Build(ground, {}, BuildConfig(), tmp_path, nothing, nothing), step)("net")
    assert caught.value.what == "no backend takes this model"
