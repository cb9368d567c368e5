"""Sources: what the user trained, told apart without running any of it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from tailorbird.domain.digest import digest_bytes, digest_file
from tailorbird.domain.errors import ModelError, UsageError


class Source(msgspec.Struct, frozen=True):
    """An ONNX file, or a PyTorch program (``.pt2`` or ``module:callable``)."""

    text: str
    """As the user gave it; for a file, its absolute path."""
    is_program: bool
    name: str
    """A model name made of it, fit for a repository."""


class ExternalArgs(msgspec.Struct, frozen=True):
    """An ONNX file."""

    model: str


class External(msgspec.Struct, frozen=True):
    """The data files that it names, relative to its directory."""

    locations: tuple[str, ...]


class Exported(msgspec.Struct, frozen=True):
    """The example's shapes: what the engine is built for when the user says nothing."""

    shapes: dict[str, tuple[int, ...]]
    parameters: int


class ExportArgs(msgspec.Struct, frozen=True):
    """The program, and where its ONNX form goes."""

    program: str
    onnx: str


class ProgramArgs(msgspec.Struct, frozen=True):
    """The program, its normalised ONNX form, whose names it gets, and where its exported form goes."""

    program: str
    onnx: str
    file: str


class Programmed(msgspec.Struct, frozen=True):
    """How many operators the exported form has."""

    operators: int


def resolve(text: str) -> Source:
    """Tell what a source is.

    Raises:
        UsageError: there is no such file, and it is not ``module:callable`` either.
        ModelError: a directory, or a kind of file that is refused because reading it can run code.
    """
    path = Path(text)
    if path.exists():
        return _of_file(path)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        return Source(text, is_program=True, name=_model_name(text.rpartition(":")[2]))
    raise UsageError("no such model", got=text, expected="an ONNX file, a .pt2 file, or module:callable")


def program_digest(source: Source) -> str:
    """Digest of a PyTorch source: the file's bytes, or the callable's name (its weights are digested as ONNX)."""
    path = Path(source.text)
    return digest_file(path) if path.is_file() else digest_bytes(source.text.encode())


def _of_file(path: Path) -> Source:
    if path.is_dir():
        raise ModelError("the model is a directory", got=path, expected="a file", hint="name the .onnx file inside it")
    if path.suffix in (".pt", ".pth", ".bin", ".pkl"):
        raise ModelError(f"{path.suffix} files hold pickles, which run code when read", got=path,
                         expected="an .onnx or .pt2 file, or module:callable",
                         hint="write one with torch.export.save(torch.export.export(module, args), path)")  # fmt: skip
    return Source(str(path.resolve()), is_program=path.suffix == ".pt2", name=_model_name(path.stem))


def _model_name(text: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")
    return cleaned[:100] or "model"
