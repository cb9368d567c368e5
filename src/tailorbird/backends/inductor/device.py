"""NVIDIA GPUs as their driver tells of them, through its own library: no package, and no context on the device."""

from __future__ import annotations

import ctypes
from functools import cache

import msgspec

from tailorbird.domain.errors import BackendUnavailable

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*, cuda.h


class Gpu(msgspec.Struct, frozen=True):
    """The first device."""

    name: str
    capability: tuple[int, int]
    driver: str
    """The newest CUDA that the driver runs, as ``13.0``."""

    @property
    def arch(self) -> str:
        """As targets name it: ``sm90``."""
        major, minor = self.capability
        return f"sm{major}{minor}"


@cache
def gpu() -> Gpu:
    """The first GPU; raises :class:`BackendUnavailable` when there is no driver or no device."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise BackendUnavailable("there is no NVIDIA driver", got=error,
                                 hint="install it; start a container with --gpus all") from None  # fmt: skip
    _ask(driver, "cuInit", 0)
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _ask(driver, "cuDeviceGetCount", ctypes.byref(count))
    if count.value < 1:
        raise BackendUnavailable("the NVIDIA driver sees no GPU", hint="look at CUDA_VISIBLE_DEVICES")
    _ask(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _ask(driver, "cuDriverGetVersion", ctypes.byref(version))
    name = ctypes.create_string_buffer(256)
    _ask(driver, "cuDeviceGetName", name, 256, device)
    found = tuple(_attribute(driver, device, which) for which in (_MAJOR, _MINOR))
    return Gpu(name.value.decode(errors="replace"), (found[0], found[1]),
               f"{version.value // 1000}.{version.value % 1000 // 10}")  # fmt: skip


def _attribute(driver: ctypes.CDLL, device: ctypes.c_int, which: int) -> int:
    value = ctypes.c_int()
    _ask(driver, "cuDeviceGetAttribute", ctypes.byref(value), which, device)
    return value.value


def _ask(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = getattr(driver, function)(*arguments)
    if code != 0:
        raise BackendUnavailable(f"the NVIDIA driver does not answer: {function} failed", got=f"CUDA error {code}",
                                 hint="does nvidia-smi work here?")  # fmt: skip
