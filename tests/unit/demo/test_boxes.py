import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.demo.boxes import Box, boxes, grown, regions, rows


def map_with(*rectangles: tuple[slice, slice], value: float = 0.9) -> np.ndarray:
    probabilities = np.zeros((100, 200), np.float32)
    for place in rectangles:
        probabilities[place] = value
    return probabilities


def test_a_rectangle_becomes_one_box_grown_by_ratio_times_area_over_perimeter() -> None:
    (box,) = boxes(map_with((slice(40, 50), slice(60, 100))))
    by = round(1.5 * 400 / 100)
    assert (box.left, box.top, box.right, box.bottom) == (60 - by, 40 - by, 100 + by, 50 + by)
    assert box.score == pytest.approx(0.9)


def test_weak_regions_and_specks_are_dropped() -> None:
    weak = map_with((slice(10, 20), slice(10, 60)), value=0.4)
    speck = map_with((slice(70, 72), slice(10, 60)))
    assert boxes(weak + speck) == []


def test_an_empty_map_has_no_boxes() -> None:
    assert boxes(np.zeros((32, 32), np.float32)) == []


def test_growing_stops_at_the_edges_of_the_image() -> None:
    assert grown(Box(0, 0, 40, 20, 1.0), 800, 22, 41) == Box(0, 0, 41, 22, 1.0)


def test_regions_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0:2, 0:2] = mask[2:4, 2:4] = True
    assert len(regions(mask)) == 1


def test_two_arms_that_meet_below_are_one_region() -> None:
    mask = np.zeros((5, 7), bool)
    mask[:, 1] = mask[:, 5] = mask[4, 1:6] = True
    assert len(regions(mask)) == 1
    mask[4, 3] = False
    assert len(regions(mask)) == 2


@given(st.integers(0, 2**31), st.floats(0.1, 0.9))
def test_regions_are_those_that_flooding_finds(seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((12, 15)) < density
    found = sorted(
        sorted((row, column) for row, start, end in region for column in range(start, end)) for region in regions(mask)
    )
    assert found == sorted(flooded(mask))


def flooded(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Connected regions the plain way, pixel by pixel."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    found = []
    while left:
        waiting, region = [left.pop()], []
        while waiting:
            row, column = waiting.pop()
            region.append((row, column))
            near = {(row + up, column + side) for up in (-1, 0, 1) for side in (-1, 0, 1)} & left
            left -= near
            waiting += near
        found.append(sorted(region))
    return found


def test_rows_read_from_the_top_and_from_the_left() -> None:
    price, name = Box(80, 12, 99, 30, 1.0), Box(0, 10, 40, 31, 1.0)
    title, below = Box(20, 0, 70, 8, 1.0), Box(5, 33, 60, 50, 1.0)
    assert rows([below, price, title, name]) == [[title], [name, price], [below]]


def test_a_crop_is_the_part_inside() -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert Box(1, 2, 4, 4, 1.0).crop(pixels).tolist() == pixels[2:4, 1:4].tolist()
