"""Lowering: the graph each candidate is compiled from. Each lowered one is made once, and kept for later builds."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tailorbird.backends.host import cpu_facts
from tailorbird.backends.isolate import Worker
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.fingerprint import code_digest, version_of
from tailorbird.builder.lowering.casting import Casting, Source
from tailorbird.builder.lowering.exporting import Exporting
from tailorbird.builder.precision.records import LOW
from tailorbird.builder.quantise.methods import Method, QuantiseArgs, Quantised, Unit, method
from tailorbird.builder.recall import Recall
from tailorbird.domain.candidate import Candidate, Form
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import TailorbirdError
from tailorbird.domain.precision import Precision
from tailorbird.domain.quantisation import Quantisation

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R")

LEAST_SECONDS = 5.0
"""What a method is given at least, when a build's time is nearly up."""

_RECORD = "quantised.json"
_FOUND = "found.json"


class Material(msgspec.Struct, frozen=True):
    """What lowered graphs are made of."""

    model: str
    """The normalised ONNX file."""
    digest: str
    """Of that file."""
    samples: tuple[str, ...]
    """``.npz`` files of calibration inputs."""
    data_digest: str
    """Of the samples' content, in order."""
    threads: int
    seed: int
    inputs: tuple[str, ...] = ()
    """``.npz`` files to look at ranges on where there are no samples: what the gate judges by."""
    program: str = ""
    """The PyTorch program, as the user named it; empty where the source is none."""
    kit: str = ""
    """Digest of the build kit it all came in, which holds too few samples to calibrate on; empty where in none."""


class Made(msgspec.Struct, frozen=True):
    """A lowered graph, for those who keep it."""

    quantisation: Quantisation | None
    precision: Precision | None
    """What its float nodes were cast to; None where they were not."""
    folder: str
    """All that belongs to it."""
    model: str
    """File name inside the folder."""


