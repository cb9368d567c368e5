"""A stand-in for ``cuda.bindings.runtime``: memory that is checked, streams that run late, graphs that replay.

What is queued runs when the stream is waited for, as on a device, so that whoever does not wait reads old values.
Every copy must lie inside memory that is alive and on the right side.
"""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

SUCCESS, OUT_OF_MEMORY, NO_DRIVER, CAPTURE_INVALID, ILLEGAL_ADDRESS = 0, 2, 35, 901, 700
_NAMES = {
    SUCCESS: ("cudaSuccess", "no error"),
    OUT_OF_MEMORY: ("cudaErrorMemoryAllocation", "out of memory"),
    NO_DRIVER: ("cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"),
    CAPTURE_INVALID: ("cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"),
    ILLEGAL_ADDRESS: ("cudaErrorIllegalAddress", "an illegal memory access was encountered"),
}

Work = Callable[[], None]


class CudaRuntime:
    """One device of compute capability ``major.minor`` with a driver and a bounded memory."""

    cudaStreamNonBlocking = 1  # noqa: N815 - the vendor's names
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815

    def __init__(self, major: int = 8, minor: int = 6, driver: int = 13000, memory: int = 1 << 30) -> None:
        self.properties = SimpleNamespace(name=b"Stand-in", major=major, minor=minor, totalGlobalMem=memory)
        self.driver = driver
        self.memory = memory
        self.count = 1
        self.broken = SUCCESS
        """Given back by whatever asks for devices."""
        self.uncapturable = False
        self.live: dict[int, tuple[Any, bool]] = {}
        self.launched = 0
        self._queues: dict[int, list[Work]] = {}
        self._recording: dict[int, list[Work]] = {}
        self._graphs: set[int] = set()
        self._things: list[list[Work]] = []

    def cudaGetErrorName(self, status: int) -> tuple[int, bytes]:  # noqa: N802
        return SUCCESS, _NAMES[status][0].encode()

    def cudaGetErrorString(self, status: int) -> tuple[int, bytes]:  # noqa: N802
        return SUCCESS, _NAMES[status][1].encode()

    def cudaGetDeviceCount(self) -> tuple[int, int | None]:  # noqa: N802
        return (self.broken, None) if self.broken else (SUCCESS, self.count)

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:  # noqa: N802
        return SUCCESS, self.properties

    def cudaDriverGetVersion(self) -> tuple[int, int]:  # noqa: N802
        return SUCCESS, self.driver

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:  # noqa: N802
        if size + sum(len(memory) for memory, on_device in self.live.values() if on_device) > self.memory:
            return OUT_OF_MEMORY, None
        return SUCCESS, self._allocated(size, on_device=True)

    def cudaMallocHost(self, size: int) -> tuple[int, int]:  # noqa: N802
        return SUCCESS, self._allocated(size, on_device=False)

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        del self.live[address]
        return (SUCCESS,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:  # noqa: N802
        handle = len(self._queues) + 1
        self._queues[handle] = []
        return SUCCESS, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        del self._queues[stream]
        return (SUCCESS,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        queue, self._queues[stream] = self._queues[stream], []
        try:
            for work in queue:
                work()
        except MemoryError:
            return (ILLEGAL_ADDRESS,)
        return (SUCCESS,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        self._recording[stream] = []
        return (SUCCESS,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, int | None]:  # noqa: N802
        work = self._recording.pop(stream)
        if self.uncapturable:
            return CAPTURE_INVALID, None
        return SUCCESS, self._kept(work)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[int, int]:  # noqa: N802
        return SUCCESS, self._kept(self._things[graph])

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[int]:  # noqa: N802
        assert graph in self._graphs
        self.launched += 1
        self._queues[stream] += self._things[graph]
        return (SUCCESS,)

    def cudaGraphDestroy(self, graph: int) -> tuple[int]:  # noqa: N802
        self._graphs.remove(graph)
        return (SUCCESS,)

    cudaGraphExecDestroy = cudaGraphDestroy  # noqa: N815

    def cudaMemcpyAsync(self, to: int, source: int, count: int, kind: int, stream: int) -> tuple[int]:  # noqa: N802
        up = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.queue(stream, lambda: self._copy(to, source, count, up))
        return (SUCCESS,)

    def queue(self, stream: int, work: Work) -> None:
        """Work of a vendor's library, in order with the rest, or into the graph that is being recorded."""
        self._recording.get(stream, self._queues[stream]).append(work)

    def inside(self, address: int, count: int, on_device: bool = True) -> int:
        """The address, once that many bytes from it on are alive and on the side asked for."""
        for start, (memory, side) in self.live.items():
            if start <= address and address + count <= start + len(memory) and side == on_device:
                return address
        raise MemoryError(f"{count} bytes at {address:#x} are nobody's")

    @property
    def graphs(self) -> int:
        """Graphs that were not given back."""
        return len(self._graphs)

    def _copy(self, to: int, source: int, count: int, up: bool) -> None:
        ctypes.memmove(self.inside(to, count, on_device=up), self.inside(source, count, on_device=not up), count)

    def _allocated(self, size: int, on_device: bool) -> int:
        memory = (ctypes.c_ubyte * size)(*([0xCD] * min(size, 64)))  # what nobody wrote shows
        address = ctypes.addressof(memory)
        self.live[address] = memory, on_device
        return address

    def _kept(self, work: list[Work]) -> int:
        self._things.append(work)
        self._graphs.add(len(self._things) - 1)
        return len(self._things) - 1
