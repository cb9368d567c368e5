"""Groundwork: everything the race stands on. The source as ONNX, normalised and proven, inputs, reference outputs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.backends.isolate import Worker
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.gate import oracle
from tailorbird.builder.prepare import Cases, CasesArgs, PrepareArgs, Prepared
from tailorbird.builder.sources import export_torch
from tailorbird.builder.sources.source import Source
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import ModelError, TailorbirdError
from tailorbird.domain.profile import format_shapes

CROSS_CHECK_SECONDS = 10.0
PROBES = 4
"""Sets of calibration data that the source answers, too: what the errors of quantised layers are measured on."""

_PREPARE = "tailorbird.builder.prepare"
_ORACLE = "tailorbird.builder.gate.oracle"
_TORCH = "tailorbird.builder.sources.export_torch"


class Groundwork:
    """One source's groundwork, laid in one directory; every step runs in a process of its own.

    Args:
        source: what the user named.
        config: shapes, data, limits.
        threads: for the reference.
        folder: an existing private directory.
        log: receives each step.
    """

    def __init__(self, source: Source, config: BuildConfig, threads: int, folder: Path, log: BuildLog) -> None:
        self._source = source
        self._config = config
        self._threads = threads
        self._folder = folder
        self._log = log
        self.normalised = folder / "normalised" / "model.onnx"
        """The normalised ONNX file, once :meth:`lay` has returned."""

    def lay(self) -> tuple[Prepared, Cases]:
        """Export, normalise, write inputs, answer them by the source, and prove that normalising changed nothing.

        Raises:
            ModelError: the source cannot be read, exported, normalised or run by any reference.
            UsageError, InputError: shapes or data contradict the signature.
        """
        model, example = self._onnx_form()
        prepared, cases = self._prepare(model, example)
        answered = self._answer(model, prepared, cases)
        agreement = self._agreement(prepared, cases)
        if not _agrees(agreement) and prepared.rewrites:
            self._log.write("rewrites undone", passes=prepared.rewrites, snr_db=agreement)
            prepared, cases = self._prepare(model, example, skip=prepared.rewrites)
            answered = self._answer(model, prepared, cases)
            agreement = self._agreement(prepared, cases)
        if not _agrees(agreement):
            raise _changed(agreement)
        crossed = self._agreement(prepared, cases, backend="reference", seconds=CROSS_CHECK_SECONDS)
        self._log.write("reference", oracle=answered.oracle, normalised_db=agreement, cross_check_db=crossed,
                        agree_db=oracle.AGREE_DB)  # fmt: skip
        return prepared, cases

    def _made(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(exist_ok=True)
        return path

    def _worker(self, seconds: float | None = None) -> Worker:
        limits = self._config.limits
        if seconds is not None:
            limits = msgspec.structs.replace(limits, seconds=min(seconds, limits.seconds))
        return Worker(limits, self._folder / "steps.log", search_path=(str(Path.cwd()),), scratch=self._made("tmp"))

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
            args = PrepareArgs(str(model), str(self.normalised), skip)
            prepared = worker.call(f"{_PREPARE}:prepare", args, Prepared)
            self._log.write("normalised", passes=prepared.passes, notes=prepared.notes, signature=prepared.signature)
            cases = worker.call(f"{_PREPARE}:lay_out", self._cases_args(prepared, example), Cases)
        self._log.write("cases", profile=str(cases.profile), real=sum(case.real for case in cases.cases),
                        calibration=len(cases.calibration), labelled=cases.labelled, notes=cases.notes,
                        places={case.place.edge: case.place.shapes for case in cases.cases})  # fmt: skip
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
            labels=config.labels,
            metric=config.budget.metric or config.metric,
            seed=config.seed,
            folder=str(self._made("cases")),
        )

    def _oracle_args(self, model: Path | str, prepared: Prepared, cases: Cases, backend: str = "") -> oracle.OracleArgs:
        answered = (*cases.cases, *cases.calibration[:PROBES])
        return oracle.OracleArgs(
            model=str(model),
            signature=prepared.signature,
            profile=cases.profile,
            threads=self._threads,
            inputs=tuple(case.inputs for case in answered),
            outputs=tuple(case.outputs for case in answered),
            backend=backend,
        )

    def _answer(self, model: Path, prepared: Prepared, cases: Cases) -> oracle.OracleReport:
        """Reference outputs of the source; of the normalised graph when no runtime takes the source as it is."""
        with self._worker() as worker:
            if self._source.is_program:
                program = self._oracle_args(self._source.text, prepared, cases)
                return worker.call(f"{_TORCH}:answer", program, oracle.OracleReport)
            try:
                return worker.call(f"{_ORACLE}:answer", self._oracle_args(model, prepared, cases), oracle.OracleReport)
            except ModelError as error:
                self._log.write("source refused", reason=error.message)
            repaired = self._oracle_args(self.normalised, prepared, cases)
            return worker.call(f"{_ORACLE}:answer", repaired, oracle.OracleReport)

    def _agreement(
        self, prepared: Prepared, cases: Cases, backend: str = "", seconds: float | None = None
    ) -> float | None:
        """How close an oracle on the normalised graph comes to the reference, in dB; None when not feasible."""
        args = self._oracle_args(self.normalised, prepared, cases, backend)
        with self._worker(seconds) as worker:
            try:
                return worker.call(f"{_ORACLE}:cross_check", args, oracle.CrossCheck).snr_db
            except TailorbirdError as error:
                self._log.write("cross-check not feasible", backend=backend or "first", reason=error.message)
                return None


def _agrees(agreement: float | None) -> bool:
    return agreement is not None and agreement >= oracle.AGREE_DB


def _changed(agreement: float | None) -> ModelError:
    got = "no answer" if agreement is None else f"an SNR of {agreement:.1f} dB"
    return ModelError("the normalised model does not answer as the source does", got=got,
                      expected=f"at least {oracle.AGREE_DB:g} dB",
                      hint="the model may be unstable or non-deterministic; look into the build log")  # fmt: skip
