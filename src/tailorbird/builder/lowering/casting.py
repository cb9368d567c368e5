"""Casting: graphs with FP16 or BF16 written into them, made once each from the FP32 or the quantised one."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.cases.data import load_set
from tailorbird.builder.cases.split import InputSet, digest_sets
from tailorbird.builder.fingerprint import code_digest, version_of
from tailorbird.builder.precision.records import LOW, LowerArgs, Lowered
from tailorbird.builder.recall import Recall
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.precision import Precision

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R")

CODE = ("builder/graph", "builder/precision", "builder/quantise", "domain")
"""The parts of this package that shape a lowered graph."""

_RECORD = "lowered.json"
_FUNCTION = "tailorbird.builder.precision.lower:lower"


class Source(msgspec.Struct, frozen=True):
    """A graph to cast."""

    path: Path
    words: str
    """How it was quantised; empty when it was not."""
    key: dict[str, Any]
    """All that it follows from."""
    passing: bool = False
    """Whether it is one of many that a search makes: quickly made, large, and not kept for later builds."""


class Work(Protocol):
    """Runs a function in a process of its own, within the limits."""

    def __call__(self, function: str, args: A, result: type[R]) -> R:
        """Its result; raises :class:`TailorbirdError`."""


class Casting:
    """Cast graphs by source and precision.

    Args:
        samples: ``.npz`` files to look at values on.
        threads: of the runtime that looks.
        folder: a private directory for what is not kept.
        work: runs the lowering in a process of its own.
        recall: the way to the cache.
        log: receives each graph made.
    """

    def __init__(
        self, samples: tuple[str, ...], threads: int, folder: Path, work: Work, recall: Recall, log: BuildLog
    ) -> None:
        self._samples = samples
        self._threads = threads
        self._folder = folder
        self._work = work
        self._recall = recall
        self._log = log
        self._digest = ""
        self._made: dict[tuple[str, Precision], Path | TailorbirdError] = {}

    def graph(self, source: Source, precision: Precision) -> Path:
        """The file; raises :class:`TailorbirdError` when it could not be made, again at every later call."""
        asked = str(source.path), precision
        if asked not in self._made:
            try:
                self._made[asked] = self._lowered(source, precision)
            except TailorbirdError as error:
                self._made[asked] = error
        made = self._made[asked]
        if isinstance(made, TailorbirdError):
            raise made
        return made

    def made(self) -> dict[tuple[str, Precision], Path]:
        """Files made so far, by path of their source and precision."""
        return {asked: file for asked, file in self._made.items() if isinstance(file, Path)}

    def take(self, source: Path, precision: Precision, file: Path) -> None:
        """Use a file that another machine made."""
        self._made[str(source), precision] = file

    def discard(self, source: Path) -> None:
        """Give back the disk of what was made of a graph that is not kept."""
        for precision in LOW:
            file = self._made.pop((str(source), precision), None)
            if isinstance(file, Path):
                shutil.rmtree(file.parent, ignore_errors=True)

    def _lowered(self, source: Source, precision: Precision) -> Path:
        start = time.monotonic()
        place, cached = self._place(source, precision)
        found = msgspec.json.decode((place / _RECORD).read_bytes(), type=Lowered)
        self._log.write("lowered", precision=precision, method=source.words, nodes=found.nodes, kept=found.kept,
                        snr_db=found.snr_db, notes=found.notes, cached=cached,
                        seconds=round(time.monotonic() - start, 1))  # fmt: skip
        return place / found.model

    def _place(self, source: Source, precision: Precision) -> tuple[Path, bool]:
        """The directory with the file and its record, and whether an earlier build made it."""
        if not source.passing:
            key = self._key(source, precision)
            return self._recall.make("lowered", key, lambda folder: self._lower(source, precision, folder))
        place = Path(tempfile.mkdtemp(prefix="cast-", dir=self._folder))
        try:
            self._lower(source, precision, place)
        except TailorbirdError:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return place, False

    def _lower(self, source: Source, precision: Precision, folder: Path) -> None:
        self._log.write("lowering", precision=precision, method=source.words)
        args = LowerArgs(str(source.path), precision, self._samples, str(folder), self._threads)
        made = self._work(_FUNCTION, args, Lowered)
        (folder / _RECORD).write_bytes(msgspec.json.encode(made))

    def _key(self, source: Source, precision: Precision) -> dict[str, Any]:
        return {
            "of": source.key,
            "precision": precision,
            "tailorbird code": code_digest(CODE),
            "packages": {name: version_of(name) for name in ("onnx", "onnxruntime")},
            "samples": self._samples_digest(),
        }

    def _samples_digest(self) -> str:
        """Of what the samples hold: an archive's bytes have the time in them."""
        if not self._digest:
            self._digest = digest_sets([InputSet(load_set(Path(sample))) for sample in self._samples])
        return self._digest
