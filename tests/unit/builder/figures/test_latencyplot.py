"""The latency plot: every place and every count of instances, and labels that keep their distance."""

import itertools
import re

from tailorbird.builder.figures.labels import text_width
from tailorbird.builder.figures.latencyplot import latency_plot
from tailorbird.domain.latency import Latency, LatencyRow
from tests.unit.builder.figures import builds


def row(edge: str, shape: tuple[int, ...], instances: int = 1, median: float = 1.0) -> LatencyRow:
    return LatencyRow(edge, {"<x>": shape}, shape[0], instances, Latency.of([median, median, 1.5 * median]))


def test_one_place_needs_no_plot() -> None:
    assert latency_plot([builds.row(3.0)]) == ""


def test_batches_are_told_by_their_rows() -> None:
    rows = [row("opt", (4, 3)), row("min", (1, 3)), row("max", (16, 3), median=3.0)]
    page = latency_plot(rows)
    assert page.count("<svg") == 2
    assert "rows in a batch" in page
    assert re.findall(r'class="tick middle"[^>]*>(\w+)<', page) == ["1", "4", "16"] * 2
    assert "16x3\n1 instance: 3 ms, 99 % within" in page
    assert "legend" not in page


def test_other_shapes_are_told_by_their_places_names() -> None:
    page = latency_plot([row("min", (1, 8)), row("opt", (1, 32)), row("max", (2, 64))])
    assert re.findall(r'class="tick middle"[^>]*>(\w+)<', page) == ["min", "opt", "max"] * 2
    assert "places, from small to large" in page


def test_each_count_of_instances_has_a_line_a_shape_and_a_name() -> None:
    page = latency_plot([row(edge, (size, 3), count) for edge, size in (("min", 1), ("max", 8)) for count in (1, 2, 4)])
    assert page.count('class="series') == 2 * 3
    assert page.count('class="spread"') == 2 * 6
    for text in ("1 instance", "2 instances side by side", "4 instances side by side"):
        assert text in page


def test_many_long_names_never_meet() -> None:
    page = latency_plot([row(f"batch{1 << n}", (1 << n, 3 + n)) for n in range(14)])
    found = re.findall(r'class="tick middle" x="([\d.]+)"[^>]*>(\w+)<', page.split("</svg>")[0])
    assert 4 <= len(found) < 14
    ends = [(float(x) - text_width(text) / 2, float(x) + text_width(text) / 2) for x, text in found]
    assert all(one[1] < two[0] for one, two in itertools.pairwise(ends))
    assert ends[-1][1] <= 360


def test_names_are_text() -> None:
    page = latency_plot([row("<b>", (1, 3)), row("max", (2, 3))])
    assert "<b>" not in page
    assert "&lt;x&gt;" in page
