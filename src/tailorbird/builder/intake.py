"""Intake: what a build is made of, told by digests. A stranger's model is hashed here, and parsed in a child only."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from tailorbird.backends.isolate import Worker
from tailorbird.builder.cases.identity import DataArgs, DataDigest, digest_files
from tailorbird.builder.fingerprint import code_digest
from tailorbird.builder.recall import Recall
from tailorbird.builder.sources.external_data import DataDirectory, ExternalRange, joint_digest
from tailorbird.builder.sources.source import ExportArgs, Exported, External, ExternalArgs, Source
from tailorbird.domain.config import BuildConfig
from tailorbird.domain.digest import digest_file
from tailorbird.domain.errors import InputError, ModelError
from tailorbird.domain.profile import format_shapes

R = TypeVar("R")

EXTERNAL = "external data "
"""Begins the ingredient of each data file."""

_AGAIN = "build again, when nobody writes to it"
_LISTED = "external.json"
_TORCH = "tailorbird.builder.sources.export_torch"


class Intake:
    """One build's source and data.

    Args:
        source: what the user named.
        config: data and limits.
        folder: an existing private directory.
        recall: the way to the cache, which remembers the data files that a model names.
    """

    def __init__(self, source: Source, config: BuildConfig, folder: Path, recall: Recall) -> None:
        self.source = source
        self._config = config
        self._folder = folder
        self._recall = recall
        self._exported: tuple[Path, str] | None = None
        self._digest = ""
        self._data_digest = ""

    def digests(self) -> dict[str, str]:
        """Digests of source, external data and data, by ingredient.

        Raises:
            ModelError: external data is missing or unsafe, or the program cannot be exported.
            UsageError: there is no such data.
        """
        path, example = Path(self.source.text), ""
        if not path.is_file():  # only what is exported has weights to digest
            path, example = self.onnx_form()
        main = digest_file(path)
        external = {} if path.suffix == ".pt2" else self._external(path, main)
        self._digest = joint_digest(main, external)
        found = {"source": main, **{EXTERNAL + location: digest for location, digest in external.items()}}
        self._data_digest = self._data()
        if example:  # the exported graph has open dims; the example decides what is built for
            found["source example"] = example
        return {**found, "data": self._data_digest}

    def check_model(self, digest: str) -> None:
        """Raise :class:`ModelError` when what a child read is not what was digested before."""
        if not self.source.is_program and digest != self._digest:
            raise ModelError("the model changed while it was read", got=digest, expected=self._digest, hint=_AGAIN)

    def check_data(self) -> None:
        """Raise :class:`InputError` when files of data are no longer what was digested before."""
        if self._has_files and (found := self._data()) != self._data_digest:
            raise InputError("the data changed while it was read", got=found, expected=self._data_digest, hint=_AGAIN)

    def onnx_form(self) -> tuple[Path, str]:
        """The source as an ONNX file, and the example's shapes in trtexec's grammar when it is a program."""
        if not self.source.is_program:
            return Path(self.source.text), ""
        if self._exported is None:
            path = self._folder / "exported" / "model.onnx"
            path.parent.mkdir(exist_ok=True)
            made = self._ask(f"{_TORCH}:export", ExportArgs(self.source.text, str(path)), Exported)
            self._exported = path, format_shapes(made.shapes)
        return self._exported

    def _external(self, path: Path, main: str) -> dict[str, str]:
        """SHA-256 in hexadecimal of each data file, which nothing but the model's own record can name."""
        key = {"source": main, "tailorbird code": code_digest(("builder/sources", "domain"))}
        listed, _ = self._recall.make("sources", key, lambda folder: self._list(path, folder))
        locations = msgspec.json.decode((listed / _LISTED).read_bytes(), type=External).locations
        if not locations:
            return {}
        with DataDirectory(path.parent) as folder:
            return {location: folder.digest(ExternalRange(location, location, 0, None, None)) for location in locations}

    def _list(self, path: Path, folder: Path) -> None:
        found = self._ask("tailorbird.builder.prepare:external", ExternalArgs(str(path)), External)
        (folder / _LISTED).write_bytes(msgspec.json.encode(found))

    @property
    def _has_files(self) -> bool:
        path = Path(self._config.data)
        return bool(self._config.data) and (path.is_file() or path.is_dir())

    def _data(self) -> str:
        if not self._config.data:
            return ""
        if self._has_files:
            return digest_files(Path(self._config.data))
        args = DataArgs(self._config.data)
        return self._ask("tailorbird.builder.cases.identity:digest_yielded", args, DataDigest).digest

    def _ask(self, function: str, argument: msgspec.Struct, result: type[R]) -> R:
        scratch = self._folder / "tmp"
        scratch.mkdir(exist_ok=True)
        log = self._folder / "steps.log"
        with Worker(self._config.limits, log, search_path=(str(Path.cwd()),), scratch=scratch) as worker:
            return worker.call(function, argument, result)
