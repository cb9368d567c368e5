"""A plan on disk: what its first bytes tell, what is kept beside it, and whether this device can load it.

All of it is read without the vendor's library, before anything is deserialised.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from tailorbird.backends.cuda import Device
from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.domain.errors import BackendError

PLAN = "model.plan"
"""Triton's default name for it."""

RECORD = "engine.json"
_HEADER = 28
_REBUILD = "build it again on this device, or keep the build kit beside it and load with --rebuild-stale"


class PlanRecord(msgspec.Struct, frozen=True):
    """What a plan depends on, kept beside it."""

    runtime: str
    """The backend's name."""
    version: str
    """Of the library that built it."""
    architectures: tuple[str, ...]
    """That it runs on."""
    size: int
    """Bytes of the plan, whose end holds its weights."""
    driver: int = 0
    """Of the device it was built on, as :class:`Device` tells it; 0 where none was needed."""
    version_compatible: bool = False
    hardware: str = "none"
    """The hardware compatibility it was built with: ``ampere_plus`` runs on all from 8.0 on."""

    planned: dict[str, int] = {}
    """Layers by the precision that the builder planned them in, where it told."""

    def runs_on(self, arch: str) -> bool:
        """Whether it was built for that architecture, too."""
        beyond = self.hardware == "ampere_plus" and _number(arch) >= 80
        return arch in self.architectures or beyond


def write_record(record: PlanRecord, folder: Path) -> None:
    """Keep it beside the plan."""
    (folder / RECORD).write_bytes(msgspec.json.encode(record))


def read_record(folder: Path) -> PlanRecord:
    """What is kept beside the plan; raises :class:`BackendError` where nothing readable is."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=PlanRecord)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackendError("what the engine depends on cannot be read", got=error, hint=_REBUILD) from None


def header_version(plan: Path, flavour: Flavour) -> str:
    """The version of the library that wrote a plan, from its first bytes: ``10.16.1.11``.

    Four bytes of magic, a serialisation version of 0, and at byte 24 the four parts of the version, one byte each:
    as ``trtexec --getPlanVersionOnly`` reads them (NVIDIA/TensorRT, samples/common/sampleEngines.cpp), and as
    TensorRT-RTX 1.7 writes them under a magic of its own.

    Raises:
        BackendError: it is no plan of this flavour, or shorter than its header.
    """
    try:
        with plan.open("rb") as file:
            head = file.read(_HEADER)
    except OSError as error:
        raise BackendError("the engine's plan cannot be read", got=error) from None
    if len(head) < _HEADER:
        raise BackendError("the engine's plan is cut short", got=f"{len(head)} bytes",
                           expected=f"at least {_HEADER}", hint=_REBUILD)  # fmt: skip
    if head[:4] != flavour.magic:
        raise BackendError(f"the engine is no plan of {flavour.title}'s", got=repr(head[:4]),
                           expected=repr(flavour.magic), hint=_REBUILD)  # fmt: skip
    return ".".join(map(str, head[24:28]))


def check_plan(folder: Path, flavour: Flavour, here: str) -> PlanRecord:
    """What the plan depends on, once it is whole and this machine's library reads it.

    Args:
        folder: of the engine.
        flavour: what is to load it.
        here: version of the library on this machine.

    Raises:
        BackendError: it is cut short, no plan, or of another version.
    """
    record, written = read_record(folder), header_version(folder / PLAN, flavour)
    size = (folder / PLAN).stat().st_size
    if size != record.size:
        raise BackendError("the engine's plan is cut short" if size < record.size else "the engine's plan was altered",
                           got=f"{size} bytes", expected=f"{record.size} bytes", hint=_REBUILD)  # fmt: skip
    if not _loads(written, here, record.version_compatible):
        raise BackendError(f"the engine was built with another version of {flavour.title}", got=written,
                           expected=here, hint=_REBUILD)  # fmt: skip
    return record


def check_device(record: PlanRecord, device: Device) -> None:
    """Raise :class:`BackendError` where a device cannot run a plan, and say why."""
    if not record.runs_on(device.arch):
        raise BackendError("the engine was built for another architecture", got=" ".join(record.architectures),
                           expected=f"{device.arch} ({device.name})", hint=_REBUILD)  # fmt: skip
    if device.driver // 1000 < record.driver // 1000:
        raise BackendError("the driver is older than the one the engine was built with",
                           got=f"CUDA {_cuda(device.driver)}", expected=f"CUDA {_cuda(record.driver)} or newer",
                           hint="install a newer NVIDIA driver")  # fmt: skip


def check_gated(record: PlanRecord, device: Device, named: tuple[str, ...]) -> None:
    """Raise :class:`BackendError` on one of several architectures of a plan where its gate did not run.

    Args:
        record: kept beside the plan.
        device: that is to run it.
        named: architectures of the engine's target: the plan's own, or the one that it was qualified on.
    """
    if device.arch in record.architectures and device.arch not in named:
        raise BackendError("the engine was qualified on another architecture", got=" ".join(named),
                           expected=f"{device.arch} ({device.name})",
                           hint="qualify the bundle that it came from on this device, too")  # fmt: skip


def _loads(written: str, here: str, version_compatible: bool) -> bool:
    """A plan loads into the very version that wrote it; one built to be compatible also into later ones of its major.

    Wheels and their libraries differ in the fourth part, which is a build's number.
    """
    old, new = (tuple(map(int, one.split(".")[:3])) for one in (written, here))
    return old == new or (version_compatible and old[0] == new[0] and old < new)


def _number(arch: str) -> int:
    digits = arch.removeprefix("sm")
    return int(digits) if digits.isdigit() else 0


def _cuda(driver: int) -> str:
    return f"{driver // 1000}.{driver % 1000 // 10}"
