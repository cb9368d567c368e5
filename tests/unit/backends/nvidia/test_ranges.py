"""Optimisation profiles: what a candidate is built with, and which of them a request runs with."""

import msgspec
import pytest

from tailorbird.backends.nvidia.ranges import narrowest, ranges_of
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.profile import Profile

RANGE = Profile(min={"x": (1, 16)}, opt={"x": (4, 16)}, max={"x": (8, 16)})


def of(candidate: Candidate, profile: Profile, mode: ShapeMode = ShapeMode.DYNAMIC) -> Candidate:
    return msgspec.structs.replace(candidate, profile=profile, shape_mode=mode)


def test_the_whole_range_comes_first_and_every_edge_after_it(candidate: Candidate) -> None:
    fixed = [Profile.static({"x": (rows, 16)}) for rows in (4, 1, 8)]
    assert ranges_of(of(candidate, RANGE), "edges") == (RANGE, *fixed)


def test_an_edge_that_is_another_one_is_not_built_twice(candidate: Candidate) -> None:
    profile = msgspec.structs.replace(RANGE, min=RANGE.opt)
    assert len(ranges_of(of(candidate, profile), "edges")) == 3


def test_one_profile_where_one_is_asked_for_or_one_shape_is_all(candidate: Candidate) -> None:
    assert ranges_of(of(candidate, RANGE), "one") == (RANGE,)
    fixed = Profile.static(RANGE.opt)
    assert ranges_of(of(candidate, fixed), "edges") == (fixed,)
    assert ranges_of(of(candidate, RANGE, ShapeMode.STATIC), "edges") == (fixed,)


@pytest.mark.parametrize(("rows", "index"), [(4, 1), (1, 2), (8, 3), (5, 0), (2, 0)])
def test_a_request_runs_with_the_narrowest_that_admits_it(candidate: Candidate, rows: int, index: int) -> None:
    assert narrowest(ranges_of(of(candidate, RANGE), "edges"), {"x": (rows, 16)}) == index


def test_of_two_ranges_the_one_with_less_room_is_taken() -> None:
    upper = msgspec.structs.replace(RANGE, min={"x": (5, 16)}, opt={"x": (8, 16)})
    assert narrowest([RANGE, upper], {"x": (6, 16)}) == 1
    assert narrowest([RANGE, upper], {"x": (4, 16)}) == 0
