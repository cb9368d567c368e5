"""Qualify: the gate and the measurements that a bundle still lacks, on the device that it was built for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tailorbird import __version__
from tailorbird.backends import registry
from tailorbird.backends.host import device_facts
from tailorbird.backends.isolate import Worker
from tailorbird.builder import sealing
from tailorbird.builder.buildlog import BuildLog, Observer
from tailorbird.builder.search import steps
from tailorbird.builder.search.course import STEPS
from tailorbird.builder.search.instances import side_by_side
from tailorbird.builder.travel import CASES, receive
from tailorbird.domain.bundle import UNLISTED
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import NoEngineError, TailorbirdError
from tailorbird.domain.latency import LatencyRow
from tailorbird.domain.layers import LayerBook, LayerTable
from tailorbird.domain.manifest import Manifest, Provenance
from tailorbird.domain.outcome import Outcome, Status

PROFILE_SECONDS = 30.0
"""What the engine's profile may take; it decides nothing."""


@dataclass(frozen=True)
class Unqualified:
    """A verified version whose engine has not run on its device."""

    version_dir: Path
    manifest: Manifest
    digest: str
    """Of the manifest's bytes."""


class Qualification:
    """One engine's gate and measurements, each in a process of its own.

    Args:
        what: the version.
        limits: of each step.
        folder: an existing private directory.
        observers: shown every event of the log.
    """

    def __init__(self, what: Unqualified, limits: Limits, folder: Path, observers: Sequence[Observer] = ()) -> None:
        self._what = what
        self._limits = limits
        self._folder = folder
        self._log = BuildLog(folder / "qualification.jsonl", *observers)
        sent = receive(what.version_dir / CASES)
        manifest = what.manifest
        here = registry.backend(manifest.candidate.target.runtime).capabilities().target
        # An engine for many machines is gated on this one's kernels, and served only where those run.
        self._candidate = msgspec.structs.replace(manifest.candidate, target=here)
        self._args = steps.StepArgs(self._candidate, manifest.signature, "", str(what.version_dir), sent.cases,
                                    manifest.budget, sent.metric)  # fmt: skip

    def run(self) -> Path:
        """The version with its gate passed and its latency table, sealed, not signed; a folder of its own.

        Raises:
            BundleError: the version holds nothing to judge its engine by.
            NoEngineError: the engine failed its gate here, or no batch keeps to the SLO; ``outcomes`` hold its row.
            BackendError, StepError: the engine cannot be opened or run here.
        """
        manifest = self._what.manifest
        self._log.write(
            "qualifying", candidate=manifest.candidate.name, device=device_facts(), parent=self._what.digest
        )
        row = self._judged_and_measured()
        layers = LayerBook(tuple(filter(None, (self._profiled(row),))))
        self._log.write("finished", seconds=round(self._log.seconds, 1))
        outcomes = tuple(row if one.status is Status.CHOSEN else one for one in manifest.outcomes)
        assert row.gate is not None
        qualified = msgspec.structs.replace(manifest, candidate=self._candidate, gate=row.gate, latency=row.latency,
                                            executed=row.executed, outcomes=outcomes,
                                            provenance=self._provenance())  # fmt: skip
        return self._sealed(qualified, layers)

    def _judged_and_measured(self) -> Outcome:
        with self._worker("qualify") as worker:
            judged = worker.call(f"{STEPS}:gate_engine", self._args, steps.Judged)
            row = msgspec.structs.replace(self._row(), gate=judged.gate, executed=judged.executed)
            if not judged.gate.passed:
                raise self._refused(row, judged.gate.verdict)
            measured = worker.call(f"{STEPS}:measure_engine", self._args, steps.Measured).rows
        row = msgspec.structs.replace(row, latency=measured)
        if self._what.manifest.goal.cost(measured) is None:
            slo = self._what.manifest.goal.slo_ms or 0.0
            raise self._refused(row, f"no batch keeps its 99th percentile within {slo:g} ms")
        self._tell(row)
        more = side_by_side(self._args, lambda: self._worker("side-by-side"), self._log)
        return msgspec.structs.replace(row, latency=(*measured, *more))

    def _row(self) -> Outcome:
        """The engine's row of the table, as it was built."""
        built = [one for one in self._what.manifest.outcomes if one.status is Status.CHOSEN]
        plain = built[0] if built else Outcome(self._candidate, Status.CHOSEN, "")
        reason = f"qualified on {_here()}; no other of its build was run"
        return msgspec.structs.replace(plain, candidate=self._candidate, reason=reason)

    def _refused(self, row: Outcome, why: str) -> NoEngineError:
        refused = msgspec.structs.replace(row, status=Status.REFUSED, reason=why)
        self._tell(refused)
        error = NoEngineError("the engine is not qualified on this machine", got=why,
                              hint="build for it with other precisions, or from a build kit on it")  # fmt: skip
        error.outcomes = (refused,)
        return error

    def _tell(self, row: Outcome) -> None:
        self._log.write("tried", candidate=row.candidate.name, status=row.status, reason=row.reason,
                        median=row.median, seconds=row.build_seconds)  # fmt: skip

    def _profiled(self, row: Outcome) -> LayerTable | None:
        """Layers as the runtime tells them; without the model's graph here, they stand for no node of it."""
        place: LatencyRow = row.deciding_row(self._what.manifest.goal) or row.latency[0]
        args = msgspec.structs.replace(self._args, edge=place.edge)
        try:
            with self._worker("profile", PROFILE_SECONDS) as worker:
                table = worker.call(f"{STEPS}:profile_engine", args, LayerTable)
        except TailorbirdError as error:
            self._log.write("not profiled", candidate=row.candidate.name, reason=error.message)
            return None
        self._log.write("profiled", candidate=row.candidate.name, layers=len(table.layers), ms=table.profiled,
                        seconds=0.0)  # fmt: skip
        return table if table.layers else None

    def _worker(self, name: str, seconds: float | None = None) -> Worker:
        limits = self._limits
        if seconds is not None:
            limits = msgspec.structs.replace(limits, seconds=min(seconds, limits.seconds))
        return Worker(limits, self._folder / f"{name}.log", (str(Path.cwd()),), self._folder)

    def _provenance(self) -> Provenance:
        """The facts that count are those of where it was gated; the builder's are kept beside them."""
        built, runtime = self._what.manifest.provenance, self._what.manifest.candidate.target.runtime
        return msgspec.structs.replace(
            built,
            parent=self._what.digest,
            device=device_facts(),
            versions={"tailorbird": __version__, runtime: registry.backend(runtime).probe().version},
            built_on=built.device,
            built_with=built.versions,
            qualified=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _sealed(self, manifest: Manifest, layers: LayerBook) -> Path:
        """All of the version but what it was judged by: inputs may be the user's own, and have done their work."""
        version_dir = self._folder / "qualified"
        for name in self._what.manifest.files.keys() - UNLISTED:
            if not name.startswith(f"{CASES}/"):
                (version_dir / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._what.version_dir / name, version_dir / name)
        (self._folder / "qualification.jsonl").rename(version_dir / sealing.QUALIFICATION_LOG)
        sealing.seal(version_dir, manifest, layers, (sealing.BUILD_LOG, sealing.QUALIFICATION_LOG))
        return version_dir


def _here() -> str:
    facts = device_facts()
    return facts.get("gpu") or facts["cpu"]
