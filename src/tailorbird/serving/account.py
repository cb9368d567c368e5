"""The account of a version: its statistics in the form of Triton's statistics extension, field by field.

One thing is counted otherwise: the phases of computing are counted by run, of which one may answer many requests, and
not by request. What was cached is always nothing.
"""

from __future__ import annotations

import msgspec

from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.statistics import Histogram, Phase, VersionStatistics


class Duration(msgspec.Struct, frozen=True):
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(msgspec.Struct, frozen=True):
    """Of whole requests, and of each phase."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStatistics(msgspec.Struct, frozen=True):
    """Of runs with one number of rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelAccount(msgspec.Struct, frozen=True):
    """Of one version."""

    name: str
    version: str
    last_inference: int
    """Unix time of the last answer in milliseconds; 0 before the first."""
    inference_count: int
    """Rows answered."""
    execution_count: int
    """Runs."""
    inference_stats: InferenceStatistics
    batch_stats: tuple[BatchStatistics, ...]


def account(model: LoadedModel) -> ModelAccount:
    """The account of a version in service."""
    found = model.statistics
    return ModelAccount(
        name=model.name,
        version=str(model.version),
        last_inference=int(found.last * 1e3),
        inference_count=found.rows,
        execution_count=found.runs,
        inference_stats=_inference(found),
        batch_stats=tuple(_batch(rows, found) for rows in sorted(found.sizes)),
    )


def _inference(found: VersionStatistics) -> InferenceStatistics:
    phases = found.phases
    return InferenceStatistics(
        success=_duration(found.answered),
        fail=Duration(found.failures.total(), _ns(found.failed_seconds)),
        queue=_duration(phases[Phase.QUEUE]),
        compute_input=_duration(phases[Phase.ASSEMBLE]),
        compute_infer=_duration(phases[Phase.RUN]),
        compute_output=_duration(phases[Phase.REPLY]),
    )


def _batch(rows: int, found: VersionStatistics) -> BatchStatistics:
    runs, moving = found.sizes[rows], found.moving[rows]
    return BatchStatistics(
        rows,
        compute_input=Duration(runs.count, _ns(moving[0])),
        compute_infer=_duration(runs),
        compute_output=Duration(runs.count, _ns(moving[1])),
    )


def _duration(found: Histogram) -> Duration:
    return Duration(found.count, _ns(found.sum))


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
