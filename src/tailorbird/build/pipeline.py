"""The build, as a table of contents: source, normalise, cases, oracle, candidates, race, bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from tailorbird.backends import registry
from tailorbird.backends.base import Capabilities
from tailorbird.backends.host import cpu_facts, usable_cores
from tailorbird.backends.isolate import Worker
from tailorbird.build import export_torch, oracle
from tailorbird.build.buildlog import BuildLog, Observer
from tailorbird.build.candidates import candidates_for, capabilities_for
from tailorbird.build.prepare import Cases, CasesArgs, PrepareArgs, Prepared
from tailorbird.build.race import Race
from tailorbird.build.report import write_report
from tailorbird.build.source import Source, program_digest, resolve
from tailorbird.build.workdir import workdir
from tailorbird.domain import bundle
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import ModelError, NoEngineError, TailorbirdError
from tailorbird.domain.manifest import Manifest, Provenance
from tailorbird.domain.outcome import Outcome, Status
from tailorbird.domain.profile import format_shapes

CROSS_CHECK_SECONDS = 10.0
_PREPARE = "tailorbird.build.prepare"
_ORACLE = "tailorbird.build.oracle"
_TORCH = "tailorbird.build.export_torch"


@dataclass(frozen=True)
class Built:
    """A finished build: the version directory inside the build's own folder, to be packed or published."""

    manifest: Manifest
    version_dir: Path
    outcomes: tuple[Outcome, ...]


