"""What Python's ``zipfile`` checks is what PyTorch's reader loads, and what is broken is said in plain words."""

import contextlib
import io
import json
import logging
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tailorbird.backends.archived import checked
from tailorbird.backends.program import load_program
from tailorbird.domain.errors import BackendError
from tests.unit.backends.archives import members, saved

torch = pytest.importorskip("torch")


class Touching:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def local(name: str, data: bytes) -> bytes:
    head = (20, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0)
    return struct.pack("<4s5H3L2H", b"PK\3\4", *head) + name.encode() + data


def entry(name: str, data: bytes, offset: int) -> bytes:
    head = (20, 20, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0, 0, 0, 0, 0, offset)
    return struct.pack("<4s6H3L5H2L", b"PK\1\2", *head) + name.encode()


def two_directories(good: dict[str, bytes], bad: dict[str, bytes]) -> bytes:
    """``zipfile`` takes the directory before the last record, with the good members; miniz the one at its offset."""
    body, entries = b"", []
    shift = sum(len(entry(name, b"", 0)) for name in good)
    for group, moved in ((bad, 0), (good, shift)):
        for name, data in group.items():
            entries.append(entry(name, data, max(0, len(body) - moved)))
            body += local(name, data)
    return (
        body + b"".join(entries) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(good), len(good), shift, len(body), 0)
    )


def test_an_archive_that_is_another_to_another_reader_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, good = tmp_path / "ran", members(saved(tmp_path))
    payload = io.BytesIO()
    torch.save(Touching(ran), payload)
    names = list(good)
    inputs = next(name for name in names if "sample_inputs" in name)
    first = next(name for name in names if name != inputs)  # its place is lost in the good directory
    good = {first: good[first]} | good
    path = tmp_path / "two.pt2"
    path.write_bytes(two_directories(good, good | {inputs: payload.getvalue()}))
    with zipfile.ZipFile(path) as archive:
        assert archive.read(inputs) == b""
    assert torch._C.PyTorchFileReader(str(path)).get_record("data/sample_inputs/model.pt") == payload.getvalue()
    with pytest.raises(BackendError) as refused:
        load_program(path)
    assert refused.value.message == (
        f"the exported program's directory is not at its end: got {path.stat().st_size} bytes, expected one directory, "
        "and one record that says where it is\nHint: write it with torch.export.save"
    )
    assert not ran.exists()
    monkeypatch.setattr(logging.getLogger("torch._export.serde.serialize"), "disabled", True)  # its warning is broken
    with contextlib.suppress(AssertionError):  # what comes out of the pickle is no tuple
        torch.export.load(str(path))
    assert ran.exists()


def more_at_the_end(data: bytes) -> bytes:
    return data[:-2] + b"\1\0!"


def more_at_the_beginning(data: bytes) -> bytes:
    return b"!" + data


def locator_of_another_record(data: bytes) -> bytes:
    at = data.rindex(b"PK\6\7") + 8
    return data[:at] + struct.pack("<Q", 0) + data[at + 8 :]


def another_count(data: bytes) -> bytes:
    end = len(data) - 22
    return data[: end + 8] + b"\1\0\1\0" + data[end + 12 :]


