"""What is measured: a zoo model at a batch, and sets of inputs, each with one job."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import zoo
from bench.contestants import TIMED_SETS
from tailorbird.builder.cases.data import save_set
from tailorbird.domain.profile import format_shapes

DATA_ROWS = 48
"""Sets given to whoever calibrates: the build deals them out to calibration and gate by itself."""

LEAST_DATA_SETS = 8
UNSEEN_ROWS = 16
"""Sets that nobody calibrated or judged on; :data:`bench.contestants.TIMED_SETS` of them are the timed ones."""

LARGER_BATCHES = ("bert-base@8",)
"""Measured by default beside the eight, and in no mean over them."""


@dataclass(frozen=True)
class Case:
    """One row of the table. ``batch`` 0 is the zoo's own."""

    model: zoo.ZooModel
    batch: int = 0

    @property
    def name(self) -> str:
        """``resnet50``, or ``bert-base@8``."""
        return f"{self.model.name}@{self.batch}" if self.batch else self.model.name

    @property
    def shapes(self) -> str:
        """The measured shape, in trtexec's grammar."""
        return format_shapes({name: (self.batch or dims[0], *dims[1:]) for name, dims in self.model.shapes.items()})

    @property
    def data_sets(self) -> int:
        """Fewer sets where a larger batch was asked for: what calibration and gate see is rows."""
        return max(LEAST_DATA_SETS, DATA_ROWS // (self.batch or 1))

    @property
    def unseen_sets(self) -> int:
        """Likewise."""
        return max(TIMED_SETS, UNSEEN_ROWS // (self.batch or 1))


@dataclass(frozen=True)
class Inputs:
    """Two folders of ``.npz`` sets that have no set in common."""

    data: Path
    unseen: Path


def parse(text: str) -> Case:
    """``NAME`` or ``NAME@BATCH``; raises :class:`bench.zoo.ZooError` for anything else."""
    name, at, batch = text.partition("@")
    if at and not (batch.isdecimal() and int(batch) > 0):
        raise zoo.ZooError(f"No batch in {text!r}: got {batch!r}, expected NAME@BATCH with a batch of 1 or more.")
    return Case(zoo.get(name), int(batch or 0))


def default_names() -> tuple[str, ...]:
    """The eight, and what is measured beside them."""
    return (*(model.name for model in zoo.ZOO), *LARGER_BATCHES)


def write_inputs(case: Case, folder: Path) -> Inputs:
    """Seeded sets into two new folders: those of the data first, so that no seed is used twice."""
    found = Inputs(folder / "data", folder / "unseen")
    for place, seeds in (
        (found.data, range(case.data_sets)),
        (found.unseen, range(case.data_sets, case.data_sets + case.unseen_sets)),
    ):
        place.mkdir()
        for number, seed in enumerate(seeds):
            save_set(place / f"{number:03}.npz", case.model.sample(seed, case.batch or None))
    return found
