"""Times of layers, as the library's own profiler tells them."""

from __future__ import annotations

from typing import Any


class Stopwatch:
    """Milliseconds of each layer's runs, by name, in the order the layers first ran."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self.counts = True
        """Whether runs count; those that warm up do not."""

    def add(self, name: str, milliseconds: float) -> None:
        """One layer's time in one run; a layer that runs several times in it is told once for each."""
        if self.counts:
            self.times.setdefault(name, []).append(milliseconds)

    def profiler(self, trt: Any) -> Any:
        """An ``IProfiler`` that reports here, and must live as long as the context it watches."""
        watch = self

        class Profiler(trt.IProfiler):  # the base is known only here
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                watch.add(layer_name, ms)

        return Profiler()