@pytest.mark.parametrize("alter", [more_at_the_end, more_at_the_beginning, locator_of_another_record, another_count])
def test_records_that_readers_may_take_differently_are_refused(alter: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(alter(path.read_bytes()))
    with pytest.raises(BackendError, match=r"directory is not at its end|is no exported program"):
        checked(path)


def in_every_entry(data: bytes, at: int, value: int) -> bytes:
    """The archive with another byte in each entry of its directory."""
    found, where = bytearray(data), 0
    while (where := found.find(b"PK\1\2", where)) >= 0:
        found[where + at] = value
        where += 4
    return bytes(found)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (8, 9, "encrypted, or with flags of its own"),
        (10, 99, "compressed"),
        (47, 0, "no plain name"),
    ],
)
def test_members_that_are_packed_otherwise_are_refused(at: int, value: int, said: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(in_every_entry(path.read_bytes(), at, value))
    with pytest.raises(
        BackendError, match=rf"is packed as none is: got '.*': {said}, expected plain names, and members"
    ):
        checked(path)


def test_a_name_besides_the_name_is_refused(tmp_path: Path) -> None:
    """Newer releases of ``zipfile`` take the one of field 0x7075, and miniz does not."""
    good = members(saved(tmp_path))
    with zipfile.ZipFile(tmp_path / "p.pt2", "w") as archive:
        for name, data in good.items():
            info = zipfile.ZipInfo(name)
            other = name.encode().replace(b"weights", b"another")
            info.extra = struct.pack("<2HBL", 0x7075, 5 + len(name), 1, zlib.crc32(name.encode())) + other
            archive.writestr(info, data)
    with pytest.raises(BackendError, match=r"is packed as none is: got .*: (with fields of its own|no plain name)"):
        checked(tmp_path / "p.pt2")


def test_names_that_differ_in_case_are_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(saved(tmp_path), "a") as archive:
        archive.writestr("P/models/MODEL.json", b"{}")
    with pytest.raises(BackendError, match=r"two files of one name: got P/models/MODEL\.json, p/models/model\.json"):
        checked(tmp_path / "p.pt2")


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_graph_that_is_too_large_is_not_read(packing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks to 65 MiB: 65 KB of an archive, if it may be compressed."""
    good, path = members(saved(tmp_path)), tmp_path / "large.pt2"
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in good.items():
            archive.writestr(name, data + b" " * (65 << 20 if name.endswith("models/model.json") else 0))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("a member was read"))
    said = "compressed" if packing == zipfile.ZIP_DEFLATED else "no tensor, and too large"
    with pytest.raises(BackendError, match=rf"is packed as none is: got '.*': {said}"):
        checked(path)


@pytest.mark.parametrize(
    ("member", "content", "said"),
    [
        ("models/model.json", b"[1]", "the exported program's record is no JSON object: got p/models/model.json: list"),
        ("models/model.json", b"{", "the file is no exported program: got Expecting property name"),
        ("models/model.json", json.dumps({}).encode("utf-16"), "the file is no exported program: got 'utf-8' codec"),
        ("models/model.json", None, "the exported program is not whole: expected p/models/model.json"),
        ("extra/tailorbird.json", None, "the exported program has no names of inputs and outputs: expected extra/"),
        ("extra/tailorbird.json", b"", "the exported program's names cannot be read: got Input data was truncated"),
        ("extra/tailorbird.json", b"{}", "the exported program's names cannot be read: got Object missing required"),
        ("extra/tailorbird.json", b"\xff", "the exported program's names cannot be read: got"),
        ("extra/tailorbird.json", b'{"inputs": ["x", "z"], "outputs": []}',
         "names are not those of its inputs and outputs: got 2 and 0 names, expected 1 and 1"),
        ("data/weights/model_weights_config.json", b"[]", "the exported program's record is no JSON object"),
        ("data/weights/model_weights_config.json", b'{"config": {"a": 1}}', "the file is no exported program"),
        ("data/weights/model_weights_config.json", b'{"config": {"a": {"path_name": "custom_obj_0"}}}', "a pickle"),
        ("archive_version", b"9", "the exported program cannot be read: got ValueError: Saved archive version 9"),
    ],
)  # fmt: skip
def test_what_is_broken_is_said(member: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    good = members(saved(tmp_path))
    with zipfile.ZipFile(tmp_path / "bad.pt2", "w") as archive:
        for name, data in good.items():
            if name != f"p/{member}":
                archive.writestr(name, data)
            elif content is not None:
                archive.writestr(name, content)
    with pytest.raises(BackendError) as refused:
        load_program(tmp_path / "bad.pt2")
    assert said in refused.value.message
