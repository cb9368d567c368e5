"""Optimisation profiles of an engine: the whole range, and fixed shapes that get kernels of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Shapes


def ranges_of(candidate: Candidate, split: str) -> tuple[Profile, ...]:
    """The profiles to build a candidate with, the one that admits everything first.

    Args:
        candidate: whose profile the engine must serve.
        split: ``one``, or ``edges`` for one more at each distinct edge: kernels chosen for a range are a compromise,
            and a graph with one profile pays for it at every shape.
    """
    whole = candidate.profile
    if candidate.shape_mode is ShapeMode.STATIC:
        return (Profile.static(whole.opt),)
    if split == "one" or whole.is_static:
        return (whole,)
    return (whole, *map(Profile.static, whole.edges().values()))


def narrowest(ranges: Sequence[Profile], shapes: Shapes) -> int:
    """Index of the profile to run shapes with: of those that admit them the one with least room."""
    fitting = [index for index, one in enumerate(ranges) if _admits(one, shapes)]
    return min(fitting, key=lambda index: (_room(ranges[index]), index), default=0)


def _admits(profile: Profile, shapes: Shapes) -> bool:
    return all(
        all(low <= size <= high for low, size, high in zip(profile.min[name], shape, profile.max[name], strict=True))
        for name, shape in shapes.items()
        if name in profile.min
    )


def _room(profile: Profile) -> int:
    """How many shapes it admits, as far as that tells one from another."""
    return math.prod(
        high - low + 1
        for name, shape in profile.max.items()
        for low, high in zip(profile.min[name], shape, strict=True)
    )
