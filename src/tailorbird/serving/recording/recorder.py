"""The recorder: requests are noted in the event loop at the price of a tuple, and written down by a thread.

What it writes is described in :mod:`tailorbird.domain.trace`. A server that is killed loses at most the last
:data:`FLUSH_SECONDS`. Whatever the disk does, requests are answered: what cannot be kept is counted as dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from tailorbird.domain.files import reason
from tailorbird.domain.signature import Signature, Tensors
from tailorbird.domain.trace import TraceForm, form_line, request_line
from tailorbird.serving.hub import LoadedModel
from tailorbird.serving.recording.files import TraceFiles

LIMIT_BYTES = 256 << 20
FLUSH_SECONDS = 0.25
WAITING = 1 << 16
"""Requests noted and not yet written; beyond it they are dropped."""
FORMS = 4096
"""Forms that a file explains; clients choose shapes, so that there must be an end."""
_SLICE = 32
"""Requests made into lines before the event loop may run again."""

_Names = tuple[str, ...]
_Shapes = tuple[tuple[int, ...], ...]
_Note = tuple[float, float, str, LoadedModel, _Names, _Shapes, Mapping[str, Any]]
_shape = attrgetter("shape")

_Told = Callable[[str, str], object]


class Recorder:
    """Writes down what requests looked like, when they came, and what became of them; never what they held.

    Args:
        folder: where to; see :class:`TraceFiles`.
        limit: bytes that all files there may have; the oldest go.
        told: called by the writing thread with what happened and why, once when writing begins to fail, and once when
            it goes on.

    Raises:
        UsageError: as of :class:`TraceFiles`.
    """

    def __init__(self, folder: Path, limit: int = LIMIT_BYTES, told: _Told = lambda *_: None) -> None:
        self._files = TraceFiles(folder, limit)
        self._told = told
        self._started = time.time_ns()
        self._zero = time.monotonic()
        self._notes: deque[_Note] = deque()
        self._forms: dict[tuple[str, int, _Names, _Shapes], int] = {}
        self._failing = False
        self.recorded = 0
        """Requests written."""
        self._lost = 0
        self._missed = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, name="tailorbird recorder", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Requests that could not be kept: too many at once, or the disk refused them."""
        return self._missed + self._lost

    def note(
        self,
        model: LoadedModel,
        inputs: Tensors,
        parameters: Mapping[str, Any],
        arrived: float,
        seconds: float,
        outcome: str = "",
    ) -> None:
        """One request is over; called in the event loop.

        Args:
            model: who it was for.
            inputs: of which the shapes are taken.
            parameters: of which ``priority`` and ``timeout`` are.
            arrived: by the monotonic clock.
            seconds: until it was answered or refused.
            outcome: why it got no answer; empty if it did.
        """
        notes = self._notes
        if len(notes) >= WAITING:
            self._missed += 1
            return
        shapes = tuple(map(_shape, inputs.values()))
        notes.append((arrived, seconds, outcome, model, tuple(inputs), shapes, parameters))

    def close(self) -> None:
        """Write what is left, and end; blocks until that is done."""
        self._ending.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._ending.wait(FLUSH_SECONDS):
            self._flush()
        self._flush()
        try:
            self._files.close()
        except OSError as error:
            self._told("the recording could not be finished", reason(error))

    def _flush(self) -> None:
        left = len(self._notes)
        try:
            while left:
                notes = [self._notes.popleft() for _ in range(min(left, _SLICE))]
                self._keep(notes)
                left -= len(notes)
                self.recorded += len(notes)
                self._say("")
                time.sleep(0)  # whoever waits for the interpreter is the event loop
        except OSError as error:
            self._lost += left
            for _ in range(left - len(notes)):
                self._notes.popleft()
            self._say(reason(error))

    def _keep(self, notes: list[_Note]) -> None:
        """Write them down; raises :class:`OSError`."""
        if not self._files.is_open or len(self._forms) > FORMS:
            self._files.finish()
            self._forms.clear()
            self._files.begin(self._started)
        self._files.append("".join(self._lines(notes)).encode())

    def _say(self, trouble: str) -> None:
        if bool(trouble) != self._failing:
            self._failing = bool(trouble)
            self._told("requests are not recorded" if trouble else "requests are recorded again", trouble)

    def _lines(self, notes: list[_Note]) -> Iterator[str]:
        for arrived, seconds, outcome, model, names, shapes, parameters in notes:
            key = (model.name, model.version, names, shapes)
            form = self._forms.get(key)
            if form is None:
                form = self._forms[key] = len(self._forms)
                yield form_line(_form(form, model, dict(zip(names, shapes, strict=True)))).decode()
            at, latency = max(0, int((arrived - self._zero) * 1e9)), int(seconds * 1e9)
            if parameters:
                priority, timeout = _whole(parameters, "priority"), _whole(parameters, "timeout")
                yield request_line(at, form, latency, outcome, priority, timeout)
            else:
                yield request_line(at, form, latency, outcome)


def _form(number: int, model: LoadedModel, shapes: Mapping[str, tuple[int, ...]]) -> TraceForm:
    """Names that the model does not know are a client's, and are left out."""
    signature = model.signature
    known = {spec.name: shapes[spec.name] for spec in signature.inputs if spec.name in shapes}
    return TraceForm(number, model.name, model.version, _rows(signature, known), known)


def _rows(signature: Signature, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The leading dim, where the signature says that it counts rows; else 1."""
    if signature.batch_dim is None:
        return 1
    return next((shape[0] for shape in shapes.values() if shape), 1)


def _whole(parameters: Mapping[str, Any], name: str) -> int:
    value = parameters.get(name, 0)
    return value if type(value) is int and 0 <= value < 1 << 63 else 0
