"""The course: what every candidate of one build is taken over, and the processes it is taken over it in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tailorbird.backends.isolate import Worker
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.cases.places import Place
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.lowering.lowering import Lowering
from tailorbird.builder.search import steps
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.objective import Goal
from tailorbird.domain.signature import Signature

STEPS = "tailorbird.builder.search.steps"


@dataclass(frozen=True)
class Course:
    """One build's model, cases, rules and places to write to."""

    signature: Signature
    cases: tuple[Case, ...]
    """Inputs and the source's outputs at every place."""
    probes: tuple[Case, ...]
    """Calibration inputs and the source's outputs: what the layers' errors are measured on."""
    config: BuildConfig
    metric: str
    """What scores outputs against labels; empty without labels."""
    lowering: Lowering
    folder: Path
    """A private directory for engines and the children's logs."""
    log: BuildLog

    @property
    def goal(self) -> Goal:
        """What fastest means."""
        return self.config.goal

    @property
    def racing_place(self) -> Place:
        """Where candidates are first looked at: opt, or for throughput the largest batch."""
        return max(self.places, key=lambda place: place.rows) if self.goal.is_throughput else self.places[0]

    @property
    def places(self) -> tuple[Place, ...]:
        """Every place of the cases, once, opt first."""
        return tuple({case.place.edge: case.place for case in self.cases}.values())

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget allows no further candidate; a quarter of it is kept for the finals."""
        return 0 < 0.75 * self.config.time_budget < self.log.seconds

    def engine(self, candidate: Candidate) -> Path:
        """The directory of a candidate's engine."""
        return self.folder / candidate.name.replace(" ", "_")

    def args(self, candidate: Candidate, edge: str = "opt", runs: int = 0) -> steps.StepArgs:
        """What a step of this candidate is given; the graph to compile is named by whoever compiles."""
        return steps.StepArgs(candidate, self.signature, "", str(self.engine(candidate)), self.cases,
                              self.config.budget, self.metric, edge, runs)  # fmt: skip

    def worker(self, name: str) -> Worker:
        """A fresh process; ``name`` is that of its log. A metric of the user's own is found where they called us."""
        return Worker(self.config.limits, self.folder / f"{name}.log", (str(Path.cwd()),), self.folder)
