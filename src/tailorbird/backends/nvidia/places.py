"""A place: one set of input shapes that an engine has run at, ready to run again at once.

Each has an execution context of its own, because a recorded graph is only good while the context it was recorded
from is left alone ("CUDA graphs" in NVIDIA's TensorRT guide). What they share is the memory: one buffer for each
tensor, large enough for every profile, and one for inner values, since one place runs at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tailorbird.backends.cuda import Buffer, Recording, Stream
from tailorbird.backends.nvidia.loading import Loaded, inner_bytes
from tailorbird.backends.nvidia.ranges import narrowest
from tailorbird.backends.nvidia.stopwatch import Stopwatch
from tailorbird.domain.closing import Closing
from tailorbird.domain.dtype import Array
from tailorbird.domain.errors import BackendError
from tailorbird.domain.profile import Profile
from tailorbird.domain.signature import Shape, Shapes, Signature, Tensors, TensorSpec


class Rooms(Closing):
    """Memory that all places of a session share."""

    def __init__(self, loaded: Loaded, signature: Signature, ranges: Sequence[Profile], stream: Stream) -> None:
        self.tensors: dict[str, Buffer] = {}
        self.inner: Buffer | None = None
        try:
            self.inner = Buffer(inner_bytes(loaded.engine), pinned=False)
            for name, size in _sizes(loaded, signature, ranges, stream).items():
                self.tensors[name] = Buffer(size)
        except BaseException:
            self.close()
            raise

    def lend(self, context: Any) -> None:
        """Give a context the addresses of all of it."""
        assert self.inner is not None
        context.set_device_memory(self.inner.address, self.inner.size)
        for name, buffer in self.tensors.items():
            if not context.set_tensor_address(name, buffer.address):
                raise BackendError(f"the runtime refused the memory of tensor '{name}'")

    def close(self) -> None:
        """Give it all back; a second call does nothing."""
        for buffer in (*self.tensors.values(), *filter(None, (self.inner,))):
            buffer.close()


class Place(Closing):
    """Runs one set of input shapes."""

    def __init__(
        self, loaded: Loaded, signature: Signature, ranges: Sequence[Profile], rooms: Rooms, shapes: Shapes
    ) -> None:
        self._loaded, self._rooms = loaded, rooms
        self._context = loaded.context()
        self._graph: Recording | None = None
        self._profiler: Any = None
        self.recorded = ""
        """Why there is no recorded graph; empty where there is one, or before the first run."""
        self._shapes = shapes
        self._index = narrowest(ranges, shapes)
        self._signature = signature
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}

    def prepare(self, stream: Stream) -> None:
        """Settle shapes and memory, before the first run."""
        self._rooms.lend(self._context)
        bind(self._loaded, self._context, self._index, self._shapes, stream)
        told = output_shapes(self._context, self._signature.outputs)
        self._inputs = {spec.name: self._view(spec, self._shapes[spec.name]) for spec in self._signature.inputs}
        self._outputs = {spec.name: self._view(spec, told[spec.name]) for spec in self._signature.outputs}

    def run(self, inputs: Tensors, stream: Stream) -> dict[str, Array]:
        """Every output, copied out of the shared memory."""
        for name, view in self._inputs.items():
            view[...] = inputs[name]
        if self._graph is not None:
            self._graph.launch(stream)
        else:
            self._queue(stream)
        stream.wait()
        return {name: view.copy() for name, view in self._outputs.items()}

    def record(self, stream: Stream) -> None:
        """Record what a run queues, once it has run; where that cannot be, runs go on as they are."""
        capturable = getattr(self._context, "is_stream_capturable", None)
        if capturable is not None and not capturable(stream.handle):
            self.recorded = "the engine cannot be recorded"
            return
        try:
            self._graph = stream.record(lambda: self._queue(stream))
        except BackendError as error:
            self.recorded = error.message

    def watch(self, watch: Stopwatch) -> None:
        """Have every layer's time reported from now on."""
        self._context.profiler = self._profiler = watch.profiler(self._loaded.trt)

    def information(self) -> str:
        """The inspector's JSON for the profile it runs with."""
        return self._loaded.information(self._context)

    def close(self) -> None:
        """Give back the graph and the context; a second call does nothing."""
        if self._graph is not None:
            self._graph.close()
        self._inputs, self._outputs, self._context = {}, {}, None

    def _queue(self, stream: Stream) -> None:
        tensors = self._rooms.tensors
        for name, view in self._inputs.items():
            tensors[name].send(view.nbytes, stream)
        execute(self._loaded, self._context, stream)
        for name, view in self._outputs.items():
            tensors[name].fetch(view.nbytes, stream)

    def _view(self, spec: TensorSpec, shape: Shape) -> Array:
        return self._rooms.tensors[spec.name].view(spec.dtype.numpy, shape)


def bind(loaded: Loaded, context: Any, index: int, shapes: Shapes, stream: Stream) -> None:
    """Choose a profile of a context, and the shapes that it runs."""
    if index != context.active_optimization_profile:
        if not context.set_optimization_profile_async(index, int(stream.handle)):
            raise loaded.heard.failure("the runtime refused the profile", otherwise=f"profile {index}")
        stream.wait()
    for name, shape in shapes.items():
        if not context.set_input_shape(name, shape):
            raise loaded.heard.failure(f"the runtime refused the shape of input '{name}'", otherwise=str(shape))


def output_shapes(context: Any, specs: Sequence[TensorSpec]) -> Mapping[str, Shape]:
    """Shapes of the outputs, which follow from those of the inputs.

    Raises:
        BackendError: one depends on the values, too; its size is then known only after a run.
    """
    missing = context.infer_shapes()
    if missing:
        raise BackendError("the runtime cannot tell the outputs' shapes", got=", ".join(missing))
    shapes = {spec.name: tuple(context.get_tensor_shape(spec.name)) for spec in specs}
    for name, shape in shapes.items():
        if any(size < 0 for size in shape):
            raise BackendError(f"the shape of output '{name}' depends on the inputs' values",
                               got="x".join(map(str, shape)), hint="use another runtime")  # fmt: skip
    return shapes


def execute(loaded: Loaded, context: Any, stream: Stream) -> None:
    """Queue one run."""
    if not context.execute_async_v3(int(stream.handle)):
        raise loaded.heard.failure("the runtime could not run the engine", otherwise="no reason given")


def _sizes(loaded: Loaded, signature: Signature, ranges: Sequence[Profile], stream: Stream) -> dict[str, int]:
    """Bytes of every tensor at the profile that needs most."""
    sizes: dict[str, int] = {}
    for index, one in enumerate(ranges):
        context = loaded.context()
        bind(loaded, context, index, one.max, stream)
        output_shapes(context, signature.outputs)
        for spec in signature.inputs:
            _raise(sizes, spec.name, int(np.prod(one.max[spec.name], dtype=np.int64)) * spec.dtype.itemsize)
        for spec in signature.outputs:
            _raise(sizes, spec.name, context.get_max_output_size(spec.name))
    return sizes


def _raise(sizes: dict[str, int], name: str, size: int) -> None:
    sizes[name] = max(size, sizes.get(name, 0))
