"""The program's file: a ``torch.export`` archive without a pickle in it, with the names of inputs and outputs.

``torch.export.load`` unpickles example inputs, tensors that are no plain arrays, and objects, some of them without any
restriction (torch 2.13: ``pt2_archive/_package.py``). What is written here has none of these, and an archive that has
is refused before it is loaded.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.errors import BackendError

PROGRAM = "program.pt2"
"""Its usual name."""

_NAMES = "tailorbird.json"
_MOST_BYTES = 64 << 20
"""Of one JSON record of an archive."""


class Names(msgspec.Struct, frozen=True):
    """The signature's names, in the order in which the program takes and gives tensors."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def save_program(program: Any, names: Names, path: Path) -> None:
    """Write an exported program that takes and gives tensors by position.

    Args:
        program: a ``torch.export.ExportedProgram``; its example inputs are dropped.
        names: as many as it has inputs and outputs.
        path: ends in ``.pt2``.

    Raises:
        BackendError: it holds something that only a pickle can hold.
    """
    import torch

    program.example_inputs = None
    torch.export.save(program, str(path), extra_files={_NAMES: msgspec.json.encode(names).decode()})
    _check(path)


def load_program(path: Path) -> tuple[Any, Names]:
    """The exported program and its names; raises :class:`BackendError` for an archive with a pickle in it."""
    import torch

    _check(path)
    found = {_NAMES: ""}
    program = torch.export.load(str(path), extra_files=found)
    return program, msgspec.json.decode(found[_NAMES], type=Names)


def _check(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        bad = [name for name in names if _is_pickle(archive, name)]
    if twice:  # one of the two would be checked, and perhaps the other read
        raise BackendError("the exported program holds two files of one name", got=", ".join(twice[:3]),
                           expected="each name once")  # fmt: skip
    if bad:
        raise BackendError("the exported program holds a pickle, which runs code when read", got=", ".join(bad[:3]),
                           expected="plain tensors", hint="export it without custom objects")  # fmt: skip


def _is_pickle(archive: zipfile.ZipFile, name: str) -> bool:
    """Whether reading this member would unpickle: example inputs, old formats, objects, tensors marked as such."""
    inner = name.partition("/")[2]
    size = archive.getinfo(name).file_size
    if inner.startswith("data/sample_inputs/"):
        return size > 0
    if inner.startswith(("data/weights/", "data/constants/")) and inner.endswith(".json"):
        return size > _MOST_BYTES or _marked(json.loads(archive.read(name)))
    kinds = (".pt", ".pkl", ".pickle")
    return inner.endswith(kinds) or inner.startswith(("data/constants/custom_obj", "data/constants/opaque_obj"))


def _marked(payloads: Any) -> bool:
    return any(one.get("use_pickle") for one in payloads.get("config", {}).values())
