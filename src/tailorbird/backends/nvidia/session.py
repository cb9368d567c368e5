"""One engine on one device: shapes it has met run as recorded graphs, each request's profile is the narrowest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

from tailorbird.backends.base import WARM_RUNS, Session
from tailorbird.backends.cuda import Stream
from tailorbird.backends.nvidia.flavour import Flavour
from tailorbird.backends.nvidia.inspection import layers_of, timed
from tailorbird.backends.nvidia.loading import Loaded
from tailorbird.backends.nvidia.places import Place, Rooms
from tailorbird.backends.nvidia.stopwatch import Stopwatch
from tailorbird.domain.candidate import Candidate
from tailorbird.domain.dtype import Array
from tailorbird.domain.layers import Layer
from tailorbird.domain.signature import Signature, Tensors

MOST_PLACES = 64
"""Sets of shapes kept ready; the one not used for longest gives way."""


class NvidiaSession(Session):
    """One deserialised engine with its memory, one stream, and a place for each set of shapes it met."""

    def __init__(self, flavour: Flavour, engine: Path, candidate: Candidate, signature: Signature) -> None:
        super().__init__(flavour.name, candidate, signature)
        self._loaded = Loaded(flavour, engine)
        self._loaded.check_tensors(signature)
        self._ranges = self._loaded.ranges(signature)
        self._stream = Stream()
        try:
            self._rooms = Rooms(self._loaded, signature, self._ranges, self._stream)
        except BaseException:  # most often there is no memory left, and others want to live
            self._stream.close()
            raise
        self._places: OrderedDict[tuple[Any, ...], Place] = OrderedDict()

    def _run(self, inputs: Tensors) -> dict[str, Array]:
        key = self._key(inputs)
        place = self._places.get(key)
        if place is None:
            return self._first(key, inputs)
        self._places.move_to_end(key)
        return place.run(inputs, self._stream)

    def _first(self, key: tuple[Any, ...], inputs: Tensors) -> dict[str, Array]:
        """A run at new shapes: as it is, since the library finishes its preparations in it, and then recorded."""
        place = self._place(inputs)
        try:
            place.prepare(self._stream)
            outputs = place.run(inputs, self._stream)
            place.record(self._stream)
        except BaseException:
            place.close()
            raise
        self._places[key] = place
        if len(self._places) > MOST_PLACES:
            self._places.popitem(last=False)[1].close()
        if self._loaded.kernels:
            self._loaded.kernels.keep()
        return outputs

    def _key(self, inputs: Tensors) -> tuple[Any, ...]:
        return tuple(inputs[spec.name].shape for spec in self._signature.inputs)

    def _place(self, inputs: Tensors) -> Place:
        shapes = {name: array.shape for name, array in inputs.items()}
        return Place(self._loaded, self._signature, self._ranges, self._rooms, shapes)

    def _executed_precision(self) -> dict[str, str]:
        return {layer.name: layer.precision for layer in layers_of(self._loaded.information())}

    def _profile(self, inputs: Sequence[Tensors], runs: int) -> tuple[Layer, ...]:
        """Times by the library's own profiler, without recorded graphs, which hide their layers."""
        watch = Stopwatch()
        with ExitStack() as opened:
            places: dict[tuple[Any, ...], Place] = {}
            for one in inputs:
                if self._key(one) not in places:
                    place = opened.enter_context(self._place(one))
                    place.prepare(self._stream)
                    place.watch(watch)
                    places[self._key(one)] = place
            for number, one in zip(range(WARM_RUNS + runs), cycle(inputs), strict=False):
                watch.counts = number >= WARM_RUNS
                places[self._key(one)].run(one, self._stream)
            layers = layers_of(places[self._key(inputs[0])].information())
        return timed(layers, watch.times)

    def _close(self) -> None:
        for place in self._places.values():
            place.close()
        self._places.clear()
        self._rooms.close()
        self._stream.close()
        del self._loaded
