"""The scatter plot: well-formed SVG with every engine, the budget and the search in it."""

import re
from xml.etree import ElementTree

import msgspec
import pytest

from tailorbird.builder.figures.points import Plot, Point, plot_of
from tailorbird.builder.figures.scatter import scatter_svg
from tailorbird.domain.budget import Budget
from tests.unit.builder.figures import builds

SVG = "{http://www.w3.org/2000/svg}"


def plot(labelled: bool = False) -> Plot:
    found = plot_of(builds.outcomes(labelled), Budget(), builds.BASELINE)
    assert found is not None
    return found


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [" ".join("".join(part.itertext()).split()) for part in parsed(svg).iter() if part.tag.endswith("text")]


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("size", [(720, 420), (350, 330)])
def test_every_engine_has_its_mark_and_its_name_on_it(labelled: bool, size: tuple[int, int]) -> None:
    shown = plot(labelled)
    tips = [tip.text or "" for tip in parsed(scatter_svg(shown, *size)).iter("title")]
    assert sorted(tip.splitlines()[0] for tip in tips) == sorted(point.name for point in shown.points)
    assert any("gate failed: " in tip for tip in tips)


@pytest.mark.parametrize("size", [(720, 420), (350, 330)])
def test_the_winner_the_budget_and_the_search_are_named(size: tuple[int, int]) -> None:
    svg = scatter_svg(plot(), *size)
    found = texts(svg)
    assert "budget 20 dB" in found
    assert builds.WINNER.replace(" ", "") in [text.replace(" ", "") for text in found]
    assert {"kept 3", "kept 6", "kept 18"} <= set(found)
    assert svg.count('class="search"') == 2
    assert svg.count('class="ring"') == 2  # the mark and its place in the legend


def test_refused_ones_are_hollow_and_passed_ones_are_not() -> None:
    shown = plot()
    marks = parsed(scatter_svg(shown)).iter("g")
    hollow = [mark for mark in marks if "refused" in mark[-1].get("class", "")]
    assert len(hollow) == sum(not point.passed for point in shown.points) == 8


def test_everything_lies_within_the_view() -> None:
    for size in ((720, 420), (350, 330)):
        svg = parsed(scatter_svg(plot(), *size))
        width, height = map(float, svg.get("viewBox", "").split()[2:])
        for part in svg.iter():
            for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                assert 0 <= float(part.get(name, "0").rstrip("%")) <= most


def test_marks_far_from_the_budget_are_drawn_at_the_end() -> None:
    svg = scatter_svg(plot())
    assert "≥ 60" in texts(svg)
    assert "≤ 73" in texts(scatter_svg(plot(labelled=True)))


def test_it_can_be_told_without_being_seen() -> None:
    told = parsed(scatter_svg(plot())).get("aria-label", "")
    assert told.endswith(f"9 passed the gate. Chosen: {builds.WINNER}, 2.93 times as fast, 21.4.")


def test_a_file_of_its_own_has_its_colours_fixed_and_needs_nothing() -> None:
    svg = scatter_svg(plot(), standalone=True)
    root = parsed(svg)
    assert root.tag == f"{SVG}svg"
    assert "var(" not in svg
    assert not re.search(r"href|url\(|@import|<script", svg)
    assert root.find(f"{SVG}style") is not None


def test_names_are_text_and_what_xml_cannot_hold_is_left_out() -> None:
    evil = "<script>\x1b[31m\"&'"
    points = (Point(evil, 1.0, 20.0, "fp32", evil, True, True, evil), Point("b", 2.0, 30.0, "int8", "b", False))
    root = parsed(scatter_svg(Plot(points, evil), standalone=True))
    assert not list(root.iter(f"{SVG}script"))
    assert any("<script>[31m" in (tip.text or "") for tip in root.iter(f"{SVG}title"))


def test_equal_points_are_drawn_too() -> None:
    same = tuple(Point(name, 1.0, 300.0, "fp32", "a", True) for name in "ab")
    assert len(list(parsed(scatter_svg(Plot(same, "SNR"))).iter("title"))) == 2
    limited = msgspec.structs.replace(Plot(same, "SNR"), limit=20.0)
    assert "budget 20 dB" in texts(scatter_svg(limited))
