"""The CUDA runtime, as far as an engine needs it: what the device is, memory, one stream, recorded graphs.

Every call goes through :func:`cuda`, which turns a return code into a clear error. ``cuda-bindings`` loads on first
use; it needs no driver to load, so that a machine without one is told apart from a machine without the package.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import numpy as np

from tailorbird.domain.closing import Closing
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError, BackendUnavailable
from tailorbird.domain.signature import Shape

_NO_DRIVER = frozenset({"cudaErrorInsufficientDriver", "cudaErrorStubLibrary", "cudaErrorNoDevice"})
_HINTS = {
    "cudaErrorMemoryAllocation": "serve smaller shapes, or free the device's memory",
    "cudaErrorInsufficientDriver": "install NVIDIA's driver, or a newer one",
}
_CAPTURES = "cudaStreamCaptureModeThreadLocal"
"""Other threads of the process may go on allocating while one records."""


class Device(msgspec.Struct, frozen=True):
    """One CUDA device, as the driver describes it."""

    name: str
    arch: str
    """``sm`` and the compute capability without its point: ``sm89`` for 8.9."""
    memory_bytes: int
    driver: int
    """The newest CUDA version that the driver runs, times a thousand: 13000 for 13.0."""


def cuda(function: str, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime by its name.

    Returns:
        What it gives besides its return code: nothing, a value, or a tuple of values.

    Raises:
        BackendError: any return code but success, with CUDA's name and words for it.
    """
    runtime = bindings()
    status, *results = getattr(runtime, function)(*arguments)
    if int(status):
        name, text = (_words(runtime, said, status) for said in ("cudaGetErrorName", "cudaGetErrorString"))
        raise BackendError(f"CUDA's {function} failed", got=f"{name}: {text}", hint=_HINTS.get(name))
    return results[0] if len(results) == 1 else tuple(results) or None


def bindings() -> Any:
    """The package's module of the CUDA runtime."""
    from cuda.bindings import runtime

    return runtime


@cache
def device() -> Device:
    """The device that engines run on: the first one that is visible.

    No context is made on it: a process that only asks takes none of its memory.

    Raises:
        BackendUnavailable: there is no driver, one too old, or no device.
        ModuleNotFoundError: the bindings are not installed.
    """
    runtime = bindings()
    status, count = runtime.cudaGetDeviceCount()
    name = _words(runtime, "cudaGetErrorName", status)
    if int(status) or not count:
        text = _words(runtime, "cudaGetErrorString", status) if int(status) else "it sees no device"
        absent = not int(status) or name in _NO_DRIVER
        reason = "no NVIDIA driver or no device" if absent else "the NVIDIA driver failed"
        raise BackendUnavailable(f"{reason} here", got=text, hint=_HINTS["cudaErrorInsufficientDriver"])
    properties = cuda("cudaGetDeviceProperties", 0)
    return Device(
        name=_text(properties.name),
        arch=f"sm{properties.major}{properties.minor}",
        memory_bytes=int(properties.totalGlobalMem),
        driver=int(cuda("cudaDriverGetVersion")),
    )


class Stream(Closing):
    """A queue of work on the device, in order."""

    def __init__(self) -> None:
        self.handle = cuda("cudaStreamCreateWithFlags", bindings().cudaStreamNonBlocking)

    def wait(self) -> None:
        """Until all that was queued is done; raises what the device reported."""
        cuda("cudaStreamSynchronize", self.handle)

    def record(self, work: Callable[[], None]) -> Recording:
        """What ``work`` queues, recorded as one graph instead of being run.

        Raises:
            BackendError: something in it cannot be recorded; the stream is usable again.
        """
        cuda("cudaStreamBeginCapture", self.handle, getattr(bindings().cudaStreamCaptureMode, _CAPTURES))
        try:
            work()
        except BaseException:
            bindings().cudaStreamEndCapture(self.handle)  # otherwise all that follows fails, too
            raise
        return Recording(cuda("cudaStreamEndCapture", self.handle))

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        if self.handle is not None:
            handle, self.handle = self.handle, None
            cuda("cudaStreamDestroy", handle)


class Recording(Closing):
    """A recorded graph, ready to run: many launches for the price of one."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        try:
            self._ready = cuda("cudaGraphInstantiate", graph, 0)
        except BaseException:
            cuda("cudaGraphDestroy", graph)
            raise

    def launch(self, stream: Stream) -> None:
        """Queue all of it."""
        cuda("cudaGraphLaunch", self._ready, stream.handle)

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        if self._ready is not None:
            ready, self._ready = self._ready, None
            cuda("cudaGraphExecDestroy", ready)
            cuda("cudaGraphDestroy", self._graph)


class Buffer(Closing):
    """The same bytes twice: on the device, and in host memory that the device reads without a detour (pinned).

    Args:
        size: bytes; at least one is taken, so that every buffer has an address.
        pinned: whether it has a side on the host.
    """

    def __init__(self, size: int, pinned: bool = True) -> None:
        self.size = max(1, size)
        self.host = 0
        self.address = int(cuda("cudaMalloc", self.size))
        try:
            self.host = int(cuda("cudaMallocHost", self.size)) if pinned else 0
        except BaseException:
            self.close()
            raise

    def view(self, dtype: np.dtype[Any], shape: Shape) -> Array:
        """The host's side as an array; it must not outlive the buffer."""
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if count > self.size:
            raise BackendError("a tensor does not fit its buffer", got=f"{count} bytes", expected=f"{self.size} bytes")
        memory: Any = (ctypes.c_ubyte * count).from_address(self.host)
        seen: Array = np.frombuffer(memory, dtype=dtype)
        return seen.reshape(shape)

    def send(self, count: int, stream: Stream) -> None:
        """Queue a copy of the first ``count`` bytes to the device."""
        self._copy(self.address, self.host, count, "cudaMemcpyHostToDevice", stream)

    def fetch(self, count: int, stream: Stream) -> None:
        """Queue a copy of the first ``count`` bytes from the device."""
        self._copy(self.host, self.address, count, "cudaMemcpyDeviceToHost", stream)

    def close(self) -> None:
        """Give both sides back; a second call does nothing."""
        address, self.address = self.address, 0
        host, self.host = self.host, 0
        if address:
            cuda("cudaFree", address)
        if host:
            cuda("cudaFreeHost", host)

    @staticmethod
    def _copy(to: int, source: int, count: int, way: str, stream: Stream) -> None:
        if count:
            cuda("cudaMemcpyAsync", to, source, count, getattr(bindings().cudaMemcpyKind, way), stream.handle)


def _words(runtime: Any, function: str, status: Any) -> str:
    return _text(getattr(runtime, function)(status)[1])


def _text(words: bytes | str) -> str:
    return words.decode("utf-8", "replace").rstrip("\0") if isinstance(words, bytes) else words
