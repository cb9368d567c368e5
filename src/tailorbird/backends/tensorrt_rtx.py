"""TensorRT-RTX: engines built ahead of time, on any machine, for the architectures named; kernels come at load."""

from __future__ import annotations

from tailorbird.backends.nvidia.backend import NvidiaBackend
from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.backends.nvidia.options import SETTINGS
from tailorbird.domain.errors import BackendUnavailable
from tailorbird.domain.manifest import EngineFormat

_FLAVOUR = Flavour(
    name="tensorrt_rtx",
    title="TensorRT-RTX",
    modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
    distributions=("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings", "tensorrt-rtx"),
    install="pip install 'tailorbird[tensorrt-rtx]'",
    magic=b"vtrt",
    options=frozenset(SETTINGS) - {"hardware_compatibility", "timing_cache", "version_compatible"},
    ahead_of_time=True,
    architectures=("sm75", "sm80", "sm86", "sm89", "sm120", "sm121"),
)
"""Its architectures are those of 1.7; plans do not move between versions, and hardware is named, not promised."""


class TensorRtRtxBackend(NvidiaBackend):
    """It needs its library to build, and a device only to run.

    Triton has no backend for its plans.
    """

    name = "tensorrt_rtx"
    install = _FLAVOUR.install
    flavour = _FLAVOUR
    format = EngineFormat(backend="tensorrt_rtx", platform="tensorrt_rtx_plan", filename="model.plan")
    portable = "the architectures named, same runtime version"
    split = "one"

    def _builds(self, here: bool) -> bool:
        try:
            self._version()
        except BackendUnavailable:
            return False
        return True
