"""What is kept beside a compiled program: what it needs of a machine, and what it computes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tailorbird.backends.inductor.toolchain import torch_version
from tailorbird.domain.errors import BackendError

RECORD = "inductor.json"


class EngineRecord(msgspec.Struct, frozen=True):
    """One engine.

    Types are those of the graph that the compiler was given. PyTorch's types are strict: what an operator takes is what
    its kernel multiplies; sums are in FP32 or INT32.
    """

    torch: str
    """Version that compiled it."""
    device: str
    """``cpu`` or ``cuda``."""
    needs: tuple[str, ...]
    """Instruction sets of the CPU that compiled it, or the one compute capability, as ``sm90``."""
    compiler: str
    inputs: tuple[str, ...]
    """Names, in the order in which the code takes them."""
    outputs: tuple[str, ...]
    shared: tuple[int, ...]
    """Outputs that are an input, a weight, or another output: what is handed out must be a copy."""
    layers: dict[str, str]
    """Operators by name, and what each computes in."""


def write_record(record: EngineRecord, folder: Path) -> None:
    """Write it beside the engine."""
    (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1))


def read_record(folder: Path) -> EngineRecord:
    """Read it; raises OSError or a decoding error where there is none."""
    return msgspec.json.decode((folder / RECORD).read_bytes(), type=EngineRecord)


def check_record(record: EngineRecord, have: set[str], device: str) -> None:
    """Refuse what this machine cannot load, before any of its code is.

    Args:
        record: of the engine.
        have: instruction sets of this CPU, or the architecture of this GPU.
        device: ``CPU`` or ``GPU``, as the message names it.

    Raises:
        BackendError: another release of torch, or a device that cannot run the code, and which.
    """
    here, built = torch_version(), _release(record.torch)
    if built != _release(here):
        raise BackendError("the engine was compiled with another release of torch", got=here, expected=record.torch,
                           hint=f"pip install 'torch=={built}.*', or build again")  # fmt: skip
    if missing := sorted(set(record.needs) - have):
        raise BackendError(f"the engine was compiled for another {device}: this one lacks {', '.join(missing)}",
                           got=" ".join(sorted(have)) or "none", expected=" ".join(sorted(record.needs)),
                           hint=f"build on a machine with this {device}")  # fmt: skip


def layers_of(program: Any) -> dict[str, str]:
    """What each operator of an exported program computes in; those that only move or shape data are left out."""
    return {node.name: word for node in program.graph.nodes if (word := _computes_in(node))}


def _release(version: str) -> str:
    """Major and minor: patch releases keep what compiled code calls."""
    return ".".join(version.split(".")[:2])


_WORDS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64", "int8": "int8",
          "float8_e4m3fn": "fp8"}  # fmt: skip
_EIGHT_BITS = {"aten::_int_mm": "int8", "aten::_scaled_mm": "fp8"}
"""Products that take their scales in FP32 besides."""
_MOVES = frozenset(
    f"aten::{name}"
    for name in (
        *("view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "slice", "select"),
        *("clone", "contiguous", "detach", "alias", "to", "_to_copy", "flatten"),
    )
)


def _computes_in(node: Any) -> str:
    """The word for the widest float it takes, or else the type of what it takes; empty for what computes nothing."""
    value = node.meta.get("val")
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or not hasattr(value, "dtype") or schema is None or schema.name in _MOVES:
        return ""
    taken = [one.meta["val"].dtype for one in node.all_input_nodes if hasattr(one.meta.get("val"), "dtype")]
    if not taken:
        return ""
    floats = [dtype for dtype in taken if dtype.is_floating_point]
    widest = max(floats, key=lambda dtype: dtype.itemsize, default=taken[0])
    return _EIGHT_BITS.get(schema.name) or _word(widest)


def _word(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return _WORDS.get(name, name)
