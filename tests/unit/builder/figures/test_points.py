"""Points: who is in the plot, where, and along which search."""

import msgspec
import pytest

from tailorbird.builder.figures.points import family, plot_of
from tailorbird.domain.budget import Budget
from tailorbird.domain.objective import Goal, Objective
from tailorbird.domain.quantisation import Ranges
from tests.unit.builder.figures import builds


def test_all_that_met_the_gate_are_in_it_and_no_other() -> None:
    outcomes = builds.outcomes()
    plot = plot_of(outcomes, Budget(), builds.BASELINE)
    assert plot is not None
    assert {point.name for point in plot.points} == {one.candidate.name for one in outcomes if one.gate is not None}
    assert {point.name for point in plot.points if point.chosen} == {builds.WINNER}
    by_name = {point.name: point for point in plot.points}
    assert by_name[builds.BASELINE].x == pytest.approx(1.0)
    assert by_name[builds.WINNER].x == pytest.approx(9.71 / 3.31)
    assert by_name[builds.WINNER].y == 21.4
    assert not by_name["openvino int8 static t2 nncf bf16-rest"].passed


def test_without_labels_the_limit_is_the_fidelitys() -> None:
    plot = plot_of(builds.outcomes(), Budget(snr_db=17.0), builds.BASELINE)
    assert plot is not None
    assert (plot.limit, plot.top) == (17.0, None)


def test_with_labels_it_is_the_metrics() -> None:
    plot = plot_of(builds.outcomes(labelled=True), Budget(), builds.BASELINE)
    assert plot is not None
    assert plot.top == builds.FP32_SCORE
    assert plot.limit == pytest.approx(0.99 * builds.FP32_SCORE)
    assert plot.y_title == "top1, FP32 78.12"
    assert {point.y for point in plot.points if point.name == builds.WINNER} == {77.734}


def test_a_search_is_a_path_from_nothing_kept_to_most_kept() -> None:
    plot = plot_of(builds.outcomes(), Budget(), builds.BASELINE)
    assert plot is not None
    seed = "openvino int8 static t2 nncf bf16-rest"
    path = next(path for path in plot.paths if path.names[0] == seed)
    assert path.names[1:] == tuple(f"{seed} kept{count}" for count in (3, 6, 9, 18))
    assert path.labels[1:] == ("kept 3", "kept 6", "kept 9", "kept 18")
    assert len(plot.paths) == 2  # a lone "nncf kept9" beside fp32 is no search that can be followed


def test_without_a_baseline_x_is_in_milliseconds() -> None:
    plot = plot_of(builds.outcomes(), Budget())
    assert plot is not None
    assert (plot.baseline, plot.x_title) == ("", "milliseconds")
    assert min(point.x for point in plot.points) == pytest.approx(2.72)
    rows = plot_of(builds.outcomes(), Budget(), "", Goal(Objective.THROUGHPUT))
    assert rows is not None
    assert rows.x_title == "milliseconds a row"


def test_a_single_engine_makes_no_plot() -> None:
    assert plot_of(builds.outcomes()[:1], Budget()) is None
    ungated = [msgspec.structs.replace(one, gate=None) for one in builds.outcomes()]
    assert plot_of(ungated, Budget()) is None


def test_families_tell_apart_what_is_quantised_and_how_much() -> None:
    asked = {
        "fp32": builds.candidate("openvino", "fp32"),
        "half": builds.candidate("openvino", "bf16"),
        "int8": builds.candidate("openvino", "int8", 2, builds.way("nncf", "bf16", 0, Ranges.ENTROPY)),
        "mixed": builds.candidate("openvino", "int8", 2, builds.way("nncf", "bf16", 2)),
        "weights": builds.candidate("openvino", "bf16", 2, builds.way("weights", "bf16", 0, None)),
    }
    assert {name: family(candidate) for name, candidate in asked.items()} == {name: name for name in asked}
