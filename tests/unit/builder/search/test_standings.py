"""Standings: rows before and after the finals."""

from tailorbird.builder.search import standings
from tailorbird.builder.search.choose import Choice
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.errors import StepCrashed, StepOutOfMemory, StepTimedOut, TailorbirdError
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.objective import Goal
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tailorbird.domain.profile import Profile
from tailorbird.domain.target import Target

SHAPES = {"x": (1, 4)}


def outcome(milliseconds: list[float], status: Status = Status.SLOWER) -> Outcome:
    candidate = Candidate(
        Target("ort", "cpu", "avx2"), Precision.FP32, Profile.static(SHAPES), ShapeMode.STATIC, threads=1
    )
    rows = [LatencyRow(edge, SHAPES, 1, 1, Latency.of(milliseconds)) for edge in ("min", "opt") if milliseconds]
    return Outcome(candidate, status, "", tuple(rows))


def test_the_least_run_counts_and_only_of_those_still_standing() -> None:
    found = standings.least(
        {"a": outcome([3, 2, 9]), "b": outcome([1.0], Status.REFUSED), "c": outcome([], Status.SLOWER)}, Goal()
    )
    assert found == {"a": 2.0}


def test_an_error_becomes_the_status_of_its_kind() -> None:
    kinds = {
        StepCrashed("x"): Status.CRASHED,
        StepTimedOut("x"): Status.TIMED_OUT,
        StepOutOfMemory("x"): Status.OUT_OF_MEMORY,
        TailorbirdError("x", got="y"): Status.FAILED,
    }
    for error, status in kinds.items():
        lost = standings.lost(outcome([]), error)
        assert (lost.status, lost.reason) == (status, error.message)


def test_after_the_finals_every_row_has_its_reason() -> None:
    before = {
        "won": outcome([9.0]),
        "second": outcome([8.0]),
        "behind": outcome([16.0]),
        "refused": outcome([1.0], Status.REFUSED),
    }
    turns = {"won": [[2.0, 2.0], [2.0]], "second": [[3.0], [3.0]]}
    after = standings.settled(before, turns, Choice("won", "because"), Goal())
    assert (after["won"].status, after["won"].reason, after["won"].median) == (Status.CHOSEN, "because", 2.0)
    assert after["second"].reason == "1.50x the chosen engine's latency, measured in turn"
    assert after["behind"].reason == "least run 2.00x the best one's: no finalist"
    assert after["behind"].median == 16.0
    assert after["refused"] == before["refused"]


def test_a_baseline_stopped_early_gets_its_figures_but_stays_stopped() -> None:
    before = {"won": outcome([1.0]), "usual": outcome([2.0], Status.STOPPED)}
    after = standings.settled(before, {"won": [[1.0]], "usual": [[1.8, 1.8]]}, Choice("won", "because"), Goal())
    assert (after["usual"].status, after["usual"].median) == (Status.STOPPED, 1.8)


def test_the_table_leads_with_the_chosen_one_then_by_latency_then_the_rest() -> None:
    rows = [
        outcome([], Status.CRASHED),
        outcome([5.0]),
        outcome([9.0], Status.CHOSEN),
        outcome([4.0], Status.STOPPED),
        outcome([1.0], Status.REFUSED),
    ]
    assert [row.status for row in sorted(rows, key=lambda row: standings.order(row, Goal()))] == [
        Status.CHOSEN,
        Status.STOPPED,
        Status.SLOWER,
        Status.CRASHED,
        Status.REFUSED,
    ]
