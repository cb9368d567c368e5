"""What a runtime said while it compiled: into the build log, and out of the engine's folder."""

from __future__ import annotations

from pathlib import Path

from tailorbird.backends.base import MESSAGES
from tailorbird.builder.buildlog import BuildLog
from tailorbird.domain.candidate import Candidate


def log_said(log: BuildLog, candidate: Candidate, engine: Path) -> None:
    """Move what was said about a candidate into the build log; call it whether or not it compiled."""
    said = engine / MESSAGES
    try:
        messages = said.read_text("utf-8", errors="replace").splitlines()
        said.unlink()
    except OSError:  # most runtimes say nothing, and some candidates have no folder
        return
    log.write("said", candidate=candidate.name, messages=messages)
