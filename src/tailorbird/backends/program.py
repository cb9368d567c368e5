"""The program's file: a ``torch.export`` archive without a pickle in it, with the names of inputs and outputs.

``torch.export.load`` unpickles example inputs, tensors that are no plain arrays, and objects, some of them without any
restriction; it opens compiled libraries, falls back to an older form that is a pickle, and evaluates the text of
symbolic sizes and of guards as Python, as it does the code that it makes of the graph's names (torch 2.13:
``pt2_archive/_package.py``, ``_export/serde/serialize.py``). What is written here has none of these but names and
sizes, and an archive that has, or whose names and sizes are more than that, is refused before it is loaded:
:mod:`~tailorbird.backends.archived` looks at its members, :mod:`~tailorbird.backends.graphtext` at the graph's text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.archived import NAMES, checked
from tailorbird.domain.errors import BackendError

PROGRAM = "program.pt2"
"""Its usual name."""

_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
"""What exporting notes at every operator: lines of the user's code, paths of this machine."""


class Names(msgspec.Struct, frozen=True):
    """The signature's names, in the order in which the program takes and gives tensors."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def save_program(program: Any, names: Names, path: Path) -> None:
    """Write an exported program that takes and gives tensors by position.

    Args:
        program: a ``torch.export.ExportedProgram``; its example inputs and guards are dropped.
        names: as many as it has inputs and outputs.
        path: ends in ``.pt2``.

    Raises:
        BackendError: it holds something that only a pickle can hold, or an operator that is not PyTorch's.
    """
    import torch

    program.example_inputs, program._guards_code = None, []
    _without_notes(program.graph_module)
    torch.export.save(program, str(path), extra_files={NAMES: msgspec.json.encode(names).decode()})
    checked(path)


def load_program(path: Path) -> tuple[Any, Names]:
    """The exported program, without guards, and its names.

    Raises:
        BackendError: reading the archive would run code; or the installed torch cannot read it, and which one wrote it;
            or there are not as many names as inputs and outputs.
    """
    import torch

    contents = checked(path)
    names = _names(contents.names)
    with _reading(str(contents.graph.get("torch_version")), torch.__version__):
        program = torch.export.load(str(path))
    program._guards_code = []  # Python that was nobody's to check
    signature = program.graph_signature
    asked, given = (len(signature.user_inputs), len(signature.user_outputs)), (len(names.inputs), len(names.outputs))
    if asked != given:
        raise BackendError("the exported program's names are not those of its inputs and outputs",
                           got=f"{given[0]} and {given[1]} names", expected=f"{asked[0]} and {asked[1]}",
                           hint="export it again")  # fmt: skip
    return program, names


def _names(record: bytes) -> Names:
    try:
        return msgspec.json.decode(record, type=Names)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackendError("the exported program's names cannot be read", got=error, hint="export it again") from None


@contextmanager
def _reading(wrote: str, here: str) -> Iterator[None]:
    """Turn whatever a torch says that cannot read an archive into one error that names the torch that wrote it.

    ``torch.export.load`` logs the cause with a trace, and then raises that there is something in the log.
    """
    causes: list[BaseException] = []

    def kept(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            causes.append(record.exc_info[1])
        return not record.exc_info

    log = logging.getLogger("torch.export")
    log.addFilter(kept)
    try:
        yield
    except Exception as error:
        raise _unreadable(wrote, here, [*causes, error][0]) from error
    finally:
        log.removeFilter(kept)


def _unreadable(wrote: str, here: str, cause: BaseException) -> BackendError:
    said = " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
    if wrote == here:
        return BackendError("the exported program cannot be read", got=said, hint="export it again")
    return BackendError("this torch cannot read the exported program", got=f"torch {here}: {said}",
                        expected=f"torch {wrote}, which wrote it",
                        hint="install that release here, or export the program with this one")  # fmt: skip


def _without_notes(module: Any) -> None:
    for part in module.modules():
        for node in part.graph.nodes if hasattr(part, "graph") else ():
            for note in _NOTES:
                node.meta.pop(note, None)
