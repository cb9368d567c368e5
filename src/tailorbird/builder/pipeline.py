"""The build, as a table of contents: source, normalise, cases, oracle, candidates, race, bundle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tailorbird import __version__
from tailorbird.backends import registry
from tailorbird.backends.base import Capabilities
from tailorbird.backends.host import device_facts, usable_cores
from tailorbird.builder import sealing
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.gate.metrics import resolve_metric
from tailorbird.builder.groundwork import PROBES, Groundwork
from tailorbird.builder.kit.ground import KitGround
from tailorbird.builder.kit.make import Stuff, make_kit
from tailorbird.builder.lowering.lowering import Lowering, Material
from tailorbird.builder.prepare import Cases, Prepared
from tailorbird.builder.recall import Recall
from tailorbird.builder.search.candidates import baseline_of, by_promise, candidates_for, capabilities_for, takers
from tailorbird.builder.search.course import Course
from tailorbird.builder.search.profile import profiled
from tailorbird.builder.search.race import Race
from tailorbird.builder.search.unrun import compiled
from tailorbird.builder.targets import check_builds, check_threads, reason_not_to_run
from tailorbird.builder.travel import CASES, send
from tailorbird.domain.budget import GateReport
from tailorbird.domain.bundle import KEPT_KIT
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import NoEngineError
from tailorbird.domain.layers import LayerBook
from tailorbird.domain.manifest import Manifest, Provenance
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.outline import OUTLINE

Takers = tuple[tuple[Capabilities, ...], tuple[str, ...]]
"""The backends that take the source, and why the others do not."""


@dataclass(frozen=True)
class Built:
    """A finished build: the version directory inside the build's own folder, to be packed or published."""

    manifest: Manifest
    version_dir: Path


