"""The program's file: a ``torch.export`` archive without a pickle in it, with the names of inputs and outputs.

``torch.export.load`` unpickles example inputs, tensors that are no plain arrays, and objects, some of them without any
restriction; it opens compiled libraries, falls back to an older form that is a pickle, and evaluates the text of
symbolic sizes as Python (torch 2.13: ``pt2_archive/_package.py``, ``_export/serde/serialize.py``). What is written
here has none of these but sizes, and an archive that has, or whose sizes are more than that, is refused before it is
loaded.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tailorbird.domain.errors import BackendError

PROGRAM = "program.pt2"
"""Its usual name."""

_NAMES = "tailorbird.json"
_MOST_BYTES = 64 << 20
"""Of one JSON record of an archive."""

_GRAPH = "models/model.json"
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json|extra/tailorbird\.json"
    r"|data/sample_inputs/model\.pt|data/(weights|constants)/(\w+\.json|(weight|tensor)_\d+)"
)
"""All members of an archive as ``torch.export.save`` writes it, below its one folder."""

_SIZE = re.compile(
    r"(?:[A-Z]\w*+|[szu][a-z]*+\d++|floor|ceiling|true|false|oo|[a-z][a-z_]*+(?==)|'\w*+'|'[\d.e+-]*+'|\d[\d.]*+"
    r"|[-+*/%(),=<>&|~ ])*+"
)
"""Symbolic sizes as SymPy's printers write them: names of symbols, numbers, and classes that are called. No function
of Python's begins with a capital letter, and no text that could be evaluated anew has more than letters in it."""

_TREES = frozenset({"None", "builtins.tuple", "builtins.list", "builtins.dict"})
"""Of other containers ``torch`` imports the module that an archive names."""

_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node", "custom")
"""What exporting notes at every operator: lines of the user's code, paths of this machine."""


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
    _without_notes(program.graph_module)
    torch.export.save(program, str(path), extra_files={_NAMES: msgspec.json.encode(names).decode()})
    _check(path)


def load_program(path: Path) -> tuple[Any, Names]:
    """The exported program and its names.

    Raises:
        BackendError: reading the archive would run code; or the installed torch cannot read it, and which one wrote it.
    """
    import torch

    _check(path)
    found = {_NAMES: ""}
    with _reading(path, torch.__version__):
        program = torch.export.load(str(path), extra_files=found)
    return program, msgspec.json.decode(found[_NAMES], type=Names)


@contextmanager
def _reading(path: Path, here: str) -> Iterator[None]:
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
        raise _unreadable(path, here, [*causes, error][0]) from error
    finally:
        log.removeFilter(kept)


def _unreadable(path: Path, here: str, cause: BaseException) -> BackendError:
    with zipfile.ZipFile(path) as archive:
        wrote = str(_graph_of(archive).get("torch_version"))
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


def _check(path: Path) -> None:
    """Raise :class:`BackendError` for an archive that would run code when it is read."""
    with _opened(path) as archive:
        names = archive.namelist()
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:  # one of the two would be checked, and perhaps the other read
            raise BackendError("the exported program holds two files of one name", got=", ".join(twice[:3]),
                               expected="each name once")  # fmt: skip
        if bad := [name for name in names if _is_pickle(archive, name)]:
            raise BackendError("the exported program holds a pickle, which runs code when read", got=", ".join(bad[:3]),
                               expected="plain tensors", hint="export it without custom objects")  # fmt: skip
        root = names[0].partition("/")[0] + "/" if names else ""
        if other := [name for name in names if not (name.startswith(root) and _KNOWN.fullmatch(name[len(root) :]))]:
            raise BackendError("the exported program holds what no exported program does", got=", ".join(other[:3]),
                               expected="a graph and tensors", hint="write it with torch.export.save")  # fmt: skip
        _check_graph(_graph_of(archive))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BackendError("the file is no exported program", got=error, hint="export it again") from None


def _graph_of(archive: zipfile.ZipFile) -> dict[str, Any]:
    root = archive.namelist()[0].partition("/")[0]
    found: dict[str, Any] = json.loads(archive.read(f"{root}/{_GRAPH}"))
    return found


def _check_graph(graph: dict[str, Any]) -> None:
    """Refuse text that torch evaluates, and containers whose module it imports."""
    for text in _texts(graph, "expr_str"):
        if not _SIZE.fullmatch(text):
            raise BackendError("the exported program holds a size that is none", got=ascii(text[:80]),
                               expected="symbols and numbers", hint="export it again")  # fmt: skip
    for key in ("in_spec", "out_spec"):
        for spec in _texts(graph, key):
            if strange := {str(kind) for kind in _texts(json.loads(spec), "type")} - _TREES:
                raise BackendError("the exported program takes or gives containers of its own", got=min(strange),
                                   expected="tensors, tuples, lists and dicts")  # fmt: skip


def _texts(tree: Any, key: str) -> Iterator[Any]:
    """Every value of that key, at any depth."""
    if isinstance(tree, dict):
        if key in tree:
            yield tree[key]
        tree = tree.values()
    elif not isinstance(tree, list):
        return
    for inner in tree:
        yield from _texts(inner, key)


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
