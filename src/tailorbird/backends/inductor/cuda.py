"""Sessions on a GPU: everything one run does, recorded once for each shape as a CUDA graph, and replayed.

A graph holds the copies, too: from a pinned host buffer to the device, the compiled program, and back. So a run is two
copies between arrays and pinned memory, one launch, and one wait.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from tailorbird.backends.base import Session
from tailorbird.backends.inductor.record import EngineRecord
from tailorbird.backends.inductor.session import Call
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.dtype import Array, DType
from tailorbird.domain.signature import Shape, Signature, Tensors

MOST_GRAPHS = 16
"""Shapes whose graphs are kept; the one used longest ago gives way."""

WARM_UPS = 3
"""Runs before recording, on the stream that records: libraries choose kernels and take memory in the first ones."""

DEVICE = "cuda"

_RECORDING = threading.Lock()
"""Two captures at once in one process invalidate each other; so does memory that another session takes meanwhile."""

_Key = tuple[Shape, ...]


class CudaSession(Session):
    """A compiled program on the first GPU that is visible to the process."""

    def __init__(self, name: str, candidate: Candidate, signature: Signature, call: Call, record: EngineRecord) -> None:
        import torch

        super().__init__(name, candidate, signature)
        self._call = call
        self._layers = record.layers
        self._inputs = [(one, signature.input(one).dtype) for one in record.inputs]
        self._outputs = [spec.name for spec in signature.outputs]
        self._stream = torch.cuda.Stream()
        self._graphs: OrderedDict[_Key, Replay] = OrderedDict()

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        arrays = [inputs[name] for name, _ in self._inputs]
        found = self._replay(tuple(array.shape for array in arrays)).run(arrays)
        return dict(zip(self._outputs, found, strict=True))

    def _replay(self, key: _Key) -> Replay:
        if key not in self._graphs:
            while len(self._graphs) >= MOST_GRAPHS:
                self._graphs.popitem(last=False)
            specs = [(shape, dtype) for shape, (_, dtype) in zip(key, self._inputs, strict=True)]
            with _RECORDING:
                self._graphs[key] = Replay(self._call, specs, self._stream)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _executed_precision(self) -> dict[str, str]:
        return dict(self._layers)

    def _close(self) -> None:
        self._graphs.clear()
        del self._call, self._stream


class Replay:
    """One shape's graph with its buffers.

    Args:
        call: the compiled program, on tensors of the device.
        inputs: shape and type of each input.
        stream: to record and replay on.
    """

    def __init__(self, call: Call, inputs: Sequence[tuple[Shape, DType]], stream: Any) -> None:
        import torch

        self._stream = stream
        self._given = [torch.zeros(shape, dtype=torch_type(dtype), pin_memory=True) for shape, dtype in inputs]
        self._held = [one.to(DEVICE, copy=True) for one in self._given]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                made = self._computed(call)
            self._found = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in made]
            self._copy_back(made)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of the process may go on using the device while this one records.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            made = self._computed(call)
            self._copy_back(made)
        self._made = made  # the graph writes to their memory at each replay
        self._ports = [_as_array(one) for one in self._given]
        self._results = [_as_array(one) for one in self._found]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Replay on these inputs; outputs are copies, owned by the caller."""
        import torch

        for port, array in zip(self._ports, arrays, strict=True):
            np.copyto(port, array)
        with torch.cuda.stream(self._stream):
            self._graph.replay()
        self._stream.synchronize()
        return [result.copy() for result in self._results]

    def _computed(self, call: Call) -> list[Any]:
        for held, given in zip(self._held, self._given, strict=True):
            held.copy_(given, non_blocking=True)
        return list(call(list(self._held)))

    def _copy_back(self, made: Sequence[Any]) -> None:
        for found, one in zip(self._found, made, strict=True):
            found.copy_(one, non_blocking=True)


def torch_type(dtype: DType) -> Any:
    """The torch type of an element type."""
    import torch

    names = {DType.FP16: "float16", DType.BF16: "bfloat16", DType.FP32: "float32", DType.FP64: "float64"}
    return getattr(torch, names.get(dtype, dtype.lower()))


def _as_array(tensor: Any) -> Array:
    """The memory of a tensor on the host; BF16 as bit patterns."""
    import torch

    array: Array = (tensor.view(torch.uint16) if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return array