class Build:
    """One build inside one working directory; the steps below run in the order they are written.

    Args:
        ground: what the race stands on, from a source or out of a kit.
        whole: the build's fingerprint.
        config: the settings.
        folder: a private directory, with the build log in it.
        recall: the way to the cache.
        log: the build log.
    """

    def __init__(self, ground: Groundwork | KitGround, whole: dict[str, str], config: BuildConfig, folder: Path,
                 recall: Recall, log: BuildLog) -> None:  # fmt: skip
        self._ground = ground
        self._whole = whole
        self._config = config
        self._folder = folder
        self._recall = recall
        self._log = log
        self._threads = max(config.threads, default=usable_cores())

    def run(self, name: str) -> Built:
        """All steps.

        Raises:
            UsageError, ModelError, InputError: the source, shapes, data or target are wrong.
            NoEngineError: no candidate passed, or compiled; its ``outcomes`` hold the table.
        """
        able = capabilities_for(self._config)
        check_builds(able, self._ground.made_elsewhere)
        check_threads(able, self._config)
        taking = self._takers(able)
        prepared, cases = self._ground.lay()
        course = self._course(prepared, cases, until=0.8 * self._config.time_budget)
        candidates, baseline = self._candidates(prepared, cases, taking, course.lowering)
        apart = reason_not_to_run(able, self._config)
        if apart:
            baseline, layers = "", LayerBook()
            outcomes = compiled(course, by_promise(candidates, able.values()), apart)
        else:
            outcomes, layers = self._raced(course, candidates, baseline)
        winner = _winner(outcomes)
        self._log.write("finished", seconds=round(self._log.seconds, 1))
        manifest = Manifest(
            model=name,
            candidate=winner.candidate,
            format=able[winner.candidate.target.runtime].format_of(winner.candidate),
            signature=prepared.signature,
            files={},
            executed=winner.executed,
            latency=winner.latency,
            gate=GateReport(()) if apart else _passed(winner),
            budget=self._config.budget,
            outcomes=outcomes,
            baseline=baseline,
            goal=self._config.goal,
            provenance=self._provenance(prepared, able),
        )
        return self._seal(course, manifest, layers, able)

    def kit(self, name: str) -> Path:
        """The same up to the race, as a folder that another machine goes on from.

        Raises:
            UsageError, ModelError, InputError: as :meth:`run` does.
            NoEngineError: nothing that was asked for can be tried on the target.
            TailorbirdError: nothing that would be compiled there can be made here.
        """
        able = capabilities_for(self._config)
        taking = self._takers(able)
        prepared, cases = self._ground.lay()
        course = self._course(prepared, cases, until=0.0)  # nothing races, so there is no time to keep for it
        candidates, _ = self._candidates(prepared, cases, taking, course.lowering)
        if self._config.target and not candidates:  # nor are there any on the target
            raise no_engine(())
        folder = self._folder / "kit"
        provenance = self._provenance(prepared, able)
        stuff = Stuff(name, self._ground, course.lowering, candidates, self._config, provenance, able)
        make_kit(stuff, folder, self._log)
        self._log.write("finished", seconds=round(self._log.seconds, 1))
        return folder

    def _raced(
        self, course: Course, candidates: tuple[Candidate, ...], baseline: str
    ) -> tuple[tuple[Outcome, ...], LayerBook]:
        race = Race(course)
        outcomes = tuple(race.run(candidates, baseline))
        return outcomes, profiled(course, race.podium)

    def _takers(self, able: dict[str, Capabilities]) -> Takers:
        """Told before the long work: that no backend takes the source follows from its kind alone."""
        return takers(able, self._config, self._ground.has_program)

    def _candidates(
        self, prepared: Prepared, cases: Cases, taking: Takers, lowering: Lowering
    ) -> tuple[tuple[Candidate, ...], str]:
        """What takes part, and the name of the one that speed-ups are told against."""
        dynamic, ready = bool(prepared.signature.dynamic_dims), self._ground.lower(lowering)
        # Of a kit's calibration inputs only those came along that errors are measured on: too few to calibrate on.
        calibrated = bool(cases.calibration) and not self._ground.made_elsewhere
        backends, apart = taking
        entrants = candidates_for(cases.profile, self._config, dynamic, backends, calibrated, ready)
        baseline = baseline_of(entrants.candidates, backends)
        self._log.write("candidates", names=[candidate.name for candidate in entrants.candidates], baseline=baseline,
                        left_out=(*apart, *entrants.left_out))  # fmt: skip
        return entrants.candidates, baseline

    def _course(self, prepared: Prepared, cases: Cases, until: float) -> Course:
        engines = self._folder / "engines"
        engines.mkdir()
        material = Material(
            model=str(self._ground.normalised),
            digest=prepared.normalised_digest,
            samples=tuple(case.inputs for case in cases.calibration),
            data_digest=cases.data_digest,
            threads=self._threads,
            seed=self._config.seed,
            inputs=tuple(case.inputs for case in cases.cases),
            program=self._ground.program,
            kit=self._ground.kit,
        )
        return Course(
            signature=prepared.signature,
            cases=cases.cases,
            probes=cases.calibration[:PROBES],
            config=self._config,
            metric=resolve_metric(self._config.metric, self._config.budget, cases.labelled),
            lowering=Lowering(material, self._config.limits, engines, self._recall, self._log, until),
            folder=engines,
            log=self._log,
        )

    def _seal(self, course: Course, manifest: Manifest, layers: LayerBook, able: dict[str, Capabilities]) -> Built:
        """The version directory: engine, what it is judged by elsewhere, build log, report, and a manifest over all."""
        version_dir = course.engine(manifest.candidate).rename(self._folder / "version")
        (version_dir / sealing.PAPERS).mkdir()
        if not manifest.qualified:
            sent = send(course.cases, course.metric, version_dir / CASES)
            self._log.write(
                "not qualified", target=str(manifest.candidate.target), cases=len(sent.cases), left=sent.left
            )
        if self._config.keep_kit:
            self._keep_kit(course, manifest, able, version_dir / KEPT_KIT)
        (self._folder / "build.jsonl").rename(version_dir / sealing.BUILD_LOG)
        shutil.copyfile(self._ground.outline, version_dir / OUTLINE)
        return Built(sealing.seal(version_dir, manifest, layers), version_dir)

    def _keep_kit(self, course: Course, manifest: Manifest, able: dict[str, Capabilities], folder: Path) -> None:
        """A kit of what the race has made: the time for making more of it is over."""
        stuff = Stuff(manifest.model, self._ground, course.lowering, (), self._config, manifest.provenance, able)
        make_kit(stuff, folder, self._log)

    def _provenance(self, prepared: Prepared, able: dict[str, Capabilities]) -> Provenance:
        origin = self._ground.origin(prepared)
        return Provenance(
            source=origin.source,
            source_digest=origin.digest,
            normalised_digest=prepared.normalised_digest,
            passes=prepared.passes,
            versions=_versions(able),
            device=device_facts(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            ingredients=self._whole,
            parent=origin.parent,
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
