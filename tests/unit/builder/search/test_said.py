"""What runtimes say while they compile: in the build log, not in the bundle."""

import json
from pathlib import Path

from tailorbird.backends.base import MESSAGES
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.search.said import log_said
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target

ONE = Candidate(Target("a", "cpu", "b"), Precision.FP32, Profile.static({"x": (1,)}), ShapeMode.STATIC, 1)


def test_every_line_is_logged_and_the_file_is_gone(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / MESSAGES).write_bytes(b"info: one\nwarning: \xff two\n")
    (engine / "model.plan").touch()
    log_said(BuildLog(tmp_path / "build.jsonl"), ONE, engine)
    event = json.loads((tmp_path / "build.jsonl").read_text())
    assert (event["event"], event["candidate"]) == ("said", "a fp32 static t1")
    assert event["messages"] == ["info: one", "warning: \ufffd two"]
    assert [path.name for path in engine.iterdir()] == ["model.plan"]


def test_who_says_nothing_is_not_logged(tmp_path: Path) -> None:
    log_said(BuildLog(tmp_path / "build.jsonl"), ONE, tmp_path / "nowhere")
    assert not (tmp_path / "build.jsonl").exists()
