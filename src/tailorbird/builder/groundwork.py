"""Groundwork: everything the race stands on. The source as ONNX, normalised and proven, inputs, reference outputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from tailorbird.backends.host import usable_cores
from tailorbird.backends.isolate import Worker
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.fingerprint import normalised_key, references_key
from tailorbird.builder.gate import oracle
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.intake import Intake
from tailorbird.builder.lowering.lowering import Lowering
from tailorbird.builder.prepare import OUTLINE, Cases, CasesArgs, PrepareArgs, Prepared
from tailorbird.builder.recall import Recall
from tailorbird.builder.sources.source import program_digest
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.errors import ModelError, TailorbirdError

CROSS_CHECK_SECONDS = 10.0
PROBES = 4
"""Sets of calibration data that the source answers, too: what the errors of quantised layers are measured on."""

_PREPARE = "tailorbird.builder.prepare"
_ORACLE = "tailorbird.builder.gate.oracle"
_TORCH = "tailorbird.builder.sources.export_torch"

MODEL = "model.onnx"
PREPARED = "prepared.json"
ANSWERS = "answers.json"


class Ground(msgspec.Struct, frozen=True):
    """What is kept beside a normalised graph."""

    prepared: Prepared
    example: str
    """Shapes of a program's example, in trtexec's grammar."""


class Answers(msgspec.Struct, frozen=True):
    """What is kept beside inputs and reference outputs, whose files are named relative to it."""

    cases: Cases
    oracle: str
    agreement: float | None
    """How close the normalised graph comes to the reference, in dB."""
    crossed: float | None
    """How close a second oracle comes, where that was feasible."""
    refused: str
    """Why no runtime takes the source as it is; empty where one does."""

    def tell(self, log: BuildLog) -> None:
        """What was laid out, and how the normalised graph was proven."""
        tell_cases(self.cases, log)
        if self.refused:
            log.write("source refused", reason=self.refused)
        self.tell_reference(log)

    def tell_reference(self, log: BuildLog) -> None:
        """How the normalised graph was proven; nothing where it was not."""
        if _agrees(self.agreement):
            log.write("reference", oracle=self.oracle, normalised_db=self.agreement,
                      cross_check_db=self.crossed, agree_db=oracle.AGREE_DB)  # fmt: skip


class Origin(msgspec.Struct, frozen=True):
    """Where a model came from, for its manifest."""

    source: str
    """Its file's name, or ``module:callable``."""
    digest: str
    parent: str = ""
    """Digest of the build kit's manifest, where it came in one."""


