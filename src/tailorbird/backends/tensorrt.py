"""TensorRT 10 and 11: engines timed and built on the device that runs them."""

from __future__ import annotations

from tailorbird.backends.nvidia.backend import NvidiaBackend
from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.backends.nvidia.options import SETTINGS
from tailorbird.domain.manifest import EngineFormat

_FLAVOUR = Flavour(
    name="tensorrt",
    title="TensorRT",
    modules=("tensorrt", "tensorrt_bindings"),
    distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    install="pip install 'tailorbird[tensorrt]'",
    magic=b"ftrt",
    options=frozenset(SETTINGS),
    ahead_of_time=False,
)


class TensorRtBackend(NvidiaBackend):
    """The builder measures kernels on the device, so that a machine without it can only prepare a build kit."""

    name = "tensorrt"
    install = _FLAVOUR.install
    flavour = _FLAVOUR
    format = EngineFormat(backend="tensorrt", platform="tensorrt_plan", filename="model.plan")
    portable = "same architecture and runtime version"
    split = "edges"

    def _builds(self, here: bool) -> bool:
        return here