class Build:
    """One build inside one working directory; the steps below run in the order they are written.

    Args:
        text: the source as the user named it.
        config: the settings.
        folder: an empty private directory.
        observers: shown every event of the build log.
    """

    def __init__(self, text: str, config: BuildConfig, folder: Path, observers: Sequence[Observer]) -> None:
        self._config = config
        self._folder = folder
        self._source = resolve(text)
        self._threads = max(config.threads, default=usable_cores())
        self._log = BuildLog(folder / "build.jsonl", *observers)

    def run(self, name: str | None = None) -> Built:
        """All steps.

        Raises:
            UsageError, ModelError, InputError: the source, shapes or data are wrong.
            NoEngineError: no candidate passed; its ``outcomes`` hold the table.
        """
        able = capabilities_for(self._config)
        self._log.write("started", source=self._source.text, config=self._config, versions=_versions(able), device=cpu_facts())
        model, example = self._onnx_form()
        prepared, cases = self._prepare(model, example)
        prepared, cases = self._proven(model, prepared, cases, example)
        candidates = candidates_for(cases.profile, self._config, bool(prepared.signature.dynamic_dims), able.values())
        self._log.write("candidates", names=[candidate.name for candidate in candidates])
        race = Race(self._normalised, prepared.signature, cases.cases, self._config, self._made("engines"), self._log)
        outcomes = tuple(race.run(candidates))
        return self._seal(name or self._source.name, prepared, able, race, _winner(outcomes), outcomes)

    @property
    def _normalised(self) -> Path:
        return self._folder / "normalised" / "model.onnx"

    def _made(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(exist_ok=True)
        return path

    def _worker(self) -> Worker:
        return Worker(self._config.limits, self._folder / "steps.log", search_path=(os.getcwd(),))

    def _onnx_form(self) -> tuple[Path, str]:
        """The source as an ONNX file, and the example's shapes in trtexec's grammar when it is a program."""
        if not self._source.is_program:
            return Path(self._source.text), ""
        path = self._made("exported") / "model.onnx"
        with self._worker() as worker:
            args = export_torch.ExportArgs(self._source.text, str(path))
            exported = worker.call(f"{_TORCH}:export", args, export_torch.Exported)
        return path, format_shapes(exported.shapes)

    def _prepare(self, model: Path, example: str, skip: tuple[str, ...] = ()) -> tuple[Prepared, Cases]:
        self._made("normalised")
        with self._worker() as worker:
            prepared = worker.call(f"{_PREPARE}:prepare", PrepareArgs(str(model), str(self._normalised), skip), Prepared)
            self._log.write("normalised", passes=prepared.passes, notes=prepared.notes, signature=prepared.signature)
            cases = worker.call(f"{_PREPARE}:lay_out", self._cases_args(prepared, example), Cases)
        for case in cases.cases:
            self._log.write("case", place=case.place.edge, shapes=case.place.shapes, real=case.real)
        return prepared, cases

    def _cases_args(self, prepared: Prepared, example: str) -> CasesArgs:
        config = self._config
        said = config.min_shapes or config.opt_shapes or config.max_shapes or config.data
        return CasesArgs(
            signature=prepared.signature,
            index_limits=prepared.index_limits,
            min_shapes=config.min_shapes,
            opt_shapes=config.opt_shapes if said else example,
            max_shapes=config.max_shapes,
            data=config.data,
            seed=config.seed,
            folder=str(self._made("cases")),
        )

    def _proven(self, model: Path, prepared: Prepared, cases: Cases, example: str) -> tuple[Prepared, Cases]:
        """Reference outputs from the source itself, and proof that normalising did not change them.

        When it did, the passes that rewrite are left out and the build goes on with the plain graph.
        """
        report = self._answer(model, prepared, cases)
        agreement = self._agreement("", self._normalised, prepared, cases)
        if agreement is not None and agreement < oracle.AGREE_DB and prepared.passes:
            names = tuple(applied.partition("@")[0] for applied in prepared.passes if "opset" in applied)
            self._log.write("normalisation undone", snr_db=agreement, passes=names)
            prepared, cases = self._prepare(model, example, skip=names)
            self._answer(model, prepared, cases)
            agreement = self._agreement("", self._normalised, prepared, cases)
        if agreement is None or agreement < oracle.AGREE_DB:
            raise ModelError("normalising changed what the model answers", got=f"SNR {agreement} dB",
                             expected=f"at least {oracle.AGREE_DB:g} dB", hint="please report this model")  # fmt: skip
        checked = self._agreement("reference", self._normalised, prepared, cases)
        self._log.write("reference", oracle=report.oracle, normalised_db=agreement, cross_check_db=checked)
        return prepared, cases

    def _oracle_args(self, model: Path | str, prepared: Prepared, cases: Cases, backend: str = "") -> oracle.OracleArgs:
        return oracle.OracleArgs(
            model=str(model),
            signature=prepared.signature,
            profile=cases.profile,
            threads=self._threads,
            inputs=tuple(case.inputs for case in cases.cases),
            outputs=tuple(case.outputs for case in cases.cases),
            backend=backend,
        )

    def _answer(self, model: Path, prepared: Prepared, cases: Cases) -> oracle.OracleReport:
        """Reference outputs of the source; of the normalised graph when no runtime takes the source as it is."""
        with self._worker() as worker:
            if self._source.is_program:
                args = self._oracle_args(self._source.text, prepared, cases)
                return worker.call(f"{_TORCH}:answer", args, oracle.OracleReport)
            try:
                return worker.call(f"{_ORACLE}:answer", self._oracle_args(model, prepared, cases), oracle.OracleReport)
            except ModelError as error:
                self._log.write("source refused", reason=error.message)
            args = self._oracle_args(self._normalised, prepared, cases)
            return worker.call(f"{_ORACLE}:answer", args, oracle.OracleReport)

    def _agreement(self, backend: str, model: Path, prepared: Prepared, cases: Cases) -> float | None:
        """How close an oracle on ``model`` comes to the reference outputs, in dB; None when it is not feasible."""
        limits = self._config.limits
        if backend:
            limits = msgspec.structs.replace(limits, seconds=CROSS_CHECK_SECONDS)
        args = self._oracle_args(model, prepared, cases, backend)
        with Worker(limits, self._folder / "steps.log") as worker:
            try:
                return worker.call(f"{_ORACLE}:cross_check", args, oracle.CrossCheck).snr_db
            except TailorbirdError as error:
                self._log.write("cross-check not feasible", backend=backend or "first", reason=error.message)
                return None

    def _seal(self, name: str, prepared: Prepared, able: dict[str, Capabilities], race: Race, winner: Outcome,
              outcomes: tuple[Outcome, ...]) -> Built:  # fmt: skip
        """The version directory: engine, build log, report and a manifest over all of them."""
        version_dir = race.engine_of(winner).rename(self._folder / "version")
        self._log.write("finished", seconds=round(self._log.seconds, 1))
        manifest = Manifest(
            model=name,
            candidate=winner.candidate,
            format=able[winner.candidate.target.runtime].format,
            signature=prepared.signature,
            files={},
            executed=winner.executed,
            latency=winner.latency,
            gate=_gate_of(winner),
            budget=self._config.budget,
            outcomes=outcomes,
            provenance=self._provenance(prepared, able),
        )
        papers = version_dir / "tailorbird"
        papers.mkdir()
        (self._folder / "build.jsonl").rename(papers / "build.jsonl")
        write_report(papers / "report.html", manifest)
        return Built(bundle.seal(version_dir, manifest), version_dir, outcomes)

    def _provenance(self, prepared: Prepared, able: dict[str, Capabilities]) -> Provenance:
        return Provenance(
            source=Path(self._source.text).name,
            source_digest=program_digest(self._source) if self._source.is_program else prepared.source_digest,
            normalised_digest=prepared.normalised_digest,
            passes=prepared.passes,
            versions=_versions(able),
            device=cpu_facts(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _gate_of(winner: Outcome):  # type: ignore[no-untyped-def]
    if winner.gate is None or not winner.gate.passed:
        raise NoEngineError("the chosen engine has no passed gate")
    return winner.gate


def _winner(outcomes: tuple[Outcome, ...]) -> Outcome:
    for outcome in outcomes:
        if outcome.status is Status.CHOSEN:
            return outcome
    raise no_engine(outcomes)


def no_engine(outcomes: tuple[Outcome, ...]) -> NoEngineError:
    """The error for a table without a winner: names the nearest miss and carries the table."""
    gated = [outcome for outcome in outcomes if outcome.gate is not None]
    nearest = max(gated, key=lambda o: o.gate.worst("snr_db") or -300.0 if o.gate else -300.0, default=None)
    missed = f"{nearest.candidate.name}: {nearest.reason}" if nearest else "; ".join(sorted({o.reason for o in outcomes}))
    error = NoEngineError("no candidate passed the gate", got=missed or "no candidate", hint="see the table for each reason")
    error.outcomes = outcomes
    return error


def _versions(able: dict[str, Capabilities]) -> dict[str, str]:
    found = {name: registry.backend(name).probe().version for name in able}
    return {"tailorbird": version("tailorbird"), **found}


__all__ = ["Build", "Built", "Source", "workdir"]
