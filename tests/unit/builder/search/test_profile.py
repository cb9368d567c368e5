"""Profiles: a real engine in a process of its own; one that cannot be profiled is a line of the log."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tailorbird.backends import registry
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.cases.data import save_set
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.search import standings
from tailorbird.builder.search.course import Course
from tailorbird.builder.search.profile import profiled
from tailorbird.domain.candidate import Candidate, ShapeMode
from tailorbird.domain.config import BuildConfig, Limits
from tailorbird.domain.latency import Latency, LatencyRow
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.precision import Precision
from tests.contract import models

pytest.importorskip("onnxruntime")


class Source:
    """All that a profile asks of a lowering: the normalised graph."""

    def __init__(self, model: Path) -> None:
        self.normalised = model


class Race:
    """A course over ``models.block`` with one engine that is really there, and its log."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        case = models.block()
        model = case.write(folder)
        save_set(folder / "inputs.npz", case.inputs)
        place = Place("opt", {name: array.shape for name, array in case.inputs.items()}, 2)
        found = Case(place, str(folder / "inputs.npz"), "", True)
        self.events: list[dict[str, Any]] = []
        log = BuildLog(folder / "build.jsonl", self.events.append)
        lowering: Any = Source(model)
        self.course = Course(case.signature, (found,), (), BuildConfig(limits=limits), "", lowering, folder, log)
        backend = registry.backend("onnxruntime")
        candidate = Candidate(backend.capabilities().target, Precision.FP32, case.profile, ShapeMode.DYNAMIC, 1)
        engine = self.course.engine(candidate)
        engine.mkdir()
        backend.compile(model, candidate, engine)
        row = LatencyRow("opt", place.shapes, 2, 1, Latency.of([1.0, 2.0]))
        self.chosen = Outcome(candidate, Status.CHOSEN, "", (row,))
        self.lost = Outcome(msgspec.structs.replace(candidate, threads=7), Status.SLOWER, "", (row,))


def test_both_are_profiled_at_the_place_that_decided(tmp_path: Path) -> None:
    race = Race(tmp_path, Limits())
    (table,) = profiled(race.course, [race.chosen]).engines
    assert (table.candidate, table.edge) == (race.chosen.candidate.name, "opt")
    assert table.latency > 0
    assert 5 <= table.runs <= 50
    nodes = [name for layer in table.layers for name in layer.nodes]
    assert sorted(nodes) == sorted(node.name for node in models.block().model.graph.node)
    (event,) = race.events
    assert (event["event"], event["layers"]) == ("profiled", len(table.layers))


def test_an_engine_that_is_gone_is_told_of_and_ends_nothing(tmp_path: Path) -> None:
    race = Race(tmp_path, Limits())
    book = profiled(race.course, [race.lost, race.chosen])
    assert [table.candidate for table in book.engines] == [race.chosen.candidate.name]
    assert [event["event"] for event in race.events] == ["not profiled", "profiled"]
    assert race.events[0]["reason"].startswith("onnxruntime could not open the engine")


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(seconds=0.05), "step 'profile_engine' took too long and was stopped"),
        (Limits(memory_bytes=8 << 20), "step 'profile_engine' used too much memory and was stopped"),
    ],
)
def test_a_profile_that_goes_over_a_limit_is_told_of(tmp_path: Path, limits: Limits, reason: str) -> None:
    race = Race(tmp_path, limits)
    assert profiled(race.course, [race.chosen]).engines == ()
    (event,) = race.events
    assert event["event"] == "not profiled"
    assert event["reason"].startswith(reason)


def test_the_podium_is_the_chosen_one_and_the_best_other_one_in_turn(tmp_path: Path) -> None:
    race = Race(tmp_path, Limits())
    chosen, lost = race.chosen, race.lost
    third = msgspec.structs.replace(lost, candidate=msgspec.structs.replace(lost.candidate, threads=3))
    outcomes = {one.candidate.name: one for one in (third, lost, chosen)}
    names = (lost.candidate.name, chosen.candidate.name, third.candidate.name)
    assert standings.podium(outcomes, names) == (chosen, lost)
    assert standings.podium(outcomes, names[1:2]) == (chosen,)
    assert standings.podium({lost.candidate.name: lost}, (lost.candidate.name,)) == ()
