"""Labels: broken between words, placed where nothing else is."""

from itertools import combinations

import pytest

from tailorbird.builder.figures.labels import Box, Wish, around, placed, wrapped

FRAME = Box(0, 0, 300, 200)


def test_lines_are_about_as_long_as_one_another() -> None:
    name = "openvino int8 static t2 nncf bf16-rest kept9"
    assert wrapped(name, 24) == ("openvino int8 static t2", "nncf bf16-rest kept9")
    assert wrapped("onnxruntime fp32 static t2", 24) == ("onnxruntime", "fp32 static t2")
    assert wrapped("short", 24) == ("short",)


def test_a_word_longer_than_a_line_stays_whole() -> None:
    assert wrapped("a bbbbbbbbbb c", 4) == ("a", "bbbbbbbbbb", "c")


def test_no_label_meets_another_or_a_point_or_the_frame() -> None:
    spots = [(30.0 + 17 * n, 40.0 + 13 * (n % 5)) for n in range(12)]
    points = [around(x, y, 6.0) for x, y in spots]
    found = placed([Wish(x, y, (f"kept {n}",)) for n, (x, y) in enumerate(spots)], points, [Box(0, 0, 60, 20)], FRAME)
    assert len(found) > 6
    boxes = [label.box for label in found]
    assert not [pair for pair in combinations(boxes, 2) if pair[0].meets(pair[1])]
    assert not [box for box in boxes for other in (*points, Box(0, 0, 60, 20)) if box.meets(other)]
    assert all(box.inside(FRAME) for box in boxes)


def test_a_label_is_nearest_to_its_own_point_or_has_a_line_to_it() -> None:
    spots = [(100.0, 100.0), (108.0, 100.0), (116.0, 100.0), (108.0, 108.0), (100.0, 92.0)]
    points = [around(x, y, 6.0) for x, y in spots]
    found = placed([Wish(108.0, 100.0, ("a name",))], points, [], FRAME)
    assert found
    near = {spot: found[0].box.gap(around(*spot, 0.0)) for spot in spots}
    assert found[0].far or min(near, key=near.__getitem__) == (108.0, 100.0)


def test_without_room_a_label_is_left_out() -> None:
    assert placed([Wish(5, 5, ("a long name",))], [around(5, 5, 6)], [], Box(0, 0, 20, 20)) == []


@pytest.mark.parametrize(
    ("other", "gap"), [(Box(20, 0, 30, 10), 10.0), (Box(5, 5, 8, 8), 0.0), (Box(13, 14, 20, 20), 5.0)]
)
def test_the_gap_between_boxes(other: Box, gap: float) -> None:
    assert Box(0, 0, 10, 10).gap(other) == gap
