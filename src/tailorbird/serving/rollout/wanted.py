"""Wanted: from what stands in a repository to who should answer for each model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tailorbird.repository.channels import Live
from tailorbird.serving.hub import Direction
from tailorbird.serving.rollout.control import Channels


def wanted(serving: Mapping[str, int], channels: Iterable[Live], rules: Channels) -> dict[str, Direction]:
    """The direction of each model.

    Args:
        serving: the version of each model that is in service.
        channels: what every channel points at.
        rules: which channels count here.

    Returns:
        By model. A canary or a shadow that is the live version is none; one version is never both, and is the
        canary then.
    """
    points = {(one.model, one.channel): one.version for one in channels}
    return {name: _direction(name, live, points, rules) for name, live in serving.items()}


def _direction(name: str, live: int, points: Mapping[tuple[str, str], int], rules: Channels) -> Direction:
    canary = points.get((name, rules.canary)) if rules.weight > 0 else None
    shadow = points.get((name, rules.shadow)) if rules.shadow else None
    canary = None if canary == live else canary
    shadow = None if shadow in (live, canary) else shadow
    return Direction(live, canary, rules.weight if canary is not None else 0.0, shadow)
