"""The groundwork that a kit holds: what :class:`tailorbird.builder.groundwork.Groundwork` lays, laid elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from tailorbird.backends.program import PROGRAM
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.groundwork import ANSWERS, MODEL, PREPARED, Answers, Ground, Origin, rebased
from tailorbird.builder.lowering.lowering import Lowering, Made
from tailorbird.builder.prepare import OUTLINE, Cases, Prepared
from tailorbird.domain.errors import BundleError
from tailorbird.domain.kit import Kit

GROUND, CASES, LOWERED = "ground", "cases", "lowered"
EXPORTED = f"program/{PROGRAM}"
LOWERED_RECORD = "lowered.json"

_AGAIN = "make the kit again with this version of Tailorbird"

R = TypeVar("R")


class KitGround:
    """A verified kit's groundwork.

    Args:
        kit: it.
        log: receives what a build's own groundwork would tell.
    """

    def __init__(self, kit: Kit, log: BuildLog) -> None:
        self._kit = kit
        self._log = log
        self._prepared = _read(kit.folder / GROUND / PREPARED, Ground).prepared
        self.answers = self._answers()
        """Inputs and reference outputs, in the kit's folder."""
        self.program = ""
        """No user's code travels in a kit; see :attr:`has_program` for what does."""
        self.kit = kit.digest
        """Digest of the kit's manifest."""

    @property
    def normalised(self) -> Path:
        """The normalised ONNX file."""
        return self._kit.folder / GROUND / MODEL

    @property
    def outline(self) -> Path:
        """The normalised graph's outline."""
        return self.normalised.with_name(OUTLINE)

    @property
    def has_program(self) -> bool:
        """Whether the exported program came along."""
        return EXPORTED in self._kit.manifest.files

    @property
    def made_elsewhere(self) -> bool:
        """Whether another machine laid it, for this one to build on."""
        return True

    def lay(self) -> tuple[Prepared, Cases]:
        """What is there; nothing is computed."""
        prepared, answers = self._prepared, self.answers
        facts = self._kit.manifest.provenance
        self._log.write("kit opened", made=facts.created, source=facts.source, methods=self._kit.manifest.methods,
                        program=self.has_program)  # fmt: skip
        self._log.write("normalised", passes=prepared.passes, notes=prepared.notes, signature=prepared.signature)
        answers.tell(self._log)
        return prepared, answers.cases

    def lower(self, lowering: Lowering) -> frozenset[str]:
        """Hand over what the kit holds to compile; names of the quantisation methods that made some of it."""
        if self.has_program:
            lowering.take_program(self._kit.folder / EXPORTED)
        folder = self._kit.folder / LOWERED
        lowering.take([_placed(one, folder) for one in _read(folder / LOWERED_RECORD, tuple[Made, ...])])
        return frozenset(self._kit.manifest.methods)

    def origin(self, _: Prepared) -> Origin:
        """Where the model came from, in the words of the machine that made the kit."""
        facts = self._kit.manifest.provenance
        return Origin(facts.source, facts.source_digest, self._kit.digest)

    def _answers(self) -> Answers:
        folder = self._kit.folder / CASES
        found = _read(folder / ANSWERS, Answers)
        return msgspec.structs.replace(found, cases=rebased(found.cases, folder))


def _placed(one: Made, folder: Path) -> Made:
    """With its folder, which whatever the record says is one of the kit's own."""
    return msgspec.structs.replace(one, folder=str(folder / Path(one.folder).name), model=Path(one.model).name)


def _read(path: Path, kind: type[R]) -> R:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(f"the kit's {path.parent.name}/{path.name} cannot be read", got=error, hint=_AGAIN) from None
