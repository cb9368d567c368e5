"""The archive around an exported program: an uncompressed zip in which every reader finds the same members.

Python's ``zipfile`` checks what PyTorch's own reader, a miniz, loads. The two look for the directory in different
places and take one of two entries differently, so everything in which they could differ is refused: what is left is
what ``torch.export.save`` writes. Layout of the records: PKWARE's APPNOTE.TXT 6.3.10, 4.3.7 to 4.3.16.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tailorbird.backends.graphtext import check_graph
from tailorbird.domain.errors import BackendError

NAMES = "tailorbird.json"
"""The member in which the names of inputs and outputs are, below ``extra/``."""

_MOST_BYTES = 64 << 20
"""Of a member that is no tensor."""

_GRAPH = "models/model.json"
_TENSOR = re.compile(r"(weight|tensor)_\d+")
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json|extra/tailorbird\.json"
    rf"|data/sample_inputs/model\.pt|data/(weights|constants)/(\w+\.json|{_TENSOR.pattern})"
)
"""All members of an archive as ``torch.export.save`` writes it, below its one folder."""

_END, _LOCATOR, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_SATURATED = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
_FLAGS = 0x808
"""Names in UTF-8, and sizes once more behind the data: all that miniz sets."""


@dataclass(frozen=True)
class Contents:
    """What an archive holds besides tensors."""

    graph: dict[str, Any]
    names: bytes
    """JSON: the names of inputs and outputs."""


def checked(path: Path) -> Contents:
    """Read an archive's graph and names, once nothing in it can run when ``torch`` reads it.

    Raises:
        BackendError: it holds a pickle, a member or a text that no exported program has, it is packed in a way that
            two readers could take differently, or it is no archive.
    """
    with _opened(path) as archive:
        _check_container(path, archive.infolist())
        names = archive.namelist()
        root = names[0].partition("/")[0] + "/" if names else ""
        _check_members(archive, root)
        graph = _record(archive, root + _GRAPH)
        check_graph(graph)
        if (named := f"{root}extra/{NAMES}") not in names:
            raise BackendError("the exported program has no names of inputs and outputs",
                               expected=f"extra/{NAMES}", hint="export it again")  # fmt: skip
        return Contents(graph, archive.read(named))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, struct.error, AttributeError, EOFError, LookupError, NotImplementedError,
            RuntimeError, TypeError, ValueError) as error:  # fmt: skip
        raise BackendError("the file is no exported program", got=error, hint="export it again") from None


def _check_container(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _END.size - _LOCATOR.size - _END64.size))
        tail = file.read()
    if not _ends_with_directory(tail, size, len(infos)):
        raise BackendError("the exported program's directory is not at its end", got=f"{size} bytes",
                           expected="one directory, and one record that says where it is",
                           hint="write it with torch.export.save")  # fmt: skip
    for info in infos:
        if odd := _oddity(info):
            raise BackendError("the exported program is packed as none is", got=f"{info.filename!a}: {odd}",
                               expected="plain names, and members neither compressed nor encrypted",
                               hint="write it with torch.export.save")  # fmt: skip


def _ends_with_directory(tail: bytes, size: int, count: int) -> bool:
    """Whether the directory that the last record tells of ends where that record begins, whoever reads it."""
    mark, *disks, here, total, length, offset, comment = _END.unpack(tail[-_END.size :])
    told, at = (here, total, length, offset), size - _END.size
    if tail[-_END.size - _LOCATOR.size :].startswith(b"PK\6\7"):
        at -= _LOCATOR.size + _END64.size
        *more, disk, start = _END64.unpack(tail[: _END64.size])[:6]
        large = _END64.unpack(tail[: _END64.size])[6:]
        place = _LOCATOR.unpack(tail[_END64.size : _END64.size + _LOCATOR.size])
        if (more[0], more[1], disk, start, *place) != (b"PK\6\6", _END64.size - 12, 0, 0, b"PK\6\7", 0, at, 1):
            return False
        if any(small not in {wide, full} for small, wide, full in zip(told, large, _SATURATED, strict=True)):
            return False
        told = large
    is_single = (mark, *disks, comment) == (b"PK\5\6", 0, 0, 0)
    return is_single and told[:2] == (count, count) and told[2] + told[3] == at


def _oddity(info: zipfile.ZipInfo) -> str:
    """In what a directory's entry could be read in two ways, or costs more memory than the file has bytes."""
    more = info.extra
    found = {
        "encrypted, or with flags of its own": info.flag_bits & ~_FLAGS,
        "compressed": info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size,
        "no plain name": info.orig_filename != info.filename or not info.filename.isascii(),
        # Only sizes above 4 GiB: another name in there is one that zipfile takes and miniz does not.
        "with fields of its own": more
        and (more[:2] != b"\1\0" or len(more) != 4 + int.from_bytes(more[2:4], "little")),
        "no tensor, and too large": info.file_size > _MOST_BYTES
        and not _TENSOR.fullmatch(info.filename.split("/")[-1]),
    }
    return next((what for what, is_so in found.items() if is_so), "")


def _check_members(archive: zipfile.ZipFile, root: str) -> None:
    names = archive.namelist()
    often = Counter(name.lower() for name in names)  # miniz finds members whatever their case
    if twice := sorted({name for name in names if often[name.lower()] > 1}):  # one is checked, the other perhaps read
        raise BackendError("the exported program holds two files of one name", got=", ".join(twice[:3]),
                           expected="each name once")  # fmt: skip
    if bad := [name for name in names if _is_pickle(archive, name)]:
        raise BackendError("the exported program holds a pickle, which runs code when read", got=", ".join(bad[:3]),
                           expected="plain tensors", hint="export it without custom objects")  # fmt: skip
    if other := [name for name in names if not (name.startswith(root) and _KNOWN.fullmatch(name[len(root) :]))]:
        raise BackendError("the exported program holds what no exported program does", got=", ".join(other[:3]),
                           expected="a graph and tensors", hint="write it with torch.export.save")  # fmt: skip


def _is_pickle(archive: zipfile.ZipFile, name: str) -> bool:
    """Whether reading this member would unpickle: example inputs, old formats, objects, tensors marked as such."""
    inner = name.partition("/")[2]
    if inner.startswith("data/sample_inputs/"):
        return archive.getinfo(name).file_size > 0
    if inner.startswith(("data/weights/", "data/constants/")) and inner.endswith(".json"):
        return _marked(_record(archive, name))
    kinds = (".pt", ".pkl", ".pickle")
    return inner.endswith(kinds) or inner.startswith(("data/constants/custom_obj", "data/constants/opaque_obj"))


def _marked(payloads: dict[str, Any]) -> bool:
    """Whether a tensor is a pickle: says so, or has a file's name that ``torch`` takes for an object's."""
    entries = payloads.get("config", {}).values()
    return any(one.get("use_pickle") or not _TENSOR.fullmatch(one.get("path_name", "weight_0")) for one in entries)


def _record(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    """A member as a JSON object, decoded as ``torch`` does: ``json`` alone would take UTF-16, too."""
    if name not in archive.namelist():
        raise BackendError("the exported program is not whole", expected=name, hint="export it again")
    found = json.loads(archive.read(name).decode("utf-8"))
    if not isinstance(found, dict):
        raise BackendError("the exported program's record is no JSON object", got=f"{name}: {type(found).__name__}",
                           hint="export it again")  # fmt: skip
    return found
