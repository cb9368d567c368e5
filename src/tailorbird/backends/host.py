"""The machine as probed: what enters targets, manifests and the doctor's report."""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tailorbird.domain.errors import UsageError, nearest

CPU_ARCHES = ("x86_64", "avx2", "avx512", "amx", "aarch64", "arm64", "riscv64")
"""What :func:`cpu_arch` says of the machines that a target may name."""


@cache
def cpu_facts() -> dict[str, str]:
    """Processor name, usable cores, memory and the instruction sets that decide which engine is fast."""
    return {
        "cpu": _cpu_name(),
        "arch": cpu_arch(),
        "cores": str(usable_cores()),
        "isa": " ".join(sorted(_flags() & _DECISIVE)),
        "memory_gib": f"{_memory_bytes() / 2**30:.1f}",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


@cache
def device_facts() -> dict[str, str]:
    """:func:`cpu_facts`, and those of NVIDIA's devices where there are any: an engine may depend on either."""
    return {**cpu_facts(), **gpu_facts()}


def gpu_facts(root: Path = Path("/")) -> dict[str, str]:
    """Names and driver of NVIDIA's devices, as the kernel tells them: none of their libraries is loaded for it.

    Which of them this process may use is told where that was bounded: an engine follows from the one it is built on.

    Args:
        root: of the file system.
    """
    driver = re.search(r"Kernel Module\b.*?\s(\d[\d.]+)", _text(root / "proc/driver/nvidia/version"))
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    names = [found[1].strip() for card in cards if (found := re.search(r"^Model:(.*)$", _text(card), re.MULTILINE))]
    if tegra := _text(root / "etc/nv_tegra_release").partition("\n")[0]:  # Jetson, whose device is no PCI card
        names, driver_text = [_text(root / "proc/device-tree/model").strip("\0\n ")], tegra.strip("# ")
    else:
        driver_text = driver[1] if driver else ""
    facts = {"gpu": ", ".join(filter(None, names)), "gpu_driver": driver_text}
    if any(facts.values()) and (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        facts["gpu_visible"] = visible or "none"
    return {name: text for name, text in facts.items() if text}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def cpu_arch() -> str:
    """The widest of amx, avx512, avx2 this CPU has, otherwise the machine's own name."""
    flags = _flags()
    for flag, arch in (("amx_tile", "amx"), ("avx512f", "avx512"), ("avx2", "avx2")):
        if flag in flags:
            return arch
    return platform.machine().lower()


def check_cpu_arch(arch: str) -> None:
    """Raise :class:`UsageError` where a target's CPU architecture is none of those known, nor this machine's."""
    if arch in (*CPU_ARCHES, cpu_arch()):
        return
    close = nearest(arch, CPU_ARCHES)
    raise UsageError(f"unknown CPU architecture '{arch}'", expected=", ".join(CPU_ARCHES),
                     hint=f"did you mean '{close}'?" if close else None)  # fmt: skip


def sums_int8_exactly(facts: Mapping[str, str] | None = None) -> bool:
    """Whether products of INT8 are summed in 32 bits. On x86 without VNNI or AMX sums of 16 bits saturate.

    Args:
        facts: of a machine, as :func:`cpu_facts` tells them; of this one by default.
    """
    known = cpu_facts() if facts is None else facts
    x86 = any(name in known.get("system", "x86") for name in ("x86", "AMD64"))
    return not x86 or bool(_EXACT_SUMS & set(known.get("isa", "").split()))


def usable_cores() -> int:
    """Cores this process may run on, which in a container is fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _quota_cores(Path("/sys/fs/cgroup/cpu.max")) or cores))


def _quota_cores(limit: Path) -> int | None:
    """Whole cores that a container's CPU quota pays for (cgroup v2), or None without a quota."""
    try:
        quota, period = limit.read_text("ascii").split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # "max 100000" is no quota
        return None


_EXACT_SUMS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8"))

_DECISIVE = frozenset(
    (
        *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_bf16", "amx_int8", "asimddp", "bf16", "i8mm", "sve"),
    )
)


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _flags() -> frozenset[str]:
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def _cpu_name() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
