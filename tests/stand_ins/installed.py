"""The stand-ins put where our code looks for the vendor's modules, for as long as a block lasts."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tailorbird.backends import cuda
from tailorbird.backends.nvidia import flavour
from tests.stand_ins.cuda_runtime import CudaRuntime
from tests.stand_ins.tensorrt_module import TensorRt, TensorRtRtx


@contextmanager
def tensorrt_on(runtime: CudaRuntime) -> Iterator[TensorRt]:
    """A machine with that device, and TensorRT installed."""
    module = TensorRt(runtime)
    with pytest.MonkeyPatch.context() as patch, device_of(runtime):
        patch.setitem(sys.modules, "tensorrt", module)  # type: ignore[arg-type]
        yield module


@contextmanager
def tensorrt_rtx_on(runtime: CudaRuntime) -> Iterator[TensorRtRtx]:
    """A machine with that device, and TensorRT-RTX installed."""
    module = TensorRtRtx(runtime)
    with pytest.MonkeyPatch.context() as patch, device_of(runtime):
        patch.setitem(sys.modules, "tensorrt_rtx", module)  # type: ignore[arg-type]
        patch.setattr(flavour.importlib.metadata, "version", lambda name: module.__version__)
        yield module


@contextmanager
def device_of(runtime: CudaRuntime) -> Iterator[None]:
    """A machine with that device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "bindings", lambda: runtime)
        _forget()
        yield
    _forget()


def _forget() -> None:
    cuda.device.cache_clear()
    flavour.version.cache_clear()
