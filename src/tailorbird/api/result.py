"""What a build came to, for those who asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tailorbird.domain.manifest import Manifest, speedup
from tailorbird.domain.outcome import Outcome, Status


@dataclass(frozen=True)
class Result:
    """What a build came to."""

    table: tuple[Outcome, ...]
    """Every candidate, the chosen one first."""
    manifest: Manifest
    bundle: Path | None
    """The ``.engine`` file, when one was asked for."""
    version_dir: Path | None
    """The published version's directory, when a repository was asked for."""

    @property
    def winner(self) -> Outcome:
        """The chosen candidate's row."""
        return next(outcome for outcome in self.table if outcome.status is Status.CHOSEN)

    @property
    def speedup(self) -> float | None:
        """Latency of ONNX Runtime's default over the chosen engine's, measured in turn at the same threads."""
        return speedup(self.table, self.manifest.baseline, self.manifest.goal)
