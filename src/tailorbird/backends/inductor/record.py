"""What is kept beside a compiled program: what it needs of a machine, and what it computes in."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.backends.inductor.toolchain import torch_version
from tailorbird.domain.errors import BackendError
from tailorbird.domain.precision import Precision

RECORD = "inductor.json"

OWN = (Precision.FP16, Precision.BF16, Precision.FP8)
"""What kernels of our own compute in."""


class EngineRecord(msgspec.Struct, frozen=True):
    """One engine.

    Its layers are the operators of the graph that the compiler was given, which says what each computes in; which of
    them share a kernel is the compiler's own business.
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


def _release(version: str) -> str:
    """Major and minor: patch releases keep what compiled code calls."""
    return ".".join(version.split(".")[:2])
