"""TensorRT-RTX: engines built ahead of time, on any machine, for the architectures named; kernels come at load."""

from __future__ import annotations

from tailorbird.backends.base import Capabilities
from tailorbird.backends.nvidia.backend import NvidiaBackend
from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.backends.nvidia.options import SETTINGS
from tailorbird.backends.nvidia.targets import floats_of, methods_of
from tailorbird.domain.candidate import Form
from tailorbird.domain.errors import BackendUnavailable
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target

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
    split = "one"

    def _able(self, target: Target, here: bool) -> Capabilities:
        return Capabilities(
            target=target,
            precisions=floats_of(target.arch),
            format=EngineFormat(backend="tensorrt_rtx", platform="tensorrt_rtx_plan", filename="model.plan"),
            form=Form.CAST,
            takes_threads=False,
            checks_arch=True,
            runs_here=here,
            builds_here=self._can_build(),
            portable="the architectures named, same runtime version",
            quantised=methods_of(target.arch),
            options=tuple(sorted(self.flavour.options)),
            variants_of={Precision.FP32: ({"tf32": True},)},
        )

    def _can_build(self) -> bool:
        try:
            self._version()
        except BackendUnavailable:
            return False
        return True
