"""Exporting: the user's PyTorch program as one file that backends compile, made when the first of them asks for it."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import Any

from tailorbird.backends.isolate import Worker
from tailorbird.backends.program import PROGRAM
from tailorbird.builder.buildlog import BuildLog
from tailorbird.builder.fingerprint import code_digest
from tailorbird.builder.recall import Recall
from tailorbird.builder.sources.source import ProgramArgs, Programmed
from tailorbird.domain.config import Limits
from tailorbird.domain.errors import TailorbirdError

_FUNCTION = "tailorbird.builder.sources.export_torch:write_program"


class Exporting:
    """One source's program.

    Args:
        program: ``module:callable`` or a ``.pt2`` file, as the user named it; empty where the source is none.
        onnx: the normalised graph that was made of the same program, and its digest: the weights are in it.
        limits: of the export.
        folder: a private directory for the child's temporary files and log.
        recall: the way to the cache.
        log: receives what was made.
    """

    def __init__(
        self, program: str, onnx: tuple[Path, str], limits: Limits, folder: Path, recall: Recall, log: BuildLog
    ) -> None:
        self._program = program
        self._onnx, self._digest = onnx
        self._limits = limits
        self._folder = folder
        self._recall = recall
        self._log = log
        self._made: Path | TailorbirdError | None = None

    @property
    def made(self) -> Path | None:
        """The file, where there is one already."""
        return self._made if isinstance(self._made, Path) else None

    def take(self, file: Path) -> None:
        """Use what another machine exported: the user's own code is not needed, nor looked for."""
        self._made = file

    def file(self) -> Path:
        """The file; raises :class:`TailorbirdError` when it cannot be made, again at every later call."""
        if self._made is None:
            try:
                self._made = self._exported()
            except TailorbirdError as error:
                self._made = error
        if isinstance(self._made, TailorbirdError):
            raise self._made
        return self._made

    def _exported(self) -> Path:
        if not self._program:
            raise TailorbirdError("there is no program to compile", expected="a PyTorch source")
        start = time.monotonic()
        place, cached = self._recall.make("programs", self._key(), self._write)
        self._log.write("exported", seconds=round(time.monotonic() - start, 1), cached=cached)
        return place / PROGRAM

    def _write(self, folder: Path) -> None:
        args = ProgramArgs(self._program, str(self._onnx), str(folder / PROGRAM))
        search_path = (str(Path.cwd()),)  # where the user called us, as for the export to ONNX
        with Worker(self._limits, self._folder / "export.log", search_path, self._folder) as worker:
            worker.call(_FUNCTION, args, Programmed)

    def _key(self) -> dict[str, Any]:
        return {
            "program": self._program,
            "model": self._digest,
            "torch": importlib.metadata.version("torch"),
            "tailorbird code": code_digest(("backends/program.py", "builder/sources", "domain")),
        }
