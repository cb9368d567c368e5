"""The build, as a table of contents: source, normalise, cases, oracle, candidates, race, bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tailorbird import __version__
from tailorbird.backends import registry
from tailorbird.backends.base import Capabilities
from tailorbird.backends.host import cpu_facts, usable_cores
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.gate.metrics import resolve_metric
from tailorbird.builder.groundwork import PROBES, Groundwork
from tailorbird.builder.intake import Intake
from tailorbird.builder.prepare import Cases, Prepared
from tailorbird.builder.quantise.lowering import Lowering, Material
from tailorbird.builder.recall import Recall
from tailorbird.builder.report import read_events, write_report
from tailorbird.builder.search.candidates import baseline_of, candidates_for, capabilities_for
from tailorbird.builder.search.course import Course
from tailorbird.builder.search.profile import profiled
from tailorbird.builder.search.race import Race
from tailorbird.builder.sources.source import program_digest
from tailorbird.domain import bundle
from tailorbird.domain.budget import GateReport
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import NoEngineError
from tailorbird.domain.layers import LAYERS, LayerBook, encode_layers
from tailorbird.domain.manifest import Manifest, Provenance
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.outline import OUTLINE


@dataclass(frozen=True)
class Built:
    """A finished build: the version directory inside the build's own folder, to be packed or published."""

    manifest: Manifest
    version_dir: Path


class Build:
    """One build inside one working directory; the steps below run in the order they are written.

    Args:
        intake: the source and the data.
        whole: the build's fingerprint.
        config: the settings.
        folder: a private directory, with the build log in it.
        recall: the way to the cache.
        log: the build log.
    """

    def __init__(self, intake: Intake, whole: dict[str, str], config: BuildConfig, folder: Path,
                 recall: Recall, log: BuildLog) -> None:  # fmt: skip
        self._config = config
        self._folder = folder
        self._source = intake.source
        self._threads = max(config.threads, default=usable_cores())
        self._recall = recall
        self._log = log
        self._whole = whole
        self._ground = Groundwork(intake, whole, config, folder, recall, log)

    def run(self, name: str | None = None) -> Built:
        """All steps.

        Raises:
            UsageError, ModelError, InputError: the source, shapes or data are wrong.
            NoEngineError: no candidate passed; its ``outcomes`` hold the table.
        """
        able = capabilities_for(self._config)
        versions = _versions(able)
        prepared, cases = self._ground.lay()
        candidates, baseline = self._candidates(prepared, cases, able)
        course = self._course(prepared, cases)
        race = Race(course)
        outcomes = tuple(race.run(candidates, baseline))
        winner = _winner(outcomes)
        layers = profiled(course, race.podium)
        self._log.write("finished", seconds=round(self._log.seconds, 1))
        manifest = Manifest(
            model=name or self._source.name,
            candidate=winner.candidate,
            format=able[winner.candidate.target.runtime].format,
            signature=prepared.signature,
            files={},
            executed=winner.executed,
            latency=winner.latency,
            gate=_passed(winner),
            budget=self._config.budget,
            outcomes=outcomes,
            baseline=baseline,
            goal=self._config.goal,
            provenance=self._provenance(prepared, versions),
        )
        return self._seal(course.engine(winner.candidate), manifest, layers)

    def _candidates(
        self, prepared: Prepared, cases: Cases, able: dict[str, Capabilities]
    ) -> tuple[tuple[Candidate, ...], str]:
        """What takes part, and the name of the one that speed-ups are told against."""
        dynamic, backends = bool(prepared.signature.dynamic_dims), tuple(able.values())
        entrants = candidates_for(cases.profile, self._config, dynamic, backends, bool(cases.calibration))
        baseline = baseline_of(entrants.candidates, backends)
        self._log.write("candidates", names=[candidate.name for candidate in entrants.candidates], baseline=baseline,
                        left_out=entrants.left_out)  # fmt: skip
        return entrants.candidates, baseline

    def _course(self, prepared: Prepared, cases: Cases) -> Course:
        engines = self._folder / "engines"
        engines.mkdir()
        material = Material(
            model=str(self._ground.normalised),
            digest=prepared.normalised_digest,
            samples=tuple(case.inputs for case in cases.calibration),
            data_digest=cases.data_digest,
            threads=self._threads,
            seed=self._config.seed,
        )
        return Course(
            signature=prepared.signature,
            cases=cases.cases,
            probes=cases.calibration[:PROBES],
            config=self._config,
            metric=resolve_metric(self._config.metric, self._config.budget, cases.labelled),
            lowering=Lowering(
                material, self._config.limits, engines, self._recall, self._log, until=0.8 * self._config.time_budget
            ),
            folder=engines,
            log=self._log,
        )

    def _seal(self, engine: Path, manifest: Manifest, layers: LayerBook) -> Built:
        """The version directory: engine, build log, report, and a manifest over all of them."""
        version_dir = engine.rename(self._folder / "version")
        papers = version_dir / "tailorbird"
        papers.mkdir()
        (self._folder / "build.jsonl").rename(papers / "build.jsonl")
        shutil.copyfile(self._ground.outline, version_dir / OUTLINE)
        (version_dir / LAYERS).write_bytes(encode_layers(layers))
        write_report(papers / "report.html", manifest, read_events(papers / "build.jsonl"), layers)
        return Built(bundle.seal(version_dir, manifest), version_dir)

    def _provenance(self, prepared: Prepared, versions: dict[str, str]) -> Provenance:
        return Provenance(
            source=Path(self._source.text).name,
            source_digest=program_digest(self._source) if self._source.is_program else prepared.source_digest,
            normalised_digest=prepared.normalised_digest,
            passes=prepared.passes,
            versions=versions,
            device=cpu_facts(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            ingredients=self._whole,
        )


def _passed(winner: Outcome) -> GateReport:
    """The winner's gate report: the last door, which nothing without a passed gate goes through."""
    if winner.gate is None or not winner.gate.passed:
        raise NoEngineError("the chosen engine has no passed gate", got=winner.candidate.name)
    return winner.gate


def _winner(outcomes: tuple[Outcome, ...]) -> Outcome:
    for outcome in outcomes:
        if outcome.status is Status.CHOSEN:
            return outcome
    raise no_engine(outcomes)


def no_engine(outcomes: tuple[Outcome, ...]) -> NoEngineError:
    """The error for a table without a winner: names the nearest miss and carries the table."""
    gated = [outcome for outcome in outcomes if outcome.gate is not None]
    nearest = max(gated, key=_nearness, default=None)
    reasons = "; ".join(sorted({outcome.reason for outcome in outcomes}))
    missed = f"{nearest.candidate.name}: {nearest.reason}" if nearest else reasons
    error = NoEngineError("no candidate passed the gate", got=missed or "no candidate to try",
                          hint="see the table for each reason")  # fmt: skip
    error.outcomes = outcomes
    return error


def _nearness(outcome: Outcome) -> tuple[int, float]:
    """Fewer broken rules are nearer; among equals, the better worst signal-to-noise ratio."""
    assert outcome.gate is not None
    worst = outcome.gate.worst("snr_db")
    return -len(outcome.gate.failures), -300.0 if worst is None else worst


def _versions(able: dict[str, Capabilities]) -> dict[str, str]:
    found = {name: registry.backend(name).probe().version for name in able}
    return {"tailorbird": __version__, **found}
