"""Statistics: every number is where Triton's users look for it."""

import asyncio

import pytest

from tailorbird.domain.errors import BackendError, InputError, NotReady, Overloaded
from tailorbird.serving.batching.queueing import Reason
from tailorbird.serving.batching.runs import Batch
from tailorbird.serving.statistics import BOUNDS, RECENT, Failure, Histogram, Phase, VersionStatistics, kind_of


def test_a_histogram_counts_by_upper_bounds() -> None:
    found = Histogram()
    found.add(BOUNDS[0])
    found.add(BOUNDS[0] * 1.01, 2)
    found.add(1e9)
    assert (found.counts[0], found.counts[1], found.counts[-1], found.count) == (1, 2, 1, 4)
    assert found.sum == pytest.approx(1e9)


def test_a_batch_counts_rows_runs_padding_and_phases() -> None:
    found = VersionStatistics()
    found.batch(Batch(3, 2, 5, Reason.WAITED, (0.01, 0.02), 0.001, 0.1, 0.002))
    found.batch(Batch(8, 1, 0, Reason.FULL, (0.0,), 0.0, 0.2, 0.0, failed=True))
    assert (found.rows, found.runs, found.padding) == (3, 2, 5)
    assert found.phases[Phase.QUEUE].count == 3
    assert found.phases[Phase.QUEUE].sum == pytest.approx(0.03)
    assert found.phases[Phase.RUN].sum == pytest.approx(0.3)
    assert found.reasons == {"waited": 1, "full": 1}
    assert {rows: one.count for rows, one in found.sizes.items()} == {3: 1, 8: 1}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Overloaded("full"), Failure.REJECTED),
        (NotReady("restarting"), Failure.REJECTED),
        (asyncio.CancelledError(), Failure.CANCELED),
        (BackendError("crashed"), Failure.BACKEND),
        (InputError("wrong shape"), Failure.OTHER),
        (ValueError("a defect"), Failure.BACKEND),
    ],
)
def test_failures_are_told_apart_as_triton_does(error: BaseException, kind: Failure) -> None:
    found = VersionStatistics()
    found.failure(error, 0.5)
    assert kind_of(error) is kind
    assert (found.failures[kind], found.failed_seconds) == (1, 0.5)


def test_what_is_kept_for_the_page_is_bounded() -> None:
    found = VersionStatistics()
    for number in range(2 * RECENT):
        found.answer(number)
        found.failure(BackendError("crashed"), 0.0)
    assert len(found.recent) == RECENT
    assert len(found.troubles) == 20
    assert found.troubles[-1].what == "crashed"
