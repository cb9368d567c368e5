"""TensorRT 10 and 11: engines timed and built on the device that runs them."""

from __future__ import annotations

from tailorbird.backends.base import Capabilities
from tailorbird.backends.nvidia.backend import NvidiaBackend
from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.backends.nvidia.options import SETTINGS
from tailorbird.backends.nvidia.targets import floats_of, methods_of
from tailorbird.domain.candidate import Form
from tailorbird.domain.manifest import EngineFormat
from tailorbird.domain.precision import Precision
from tailorbird.domain.target import Target

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
    split = "edges"

    def _able(self, target: Target, here: bool) -> Capabilities:
        return Capabilities(
            target=target,
            precisions=floats_of(target.arch),
            format=EngineFormat(backend="tensorrt", platform="tensorrt_plan", filename="model.plan"),
            form=Form.CAST,
            takes_threads=False,
            checks_arch=True,
            needs_device_to_build=True,
            runs_here=here,
            builds_here=here,
            portable="same architecture and runtime version",
            quantised=methods_of(target.arch),
            options=tuple(sorted(self.flavour.options)),
            variants_of={Precision.FP32: ({"tf32": True},)},
        )