class Lowering:
    """Graphs by quantisation and precision, made when first asked for.

    Args:
        material: the model and the calibration data.
        limits: of one call of a method.
        folder: a private directory for the children's temporary files and logs.
        recall: the way to the cache, which keeps what was made.
        log: receives each graph made.
        until: seconds of the build by which a graph must be made; 0 for no bound.
    """

    def __init__(
        self, material: Material, limits: Limits, folder: Path, recall: Recall, log: BuildLog, until: float = 0.0
    ) -> None:
        self._until = until
        self._material = material
        self._limits = limits
        self._folder = folder
        self._recall = recall
        self._log = log
        self._places: dict[Quantisation, Path] = {}
        self._refusals: dict[Quantisation, TailorbirdError] = {}
        looked_at = material.samples or material.inputs
        self._casting = Casting(looked_at, material.threads, folder, self._worked, recall, log)
        self._exporting = Exporting(
            material.program, (Path(material.model), material.digest), limits, folder, recall, log
        )

    @property
    def normalised(self) -> Path:
        """The normalised model that all others are made of."""
        return Path(self._material.model)

    def graph(self, candidate: Candidate) -> Path:
        """The file that a candidate is compiled from; the normalised model itself when nothing is to be lowered.

        Raises:
            TailorbirdError: the method refused, crashed or went over a limit; raised again at every later call.
        """
        if candidate.form is Form.PROGRAM:
            return self._program()
        source, low = self._source(candidate), _float_of(candidate)
        if candidate.form is Form.CAST and low in LOW:
            return self._casting.graph(source, low)
        return source.path

    def _program(self) -> Path:
        return self._exporting.file()

    def _source(self, candidate: Candidate) -> Source:
        """The graph in FP32, or quantised with the rest in FP32."""
        quantisation = candidate.quantisation
        if quantisation is None:
            return Source(self.normalised, "", {"model": self._material.digest})
        place, known = self._place(quantisation.graph), method(quantisation.method)
        words = " ".join(quantisation.graph.words)
        key = self._key(quantisation.graph, known)
        return Source(place / _record(place).model, words, key, passing=bool(quantisation.kept))

    def units(self, quantisation: Quantisation) -> tuple[Unit, ...]:
        """What runs quantised in that graph, in topological order. Raises as :meth:`graph` does."""
        return _record(self._place(quantisation.graph)).units

    def made(self) -> tuple[Made, ...]:
        """What was made so far with no unit kept in float, each before what was made of it."""
        places = {one: place for one, place in self._places.items() if not one.kept}
        files: dict[str, Quantisation | None] = {str(self.normalised): None}
        files |= {str(place / _record(place).model): one for one, place in places.items()}
        first = (Made(one, None, str(place), _record(place).model) for one, place in places.items())
        second = (Made(files[source], precision, str(file.parent), file.name)
                  for (source, precision), file in self._casting.made().items() if source in files)  # fmt: skip
        return *first, *second

    def take(self, made: Sequence[Made]) -> None:
        """Use what another machine made, in the order of :meth:`made`."""
        for one in made:
            if one.precision is None and one.quantisation is not None:
                self._places[one.quantisation] = Path(one.folder)
            elif one.precision is not None:
                base = None if one.quantisation is None else self._places[one.quantisation]
                source = self.normalised if base is None else base / _record(base).model
                self._casting.take(source, one.precision, Path(one.folder, one.model))

    @property
    def program(self) -> Path | None:
        """The exported program, where it was asked for and could be made."""
        return self._exporting.made

    def take_program(self, file: Path) -> None:
        """Use the program that another machine exported."""
        self._exporting.take(file)

    def noted(self, kind: str, quantisation: Quantisation, find: Callable[[], R], result: type[R]) -> R:
        """What was found out about a graph: from the cache when any build knows it, otherwise by ``find``."""
        key = self._key(quantisation, method(quantisation.method)) | {"found on": self._material.data_digest}
        place, _ = self._recall.make(kind, key, lambda folder: _write(folder / _FOUND, find()))
        return msgspec.json.decode((place / _FOUND).read_bytes(), type=result)

    def discard(self, quantisation: Quantisation) -> None:
        """Give back the disk of a graph with units kept in float; it is made anew when asked for again."""
        place = self._places.pop(quantisation.graph, None) if quantisation.kept else None
        if place is not None:
            self._casting.discard(place / _record(place).model)
            shutil.rmtree(place, ignore_errors=True)

    def _place(self, quantisation: Quantisation) -> Path:
        if quantisation in self._refusals:
            raise self._refusals[quantisation]
        if quantisation not in self._places:
            try:
                self._places[quantisation] = self._made(quantisation)
            except TailorbirdError as error:
                self._refusals[quantisation] = error
                raise
        return self._places[quantisation]

    def _made(self, quantisation: Quantisation) -> Path:
        start, known = time.monotonic(), method(quantisation.method)
        if quantisation.kept:
            return self._derived(quantisation, known)
        place, cached = self._recall.make(
            "quantised", self._key(quantisation, known), lambda folder: self._first(quantisation, known, folder)
        )
        found = _record(place)
        self._log.write("quantised", method=" ".join(quantisation.words), precision=known.precision,
                        units=len(found.units), cached=cached, notes=found.notes,
                        seconds=round(time.monotonic() - start, 1))  # fmt: skip
        return place

    def _first(self, quantisation: Quantisation, known: Method, folder: Path) -> None:
        words = " ".join(quantisation.words)
        if self._material.kit and known.ranges:
            raise TailorbirdError("the build kit does not hold the calibrated graph", got=words,
                                  hint="make the kit again")  # fmt: skip
        self._log.write("quantising", method=words)
        self._quantise(quantisation, known, "", folder)

    def _derived(self, quantisation: Quantisation, known: Method) -> Path:
        """Made from the one with nothing kept, without calibrating again; large, quickly made, so not cached."""
        base = self._place(quantisation.base)
        place = Path(tempfile.mkdtemp(prefix="kept-", dir=self._folder))
        try:
            self._quantise(quantisation, known, str(base), place)
        except TailorbirdError:
            shutil.rmtree(place, ignore_errors=True)
            raise
        return place

    def _quantise(self, quantisation: Quantisation, known: Method, base: str, folder: Path) -> None:
        args = QuantiseArgs(
            quantisation=quantisation,
            model=self._material.model,
            base=base,
            samples=self._material.samples if known.ranges else (),
            folder=str(folder),
            threads=self._material.threads,
            seed=self._material.seed,
        )
        _write(folder / _RECORD, self._worked(known.function, args, Quantised))

    def _worked(self, function: str, args: A, result: type[R]) -> R:
        """One call in a process of its own."""
        with Worker(self._within_time(), self._folder / "quantise.log", scratch=self._folder) as worker:
            return worker.call(function, args, result)

    def _within_time(self) -> Limits:
        """The limits, and no more than the build's time budget leaves: what is not ready by then cannot race."""
        if not self._until:
            return self._limits
        left = max(LEAST_SECONDS, self._until - self._log.seconds)
        return msgspec.structs.replace(self._limits, seconds=min(self._limits.seconds, left))

    def _key(self, quantisation: Quantisation, known: Method) -> dict[str, Any]:
        """All that shapes the graph. The instruction set does: without VNNI weights are given one bit less."""
        return {
            "quantisation": quantisation,
            "version": known.version,
            "tailorbird code": code_digest(("builder/graph", "builder/quantise", "domain")),
            "packages": {name: version_of(name) for name in (known.package, *known.beside)},
            "model": self._material.digest,
            "data": self._material.data_digest if known.ranges else "",
            "kit": self._material.kit if known.ranges else "",
            "seed": self._material.seed,
            "isa": cpu_facts()["isa"],
        }


def _float_of(candidate: Candidate) -> Precision:
    """The precision of what is not quantised."""
    return candidate.quantisation.rest if candidate.quantisation else candidate.precision


def _write(path: Path, record: Any) -> None:
    path.write_bytes(msgspec.json.encode(record))


def _record(place: Path) -> Quantised:
    return msgspec.json.decode((place / _RECORD).read_bytes(), type=Quantised)
