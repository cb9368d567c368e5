"""The client: reads a page through the official ``tritonclient``, as any program of a user's would."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from tailorbird.demo.boxes import Box, boxes, rows
from tailorbird.demo.ctc import characters_right, decode
from tailorbird.demo.models import DETECTOR, INPUT, RECOGNISER
from tailorbird.demo.pages import Page
from tailorbird.demo.strips import cut, normalised, strip
from tailorbird.domain.closing import Closing
from tailorbird.domain.dtype import Array

ROUNDS = 3
"""Times each page is read; the median of the latencies is told."""


@dataclass(frozen=True)
class ReadLine:
    """One row of text on a page."""

    text: str
    confidence: float
    """Mean over its pieces, 0 to 1."""
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Reading:
    """What was read on a page, and how long the client waited for it."""

    page: Page
    lines: tuple[ReadLine, ...]
    detect_ms: float
    """One request: the page."""
    read_ms: float
    """Median of the requests for single strips."""
    page_ms: float
    """The whole page: all requests, and the client's own work in between."""
    requests: int

    @property
    def right(self) -> float:
        """The share of the page's characters that were read, 0 to 1."""
        return characters_right(" ".join(self.page.lines), " ".join(line.text for line in self.lines))


class Reader(Closing):
    """A client of one server; close it, or use it as a context manager.

    Args:
        url: the server's base URL.
        characters: the recogniser's, by class.
    """

    def __init__(self, url: str, characters: Sequence[str]) -> None:
        self._client = InferenceServerClient(url.removeprefix("http://"))
        self._characters = characters
        self._outputs = {model.name: self._output(model.name) for model in (DETECTOR, RECOGNISER)}
        self._ms: dict[str, list[float]] = {}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def read(self, page: Page) -> Reading:
        """Read a page ``ROUNDS`` times, after once to warm up."""
        self._lines(page)
        readings = [self._timed(page) for _ in range(ROUNDS)]
        return sorted(readings, key=lambda reading: reading.page_ms)[ROUNDS // 2]

    def _timed(self, page: Page) -> Reading:
        self._ms = {DETECTOR.name: [], RECOGNISER.name: []}
        start = time.perf_counter()
        lines = self._lines(page)
        page_ms = (time.perf_counter() - start) * 1e3
        (detect_ms,), strips = self._ms[DETECTOR.name], self._ms[RECOGNISER.name]
        return Reading(page, lines, detect_ms, statistics.median(strips or [0.0]), page_ms, 1 + len(strips))

    def _lines(self, page: Page) -> tuple[ReadLine, ...]:
        probabilities = self._ask(DETECTOR.name, normalised(page.pixels))[0, 0]
        return tuple(self._line(page, row) for row in rows(boxes(probabilities)))

    def _line(self, page: Page, row: Sequence[Box]) -> ReadLine:
        pieces = [piece for box in row for piece in cut(box.crop(page.pixels))]
        read = [decode(self._ask(RECOGNISER.name, strip(piece))[0], self._characters) for piece in pieces]
        confidence = statistics.fmean(found for _, found in read)
        return ReadLine(" ".join(text.strip() for text, _ in read), confidence, tuple(row))

    def _ask(self, model: str, array: Array) -> Array:
        """One request with binary tensors: one array in, one out."""
        start = time.perf_counter()
        given = InferInput(INPUT, list(array.shape), "FP32").set_data_from_numpy(array, binary_data=True)
        wanted = InferRequestedOutput(self._outputs[model], binary_data=True)
        answer: Any = self._client.infer(model, [given], outputs=[wanted])
        found: Array = answer.as_numpy(self._outputs[model])
        self._ms.setdefault(model, []).append((time.perf_counter() - start) * 1e3)
        return found

    def _output(self, model: str) -> str:
        """The name of a model's one output, as the server's metadata has it."""
        return str(self._client.get_model_metadata(model)["outputs"][0]["name"])
