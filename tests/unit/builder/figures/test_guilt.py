"""Bars of the layers' errors."""

import pytest

from tailorbird.builder.figures.guilt import sensitivity_bars, shares
from tests.unit.builder.figures import builds


def test_shares_add_up_and_each_group_has_its_own_ratio() -> None:
    found = shares(
        [{"units": 4, "first": "a", "noise": {"y": 0.03, "z": 0.01}}, {"units": 1, "first": "b", "noise": {"y": 0.01}}]
    )
    assert [name for name, _, _ in found] == ["4 layers from a", "1 layer from b"]
    assert [share for _, share, _ in found] == pytest.approx([0.75, 0.25])
    assert found[1][2] == pytest.approx(20.0)


def test_no_error_at_all_is_no_division_by_nothing() -> None:
    assert shares([{"units": 2, "first": "a", "noise": {"y": 0.0}}]) == [("2 layers from a", 0.0, 300.0)]


def test_bars_name_their_candidate_and_only_where_something_was_measured() -> None:
    page = sensitivity_bars(builds.events())
    assert page.count('class="fill"') == 12
    assert "<h3>openvino int8 static t2 nncf bf16-rest</h3>" in page
    assert "51 %, 15 dB" in page
    assert sensitivity_bars([{"event": "started", "at": 0.0}]) == ""
