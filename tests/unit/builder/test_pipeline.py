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
    program = ""
    kit = ""

    def lay(self) -> None:
        raise AssertionError("laid")


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (BuildConfig(keep_kit=True), "some would compile the program, and a build kit holds no code"),
        (BuildConfig(), "no backend takes this model"),
    ],
)
def test_what_follows_from_the_source_alone_is_told_before_the_groundwork(
    config: BuildConfig, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = EngineFormat("b", "p", "model.b")
    able = {"some": Capabilities(Target("some", "cpu", "avx2"), (Precision.FP32,), form, form=Form.PROGRAM)}
    monkeypatch.setattr(subject, "capabilities_for", lambda config: able)
    nothing: Any = None
    ground: Any = Ground()
    with pytest.raises(UsageError) as caught:
        subject.Build(ground, {}, config, tmp_path, nothing, nothing).run("net")
    assert caught.value.what == what
