"""What each architecture of NVIDIA's computes in, and how targets name them."""

from __future__ import annotations

import re

from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.domain.errors import UsageError
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target

_SINCE = {Precision.FP32: 70, Precision.FP16: 70, Precision.BF16: 80, Precision.FP8: 89, Precision.INT8: 70}
"""The first compute capability, times ten, with hardware for it (NVIDIA's TensorRT support matrix, "hardware and
precision"); nothing before 7.0 is counted."""

_DEVICE = "cuda"


def architectures_of(arch: str) -> tuple[str, ...]:
    """The architectures that a target names: ``sm86``, or several that one engine is for, ``sm86_sm89``."""
    return tuple(arch.split("_"))


def capability(arch: str) -> int:
    """The compute capability that ``sm86`` names, times ten: 86.

    Raises:
        UsageError: it names none.
    """
    found = re.fullmatch(r"sm(\d{2,3})", arch)
    if not found:
        raise UsageError("not an architecture of NVIDIA's", got=repr(arch), expected="sm and a number, as in sm86")
    return int(found[1])


def check_target(flavour: Flavour, target: Target) -> None:
    """Raise :class:`UsageError` unless the flavour makes engines for the target."""
    if (target.runtime, target.device) != (flavour.name, _DEVICE):
        raise UsageError(f"{flavour.title} makes no engine for {target}", expected=f"{flavour.name}:{_DEVICE}:sm86")
    several = architectures_of(target.arch)
    if len(several) > 1 and not flavour.ahead_of_time:
        raise UsageError(f"{flavour.title} builds for one architecture", got=target.arch)
    for arch in several:
        capability(arch)
        if flavour.architectures and arch not in flavour.architectures:
            raise UsageError(f"{flavour.title} has no kernels for {arch}", expected=", ".join(flavour.architectures),
                             hint="use another runtime on that device")  # fmt: skip


def floats_of(arch: str) -> tuple[Precision, ...]:
    """Float precisions that all the architectures named have hardware for, highest first."""
    return tuple(one for one in (Precision.FP32, Precision.FP16, Precision.BF16) if _has(arch, one))


def methods_of(arch: str) -> tuple[str, ...]:
    """Quantisation methods whose graphs run quantised on all the architectures named, the usual one first."""
    known = {"qdq-symmetric": Precision.INT8, "qdq-fp8": Precision.FP8}
    return tuple(name for name, precision in known.items() if _has(arch, precision))


def _has(arch: str, precision: Precision) -> bool:
    return min(map(capability, architectures_of(arch))) >= _SINCE[precision]
