"""What a file that is not an ONNX model probably is, judged by its bytes, and how to get on from there."""

from __future__ import annotations

from collections.abc import Iterator

from tailorbird.domain.errors import ModelError

_CONVERT = "convert it to ONNX first, with the exporter of the framework it comes from"
_TORCH = "export it with torch.onnx.export or torch.export, or name a program as module:callable"
_DOWNLOAD = "download the file again, and look at what the link really gives"
_UNPACK = "unpack the archive and name the .onnx file in it"

# Magic numbers at the start of the file, as the formats' own documents give them.
_PREFIXES: tuple[tuple[bytes, str, str | None], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"\x89PNG\r\n", "a PNG image", None),
    (b"\xff\xd8\xff", "a JPEG image", None),
    (b"%PDF-", "a PDF document", None),
    (b"\x7fELF", "a program or shared library (ELF)", None),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"BZh", "a bzip2 archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"\x89HDF", "an HDF5 file (Keras weights?)", _CONVERT),
    (b"GGUF", "a GGUF file", None),
    (b"\x93NUMPY", "a numpy array", None),
)
_FLATBUFFERS = {
    b"TFL3": ("a TensorFlow Lite model", _CONVERT),
    b"ORTM": ("an ONNX Runtime .ort model", _CONVERT),
}
"""File identifiers of FlatBuffers files: bytes 4 to 8."""

_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
"""Opcode PROTO and the protocol's number: how every pickle since protocol 2 begins."""


def not_onnx(data: bytes, cause: str) -> ModelError:
    """The error for bytes that are no ONNX model: names what they look like, or how much is missing.

    Args:
        data: the whole file.
        cause: what was wrong with it as a model, used when nothing better can be said.
    """
    kind, hint = guess(data)
    if kind:
        return ModelError("the file is not an ONNX model", got=kind, expected="an ONNX file", hint=hint)
    needed = bytes_needed(data)
    if needed > len(data):
        return ModelError(
            "the ONNX file is cut short",
            got=f"{len(data)} bytes",
            expected=f"at least {needed} bytes",
            hint="copy or download it again",
        )
    return ModelError(
        "the file is not an ONNX model, or is damaged",
        got=cause,
        expected="an ONNX file",
        hint="copy or download it again, or export it anew",
    )


def guess(data: bytes) -> tuple[str, str | None]:
    """What the bytes look like and what to do about it; an empty first part when nothing is recognised."""
    if not data:
        return "an empty file", "copy or download it again"
    for prefix, kind, hint in _PREFIXES:
        if data.startswith(prefix):
            return kind, hint
    if data.startswith(b"PK\x03\x04"):
        return _zip_kind(data)
    return _binary_kind(data) or _text_kind(data[:4096])


def bytes_needed(data: bytes) -> int:
    """How long the file must at least be for its last top-level field to be whole.

    0 unless the bytes begin like an ONNX model: field 1 of ``ModelProto``, ``ir_version``, a varint.
    """
    if not data.startswith(b"\x08"):
        return 0
    return max(_field_ends(data), default=0)


def _binary_kind(data: bytes) -> tuple[str, str | None] | None:
    if data.startswith(_PICKLES) and data.endswith(b"."):
        return "a Python pickle (a PyTorch checkpoint?), which is not opened because it can run code", _TORCH
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data):
        return "a safetensors file: weights without a graph", _TORCH
    return _FLATBUFFERS.get(data[4:8])


def _zip_kind(data: bytes) -> tuple[str, str | None]:
    head = data[: 1 << 16]
    if b"archive_format" in head or b"/models/model.json" in head:
        return "a PyTorch exported program (.pt2), under another name", "rename it to end in .pt2"
    if b"data.pkl" in head:
        return "a PyTorch checkpoint, which is not opened because it can run code", _TORCH
    return "a zip archive", _UNPACK


def _text_kind(head: bytes) -> tuple[str, str | None]:
    start = head.lstrip()[:64].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page", _DOWNLOAD
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return "", None
    if not all(char.isprintable() or char in "\r\n\t" for char in text):
        return "", None
    if start.startswith((b"<?xml", b"<net")):
        return "XML (an OpenVINO model?)", "give the ONNX file it was made from"
    return f"text, beginning {text[:24]!r}", None


def _field_ends(data: bytes) -> Iterator[int]:
    """Ends of the top-level fields (protobuf: a tag, then a varint, 4 or 8 bytes, or length and bytes)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire_type = tag & 7
        if wire_type == 0:
            _, at = _varint(data, at)
        elif wire_type == 2:
            length, at = _varint(data, at)
            at += length
        elif wire_type in {1, 5}:
            at += 8 if wire_type == 1 else 4
        else:
            return
        yield at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and the place after it; one that runs off the end counts as one byte longer than the file."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            return 0, len(data) + 1
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at