class Groundwork:
    """One source's groundwork: from the cache as far as it is known, and otherwise laid in processes of its own.

    Args:
        intake: the source and the data.
        whole: the build's fingerprint.
        config: shapes, data, limits.
        folder: an existing private directory for the children's logs and temporary files.
        recall: the way to the cache.
        log: receives each step.
    """

    def __init__(self, intake: Intake, whole: dict[str, str], config: BuildConfig, folder: Path,
                 recall: Recall, log: BuildLog) -> None:  # fmt: skip
        self._intake = intake
        self._whole = whole
        self._config = config
        self._threads = max(config.threads, default=usable_cores())
        self._folder = folder
        self._recall = recall
        self._log = log
        self.normalised = folder
        """The normalised ONNX file, once :meth:`lay` has returned."""
        self.answers: Answers
        """Inputs and reference outputs, once :meth:`lay` has returned."""
        self.made_elsewhere = False
        self.kit = ""
        """Digest of the build kit it came in: none."""
        self.program = intake.source.text if intake.source.is_program else ""
        """The PyTorch program, as the user named it; empty where the source is none."""

    @property
    def has_program(self) -> bool:
        """Whether there is a PyTorch program to compile."""
        return bool(self.program)

    @property
    def outline(self) -> Path:
        """The normalised graph's outline, once :meth:`lay` has returned."""
        return self.normalised.with_name(OUTLINE)

    def lay(self) -> tuple[Prepared, Cases]:
        """Export, normalise, write inputs, answer them by the source, and prove that normalising changed nothing.

        Raises:
            ModelError: the source cannot be read, exported, normalised or run by any reference.
            UsageError, InputError: shapes or data contradict the signature.
        """
        prepared, answers = self._laid(())
        if not _agrees(answers.agreement) and prepared.rewrites:
            self._log.write("rewrites undone", passes=prepared.rewrites, snr_db=answers.agreement)
            prepared, answers = self._laid(prepared.rewrites)
        if not _agrees(answers.agreement):
            raise _changed(answers.agreement)
        self.answers = answers
        return prepared, answers.cases

    def lower(self, _: Lowering) -> frozenset[str]:
        """Graphs that were lowered elsewhere: none."""
        return frozenset()

    def origin(self, prepared: Prepared) -> Origin:
        """Where the model came from."""
        source = self._intake.source
        digest = program_digest(source) if source.is_program else prepared.source_digest
        return Origin(Path(source.text).name, digest)

    def _laid(self, skip: tuple[str, ...]) -> tuple[Prepared, Answers]:
        key = normalised_key(self._whole, skip)
        place, _ = self._recall.make("normalised", key, lambda at: self._fill(at, skip), self._foreign)
        self.normalised = place / MODEL
        ground = _ground(place)
        prepared = ground.prepared
        self._log.write("normalised", passes=prepared.passes, notes=prepared.notes, signature=prepared.signature)
        key = references_key(self._whole, skip)
        place, known = self._recall.make("references", key, lambda at: self._answer_all(at, ground))
        answers = msgspec.json.decode((place / ANSWERS).read_bytes(), type=Answers)
        if known:
            answers.tell(self._log)
        return prepared, msgspec.structs.replace(answers, cases=rebased(answers.cases, place))

    def _foreign(self, place: Path) -> str:
        """Why a normalised graph out of the cache is not this source's; empty when it is."""
        try:
            self._intake.check_model(_ground(place).prepared.source_digest)
        except ModelError:
            return "of another model"
        return ""

    def _fill(self, folder: Path, skip: tuple[str, ...]) -> None:
        """Normalise the source into a folder."""
        model, example = self._intake.onnx_form()
        with self._worker() as worker:
            args = PrepareArgs(str(model), str(folder / MODEL), skip)
            prepared = worker.call(f"{_PREPARE}:prepare", args, Prepared)
        self._intake.check_model(prepared.source_digest)
        (folder / PREPARED).write_bytes(msgspec.json.encode(Ground(prepared, example)))

    def _answer_all(self, folder: Path, ground: Ground) -> None:
        """Lay out inputs in a folder, answer them by the source, and hold the normalised graph against the answers."""
        prepared = ground.prepared
        with self._worker() as worker:
            cases = worker.call(f"{_PREPARE}:lay_out", self._cases_args(ground, folder), Cases)
        self._intake.check_data()
        tell_cases(cases, self._log)
        answered, refused = self._answer(prepared, cases)
        agreement = self._agreement(prepared, cases)
        if not _agrees(agreement) and not prepared.rewrites:
            raise _changed(agreement)
        crossed = None
        if _agrees(agreement):
            crossed = self._agreement(prepared, cases, backend="reference", seconds=CROSS_CHECK_SECONDS)
        answers = Answers(rebased(cases, None), answered.oracle, agreement, crossed, refused)
        answers.tell_reference(self._log)
        for left in folder.iterdir():
            if left.is_dir():  # an oracle that was stopped leaves its own copy of the model
                shutil.rmtree(left, ignore_errors=True)
        (folder / ANSWERS).write_bytes(msgspec.json.encode(answers))

    def _worker(self, seconds: float | None = None) -> Worker:
        limits = self._config.limits
        if seconds is not None:
            limits = msgspec.structs.replace(limits, seconds=min(seconds, limits.seconds))
        scratch = self._folder / "tmp"
        scratch.mkdir(exist_ok=True)
        return Worker(limits, self._folder / "steps.log", search_path=(str(Path.cwd()),), scratch=scratch)

    def _cases_args(self, ground: Ground, folder: Path) -> CasesArgs:
        config, prepared = self._config, ground.prepared
        said = config.min_shapes or config.opt_shapes or config.max_shapes or config.data
        return CasesArgs(
            signature=prepared.signature,
            index_limits=prepared.index_limits,
            min_shapes=config.min_shapes,
            opt_shapes=config.opt_shapes if said else ground.example,
            max_shapes=config.max_shapes,
            data=config.data,
            labels=config.labels,
            metric=config.budget.metric or config.metric,
            seed=config.seed,
            folder=str(folder),
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

    def _answer(self, prepared: Prepared, cases: Cases) -> tuple[oracle.OracleReport, str]:
        """Reference outputs of the source; of the normalised graph, and why, when no runtime takes the source."""
        source = self._intake.source
        args = self._oracle_args(source.text, prepared, cases)
        with self._worker() as worker:
            if source.is_program:
                return worker.call(f"{_TORCH}:answer", args, oracle.OracleReport), ""
            try:
                return worker.call(f"{_ORACLE}:answer", args, oracle.OracleReport), ""
            except ModelError as error:
                self._log.write("source refused", reason=error.message)
                refused = error.message
            repaired = self._oracle_args(self.normalised, prepared, cases)
            return worker.call(f"{_ORACLE}:answer", repaired, oracle.OracleReport), refused

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


def tell_cases(cases: Cases, log: BuildLog) -> None:
    """How inputs were laid out."""
    log.write("cases", profile=str(cases.profile), real=sum(case.real for case in cases.cases),
              calibration=len(cases.calibration), labelled=cases.labelled, notes=cases.notes,
              places={case.place.edge: case.place.shapes for case in cases.cases})  # fmt: skip


def _ground(place: Path) -> Ground:
    return msgspec.json.decode((place / PREPARED).read_bytes(), type=Ground)


def rebased(cases: Cases, folder: Path | None) -> Cases:
    """The same cases with their files in another folder, or named relative to any."""

    def moved(text: str) -> str:
        name = Path(text).name
        return text and (str(folder / name) if folder else name)

    def placed(case: Case) -> Case:
        return msgspec.structs.replace(case, inputs=moved(case.inputs), outputs=moved(case.outputs),
                                       labels=moved(case.labels))  # fmt: skip

    return msgspec.structs.replace(cases, cases=tuple(map(placed, cases.cases)),
                                   calibration=tuple(map(placed, cases.calibration)))  # fmt: skip


def _agrees(agreement: float | None) -> bool:
    return agreement is not None and agreement >= oracle.AGREE_DB


def _changed(agreement: float | None) -> ModelError:
    got = "no answer" if agreement is None else f"an SNR of {agreement:.1f} dB"
    return ModelError("the normalised model does not answer as the source does", got=got,
                      expected=f"at least {oracle.AGREE_DB:g} dB",
                      hint="the model may be unstable or non-deterministic; look into the build log")  # fmt: skip
