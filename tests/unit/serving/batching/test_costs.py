"""Costs follow the table between and beyond what was measured, never fall with rows, and learn from what is seen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.serving.batching.costs import Costs, CostTable


def row(rows, milliseconds, width=16, instances=1, edge="batch", p90=None):
    latency = Latency(milliseconds, milliseconds, milliseconds, milliseconds, p90 or milliseconds, milliseconds, 100)
    return LatencyRow(edge, {"x": (rows, width)}, rows, instances, latency)


TABLE = CostTable([row(2, 12.0, edge="opt"), row(1, 10.0, edge="min"), row(4, 20.0), row(8, 60.0, edge="max")])


def test_it_is_linear_between_what_was_measured():
    found = [TABLE.seconds(rows) for rows in (1, 2, 3, 4, 6, 8)]
    assert found == pytest.approx([0.010, 0.012, 0.016, 0.020, 0.040, 0.060])


def test_beyond_the_table_it_goes_on_as_it_last_rose():
    assert TABLE.seconds(10) == pytest.approx(0.080)


def test_below_the_fewest_measured_rows_it_is_what_those_took():
    static = CostTable([row(8, 60.0, edge="opt")])
    assert [static.seconds(rows) for rows in (1, 7, 8)] == pytest.approx([0.06] * 3)


def test_of_a_single_measurement_it_goes_up_in_proportion():
    assert CostTable([row(2, 10.0, edge="opt")]).seconds(6) == pytest.approx(0.030)


def test_more_rows_are_never_cheaper():
    noisy = CostTable([row(1, 10.0, edge="opt"), row(2, 8.0), row(4, 30.0)])
    assert [noisy.seconds(rows) for rows in (1, 2, 3, 4)] == pytest.approx([0.010, 0.010, 0.020, 0.030])


def test_an_empty_table_knows_nothing_and_learns_nothing():
    table = CostTable([])
    costs = Costs(table, 16)
    costs.observe(1, 1, 5.0)
    assert not table.known
    assert (costs.seconds(3), costs.at_most(3)) == (0.0, 0.0)


def test_several_instances_have_a_curve_of_their_own():
    table = CostTable([row(1, 10.0, edge="opt"), row(1, 16.0, instances=2), row(1, 30.0, instances=4)])
    assert [table.seconds(1, busy) for busy in (1, 2, 3, 4, 9)] == pytest.approx([0.010, 0.016, 0.016, 0.030, 0.030])


def test_fewer_at_once_than_measured_cost_what_the_fewest_did():
    assert CostTable([row(1, 16.0, instances=2, edge="opt")]).seconds(1, 1) == pytest.approx(0.016)


def test_longer_rows_cost_as_the_edges_say():
    table = CostTable([row(2, 12.0, edge="opt"), row(4, 20.0), row(1, 5.0, width=8, edge="min"),
                       row(4, 60.0, width=48, edge="max")])  # fmt: skip
    # The curve ends at 2 rows below, so a row of half the width took 5 of its 12 ms; three times the width, 60 of 20.
    assert table.scale(8) == pytest.approx(5 / 12)
    assert table.scale(16) == pytest.approx(1.0)
    assert table.scale(32) == pytest.approx(2.0)
    assert table.scale(48) == pytest.approx(3.0)
    assert Costs(table, 48).seconds(2) == pytest.approx(0.036)


def test_lengths_beyond_the_edges_are_held_at_them():
    table = CostTable([row(2, 12.0, edge="opt"), row(2, 24.0, width=32, edge="max")])
    assert (table.scale(1), table.scale(1000)) == (1.0, pytest.approx(2.0))


def test_it_learns_how_much_slower_this_machine_is():
    costs = Costs(TABLE, 16)
    for _ in range(40):
        costs.observe(2, 1, 0.024)
    assert costs.seconds(4) == pytest.approx(0.040, rel=0.01)
    assert costs.at_most(4) == pytest.approx(0.040, rel=0.02)


def test_what_it_learns_beside_others_is_kept_apart():
    costs = Costs(TABLE, 16)
    costs.observe(2, 2, 0.048)
    assert costs.seconds(2, 1) == pytest.approx(0.012)
    assert costs.seconds(2, 2) > 0.012


def test_one_hiccup_is_not_a_trend():
    costs = Costs(TABLE, 16)
    costs.observe(2, 1, 12.0)  # a thousand times as long
    assert costs.seconds(2) == pytest.approx(0.012 * 1.75)


def test_before_anything_is_seen_the_bound_is_the_tables_90th_percentile():
    costs = Costs(CostTable([row(1, 10.0, edge="opt", p90=14.0)]), 16)
    assert costs.at_most(1) == pytest.approx(0.014)
    costs.observe(1, 1, 0.010)
    assert costs.at_most(1) == pytest.approx(0.013)  # it shrinks while runs agree
    for _ in range(40):
        costs.observe(1, 1, 0.010)
    assert costs.at_most(1) == pytest.approx(0.010, rel=0.01)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.floats(0.01, 1e4)), min_size=1, max_size=8, unique_by=lambda p: p[0]),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_whatever_was_measured_it_never_falls(points, some, others):
    table = CostTable([row(rows, milliseconds, edge="opt") for rows, milliseconds in points])
    few, many = sorted((some, others))
    assert 0 < table.seconds(few) <= table.seconds(many) * (1 + 1e-12)
