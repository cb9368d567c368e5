"""Making a kit: graphs lowered for every candidate, cases bounded, all of it copied into one folder and sealed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tailorbird.backends.base import Capabilities
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.gate.judge import Case
from tailorbird.builder.groundwork import ANSWERS, PROBES, Answers, Groundwork, rebased
from tailorbird.builder.kit.ground import CASES, EXPORTED, GROUND, LOWERED, LOWERED_RECORD, KitGround
from tailorbird.builder.lowering.lowering import Lowering, Made
from tailorbird.builder.targets import travelling
from tailorbird.builder.travel import MOST_BYTES, bounded
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.entry import RECORD
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.kit import KitManifest, seal_kit
from tailorbird.domain.manifest import Provenance


@dataclass(frozen=True)
class Stuff:
    """What a kit is made of."""

    model: str
    ground: Groundwork | KitGround
    """Laid."""
    lowering: Lowering
    candidates: Sequence[Candidate]
    """What could race on the target; their graphs are made for the kit, beside those that are made already."""
    config: BuildConfig
    provenance: Provenance
    able: Mapping[str, Capabilities]
    """What the backends to try can do, by name."""


def make_kit(stuff: Stuff, folder: Path, log: BuildLog, most_bytes: int = MOST_BYTES) -> KitManifest:
    """Fill a new folder and seal it.

    Args:
        stuff: what goes in.
        folder: is made.
        log: receives what could not be lowered, and what the kit holds.
        most_bytes: what inputs and reference outputs may take.

    Raises:
        TailorbirdError: nothing that a candidate would be compiled from can be made, and why.
        BundleError: the disk refused.
    """
    folder.mkdir(parents=True)
    _lower_all(stuff, log)
    shutil.copytree(stuff.ground.normalised.parent, folder / GROUND, ignore=shutil.ignore_patterns(RECORD))
    made = _keep_lowered(stuff.lowering.made(), folder / LOWERED)
    program = _keep_program(stuff.lowering.program, folder / EXPORTED)
    answers = _keep_cases(stuff.ground, folder / CASES, most_bytes)
    methods = tuple(sorted({one.quantisation.method for one in made if one.quantisation is not None}))
    log.write("kit", graphs=len(made), methods=methods, program=program, cases=len(answers.cases.cases),
              left=len(stuff.ground.answers.cases.cases) - len(answers.cases.cases))  # fmt: skip
    config = stuff.config if program else travelling(stuff.able, stuff.config)
    config = msgspec.structs.replace(config, data="", cache="", qualify=True, keep_kit=False)
    manifest = KitManifest(model=stuff.model, config=config, files={}, provenance=stuff.provenance, methods=methods)
    return seal_kit(folder, manifest)


def _lower_all(stuff: Stuff, log: BuildLog) -> None:
    """All that candidates are compiled from; what cannot be made is a line of the log, and an error where all is."""
    refused: dict[str, TailorbirdError] = {}
    made = 0
    for candidate in stuff.candidates:
        try:
            stuff.lowering.graph(candidate)
            made += 1
        except TailorbirdError as error:
            if error.message not in refused:
                log.write("not lowered", candidate=candidate.name, reason=error.message)
            refused[error.message] = error
    if refused and not made:
        raise next(iter(refused.values()))


def _keep_program(program: Path | None, to: Path) -> bool:
    """Whether there is one."""
    if program is None:
        return False
    to.parent.mkdir()
    shutil.copyfile(program, to)
    return True


def _keep_lowered(made: Sequence[Made], folder: Path) -> tuple[Made, ...]:
    folder.mkdir()
    kept = []
    for number, one in enumerate(made):
        name = f"graph-{number}"
        shutil.copytree(one.folder, folder / name, ignore=shutil.ignore_patterns(RECORD))
        kept.append(msgspec.structs.replace(one, folder=name))
    (folder / LOWERED_RECORD).write_bytes(msgspec.json.encode(kept))
    return tuple(kept)


def _keep_cases(ground: Groundwork | KitGround, folder: Path, most_bytes: int) -> Answers:
    """The cases that there is room for, and of what is calibrated on the few sets that errors are measured on."""
    folder.mkdir()
    cases = ground.answers.cases
    kept = msgspec.structs.replace(
        cases, cases=tuple(bounded(cases.cases, most_bytes)), calibration=cases.calibration[:PROBES]
    )
    for case in (*kept.cases, *kept.calibration):
        for file in _files(case):
            shutil.copyfile(file, folder / file.name)
    answers = msgspec.structs.replace(ground.answers, cases=rebased(kept, None))
    (folder / ANSWERS).write_bytes(msgspec.json.encode(answers))
    return answers


def _files(case: Case) -> list[Path]:
    return [Path(text) for text in (case.inputs, case.outputs, case.labels) if text]
